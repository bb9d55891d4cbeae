"""A tiny world of blanks that grow and shrink, in which every path can be followed.

Words 0 and 1. The blank holds 1 to 3 of them, by a random law. It begins with 1 to 4 places.
"""

import collections
import itertools

import numpy as np
import torch

from net.free_lengths import FRESH, GREW, SHRANK, Canvas

WORDS, PAD, BOS, MASK = 2, 2, 3, 4
EXPAND, DELETE = WORDS, WORDS + 1
MOST = 20
STARTS = [0, 0.4, 0.1, 0.3, 0.2]  # of 0 to 4 places
TEXTS = [text for n in (1, 2, 3) for text in itertools.product(range(WORDS), repeat=n)]
LEFT, RIGHT = np.array([BOS, 1]), np.array([0])


def joint(seed: int = 0) -> dict:
    """p(text) of the 14 texts."""
    rng = torch.Generator().manual_seed(seed)
    law = (1.2 * torch.randn(len(TEXTS), generator=rng, dtype=torch.float64)).softmax(0)
    return dict(zip(TEXTS, law.tolist(), strict=True))


def right_label(text, width: int, place: int) -> int:
    """By the rule of net/free_lengths.py, written again."""
    if place >= len(text):
        return DELETE
    return EXPAND if place == width - 1 and width < len(text) else text[place]


def after(
    blank: tuple, state: int, place: int, label: int, alone: bool = False
) -> tuple[tuple, int]:
    """The blank and its state, once a place has drawn a label. alone: only this place is deleted."""
    if label == EXPAND:
        return blank[:place] + (MASK, MASK) + blank[place + 1 :], GREW
    if label == DELETE:
        return blank[:place] + (blank[place + 1 :] if alone else ()), SHRANK
    return blank[:place] + (label,) + blank[place + 1 :], state


def hidden(blank: tuple) -> list[int]:
    return [place for place, id in enumerate(blank) if id == MASK]


def flows(law: dict, starts=STARTS, alone: bool = False) -> dict:
    """F: the mean number of steps ((blank, state), place, label), over texts, starts and orders."""
    result: dict = collections.defaultdict(float)

    def follow(text, blank, state, weight):
        places = hidden(blank)
        for place in places:
            label = right_label(text, len(blank), place)
            result[(blank, state), place, label] += weight / len(places)
            follow(text, *after(blank, state, place, label, alone), weight / len(places))

    for text, share in law.items():
        for width, start in enumerate(starts):
            if start:
                follow(text, (MASK,) * width, FRESH, share * start)
    return dict(result)


def table_of(steps: dict) -> dict:
    """p(label | blank, state, place), (4,) float64: what a perfect network learns from such steps."""
    table: dict = collections.defaultdict(lambda: torch.zeros(WORDS + 2, dtype=torch.float64))
    for (where, place, label), weight in steps.items():
        table[where, place][label] += weight
    return {key: row / row.sum() for key, row in table.items()}


def law_of(table: dict, starts=STARTS, alone: bool = False) -> dict:
    """p(text) of a sampler with this table: all draws of all paths are followed."""
    result: dict = collections.defaultdict(float)

    def follow(blank, state, weight):
        places = hidden(blank)
        if not places:
            result[blank] += weight
        for place in places:
            for label, p in enumerate(table[(blank, state), place].tolist()):
                if p:
                    follow(*after(blank, state, place, label, alone), weight * p / len(places))

    for width, start in enumerate(starts):
        if start:
            follow((MASK,) * width, FRESH, start)
    return dict(result)


def denoiser(table: dict):
    """The network that this table is, as net/free_lengths.Labels."""

    def labels(places, select):
        rows = []
        for row, position in select.nonzero().tolist():
            end = int(places.lengths[row]) - len(RIGHT)
            blank = tuple(places.tokens[row, len(LEFT) : end].tolist())
            state = int(places.state[row].max())
            rows.append(table[(blank, state), position - len(LEFT)].log())
        return torch.stack(rows)

    return labels


def canvases(count: int, starts=STARTS, seed: int = 0) -> list[Canvas]:
    """Rows before their first call."""
    rng = np.random.default_rng(seed)
    widths = rng.choice(len(starts), size=count, p=starts)
    return [Canvas([LEFT, RIGHT], [np.full(width, MASK)], [FRESH]) for width in widths]
