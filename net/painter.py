"""One network for words and pictures: rows of words, then the tokens of a picture.

    [BOS] a red star above a blue circle [EOS]  17 902 902 511 …  [PAD] [PAD]
    segment 0, n words                          segment 1, P = S·S picture tokens, row by row

The picture follows the words at once, so that padding is at the end of the row, for the denoiser
and the causal twin alike. A segment that is absent is not in the row: without words the row is
[BOS] and the picture, without a picture it ends with the words. So nobody attends to it.

One vocabulary holds both: the codes of pictures are the ids 0 .. C - 1, a word's id is C plus its
id in the tokenizer. So [PAD], [BOS] and [MASK] are still the last ids, and are never written. Where
a place is in the other segment, the logit is minus infinity.

The network is told the number of words, `words`, and takes the rest of a row for its picture. A
picture's place is added to its token: a learned vector of its row, and one of its column. They
start larger than the tokens' embeddings: without a strong place code captions learn no relations
(docs/log/captions.md). Each segment has a vector too.

Where the words end with a plan (worlds/plans.py), words and places are told where its objects stand
(net/plan_places.py).

A code has its own vector, and a vector of its levels: near codes look alike in a picture, and a
code that is rare in training learns from its neighbours (`LevelVectors`).

A painter may start from the weights of its twin, with `logit_shift`. The twin learns sooner to read
neighbours: it learns all tokens in each step, and the left neighbour is always there.

Shapes: B rows, L positions, D width, P places of a picture, S its side, M selected, C codes. V ids,
of which V' can be written.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig
from model import WEIGHT_STD, Cache, Denoiser, KeysValues
from net.plan_places import Objects, PlanPlaces

PLACE_STD = 4 * WEIGHT_STD  # of a row's or a column's vector at the start
LEVELS_STD = 3 * WEIGHT_STD  # of a vector of levels at the start: more than a code's own vector
LEVELS_HIDDEN = 256


def levels_of(sizes: list[int]) -> Tensor:
    """The levels of each code, each level as a unit vector: (C, sum of the sizes) float32.

    sizes: the number of levels of each of a code's numbers, as in net/picture_codes.py.
    """
    codes = torch.arange(math.prod(sizes))
    parts, basis = [], 1
    for size in sizes:
        parts.append(F.one_hot(codes // basis % size, size).float())
        basis *= size
    return torch.cat(parts, 1)


class LevelVectors(nn.Module):
    """A vector for each code, by a small network of its levels: (C, D)."""

    levels: Tensor

    def __init__(self, sizes: list[int], width: int):
        super().__init__()
        self.register_buffer("levels", levels_of(sizes), persistent=False)
        self.up = nn.Linear(sum(sizes), LEVELS_HIDDEN)
        self.down = nn.Linear(LEVELS_HIDDEN, width, bias=False)
        # Each code has a level of each number, so the hidden units start with variance near 1.
        nn.init.normal_(self.up.weight, std=len(sizes) ** -0.5)
        nn.init.normal_(self.down.weight, std=LEVELS_STD / (0.6 * LEVELS_HIDDEN**0.5))

    def forward(self) -> Tensor:
        return self.down(F.silu(self.up(self.levels)))


class Painter(Denoiser):
    """Rows of words and a picture -> logits over the ids of each place's own segment."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.side, self.codes = config.picture_side, config.picture_codes
        sizes = config.picture_level_sizes
        self.level_vectors = LevelVectors(sizes, config.d_model) if sizes else None
        self.row = nn.Embedding(self.side, config.d_model)
        self.column = nn.Embedding(self.side, config.d_model)
        self.segment = nn.Embedding(2, config.d_model)
        self.plan = PlanPlaces(config) if config.plan_lines else None
        for code in (self.row, self.column):
            nn.init.normal_(code.weight, std=PLACE_STD)
        nn.init.normal_(self.segment.weight, std=WEIGHT_STD)

    def vectors(self) -> Tensor:
        """The vector of each id, for input and output: (V, D)."""
        own = self.embedding.weight
        if self.level_vectors is None:
            return own
        return torch.cat([own[: self.codes] + self.level_vectors(), own[self.codes :]])

    @torch.no_grad()
    def fold(self) -> None:
        """Add the vectors of levels to the codes' own vectors: equal logits, at less work."""
        self.embedding.weight.copy_(self.vectors())
        self.level_vectors = None

    def places(self, length: int, words: Tensor, first: int = 0) -> Tensor:
        """Each position's place in its picture; below 0 for words: (B, length) int64.

        words: (B,) number of words of each row. first: the position of the first column.
        """
        position = torch.arange(first, first + length, device=words.device)
        return position - words[:, None]

    def objects_of(self, words: Tensor) -> Objects | None:
        """The objects that the plan at the end of words (B, n) names; None: there are no plans."""
        if self.plan is None:
            return None
        return self.plan.objects(words, torch.ones_like(words, dtype=torch.bool), self.vectors())

    def inputs_of(
        self, tokens: Tensor, place: Tensor, vectors: Tensor, objects: Objects | None = None
    ) -> Tensor:
        """What the blocks read: tokens, their segment, and at picture places where they are.

        tokens, place: (B, L) -> (B, L, D). vectors: (V, D), of each id. objects: those of the plan,
        if it stands before these tokens and not in them.
        """
        is_picture = place >= 0
        # Padding behind a picture has a place too far; it is never attended to.
        inside = place.clamp(0, self.side**2 - 1)
        where = self.row(inside // self.side) + self.column(inside % self.side)
        x = F.embedding(tokens, vectors) + self.segment(is_picture.long())
        x = x + where * is_picture[..., None]
        if self.plan is None:
            return x
        if objects is None:
            longest = int((~is_picture).sum(1).max())  # words are the first tokens of a row
            is_word = ~is_picture[:, :longest]
            objects = self.plan.objects(tokens[:, :longest], is_word, vectors)
            stands = self.plan.stand(objects, self.row.weight, self.column.weight)
            x = x + F.pad(stands, (0, 0, 0, x.shape[1] - longest)) * ~is_picture[..., None]
        if self.plan.reach:
            # A position that predicts the next token is told of the next place.
            ahead = int(self.config.causal or self.config.logit_shift)
            x = x + self.plan.tell(objects, place + ahead)
        return x

    def forward(
        self,
        tokens: Tensor,
        *,
        lengths: Tensor | None = None,
        share: Tensor | None = None,
        condition: list[KeysValues] | None = None,
        select: Tensor | None = None,
        cache: Cache | None = None,
        attend: Tensor | None = None,
        inputs: Tensor | None = None,
        words: Tensor | None = None,
        objects: Objects | None = None,
    ) -> Tensor:
        """As `Denoiser.forward`. words: (B,) or (B / n,) words of each row; None: all are words.

        objects: those of the plan, if its words are in the cache.

        Returns float32 logits (B, L, V') or (M, V'), minus infinity outside of the segment. The
        twin's logits are of the next position, so they are of the next position's segment.
        """
        if words is None:
            words = torch.full((len(tokens),), self.config.max_length, device=tokens.device)
        words = words.repeat_interleave(len(tokens) // len(words), 0)
        first = cache.position if cache else 0
        if self.plan is not None and first and (objects is None or (first < words).any()):
            raise ValueError("the words of a plan at one time, and its objects in later calls")
        place = self.places(tokens.shape[1], words, first)
        vectors = self.vectors()
        if inputs is None:
            inputs = self.inputs_of(tokens, place, vectors, objects)
        x = self.trunk(tokens, lengths, share, condition, cache, attend, inputs)  # (B, L, D)
        return self.predict(x, place, select, vectors)

    def predict(self, x: Tensor, place: Tensor, select: Tensor | None, vectors: Tensor) -> Tensor:
        """Logits (B, L, V') or (M, V') of the trunk's x (B, L, D). place: (B, L). vectors: (V, D).

        Minus infinity outside of a position's segment.
        """
        of_picture = place + int(self.config.causal) >= 0
        x = self.outputs(x, select)
        if select is not None:
            of_picture = of_picture[select]
        output = vectors[: self.config.output_size]  # (V', D)
        logits = (x @ output.T).float()
        is_code = torch.arange(self.config.output_size, device=x.device) < self.codes
        return logits.masked_fill(is_code != of_picture[..., None], -torch.inf)

    def bind_rows(
        self, lengths: Tensor | None, words: Tensor
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """A `diffusion.Denoise` of rows with these numbers of tokens and of words, (B,) each."""

        def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
            return self(tokens, share=share, select=select, lengths=lengths, words=words)

        return denoise


def spread_order(side: int) -> Tensor:
    """The turn of each place of a picture, far apart places early: (P,) int64, 0 for the first.

    Halton's points in bases 2 and 3 visit the places (arXiv 2503.17076). A place's turn is that of
    the first point in it.
    """
    turn = torch.full((side * side,), -1)
    number, count = 0, 0
    while count < side * side:
        number += 1
        row = int(radical_inverse(number, 2) * side)
        column = int(radical_inverse(number, 3) * side)
        place = row * side + column
        if turn[place] < 0:
            turn[place] = count
            count += 1
    return turn


def radical_inverse(number: int, base: int) -> float:
    """The digits of a number mirrored at the point: 6 is 110 in base 2, so 0.011 = 0.375."""
    result, digit = 0.0, 1.0 / base
    while number:
        number, rest = divmod(number, base)
        result += rest * digit
        digit /= base
    return result
