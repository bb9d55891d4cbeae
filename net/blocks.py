"""Block diffusion: blocks of n tokens from left to right, each of them by masked diffusion.

    log p(x) = sum over blocks b of log p(block b | the blocks before b)

The bound of a row adds the bounds of its blocks. A block's bound is that of diffusion.py, with all
earlier blocks clean in sight and all later blocks out of sight (BD3-LM, arXiv 2503.09573). With
blocks of one token nothing is left to bound: it is the exact likelihood from left to right. With a
single block it is the plain bound. One network serves all block sizes.

A training pass reads two copies of a row. First the clean copy, where a token sees its own block
and all earlier blocks; its keys and values stay. Then the noised copy, where a token sees its own
noised block and the clean keys of all earlier blocks. This is the function of the usual single pass
over [noised ; clean], with a smaller mask. The clean copy has no loss of its own.

With `logit_shift` a position predicts the token behind it, as in a twin. Then the last token of a
clean block predicts the first token of the next block. So with blocks of one token, a network with
the weights of a twin is the twin, and the noised copy is not needed. Larger blocks are learnt on
top of it. The other networks predict a token at its own [MASK].

Blocks are counted from position 0. The first token of a row is given, so the first block has a free
token less. A row's last block may be shorter: its padding is neither attended to nor counted.

Shapes: B rows, L positions, n block size, N = ceil(L / n) blocks per row, M masked positions.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion
from base.config import ModelConfig
from base.files import UserError
from diffusion import levels_by_row, levels_of, sum_by_row, weigh
from model import Cache, Denoiser, real_positions


class BlockDenoise(Protocol):
    """noised (B, L), clean (B, L) int64, select (B, L) bool -> logits (M, V') of the noised copy.

    The logits of a block depend on its noised tokens and on the clean tokens of earlier blocks.
    """

    def __call__(self, noised: Tensor, clean: Tensor, select: Tensor, /) -> Tensor: ...


class CleanCopy(Cache):
    """Keys and values of the clean copy, with their gradients: the noised copy attends to them."""

    def extend(self, layer: int, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """The first pass stores k, v (B, H, L, head). The second gets them in front of its own."""
        if layer not in self.layers:
            self.layers[layer] = (k, v)
            return k, v
        clean_k, clean_v = self.layers[layer]
        return torch.cat([clean_k, k], 2), torch.cat([clean_v, v], 2)

    def advance(self, count: int) -> None:
        """Both copies stand at the positions 0 .. L - 1, so nothing moves on."""


def block_numbers(length: int, size: int, device: torch.device) -> Tensor:
    """The block of each position: (L,)."""
    return torch.arange(length, device=device) // size


def ends_block(length: int, size: int, device: torch.device) -> Tensor:
    """Whether a position is the last of its block: (L, 1) bool."""
    return (torch.arange(1, length + 1, device=device) % size == 0)[:, None]


def masks(length: int, size: int, lengths: Tensor | None, device) -> tuple[Tensor, Tensor]:
    """What the clean copy sees, (·, 1, L, L), and the noised copy, (·, 1, L, 2L) bool.

    The 2L keys of the noised copy are the clean copy, then its own. lengths: (B,) real tokens of
    each row, or None without padding; · is B or 1.
    """
    block = block_numbers(length, size, device)
    query, key = block[:, None], block[None]
    from_clean = (query >= key)[None, None]
    from_noised = torch.cat([query > key, query == key], 1)[None, None]
    if lengths is None:
        return from_clean, from_noised
    real = real_positions(lengths, length)  # (B, 1, 1, L)
    # A position of padding sees its row's first block, so no softmax is over nothing.
    return from_clean & real, from_noised & torch.cat([real, real], -1)


def bind(model: Denoiser, size: int, lengths: Tensor | None = None) -> BlockDenoise:
    """The model as a function of both copies. lengths: (B,), or None without padding."""

    def denoise(noised: Tensor, clean: Tensor, select: Tensor) -> Tensor:
        length = noised.shape[1]
        if size >= length:  # a single block: there is nothing before it
            return model(noised, select=select, lengths=lengths)
        from_clean, from_noised = masks(length, size, lengths, noised.device)
        copy = CleanCopy()
        x = model.trunk(clean, None, None, None, copy, from_clean)  # (B, L, D)
        if not model.config.logit_shift:  # the clean copy predicts nothing
            return model(noised, select=select, cache=copy, attend=from_noised)
        if size > 1:
            inside = model.trunk(noised, None, None, None, copy, from_noised)
            x = torch.where(ends_block(length, size, x.device), x, inside)
        return model.logits(model.outputs(x, select))

    return denoise


# ---- Masks


def by_block(rows: Tensor, size: int) -> Tensor:
    """A block per row: (B, L) -> (B·N, n), the last block of each row filled up with False or 0."""
    missing = -rows.shape[1] % size
    return F.pad(rows, (0, missing)).reshape(-1, size)


def corrupt(free: Tensor, size: int, uniform: Tensor, rng: torch.Generator) -> diffusion.Corruption:
    """Exactly k of each block's free tokens are masked, as `diffusion.corrupt` does with a row's.

    free: (B, L) bool. uniform: (B·N,) in [0, 1), a noise level per block. Share and weight are
    those of the blocks, (B·N,). The masks stand in rows again, (B, L).
    """
    blocks = diffusion.corrupt(by_block(free, size), uniform, rng)
    masked = blocks.masked.reshape(len(free), -1)[:, : free.shape[1]]
    return diffusion.Corruption(masked, blocks.share, blocks.weight)


def token_weights(masked: Tensor, weight: Tensor, size: int) -> Tensor:
    """The weight of each masked token, (M,), from the weights of the blocks (B·N,)."""
    each = weight.reshape(len(masked), -1).repeat_interleave(size, 1)  # (B, N·n)
    return each[:, : masked.shape[1]][masked]


def noise_levels(free: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Stratified over all blocks with a free token, of all rows together: (B·N,) float64."""
    return levels_of(by_block(free, size), rng)


# ---- Loss and bound


def loss(
    denoise: BlockDenoise,
    tokens: Tensor,
    free: Tensor,
    *,
    size: int,
    mask_id: int,
    rng: torch.Generator,
    weight: str = "bound",
    uniform: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """What training minimises, in nats per free token, and plain floats to report.

    As `diffusion.loss`, which it equals if a row is a single block. uniform: (B,) noise levels of
    the rows, read in that case alone. With blocks of one token it is the exact -log p.
    """
    size = min(size, tokens.shape[1])
    if uniform is None or size < tokens.shape[1]:
        uniform = noise_levels(free, size, rng)
    noise = corrupt(free, size, uniform, rng)
    nats, hits = masked_losses(denoise, tokens, noise.masked, mask_id)
    token_weight = token_weights(noise.masked, noise.weight, size)
    return minimised(nats, hits, token_weight, free, weight)


def masked_losses(
    denoise: BlockDenoise, tokens: Tensor, masked: Tensor, mask_id: int
) -> tuple[Tensor, Tensor]:
    """-log p of each masked token, (M,) nats with gradient, and whether it is the likeliest."""
    logits = denoise(tokens.masked_fill(masked, mask_id), tokens, masked)  # (M, V')
    target = tokens[masked]
    return F.cross_entropy(logits, target, reduction="none"), logits.detach().argmax(-1) == target


def minimised(
    nats: Tensor, hits: Tensor, token_weight: Tensor, free: Tensor, weight: str
) -> tuple[Tensor, dict[str, float]]:
    """What `loss` returns, from -log p, hits and weights of the masked tokens: (M,) each.

    free: (B, L) bool, the tokens that are counted.
    """
    value, report = weigh(nats, token_weight.float(), free.sum(), weight)
    return value, {**report, "masked_accuracy": hits.sum().item() / max(1, len(hits))}


def estimate_of(
    nats: Tensor, hits: Tensor, token_weight: Tensor, masked: Tensor, free: Tensor
) -> dict[str, Tensor]:
    """An estimate of every row's bound: a dict of (B,) tensors, as of `diffusion.bound_estimates`.

    nats, hits, token_weight: (M,), of the masked tokens. masked, free: (B, L) bool.
    """
    count = masked.sum(1).cpu()
    return {
        "nats": sum_by_row(nats * token_weight, masked),
        "share": count / free.sum(1).cpu().clamp(min=1),
        "masked": count,
        "cross_entropy": sum_by_row(nats, masked),
        "hits": sum_by_row(hits, masked),
    }


@torch.no_grad()
def bound_estimates(
    denoise: BlockDenoise,
    tokens: Tensor,
    free: Tensor,
    *,
    size: int,
    mask_id: int,
    rng: torch.Generator,
    draws: int = 8,
) -> list[dict[str, Tensor]]:
    """Unbiased estimates of every row's bound: the dicts of `diffusion.bound_estimates`.

    Noise levels are stratified within each block. With blocks of one token there is a single
    estimate, which is exact: every mask is decided.
    """
    size = min(size, tokens.shape[1])
    blocks = len(by_block(free, size))
    draws = 1 if size == 1 else draws
    estimates = []
    for uniform in levels_by_row(blocks, draws, rng):
        noise = corrupt(free, size, uniform, rng)
        nats, hits = masked_losses(denoise, tokens, noise.masked, mask_id)
        token_weight = token_weights(noise.masked, noise.weight, size)
        estimates.append(estimate_of(nats, hits, token_weight, noise.masked, free))
    return estimates


# ---- Which size


def choose(config: ModelConfig, asked: int) -> int:
    """The block size to write with: `asked`, or with 0 the largest that the network learnt.

    0: the text is written as a whole. So is every text of a plain denoiser or a twin.
    Raises UserError for a size that a block model did not learn.
    """
    trained = config.trained_sizes
    if not trained:
        return 0
    if asked and asked not in trained:
        raise UserError(
            f"--block_size {asked} for a network that was trained for other sizes",
            "one of " + ", ".join(map(str, trained)),
            "choose one, or leave out --block_size",
        )
    size = asked or trained[-1]
    return size if size < config.max_length else 0
