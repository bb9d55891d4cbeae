"""A captioner: image features in, captions with their confidence out, and how true they are (floor 2).

The image is standardised patch features (B, P, width). No image is all zeros: without biases its keys and values
vanish, so cross-attention adds nothing. That is the blind model, and what guidance steers away from.
A caption's length is drawn by no flood of [EOS]: a small head says p(length | image), and the likeliest is taken.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import diffusion
from base.config import SampleConfig
from base.templates import blank_rows
from caption.coco import ngrams
from diffusion import guide
from loop.batches import to_device
from net import twin
from net.samplers import row_generators, sample

PLACE_SCALE = 4.0


@dataclass
class Caption:
    """ids with [BOS] and [EOS]; step and probability of each (step 0: given); bound: nats per token, or None."""

    ids: list[int]
    step: list[int]
    probability: list[float]
    calls: int
    text: str
    bound: float | None = None


def feature_statistics(features: np.ndarray, rows: np.ndarray) -> dict:
    """Mean and deviation of each channel over at most 1,000 training features, and the place code's size: plain values for the checkpoint."""
    some = features[rows[np.linspace(0, len(rows) - 1, min(len(rows), 1000)).astype(int)]].astype(
        np.float32
    )
    return {
        "feature_mean": some.mean((0, 1)).tolist(),
        "feature_std": (some.std((0, 1)) + 1e-4).tolist(),
        "place_scale": PLACE_SCALE,
    }


def place_code(patches: int, width: int) -> Tensor:
    """Where each patch is, as sines and cosines of its row and column, repeated over the channels: (P, width) in -1..1.

    A number of patches that is no square has a [CLS] token first, whose code is 0.
    """
    side = math.isqrt(patches)
    frequency = torch.tensor([0.5, 1.0, 2.0, 4.0]) * torch.pi / 2
    angle = torch.linspace(-1, 1, side)[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], -1)  # (side, 8)
    code = torch.cat(
        [wave[:, None].expand(side, side, 8), wave[None].expand(side, side, 8)], -1
    ).reshape(side * side, 16)
    code = code.repeat(1, -(-width // 16))[:, :width]
    return torch.cat([torch.zeros(patches - side * side, width), code])


def standardise(features: Tensor, statistics: dict, device) -> Tensor:
    """Features (B, P, width) as the captioner reads them: of zero mean and unit deviation, plus the code of their place.

    Without the code no relation was learnt in 57,600 captions: frozen features say what, and only faintly where. The larger it is
    beside the features, the sooner relations are learnt (LOG.md). Checkpoints from before it had a size have it at 1.
    """
    mean, std = (
        torch.tensor(statistics[name], device=device) for name in ("feature_mean", "feature_std")
    )
    return (features.to(device).float() - mean) / std + statistics.get(
        "place_scale", 1.0
    ) * place_code(*features.shape[1:]).to(device)


def hide(features: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Features (B, P, width) with a share of their patches zeroed, each by a draw of its own; with a share of 0 nothing is drawn."""
    return (
        features
        * (torch.rand(features.shape[:2], generator=rng) >= share).to(features.device)[..., None]
        if share
        else features
    )


@torch.no_grad()
def write(
    model,
    tokenizer,
    objective: str,
    features: Tensor,
    settings: SampleConfig,
    *,
    guidance: float = 1.0,
    lengths: Tensor | None = None,
    template: list[int] | None = None,
    seed: int = 0,
    first: int = 0,
) -> list[Caption]:
    """A caption for each image, or for each of `lengths`.

    features: (B, P, width) standardised. lengths: (n·B,) tokens with [BOS] and [EOS], n captions of an image one after another;
    None asks the length head for one. template: ids with [MASK] where the model writes, the same for all; it fixes the
    length. guidance 1 is none.
    """
    device, B = features.device, len(features if lengths is None else lengths)
    condition, rngs = model.keys_values(features), row_generators(seed, B, first)
    if objective == "ar":
        prompt = torch.full((B, 1), tokenizer.bos, device=device)
        drawn = twin.sample(
            model,
            prompt,
            model.config.max_length,
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            rngs=rngs,
            temperature=settings.temperature,
            top_p=settings.top_p,
            condition=condition,
        )
        sizes = (drawn.tokens != tokenizer.pad).sum(1)
    else:
        if template is not None:
            sizes = torch.full((B,), len(template), device=device)
        else:
            sizes = (
                model.length_logits(features).argmax(-1).clamp(min=3)
                if lengths is None
                else lengths.to(device)
            )
        tokens = torch.from_numpy(blank_rows(sizes.cpu().numpy(), tokenizer)).to(device)
        if template is not None:
            tokens[:] = torch.tensor(template, device=device)
        denoise = model.bind(sizes, condition)
        if guidance != 1.0:
            denoise = guide(denoise, model.bind(sizes), guidance)
        drawn = sample(denoise, tokens, settings, mask_id=tokenizer.mask, rngs=rngs)
    result = []
    for row, size in enumerate(sizes.tolist()):
        ids, step = drawn.tokens[row, :size].tolist(), drawn.step[row, :size].tolist()
        probability = [
            float(p) if s else 1.0
            for p, s in zip(drawn.log_prob[row, :size].exp(), step, strict=True)
        ]
        result.append(
            Caption(ids, step, probability, int(drawn.used[row]), tokenizer.decode(ids).strip())
        )
    return result


@torch.no_grad()
def bounds(
    model,
    tokenizer,
    objective: str,
    features: Tensor | None,
    texts: list[list[int]],
    *,
    draws: int = 8,
    seed: int = 0,
) -> np.ndarray:
    """Nats of each caption given its image (None: given none): the bound, or the twin's exact figure, (n·B,) float64.

    n·B texts go with B features, n after one another. Every row uses the same noise levels, so that captions of one length
    are compared under like masks.
    """
    rows = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(one) for one in texts], batch_first=True, padding_value=tokenizer.pad
    )
    tokens, lengths, free = to_device(
        {"tokens": rows, "lengths": torch.tensor([len(one) for one in texts])}, model.device
    )
    condition = None if features is None else model.keys_values(features)
    if objective == "ar":
        return twin.likelihoods(model, tokens, free, condition).numpy()
    result = torch.zeros(len(texts), dtype=torch.float64)
    sizes = torch.tensor([len(one) for one in texts], device=tokens.device)
    for n in (
        sizes.unique().tolist()
    ):  # the rows of one length, under the same masks whatever else is in the batch
        rows, rng = (sizes == n).nonzero()[:, 0], torch.Generator().manual_seed(seed)
        theirs = rows // (len(texts) // len(features)) if features is not None else rows
        denoise = model.bind(None, condition and [(k[theirs], v[theirs]) for k, v in condition])
        shift = torch.rand(1, generator=rng, dtype=torch.float64)
        for draw in range(draws):
            one = diffusion.corrupt(free[rows[:1], :n], (draw + shift) / draws, rng)
            masked, share = one.masked.expand(len(rows), -1), one.share.expand(len(rows))
            nats, _ = diffusion.masked_losses(
                denoise, tokens[rows, :n], masked, share, tokenizer.mask
            )
            result[rows.cpu()] += (
                nats.view(len(rows), -1).sum(1).double() * one.weight / draws
            ).cpu()
    return result.numpy()


@torch.no_grad()
def consensus(texts: list[str]) -> list[float]:
    """How like the others each text is: mean share of common 1- to 4-grams, 0 to 1. Of several captions the one that most
    agree with has the least expected loss (minimum Bayes risk, Kumar & Byrne 2004)."""
    grams = [[ngrams(text.split(), n) for n in range(1, 5)] for text in texts]
    like = lambda a, b: (
        sum(2 * (x & y).total() / max(1, x.total() + y.total()) for x, y in zip(a, b, strict=True))
        / 4
    )
    return [
        sum(like(one, other) for other in grams if other is not one) / max(1, len(texts) - 1)
        for one in grams
    ]


@torch.no_grad()
def best_of(
    model,
    tokenizer,
    features: Tensor,
    settings: SampleConfig,
    candidates: int,
    *,
    choose: str = "bound",
    guidance: float = 1.0,
    penalty: float = 0.5,
    draws: int = 4,
    seed: int = 0,
    first: int = 0,
) -> list[Caption]:
    """The best of several captions an image, of its likeliest lengths: by log p(length) - bound, or the one most like the others.

    choose: bound or consensus.
    penalty: α of bound(caption | image) - α·bound(caption | no image), against captions that fit any image. 0.5 said more
    at no loss of truth (scenes: 85% of captions named every object, 74% with 0; LOG.md).
    """
    candidates = min(candidates, model.config.max_length + 1)
    log_p, length = model.length_logits(features).log_softmax(-1).topk(candidates, -1)
    written = write(
        model,
        tokenizer,
        "diffusion",
        features,
        settings,
        guidance=guidance,
        lengths=length.flatten().clamp(min=3),
        seed=seed,
        first=first * candidates,
    )
    ids = [one.ids for one in written]
    nats = bounds(model, tokenizer, "diffusion", features, ids, draws=draws, seed=seed)
    for one, value in zip(written, nats, strict=True):
        one.bound = float(value) / (len(one.ids) - 1)
    blind = (
        bounds(model, tokenizer, "diffusion", None, ids, draws=draws, seed=seed)
        if penalty and choose == "bound"
        else 0.0
    )
    cost = (nats - log_p.flatten().double().cpu().numpy() - penalty * blind).reshape(-1, candidates)
    if choose == "consensus":
        cost = np.array(
            [
                [
                    -value
                    for value in consensus([one.text for one in written[row : row + candidates]])
                ]
                for row in range(0, len(written), candidates)
            ]
        )
    best = cost.argmin(1)
    return [written[row * candidates + place_in] for row, place_in in enumerate(best)]
