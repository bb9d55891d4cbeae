"""Where raw documents come from, and on which side of the split each falls (floor 1). Read by the scripts that prepare text."""

import glob
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from base.files import UserError
from text import data

HUB_DATASET = "roneneldan/TinyStories"


def find_files(pattern: str) -> list[Path]:
    """The text files that --input names. Raises UserError if there is none."""
    path = Path(pattern)
    if path.exists():
        found = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    else:
        found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    found = [path for path in found if path.is_file()]
    if not found:
        raise UserError(
            f"no file for --input {pattern}",
            "a text file, a folder with .txt files, or a glob",
            "check the path",
        )
    return found


def stream(paths: list[Path], separator: str, limit: int = 0) -> Iterator[str]:
    """The documents of files, or without files of TinyStories from the hub, one at a time; at most `limit` unless it is 0."""
    if paths:
        documents: Iterable[str] = (
            text for path in paths for text in data.read_documents(path, separator)
        )
    else:
        documents = stream_hub()
    for number, text in enumerate(documents):
        if limit and number == limit:
            return
        yield text


def stream_hub() -> Iterator[str]:
    """TinyStories from the hub. Raises UserError if it cannot be reached."""
    import datasets  # slow to import, and only needed here

    try:
        for row in datasets.load_dataset(HUB_DATASET, split="train", streaming=True):
            if text := row["text"].strip():
                yield text
    except (
        OSError,
        ConnectionError,
        ValueError,
        RuntimeError,
    ) as error:  # the library's own errors derive from these
        raise UserError(
            f"no way to {HUB_DATASET} ({type(error).__name__})",
            "a network connection to the hub",
            "connect, or name your own text with --input",
        ) from error


def draw(text: str, seed: int) -> float:
    """A number in [0, 1) from a document's text: copies of one text fall on the same side of the split."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:7]) / 2**56
