"""Tokens on disk and in batches (floor 1). The one place that knows the format of a data folder.

    train.npy, val.npy                   uint16 (T,): documents one after another, each [BOS] text [EOS]
    train_offsets.npy, val_offsets.npy   int64 (N+1,): where each document begins; the last is T
    tokenizer.json                       the tokenizer
    meta.json                            format, kind, fingerprints, sizes per split, command, seed, source; files: the size and
                                         SHA-256 of every other file; and its own checksum

A row is one piece of one document, padded to its neighbours' length; documents never see each other. Rows of
similar length share a batch, so padding costs a few percent, which is cheaper and simpler than packing with
per-document attention (that needs a special kernel to be fast, and none is on CPUs).

A document longer than L is cut into equal rows that overlap by one token: the first token of every row is given,
never predicted, so every token but [BOS] is predicted exactly once. (Full rows and a remainder would make batches of
remainders, a tenth of the others' tokens at the same learning rate.)
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from base import files
from base.files import UserError
from base.folders import check_files, check_tokenizer, open_array, read_meta, seal
from base.tokenizer import Tokenizer
from loop import distributed

POOL = 50  # batches that are sorted by length together
REMAKE = "run data_prep.py again"


class SplitWriter:
    """Write one split document by document; memory does not grow with it. `finish` turns raw files into .npy."""

    def __init__(self, folder, split: str, tokenizer: Tokenizer):
        self.path, self.split, self.tokenizer = Path(folder), split, tokenizer
        self.documents = self.tokens = self.bytes = self.longest = 0
        self.raw = open(self.path / f".{split}.raw", "wb")
        self.ends = open(self.path / f".{split}_offsets.raw", "wb")
        self.ends.write(np.int64(0).tobytes())

    def add(self, ids: np.ndarray, size: int) -> None:
        """One document: its ids (n,) uint16 without [BOS] and [EOS], and its size in bytes of UTF-8."""
        document = np.concatenate([[self.tokenizer.bos], ids, [self.tokenizer.eos]]).astype(
            np.uint16
        )
        self.raw.write(document.tobytes())
        self.documents, self.tokens, self.bytes = (
            self.documents + 1,
            self.tokens + len(document),
            self.bytes + size,
        )
        self.longest = max(self.longest, len(document))
        self.ends.write(np.int64(self.tokens).tobytes())

    def extend(self, tokens: np.ndarray, sizes: np.ndarray) -> None:
        """Documents as another split has them: tokens (T,) uint16 with [BOS] and [EOS], sizes (n,) of each. Their bytes are the caller's to count."""
        self.raw.write(tokens.tobytes())
        self.ends.write((self.tokens + np.cumsum(sizes, dtype=np.int64)).tobytes())
        self.documents, self.tokens = self.documents + len(sizes), self.tokens + len(tokens)
        self.longest = max(self.longest, int(sizes.max(initial=0)))

    def finish(self) -> dict:
        """Write SPLIT.npy and SPLIT_offsets.npy; return the split's sizes for meta.json."""
        arrays = (
            (self.raw, self.split, np.uint16, self.tokens),
            (self.ends, f"{self.split}_offsets", np.int64, self.documents + 1),
        )
        for raw, name, dtype, count in arrays:
            raw.close()
            header = {
                "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                "fortran_order": False,
                "shape": (count,),
            }
            with files.replacing(self.path / f"{name}.npy") as out, open(raw.name, "rb") as source:
                np.lib.format.write_array_header_1_0(out, header)
                while chunk := source.read(1 << 22):
                    out.write(chunk)
        self.discard()
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "longest_document": self.longest,
        }

    def discard(self) -> None:
        """Close and remove the raw files."""
        for raw in (self.raw, self.ends):
            with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
                raw.close()
            Path(raw.name).unlink(missing_ok=True)


def read_array(path: Path, dtype) -> np.ndarray:
    """A one-dimensional .npy, memory-mapped. Raises UserError if it is missing, damaged or of another type."""
    files.existing(
        path, "a data folder from data_prep.py", "run data_prep.py, or name another with --data_dir"
    )
    array = open_array(path, REMAKE)
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(
            f"{path} of type {array.dtype} and shape {array.shape}",
            f"{np.dtype(dtype)} in one dimension",
            REMAKE,
        )
    return array


class TextData:
    """One split as rows. starts, lengths, documents: (R,) int64, each row's first token, length and document."""

    def __init__(self, folder, split: str, max_length: int):
        folder = Path(folder)
        self.max_length = max_length
        self.meta = read_meta(
            folder,
            "text",
            "a data folder from data_prep.py",
            "run data_prep.py, or name another with --data_dir",
            REMAKE,
        )
        check_files(
            folder, self.meta, (f"{split}.npy", f"{split}_offsets.npy", "tokenizer.json"), REMAKE
        )
        self.tokenizer = Tokenizer.load(folder / "tokenizer.json")
        check_tokenizer(self.meta.get("tokenizer"), self.tokenizer.fingerprint, folder)
        self.tokens, self.offsets = (
            read_array(folder / f"{split}.npy", np.uint16),
            read_array(folder / f"{split}_offsets.npy", np.int64),
        )
        sizes = np.diff(self.offsets)
        if (
            len(sizes) < 1
            or self.offsets[0] != 0
            or self.offsets[-1] != len(self.tokens)
            or sizes.min() < 2
        ):
            raise UserError(
                f"{folder}/{split}_offsets.npy, which does not fit {split}.npy",
                "offsets of every document",
                REMAKE,
            )
        if int(self.tokens.max()) >= self.tokenizer.vocab_size:
            raise UserError(
                f"id {int(self.tokens.max())} in {folder}/{split}.npy",
                f"ids below {self.tokenizer.vocab_size}",
                REMAKE,
            )
        predicted = sizes - 1
        pieces = -(-predicted // (max_length - 1))
        self.documents = np.repeat(np.arange(len(sizes)), pieces)
        piece = np.arange(len(self.documents)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        cut = lambda number: (
            number * predicted[self.documents] // pieces[self.documents]
        )  # tokens predicted before a piece
        self.starts = self.offsets[self.documents] + cut(piece)
        self.lengths = cut(piece + 1) - cut(piece) + 1

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    def length_histogram(self) -> np.ndarray:
        """How many rows have each length: (L+1,) int64."""
        return np.bincount(self.lengths, minlength=self.max_length + 1)

    def rows(self, index: np.ndarray, pad_multiple: int = 1) -> tuple[Tensor, Tensor]:
        """tokens (B, L') int64, padded with [PAD] to the longest row (to a multiple, at most L); lengths (B,) int64."""
        lengths = self.lengths[index]
        width = min(self.max_length, -(-int(lengths.max()) // pad_multiple) * pad_multiple)
        tokens = np.full((len(index), width), self.tokenizer.pad, dtype=np.int64)
        for row, (start, length) in enumerate(zip(self.starts[index], lengths, strict=True)):
            tokens[row, :length] = self.tokens[start : start + length]
        return torch.from_numpy(tokens), torch.from_numpy(lengths.astype(np.int64))

    def whole_rows(self) -> Iterator[np.ndarray]:
        """The documents that fit into one row, in order: (n,) uint16 each, [BOS] first and [EOS] last."""
        for start, end in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            if end - start <= self.max_length:
                yield np.asarray(self.tokens[start:end])


class Batches:
    """batches(step) -> this process's micro-batches of an optimizer step, a pure function of (seed, step).

    Epoch e is a permutation drawn from (seed, e): cut into pools of 50 batches, each pool sorted by length and cut into
    batches, the batches shuffled. The last, incomplete batch of an epoch is left out: other rows each time. Fewer
    rows than a batch holds are repeated.
    A micro-batch: tokens (B, L') int64, lengths (B,), rows (B,), weight (its number of predicted tokens); where it stands in
    the step: number, first_row, step_rows.
    """

    def __init__(
        self,
        data: TextData,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        pad_multiple: int = 1,
    ):
        self.data, self.batch_size, self.accumulate, self.seed, self.pad_multiple = (
            data,
            batch_size,
            accumulate,
            seed,
            pad_multiple,
        )
        self.epoch_steps = max(1, len(data.starts) // batch_size)
        self.epoch, self.order = -1, np.empty(0)

    def shuffle(self, epoch: int) -> np.ndarray:
        """The rows of every batch of an epoch: (steps, batch_size)."""
        rng = np.random.default_rng((self.seed, epoch))
        rows = rng.permutation(len(self.data.starts))
        rows = np.resize(rows, max(self.batch_size, len(rows)))[
            : self.epoch_steps * self.batch_size
        ]
        pool = POOL * self.batch_size
        for first in range(0, len(rows), pool):
            part = rows[first : first + pool]
            rows[first : first + pool] = part[np.argsort(self.data.lengths[part], kind="stable")]
        return rows.reshape(self.epoch_steps, self.batch_size)[rng.permutation(self.epoch_steps)]

    def __call__(self, step: int) -> list[dict]:
        epoch, place_in = divmod(step, self.epoch_steps)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.shuffle(epoch)
        return [
            self.micro_batch(rows) | where
            for rows, where in distributed.deal(np.split(self.order[place_in], self.accumulate))
        ]

    def micro_batch(self, rows: np.ndarray) -> dict:
        tokens, lengths = self.data.rows(rows, self.pad_multiple)
        return {
            "tokens": tokens,
            "lengths": lengths,
            "rows": rows,
            "weight": float((lengths - 1).sum()),
        }


def evaluation_batches(
    data: TextData, batch_size: int, documents: int | None = None
) -> Iterator[dict]:
    """Every row of the first `documents` documents once, sorted by length; `documents` (B,) says whose each is."""
    rows = np.flatnonzero(data.documents < (documents or data.num_documents))
    rows = rows[np.argsort(data.lengths[rows], kind="stable")]
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        tokens, lengths = data.rows(part)
        yield {
            "tokens": tokens,
            "lengths": lengths,
            "rows": part,
            "documents": data.documents[part],
        }


def read_documents(path, separator: str) -> Iterator[str]:
    """The documents of a UTF-8 text file, streamed, stripped, empty ones left out. Raises UserError on invalid UTF-8."""
    mark, buffer, read = separator.encode(), bytearray(), 0

    def decode(piece: bytearray) -> str:
        try:
            return piece.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                f"invalid UTF-8 in {path} at byte {read + error.start}",
                "a UTF-8 text",
                "convert it, for example with iconv",
            ) from error

    with open(files.existing(path, "a text file", "check the path"), "rb") as file:
        while chunk := file.read(1 << 20):
            searched = max(
                0, len(buffer) - len(mark) + 1
            )  # what was searched once is not searched again
            buffer += chunk
            while (end := buffer.find(mark, searched)) >= 0:
                if text := decode(buffer[:end]):
                    yield text
                del buffer[: end + len(mark)]
                read, searched = read + end + len(mark), 0
    if text := decode(buffer):
        yield text


def from_text(path, separator: str, tokenizer: Tokenizer, folder, max_length: int) -> TextData:
    """A text file's documents as rows, written to `folder` as a val split. Raises UserError if it holds no text."""
    writer = SplitWriter(folder, "val", tokenizer)
    try:
        for text in read_documents(path, separator):
            writer.add(tokenizer.encode(text), len(text.encode()))
        if not writer.documents:
            raise UserError(
                f"no text in {path}", "at least one document", "check the file and --separator"
            )
        sizes = writer.finish()
    finally:
        writer.discard()
    write_meta(folder, tokenizer, {"val": sizes}, {})
    return TextData(folder, "val", max_length)


def write_meta(folder, tokenizer: Tokenizer, splits: dict, settings: dict) -> dict:
    """Write tokenizer.json, then meta.json, which makes the folder valid; return what it holds."""
    return seal(
        folder,
        "text",
        tokenizer,
        [f"{name}.npy" for split in sorted(splits) for name in (split, f"{split}_offsets")],
        {"splits": splits, **settings},
    )


def batches_of(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items, the last one shorter."""
    batch: list = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
