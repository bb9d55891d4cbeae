"""How good a model is on held-out rows: the bound, or the twin's exact likelihood, in the same units (floor 2).

Both models are given the first token of a row and predict the rest, [EOS] included, so they are scored on the
same tokens. The twin also says where a text ends; the denoiser is told the row's length. So that both describe
the same raw text, the denoiser is charged for that: -log p(length) under the training rows' histogram (add-one
smoothed), about 0.02 nats a token on TinyStories.
"""

import math
import tempfile
import time
from dataclasses import dataclass, fields

import numpy as np
import torch
from tqdm import tqdm

import diffusion
from base import metrics
from base.config import SampleConfig
from base.files import UserError
from base.folders import check_tokenizer
from base.randomness import row_seed
from base.templates import blank_rows
from loop import distributed
from loop.batches import to_device
from net import twin
from net.samplers import row_generators, sample
from text.data import TextData, evaluation_batches, from_text


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


def open_data(
    data_dir, text: str | None, separator: str, tokenizer, saved: dict, max_length: int
) -> TextData:
    """The held-out rows: the documents of a text file if one is given, else the val split of a data folder."""
    if text:
        with tempfile.TemporaryDirectory() as folder:
            return from_text(text, separator, tokenizer, folder, max_length)
    held_out = TextData(data_dir, "val", max_length)
    check_tokenizer(held_out.meta["tokenizer"], tokenizer.fingerprint, data_dir)
    if held_out.meta["fingerprint"] != saved["data"]["fingerprint"]:
        distributed.say(
            f"note: {data_dir} is not the data that this model was trained on; its split may differ"
        )
    return held_out


def length_costs(statistics: dict, max_length: int) -> np.ndarray:
    """-log p(row length) in nats for lengths 0..max_length, from the training rows' histogram: (max_length+1,)."""
    count = np.zeros(max_length + 1) + 1.0
    histogram = np.asarray(statistics["row_lengths"], dtype=np.float64)[: max_length + 1]
    count[: len(histogram)] += histogram
    count[:2] = 0.0  # a row has at least two tokens
    with np.errstate(divide="ignore"):
        return -np.log(count / count.sum())


@torch.no_grad()
def score_documents(
    model,
    objective: str,
    data: TextData,
    statistics: dict,
    *,
    documents: int | None = None,
    draws: int = 8,
    batch_size: int = 32,
    seed: int = 0,
    estimator: str = "count",
    progress=lambda batches: batches,
) -> DocumentScores:
    """Score the first `documents` held-out documents (None: all), each with `draws` noise levels a row.

    Under torchrun each process scores its share of the batches, and all get all sums.
    """
    count = min(documents or data.num_documents, data.num_documents)
    sums = {
        field.name: np.zeros(count) for field in fields(DocumentScores) if field.name != "by_level"
    }
    by_level = np.zeros((4, count, 3))
    costs, token_bytes = (
        length_costs(statistics, data.max_length),
        torch.as_tensor(data.tokenizer.token_bytes()),
    )
    mask_id = data.tokenizer.mask
    numbered = list(
        enumerate(evaluation_batches(data, batch_size, count))
    )  # a batch's number seeds it, whoever scores it
    for number, batch in progress(numbered[distributed.rank() :: distributed.world()]):
        tokens, lengths, free = to_device(batch, model.device)
        document = np.asarray(batch["documents"])
        n = free.sum(1).cpu().numpy()
        np.add.at(sums["tokens"], document, n)
        np.add.at(sums["bytes"], document, (token_bytes[tokens.cpu()] * free.cpu()).sum(1).numpy())
        if objective == "ar":
            nats, hits = twin.token_losses(model, tokens, free)
            row = free[:, 1:].nonzero()[:, 0].cpu()
            spread = lambda value: (
                torch.zeros(len(tokens), dtype=torch.float64)
                .index_add_(0, row, value.double().cpu())
                .numpy()
            )  # noqa: B023,E731
            for name, value in (
                ("nats", spread(nats)),
                ("cross_entropy", spread(nats)),
                ("hits", spread(hits)),
                ("masked", n),
            ):
                np.add.at(sums[name], document, value)
            continue
        length_nats = costs[batch["lengths"].numpy()]
        np.add.at(sums["length_nats"], document, length_nats)
        np.add.at(sums["nats"], document, length_nats)
        rng = torch.Generator().manual_seed(row_seed(seed, number))
        for draw in diffusion.bound_estimates(
            model.bind(lengths),
            tokens,
            free,
            mask_id=mask_id,
            rng=rng,
            draws=draws,
            estimator=estimator,
        ):
            np.add.at(sums["nats"], document, draw["nats"].numpy() / draws)
            level = np.minimum((draw["share"].numpy() * 4 - 1e-9).astype(int), 3)
            for place_in, name in enumerate(("masked", "cross_entropy", "hits")):
                np.add.at(sums[name], document, draw[name].numpy())
                np.add.at(by_level, (level, document, place_in), draw[name].numpy())
    return DocumentScores(
        **{name: distributed.total(value) for name, value in sums.items()},
        by_level=distributed.total(by_level),
    )


def summary(
    model,
    objective: str,
    data: TextData,
    statistics: dict,
    *,
    documents: int | None = None,
    draws: int = 8,
) -> dict[str, float]:
    """The figures that training logs: mean nats per token first, then cross-entropy and accuracy on masked tokens."""
    scores = score_documents(model, objective, data, statistics, documents=documents, draws=draws)
    tokens, masked = scores.tokens.sum(), max(1.0, scores.masked.sum())
    result = {
        "nats_per_token": scores.nats.sum() / tokens,
        "bits_per_byte": scores.nats.sum() / np.log(2) / max(1.0, scores.bytes.sum()),
    }
    names = (
        ("masked_cross_entropy", "masked_accuracy")
        if objective == "diffusion"
        else ("cross_entropy", "accuracy")
    )
    result |= {names[0]: scores.cross_entropy.sum() / masked, names[1]: scores.hits.sum() / masked}
    return {name: float(value) for name, value in result.items()}


def draw(
    model, tokenizer, objective: str, lengths: list[int], settings: SampleConfig, seed: int
) -> tuple[list[np.ndarray], int]:
    """Samples of the given lengths as arrays of ids with [BOS] and [EOS], and the denoiser calls of one batch."""
    if objective == "ar":
        prompt = torch.full((len(lengths), 1), tokenizer.bos, device=model.device)
        drawn = twin.sample(
            model,
            prompt,
            max(lengths),
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            rngs=row_generators(seed, len(lengths)),
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        return [row[row != tokenizer.pad].cpu().numpy() for row in drawn.tokens], drawn.calls
    size = torch.tensor(lengths, device=model.device)
    tokens = torch.from_numpy(blank_rows(lengths, tokenizer)).to(model.device)
    drawn = sample(
        model.bind(size),
        tokens,
        settings,
        mask_id=tokenizer.mask,
        rngs=row_generators(seed, len(lengths)),
    )
    return [
        row[:n].cpu().numpy() for row, n in zip(drawn.tokens, lengths, strict=True)
    ], drawn.calls


def judge_texts(judge, texts: list[np.ndarray], pad: int) -> float:
    """Mean nats per token of texts under the twin, each given its [BOS]."""
    nats = count = 0.0
    for first in range(0, len(texts), 16):
        part = texts[first : first + 16]
        tokens = torch.full((len(part), max(map(len, part))), pad, device=judge.device)
        for row, ids in zip(tokens, part, strict=True):
            row[: len(ids)] = torch.as_tensor(ids.astype(np.int64))
        free = (
            torch.arange(tokens.shape[1], device=judge.device)
            < torch.tensor([len(ids) for ids in part], device=judge.device)[:, None]
        )
        free[:, 0] = False
        nats += float(twin.likelihoods(judge, tokens, free).sum())
        count += int(free.sum())
    return nats / count


def likelihood(
    model,
    saved: dict,
    held_out: TextData,
    *,
    documents: int = 0,
    draws: int = 8,
    seed: int = 0,
    estimator: str = "count",
) -> dict:
    """The bound or likelihood with its interval, and what the masked tokens say. documents 0 means all."""
    scores = score_documents(
        model,
        saved["objective"],
        held_out,
        saved["statistics"],
        documents=documents or None,
        draws=draws,
        seed=seed,
        estimator=estimator,
        progress=lambda batches: tqdm(batches, unit="batch", disable=not distributed.leads()),
    )
    tokens, size = scores.tokens.sum(), scores.bytes.sum()
    bits = scores.nats / math.log(2)
    nats_per_token = scores.nats.sum() / tokens
    masked = max(1.0, scores.masked.sum())
    result = {
        "nats_per_token": nats_per_token,
        "nats_per_token_ci95": metrics.ratio_interval(scores.nats, scores.tokens),
        "bits_per_byte": bits.sum() / size,
        "bits_per_byte_ci95": metrics.ratio_interval(bits, scores.bytes),
        "perplexity_bound": math.exp(nats_per_token),
        "length_nats_per_token": scores.length_nats.sum() / tokens,
        "masked_cross_entropy": scores.cross_entropy.sum() / masked,
        "masked_accuracy": scores.hits.sum() / masked,
        "num_documents": len(scores.nats),
        "num_tokens": int(tokens),
        "num_bytes": int(size),
        "objective": saved["objective"],
    }
    if saved["objective"] == "diffusion":
        level = scores.by_level.sum(1)  # (4, 3): masked, cross-entropy, hits
        result["by_masked_share"] = [
            {
                "share": f"{q / 4:.2f} to {(q + 1) / 4:.2f}",
                "cross_entropy": float(level[q, 1] / max(1, level[q, 0])),
                "accuracy": float(level[q, 2] / max(1, level[q, 0])),
            }
            for q in range(4)
        ]
    return result


def print_likelihood(result: dict) -> None:
    if not distributed.leads():
        return
    bound = result["objective"] == "diffusion"
    low, high = result["bits_per_byte_ci95"]
    print(
        f"{result['num_documents']} documents, {result['num_tokens']:,} tokens, {result['num_bytes']:,} bytes"
    )
    print(
        f"{'bound' if bound else 'likelihood':<22}{result['nats_per_token']:.4f} nats per token"
        f"  ({result['length_nats_per_token']:.4f} of it for lengths)"
    )
    print(f"{'':<22}{result['bits_per_byte']:.4f} bits per byte   [{low:.4f}, {high:.4f}]")
    print(
        f"{'perplexity' + (' bound' if bound else ''):<22}{result['perplexity_bound']:.3f} per token"
    )
    print(
        f"{'masked tokens' if bound else 'next tokens':<22}{result['masked_cross_entropy']:.4f} nats  {100 * result['masked_accuracy']:.1f}% right"
    )
    for row in result.get("by_masked_share", []):
        print(
            f"  masked {row['share']:<14}{row['cross_entropy']:.4f} nats  {100 * row['accuracy']:.1f}% right"
        )


def sample_grid(
    model,
    tokenizer,
    saved: dict,
    held_out: TextData,
    judge,
    cells: list[SampleConfig],
    *,
    num_samples: int,
    min_tokens: int,
    seed: int = 0,
) -> list[dict]:
    """Figures of held-out human texts, then of samples with the same lengths for each of the settings in `cells`.

    Under torchrun each process draws its share of the cells."""
    whole = [text for text in held_out.whole_rows() if len(text) >= min_tokens][:num_samples]
    if len(whole) < num_samples:
        raise UserError(
            f"{len(whole)} whole held-out texts of {min_tokens} to {held_out.max_length} tokens",
            f"--num_samples {num_samples} of them",
            "lower --num_samples or --min_tokens",
        )
    lengths = [len(text) for text in whole]
    score = lambda texts: (
        ({"judge_nats_per_token": judge_texts(judge, texts, tokenizer.pad)} if judge else {})
        | metrics.variety(texts)
    )
    rows = [{"sampler": "human text", "steps": 0, "calls": 0, "seconds": 0.0, **score(whole)}]

    def cell(settings: SampleConfig) -> dict:
        clock = time.perf_counter()
        texts, calls = draw(model, tokenizer, saved["objective"], lengths, settings, seed)
        steps = max(lengths) if saved["objective"] == "ar" else settings.steps
        return {
            "sampler": settings.sampler,
            "steps": steps,
            "calls": calls,
            "seconds": time.perf_counter() - clock,
            **score(texts),
        }

    return rows + distributed.shared(
        cells, cell, lambda some: tqdm(some, unit="cell", disable=not distributed.leads())
    )


def print_grid(rows: list[dict]) -> None:
    if not distributed.leads():
        return
    names = [name for name in rows[0] if name not in ("sampler", "steps", "seconds")]
    figure = lambda value: f"{value:.3f}" if isinstance(value, float) else str(value)
    print(
        metrics.markdown(
            [
                ["sampler", "steps", *names, "seconds"],
                *(
                    [
                        row["sampler"],
                        str(row["steps"]),
                        *(figure(row[name]) for name in names),
                        f"{row['seconds']:.1f}",
                    ]
                    for row in rows
                ),
            ]
        )
    )
