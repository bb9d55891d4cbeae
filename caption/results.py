"""Caption files that anybody wrote: results, and the references to score them against.

    results      COCO's [{"image_id", "caption"}], or the lines of generate_caption.py --json,
                 which hold their own references
    references   COCO's captions_*.json, or Karpathy's dataset_*.json, of which one split is used

An image is known by its id, by its file's name, or by that name without folder and suffix,
whichever a results file uses.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from base import files, metrics
from base.files import UserError
from base.flags import check, setting
from caption import coco
from caption.judging import more_figures
from loop import hardware
from show import ratings

RESULTS = (
    'COCO results [{"image_id": 42, "caption": "a dog"}, …], or lines of generate_caption.py --json'
)
REFERENCES = (
    'COCO captions {"annotations": [{"image_id": 42, "caption": "a dog"}, …]}, '
    "or a dataset_*.json of Karpathy"
)
CHECK_RESULTS = "check --hypotheses"
CHECK_REFERENCES = "check --references"


@dataclass
class FileScoring:
    """How caption files are scored."""

    hypotheses: list[str] | None = setting(
        None, "COCO results, or lines of generate_caption.py --json", metavar="FILE"
    )
    references: str | None = setting(
        None, "COCO's captions_*.json, or Karpathy's dataset_*.json", metavar="FILE"
    )
    splits: str | None = setting(
        None, "splits with commas between them; none: all but train (of --references: test)"
    )
    image_dir: str | None = setting(
        None, "folder of the images, which --rate and --clip_score need", metavar="FOLDER"
    )
    clip_score: str | None = setting(
        None, "CLIPScore and RefCLIPScore by this CLIP: a hub name or a folder", metavar="CLIP"
    )
    meteor_spice: bool = setting(False, "METEOR and SPICE too; needs pycocoevalcap and Java")
    rate: str | None = setting(
        None, "write a page on which people rate the captions, blind", metavar="PAGE"
    )
    num_samples: int = setting(32, "samples per cell of the grid, prompts or images", at_least=1)

    def __post_init__(self):
        check(self)


@dataclass
class Image:
    """One image: its id, the name of its file, its references, and a caption per results file."""

    id: str
    file: str | None
    references: list[str]
    captions: list[str] = field(default_factory=list)


def score(options: FileScoring, run) -> dict:
    """The figures of caption files, which are printed too; with --rate, a page to rate them on.

    run: has `seed` and `device`.
    """
    if options.meteor_spice:
        coco.need_java()
    paths = options.hypotheses or []
    images = read(paths, options.references, options.splits)
    # Short names in the table; full paths where two files share a name.
    names = [Path(path).stem for path in paths]
    if len(set(names)) < len(names):
        names = paths
    if options.rate:
        return ratings.write(options.rate, to_rate(images, names, options, run.seed), run.seed)
    more = more_figures(
        options.clip_score, options.meteor_spice, hardware.choose_device(run.device)
    )
    pictures = []
    if options.clip_score:
        pictures = [picture(image, options.image_dir) for image in images]
    dataset = Path(options.references or paths[0]).name
    if options.splits:
        dataset += f",{options.splits}"
    references = [image.references for image in images]
    result = {}
    for number, name in enumerate(names):
        texts = [image.captions[number] for image in images]
        figures = coco.scores(texts, references, dataset, seed=run.seed)
        del figures["cider_each"]
        result[name] = figures | more(texts, references, pictures)
    print(metrics.markdown(coco.table(result)))
    print(result[names[0]]["signature"])
    return result[names[0]] if len(names) == 1 else {"files": result}


def to_rate(images: list[Image], names: list[str], options: FileScoring, seed: int) -> list[dict]:
    """Images drawn by the seed, as `ratings.write` takes them."""
    order = np.random.default_rng(seed).permutation(len(images))
    shown = []
    for number in sorted(order[: options.num_samples]):
        image = images[number]
        shown.append(
            {
                "name": image.file or image.id,
                "picture": picture(image, options.image_dir),
                "references": image.references,
                "captions": dict(zip(names, image.captions, strict=True)),
            }
        )
    return shown


def parse(path, expected: str, do: str):
    """The JSON in a file, or the list of the JSON objects in its lines. Raises UserError."""
    text = files.read_text(path, expected, do)
    try:
        if not text.strip():
            raise UserError(f"{path}, which is empty", expected, do)
        try:
            return json.loads(text)
        except ValueError:
            # split, not splitlines: a caption may hold U+2028, which splitlines would cut at.
            return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:  # brackets nested too deep
        raise UserError(f"{path}, which is not JSON ({error})", expected, do) from error


def few(values: Iterable) -> str:
    """The first three of many values, for an error."""
    values = list(values)
    return ", ".join(map(str, values[:3])) + (", …" if len(values) > 3 else "")


def are_texts(value) -> bool:
    """Whether a value is a list of strings."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def read_results(path) -> dict[str, tuple[str, list[str]]]:
    """{image: (caption, the references that the file holds for it)}.

    Raises UserError if the file is of another shape, or names an image twice.
    """
    rows = parse(path, RESULTS, CHECK_RESULTS)
    if isinstance(rows, dict) and "image" in rows:
        rows = [rows]  # one line of --json alone is an object
    if not isinstance(rows, list) or not rows:
        lacks = "no caption" if rows == [] else "no list of captions"
        raise UserError(f"{path} with {lacks}", RESULTS, CHECK_RESULTS)
    entries = [read_entry(path, number, row) for number, row in enumerate(rows, 1)]
    # Of two captions, the later one would win without a word.
    counts = Counter(name for name, _, _ in entries)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} image{'s' * (len(twice) > 1)} twice in {path} ({few(twice)})",
            "one caption per image",
            "remove the others",
        )
    return {name: (caption, references) for name, caption, references in entries}


def read_entry(path, number: int, row) -> tuple[str, str, list[str]]:
    """(image, caption, references) of one entry of a results file. Raises UserError."""
    row = row if isinstance(row, dict) else {}
    name, caption = row.get("image_id", row.get("image")), row.get("caption")
    references = row.get("references", [])
    # True is an int in Python, and no id of an image.
    named = isinstance(name, int | str) and not isinstance(name, bool)
    if not (named and isinstance(caption, str) and are_texts(references)):
        found = f"entry {number} of {path} without an image_id and a caption"
        raise UserError(found, RESULTS, CHECK_RESULTS)
    return str(name), caption, references


def read_references(path, split: str | None = None) -> list[Image]:
    """The images that have references, of one split if the file has splits (default: test).

    Raises UserError on any other shape.
    """
    content = parse(path, REFERENCES, CHECK_REFERENCES)
    try:
        if "annotations" in content:
            if split:
                raise UserError(
                    f"--splits {split} for {path}",
                    "a file with splits, such as Karpathy's",
                    "drop --splits",
                )
            images = read_coco(content)
        else:
            images = read_karpathy(content, split or "test", path)
    except (KeyError, TypeError, AttributeError) as error:
        found = f"{path} of another shape ({type(error).__name__}: {error})"
        raise UserError(found, REFERENCES, CHECK_REFERENCES) from error
    # BLEU and CIDEr are not defined without a reference.
    images = [image for image in images if image.references]
    if not images:
        raise UserError(f"{path} with no caption", REFERENCES, CHECK_REFERENCES)
    for image in images:
        if not are_texts(image.references) or not isinstance(image.file, str | None):
            found = f"{path} with captions that are no text, or file names"
            raise UserError(found, REFERENCES, CHECK_REFERENCES)
    return images


def read_coco(content: dict) -> list[Image]:
    """The images of COCO's captions_*.json, in the order of their first caption."""
    names = {image["id"]: image.get("file_name") for image in content.get("images", [])}
    captions: dict = {}
    for note in content["annotations"]:
        captions.setdefault(note["image_id"], []).append(note["caption"])
    return [Image(str(id), names.get(id), references) for id, references in captions.items()]


def read_karpathy(content: dict, split: str, path) -> list[Image]:
    """The images of one split of Karpathy's dataset_*.json. Raises UserError without the split."""
    known = {image["split"] for image in content["images"]}
    if split not in known:
        raise UserError(
            f"no split {split!r} in {path}",
            "one of " + ", ".join(sorted(known)),
            "choose one with --splits",
        )
    images = []
    for image in content["images"]:
        if image["split"] != split:
            continue
        # Only COCO has cocoid; the Flickr files have imgid.
        id = str(image.get("cocoid", image.get("imgid")))
        file = str(Path(image.get("filepath", "")) / image["filename"])
        images.append(Image(id, file, [sentence["raw"] for sentence in image["sentences"]]))
    return images


def numbers_of(images: list[Image]) -> dict[str, int]:
    """The number of the image that each name means; a name that two images share means none.

    Ids come before file names, file names before their last parts.
    """
    columns = (
        [image.id for image in images],
        [image.file for image in images],
        [Path(image.file or "").name for image in images],
        [Path(image.file or "").stem for image in images],
    )
    numbers: dict[str, int] = {}
    for names in columns:
        counts = Counter(names)
        for number, name in enumerate(names):
            # Folders may hold files of one name: such a name says nothing.
            if name and counts[name] == 1:
                numbers.setdefault(name, number)
    return numbers


def read(hypotheses: list[str], references: str | None, split: str | None = None) -> list[Image]:
    """Every image of the references with its caption from each results file.

    Raises UserError if a file lacks an image, or has an image that is not among the references.
    """
    results = [read_results(path) for path in hypotheses]
    if references:
        images = read_references(references, split)
    else:
        images = [Image(name, name, own) for name, (_, own) in results[0].items()]
        bare = [image.id for image in images if not image.references]
        if bare:
            raise UserError(
                f"no references for {len(bare)} of {len(images)} images of {hypotheses[0]} "
                f"({few(bare)})",
                "a file of references, or lines that hold their own",
                "add --references captions.json",
            )
    numbers = numbers_of(images)
    for path, rows in zip(hypotheses, results, strict=True):
        captions = captions_of(rows, images, numbers, path)
        for image, caption in zip(images, captions, strict=True):
            image.captions.append(caption)
    return images


def captions_of(rows: dict, images: list[Image], numbers: dict[str, int], path) -> list[str]:
    """Each image's caption from one results file. Raises UserError unless every image has one."""
    captions: dict[int, str] = {}
    unknown = []
    for name, (caption, _) in rows.items():
        names = [name, Path(name).name, Path(name).stem]
        number = next((numbers[name] for name in names if name in numbers), None)
        if number is None:
            unknown.append(name)
        elif number in captions:
            raise UserError(
                f"the image {images[number].id} under two names in {path}",
                "one caption per image",
                "remove one",
            )
        else:
            captions[number] = caption
    missing = [image.id for number, image in enumerate(images) if number not in captions]
    if missing:
        raise UserError(
            f"no caption in {path} for {len(missing)} of {len(images)} images ({few(missing)})",
            "one for each image that has references",
            "add them, or leave these images out of the references",
        )
    if unknown:
        raise UserError(
            f"{len(unknown)} image{'s' * (len(unknown) > 1)} in {path} without references "
            f"({few(unknown)})",
            "only images of the references",
            "remove them, or name the right --references",
        )
    return [captions[number] for number in range(len(images))]


def picture(image: Image, folder) -> Path:
    """The file of an image, in `folder` if it is given. Raises UserError if it is missing."""
    if not image.file:
        raise UserError(
            f"no file name for the image {image.id}",
            'references with "images": [{"id", "file_name"}]',
            "add them",
        )
    name = Path(image.file)
    paths = [name]
    if folder:
        paths = [Path(folder) / name, Path(folder) / name.name]
        # A name that leads out of the folder is looked for inside it, by its last part.
        if name.is_absolute() or ".." in name.parts:
            paths = paths[1:]
    for path in paths:
        if path.exists():
            return path
    return files.existing(paths[0], "the picture of an image", "check --image_dir")
