"""Guidance of painters with plans: away from a plan that hides looks, or by one look at a time.

A plan says where objects are and how they look: their fill, colour and shape
(image/hidden_words.py). Let F see all words, let N see none of the looks, and let L see a single
kind of look. All log-probabilities are of the same token.

    sharpened by s    N + s (F - N)
    composed          N + s (L_fill - N) + s (L_colour - N) + s (L_shape - N)

Where objects are is in N too. So sharpening counts looks more, and not places. Plain guidance,
which steers away from a picture of no words at all, counts places more, which are right already.

Composition serves pairs of looks that training never showed. If a token's looks are independent
given the token, Bayes' rule makes p(token | looks) proportional to the product of the p(token |
look) / p(token). Each factor was seen in training, even where the pair was not (arXiv 2206.01714,
equation 11, has the same product for scores).

Shapes: B rows, L positions, M selected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base import flags
from base.flags import setting
from image.hidden_words import LOOKS
from net.block_writing import Reader

# What a row hides, and how much its log-probability counts. The counts add up to 1.
Part = tuple[float, Sequence[str]]


@dataclass
class Guidance:
    """What a painter is guided by."""

    guidance: float = setting(2.0, "away from a picture of no words; 1 means no guidance")
    sharpen: float = setting(
        1.0, "with plans: away from a plan that hides all looks; 1 means no such guidance"
    )
    compose: bool = setting(
        False, "with plans: one kind of look at a time, for pairs that training never showed"
    )

    def __post_init__(self):
        flags.check(self)

    @property
    def parts(self) -> list[Part]:
        """What guidance by hidden words adds up; nothing without such guidance."""
        if self.compose:
            return composed(self.sharpen)
        return sharpened(self.sharpen) if self.sharpen != 1.0 else []


def sharpened(scale: float) -> list[Part]:
    """All words, and no looks. A scale of 1 is the network alone."""
    return [(scale, ())] if scale == 1.0 else [(scale, ()), (1 - scale, LOOKS)]


def composed(scale: float) -> list[Part]:
    """Each kind of look alone, and no looks."""
    alone: list[Part] = []
    for kept in LOOKS:
        alone.append((scale, [look for look in LOOKS if look != kept]))
    return [*alone, (1 - len(LOOKS) * scale, LOOKS)]


class Mixture:
    """The weighted sum of readers' log-probabilities, as log-probabilities: a `Reader`.

    What can never be written is at minus infinity in all parts, and stays there.
    """

    def __init__(self, parts: list[tuple[float, Reader]]):
        self.parts = parts

    def begin(self, picture: Tensor, left: int) -> None:
        """The block that starts at place `left` is next; the picture (B, P) before it is there."""
        for _, reader in self.parts:
            reader.begin(picture, left)

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        total = torch.zeros((), device=tokens.device)
        for count, reader in self.parts:
            said = reader(tokens, share, select).log_softmax(-1)
            total = total + (count * said).masked_fill(said == -math.inf, -math.inf)
        return total.log_softmax(-1)
