"""The autoregressive twin: the same blocks, run causally. It is the baseline of every claim.

Like the denoiser, the twin is given the first token of a row and predicts all others, so both are
scored on the same tokens. The twin's likelihood is exact; the denoiser's is a bound.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import sum_by_row
from model import Cache, Denoiser, KeysValues
from net import kernels
from net.draws import draw_tokens
from net.samplers import Sample


def token_losses(
    model: Denoiser, tokens: Tensor, free: Tensor, condition: list[KeysValues] | None = None
) -> tuple[Tensor, Tensor]:
    """-log p(token | the tokens to its left) at the M free positions, and whether it is likeliest.

    tokens: (B, L) int64. free: (B, L) bool, False at padding and at position 0, which is given.
    condition: from `keys_values`. Returns (M,) float32 nats with gradient, and (M,) bool.
    """
    select = free[:, 1:]
    target = tokens[:, 1:][select]
    if kernels.are_used(model):
        denoise = kernels.Chunked(model, None, condition)
        return denoise.losses(tokens[:, :-1], None, select, target)
    logits = model(tokens[:, :-1], select=select, condition=condition)  # (M, V')
    nats = F.cross_entropy(logits, target, reduction="none")
    return nats, logits.detach().argmax(-1) == target


def loss(
    model: Denoiser, tokens: Tensor, free: Tensor, condition: list[KeysValues] | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Mean nats per free token, and plain floats to report."""
    nats, hits = token_losses(model, tokens, free, condition)
    mean = nats.mean()
    return mean, {"nats_per_token": mean.item(), "token_accuracy": hits.float().mean().item()}


@torch.no_grad()
def likelihoods(
    model: Denoiser, tokens: Tensor, free: Tensor, condition: list[KeysValues] | None = None
) -> Tensor:
    """Exact -log p of each row's free tokens in nats: (B,) float64 on the CPU."""
    nats, _ = token_losses(model, tokens, free, condition)
    return sum_by_row(nats, free[:, 1:])


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
    condition: list[KeysValues] | None = None,
) -> Sample:
    """Continue prompt (B, n >= 1) token by token until [EOS], or to `length` tokens in all.

    rngs: a CPU generator per row, so that a row does not depend on its neighbours. Behind [EOS]
    stands [PAD].
    """
    B, n = prompt.shape
    tokens = torch.full((B, length), pad, device=prompt.device)
    tokens[:, :n] = prompt
    step = torch.zeros(B, length, dtype=torch.long)
    log_prob = torch.zeros(B, length)
    done = torch.zeros(B, dtype=torch.bool, device=prompt.device)
    cache = Cache()
    unread = prompt  # the whole prompt first, then a token at a time
    for position in range(n, length):
        last = torch.zeros(unread.shape, dtype=torch.bool, device=prompt.device)
        last[:, -1] = True  # only the last position's logits are needed
        logits = model(unread, select=last, cache=cache, condition=condition)  # (B, V')
        uniform = torch.stack([torch.rand((), generator=rng, dtype=torch.float64) for rng in rngs])
        token, nats = draw_tokens(logits, uniform, temperature, top_p)
        # Finished rows run on with the others and write [PAD], so the batch keeps its shape.
        tokens[:, position] = torch.where(done, pad, token)
        writing = ~done.cpu()
        step[writing, position] = position - n + 1
        log_prob[writing, position] = nats.float().cpu()[writing]
        done |= token == eos
        if done.all():
            break
        unread = tokens[:, position : position + 1]
    used = step.amax(1)
    return Sample(tokens, step, log_prob, calls=int(step.max()), used=used, rows=used)
