"""A data folder made in parts by several processes or machines: data_prep.py --shard I/N.

    OUT/part_2_of_8/   the third of eight parts: a data folder whose meta.json is of kind "part". It
                       holds every eighth block of 1,000 documents from the third on, and `blocks`:
                       how many documents of each block a split has

All parts read the whole source, which is quick. Each part encodes only its own blocks, which takes
the time. The joined folder is byte for byte the folder that one process writes.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import progress
from text import splits
from text.splits import SplitWriter, read_array

# Documents per block. The blocks of a part are far from each other, so that no part gets all of the
# long documents.
BLOCK = 1000
SPLITS = ("train", "val")
AGAIN = "remove it, and make that part again"


def home_of(folder, number: int, count: int) -> Path:
    """Where a part is until all parts are there."""
    return Path(folder) / f"part_{number}_of_{count}"


def read(folder, number: int, count: int, settings: dict) -> dict | None:
    """A part's meta.json, its files held to their checksums; None if the part is not there yet.

    Raises UserError if the part has other settings or another source.
    """
    home = home_of(folder, number, count)
    if not (home / "meta.json").exists():
        return None
    meta = folders.read_meta(home, "part", "a part of a data folder", AGAIN, AGAIN)
    same = {name: meta.get(name) for name in settings} == settings
    if not same or set(meta["splits"]) != set(SPLITS) or not isinstance(meta.get("blocks"), list):
        raise UserError(
            f"{home} made with other settings or from another source", "parts that agree", AGAIN
        )
    folders.check_files(home, meta, tuple(meta.get("files", ())), AGAIN)
    return meta


def seal(home: Path, tokenizer: Tokenizer, sizes: dict, blocks: list[dict], facts: dict) -> None:
    """Write a part's meta.json, which makes the part valid."""
    names = [name for split in sizes for name in splits.array_names([split])]
    folders.seal(home, "part", tokenizer, names, {"splits": sizes, "blocks": blocks, **facts})


def join(folder, count: int, settings: dict, command: str) -> dict | None:
    """The folder from its parts, which are removed; returns its meta.json.

    Returns None, with a line that says why, while parts are missing or another process joins them.
    Raises UserError if a part is damaged, or if the parts do not agree.
    """
    folder = Path(folder)
    if (folder / "meta.json").exists():  # they were joined while this process ended
        return folders.read_meta(folder, "text", "a data folder", AGAIN, AGAIN)
    metas = [read(folder, number, count, settings) for number in range(count)]
    missing = [f"{number}/{count}" for number, meta in enumerate(metas) if meta is None]
    if missing:
        print(f"{folder}: {', '.join(missing)} still to come", file=sys.stderr)
        return None
    try:
        files.claim(folder)
    except UserError:
        print(f"{folder}: another process joins the parts", file=sys.stderr)
        return None
    tokenizers = {meta["tokenizer"] for meta in metas}
    if len(tokenizers) > 1:
        raise UserError(
            f"parts of {folder} with {len(tokenizers)} tokenizers",
            "a single tokenizer",
            "remove the parts, and give them all the same --tokenizer",
        )
    tokenizer = Tokenizer.load(home_of(folder, 0, count) / "tokenizer.json")
    sizes = {split: join_split(folder, split, metas, tokenizer) for split in SPLITS}
    meta = splits.write_meta(folder, tokenizer, sizes, {"command": command, **settings})
    for number in range(count):
        # The joined folder is sealed by now, so a part that stays does no harm.
        shutil.rmtree(home_of(folder, number, count), ignore_errors=True)
    return meta


def join_split(folder: Path, split: str, metas: list[dict], tokenizer: Tokenizer) -> dict:
    """Write one split's arrays, a block from each part in turn; returns its sizes."""
    count = len(metas)
    arrays = []
    for number in range(count):
        home = home_of(folder, number, count)
        tokens = read_array(home / f"{split}.npy", np.uint16)
        arrays.append((tokens, read_array(home / f"{split}_offsets.npy", np.int64)))
    total = sum(len(meta["blocks"]) for meta in metas)
    copied = [0] * count  # documents of each part
    writer = SplitWriter(folder, split, tokenizer)
    try:
        for block in progress.bar(range(total), split, unit="block"):
            index, owner = divmod(block, count)
            tokens, offsets = arrays[owner]
            documents = metas[owner]["blocks"][index][split]
            ends = offsets[copied[owner] : copied[owner] + documents + 1]
            writer.extend(tokens[ends[0] : ends[-1]], np.diff(ends))
            copied[owner] += documents
        writer.bytes = sum(meta["splits"][split]["bytes"] for meta in metas)
        return writer.finish()
    except OSError as error:
        raise files.os_error(error, folder) from error
    finally:
        writer.discard()
