"""Guidance of painters: away from a picture of no words, and away from hidden attributes.

Let F be the log-probabilities of a token given all words, H given words whose plan hides fills,
colours and shapes (image/hidden_words.py), and N given no words at all. Up to a constant, a token
is drawn from

    N + guidance · (H + sharpen · (F - H) - N)

Sharpening is classifier-free guidance (arXiv 2207.12598) of some of the words. H knows where
objects are, and how large. So sharpening counts what they look like, and guidance counts the places
too. Both at 1 are F alone.

Shapes: B rows, P places of a picture, n places of a block, M selected.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from base import flags
from base.flags import setting
from net.block_writing import Reader


@dataclass
class Guidance:
    """How far a painter is guided."""

    guidance: float = setting(2.0, "away from a picture of no words; 1 means no guidance")
    sharpen: float = setting(
        1.0,
        "with --share_hidden in training: away from a plan without fills, colours and shapes; 1 "
        "means no such guidance",
        at_least=0,
    )

    def __post_init__(self):
        flags.check(self)

    def counts(self) -> tuple[float, float, float]:
        """How much F, H and N count. Their sum is 1."""
        guidance, sharpen = self.guidance, self.sharpen
        return guidance * sharpen, guidance * (1 - sharpen), 1 - guidance


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
        """tokens (B, n), select (B, n) bool -> log-probabilities (M, V')."""
        total = torch.zeros((), device=tokens.device)
        for count, reader in self.parts:
            said = reader(tokens, share, select).log_softmax(-1)
            total = total + (count * said).masked_fill(said == -math.inf, -math.inf)
        return total.log_softmax(-1)
