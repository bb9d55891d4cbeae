"""Caption files that anybody wrote: results, and the references to score them against.

    results      COCO's [{"image_id", "caption"}], or the lines of generate_caption.py --json,
                 which hold their own references
    references   COCO's captions_*.json, or Karpathy's dataset_*.json, of which one split is used

An image is known by its id, by its file's name, or by that name without folder and suffix,
whichever a results file uses.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from base import files, metrics
from base.files import UserError
from base.flags import check, setting
from caption import annotations, coco
from caption.annotations import Annotated
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
    rows = annotations.parse(path, RESULTS, CHECK_RESULTS)
    if isinstance(rows, dict) and "image" in rows:
        rows = [rows]  # one line of --json alone is an object
    if not isinstance(rows, list) or not rows:
        lacks = "no caption" if rows == [] else "no list of captions"
        raise UserError(f"{path} with {lacks}", RESULTS, CHECK_RESULTS)
    entries = [read_entry(path, number, row) for number, row in enumerate(rows, 1)]
    # Of two captions, the later one would win without a word.
    counts = Counter(annotations.normal_id(name) for name, _, _ in entries)
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
    source = annotations.Source(path, RESULTS, CHECK_RESULTS)
    what = f"entry {number}"
    if not isinstance(row, dict):
        raise source.malformed(f"{what}, which is no object")
    key = "image" if "image" in row and "image_id" not in row else "image_id"
    name = source.id(row, key, what)
    if isinstance(row[key], str):
        name = row[key]  # a text stays as it is: it may be the name of a file
    references = row.get("references", [])
    if not are_texts(references):
        raise source.malformed(f'{what}, whose "references" are no list of texts')
    return name, source.text(row, "caption", what), references


def read_references(path, split: str | None = None) -> list[Image]:
    """The images that have references, of one split if the file has splits (default: test).

    Raises UserError on any other shape.
    """
    content = annotations.parse(path, REFERENCES, CHECK_REFERENCES)
    source = annotations.Source(path, REFERENCES)
    if not isinstance(content, dict):
        raise source.malformed("no JSON object")
    if "annotations" in content:
        if split:
            raise UserError(
                f"--splits {split} for {path}",
                "a file with splits, such as Karpathy's",
                "drop --splits",
            )
        entries = annotations.from_coco(content, source, need_files=False)
    else:
        entries = of_split(
            annotations.from_karpathy(content, source, need_ids=True), split or "test", path
        )
    # BLEU and CIDEr are not defined without a reference.
    images = [
        Image(entry.id or entry.file or "", entry.file, entry.captions)
        for entry in entries
        if entry.captions
    ]
    if not images:
        raise UserError(f"{path} with no caption", REFERENCES, CHECK_REFERENCES)
    return images


def of_split(entries: list[Annotated], split: str, path) -> list[Annotated]:
    """The images of a split. Raises UserError without such a split."""
    known = {entry.split for entry in entries}
    if split not in known:
        raise UserError(
            f"no split {split!r} in {path}",
            "one of " + ", ".join(sorted(filter(None, known))),
            "choose one with --splits",
        )
    return [entry for entry in entries if entry.split == split]


def numbers_of(images: list[Image]) -> dict[str, int]:
    """The number of the image that each name means; a name that two images share means none.

    Ids come before file names, file names before their last parts. An id that is written in
    another way, such as "000000000042" for 42, comes last: it may be the name of a file.
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
        names = [name, Path(name).name, Path(name).stem, annotations.normal_id(name) or ""]
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
