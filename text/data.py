"""Text in batches: the rows of a split, and which rows each step of training takes.

A row is a piece of a document, padded to the length of its neighbours; documents never see each
other. Rows of similar length share a batch, so padding costs a few percent. That is cheaper and
simpler than packing with attention per document, which needs a special kernel to be fast.

A document longer than L is cut into equal rows that overlap by one token. The first token of a row
is given, never predicted, so every token but [BOS] is predicted exactly once. Full rows and a
remainder would be worse: a batch of remainders holds a tenth of the tokens of other batches, at the
same learning rate.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from base.files import UserError
from base.tokenizer import Tokenizer
from loop import distributed
from text.sources import check_separator, read_documents
from text.splits import SplitWriter, open_split, write_meta

POOL = 50  # batches that are sorted by length together


class TextData:
    """One split as rows.

    starts, lengths, documents: (R,) int64, each row's first token, its length and its document.
    tokens (T,) and offsets (N+1,) are the split's own arrays.
    """

    def __init__(self, folder, split: str, max_length: int):
        held = open_split(folder, split, "text")
        self.meta = held.meta
        self.tokenizer = held.tokenizer
        self.tokens = held.tokens
        self.offsets = held.offsets
        self.max_length = max_length
        self.cut()

    def cut(self) -> None:
        """Cut every document into the fewest equal rows of at most `max_length` tokens."""
        predicted = np.diff(self.offsets) - 1  # of each document, all tokens but [BOS]
        # -(-a // b) rounds up without floats.
        pieces = -(-predicted // (self.max_length - 1))
        self.documents = np.repeat(np.arange(len(predicted)), pieces)
        first_row = np.repeat(np.cumsum(pieces) - pieces, pieces)
        piece = np.arange(len(self.documents)) - first_row
        predicted, pieces = predicted[self.documents], pieces[self.documents]
        before = piece * predicted // pieces  # tokens predicted in the earlier pieces
        after = (piece + 1) * predicted // pieces
        self.starts = self.offsets[self.documents] + before
        self.lengths = after - before + 1

    def keep_first(self, unique_tokens: int) -> None:
        """Keep the first whole documents that hold at most `unique_tokens` predicted tokens.

        Raises UserError if the first document holds more.
        """
        predicted = np.diff(self.offsets) - 1
        count = int(np.searchsorted(np.cumsum(predicted), unique_tokens, side="right"))
        if not count:
            raise UserError(
                f"--unique_tokens {unique_tokens:,} and a first document of {predicted[0]:,}",
                "at least one whole document",
                "raise --unique_tokens",
            )
        self.offsets = self.offsets[: count + 1]
        self.cut()

    @property
    def num_tokens(self) -> int:
        """The predicted tokens of all rows: the first token of a row is given."""
        return int((self.lengths - 1).sum())

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    def length_histogram(self) -> np.ndarray:
        """How many rows have each length: (L+1,) int64."""
        return np.bincount(self.lengths, minlength=self.max_length + 1)

    def rows(self, index: np.ndarray, pad_multiple: int = 1) -> tuple[Tensor, Tensor]:
        """Rows `index` (B,): tokens (B, L') int64, and lengths (B,) int64.

        Padded with [PAD] to the longest row, or to a multiple of it, but not beyond `max_length`.
        """
        lengths = self.lengths[index]
        width = min(self.max_length, -(-int(lengths.max()) // pad_multiple) * pad_multiple)
        tokens = np.full((len(index), width), self.tokenizer.pad, dtype=np.int64)
        for row, (start, length) in enumerate(zip(self.starts[index], lengths, strict=True)):
            tokens[row, :length] = self.tokens[start : start + length]
        return torch.from_numpy(tokens), torch.from_numpy(lengths.astype(np.int64))

    def whole_rows(self) -> Iterator[np.ndarray]:
        """The documents that fit into one row, in order: (n,) uint16 with [BOS] and [EOS]."""
        for start, end in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            if end - start <= self.max_length:
                yield np.asarray(self.tokens[start:end])


class Batches:
    """batches(step) -> this process's micro-batches of a step, a function of (seed, step).

    Epoch e is a permutation drawn from (seed, e). It is cut into pools of 50 batches; each pool is
    sorted by length and cut into batches; then the batches are shuffled. The last, incomplete batch
    of an epoch is left out: other rows each time. Fewer rows than a batch holds are repeated.

    A micro-batch: tokens (B, L') int64, lengths (B,), rows (B,), weight (its predicted tokens); and
    where it lies in the step: number, first_row, step_rows.
    """

    def __init__(
        self,
        data: TextData,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        pad_multiple: int = 1,
    ):
        self.data = data
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.seed = seed
        self.pad_multiple = pad_multiple
        self.epoch_steps = max(1, len(data.starts) // batch_size)
        self.epoch = -1
        self.order = np.empty(0)

    def passes(self, steps: int) -> float:
        """How often `steps` steps see each row, on average."""
        return steps * self.batch_size / len(self.data.starts)

    def shuffle(self, epoch: int) -> np.ndarray:
        """The rows of every batch of an epoch: (steps, batch_size)."""
        rng = np.random.default_rng((self.seed, epoch))
        rows = rng.permutation(len(self.data.starts))
        # np.resize repeats the rows if they are fewer than a batch.
        rows = np.resize(rows, max(self.batch_size, len(rows)))
        rows = rows[: self.epoch_steps * self.batch_size]
        pool = POOL * self.batch_size
        for first in range(0, len(rows), pool):
            # Sorting within a pool leaves 1.4% padding in a batch of 16 rows (docs/log/text.md).
            near = rows[first : first + pool]
            rows[first : first + pool] = near[np.argsort(self.data.lengths[near], kind="stable")]
        return rows.reshape(self.epoch_steps, self.batch_size)[rng.permutation(self.epoch_steps)]

    def __call__(self, step: int) -> list[dict]:
        epoch, index = divmod(step, self.epoch_steps)
        # A function of (seed, step): a resumed run draws the epoch's order again.
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.shuffle(epoch)
        dealt = distributed.deal(np.split(self.order[index], self.accumulate))
        return [self.micro_batch(rows) | where for rows, where in dealt]

    def micro_batch(self, rows: np.ndarray) -> dict:
        """The batch of these rows (B,)."""
        tokens, lengths = self.data.rows(rows, self.pad_multiple)
        # The first token of a row is given, so a row predicts one token less than it has.
        weight = float((lengths - 1).sum())
        return {"tokens": tokens, "lengths": lengths, "rows": rows, "weight": weight}


def evaluation_batches(
    data: TextData, batch_size: int, documents: int | None = None
) -> Iterator[dict]:
    """Every row of the first `documents` documents (None: all) once, sorted by length.

    A batch also says whose its rows are: documents (B,).
    """
    rows = np.flatnonzero(data.documents < (documents or data.num_documents))
    rows = rows[np.argsort(data.lengths[rows], kind="stable")]
    for first in range(0, len(rows), batch_size):
        index = rows[first : first + batch_size]
        tokens, lengths = data.rows(index)
        owners = data.documents[index]
        yield {"tokens": tokens, "lengths": lengths, "rows": index, "documents": owners}


def from_text(path, separator: str, tokenizer: Tokenizer, folder, max_length: int) -> TextData:
    """A text file's documents as rows, written to `folder` as a val split.

    Raises UserError if the file holds no text.
    """
    writer = SplitWriter(folder, "val", tokenizer)
    try:
        for text in read_documents(path, separator):
            writer.add(tokenizer.encode(text), len(text.encode()))
        if not writer.documents:
            raise UserError(
                f"no text in {path}",
                "at least one document",
                f"check the file; {check_separator(separator)}",
            )
        sizes = writer.finish()
    finally:
        writer.discard()
    write_meta(folder, tokenizer, {"val": sizes}, {})
    return TextData(folder, "val", max_length)
