"""Captions that are far longer than the rest: named, and cut where a model is shorter.

The longest caption of train decides the length of a model's rows. A single caption of 9,000 words
among short ones would make every step a thousand times as long.
"""

from collections.abc import Iterable

import numpy as np
import torch

from base.files import UserError
from base.tokenizer import Tokenizer
from caption.data import SHORTEST, CaptionData, Texts
from loop import distributed

FAR = 4  # times the median length
SHARE = 99.9  # percent of the captions that are shorter
SHOWN = 40  # letters of the first such caption


def far_longer(lengths: np.ndarray) -> np.ndarray:
    """The indices of the captions that are far longer than the rest: (n,) int64.

    lengths: (captions,) in tokens. They are beyond 4 times the median, and among the longest
    thousandth, which is at least two captions.
    """
    high = np.percentile(lengths, SHARE, method="lower")
    return np.flatnonzero((lengths > FAR * np.median(lengths)) & (lengths >= high))


def describe(lengths: np.ndarray, far: np.ndarray) -> str:
    """What a user should know of them. far: from `far_longer`, not empty."""
    rest = np.delete(lengths, far)
    return (
        f"{len(far):,} of {len(lengths):,} captions far longer than the rest: up to "
        f"{lengths.max():,} tokens, the median is {np.median(lengths):,.0f}; "
        f"--max_length {max(SHORTEST, int(rest.max(initial=0)))} of train_captioning.py cuts them"
    )


def name_long(records: Iterable[dict], tokenizer: Tokenizer) -> None:
    """Print a note if some captions of records are far longer than the rest, with the first."""
    texts, names = [], []
    for record in records:
        texts += record["captions"]
        names += [record["image"]] * len(record["captions"])
    # [BOS] and [EOS] count, as they do in a model's rows.
    lengths = np.array([len(ids) + 2 for ids in tokenizer.encode_batch(texts)])
    far = far_longer(lengths)
    if len(far):
        first = texts[far[0]][:SHOWN]
        note = f"note: {describe(lengths, far)} (the first: {names[far[0]]}, {first!r} …)"
        distributed.say(note)


def note_long(data: CaptionData) -> None:
    """Print a note if some captions of a split are far longer than the rest."""
    far = far_longer(data.texts.lengths)
    if len(far):
        distributed.say(f"note: {describe(data.texts.lengths, far)}")


def cut(data: CaptionData, max_length: int) -> None:
    """Cut the captions of a split to `max_length` tokens, and print how many were longer.

    A cut caption still begins with [BOS] and ends with [EOS]. Raises UserError if no word would be
    left.
    """
    if max_length < SHORTEST:
        found = f"--max_length {max_length}"
        raise UserError(found, f"at least {SHORTEST}: [BOS], a token, [EOS]", "raise it")
    lengths = data.texts.lengths
    if data.longest <= max_length:
        return
    tokens = []
    first = None
    for record, captions in zip(data.records, data.tokens, strict=True):
        if first is None and max(map(len, captions)) > max_length:
            first = record["image"]
        tokens.append([shortened(ids, max_length) for ids in captions])
    data.texts = Texts(tokens, data.tokenizer.pad)
    distributed.say(
        f"{data.split}: {int((lengths > max_length).sum()):,} of {len(lengths):,} captions are cut "
        f"to {max_length} tokens; the longest has {lengths.max():,} (the first: {first})"
    )


def shortened(ids: torch.Tensor, max_length: int) -> torch.Tensor:
    """A caption's ids (n,), or the first of them and the last, [EOS], if there are too many."""
    if len(ids) <= max_length:
        return ids
    return torch.cat([ids[: max_length - 1], ids[-1:]])


def open_splits(folder, names: Iterable[str], *models) -> dict[str, CaptionData]:
    """{split: its CaptionData}, with captions that all models can hold."""
    longest = min(model.config.max_length for model in models)
    return {name: open_cut(folder, name, longest) for name in dict.fromkeys(names)}


def open_cut(folder, split: str, max_length: int) -> CaptionData:
    """A split whose captions fit a model of `max_length` tokens; says how many were cut.

    Raises UserError as `CaptionData` does.
    """
    data = CaptionData(folder, split)
    cut(data, max_length)
    return data
