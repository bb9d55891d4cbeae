"""The bound of what is missing in a pair, with its condition, with another one, and with none.

The target of a pair is the text in its blanks. The denoiser is told the length of a blank and pays
-log p(length) for it, under the training pairs' histogram of the same kind (add-one smoothed). The
twin pays for the [EOS] that ends each blank. So both describe the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from base import metrics
from loop import distributed
from net import twin
from text import writer
from text.document_scores import length_costs
from text.forms import Pair, arrange


@dataclass
class Reader:
    """A model that reads pairs in one form. costs: by kind, what a blank's length costs in nats.

    costs is None for the twin, which ends its blanks itself.
    """

    model: torch.nn.Module
    form: str
    costs: dict[str, np.ndarray] | None

    @classmethod
    def of(cls, model, saved: dict) -> Reader:
        """The reader of a conditional checkpoint; saved: the rest of `checkpoint.open_model`."""
        costs = None
        # The denoiser is told the lengths, so it pays for them. Otherwise it would describe less
        # than the twin.
        if saved["form"] != "ar":
            costs = blank_costs(saved["statistics"], model.config.max_length)
        return cls(model, saved["form"], costs)

    def nats(self, tokenizer, pair: Pair, **how) -> float:
        """The bound (twin: the exact figure) of the blanks in nats. how: see `writer.nats`."""
        # Lengths are paid for one by one, as if independent. The figure stays an upper bound.
        paid = 0.0
        if self.costs is not None:
            costs = self.costs[pair.kind]
            paid = sum(float(costs[len(blank)]) for blank in pair.blanks)
        return writer.nats(self.model, tokenizer, self.form, pair, **how) + paid


@dataclass
class LeftReader:
    """A text twin: -log p of the blanks given only the text to their left.

    It pays for the story's end too.
    """

    model: torch.nn.Module

    def nats(self, tokenizer, pair: Pair, **_) -> float:
        """Exact nats of the blanks. The seed and the number of draws do not matter."""
        # In `context` the text behind a blank is in the row too, but a causal model cannot see it.
        row = arrange(pair, "context", tokenizer)
        # Only a continuation reaches the story's end, so only its target holds [EOS].
        row.free[-1] = pair.kind == "continue"
        tokens = torch.from_numpy(row.ids)[None].to(self.model.device)
        free = torch.from_numpy(row.free)[None].to(self.model.device)
        return float(twin.likelihoods(self.model, tokens, free)[0])


def blank_costs(statistics: dict, max_length: int) -> dict[str, np.ndarray]:
    """By kind, -log p(blank length) in nats for lengths 0 to max_length. No blank is empty."""
    histograms = statistics["blank_lengths"]
    # The kinds differ much in length: a continuation is most of a story, a blank 1 to 20 tokens
    # or a sentence.
    return {kind: length_costs(histograms[kind], max_length, shortest=1) for kind in histograms}


def with_another_condition(pairs: list[Pair]) -> list[Pair | None]:
    """Each pair with what is given in another document's pair; None where there is no such pair.

    The other pair has the same kind and number of blanks, and the given text that is nearest in
    length among the texts that are not longer.
    """
    groups: dict[tuple, list[int]] = {}
    for number, pair in enumerate(pairs):
        # A prompt with another number of blanks does not fit this pair's blanks.
        groups.setdefault((pair.kind, len(pair.blanks)), []).append(number)

    def given_tokens(number: int) -> int:
        return sum(map(len, pairs[number].given))

    result: list[Pair | None] = [None] * len(pairs)
    for group in groups.values():
        # A longer given text might not fit the model's rows, so only earlier pairs are candidates.
        group.sort(key=given_tokens)
        for index, number in enumerate(group):
            pair = pairs[number]
            # Nearest in length first: the words of the prompt, not its length, should make the gap.
            for other in reversed(group[:index]):
                if pairs[other].document != pair.document:
                    result[number] = dataclasses.replace(pair, given=pairs[other].given)
                    break
    return result


def by_document(pairs: list[Pair], values, documents: np.ndarray) -> np.ndarray:
    """Sums of the pairs' values over each of the sorted `documents`: (N,) float64."""
    # Intervals resample documents: pairs of one story are not independent.
    sums = np.zeros(len(documents))
    np.add.at(sums, np.searchsorted(documents, [pair.document for pair in pairs]), values)
    return sums


def documents_of(pairs: list[Pair]) -> np.ndarray:
    """The numbers of the pairs' documents, sorted, each once."""
    return np.unique([pair.document for pair in pairs])


def target_bytes(pairs: list[Pair], tokenizer) -> list[int]:
    """The bytes of text in the blanks of each pair."""
    # Bytes, not tokens: the unit does not depend on the tokenizer.
    sizes = tokenizer.token_bytes()
    return [sum(int(sizes[blank].sum()) for blank in pair.blanks) for pair in pairs]


def ratio(name: str, bits: np.ndarray, size: np.ndarray) -> dict:
    """A figure per byte, with its interval over documents. bits, size: (N,) document sums."""
    return {
        name: bits.sum() / size.sum(),
        f"{name}_ci95": metrics.ratio_interval(bits, size),
    }


@dataclass
class Bounds:
    """How the bounds of pairs are measured, for any reader."""

    tokenizer: object
    draws: int
    seed: int
    progress: Callable[[Iterable], Iterable]

    def bits(self, reader, numbered: list[tuple[int, Pair]], **how) -> np.ndarray:
        """Bits of each pair's target, (N,). A pair's number seeds it; processes share the pairs."""

        def bits_of(item: tuple[int, Pair]) -> float:
            number, pair = item
            # By the pair's number: the number of processes does not change a figure.
            seed = self.seed + number
            nats = reader.nats(self.tokenizer, pair, seed=seed, draws=self.draws, **how)
            return nats / np.log(2)

        return np.array(distributed.shared(numbered, bits_of, self.progress))

    def figures(self, reader: Reader, pairs: list[Pair], others: dict) -> dict:
        """Bits per byte of the targets of one kind of pair: the reader's, then the `others'`."""
        documents, numbered = documents_of(pairs), list(enumerate(pairs))
        size = by_document(pairs, target_bytes(pairs, self.tokenizer), documents)
        tokens = sum(len(blank) for pair in pairs for blank in pair.blanks)
        each = self.bits(reader, numbered)
        bits = by_document(pairs, each, documents)
        result = {
            "pairs": len(pairs),
            "documents": len(documents),
            "tokens": tokens,
            "bytes": int(size.sum()),
            **ratio("bits_per_byte", bits, size),
            "nats_per_token": each.sum() * np.log(2) / tokens,
            **self.shuffled(reader, pairs, each),
        }
        # The twin was never trained without its prompt.
        if reader.form != "ar":
            blind = by_document(pairs, self.bits(reader, numbered, blind=True), documents)
            result |= ratio("blind_bits_per_byte", blind, size)
        for name, other in others.items():
            # Paired: both read the same pairs, which makes the interval of the difference narrow.
            theirs = by_document(pairs, self.bits(other, numbered), documents)
            result |= ratio(f"{name}_bits_per_byte", theirs, size)
            result |= ratio(f"minus_{name}", bits - theirs, size)
        return result

    def shuffled(self, reader: Reader, pairs: list[Pair], right: np.ndarray) -> dict:
        """How many more bits per byte another document's condition costs.

        right: (N,) bits with the own condition.
        """
        # The swap shows that the condition is read: blanks cost 0.846 bits per byte more with
        # another story's prompt, continuations 0.040 (docs/log/text.md).
        swapped = []
        for number, pair in enumerate(with_another_condition(pairs)):
            if pair is not None:
                swapped.append((number, pair))
        if not swapped:
            return {}
        numbers = [number for number, _ in swapped]
        # The gap is of the same pairs on both sides: those that have another condition.
        kept = [pairs[number] for number in numbers]
        documents = documents_of(kept)
        wrong = self.bits(reader, swapped)
        gap = by_document(kept, wrong - right[numbers], documents)
        size = by_document(kept, target_bytes(kept, self.tokenizer), documents)
        return {**ratio("shuffled_gap", gap, size), "shuffled_pairs": len(kept)}
