"""Caption files that anybody wrote: results, and references to score them against (floor 0:
standard library only).

    results      COCO's [{"image_id", "caption"}], or the lines of generate_caption.py --json,
    which hold their own references references   COCO's captions_*.json, or Karpathy's
    dataset_*.json, of which one split is used

An image is known by its id, its file's name, or that name without folder and suffix, whichever a
results file uses.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from base import files
from base.files import UserError

RESULTS = (
    'COCO results [{"image_id": 42, "caption": "a dog"}, …], or lines of generate_caption.py --json'
)
REFERENCES = 'COCO captions {"annotations": [{"image_id": 42, "caption": "a dog"}, …]}, or a dataset_*.json of Karpathy'


@dataclass
class Image:
    """One image: its id as text, the name of its file (or None), its references, a caption for
    each results file."""

    id: str
    file: str | None
    references: list[str]
    captions: list[str]


def parse(path, expected: str, do: str):
    """The JSON in a file, or the JSON objects in its lines."""
    text = files.existing(path, expected, do)
    try:
        text = text.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise UserError(f"{path}, which is empty", expected, do)
        try:
            return json.loads(text)
        except ValueError:
            return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, which is not JSON ({error})", expected, do) from error


def some(values) -> str:
    """The first few of many."""
    values = list(values)
    return ", ".join(map(str, values[:3])) + (", …" if len(values) > 3 else "")


def read_results(path) -> dict[str, tuple[str, list[str]]]:
    """{image: (caption, references that stand beside it)}.

    Raises UserError if the file is of another shape, or names an image twice.
    """
    do = "check --hypotheses"
    content = parse(path, RESULTS, do)
    rows = (
        [content] if isinstance(content, dict) and "image" in content else content
    )  # one line of --json is an object, too
    if not isinstance(rows, list) or not rows:
        raise UserError(
            f"{path} with {'no caption' if rows == [] else 'no list of captions'}", RESULTS, do
        )
    found = []
    for number, row in enumerate(rows, 1):
        name = row.get("image_id", row.get("image")) if isinstance(row, dict) else None
        beside = row.get("references", []) if isinstance(row, dict) else []
        if (
            isinstance(name, bool)
            or not isinstance(name, (int, str))
            or not isinstance(row.get("caption"), str)
            or not texts(beside)
        ):
            raise UserError(
                f"entry {number} of {path} without an image_id and a caption", RESULTS, do
            )
        found.append((str(name), (row["caption"], beside)))
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} image{'s' * (len(twice) > 1)} twice in {path} ({some(twice)})",
            "one caption an image",
            "remove the others",
        )
    return dict(found)


def texts(value) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def read_references(path, split: str | None = None) -> list[Image]:
    """The images that have references, of one split if the file has splits (default test).

    Raises UserError on any other shape.
    """
    do = "check --references"
    content = parse(path, REFERENCES, do)
    try:
        if "annotations" in content:
            if split:
                raise UserError(
                    f"--splits {split} for {path}",
                    "a file with splits, such as Karpathy's",
                    "drop --splits",
                )
            names = {image["id"]: image.get("file_name") for image in content.get("images", [])}
            found: dict = {}
            for note in content["annotations"]:
                found.setdefault(note["image_id"], []).append(note["caption"])
            images = [Image(str(id), names.get(id), captions, []) for id, captions in found.items()]
        else:
            known = {image["split"] for image in content["images"]}
            split = split or "test"
            if split not in known:
                raise UserError(
                    f"no split {split!r} in {path}",
                    "one of " + ", ".join(sorted(known)),
                    "choose one with --splits",
                )
            images = [
                Image(
                    str(image.get("cocoid", image.get("imgid"))),
                    str(Path(image.get("filepath", "")) / image["filename"]),
                    [one["raw"] for one in image["sentences"]],
                    [],
                )
                for image in content["images"]
                if image["split"] == split
            ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} of another shape ({type(error).__name__}: {error})", REFERENCES, do
        ) from error
    images = [image for image in images if image.references]
    if not images or not all(
        texts(image.references) and isinstance(image.file, str | None) for image in images
    ):
        raise UserError(
            f"{path} with {'captions that are no text, or file names' if images else 'no caption'}",
            REFERENCES,
            do,
        )
    return images


def places(images: list[Image]) -> dict[str, int]:
    """Where each name of an image leads: ids before files, files before their last parts; what
    two images share leads nowhere."""
    found: dict[str, int] = {}
    file = lambda image: Path(image.file or "")
    for name_of in (
        lambda image: image.id,
        lambda image: image.file,
        lambda image: file(image).name,
        lambda image: file(image).stem,
    ):
        names = [name_of(image) for image in images]
        counts = Counter(names)
        for number, name in enumerate(names):
            if name and counts[name] == 1:
                found.setdefault(name, number)
    return found


def read(hypotheses: list[str], references: str | None, split: str | None = None) -> list[Image]:
    """Every image of the references with its caption from each results file.

    Raises UserError if a file lacks an image, or has one that is not among the references.
    """
    results = [read_results(path) for path in hypotheses]
    if references:
        images = read_references(references, split)
    else:
        images = [Image(name, name, beside, []) for name, (_, beside) in results[0].items()]
        if bare := [image.id for image in images if not image.references]:
            raise UserError(
                f"no references for {len(bare)} of {len(images)} images of {hypotheses[0]} ({some(bare)})",
                "a file of references, or lines that hold their own",
                "add --references captions.json",
            )
    place = places(images)
    for path, rows in zip(hypotheses, results, strict=True):
        captions: list[str | None] = [None] * len(images)
        unknown = []
        for name, (caption, _) in rows.items():
            number = place.get(name, place.get(Path(name).name, place.get(Path(name).stem)))
            if number is None:
                unknown.append(name)
            elif captions[number] is not None:
                raise UserError(
                    f"the image {images[number].id} under two names in {path}",
                    "one caption an image",
                    "remove one",
                )
            else:
                captions[number] = caption
        missing = [
            image.id for image, caption in zip(images, captions, strict=True) if caption is None
        ]
        if missing:
            raise UserError(
                f"no caption in {path} for {len(missing)} of {len(images)} images ({some(missing)})",
                "one for each image that has references",
                "add them, or leave these images out of the references",
            )
        if unknown:
            raise UserError(
                f"{len(unknown)} image{'s' * (len(unknown) > 1)} in {path} without references ({some(unknown)})",
                "only images of the references",
                "remove them, or name the right --references",
            )
        for image, caption in zip(images, captions, strict=True):
            image.captions.append(caption)
    return images


def picture(image: Image, folder) -> Path:
    """The file of an image, in `folder` if one is named.

    Raises UserError if it has no name or is not there.
    """
    if not image.file:
        raise UserError(
            f"no file name for the image {image.id}",
            'references with "images": [{"id", "file_name"}]',
            "add them",
        )
    name = Path(image.file)
    out = (
        name.is_absolute() or ".." in name.parts
    )  # of a folder that was named; such a picture is looked for in it by its last part
    places = (
        [Path(folder) / name.name if out else Path(folder) / name, Path(folder) / name.name]
        if folder
        else [name]
    )
    return next((path for path in places if path.exists()), None) or files.existing(
        places[0], "the picture of an image", "check --image_dir"
    )
