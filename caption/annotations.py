"""The JSON files of COCO and Karpathy, read once for photographs and for references.

A record that lacks something is named by its number and its key. Ids are compared as text: 42,
42.0, "42" and "000000000042" are the same id. An id of two files is refused: nobody can tell
whose captions these are. An annotation of an image that `images` lacks is left out and counted.
"""

import json
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from base import files
from base.files import UserError

LARGEST_EXACT = 2**53  # larger whole numbers are rounded where they are floating-point numbers


@dataclass
class Annotated:
    """One image of an annotation file."""

    id: str | None
    file: str | None
    split: str | None = None
    captions: list[str] = field(default_factory=list)


@dataclass
class Source:
    """The file that is read, and what an error about it says is expected."""

    path: Path | str
    expected: str
    check: str = "mend or remove that record"

    def malformed(self, problem: str) -> UserError:
        """An error about a record of the file."""
        return UserError(f"{self.path} of another shape: {problem}", self.expected, self.check)

    def records(self, content: dict, key: str, what: str, of: str = "") -> list[dict]:
        """The list of objects at `key`; `what` names one of them, `of` their owner. Raises
        UserError.
        """
        values = content.get(key)
        if not isinstance(values, list):
            raise self.malformed(f'no list "{key}"{of}')
        for number, value in enumerate(values, 1):
            if not isinstance(value, dict):
                raise self.malformed(f"{what} {number}{of}, which is no object")
        return values

    def text(self, record: dict, key: str, what: str) -> str:
        """The text at a key of a record. Raises UserError."""
        if key not in record:
            raise self.malformed(f'{what} without "{key}"')
        if not isinstance(record[key], str):
            raise self.malformed(f'{what}, whose "{key}" is no text')
        return record[key]

    def id(self, record: dict, key: str, what: str) -> str:
        """The id at a key of a record, as text. Raises UserError."""
        if key not in record:
            raise self.malformed(f'{what} without "{key}"')
        id = normal_id(record[key])
        if id is None:
            raise self.malformed(f'{what}, whose "{key}" is no whole number and no text')
        return id


def normal_id(value) -> str | None:
    """An id as text: 42, 42.0, "42" and "000000000042" are "42". None for anything else."""
    if isinstance(value, bool):  # True is an int in Python, and no id of an image
        return None
    if isinstance(value, float):
        whole = math.isfinite(value) and value.is_integer() and abs(value) < LARGEST_EXACT
        return str(int(value)) if whole else None
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]+(\.0+)?", value):
        return value.split(".")[0].lstrip("0") or "0"
    return value or None


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


def from_coco(content: dict, source: Source, *, need_files: bool) -> list[Annotated]:
    """The images of COCO's captions_*.json.

    need_files: all images, in the order of `images`; each must have a file name. Otherwise only the
    images with captions, in the order of their first caption, and `images` may be absent.
    Raises UserError for a malformed record, and for an id of two files.
    """
    named = need_files or bool(content.get("images"))
    listed = images_of(content, source, need_files=need_files) if named else {}
    captioned: dict[str, Annotated] = {}
    orphans = []
    notes = source.records(content, "annotations", "annotation")
    for number, note in enumerate(notes, 1):
        what = f"annotation {number}"
        id = source.id(note, "image_id", what)
        caption = source.text(note, "caption", what)
        if id not in listed and named:
            orphans.append(f'{what}, of image {id}, which "images" lacks')
        else:
            captioned[id] = listed.setdefault(id, Annotated(id, None))
            captioned[id].captions.append(caption)
    if orphans:
        print(
            f"{source.path}: {len(orphans):,} of {len(notes):,} annotations are left out; "
            f"the first: {orphans[0]}",
            file=sys.stderr,
        )
    return list((listed if need_files else captioned).values())


def images_of(content: dict, source: Source, *, need_files: bool) -> dict[str, Annotated]:
    """{id: image} of the list `images`. Raises UserError as `from_coco` does."""
    listed: dict[str, Annotated] = {}
    for number, record in enumerate(source.records(content, "images", "image"), 1):
        id = source.id(record, "id", f"image {number}")
        what = f"image {number} (id {id})"
        file = None
        if need_files or record.get("file_name") is not None:
            file = source.text(record, "file_name", what)
        if need_files and not (file or "").strip():
            raise source.malformed(f'{what}, whose "file_name" is empty')
        before = listed.setdefault(id, Annotated(id, file))
        if before.file is not None and file is not None and Path(before.file) != Path(file):
            raise two_files(source, id, before.file, file)
        before.file = before.file or file
    return listed


def from_karpathy(content: dict, source: Source, *, need_ids: bool = False) -> list[Annotated]:
    """The images of Karpathy's dataset_*.json, in their order.

    need_ids: ids decide whose captions these are, so an id of two files is refused.
    Raises UserError for a malformed record.
    """
    found = []
    owners: dict[str, str] = {}
    for number, record in enumerate(source.records(content, "images", "image"), 1):
        what = f"image {number}"
        folder = source.text(record, "filepath", what) if "filepath" in record else ""
        name = source.text(record, "filename", what)
        if not name.strip():
            raise source.malformed(f'{what}, whose "filename" is empty')
        # Only COCO has cocoid; the Flickr files have imgid.
        key = next((key for key in ("cocoid", "imgid") if record.get(key) is not None), None)
        id = source.id(record, key, what) if key else None
        file = str(Path(folder) / name)
        if need_ids and id is not None and owners.setdefault(id, file) != file:
            raise two_files(source, id, owners[id], file)
        captions = []
        sentences = source.records(record, "sentences", "sentence", f" of {what}")
        for place, sentence in enumerate(sentences, 1):
            captions.append(source.text(sentence, "raw", f"sentence {place} of {what}"))
        found.append(Annotated(id, file, source.text(record, "split", what), captions))
    return found


def two_files(source: Source, id: str, one: str, other: str) -> UserError:
    """The error about an id of two files."""
    return UserError(
        f"the id {id} for two images in {source.path} ({one} and {other})",
        "an id of its own for each image",
        "give one of them, and its annotations, another id",
    )
