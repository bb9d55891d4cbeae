"""What a conditional model writes: blanks whose text is known, continuations, and copies.

A blank of a known length is filled with the likeliest tokens and compared with the text that was
there. Continuations of one prompt are compared with each other, and with the training documents.
"""

import dataclasses
import time
from collections.abc import Callable
from itertools import combinations

import numpy as np

from base import metrics
from base.config import SampleConfig
from loop import distributed
from text import copies, writer
from text.blanks import Template
from text.forms import Pair
from text.pair_bounds import Reader
from text.pairs import PairData

SPANS = (1, 2, 3, 5, 10, 20)  # tokens in a blank
EACH = 4  # samples per prompt
BATCH = 16  # blanks that are filled together


def spans(held_out: PairData, numbers: list[int], length: int, seed: int) -> list[Pair]:
    """A blank of `length` tokens inside the document of each of these pairs."""
    result = []
    for number in numbers:
        whole = held_out.pair(number).whole()
        room = len(whole) - 2 - length
        # A given token stays on each side of the blank.
        if room < 2:
            continue
        # The blank depends on no model, so every model fills the same blanks.
        rng = np.random.default_rng((seed, number, length))
        start = int(rng.integers(2, room + 1))
        end = start + length
        given, blanks = [whole[:start], whole[end:]], [whole[start:end]]
        result.append(Pair(given, blanks, "blanks", number))
    return result


def fill_spans(
    reader: Reader, tokenizer, wanted: list[Pair], settings: SampleConfig, seed: int
) -> list[list[int]]:
    """The ids written into the single blank of each pair. The twin is told the length too."""
    empty = []
    for pair in wanted:
        # Whoever fills must not see the text that it is compared with.
        blank = np.full(len(pair.blanks[0]), tokenizer.mask)
        empty.append(dataclasses.replace(pair, blanks=[blank]))
    filled = []
    for first in range(0, len(empty), BATCH):
        batch = empty[first : first + BATCH]
        filled += writer.fill(
            reader.model, tokenizer, reader.form, batch, settings, seed=seed, first=first
        )
    return [filling.blanks[0] for filling in filled]


def infilling(
    reader: Reader,
    tokenizer,
    held_out: PairData,
    numbers: list[int],
    settings: SampleConfig,
    seed: int,
    progress: Callable,
) -> tuple[dict, dict]:
    """By blank length: exact matches and token F1 with intervals; and each blank's F1, (N,)."""

    def of_length(length: int) -> tuple[dict, np.ndarray]:
        wanted = spans(held_out, numbers, length, seed)
        if not wanted:
            return {}, np.zeros(0)
        written = fill_spans(reader, tokenizer, wanted, settings, seed)
        return metrics.matches(written, [pair.blanks[0].tolist() for pair in wanted])

    figures, scores = {}, {}
    # Dealt by length: a length is one batch of work, and its figures need all of its blanks.
    answers = distributed.shared(SPANS, of_length, progress)
    for length, (row, f1) in zip(SPANS, answers, strict=True):
        if row:
            figures[length], scores[length] = row, f1
    return figures, scores


def sampling(
    reader: Reader,
    tokenizer,
    statistics: dict,
    prompts: list[Pair],
    settings: SampleConfig,
    seed: int,
    progress: Callable,
) -> tuple[dict, list[list[int]]]:
    """Continuations, EACH per prompt: how they differ, and their seconds; and the ids of all."""

    def continuations(item: tuple[int, Pair]) -> list[np.ndarray]:
        number, pair = item
        template = Template(pair.given, [None], "continue")
        # draws=1: the bound of a sample is not read here, so its noise does not matter.
        written = writer.fill_template(
            reader.model,
            tokenizer,
            reader.form,
            template,
            statistics["blank_lengths"],
            settings,
            EACH,
            seed=seed + number,
            draws=1,
        )
        return [np.array(filling.blanks[0], dtype=np.int64) for filling in written]

    clock = time.perf_counter()
    groups = distributed.shared(enumerate(prompts), continuations, progress)
    seconds = time.perf_counter() - clock
    texts = [text.tolist() for group in groups for text in group]
    figures = {
        "prompts": len(groups),
        "samples": len(texts),
        "seconds_per_text": seconds / len(texts),
        **variety(groups),
    }
    return figures, texts


def variety(groups: list[list[np.ndarray]]) -> dict:
    """How alike the continuations of one prompt are, as means over prompts with intervals."""
    overlaps, same = [], []
    for group in groups:
        # Between texts of one prompt: different prompts give different texts anyway.
        both = list(combinations(group, 2))
        overlaps.append(np.mean([metrics.overlap(text, other) for text, other in both]))
        same += [text.tolist() == other.tolist() for text, other in both]
    result = mean("overlap", overlaps) | {"identical": float(np.mean(same))}
    for n in (1, 2, 3):
        result |= mean(f"distinct_{n}", [metrics.distinct(group, n) for group in groups])
    return result


def mean(name: str, values) -> dict:
    """A mean with its interval over the values."""
    values = np.array(values)
    return {
        name: float(values.mean()),
        # Denominators of 1 make the ratio of sums the plain mean.
        f"{name}_ci95": metrics.ratio_interval(values, np.ones(len(values))),
    }


def copy_rates(written: dict[str, list[list[int]]], train: PairData) -> dict:
    """By name, how long the runs are that its texts share with a training document."""
    # One automaton of all texts, so that the training documents are read only once.
    seen = copies.Copies([text for texts in written.values() for text in texts])
    for start, end in zip(train.offsets[:-1], train.offsets[1:], strict=True):
        seen.read(train.tokens[start:end].tolist())
    result, first = {}, 0
    for name, texts in written.items():
        runs = [seen.runs(number) for number in range(first, first + len(texts))]
        result[name] = copies.rates(runs)
        first += len(texts)
    return result
