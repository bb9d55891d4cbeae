"""Blanks in human captions: a span is hidden, and the model fills it with the likeliest tokens.

The diffusion model sees the words on both sides and reveals the surest token first. The twin sees
only the words to the left. Both are told how many tokens are missing.
"""

import numpy as np
import torch
from torch import Tensor

from base import metrics
from base.config import SampleConfig
from caption import store
from caption.data import CaptionData
from loop import distributed
from net import twin
from net.retrieval import Seen
from net.samplers import row_generators, sample

SPANS = (1, 2, 4)  # hidden tokens; captions of scenes have about 12


@torch.no_grad()
def infilling(
    model, tokenizer, saved: dict, data: CaptionData, *, seed: int = 0, batch_size: int = 64
) -> dict:
    """{span: exact matches and token F1, with 95% intervals over images}."""
    fill = fill_from_left if saved["objective"] == "ar" else fill_between

    def batch(item: tuple[int, int]) -> list[tuple[list[int], list[int]]]:
        length, first = item
        numbers, captions, starts = [], [], []
        for number in range(first, min(first + batch_size, len(data))):
            ids = data.tokens[number][0].tolist()
            if len(ids) < length + 2:  # [BOS] and [EOS] cannot be hidden
                continue
            # The span depends on image and length alone, so model and twin fill the same blanks.
            rng = np.random.default_rng((seed, number, length))
            numbers.append(number)
            captions.append(ids)
            starts.append(int(rng.integers(1, len(ids) - length)))
        features = store.look(model, tokenizer, saved["statistics"], data, numbers)
        rngs = row_generators(seed, len(captions), first)
        written = fill(model, tokenizer, features, captions, starts, length, rngs)
        hidden = []
        for ids, start in zip(captions, starts, strict=True):
            hidden.append(ids[start : start + length])
        return list(zip(written, hidden, strict=True))

    result = {}
    for length in SPANS:
        items = [(length, first) for first in range(0, len(data), batch_size)]
        pairs = sum(distributed.shared(items, batch), [])
        if pairs:  # some caption is long enough
            written, hidden = zip(*pairs, strict=True)
            result[length], _ = metrics.matches(written, hidden)
    return result


def fill_between(
    model,
    tokenizer,
    features: Tensor | Seen,
    captions: list[list[int]],
    starts: list[int],
    length: int,
    rngs: list[torch.Generator],
) -> list[list[int]]:
    """What the diffusion model writes into captions[i][starts[i] : starts[i] + length].

    features: (B, P, width) standardised, or with retrieval a `Seen`.
    """
    sizes = torch.tensor([len(ids) for ids in captions], device=model.device)
    rows = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(ids) for ids in captions], batch_first=True, padding_value=tokenizer.pad
    )
    for row, start in zip(rows, starts, strict=True):
        row[start : start + length] = tokenizer.mask
    drawn = sample(
        model.bind(sizes, model.keys_values(features)),
        rows.to(model.device),
        # As many steps as hidden tokens: one token per call, the surest first.
        SampleConfig(sampler="confidence", steps=length, temperature=0.0),
        mask_id=tokenizer.mask,
        rngs=rngs,
    )
    filled = zip(drawn.tokens, starts, strict=True)
    return [row[start : start + length].tolist() for row, start in filled]


def fill_from_left(
    model,
    tokenizer,
    features: Tensor | Seen,
    captions: list[list[int]],
    starts: list[int],
    length: int,
    rngs: list[torch.Generator],
) -> list[list[int]]:
    """The same by the twin, which sees captions[i][: starts[i]]; rows of one start go together."""
    filled: list = [None] * len(captions)
    # The twin writes rows of one length together, and a start is such a length.
    for start in set(starts):
        rows = [row for row, other in enumerate(starts) if other == start]
        drawn = twin.sample(
            model,
            torch.tensor([captions[row][:start] for row in rows], device=model.device),
            start + length,
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            temperature=0.0,
            rngs=rngs[: len(rows)],  # temperature 0 draws nothing
            condition=model.keys_values(features[rows]),
        )
        for row, ids in zip(rows, drawn.tokens[:, start:].tolist(), strict=True):
            filled[row] = ids
    return filled
