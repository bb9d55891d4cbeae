"""The training of blanks of unknown length: the states that writing meets, and the loss there.

A blank of n words begins as m masked places. m is drawn as for writing, from the training pairs'
lengths that fit the row, and does not know n. Then places draw their right labels, one per call, in
random order (net/free_lengths.py says which label is right). The path to the text takes T calls: n
words, and n - m expansions or some cuts. The loss of a call is the mean of -log p(label) over the K
places that may draw next. Training takes a call k of a path, uniform on 0 .. T - 1, with weight T:

    bound(text) = mean over m and paths of   sum over k of   1/K sum of -log p(label)

This bounds -log p(text), the lengths included. The sampler starts from the same m, and draws one
place per call in random order at temperature 1. Given the text the labels have no randomness,
so m and the order cancel in log p(text) >= mean of log p(path) - log q(path).

A perfect network makes the sampler draw the right texts, whatever the start and the order, if these
do not know the text. A path is possible for a text or it is not; if it is, its probability does not
depend on the text. What it says about the text is in the canvas c: the words so far, and n >= m
after an expansion, n <= m after a cut, n = m if the last place is a word. So

    p(text | path) = p(text | c), which is proportional to p(text) [text is possible in c]

and drawing from p(label | c) step by step draws from p(text). DreamOn's [delete] removes only its
own place. The canvas then forgets where it stood, so the order of the places matters.

A full row is an exception: places to be expanded wait here, and the sampler draws words for them.
These figures are not those of blanks of known lengths, whose bound does not change.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion
from base.tokenizer import Tokenizer
from net.free_lengths import (
    DELETE,
    EXPAND,
    FRESH,
    GREW,
    KNOWN,
    SHRANK,
    Canvas,
    FreeDenoiser,
    bar,
    lay_out,
)
from text.blanks import Template, draw_lengths, room
from text.forms import Pair

NOTHING = -1  # the target of a place that is not asked


@dataclass
class Starts:
    """How blanks of unknown length begin. histograms: of the training pairs, by kind."""

    histograms: dict
    tokenizer: Tokenizer
    most: int
    words: int

    def draw(self, pair: Pair, free: list[bool], rng: np.random.Generator) -> list[int]:
        """Places of each blank of a pair: its tokens, or a draw that does not know them."""
        lengths: list[int | None] = []
        for is_free, blank in zip(free, pair.blanks, strict=True):
            lengths.append(None if is_free else len(blank))
        template = Template(pair.given, lengths, pair.kind)
        left = room(template, "context", self.tokenizer, self.most)
        return draw_lengths(template, self.histograms, left, rng)


@dataclass
class State:
    """A row on its way. target: (n,) int64, the right label of each place that may draw, else
    NOTHING. weight: of each of them in the bound.
    """

    canvas: Canvas
    target: np.ndarray
    weight: float


class Walk:
    """The blanks of a row while their places draw their right labels, one after another."""

    def __init__(self, sizes: list[int], starts: list[int], space: int):
        """sizes: words n of each blank. starts: places m. space: places of all blanks together."""
        self.sizes, self.widths, self.space = sizes, list(starts), space
        self.revealed: list[list[int]] = [[] for _ in sizes]
        self.hidden: list[tuple[int, int]] = []  # words behind a [MASK] of their own
        self.surplus: list[tuple[int, int]] = []  # places to delete
        self.short: list[int] = []  # blanks whose last place stands for several words
        for number, (size, start) in enumerate(zip(sizes, starts, strict=True)):
            alone = start - 1 if start < size else size
            self.hidden += [(number, index) for index in range(alone)]
            self.surplus += [(number, index) for index in range(size, start)]
            self.short += [number] * (start < size)

    @property
    def open_short(self) -> list[int]:
        """The blanks that may expand now: none if the row is full."""
        return self.short if sum(self.widths) < self.space else []

    @property
    def choices(self) -> int:
        """How many places may draw now."""
        return len(self.hidden) + len(self.surplus) + len(self.open_short)

    def step(self, which: int) -> None:
        """Draw the place number `which` of those that may draw."""
        if which < len(self.hidden):
            number, index = self.hidden.pop(which)
            self.revealed[number].append(index)
            return
        which -= len(self.hidden)
        if which < len(self.surplus):
            number, end = self.surplus[which]
            self.widths[number] = end
            self.surplus = [(blank, i) for blank, i in self.surplus if blank != number or i < end]
            return
        number = self.short[which - len(self.surplus)]
        self.hidden.append((number, self.widths[number] - 1))
        self.widths[number] += 1
        if self.widths[number] == self.sizes[number]:
            self.short.remove(number)
            self.hidden.append((number, self.widths[number] - 1))


def draw_state(
    pair: Pair, free: list[bool], starts: Starts, uniform: float, rng: np.random.Generator
) -> State:
    """The row of a pair after some of its calls. free: which blanks have an unknown length.

    uniform: in [0, 1), which share of the calls were made.
    """
    sizes = [len(blank) for blank in pair.blanks]
    begun = starts.draw(pair, free, rng)
    space = starts.most - sum(map(len, pair.given))
    # The whole path tells how many calls it takes. Then its first calls are made again.
    picks, walk = [], Walk(sizes, begun, space)
    while walk.choices:
        picks.append(int(rng.integers(walk.choices)))
        walk.step(picks[-1])
    walk = Walk(sizes, begun, space)
    for which in picks[: min(len(picks) - 1, int(uniform * len(picks)))]:
        walk.step(which)
    blanks, states, targets = [], [], []
    for number, words in enumerate(pair.blanks):
        width = walk.widths[number]
        blank = np.full(width, starts.tokenizer.mask, dtype=np.int64)
        blank[walk.revealed[number]] = words[walk.revealed[number]]
        target = np.where(blank == starts.tokenizer.mask, right_labels(words, width, starts), -1)
        if number in walk.short and number not in walk.open_short:
            target[-1] = NOTHING
        blanks.append(blank)
        targets.append(target)
        states.append(state_after(free[number], begun[number], width))
    return State(
        Canvas(pair.given, blanks, states), in_row(pair, targets), len(picks) / walk.choices
    )


def right_labels(words: np.ndarray, width: int, starts: Starts) -> np.ndarray:
    """The right label of every place of a canvas of `width` places: (width,) int64."""
    labels = np.full(width, starts.words + DELETE, dtype=np.int64)
    labels[: len(words)] = words[:width]
    if width < len(words):
        labels[-1] = starts.words + EXPAND
    return labels


def state_after(is_free: bool, start: int, width: int) -> int:
    """The state of a blank that began with `start` places and now has `width`."""
    if not is_free:
        return KNOWN
    if width == start:
        return FRESH
    return GREW if width > start else SHRANK


def in_row(pair: Pair, targets: list[np.ndarray]) -> np.ndarray:
    """The targets of the blanks as a row, NOTHING at all given tokens: (n,) int64."""
    pieces = [np.full(len(pair.given[0]), NOTHING)]
    for target, given in zip(targets, pair.given[1:], strict=True):
        pieces += [target, np.full(len(given), NOTHING)]
    return np.concatenate(pieces)


def state_losses(
    labels, states: list[State], starts: Starts
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-log p of every right label, (M,) nats with gradient; whether it is the likeliest, (M,); its
    weight in the bound, (M,) float32; its row, (M,). labels: as net.free_lengths.Labels.
    """
    mask, pad = starts.tokenizer.mask, starts.tokenizer.pad
    places = lay_out([state.canvas for state in states], mask, pad, starts.most)
    target = torch.full(places.tokens.shape, NOTHING)
    for line, state in zip(target, states, strict=True):
        line[: len(state.target)] = torch.from_numpy(state.target)
    select = target != NOTHING
    logits = bar(labels(places, select), places, select)
    right = target[select].to(logits.device)
    nats = F.cross_entropy(logits, right, reduction="none")
    row = select.nonzero()[:, 0].to(logits.device)
    weight = torch.tensor([state.weight for state in states], device=logits.device)
    return nats, logits.detach().argmax(-1) == right, weight[row], row


def pairs_of(batch: dict, kinds: tuple[str, ...], kept: Tensor) -> list[Pair]:
    """The pairs of a batch of the form `context`. kept: (B,) bool, else nothing is given."""
    result = []
    for row, kind in enumerate(batch["kinds"].tolist()):
        ids = batch["tokens"][row, : int(batch["lengths"][row])].cpu().numpy()
        free = batch["free"][row, : len(ids)].cpu().numpy()
        if not kept[row]:
            free = np.ones(len(ids), dtype=bool)
            free[[0, -1]] = False  # [BOS] and [EOS]
        edges = np.flatnonzero(np.diff(free)) + 1
        pieces = np.split(ids, edges)
        result.append(Pair(pieces[::2], pieces[1::2], kinds[kind]))
    return result


def loss(
    model: FreeDenoiser,
    pairs: list[Pair],
    free: list[list[bool]],
    starts: Starts,
    uniform: Tensor,
    rng: np.random.Generator,
    weight: str,
) -> tuple[Tensor, dict[str, float]]:
    """What training minimises, in nats per token of the blanks, and plain floats to report.

    free: which blanks of each pair have an unknown length. uniform: (B,) in [0, 1). weight: as in
    `diffusion.loss`.
    """
    states = []
    for pair, unknown, level in zip(pairs, free, uniform.tolist(), strict=True):
        states.append(draw_state(pair, unknown, starts, level, rng))
    nats, hits, weights, _ = state_losses(model.labels, states, starts)
    tokens = sum(len(blank) for pair in pairs for blank in pair.blanks)
    value, report = diffusion.weigh(nats, weights.float(), tokens, weight)
    return value, {**report, "masked_accuracy": hits.sum().item() / len(nats)}


@torch.no_grad()
def nats(labels, pair: Pair, starts: Starts, *, draws: int = 8, seed: int = 0) -> float:
    """The bound of a pair's blanks in nats, their lengths included: an unbiased estimate.

    It describes the words and the lengths. So it is larger than the bound of known lengths.
    """
    rng = np.random.default_rng(seed)
    free = [True] * len(pair.blanks)
    shift = rng.random()
    states = []
    for draw in range(draws):
        states.append(draw_state(pair, free, starts, (draw + shift) / draws, rng))
    values, _, weights, _ = state_losses(labels, states, starts)
    return float((values.double() * weights).sum() / draws)
