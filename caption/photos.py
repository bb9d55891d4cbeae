"""Captioned photographs as people keep them: five layouts are read into one form.

Each reader returns {name: (split or None, captions)}. A name is relative to the folder of images. A
name that climbs out of that folder is refused. An absolute path is allowed in a CSV or TSV only,
because people write those themselves. JSON files, such as COCO's, come from elsewhere.
"""

import contextlib
import csv
import io
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from base import files, images
from base.files import UserError
from base.listing import files_below

Photos = dict[str, tuple[str | None, list[str]]]  # {name: (split or None, captions)}

# The sizes of train, val and test that papers report on.
KARPATHY = {
    "dataset_coco": (113_287, 5_000, 5_000),
    "dataset_flickr30k": (29_000, 1_014, 1_000),
    "dataset_flickr8k": (6_000, 1_000, 1_000),
}
# Other names of the splits. restval counts as train in all papers.
SPLITS = {"restval": "train", "validation": "val", "valid": "val", "dev": "val"}
# Columns of captions on the hub begin with these words; the first word that fits is taken.
COLUMNS = ("caption", "sentence", "text", "raw", "answer")
LAYOUTS = (
    "COCO's or Karpathy's JSON, a CSV or TSV of image,caption, "
    "a folder of images and .txt files, or owner/name of a hub data set"
)
# Files of captions in a folder.
FILES = (
    "captions*.txt",
    "captions_*.json",
    "dataset_*.json",
    "*.csv",
    "*.tsv",
    "*.token",
    "*.token.txt",
)
TEXTS = (".txt", ".caption")  # text files of images
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
# A crop keeps at least this share of each side: smaller crops lose what the captions name.
SMALLEST_CROP = 0.8


# ---- the layouts ------------------------------------------------------------------------------


def from_coco(content: dict) -> Photos:
    """captions_*.json: names in `images`, captions in `annotations`."""
    names = {image["id"]: image["file_name"] for image in content["images"]}
    photos: Photos = {name: (None, []) for name in names.values()}
    for annotation in content["annotations"]:
        _, captions = photos[names[annotation["image_id"]]]
        captions.append(annotation["caption"])
    return photos


def from_karpathy(content: dict, stem: str) -> Photos:
    """dataset_*.json: a split and sentences for each image.

    stem: the file's name, for the check.
    """
    photos: Photos = {}
    for image in content["images"]:
        name = str(Path(image.get("filepath", "")) / image["filename"])
        split = SPLITS.get(image["split"], image["split"])
        photos[name] = split, [sentence["raw"] for sentence in image["sentences"]]
    sizes = Counter(split for split, _ in photos.values())
    key = f"dataset_{content['dataset']}" if "dataset" in content else stem
    usual = KARPATHY.get(key)
    if usual and tuple(sizes[name] for name in ("train", "val", "test")) != usual:
        message = f"note: {stem} has {dict(sizes)} images; the usual split has {usual}"
        print(message, file=sys.stderr)
    return photos


def from_table(path: Path) -> Photos:
    """A CSV or TSV of image,caption. name.jpg#3 is name.jpg.

    A first row whose image has no suffix is a header. Raises UserError for a quote left open.
    """
    photos: Photos = {}
    with io.StringIO(
        files.read_text(path, "captions in UTF-8", "check --captions"), newline=""
    ) as file:
        first = file.readline()
        file.seek(0)
        tabs = "\t" in first and "," not in first.split("\t")[0]
        if tabs:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            # Strict: a lenient reader would swallow every row up to the next quotation mark.
            rows = csv.reader(file, strict=True)
        try:
            for number, row in enumerate(rows):
                name = re.sub(r"#\d+$", "", row[0].strip()) if row else ""
                is_header = number == 0 and not Path(name).suffix
                if len(row) < 2 or is_header:
                    continue
                # A caption with commas and no quotation marks was cut by the reader.
                caption = row[1] if tabs else ",".join(row[1:])
                _, captions = photos.setdefault(name, (None, []))
                captions.append(caption)
        except csv.Error as error:
            raise UserError(
                f"{path} with a quotation mark out of place, "
                f"at or before line {rows.line_num} ({error})",
                'captions with commas or quotation marks as "a ""quoted"" word, another"',
                "mend that line",
            ) from error
    return photos


def from_folder(texts: Path, folder: Path) -> Photos:
    """Images in `folder` with a text file of the same name in `texts`, a caption per line.

    Text files without an image are counted on the screen.
    """
    paths: dict[Path, list[Path]] = {}
    for path in files_below(texts, TEXTS).paths:
        paths.setdefault(path.relative_to(texts).with_suffix(""), []).append(path)
    photos: Photos = {}
    for path in images.list_images(folder, used=TEXTS):
        name = path.relative_to(folder)
        captions: list[str] = []
        for text in paths.get(name.with_suffix(""), []):
            captions += files.read_text(text, "captions in UTF-8", "check --captions").splitlines()
        photos[str(name)] = None, captions
    taken = {Path(name).with_suffix("") for name in photos}
    alone = [text for name, texts_of in paths.items() if name not in taken for text in texts_of]
    if alone:
        message = f"{len(alone):,} text files belong to no image (the first: {alone[0]})"
        print(message, file=sys.stderr)
    return photos


# ---- the hub ----------------------------------------------------------------------------------


def from_hub(name: str, folder: Path, most: int) -> Photos:
    """Stream a hub data set; save its images as folder/split/number.jpg.

    most: images of each split; 0 means all. Images that were saved before are kept.
    Raises UserError if the data set cannot be read, or has no column of images or captions.
    """
    import datasets  # slow to import, and only needed here

    photos: Photos = {}
    try:
        for split, stream in datasets.load_dataset(name, streaming=True).items():
            rows = stream.decode(False)  # the bytes of an image, not its pixels
            rows = rows.take(most) if most else rows
            for number, row in enumerate(tqdm(rows, desc=f"{name} {split}", unit="image")):
                image, captions = columns_of(row, name)
                own = row.get("split") if isinstance(row.get("split"), str) else split
                path = f"{split}/{number:06d}.jpg"
                photos[path] = SPLITS.get(own, own), captions
                save_image(image, folder, path)
    except (OSError, ValueError, RuntimeError) as error:
        # The library's own errors derive from these three.
        kind = type(error).__name__
        raise UserError(
            f"no file {name}, and no way to a hub data set of that name ({kind})",
            LAYOUTS,
            "check --captions, or the network",
        ) from error
    if len({split for split, _ in photos.values()}) > 1:
        return photos
    # The name of a single split says nothing: val is then drawn from it.
    return {path: (None, captions) for path, (_, captions) in photos.items()}


def columns_of(row: dict, name: str) -> tuple[dict, list[str]]:
    """The image ({"bytes", "path"}) and the captions in a row of a hub data set."""
    image = None
    for value in row.values():
        if isinstance(value, dict) and {"bytes", "path"} <= set(value):
            image = value
            break
    begin = None
    for word in COLUMNS:
        if any(key.startswith(word) for key in row):
            begin = word
            break
    if image is None or begin is None:
        found = f"the columns {' '.join(row)} in {name}"
        expected = f"images, and one of {' '.join(COLUMNS)}"
        raise UserError(found, expected, "check --captions")
    captions: list[str] = []
    for key, value in row.items():
        if key.startswith(begin):
            captions += [value] if isinstance(value, str) else value or []
    return image, captions


def save_image(image: dict, folder: Path, path: str) -> None:
    """Write an image of the hub as a JPEG, unless it is there.

    image: its "bytes", or its "path".
    """
    import fsspec

    if files.inside(folder, path).exists():
        return
    content = image["bytes"] or fsspec.open(image["path"], "rb").open().read()
    if not content.startswith(b"\xff\xd8"):  # not a JPEG
        # A damaged image is saved as it is; the script names it later, with all the others.
        with contextlib.suppress(UserError), io.BytesIO() as jpeg:
            images.open_image(content).save(jpeg, "JPEG", quality=95)
            content = jpeg.getvalue()
    with files.replacing(folder / path) as file:
        file.write(content)


# ---- one form ---------------------------------------------------------------------------------


def find_file(path: Path) -> Path:
    """The only file of captions in a folder, else the path itself.

    Raises UserError if there are several such files.
    """
    if not path.is_dir():
        return path
    candidates = sorted({file for pattern in FILES for file in path.glob(pattern)})
    inside = []
    for file in candidates:
        # captions1.txt next to captions1.jpg holds that image's captions only.
        belongs_to_image = any(file.with_suffix(suffix).exists() for suffix in images.SUFFIXES)
        if file.is_file() and not belongs_to_image:
            inside.append(file)
    if len(inside) > 1:
        names = " ".join(file.name for file in inside[:5])
        found = f"{len(inside)} files of captions in {path} ({names})"
        raise UserError(found, "a single file", "name it with --captions")
    return inside[0] if inside else path


def images_beside(path: Path) -> Path:
    """The folder of the images that belong to the captions at `path`."""
    if path.is_dir():  # of images and .txt files; a folder images/ below is only a part of it
        return path
    for name in ("images", "Images"):
        if (path.parent / name).is_dir():
            return path.parent / name
    return path.parent


def read(name: str, folder: Path, most: int = 0) -> Photos:
    """Tell the layout apart and read it; captions without stray spaces, images without any left
    out.

    folder: where the images are, or where the images of a hub data set go, `most` of each split.
    Raises UserError if the layout is unknown, a name climbs out of `folder`, or there is no
    caption.
    """
    path = Path(name)
    try:
        photos = read_layout(name, path, folder, most)
        clean: Photos = {}
        for photo, (split, captions) in photos.items():
            files.inside(folder, photo, absolute=path.suffix != ".json")
            texts = [" ".join(caption.split()) for caption in captions]
            clean[str(Path(photo))] = split, [text for text in texts if text]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"{path} of a layout that is not known ({type(error).__name__}: {error})"
        raise UserError(found, LAYOUTS, "check --captions") from error
    bare = sum(not captions for _, captions in clean.values())
    if bare:
        message = f"{bare:,} of {len(clean):,} images have no caption and are left out"
        print(message, file=sys.stderr)
    if bare == len(clean):
        raise UserError(f"no caption in {path}", LAYOUTS, "check --captions")
    return {photo: entry for photo, entry in clean.items() if entry[1]}


def read_layout(name: str, path: Path, folder: Path, most: int) -> Photos:
    """Read `path`, or the hub data set `name` if there is no such path, by its layout."""
    if not path.exists():
        return from_hub(name, folder, most)
    if path.is_dir():
        return from_folder(path, folder)
    if path.suffix != ".json":
        return from_table(path)
    content = files.read_json(path, "captions in UTF-8", "check --captions")
    if "annotations" in content:
        return from_coco(content)
    return from_karpathy(content, path.stem)


def views_of(record: dict, count: int, rng: np.random.Generator) -> list[dict]:
    """A record and count - 1 copies of it, each with a `view`: a crop for `images.look`.

    A crop keeps at least 80% of each side. Every second crop is mirrored; its record has no caption
    that tells left from right. If all captions do, the crop is not mirrored.
    """
    result = [record]
    for number in range(1, count):
        size = rng.uniform(SMALLEST_CROP, 1.0, 2)
        corner = rng.uniform(0.0, 1.0 - size)
        sideless = [text for text in record["captions"] if not SIDES.search(text)]
        mirrored = number % 2 == 1 and bool(sideless)
        box = [round(float(value), 4) for value in (*corner, *(corner + size))]
        captions = sideless if mirrored else record["captions"]
        result.append({**record, "captions": captions, "view": [*box, int(mirrored)]})
    return result


def with_views(records: list[dict], views: int, seed: int) -> list[dict]:
    """The records, each training record followed by its crops."""
    rng = np.random.default_rng([seed, 1])  # the 1 keeps these draws apart from those of the splits
    result = []
    for record in records:
        result += views_of(record, views if record["split"] == "train" else 1, rng)
    return result
