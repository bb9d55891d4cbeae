"""A data folder made in parts by several processes or machines that share it (floor 1): data_prep.py --shard I/N.

    OUT/part_2_of_8/   the third of eight parts, a data folder whose meta.json is of kind "part": every eighth block of
                       1,000 documents from the third on, and `blocks`: how many documents of each block a split has

All parts read the whole source, which is quick, and encode only their own blocks, which is not. Joined, they are byte for byte
what one process writes.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from text import data

BLOCK = 1000  # documents: a part's blocks are far from each other, so that no part has all of the long ones
SPLITS = ("train", "val")
AGAIN = "remove it, and make that part again"


def home_of(folder, number: int, count: int) -> Path:
    """Where a part is until all parts are there."""
    return Path(folder) / f"part_{number}_of_{count}"


def read(folder, number: int, count: int, settings: dict) -> dict | None:
    """A part's meta.json, its files held to their checksums; None if it is not there yet. Raises UserError if it is another source's."""
    home = home_of(folder, number, count)
    if not (home / "meta.json").exists():
        return None
    meta = folders.read_meta(home, "part", "a part of a data folder", AGAIN, AGAIN)
    if (
        {name: meta.get(name) for name in settings} != settings
        or set(meta["splits"]) != set(SPLITS)
        or not isinstance(meta.get("blocks"), list)
    ):
        raise UserError(
            f"{home} made with other settings or from another source", "parts that agree", AGAIN
        )
    folders.check_files(home, meta, tuple(meta.get("files", ())), AGAIN)
    return meta


def join(folder, count: int, settings: dict, command: str) -> dict | None:
    """The folder from its parts, which are removed; None, with a line that says why, while some are missing or another process joins them.

    Raises UserError if a part is damaged, or if they do not agree.
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
    if len({meta["tokenizer"] for meta in metas}) > 1:
        raise UserError(
            f"parts of {folder} with {len({meta['tokenizer'] for meta in metas})} tokenizers",
            "one",
            "remove the parts, and give them all the same --tokenizer",
        )
    tokenizer = Tokenizer.load(home_of(folder, 0, count) / "tokenizer.json")
    splits = {split: join_split(folder, split, metas, tokenizer) for split in SPLITS}
    meta = data.write_meta(folder, tokenizer, splits, {"command": command, **settings})
    for number in range(count):
        shutil.rmtree(home_of(folder, number, count), ignore_errors=True)
    return meta


def join_split(folder: Path, split: str, metas: list[dict], tokenizer: Tokenizer) -> dict:
    """One split's arrays, a block from each part in turn; returns its sizes."""
    homes = [home_of(folder, number, len(metas)) for number in range(len(metas))]
    parts = [
        (
            data.read_array(home / f"{split}.npy", np.uint16),
            data.read_array(home / f"{split}_offsets.npy", np.int64),
        )
        for home in homes
    ]
    read_so_far = [0] * len(parts)  # documents of each part
    writer = data.SplitWriter(folder, split, tokenizer)
    try:
        for block in tqdm(
            range(sum(len(meta["blocks"]) for meta in metas)), desc=split, unit="block"
        ):
            owner, place = block % len(parts), block // len(parts)
            (tokens, offsets), first = parts[owner], read_so_far[owner]
            ends = offsets[first : first + metas[owner]["blocks"][place][split] + 1]
            writer.extend(tokens[ends[0] : ends[-1]], np.diff(ends))
            read_so_far[owner] += len(ends) - 1
        writer.bytes = sum(meta["splits"][split]["bytes"] for meta in metas)
        return writer.finish()
    except OSError as error:
        raise files.os_error(error, folder) from error
    finally:
        writer.discard()
