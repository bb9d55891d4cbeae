"""Blanks of unknown length: a place may become two places, or end its blank (arXiv 2602.01326).

The *canvas* of a blank is what it looks like while it is written: m places, words and [MASK]s. A
masked place draws a label:

    a word      it stands at this place from now on
    [expand]    the place becomes two masked places
    [delete]    the place vanishes, and so do all places behind it in its blank

The two edits are outputs only. They have no id and no embedding: a network has two rows for them
next to its output matrix. A blank of n words on a canvas of m places has these right labels:

    place i > n        [delete]
    place i = m < n    [expand]
    other places       word i

So word i stands at place i, and only the last place stands for the rest. DreamOn merges
and inserts at random places, and its [delete] removes one place. Here i, m and n decide the label,
and the canvas remembers all that was decided about n. So the order of the places does not change
the law of the texts (text/free_paths.py).

A blank grows or shrinks, never both. A vector that is added to its masked places tells its state:

    KNOWN     its length is known: nothing is added, and both edits are impossible
    FRESH     nothing was edited
    GREW      it expanded: it has at least as many words as places, and cannot shrink
    SHRANK    it was cut: it has at most as many words as places, and cannot grow

Shapes: B rows, L positions, D width, M selected places, V' ids that can be written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from base.config import ModelConfig
from model import Denoiser
from net.experts import refuse

KNOWN, FRESH, GREW, SHRANK = range(4)
# The labels behind the V' words.
EXPAND, DELETE = 0, 1
EDITS = 2


@dataclass
class Canvas:
    """A row while it is written.

    given: k + 1 arrays of ids, as in text/forms.py. blanks: the k arrays of ids between them, with
    [MASK]s. states: KNOWN to SHRANK of each blank.
    """

    given: list[np.ndarray]
    blanks: list[np.ndarray]
    states: list[int]

    def ids(self) -> np.ndarray:
        """The row: (n,) int64."""
        pieces = [self.given[0]]
        for blank, given in zip(self.blanks, self.given[1:], strict=True):
            pieces += [blank, given]
        return np.concatenate(pieces).astype(np.int64)

    def __len__(self) -> int:
        return sum(map(len, self.given)) + sum(map(len, self.blanks))

    def places(self) -> Iterator[tuple[int, int, int]]:
        """The position in the row, the blank and the index in it of every place of a blank."""
        position = 0
        for number, blank in enumerate(self.blanks):
            position += len(self.given[number])
            for index in range(len(blank)):
                yield position, number, index
                position += 1


@dataclass
class Places:
    """Rows of canvases as tensors on the CPU.

    tokens: (B, L) int64. lengths: (B,) int64. masked: (B, L) bool. state: (B, L) int64, KNOWN at
    all places that are not masked. expand, delete: (B, L) bool, where these edits are possible.
    share: (B,) float64, the masked share of the places.
    """

    tokens: Tensor
    lengths: Tensor
    masked: Tensor
    state: Tensor
    expand: Tensor
    delete: Tensor
    share: Tensor


# (places, select (B, L) bool) -> logits (M, V' + 2) of the selected places. `bar` comes after it.
Labels = Callable[[Places, Tensor], Tensor]


def lay_out(canvases: list[Canvas], mask_id: int, pad: int, most: int) -> Places:
    """The rows of some canvases, padded to the longest. most: tokens that a row may have.

    A full row cannot expand. A blank keeps a place at least, and no place before a word vanishes.
    """
    width = max(map(len, canvases))
    shape = (len(canvases), width)
    tokens = np.full(shape, pad, dtype=np.int64)
    state = np.zeros(shape, dtype=np.int64)
    expand, delete = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    total = np.zeros(len(canvases), dtype=np.int64)
    for row, canvas in enumerate(canvases):
        tokens[row, : len(canvas)] = canvas.ids()
        position = 0
        for number, (blank, now) in enumerate(zip(canvas.blanks, canvas.states, strict=True)):
            position += len(canvas.given[number])
            end = position + len(blank)
            hidden = blank == mask_id
            words = np.flatnonzero(~hidden)
            state[row, position:end] = np.where(hidden, now, KNOWN)
            expand[row, end - 1] = hidden[-1] and now in (FRESH, GREW) and len(canvas) < most
            if now in (FRESH, SHRANK):
                first = max(1, words[-1] + 1 if len(words) else 0)
                delete[row, position + first : end] = True
            total[row] += len(blank)
            position = end
    masked = tokens == mask_id
    return Places(
        torch.from_numpy(tokens),
        torch.tensor([len(canvas) for canvas in canvases]),
        torch.from_numpy(masked),
        torch.from_numpy(state),
        torch.from_numpy(expand),
        torch.from_numpy(delete),
        torch.from_numpy(masked.sum(1) / total.clip(1)),
    )


def bar(logits: Tensor, places: Places, select: Tensor) -> Tensor:
    """Logits (M, V' + 2) of the selected places, -inf for the edits that are impossible there."""
    possible = torch.stack([places.expand[select], places.delete[select]], -1)  # (M, 2)
    impossible = nn.functional.pad(~possible, (logits.shape[-1] - EDITS, 0))
    return logits.masked_fill(impossible.to(logits.device), -torch.inf)


class FreeDenoiser(Denoiser):
    """A denoiser that can expand and delete. `forward` is the plain network, without edits."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        # Zeros: at the start each edit has the logit 0, and all states look alike.
        self.edits = nn.Parameter(torch.zeros(EDITS, config.d_model))
        self.states = nn.Parameter(torch.zeros(SHRANK, config.d_model))

    def labels(self, places: Places, select: Tensor) -> Tensor:
        """Logits (M, V' + 2) of the selected places (B, L): the words, then EXPAND and DELETE."""
        tokens = places.tokens.to(self.device)
        full = int(places.lengths.min()) == tokens.shape[1]  # then no attention mask is needed
        lengths = None if full else places.lengths.to(self.device)
        known = torch.zeros_like(self.states[:1])
        told = torch.cat([known, self.states])[places.state.to(self.device)]  # (B, L, D)
        x = self.trunk(
            tokens,
            lengths,
            places.share.to(self.device),
            None,
            None,
            None,
            self.embedding(tokens) + told,
        )
        x = self.outputs(x, select.to(self.device))  # (M, D)
        words = self.embedding.weight[: self.config.output_size]
        return (x @ torch.cat([words, self.edits]).T).float()


def with_edits(denoiser: Denoiser) -> FreeDenoiser:
    """A network with all weights of a plain denoiser, which can expand and delete.

    Raises UserError for a denoiser of experts.
    """
    refuse(denoiser.config, "--free_lengths", "name another --denoiser")
    model = FreeDenoiser(denoiser.config)
    model.load_state_dict(denoiser.state_dict(), strict=False)  # the new parts stay at 0
    return model.to(denoiser.device)
