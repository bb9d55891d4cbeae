"""Captioned photographs as people keep them: every layout is read into one form.

The form is {name: (split or None, captions)}. A name is relative to the folder of images. A name
that climbs out of that folder is refused. An absolute path is allowed in a table only, because
people write tables themselves. JSON files, such as COCO's, come from elsewhere.
"""

import contextlib
import io
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from base import files, images
from base.files import UserError
from base.listing import files_below, matching
from caption import annotations, columns, tables
from caption.annotations import Annotated
from caption.collected import KNOWN_SPLITS, Collected, Photos
from loop import progress

# The sizes of train, val and test that papers report on.
KARPATHY = {
    "dataset_coco": (113_287, 5_000, 5_000),
    "dataset_flickr30k": (29_000, 1_014, 1_000),
    "dataset_flickr8k": (6_000, 1_000, 1_000),
}
# Columns of captions on the hub begin with these words; the first word that fits is taken.
COLUMNS = ("caption", "sentence", "text", "raw", "answer")
LAYOUTS = (
    "COCO's or Karpathy's JSON, a table or JSON lines with the columns image and caption, "
    "a folder of images with .txt files or metadata.csv, or owner/name of a hub data set"
)
JSON = (".json", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")  # of an imagefolder; names are relative to the file
# Files of captions in a folder.
FILES = (
    "captions*.txt",
    "captions_*.json",
    "dataset_*.json",
    "*.csv",
    "*.tsv",
    "*.token",
    "*.token.txt",
    "metadata.jsonl",
)
TEXTS = (".txt", ".caption")  # text files of images
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
# A crop keeps at least this share of each side: smaller crops lose what the captions name.
SMALLEST_CROP = 0.8


# ---- the layouts ------------------------------------------------------------------------------


def from_json(path: Path, found: Collected) -> None:
    """COCO's captions_*.json, Karpathy's dataset_*.json, or objects with columns as keys.

    Raises UserError for anything else, and for a malformed record.
    """
    content = annotations.parse(path, "captions", "check --captions")
    source = annotations.Source(path, LAYOUTS)
    if isinstance(content, list):
        return columns.read_records(path, content, found)
    if not isinstance(content, dict):
        raise source.malformed("neither an object nor a list")
    if "annotations" in content:
        found.unit = "captions"
        return gather(annotations.from_coco(content, source, need_files=True), found)
    if "images" in content:
        found.unit = "captions"
        entries = annotations.from_karpathy(content, source)
        gather(entries, found)
        return note_sizes(content, path.stem, found.photos)
    if columns.columns_of(list(content)):  # a single line of JSON
        return columns.read_records(path, [content], found)
    raise columns.not_understood(path, list(content))


def gather(entries: list[Annotated], found: Collected) -> None:
    """Add the images of an annotation file, also those without a caption."""
    for entry in entries:
        found.records += len(entry.captions)
        found.add(entry.file or "", entry.split, entry.captions, f"the image {entry.id}")
        for caption in entry.captions:
            if not caption.strip():
                found.leave_out(f"the image {entry.file}", "an empty caption")


def note_sizes(content: dict, stem: str, photos: Photos) -> None:
    """Say so if a known data set has other sizes than papers report on. stem: the file's name."""
    sizes = Counter(split for split, _ in photos.values())
    key = f"dataset_{content['dataset']}" if "dataset" in content else stem
    usual = KARPATHY.get(key)
    if usual and tuple(sizes[name] for name in ("train", "val", "test")) != usual:
        message = f"note: {stem} has {dict(sizes)} images; the usual split has {usual}"
        print(message, file=sys.stderr)


def from_file(path: Path, found: Collected) -> None:
    """A file of captions: JSON by its suffix, else a table."""
    if path.suffix.lower() in JSON:
        return from_json(path, found)
    return tables.read(path, files.read_text(path, "captions in UTF-8", "check --captions"), found)


def metadata_below(folder: Path) -> list[Path]:
    """The metadata files of an imagefolder: in the folder and in the folders of its splits."""
    suffixes = {Path(name).suffix for name in METADATA}
    return [path for path in files_below(folder, suffixes).paths if path.name in METADATA]


def from_imagefolder(paths: list[Path], root: Path, found: Collected) -> None:
    """Files metadata.csv or metadata.jsonl next to their images, as the hub's imagefolder has them.

    A folder named after a split gives its images that split, unless the file has a column for it.
    """
    for path, after in zip(paths, [*paths[1:], None], strict=True):
        if after and after.parent == path.parent:
            raise UserError(
                f"both {path} and {after.name}", "one of them", "remove the file that is older"
            )
        below = path.parent.relative_to(root)
        own = Collected(str(path), found.folder / below, absolute=path.suffix not in JSON)
        from_file(path, own)
        own.report()
        for name, (split, captions) in own.photos.items():
            image = str(below / name)
            folders = [part for part in Path(image).parts[:-1] if part.lower() in KNOWN_SPLITS]
            found.add(image, split or next(iter(folders), None), captions, str(path))


def from_folder(texts: Path, found: Collected) -> None:
    """Images with a text file of the same name in `texts`, a caption per line.

    Text files without an image are counted on the screen.
    """
    paths: dict[Path, list[Path]] = {}
    for path in files_below(texts, TEXTS).paths:
        paths.setdefault(path.relative_to(texts).with_suffix(""), []).append(path)
    taken = set()
    for path in images.list_images(found.folder, used=TEXTS):
        name = path.relative_to(found.folder)
        taken.add(name.with_suffix(""))
        captions: list[str] = []
        for text in paths.get(name.with_suffix(""), []):
            captions += files.read_text(text, "captions in UTF-8", "check --captions").splitlines()
        found.add(name.as_posix(), None, captions, str(path))
    alone = [text for name, texts_of in paths.items() if name not in taken for text in texts_of]
    if alone:
        message = f"{len(alone):,} text files belong to no image (the first: {alone[0]})"
        print(message, file=sys.stderr)


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
            for number, row in enumerate(progress.bar(rows, f"{name} {split}", unit="image")):
                image, captions = columns_of(row, name)
                own = row.get("split") if isinstance(row.get("split"), str) else split
                path = f"{split}/{number:06d}.jpg"
                photos[path] = own, captions
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
    keys = [key for key in row if key.startswith(begin)]
    # caption_0 is a caption, caption_id is none.
    keys = [key for key in keys if columns.holds_captions(key, begin)] or keys
    captions: list[str] = []
    for key in keys:
        texts = columns.texts_in(row[key])
        if texts is None:
            found = f"the column {key} in {name}, which holds no texts"
            raise UserError(found, "captions as texts or lists of texts", "check --captions")
        captions += texts
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

    The metadata files of an imagefolder are read together: then the path is their folder.
    Raises UserError if there are several other files.
    """
    if not path.is_dir():
        return path
    # metadata.csv in a folder below: all such files are read together.
    metadata = metadata_below(path)
    together = metadata if any(file.parent != path for file in metadata) else []
    inside = []
    for file in matching(path, *FILES):
        # captions1.txt next to captions1.jpg holds that image's captions only.
        belongs_to_image = any(file.with_suffix(suffix).exists() for suffix in images.SUFFIXES)
        if not belongs_to_image and file not in together:
            inside.append(file)
    if len(inside) > 1 or (inside and together):
        found_files = inside + together
        names = " ".join(str(file.relative_to(path)) for file in found_files[:5])
        found = f"{len(found_files)} files of captions in {path} ({names})"
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
    Raises UserError if the layout is unknown, a name climbs out of `folder`, an image has two
    splits, or there is no caption.
    """
    path = Path(name)
    found = Collected(name, folder, absolute=path.suffix.lower() not in JSON)
    read_layout(name, path, found, most)
    found.report()
    photos = found.photos
    bare = sum(not captions for _, captions in photos.values())
    if bare:
        message = f"{bare:,} of {len(photos):,} images have no caption and are left out"
        print(message, file=sys.stderr)
    if bare == len(photos):
        raise UserError(f"no caption in {path}", LAYOUTS, "check --captions")
    return {photo: entry for photo, entry in photos.items() if entry[1]}


def read_layout(name: str, path: Path, found: Collected, most: int) -> None:
    """Read `path`, or the hub data set `name` if there is no such path, by its layout."""
    if not path.exists():
        for image, (split, captions) in from_hub(name, found.folder, most).items():
            found.add(image, split, captions, image)
    elif path.name in METADATA:
        from_imagefolder([path], path.parent, found)
    elif not path.is_dir():
        from_file(path, found)
    elif metadata := metadata_below(path):
        from_imagefolder(metadata, path, found)
    else:
        from_folder(path, found)


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
