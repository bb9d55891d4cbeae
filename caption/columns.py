"""Columns of captions, found by their names; what their cells say; JSON objects with such keys.

The image is in the first column with a known name. The captions are in all columns that are called
by the same word, such as caption_0 to caption_4. A column may hold the split. Other columns are
named on the screen and not read.
"""

import ast
import json
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from base.errors import UserError
from caption.collected import Collected, shown

# Names of columns, without capital letters, spaces and signs; the first name that is there counts.
IMAGE = (
    *("filename", "filepath", "imagefilename", "imagefile", "imagepath", "imagename", "path"),
    *("imgfile", "imgpath", "imgname", "image", "images", "img", "picture", "photo", "file"),
    *("fname", "imageid", "imgid", "photoid", "pictureid"),
)
SPLIT = ("split", "subset", "partition", "set")
CAPTIONS = ("caption", "comment", "sentence", "description", "text", "raw", "answer")
EXPECTED = (
    "a first row that names the columns image and caption "
    "(also file_name, caption_0, comment, sentence, text; split), or rows of p0.jpg,a dog"
)
NAME_COLUMNS = "name the columns in the first row of the file"
NUMBERED = re.compile(r"#\d+$")  # p0.jpg#3 is the fourth caption of p0.jpg
ADJACENT = re.compile(r"[\"']\s+[\"']")  # two texts of a list without a comma between them


@dataclass
class Columns:
    """Which columns of a table are read. Numbers of columns for rows, their names for records."""

    names: list[str]
    image: int
    captions: list[int]
    split: int | None = None
    header: bool = True

    def described(self) -> str:
        """The columns that are read and those that are not, for a message."""
        read = {self.image, *self.captions}
        words = [f"image in {shown(self.names[self.image])}"]
        words += ["captions in " + " ".join(shown(self.names[i]) for i in self.captions)]
        if self.split is not None:
            read.add(self.split)
            words += [f"split in {shown(self.names[self.split])}"]
        others = [shown(name) for number, name in enumerate(self.names) if number not in read]
        if others:
            words += ["not read: " + " ".join(others)]
        return ", ".join(words)


def columns_of(names: list[str]) -> Columns | None:
    """The columns of these names, or None without an image or a caption among them."""
    keys = [key_of(name) for name in names]
    image = first_of(keys, IMAGE)
    split = first_of(keys, SPLIT)
    for word in CAPTIONS:
        captions = [number for number, name in enumerate(names) if holds_captions(name, word)]
        if image is not None and captions:
            return Columns(names, image, captions, split)
    return None


def key_of(name: str) -> str:
    """The name of a column without capital letters, spaces and signs."""
    return re.sub(r"[\W_]+", "", name).lower()


def holds_captions(name: str, word: str) -> bool:
    """Whether a column holds captions that are called `word`: caption_0 does, caption_id does
    not.
    """
    return bool(re.fullmatch(rf"(image|img)?{word}(text)?s?\d*", key_of(name)))


def first_of(keys: list[str], wanted: tuple[str, ...]) -> int | None:
    """The number of the column with the first of the wanted names."""
    for name in wanted:
        if name in keys:
            return keys.index(name)
    return None


def not_understood(path, names: list[str]) -> UserError:
    """The error about a table whose columns are not understood: they are named."""
    columns = " ".join(shown(name) for name in names[:20]) + (" …" if len(names) > 20 else "")
    return UserError(f"{path} with the columns {columns}", EXPECTED, NAME_COLUMNS)


# ---- captions ---------------------------------------------------------------------------------


def texts_in(value) -> list[str] | None:
    """The captions in a cell or in a value of a record; None if it is something else.

    A cell may hold a list, as pandas and JSON write it: ["a dog", "two cats"].
    """
    if isinstance(value, str):
        is_list = re.match(r"\s*\[\s*[\"']", value) and value.rstrip().endswith("]")
        return listed(value) if is_list else [value]
    if value is None:
        return []
    if not isinstance(value, list):
        return None
    texts = []
    for entry in value:
        if isinstance(entry, dict):  # a sentence of Karpathy's
            entry = next((entry[key] for key in ("raw", "caption", "text") if key in entry), None)
        if not isinstance(entry, str):
            return None
        texts.append(entry)
    return texts


def listed(cell: str) -> list[str] | None:
    """The texts of a list that is written in a cell; None if it is no list of texts."""
    # numpy writes no commas, and Python would read 'a dog' 'two cats' as a single text.
    readers = (json.loads,) if ADJACENT.search(cell) else (json.loads, ast.literal_eval)
    for read in readers:
        try:
            with warnings.catch_warnings():  # Python warns of escapes such as \d
                warnings.simplefilter("ignore")
                value = read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
    return None


def give(found: Collected, place: str, name: str, split, values: list) -> None:
    """Add a row to what was found, or count it with the reason why it gives nothing."""
    name = NUMBERED.sub("", name.strip())
    lists = [texts_in(value) for value in values]
    texts = [text for texts in lists for text in texts or []]
    if not name:
        return found.leave_out(place, "no name of an image")
    if None in lists:
        return found.leave_out(place, f"{shown(name)} with a caption that is no text")
    if not any(text.strip() for text in texts):
        return found.leave_out(place, f"{shown(name)} without a caption")
    found.add(name, split, texts, place)
    return None


# ---- records of JSON --------------------------------------------------------------------------


def read_records(path: Path, records: list, found: Collected) -> None:
    """Add JSON objects to what was found: the lines of a file, or a list, with columns as keys.

    Raises UserError if the keys are not understood, or a record is no object.
    """
    names: dict[str, None] = {}
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise UserError(
                f"{path} whose record {number} is no object",
                'objects such as {"file_name": "p0.jpg", "text": "a dog"}',
                "mend or remove that record",
            )
        names |= dict.fromkeys(record)
    columns = columns_of(list(names))
    if columns is None:
        raise not_understood(path, list(names))
    print(f"{path}: JSON objects, {columns.described()}", file=sys.stderr)
    image = columns.names[columns.image]
    captions = [columns.names[number] for number in columns.captions]
    split = columns.names[columns.split] if columns.split is not None else None
    for number, record in enumerate(records, 1):
        found.records += 1
        name, own = record.get(image), record.get(split)
        whole = isinstance(name, int) and not isinstance(name, bool)  # True is an int in Python
        name = str(name) if whole else name
        give(
            found,
            f"record {number}",
            name if isinstance(name, str) else "",
            own if own is None else str(own),
            [record.get(key) for key in captions],
        )
