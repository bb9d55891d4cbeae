"""Where the objects of a plan stand, and what the places of a picture are told of them.

The words of a row may end with a plan (worlds/plans.py). It names each object in six words: column,
row, size, fill, colour, shape. Two vectors are added to what the network reads:

- **Words stand at places.** The words from the row on get the vectors of the object's row and
  column. Places of the picture have the same vectors. A plan says column and row first, so the twin
  knows the place of a word when it reads it.
- **Places are told of objects.** A place is told the two nearest objects: what their last four
  words are, and how far away they are, in rows and columns. Objects more than `plan_reach` places
  away are not told. So a token near an object need not find it by attention.

Both read only words that stand there: a masked column or row is no place yet.

Shapes: B rows, L positions, K positions of words, D width, R reach in places, V ids.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig

NEAREST = 2  # objects that a place is told
TOLD = 4  # words of an object behind its row: size, fill, colour, shape
FAR = 1_000_000  # as a distance: there is no such object


@dataclass
class Objects:
    """The objects that words name. known: (B, K) bool, whether a position names the row of an
    object whose column stands before it. row, column: (B, K) int64, 0 where nothing is known.
    words: (B, K, D), the sum of the vectors of the four words behind the position.
    """

    known: Tensor
    row: Tensor
    column: Tensor
    words: Tensor

    def repeated(self, count: int) -> "Objects":
        """Each row `count` times."""
        parts = (self.known, self.row, self.column, self.words)
        return Objects(*(part.repeat_interleave(count, 0) for part in parts))


def line_table(config: ModelConfig) -> Tensor:
    """The column that each id names, and the row; -1 if it names none: (2, V) int64."""
    table = torch.full((2, config.vocab_size), -1)
    for which, ids in enumerate(config.plan_line_ids):
        # Lines divide the side into equal parts. Behind the outermost line there is no place.
        place = torch.arange(len(ids)) * config.picture_side // (len(ids) - 1)
        table[which, ids] = place.clamp(max=config.picture_side - 1)
    return table


def shifted(x: Tensor, count: int) -> Tensor:
    """x (B, K, D) moved by `count` positions, to the right if it is above 0; zeros come in."""
    if count >= 0:
        return F.pad(x, (0, 0, count, 0))[:, : x.shape[1]]
    return F.pad(x, (0, 0, 0, -count))[:, -count:]


class PlanPlaces(nn.Module):
    """What a plan adds to the vectors of words and places."""

    lines: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.side, self.reach = config.picture_side, config.plan_reach
        self.register_buffer("lines", line_table(config), persistent=False)
        if self.reach:
            width = config.d_model
            self.distances = (2 * self.reach + 1) ** 2
            self.told = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(NEAREST))
            self.offset = nn.Embedding(NEAREST * self.distances, width)
            # Zeros: a network that starts from the weights of a network without them is the same.
            for part in (*self.told, self.offset):
                nn.init.zeros_(part.weight)

    def objects(self, tokens: Tensor, is_word: Tensor, vectors: Tensor) -> Objects:
        """The objects that the words of rows (B, K) name. vectors: (V, D), of each id."""
        column, row = self.lines[:, tokens]  # (B, K) each
        before = F.pad(column[:, :-1], (1, 0), value=-1)  # a column is named a word before its row
        known = (before >= 0) & (row >= 0) & is_word
        embedded = F.embedding(tokens, vectors) * is_word[..., None]
        words = sum(shifted(embedded, -count) for count in range(1, TOLD + 1))
        assert isinstance(words, Tensor)
        return Objects(known, row * known, before * known, words)

    def stand(self, objects: Objects, rows: Tensor, columns: Tensor) -> Tensor:
        """What tells the words of objects where they stand: (B, K, D).

        rows, columns: (S, D), the vectors of the picture's rows and columns.
        """
        place = (rows[objects.row] + columns[objects.column]) * objects.known[..., None]
        total = place
        for count in range(1, TOLD + 1):
            total = total + shifted(place, count)
        return total

    def tell(self, objects: Objects, place: Tensor) -> Tensor:
        """What tells places of the picture which objects are near: (B, L, D).

        place: (B, L) int64, numbers of places in reading order; outside of the picture nothing is
        told.
        """
        inside = (place >= 0) & (place < self.side**2)
        row, column = place // self.side, place % self.side
        down = row[:, :, None] - objects.row[:, None]  # (B, L, K)
        across = column[:, :, None] - objects.column[:, None]
        near = (down.abs() <= self.reach) & (across.abs() <= self.reach)
        near &= objects.known[:, None] & inside[..., None]
        # Of objects equally far away, the first of the plan comes first.
        count = down.shape[-1]
        order = torch.arange(count, device=place.device)
        distance = torch.where(near, (down**2 + across**2) * count + order, FAR)
        total = torch.zeros((), device=place.device)
        for rank, told in enumerate(self.told):
            least, which = distance.min(-1)  # (B, L)
            is_there = least < FAR
            at = which[..., None]
            far = down.gather(2, at) * (2 * self.reach + 1) + across.gather(2, at)
            # Where no object is near, any number serves: the sum is not added.
            number = far[..., 0] + self.distances // 2
            number = torch.where(is_there, number, 0) + rank * self.distances
            words = told(objects.words).gather(1, at.expand(-1, -1, objects.words.shape[-1]))
            total = total + (words + self.offset(number)) * is_there[..., None]
            distance = distance.scatter(2, at, FAR)
        return total
