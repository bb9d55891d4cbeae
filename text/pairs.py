"""Pairs of what is given and what is missing: their folder and their batches.

    train.npy, train_offsets.npy    documents as in `text/splits.py`; the same for val
    train_blanks.npy                int32 (K * 5,): five numbers per blank
    tokenizer.json, meta.json       as in `splits`, of kind "pairs", and the length of the denoiser

A pair is a document of which parts are blank. The five numbers of three blanks, in tokens of their
document, where [BOS] is token 0:

    pair  document  kind  start  end
       0         0     0     12   87      `continue`: everything behind the first sentence
       1         0     2      4    6      `blanks`: one to four pieces, each a whole sentence or
       1         0     2      9   14        1 to 20 tokens; `middle` (kind 1) is everything between
                                            the first sentence and the last

The forms of a row are in `forms`.
"""

import contextlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from text import splits
from text.data import Batches
from text.forms import Pair, arrange
from text.sources import sentence_spans
from text.splits import SplitWriter, open_split

KINDS = ("continue", "middle", "blanks")
MOST_BLANKS = 4
ROOM = 2 * MOST_BLANKS  # what the forms need beyond the document itself
SPANS = (1, 2, 3, 5, 8, 13, 20)  # tokens of a blank that is no sentence
REMAKE = splits.MAKERS["pairs"].remake
# The columns of train_blanks.npy.
PAIR, DOCUMENT, KIND, START, END = range(5)


def sentence_edges(text: str, sizes: np.ndarray) -> list[int]:
    """Where sentences begin, in tokens, and at last the number of tokens.

    sizes: (n,) bytes of each token. An edge inside a token is left out.
    """
    # Sentences are found in characters, and tokens are cut in bytes: bytes are common to both.
    token_ends = np.cumsum(sizes)
    edges = {0, len(sizes)}
    for _, end in sentence_spans(text):
        size = len(text[:end].encode())
        token = int(np.searchsorted(token_ends, size))
        if token < len(token_ends) and token_ends[token] == size:
            edges.add(token + 1)
    return sorted(edges)


def make_blanks(
    edges: list[int], rng: np.random.Generator, times: int
) -> list[tuple[str, list[tuple[int, int]]]]:
    """The pairs of a document: (kind, [(start, end)]) in tokens, [BOS] being 0.

    edges: from `sentence_edges`. times: how many pairs of kind `blanks` to draw.
    """
    # Stored tokens begin with [BOS], which the edges do not count.
    edges = [edge + 1 for edge in edges]
    end = edges[-1]
    made = []
    if len(edges) >= 3:
        made.append(("continue", [(edges[1], end)]))
    if len(edges) >= 4:
        made.append(("middle", [(edges[1], edges[-2])]))
    for _ in range(times):
        blanks = draw_blanks(edges, rng)
        if blanks and sum(stop - start for start, stop in blanks) < end - 1:
            made.append(("blanks", blanks))
    return made


def draw_blanks(edges: list[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """One to four blanks, sorted, with a token at least between two of them.

    Half of them are whole sentences. A blank that does not fit is left out.
    """
    end = edges[-1]
    blanks: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(1, MOST_BLANKS + 1))):
        if len(edges) >= 3 and rng.random() < 0.5:
            number = int(rng.integers(len(edges) - 1))
            start, stop = edges[number], edges[number + 1]
        else:
            start = int(rng.integers(1, max(2, end - 1)))
            stop = start + int(rng.choice(SPANS))
        # A blank that is the whole document would leave nothing given.
        fits = stop <= end and stop - start < end - 1
        if fits and all(stop < left or right < start for left, right in blanks):
            blanks.append((start, stop))
    return sorted(blanks)


class PairWriter:
    """Write one split: every document, and pairs of the documents that fit a row.

    Memory does not grow with the corpus.
    """

    def __init__(self, folder, split: str, tokenizer: Tokenizer, max_length: int):
        self.documents = SplitWriter(folder, split, tokenizer)
        self.max_length = max_length
        self.sizes = tokenizer.token_bytes()
        self.path = Path(folder) / f"{split}_blanks.npy"
        self.raw = open(Path(folder) / f".{split}_blanks.raw", "wb")  # noqa: SIM115
        self.pairs = dict.fromkeys(KINDS, 0)
        self.fitting = 0

    def add(self, text: str, ids: np.ndarray, rng: np.random.Generator, times: int) -> None:
        """One document: its text, its ids (n,) without [BOS] and [EOS].

        times: how many pairs of kind `blanks` to make.
        """
        document = self.documents.documents
        self.documents.add(ids, len(text.encode()))
        # Longer documents stay in the folder, so that copies of them are found (docs/log/text.md).
        if not 1 <= len(ids) <= self.max_length - ROOM - 2:
            return
        self.fitting += 1
        for kind, blanks in make_blanks(sentence_edges(text, self.sizes[ids]), rng, times):
            number = sum(self.pairs.values())
            self.pairs[kind] += 1
            rows = [[number, document, KINDS.index(kind), start, end] for start, end in blanks]
            self.raw.write(np.array(rows, dtype=np.int32).tobytes())

    def finish(self) -> dict:
        """Write the split's arrays; return its sizes for meta.json."""
        self.raw.close()
        blanks = np.fromfile(self.raw.name, dtype=np.int32)
        with files.replacing(self.path) as out:
            np.lib.format.write_array(out, blanks, allow_pickle=False)
        sizes = self.documents.finish() | {"fitting_documents": self.fitting, "pairs": self.pairs}
        self.discard()
        return sizes

    def discard(self) -> None:
        """Close and remove the raw files."""
        self.documents.discard()
        with contextlib.suppress(OSError):
            self.raw.close()
        Path(self.raw.name).unlink(missing_ok=True)


def write_meta(folder, tokenizer: Tokenizer, sizes: dict, settings: dict) -> dict:
    """Write tokenizer.json, then meta.json, which makes the folder valid; return what it holds."""
    names = splits.array_names(sizes, "_blanks")
    return folders.seal(folder, "pairs", tokenizer, names, {"splits": sizes, **settings})


class PairData:
    """One split in one form.

    blanks: (K, 5) int64, the columns above. lengths: (N,) int64, tokens of each pair's row.
    kinds, documents: (N,) of each pair. starts: (N,), whose length counts the pairs, as in
    `data.TextData`.
    """

    def __init__(self, folder, split: str, form: str):
        path = f"{folder}/{split}"
        held = open_split(folder, split, "pairs", "_blanks")
        self.form = form
        self.meta = held.meta
        self.tokenizer = held.tokenizer
        self.tokens = held.tokens
        self.offsets = held.offsets
        # `type`, not isinstance: JSON's true would pass as the number 1.
        if type(self.meta.get("max_length")) is not int:
            raise UserError(
                f"{folder} for rows of {self.meta.get('max_length')!r}", "a number", REMAKE
            )
        flat = splits.read_array(Path(f"{path}_blanks.npy"), np.int32, "pairs")
        if len(flat) % 5 or not len(flat):
            raise UserError(
                f"{path}_blanks.npy with {len(flat)} numbers",
                "five for every blank, and a blank at least",
                REMAKE,
            )
        self.blanks = np.asarray(flat).reshape(-1, 5).astype(np.int64)
        sizes = np.diff(self.offsets)
        check_blanks(self.blanks, sizes, path)
        # A pair's first blank is where the number of the pair changes.
        self.first = np.flatnonzero(np.diff(self.blanks[:, PAIR], prepend=-1))
        self.starts = self.first
        self.kinds = self.blanks[self.first, KIND]
        self.documents = self.blanks[self.first, DOCUMENT]
        self.lengths = self.row_lengths(sizes[self.documents])

    def row_lengths(self, sizes: np.ndarray) -> np.ndarray:
        """Tokens of each pair's row: (N,) int64. sizes: (N,) tokens of its document."""
        if self.form == "context":
            return sizes
        count = np.diff(self.first, append=len(self.blanks))  # blanks of each pair
        if self.form == "cross":
            widths = self.blanks[:, END] - self.blanks[:, START]
            return np.add.reduceat(widths, self.first) + count + 1
        # Nothing but [EOS] stands behind a single blank that reaches the end.
        to_the_end = (count == 1) & (self.blanks[self.first, END] == sizes - 1)
        return sizes + 2 * count - 1 - to_the_end

    def __len__(self) -> int:
        return len(self.first)

    def check_tokenizer(self, fingerprint: str, folder, path) -> None:
        """Raise UserError unless the pairs have the tokenizer of the checkpoint at `path`."""
        if self.tokenizer.fingerprint != fingerprint:
            raise UserError(
                f"pairs in {folder} made with tokenizer {self.tokenizer.fingerprint}",
                f"tokenizer {fingerprint}, that of {path}",
                "run prep_conditional_data.py --denoiser CHECKPOINT with a denoiser of this "
                "tokenizer, or name another folder with --data_dir",
            )

    def pair(self, number: int) -> Pair:
        """The pair of this number."""
        end = self.first[number + 1] if number + 1 < len(self) else None
        rows = self.blanks[self.first[number] : end]
        index = int(rows[0, DOCUMENT])
        document = np.asarray(self.tokens[self.offsets[index] : self.offsets[index + 1]])
        edges = [0, *rows[:, START:].ravel().tolist(), len(document)]
        pieces = [document[left:right] for left, right in pairwise(edges)]
        # Pieces alternate: given, blank, given.
        return Pair(pieces[::2], pieces[1::2], KINDS[rows[0, KIND]], index)

    def length_histograms(self) -> dict[str, list[int]]:
        """By kind, how many blanks have each length in tokens, from 0 up."""
        widths = self.blanks[:, END] - self.blanks[:, START]
        histograms = {}
        for number, kind in enumerate(KINDS):
            mine = widths[self.blanks[:, KIND] == number]
            histograms[kind] = np.bincount(mine, minlength=2).tolist()
        return histograms

    def batch(self, numbers, pad_multiple: int = 1) -> dict:
        """The pairs as `batch_of` gives them, and kinds (B,) int64: their numbers in KINDS."""
        pairs = [self.pair(int(number)) for number in numbers]
        most = self.meta["max_length"]
        batch = batch_of(pairs, self.form, self.tokenizer, pad_multiple, most)
        return batch | {"kinds": torch.tensor([KINDS.index(pair.kind) for pair in pairs])}


def check_blanks(blanks: np.ndarray, sizes: np.ndarray, path: str) -> None:
    """Raise UserError unless blanks (K, 5) lie in their documents, in order, without overlap.

    sizes: (D,) tokens of each document, [BOS] and [EOS] included.
    """
    documents = blanks[:, DOCUMENT]
    inside = (
        blanks.min() >= 0 and documents.max() < len(sizes) and blanks[:, KIND].max() < len(KINDS)
    )
    if inside:
        # A blank may reach to the next blank of its pair; the last one to the document's [EOS].
        same_pair = np.diff(blanks[:, PAIR], append=-1) == 0
        limits = np.where(same_pair, np.roll(blanks[:, START], -1), sizes[documents] - 1)
        starts, ends = blanks[:, START], blanks[:, END]
        inside = ((starts >= 1) & (starts < ends) & (ends <= limits)).all()
    if not inside:
        raise UserError(
            f"{path}_blanks.npy, which does not fit {Path(path).name}.npy",
            "blanks inside their documents",
            REMAKE,
        )


def batch_of(
    pairs: list[Pair], form: str, tokenizer: Tokenizer, pad_multiple: int = 1, most: int = 1 << 30
) -> dict:
    """Tensors of some pairs: tokens, free (B, L), lengths (B,), weight; and for `cross` also
    condition (B, P) and condition_lengths (B,).

    Padded to the longest row, or to a multiple of it, but not beyond `most`.
    """
    rows = [arrange(pair, form, tokenizer) for pair in pairs]

    def padded(arrays: list[np.ndarray], filler) -> Tensor:
        longest = max(map(len, arrays))
        width = min(-(-longest // pad_multiple) * pad_multiple, max(longest, most))
        result = torch.full((len(arrays), width), filler)
        for line, array in zip(result, arrays, strict=True):
            line[: len(array)] = torch.from_numpy(array)
        return result

    batch: dict = {
        "tokens": padded([row.ids for row in rows], tokenizer.pad),
        "lengths": torch.tensor([len(row.ids) for row in rows]),
        "free": padded([row.free for row in rows], False),
    }
    if form == "cross":
        batch["condition"] = padded([row.condition for row in rows], tokenizer.pad)
        batch["condition_lengths"] = torch.tensor([len(row.condition) for row in rows])
    return batch | {"weight": float(batch["free"].sum())}


def to_device(batch: dict, device) -> tuple[Tensor, Tensor | None, Tensor]:
    """A batch on its device: tokens (B, L), lengths (B,) or None without padding, free (B, L)."""
    # Without lengths the model needs no attention mask.
    full = int(batch["lengths"].min()) == batch["tokens"].shape[1]
    lengths = None if full else batch["lengths"].to(device)
    return batch["tokens"].to(device), lengths, batch["free"].to(device)


class PairBatches(Batches):
    """batches(step) -> micro-batches of pairs of like length, a function of (seed, step)."""

    def micro_batch(self, rows: np.ndarray) -> dict:
        """The batch of these pairs (B,)."""
        return self.data.batch(rows, self.pad_multiple)
