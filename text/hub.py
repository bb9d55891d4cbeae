"""Documents from a data set on the Hugging Face hub: streamed row by row, one document per row.

A name is hub:OWNER/NAME, with the name of a configuration behind it if the data set has several,
and with a split if it is not `train`: hub:OWNER/NAME/CONFIGURATION:SPLIT.
"""

import re
import sys
from collections.abc import Iterator

from base import text_files
from base.files import UserError

PREFIX = "hub:"
DATASET = "roneneldan/TinyStories"  # what is read if nothing is named
NAME = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:/([\w.-]+))?(?::([\w.-]+))?")
COLUMN = "text"  # the usual name of the column of documents
EXPECTED = "hub:OWNER/NAME, hub:OWNER/NAME/CONFIGURATION or hub:OWNER/NAME:SPLIT"


def is_name(text: str) -> bool:
    """Whether --input names a data set on the hub. Raises UserError if such a name is wrong."""
    if not text.startswith(PREFIX):
        return False
    if not NAME.fullmatch(text.removeprefix(PREFIX)):
        raise UserError(f"--input {text}", EXPECTED, "correct the name of the data set")
    return True


def documents(name: str) -> Iterator[str]:
    """The documents of a data set, stripped; empty documents are left out.

    name: as NAME reads it, with or without `hub:`. Line ends become \\n, as in files.
    Raises UserError if the data set cannot be reached, or has no column of texts.
    """
    dataset, configuration, split = NAME.fullmatch(name.removeprefix(PREFIX)).groups()
    column, count, bare = "", 0, 0
    for row in rows(name, dataset, configuration, split or "train"):
        column = column or column_of(row, name)
        count += 1
        if not isinstance(row.get(column), str):
            bare += 1
            continue
        text = row[column].replace("\r\n", "\n").replace("\r", "\n").strip()
        if text := text.removeprefix(text_files.MARK).strip():
            yield text
    if bare:
        print(
            f"{bare:,} of {count:,} rows of {name} have no text and are left out", file=sys.stderr
        )


def rows(name: str, dataset: str, configuration: str | None, split: str) -> Iterator[dict]:
    """The rows of a split of a data set. Raises UserError if they cannot be reached."""
    import datasets  # takes seconds to import, and only this function needs it

    try:
        stream = datasets.load_dataset(dataset, configuration, split=split, streaming=True)
        yield from stream
    # The library raises its own errors, those of httpx, pyarrow and fsspec, and the system's.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"no way to {name} ({type(error).__name__}: {reason})",
            f"a network connection to the hub, and {EXPECTED}",
            "check the name, or name your own text with --input",
        ) from error


def column_of(row: dict, name: str) -> str:
    """The column of documents: `text`, or the only column of texts. Raises UserError otherwise."""
    texts = [key for key, value in row.items() if isinstance(value, str)]
    if COLUMN in row:
        return COLUMN
    if len(texts) == 1:
        return texts[0]
    raise UserError(
        f"the columns {', '.join(row)} in {name}",
        f"a column `{COLUMN}`, or a single column of texts",
        "choose another data set, or write its texts into a file for --input",
    )
