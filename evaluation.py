"""How good a model is on held-out rows: the bound, or the twin's exact likelihood, in the same units (floor 2).

Both models are given the first token of a row and predict the rest, [EOS] included, so they are scored on the
same tokens. The twin also says where a text ends; the denoiser is told the row's length. So that both describe
the same raw text, the denoiser is charged for that: -log p(length) under the training rows' histogram (add-one
smoothed), about 0.02 nats a token on TinyStories.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

import autoregressive
import diffusion
from config import SampleConfig
from data import TextData, evaluation_batches, place
from samplers import row_generators, sample


@dataclass
class DocumentScores:
    """Sums over each held-out document, (N,) float64 each.

    nats: bound or -log p, length included. length_nats: the length's part. tokens, bytes: predicted tokens, bytes of
    raw text. masked, cross_entropy, hits: masked tokens over all draws, their -log p and right guesses (for the
    twin: every token once). by_level (4, N, 3): the last three by quarter of the masked share.
    """

    nats: np.ndarray
    length_nats: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    masked: np.ndarray
    cross_entropy: np.ndarray
    hits: np.ndarray
    by_level: np.ndarray


def length_costs(statistics: dict, max_length: int) -> np.ndarray:
    """-log p(row length) in nats for lengths 0..max_length, from the training rows' histogram: (max_length+1,)."""
    count = np.zeros(max_length + 1) + 1.0
    histogram = np.asarray(statistics["row_lengths"], dtype=np.float64)[:max_length + 1]
    count[:len(histogram)] += histogram
    count[:2] = 0.0  # a row has at least two tokens
    with np.errstate(divide="ignore"):
        return -np.log(count / count.sum())


@torch.no_grad()
def score_documents(model, objective: str, data: TextData, statistics: dict, *, documents: int | None = None, draws: int = 8,
                    batch_size: int = 32, seed: int = 0, estimator: str = "count", progress=lambda batches: batches) -> DocumentScores:
    """Score the first `documents` held-out documents (None: all), each with `draws` noise levels a row."""
    count = min(documents or data.num_documents, data.num_documents)
    sums = {field.name: np.zeros(count) for field in fields(DocumentScores) if field.name != "by_level"}
    by_level = np.zeros((4, count, 3))
    costs, token_bytes = length_costs(statistics, data.max_length), torch.as_tensor(data.tokenizer.token_bytes())
    mask_id = data.tokenizer.mask
    for number, batch in enumerate(progress(list(evaluation_batches(data, batch_size, count)))):
        tokens, lengths, free = place(batch, model.device)
        document = np.asarray(batch["documents"])
        n = free.sum(1).cpu().numpy()
        np.add.at(sums["tokens"], document, n)
        np.add.at(sums["bytes"], document, (token_bytes[tokens.cpu()] * free.cpu()).sum(1).numpy())
        if objective == "ar":
            nats, hits = autoregressive.token_losses(model, tokens, free)
            row = free[:, 1:].nonzero()[:, 0].cpu()
            spread = lambda value: torch.zeros(len(tokens), dtype=torch.float64).index_add_(0, row, value.double().cpu()).numpy()  # noqa: B023,E731
            for name, value in (("nats", spread(nats)), ("cross_entropy", spread(nats)), ("hits", spread(hits)), ("masked", n)):
                np.add.at(sums[name], document, value)
            continue
        length_nats = costs[batch["lengths"].numpy()]
        np.add.at(sums["length_nats"], document, length_nats)
        np.add.at(sums["nats"], document, length_nats)
        rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
        for draw in diffusion.bound_estimates(model.bind(lengths), tokens, free, mask_id=mask_id, rng=rng, draws=draws, estimator=estimator):
            np.add.at(sums["nats"], document, draw["nats"].numpy() / draws)
            level = np.minimum((draw["share"].numpy() * 4 - 1e-9).astype(int), 3)
            for place_in, name in enumerate(("masked", "cross_entropy", "hits")):
                np.add.at(sums[name], document, draw[name].numpy())
                np.add.at(by_level, (level, document, place_in), draw[name].numpy())
    return DocumentScores(**sums, by_level=by_level)


def summary(model, objective: str, data: TextData, statistics: dict, *, documents: int | None = None, draws: int = 8) -> dict[str, float]:
    """The figures that training logs: mean nats per token first, then cross-entropy and accuracy on masked tokens."""
    scores = score_documents(model, objective, data, statistics, documents=documents, draws=draws)
    tokens, masked = scores.tokens.sum(), max(1.0, scores.masked.sum())
    result = {"nats_per_token": scores.nats.sum() / tokens, "bits_per_byte": scores.nats.sum() / np.log(2) / max(1.0, scores.bytes.sum())}
    names = ("masked_cross_entropy", "masked_accuracy") if objective == "diffusion" else ("cross_entropy", "accuracy")
    result |= {names[0]: scores.cross_entropy.sum() / masked, names[1]: scores.hits.sum() / masked}
    return {name: float(value) for name, value in result.items()}


def draw(model, tokenizer, objective: str, lengths: list[int], settings: SampleConfig, seed: int) -> tuple[list[np.ndarray], int]:
    """Samples of the given lengths as arrays of ids with [BOS] and [EOS], and the denoiser calls of one batch."""
    if objective == "ar":
        prompt = torch.full((len(lengths), 1), tokenizer.bos, device=model.device)
        drawn = autoregressive.sample(model, prompt, max(lengths), eos=tokenizer.eos, pad=tokenizer.pad, rngs=row_generators(seed, len(lengths)),
                                      temperature=settings.temperature, top_p=settings.top_p)
        return [row[row != tokenizer.pad].cpu().numpy() for row in drawn.tokens], drawn.calls
    size = torch.tensor(lengths, device=model.device)
    place = torch.arange(max(lengths), device=model.device)
    tokens = torch.where(place < size[:, None], tokenizer.mask, tokenizer.pad)
    tokens[:, 0] = tokenizer.bos
    tokens[place == size[:, None] - 1] = tokenizer.eos
    drawn = sample(model.bind(size), tokens, settings, mask_id=tokenizer.mask, rngs=row_generators(seed, len(lengths)))
    return [row[:n].cpu().numpy() for row, n in zip(drawn.tokens, lengths, strict=True)], drawn.calls


def judge_texts(judge, texts: list[np.ndarray], pad: int) -> float:
    """Mean nats per token of texts under the twin, each given its [BOS]."""
    nats = count = 0.0
    for first in range(0, len(texts), 16):
        part = texts[first:first + 16]
        tokens = torch.full((len(part), max(map(len, part))), pad, device=judge.device)
        for row, ids in zip(tokens, part, strict=True):
            row[:len(ids)] = torch.as_tensor(ids.astype(np.int64))
        free = torch.arange(tokens.shape[1], device=judge.device) < torch.tensor([len(ids) for ids in part], device=judge.device)[:, None]
        free[:, 0] = False
        nats += float(autoregressive.likelihoods(judge, tokens, free).sum())
        count += int(free.sum())
    return nats / count
