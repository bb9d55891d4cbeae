"""Blanks whose length is not told: how close a model comes to the text that was there.

Every way fills the same blanks, one in a document, of 1 to 20 tokens, with the likeliest tokens:

    told             the right length: what a way that knew it would reach
    drawn            a length drawn from the training pairs
    reranked         four drawn lengths; the text with the lowest bound per token is kept
    edited           from a drawn length, which grows or shrinks; for models of --free_lengths
    edited from N    from N places

Token F1 compares bags of tokens. The length error is the mean distance from the right length.
"""

import itertools
from collections.abc import Callable

import numpy as np

from base import metrics
from base.config import SampleConfig
from base.files import UserError
from loop import distributed
from net.free_lengths import FreeDenoiser
from net.growing import ORDERS
from text import free_writer, writer
from text.blanks import Template, draw_lengths, room
from text.fillings import BATCH, SPANS, mean, spans
from text.forms import Pair
from text.pairs import PairData
from text.writer import Filled

TRIES = 4  # lengths that `reranked` draws
DRAWS = 4  # noise levels of the bound that chooses among them
CANVASES = (1, 8)  # places of `edited from N`
ALL = "all"  # blanks of every length together

# The ids that were there, the ids that were written, and the calls that it took.
Answer = tuple[list[int], list[int], int]


class Ways:
    """The ways to fill blanks whose length is not told, by their names."""

    def __init__(self, model, tokenizer, histogram: list[int], settings: SampleConfig, seed: int):
        """histogram: how many blanks of the training pairs had each length."""
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.histogram, self.seed = histogram, seed

    def all(self) -> dict[str, Callable[[list[Pair]], list[Filled]]]:
        """Pairs with their blanks -> filled documents, by the name of the way."""
        ways: dict[str, Callable[[list[Pair]], list[Filled]]] = {
            "told": self.told,
            "drawn": self.drawn,
            "reranked": self.reranked,
        }
        if isinstance(self.model, FreeDenoiser):
            ways["edited"] = self.edited
            for places in CANVASES:
                ways[f"edited from {places}"] = self.edited_from(places)
        return ways

    def fill(self, pairs: list[Pair], write: Callable[..., list[Filled]]) -> list[Filled]:
        """The pairs, whose blanks hold [MASK]s, filled in batches."""
        filled = []
        for first in range(0, len(pairs), BATCH):
            batch = pairs[first : first + BATCH]
            filled += write(
                self.model,
                self.tokenizer,
                "context",
                batch,
                self.settings,
                seed=self.seed,
                first=first,
            )
        return filled

    def told(self, pairs: list[Pair]) -> list[Filled]:
        return self.fill(self.with_lengths(pairs, lambda pair: len(pair.blanks[0])), writer.fill)

    def drawn(self, pairs: list[Pair]) -> list[Filled]:
        return self.fill(self.with_drawn_lengths(pairs, 0), writer.fill)

    def edited(self, pairs: list[Pair]) -> list[Filled]:
        return self.fill(self.with_drawn_lengths(pairs, 0), free_writer.fill)

    def edited_from(self, places: int) -> Callable[[list[Pair]], list[Filled]]:
        """The way that begins with so many places."""

        def way(pairs: list[Pair]) -> list[Filled]:
            return self.fill(self.with_lengths(pairs, lambda pair: places), free_writer.fill)

        return way

    def reranked(self, pairs: list[Pair]) -> list[Filled]:
        """Of TRIES drawn lengths, the text with the lowest bound per token. calls: of all tries."""
        tries = []
        for number in range(TRIES):
            filled = self.fill(self.with_drawn_lengths(pairs, number), writer.fill)
            for pair, text in zip(pairs, filled, strict=True):
                template = Template(pair.given, [None], pair.kind)
                text.nats = writer.nats_per_token(
                    self.model, self.tokenizer, "context", template, text, DRAWS, self.seed
                )
            tries.append(filled)
        best = []
        for texts in zip(*tries, strict=True):
            best.append(min(texts, key=lambda text: text.nats))
            best[-1].calls = sum(text.calls for text in texts)
        return best

    def with_lengths(self, pairs: list[Pair], length: Callable[[Pair], int]) -> list[Pair]:
        """The pairs with as many [MASK]s as `length` says in their single blanks."""
        result = []
        for pair in pairs:
            template = Template(pair.given, [None], pair.kind)
            result.append(template.pair([length(pair)], self.tokenizer))
        return result

    def with_drawn_lengths(self, pairs: list[Pair], number: int) -> list[Pair]:
        """The pairs with [MASK]s, as many as the draw of this number says."""
        result = []
        for index, pair in enumerate(pairs):
            template = Template(pair.given, [None], pair.kind)
            left = room(template, "context", self.tokenizer, self.model.config.max_length)
            rng = np.random.default_rng((self.seed, index, number))
            lengths = draw_lengths(template, {pair.kind: self.histogram}, left, rng)
            result.append(template.pair(lengths, self.tokenizer))
        return result


def report(
    opened: tuple,
    held_out: PairData,
    numbers: list[int],
    settings: SampleConfig,
    seed: int,
    progress: Callable,
) -> dict:
    """By way and by length of the blank, and for ALL of them, the figures of `figures_of`.

    opened: (model, tokenizer, rest) of `checkpoint.open_model`. numbers: of the pairs whose
    documents get a blank. Raises UserError for other forms than `context`, and for other samplers.
    """
    model, tokenizer, saved = opened
    if saved["form"] != "context":
        raise UserError(
            f"--unknown_lengths for a model of the form {saved['form']}",
            "a model of --conditioning context",
            "name such a checkpoint, or drop --unknown_lengths",
        )
    if settings.sampler not in ORDERS:
        raise UserError(
            f"--samplers {settings.sampler} with --unknown_lengths",
            "an order of places: " + ", ".join(ORDERS),
            "choose one of these",
        )
    histogram = saved["statistics"]["blank_lengths"]["blanks"]
    ways = Ways(model, tokenizer, histogram, settings, seed).all()

    def of_cell(cell: tuple[str, int]) -> list[Answer]:
        way, length = cell
        wanted = spans(held_out, numbers, length, seed)
        answers = []
        for pair, text in zip(wanted, ways[way](wanted), strict=True):
            answers.append((pair.blanks[0].tolist(), text.blanks[0], text.calls))
        return answers

    cells = list(itertools.product(ways, SPANS))
    result: dict = {way: {} for way in ways}
    every: dict[str, list[Answer]] = {way: [] for way in ways}
    for (way, length), answers in zip(
        cells, distributed.shared(cells, of_cell, progress), strict=True
    ):
        if answers:
            result[way][length] = figures_of(answers)
            every[way] += answers
    for way, answers in every.items():
        if answers:
            result[way][ALL] = figures_of(answers)
    return result


def figures_of(answers: list[Answer]) -> dict:
    """Exact matches, token F1, length error and calls of filled blanks, with intervals."""
    right = [wanted for wanted, _, _ in answers]
    written = [mine for _, mine, _ in answers]
    figures, _ = metrics.matches(written, right)
    error = [len(mine) - len(wanted) for wanted, mine, _ in answers]
    return {
        **figures,
        **mean("length_error", np.abs(error)),
        **mean("too_long", error),
        **mean("calls", [calls for _, _, calls in answers]),
    }


def table(result: dict) -> list[str]:
    """The figures as lines of a Markdown table."""
    names = ("exact", "token_f1", "length_error", "too_long", "calls")
    heads = ("exact", "token F1", "length error", "too long by", "calls")
    lines = [["tokens in the blank", "way", "blanks", *heads]]
    for length in (*SPANS, ALL):
        for way, rows in result.items():
            if length in rows:
                row = rows[length]
                cells = [metrics.interval(row, name, digits=2) for name in names]
                lines.append([str(length), way, str(row["blanks"]), *cells])
    return metrics.markdown(lines).split("\n")
