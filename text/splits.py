"""The arrays of one split on disk: written document by document, read as memory maps.

    train.npy, val.npy                   uint16 (T,): documents in turn, each [BOS] text [EOS]
    train_offsets.npy, val_offsets.npy   int64 (N+1,): where each document begins; the last is T
    tokenizer.json                       the tokenizer
    meta.json                            format, kind, fingerprints, sizes per split, command, seed,
                                         source; the size and SHA-256 of every other file; and its
                                         own checksum

A folder of pairs has the same files and one more per split (see `pairs`).
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer

CHUNK = 1 << 22  # bytes that are copied at once


@dataclass(frozen=True)
class Maker:
    """The script that makes a kind of folder, for errors: what it makes, and what to run."""

    what: str
    make: str
    remake: str


MAKERS = {
    "text": Maker(
        "a data folder from data_prep.py",
        "run data_prep.py, or name another with --data_dir",
        "run data_prep.py again",
    ),
    "pairs": Maker(
        "a folder of pairs",
        "run prep_conditional_data.py, or name another folder with --data_dir",
        "run prep_conditional_data.py again",
    ),
}


class SplitWriter:
    """Write one split document by document; memory does not grow with it.

    Two raw files grow in the same folder; `finish` turns them into .npy files.
    """

    def __init__(self, folder, split: str, tokenizer: Tokenizer):
        self.path = Path(folder)
        self.split = split
        self.tokenizer = tokenizer
        self.documents = 0
        self.tokens = 0
        self.bytes = 0
        self.longest = 0
        # `discard` closes both.
        self.raw = open(self.path / f".{split}.raw", "wb")  # noqa: SIM115
        self.ends = open(self.path / f".{split}_offsets.raw", "wb")  # noqa: SIM115
        # The offset of the first document; every later offset is the end of a document.
        self.ends.write(np.int64(0).tobytes())

    def add(self, ids: np.ndarray, size: int) -> None:
        """One document: its ids (n,) without [BOS] and [EOS], and its size in bytes of UTF-8."""
        document = np.concatenate([[self.tokenizer.bos], ids, [self.tokenizer.eos]])
        self.bytes += size
        self.extend(document.astype(np.uint16), np.array([len(document)]))

    def extend(self, tokens: np.ndarray, sizes: np.ndarray) -> None:
        """Documents as another split has them: tokens (T,) uint16 with [BOS] and [EOS].

        sizes: (n,) tokens of each document. The caller counts their bytes.
        """
        self.raw.write(tokens.tobytes())
        self.ends.write((self.tokens + np.cumsum(sizes, dtype=np.int64)).tobytes())
        self.documents += len(sizes)
        self.tokens += len(tokens)
        self.longest = max(self.longest, int(sizes.max(initial=0)))

    def finish(self) -> dict:
        """Write SPLIT.npy and SPLIT_offsets.npy; return the split's sizes for meta.json."""
        self.write_array(self.raw, self.split, np.uint16, self.tokens)
        self.write_array(self.ends, f"{self.split}_offsets", np.int64, self.documents + 1)
        self.discard()
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "longest_document": self.longest,
        }

    def write_array(self, raw, name: str, dtype, count: int) -> None:
        """Copy a raw file behind the header of a .npy of `count` numbers."""
        raw.close()
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": (count,),
        }
        with files.replacing(self.path / f"{name}.npy") as out, open(raw.name, "rb") as source:
            # The header needs the number of tokens, which is known only at the end.
            np.lib.format.write_array_header_1_0(out, header)
            while chunk := source.read(CHUNK):
                out.write(chunk)

    def discard(self) -> None:
        """Close and remove the raw files."""
        for raw in (self.raw, self.ends):
            with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
                raw.close()
            Path(raw.name).unlink(missing_ok=True)


def array_names(splits, *more: str) -> list[str]:
    """The .npy files of some splits, in the order that the folder's fingerprint takes them.

    more: further suffixes of each split, such as "_blanks".
    """
    suffixes = ("", "_offsets", *more)
    return [f"{split}{suffix}.npy" for split in sorted(splits) for suffix in suffixes]


def write_meta(folder, tokenizer: Tokenizer, splits: dict, settings: dict) -> dict:
    """Write tokenizer.json, then meta.json, which makes the folder valid; return what it holds."""
    names = array_names(splits)
    return folders.seal(folder, "text", tokenizer, names, {"splits": splits, **settings})


def read_array(path: Path, dtype, kind: str = "text") -> np.ndarray:
    """A .npy of one dimension, memory-mapped. Raises UserError if it is missing or damaged."""
    maker = MAKERS[kind]
    files.existing(path, maker.what, maker.make)
    array = folders.open_array(path, maker.remake)
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(
            f"{path} of type {array.dtype} and shape {array.shape}",
            f"{np.dtype(dtype)} in one dimension",
            maker.remake,
        )
    return array


@dataclass
class Split:
    """One split as it is on disk: meta.json, the tokenizer, tokens (T,), offsets (N+1,)."""

    meta: dict
    tokenizer: Tokenizer
    tokens: np.ndarray
    offsets: np.ndarray


def open_split(folder, split: str, kind: str, *more: str) -> Split:
    """A split whose files are held to their checksums and to each other.

    more: suffixes of further arrays of the split. Raises UserError if anything is damaged.
    """
    folder, maker = Path(folder), MAKERS[kind]
    meta = folders.read_meta(folder, kind, maker.what, maker.make, maker.remake)
    names = (*array_names([split], *more), "tokenizer.json")
    folders.check_files(folder, meta, names, maker.remake)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.fingerprint != meta.get("tokenizer"):
        raise UserError(
            f"{folder} made with tokenizer {meta.get('tokenizer')}",
            f"tokenizer {tokenizer.fingerprint}",
            maker.remake,
        )
    tokens = read_array(folder / f"{split}.npy", np.uint16, kind)
    offsets = read_array(folder / f"{split}_offsets.npy", np.int64, kind)
    check_offsets(tokens, offsets, f"{folder}/{split}", maker.remake)
    # In training, a GPU reports an id beyond the vocabulary late, and not where it stands.
    if int(tokens.max()) >= tokenizer.vocab_size:
        raise UserError(
            f"id {int(tokens.max())} in {folder}/{split}.npy",
            f"ids below {tokenizer.vocab_size}",
            maker.remake,
        )
    return Split(meta, tokenizer, tokens, offsets)


def check_offsets(tokens: np.ndarray, offsets: np.ndarray, path: str, do: str) -> None:
    """Raise UserError unless the offsets cut all tokens into documents of two tokens at least."""
    sizes = np.diff(offsets)
    fits = len(sizes) >= 1 and offsets[0] == 0 and offsets[-1] == len(tokens)
    if not fits or sizes.min() < 2:
        raise UserError(
            f"{path}_offsets.npy, which does not fit {Path(path).name}.npy",
            "offsets of every document",
            do,
        )


def made_before(folder, settings: dict, other: str) -> dict | None:
    """The meta.json of a finished folder with these settings; None if the folder is not finished.

    other: what may differ, for the error. Raises UserError if the folder has other settings.
    """
    path = Path(folder) / "meta.json"
    if not path.exists():
        return None
    meta = files.read_sealed(path, "a data folder's meta.json", "add --force")
    if {name: meta.get(name) for name in settings} == settings:
        return meta
    raise UserError(
        f"{folder} made with {other}",
        "an empty folder",
        "choose another --out, or --force to replace it",
    )
