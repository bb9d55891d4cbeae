"""Captioned photographs as people keep them: five layouts, one form (floor 0).

Each reader returns {picture: (split or None, captions)}, pictures named relative to the folder that holds them. A name that
climbs out of it is refused. An absolute path is taken from a CSV or TSV only, which people write themselves: JSON files of
captions, as COCO's, come from elsewhere.
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

KARPATHY = {
    "dataset_coco": (113_287, 5_000, 5_000),
    "dataset_flickr30k": (29_000, 1_014, 1_000),
    "dataset_flickr8k": (6_000, 1_000, 1_000),
}
SPLITS = {
    "restval": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
}  # other names; restval is train, as everybody counts it
TEXTS = (
    "caption",
    "sentence",
    "text",
    "raw",
    "answer",
)  # how columns of captions begin on the hub; the first that fits
LAYOUTS = "COCO's or Karpathy's JSON, a CSV or TSV of image,caption, a folder of pictures and .txt files, or owner/name of a hub data set"
FILES = (
    "captions*.txt",
    "captions_*.json",
    "dataset_*.json",
    "*.csv",
    "*.tsv",
    "*.token",
    "*.token.txt",
)  # captions in a folder
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
Found = dict[str, tuple[str | None, list[str]]]  # {picture: (split or None, captions)}


def from_coco(content: dict) -> Found:
    """captions_*.json: names in images, texts in annotations."""
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: Found = {name: (None, []) for name in names.values()}
    for note in content["annotations"]:
        found[names[note["image_id"]]][1].append(note["caption"])
    return found


def from_karpathy(content: dict, stem: str) -> Found:
    """dataset_*.json: a split and sentences for each picture."""
    found: Found = {
        str(Path(image.get("filepath", "")) / image["filename"]): (
            SPLITS.get(image["split"], image["split"]),
            [one["raw"] for one in image["sentences"]],
        )
        for image in content["images"]
    }
    sizes = Counter(split for split, _ in found.values())
    usual = KARPATHY.get(f"dataset_{content['dataset']}" if "dataset" in content else stem)
    if usual and tuple(sizes[name] for name in ("train", "val", "test")) != usual:
        print(
            f"note: {stem} has {dict(sizes)} pictures; the usual split has {usual}", file=sys.stderr
        )
    return found


def from_table(path: Path) -> Found:
    """A CSV or TSV. A header is a first row whose picture has no suffix; name.jpg#3 is name.jpg. A quote left open is an error."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        tabs = "\t" in first and "," not in first.split("\t")[0]
        rows = (
            csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if tabs
            else csv.reader(file, strict=True)
        )
        found: Found = {}
        try:
            for number, row in enumerate(rows):
                name = re.sub(r"#\d+$", "", row[0].strip()) if row else ""
                if len(row) >= 2 and (number or Path(name).suffix):
                    found.setdefault(name, (None, []))[1].append(
                        row[1] if tabs else ",".join(row[1:])
                    )
        except (
            csv.Error
        ) as error:  # read leniently, it would swallow every row up to the next quotation mark
            raise UserError(
                f"{path} with a quotation mark out of place, at or before line {rows.line_num} ({error})",
                'captions with commas or quotation marks as "a ""quoted"" word, another"',
                "mend that line",
            ) from error
    return found


def from_folder(texts: Path, folder: Path) -> Found:
    """Pictures that have a text file of the same name, a caption a line."""
    names = [path.relative_to(folder) for path in images.list_images(folder)]
    read = lambda path: path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {str(name): (None, read((texts / name).with_suffix(".txt"))) for name in names}


def from_hub(name: str, folder: Path, most: int) -> Found:
    """Stream a hub data set, saving at most `most` pictures of each split as folder/split/number.jpg; those saved before are kept."""
    import datasets  # slow to import, and only needed here
    import fsspec

    found: Found = {}
    try:
        for split, rows in datasets.load_dataset(name, streaming=True).items():
            rows = rows.decode(False).take(most) if most else rows.decode(False)
            for number, row in enumerate(tqdm(rows, desc=f"{name} {split}", unit="image")):
                picture = next(
                    (
                        value
                        for value in row.values()
                        if isinstance(value, dict) and {"bytes", "path"} <= set(value)
                    ),
                    None,
                )
                begin = next((word for word in TEXTS for key in row if key.startswith(word)), None)
                if picture is None or begin is None:
                    raise UserError(
                        f"the columns {' '.join(row)} in {name}",
                        f"pictures, and one of {' '.join(TEXTS)}",
                        "check --captions",
                    )
                cells = [value for key, value in row.items() if key.startswith(begin)]
                texts = [
                    text
                    for cell in cells
                    for text in ([cell] if isinstance(cell, str) else cell or [])
                ]
                own = row.get("split") if isinstance(row.get("split"), str) else split
                place = f"{split}/{number:06d}.jpg"
                found[place] = (SPLITS.get(own, own), texts)
                if not files.inside(folder, place).exists():
                    data = picture["bytes"] or fsspec.open(picture["path"], "rb").open().read()
                    if not data.startswith(b"\xff\xd8"):
                        with (
                            contextlib.suppress(UserError),
                            io.BytesIO() as jpeg,
                        ):  # what is damaged is saved as it is, and named later
                            images.open_image(data).save(jpeg, "JPEG", quality=95)
                            data = jpeg.getvalue()
                    with files.replacing(folder / place) as file:
                        file.write(data)
    except (
        OSError,
        ConnectionError,
        ValueError,
        RuntimeError,
    ) as error:  # the library's own errors derive from these
        raise UserError(
            f"no file {name}, and no way to a hub data set of that name ({type(error).__name__})",
            LAYOUTS,
            "check --captions, or the network",
        ) from error
    return (
        {place: (None, texts) for place, (_, texts) in found.items()}
        if len({split for split, _ in found.values()}) == 1
        else found
    )


def find_file(path: Path) -> Path:
    """The one file of captions that lies in a folder, else the path itself. Raises UserError if there are several."""
    inside = (
        sorted({file for pattern in FILES for file in path.glob(pattern)}) if path.is_dir() else []
    )
    inside = [
        file
        for file in inside
        if file.is_file()
        and not any(file.with_suffix(suffix).exists() for suffix in images.SUFFIXES)
    ]
    if len(inside) > 1:
        raise UserError(
            f"{len(inside)} files of captions in {path} ({' '.join(file.name for file in inside[:5])})",
            "one",
            "name it with --captions",
        )
    return inside[0] if inside else path


def read(name: str, folder: Path, most: int = 0) -> Found:
    """Tell the layout apart and read it. folder: where its pictures are, or for a hub data set are put, `most` of each split.

    Raises UserError if it is none of the five, or holds no caption.
    """
    path = Path(name)
    try:
        if not path.exists():
            found = from_hub(name, folder, most)
        elif path.is_dir():
            found = from_folder(path, folder)
        elif path.suffix == ".json":
            content = files.read_json(path, "captions", "check --captions")
            found = (
                from_coco(content)
                if "annotations" in content
                else from_karpathy(content, path.stem)
            )
        else:
            found = from_table(path)
        for one in found:
            files.inside(folder, one, absolute=path.suffix != ".json")
        clean = {
            str(Path(name)): (
                split,
                [text for text in (" ".join(one.split()) for one in texts) if text],
            )
            for name, (split, texts) in found.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} of a layout that is not known ({type(error).__name__}: {error})",
            LAYOUTS,
            "check --captions",
        ) from error
    if bare := sum(not texts for _, texts in clean.values()):
        print(
            f"{bare:,} of {len(clean):,} pictures have no caption and are left out", file=sys.stderr
        )
    if bare == len(clean):
        raise UserError(f"no caption in {path}", LAYOUTS, "check --captions")
    return {name: one for name, one in clean.items() if one[1]}


def views(record: dict, count: int, rng: np.random.Generator) -> list[dict]:
    """A picture's record, and count - 1 more whose `view` is part of it (`images.look`): at least 80% of each side, every other one
    mirrored, without the captions that tell left from right."""
    result = [record]
    for number in range(1, count):
        size = rng.uniform(0.8, 1.0, 2)
        corner = rng.uniform(0.0, 1.0 - size)
        told = [text for text in record["captions"] if not SIDES.search(text)]
        mirrored = number % 2 == 1 and bool(told)
        box = [round(float(value), 4) for value in (*corner, *(corner + size))]
        result.append(
            {
                **record,
                "captions": told if mirrored else record["captions"],
                "view": [*box, int(mirrored)],
            }
        )
    return result
