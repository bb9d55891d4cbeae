"""The autoregressive twin: the same blocks run causally, the baseline for every claim (floor 1).

Like the denoiser it is given the first token of a row and predicts all others, so both are scored on the same
tokens. Its likelihood is exact where the denoiser's is a bound.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model import Cache, Denoiser
from net.samplers import Sample, draw_tokens


def token_losses(
    model: Denoiser, tokens: Tensor, free: Tensor, condition: list | None = None
) -> tuple[Tensor, Tensor]:
    """-log p(token | all to its left) and hit or miss at the free positions: (M,) float32 nats, (M,) bool.

    tokens (B, L) int64; free (B, L) bool, False at position 0 (it is given) and at padding. condition: from `keys_values`.
    """
    logits = model(tokens[:, :-1], select=free[:, 1:], condition=condition)
    target = tokens[:, 1:][free[:, 1:]]
    return F.cross_entropy(logits, target, reduction="none"), logits.detach().argmax(-1) == target


def loss(
    model: Denoiser, tokens: Tensor, free: Tensor, condition: list | None = None
) -> tuple[Tensor, dict]:
    """Mean nats per token, and its statistics as plain floats."""
    nats, hits = token_losses(model, tokens, free, condition)
    mean = nats.mean()
    return mean, {"nats_per_token": mean.item(), "token_accuracy": hits.float().mean().item()}


@torch.no_grad()
def likelihoods(
    model: Denoiser, tokens: Tensor, free: Tensor, condition: list | None = None
) -> Tensor:
    """Exact -log p of each row's free tokens in nats: (B,) float64 on the CPU."""
    nats, _ = token_losses(model, tokens, free, condition)
    row = free[:, 1:].nonzero()[:, 0]
    return torch.zeros(len(tokens), dtype=torch.float64).index_add_(
        0, row.cpu(), nats.double().cpu()
    )


@torch.no_grad()
def sample(
    model: Denoiser,
    prompt: Tensor,
    length: int,
    *,
    eos: int,
    pad: int,
    rngs: list[torch.Generator],
    temperature: float = 1.0,
    top_p: float = 1.0,
    condition: list | None = None,
) -> Sample:
    """Continue prompt (B, n >= 1) token by token until [EOS] or `length` tokens, with a key-value cache.

    rngs: one CPU generator a row, so that a row does not depend on its neighbours. Behind [EOS] comes [PAD].
    """
    B, n = prompt.shape
    tokens = torch.full((B, length), pad, device=prompt.device)
    tokens[:, :n] = prompt
    step = torch.zeros(B, length, dtype=torch.long)
    log_prob = torch.zeros(B, length)
    done = torch.zeros(B, dtype=torch.bool, device=prompt.device)
    cache, unread = Cache(), prompt
    last = torch.zeros(B, length, dtype=torch.bool, device=prompt.device)
    for position in range(n, length):
        select = last[:, : unread.shape[1]].clone()
        select[:, -1] = True
        logits = model(unread, select=select, cache=cache, condition=condition)  # (B, V')
        uniform = torch.stack([torch.rand((), generator=rng, dtype=torch.float64) for rng in rngs])
        token, nats = draw_tokens(logits, uniform, temperature, top_p)
        tokens[:, position] = torch.where(done, pad, token)
        step[:, position] = torch.where(done.cpu(), 0, position - n + 1)
        log_prob[:, position] = torch.where(done.cpu(), 0.0, nats.float().cpu())
        done |= token == eos
        if done.all():
            break
        unread = tokens[:, position : position + 1]
    return Sample(tokens, step, log_prob, calls=int(step.max()), used=step.amax(1))
