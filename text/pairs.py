"""Pairs of what is given and what is asked for: their folder and their batches (floor 1). The one place that knows both.

    train.npy, train_offsets.npy    documents as in data.py; val likewise
    train_blanks.npy                int32 (K * 5,): pair, document, kind, start, end of every blank, in tokens of its document
    tokenizer.json, meta.json       as in data.py, kind "pairs", and the length of the denoiser that they are made for

A pair is a document of which parts are blank: `continue`, all behind the first sentence; `middle`, all between the first
sentence and the last; `blanks`, one to four pieces, each a whole sentence or 1 to 20 tokens. One document in three forms:
    context   the document itself, [BOS] given BLANK given [EOS]: the given tokens stand where they belong
    cross     [BOS] BLANK [BOS] BLANK [EOS], and the rest as the condition, one [MASK] for each blank
    ar        the ending first: [BOS] behind the first blank, [BOS] before it, then BLANK [EOS] BLANK [EOS] to be predicted
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from text import data, sentences
from text.data import Batches, SplitWriter

FORMS = ("context", "cross", "ar")
KINDS = ("continue", "middle", "blanks")
MOST_BLANKS = 4
ROOM = 2 * MOST_BLANKS  # what the forms need beyond the document itself
SPANS = (1, 2, 3, 5, 8, 13, 20)
MAKE = "run prep_conditional_data.py, or name another folder with --data_dir"
REMAKE = "run prep_conditional_data.py again"


@dataclass
class Pair:
    """given: k + 1 arrays of ids, the first with [BOS] in front, the last with [EOS] at its end; blanks: the k between."""

    given: list[np.ndarray]
    blanks: list[np.ndarray]
    kind: str = "blanks"
    document: int = 0

    def whole(self) -> np.ndarray:
        return np.concatenate(
            [piece for pair in zip(self.given, [*self.blanks, []], strict=True) for piece in pair]
        ).astype(np.int64)


@dataclass
class Row:
    """ids (n,) int64; free (n,) bool, what is to be predicted; condition (p,) int64, empty unless the form is `cross`."""

    ids: np.ndarray
    free: np.ndarray
    condition: np.ndarray


def arrange(pair: Pair, form: str, tokenizer: Tokenizer) -> Row:
    """A pair in one of the three forms. The free positions of the row hold the blanks, in their order."""
    bos, eos, mask = [tokenizer.bos], [tokenizer.eos], [tokenizer.mask]
    marked = [
        piece for text in pair.given[1:] for piece in (mask, text)
    ]  # [MASK] given [MASK] given …
    condition: list = []
    if form == "context":
        parts = [(pair.given[0], False)]
        for blank, text in zip(pair.blanks, pair.given[1:], strict=True):
            parts += [(blank, True), (text, False)]
    elif form == "cross":
        parts = [part for blank in pair.blanks for part in ((bos, False), (blank, True))] + [
            (eos, False)
        ]
        condition = [pair.given[0], *marked]
    else:
        behind = np.concatenate(marked[1:])[
            :-1
        ]  # without the document's [EOS]: it would say that a story ends here
        parts = [(bos, False), (behind, False)] if len(behind) else []
        parts += [(pair.given[0], False)] + [
            part for blank in pair.blanks for part in ((blank, True), (eos, True))
        ]
    join = lambda pieces: np.concatenate(
        [np.asarray(piece, dtype=np.int64) for piece in pieces or [[]]]
    )  # noqa: E731
    return Row(
        join([ids for ids, _ in parts]),
        np.concatenate([np.full(len(ids), free) for ids, free in parts]),
        join(condition),
    )


def sentence_edges(text: str, sizes: np.ndarray) -> list[int]:
    """Where sentences begin, in tokens, and at last the number of tokens; an edge inside a token is left out.

    sizes: (n,) bytes of each token.
    """
    ends = np.cumsum(sizes)
    bytes_at = np.array([len(text[:end].encode()) for _, end in sentences.split(text)])
    place = np.searchsorted(ends, bytes_at)
    whole = [
        int(i) + 1 for i, at in zip(place, bytes_at, strict=True) if i < len(ends) and ends[i] == at
    ]
    return sorted({0, *whole, len(sizes)})


def make_blanks(
    edges: list[int], rng: np.random.Generator, times: int
) -> list[tuple[str, list[tuple[int, int]]]]:
    """The pairs of a document: (kind, [(start, end)]) with positions in the document, [BOS] being 0. edges: see above."""
    edges = [edge + 1 for edge in edges]
    end, found = edges[-1], []
    if len(edges) >= 3:
        found.append(("continue", [(edges[1], end)]))
    if len(edges) >= 4:
        found.append(("middle", [(edges[1], edges[-2])]))
    for _ in range(times):
        blanks: list[tuple[int, int]] = []
        for _ in range(int(rng.integers(1, MOST_BLANKS + 1))):
            if len(edges) >= 3 and rng.random() < 0.5:
                number = int(rng.integers(len(edges) - 1))
                start, stop = edges[number], edges[number + 1]
            else:
                start = int(rng.integers(1, max(2, end - 1)))
                stop = start + int(rng.choice(SPANS))
            if (
                stop <= end
                and stop - start < end - 1
                and all(stop < left or right < start for left, right in blanks)
            ):  # a token between them
                blanks.append((start, stop))
        if blanks and sum(right - left for left, right in blanks) < end - 1:
            found.append(("blanks", sorted(blanks)))
    return found


class PairWriter:
    """Write one split: every document, and the pairs of those that fit a row. Memory does not grow with it."""

    def __init__(self, folder, split: str, tokenizer: Tokenizer, max_length: int):
        self.documents, self.max_length, self.sizes = (
            SplitWriter(folder, split, tokenizer),
            max_length,
            tokenizer.token_bytes(),
        )
        self.raw, self.path = (
            open(Path(folder) / f".{split}_blanks.raw", "wb"),
            Path(folder) / f"{split}_blanks.npy",
        )
        self.pairs = dict.fromkeys(KINDS, 0)
        self.fitting = 0

    def add(self, text: str, ids: np.ndarray, rng: np.random.Generator, times: int) -> None:
        """One document: its text, its ids (n,) without [BOS] and [EOS], and how many pairs of kind `blanks` to make."""
        document = self.documents.documents
        self.documents.add(ids, len(text.encode()))
        if not 1 <= len(ids) <= self.max_length - ROOM - 2:
            return
        self.fitting += 1
        for kind, blanks in make_blanks(sentence_edges(text, self.sizes[ids]), rng, times):
            number = sum(self.pairs.values())
            self.pairs[kind] += 1
            self.raw.write(
                np.array(
                    [[number, document, KINDS.index(kind), *blank] for blank in blanks],
                    dtype=np.int32,
                ).tobytes()
            )

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


def write_meta(folder, tokenizer: Tokenizer, splits: dict, settings: dict) -> dict:
    """Write tokenizer.json, then meta.json, which makes the folder valid; return what it holds."""
    names = [
        f"{split}{part}.npy" for split in sorted(splits) for part in ("", "_offsets", "_blanks")
    ]
    return folders.seal(folder, "pairs", tokenizer, names, {"splits": splits, **settings})


class PairData:
    """One split in one form. lengths: (N,) int64, tokens of each pair's row; `starts` only counts them, as in data.TextData."""

    def __init__(self, folder, split: str, form: str):
        folder = Path(folder)
        self.form, self.meta = (
            form,
            folders.read_meta(folder, "pairs", "a folder of pairs", MAKE, MAKE),
        )
        folders.check_files(
            folder,
            self.meta,
            (*(f"{split}{part}.npy" for part in ("", "_offsets", "_blanks")), "tokenizer.json"),
            REMAKE,
        )
        self.tokenizer = Tokenizer.load(folder / "tokenizer.json")
        if self.tokenizer.fingerprint != self.meta.get("tokenizer"):
            raise UserError(
                f"{folder} made with tokenizer {self.meta.get('tokenizer')}",
                f"tokenizer {self.tokenizer.fingerprint}",
                REMAKE,
            )
        self.tokens, self.offsets = (
            data.read_array(folder / f"{split}.npy", np.uint16),
            data.read_array(folder / f"{split}_offsets.npy", np.int64),
        )
        flat = data.read_array(folder / f"{split}_blanks.npy", np.int32)
        if len(flat) % 5 or not len(flat):
            raise UserError(
                f"{folder}/{split}_blanks.npy with {len(flat)} numbers",
                "five for every blank, and a blank at least",
                REMAKE,
            )
        self.blanks = np.asarray(flat).reshape(-1, 5).astype(np.int64)
        documents, sizes = self.blanks[:, 1], np.diff(self.offsets)
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
        if (
            int(self.tokens.max()) >= self.tokenizer.vocab_size
            or type(self.meta.get("max_length")) is not int
        ):
            raise UserError(
                f"id {int(self.tokens.max())} in {folder}/{split}.npy, rows of {self.meta.get('max_length')!r}",
                f"ids below {self.tokenizer.vocab_size}, and a number",
                REMAKE,
            )
        ends = np.where(
            np.diff(self.blanks[:, 0], append=-1) == 0,
            np.roll(self.blanks[:, 3], -1),
            sizes[documents % len(sizes)] - 1,
        )
        if (
            self.blanks.min() < 0
            or documents.max() >= len(sizes)
            or self.blanks[:, 2].max() >= len(KINDS)
            or (self.blanks[:, 3] < 1).any()
            or (self.blanks[:, 4] > ends).any()
            or (self.blanks[:, 3] >= self.blanks[:, 4]).any()
        ):
            raise UserError(
                f"{folder}/{split}_blanks.npy, which does not fit {split}.npy",
                "blanks inside their documents",
                REMAKE,
            )
        self.first = np.flatnonzero(
            np.diff(self.blanks[:, 0], prepend=-1)
        )  # where each pair's blanks begin
        self.starts, self.kinds, self.documents = (
            self.first,
            self.blanks[self.first, 2],
            documents[self.first],
        )
        count = np.diff(self.first, append=len(self.blanks))
        asked = np.add.reduceat(self.blanks[:, 4] - self.blanks[:, 3], self.first)
        to_the_end = (count == 1) & (
            self.blanks[self.first, 4] == sizes[self.documents] - 1
        )  # nothing stands behind the blank
        self.lengths = {
            "context": sizes[self.documents],
            "cross": asked + count + 1,
            "ar": sizes[self.documents] + 2 * count - 1 - to_the_end,
        }[form]

    def __len__(self) -> int:
        return len(self.first)

    def check_tokenizer(self, fingerprint: str, folder, path) -> None:
        """Raise UserError unless the pairs have the tokenizer of the checkpoint at `path`."""
        if self.tokenizer.fingerprint != fingerprint:
            raise UserError(
                f"pairs in {folder} made with tokenizer {self.tokenizer.fingerprint}",
                f"tokenizer {fingerprint}, that of {path}",
                f"run prep_conditional_data.py --denoiser {path}, or name another folder with --data_dir",
            )

    def pair(self, number: int) -> Pair:
        rows = self.blanks[
            self.first[number] : self.first[number + 1] if number + 1 < len(self) else None
        ]
        start = self.offsets[rows[0, 1]]
        document = np.asarray(self.tokens[start : self.offsets[rows[0, 1] + 1]])
        edges = [0, *rows[:, 3:].ravel().tolist(), len(document)]
        pieces = [document[left:right] for left, right in zip(edges, edges[1:], strict=False)]
        return Pair(pieces[::2], pieces[1::2], KINDS[rows[0, 2]], int(rows[0, 1]))

    def length_histograms(self) -> dict[str, list[int]]:
        """By kind, how many blanks have each length in tokens, from 0 up."""
        kinds, sizes = self.blanks[:, 2], self.blanks[:, 4] - self.blanks[:, 3]
        return {
            name: np.bincount(sizes[kinds == number], minlength=2).tolist()
            for number, name in enumerate(KINDS)
        }

    def batch(self, numbers, pad_multiple: int = 1) -> dict:
        return batch_of(
            [self.pair(int(number)) for number in numbers],
            self.form,
            self.tokenizer,
            pad_multiple,
            self.meta["max_length"],
        )


def batch_of(
    pairs: list[Pair], form: str, tokenizer: Tokenizer, pad_multiple: int = 1, most: int = 1 << 30
) -> dict:
    """Tensors of some pairs: tokens, free (B, L), lengths (B,); condition (B, P) and condition_lengths (B,) for `cross`.

    Padded to the longest row, or to a multiple, but not beyond `most`.
    """
    rows = [arrange(pair, form, tokenizer) for pair in pairs]

    def padded(name: str, filler) -> Tensor:
        parts = [getattr(row, name) for row in rows]
        width = max(map(len, parts))
        result = torch.full(
            (len(parts), min(-(-width // pad_multiple) * pad_multiple, max(width, most))), filler
        )
        for line, part in zip(result, parts, strict=True):
            line[: len(part)] = torch.from_numpy(part)
        return result

    batch: dict = {
        "tokens": padded("ids", tokenizer.pad),
        "lengths": torch.tensor([len(row.ids) for row in rows]),
        "free": padded("free", False),
    }
    if form == "cross":
        batch["condition"] = padded("condition", tokenizer.pad)
        batch["condition_lengths"] = torch.tensor([len(row.condition) for row in rows])
    return batch | {"weight": float(batch["free"].sum())}


def place(batch: dict, device) -> tuple[Tensor, Tensor | None, Tensor]:
    """A batch on its device: tokens (B, L), lengths (B,) or None if nothing is padding, free (B, L) bool."""
    full = int(batch["lengths"].min()) == batch["tokens"].shape[1]
    return (
        batch["tokens"].to(device),
        None if full else batch["lengths"].to(device),
        batch["free"].to(device),
    )


class PairBatches(Batches):
    """batches(step) -> micro-batches of pairs of like length, a pure function of (seed, step); see data.Batches."""

    def micro_batch(self, rows: np.ndarray) -> dict:
        return self.data.batch(rows, self.pad_multiple)
