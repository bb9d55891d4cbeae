"""Rows whose words hide attributes: fills, colours or shapes of a plan, and the whole caption.

    [BOS] [MASK] [MASK] …  dark xd yc small [MASK] red [MASK]  17 902 902 511 …

A plan says where objects are and what they look like. Where a plan hides its shapes, a painter must
tell from their neighbours which tokens fit. Where it hides all three attributes, the painter knows
the background, and the place and the size of each object. Such rows are what guidance steers away
from (image/guides.py). A caption names the same attributes, so a row hides it whole.

Shapes: B rows, L positions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worlds import plans
from worlds.scenes import COLOURS, FILLS, SHAPES

WORDS = {"fill": FILLS, "colour": COLOURS, "shape": SHAPES}
ATTRIBUTES = tuple(WORDS)  # that can be hidden; the size says which places an object covers


def places(length: int, words: Tensor, plan: int, attributes: Sequence[str]) -> Tensor:
    """The positions of rows that hide these attributes, and so their captions: (B, length) bool.

    words: (B,) words of each row, with the plan. plan: words of a plan. Without attributes, nothing
    is hidden.
    """
    position = torch.arange(length, device=words.device)
    behind = position - (words - plan)[:, None]  # the number of a word in its plan, from 0
    if not attributes:
        return torch.zeros_like(behind, dtype=torch.bool)
    is_caption = (position > 0) & (behind < 0)
    part = (behind - 1) % len(plans.PARTS)  # word 0 of a plan is the background
    is_attribute = torch.zeros_like(is_caption)
    for name in attributes:
        is_attribute |= part == plans.PARTS.index(WORDS[name])
    return is_caption | (is_attribute & (behind > 0) & (behind < plan))


def hide(
    tokens: Tensor, words: Tensor, plan: int, mask_id: int, hidden: Sequence[Sequence[str]]
) -> Tensor:
    """The rows (B, L), with [MASK] where each row hides words.

    hidden: the attributes that each row hides. words, plan: as in `places`.
    """
    result = tokens.clone()
    for row, attributes in enumerate(hidden):
        where = places(tokens.shape[1], words[row : row + 1], plan, attributes)[0]
        result[row].masked_fill_(where, mask_id)
    return result


def of_row(words: list[int], plan: int, mask_id: int) -> list[int]:
    """The ids of a row's words, with [MASK] for its caption and all three attributes."""
    count = torch.tensor([len(words)])
    return hide(torch.tensor([words]), count, plan, mask_id, [ATTRIBUTES])[0].tolist()


def draw(count: int, share: float, rng: np.random.Generator) -> list[list[str]]:
    """The attributes that each of `count` rows hides. Most rows hide none.

    In a share of the rows, a fair coin decides for each attribute. At least one is hidden.
    """
    result: list[list[str]] = []
    for hides in rng.random(count) < share:
        attributes: list[str] = []
        while hides and not attributes:
            attributes = [name for name in ATTRIBUTES if rng.random() < 0.5]
        result.append(attributes)
    return result
