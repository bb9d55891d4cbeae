"""Rows whose words hide looks: the fills, colours or shapes of a plan, and the whole caption.

    [BOS] [MASK] [MASK] …  dark xd yc small [MASK] red [MASK]  17 902 902 511 …

A plan says where an object is and how it looks. Where its shape is hidden, a painter must tell from
its neighbours what it paints; where all looks are hidden, it knows where an object is, and no more.
Such rows serve two aims. They keep a painter from learning each pair of colour and shape by heart,
and they are what guidance steers away from (image/guides.py). A caption names looks too, so it is
hidden whole.

Shapes: B rows, L positions, `width` positions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worlds import plans
from worlds.scenes import COLOURS, FILLS, SHAPES

LOOKS = ("fill", "colour", "shape")
PARTS = {"fill": FILLS, "colour": COLOURS, "shape": SHAPES}


def places(width: int, words: Tensor, plan: int, looks: Sequence[str]) -> Tensor:
    """What rows hide that hide these looks: (B, width) bool. No looks hide nothing.

    words: (B,) words of each row, with the plan. plan: words of a plan.
    """
    position = torch.arange(width, device=words.device)
    behind = position - (words - plan)[:, None]  # the number of a word in its plan, from 0
    if not looks:
        return torch.zeros_like(behind, dtype=torch.bool)
    is_caption = (position > 0) & (behind < 0)
    part = (behind - 1) % len(plans.PARTS)  # word 0 of a plan is the background
    is_look = torch.zeros_like(is_caption)
    for look in looks:
        is_look |= part == plans.PARTS.index(PARTS[look])
    return is_caption | (is_look & (behind > 0) & (behind < plan))


def hide(
    tokens: Tensor, words: Tensor, plan: int, mask_id: int, hidden: Sequence[Sequence[str]]
) -> Tensor:
    """Rows (B, L) with [MASK] for what each row hides that names looks in `hidden`.

    words, plan: as in `places`.
    """
    result = tokens.clone()
    for row, looks in enumerate(hidden):
        where = places(tokens.shape[1], words[row : row + 1], plan, looks)[0]
        result[row].masked_fill_(where, mask_id)
    return result


def of_row(words: list[int], plan: int, mask_id: int, looks: Sequence[str]) -> list[int]:
    """The ids of a row's words that hides these looks."""
    count = torch.tensor([len(words)])
    return hide(torch.tensor([words]), count, plan, mask_id, [looks])[0].tolist()


def draw(count: int, share: float, rng: np.random.Generator) -> list[list[str]]:
    """The looks that each of `count` rows hides: none but in a share of the rows, each look by a
    fair coin, at least one.
    """
    result: list[list[str]] = []
    for hides in rng.random(count) < share:
        looks: list[str] = []
        while hides and not looks:
            looks = [look for look in LOOKS if rng.random() < 0.5]
        result.append(looks)
    return result
