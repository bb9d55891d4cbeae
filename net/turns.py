"""Block diffusion with blocks of any size: the turns of a dialogue, a question and its answer each.

    log p(answers | questions) = sum over turns t of log p(answer t | question t, turns before t)

A turn is a block. Its question is given and its answer is free, so only the answer is masked. The
bound of a row adds the bounds of its answers. The bound of an answer is that of diffusion.py, with
its question and all earlier turns clean in sight, and all later turns out of sight.

A pass reads two copies of a row, as in net/blocks.py. So a single pass trains the answers of all
turns. The clean copy sees its own turn and earlier turns. The noised copy of a turn sees itself and
the clean copy of earlier turns, never its own clean copy.

Shapes: B rows, L positions, T turns of the row with the most turns, M masked positions. Turns are
numbered from 0 and ascend along a row. Padding has the number -1.
"""

import torch
from torch import Tensor

import diffusion
from diffusion import levels_by_row, levels_of
from model import Denoiser, KeysValues
from net.blocks import BlockDenoise, CleanCopy, estimate_of, masked_losses, minimised


def masks(turn: Tensor) -> tuple[Tensor, Tensor]:
    """What the clean copy sees, (B, 1, L, L), and the noised copy, (B, 1, L, 2L) bool.

    turn: (B, L) int64. The 2L keys of the noised copy are the clean copy, then its own. Padding
    sees padding, so that no softmax is over nothing; all else does not see it.
    """
    query, key = turn[:, None, :, None], turn[:, None, None]
    own = query == key
    earlier = (query > key) & (key >= 0)
    return earlier | own, torch.cat([earlier, own], -1)


def bind(model: Denoiser, turn: Tensor, condition: list[KeysValues] | None = None) -> BlockDenoise:
    """The model as a function of both copies. turn: (B, L) int64. condition: what both copies read.

    The logits of a turn depend on its noised tokens and on the clean tokens of earlier turns.
    """

    def denoise(noised: Tensor, clean: Tensor, select: Tensor) -> Tensor:
        from_clean, from_noised = masks(turn)
        if not (turn > 0).any():  # a single turn: there is nothing before it
            return model(noised, select=select, attend=from_clean, condition=condition)
        copy = CleanCopy()
        # The trunk alone: the clean copy predicts nothing.
        model.trunk(clean, None, None, condition, copy, from_clean)
        return model(noised, select=select, cache=copy, attend=from_noised, condition=condition)

    return denoise


# ---- Masks


def by_turn(free: Tensor, turn: Tensor) -> Tensor:
    """The free positions of each turn as a row of its own: (B, L) -> (B·T, L) bool."""
    number = torch.arange(int(turn.max()) + 1, device=turn.device)
    each = free[:, None] & (turn[:, None] == number[:, None])  # (B, T, L)
    return each.flatten(0, 1)


def corrupt(
    free: Tensor, turn: Tensor, uniform: Tensor, rng: torch.Generator
) -> diffusion.Corruption:
    """Exactly k of each answer's tokens are masked, as `diffusion.corrupt` does with a row's.

    free: (B, L) bool. uniform: (B·T,) in [0, 1), a noise level per turn. Share and weight are
    those of the turns, (B·T,). The masks stand in rows again, (B, L).
    """
    turns = diffusion.corrupt(by_turn(free, turn), uniform, rng)
    masked = turns.masked.view(len(free), -1, free.shape[1]).any(1)
    return diffusion.Corruption(masked, turns.share, turns.weight)


def token_weights(masked: Tensor, turn: Tensor, weight: Tensor) -> Tensor:
    """The weight of each masked token, (M,), from the weights of the turns (B·T,)."""
    each = weight.view(len(masked), -1).gather(1, turn.clamp(min=0))  # (B, L)
    return each[masked]


def noise_levels(free: Tensor, turn: Tensor, rng: torch.Generator) -> Tensor:
    """Stratified over all turns with a free token, of all rows together: (B·T,) float64."""
    return levels_of(by_turn(free, turn), rng)


# ---- Loss and bound


def loss(
    denoise: BlockDenoise,
    tokens: Tensor,
    free: Tensor,
    turn: Tensor,
    *,
    mask_id: int,
    rng: torch.Generator,
    weight: str = "bound",
    uniform: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """What training minimises, in nats per free token, and plain floats to report.

    As `diffusion.loss`, which it equals if a row is a single turn. tokens, turn: (B, L) int64.
    free: (B, L) bool, the answers. uniform: (B·T,) noise levels; None draws them here.
    """
    if uniform is None:
        uniform = noise_levels(free, turn, rng)
    noise = corrupt(free, turn, uniform, rng)
    nats, hits = masked_losses(denoise, tokens, noise.masked, mask_id)
    token_weight = token_weights(noise.masked, turn, noise.weight)
    return minimised(nats, hits, token_weight, free, weight)


@torch.no_grad()
def bound_estimates(
    denoise: BlockDenoise,
    tokens: Tensor,
    free: Tensor,
    turn: Tensor,
    *,
    mask_id: int,
    rng: torch.Generator,
    draws: int = 8,
) -> list[dict[str, Tensor]]:
    """Unbiased estimates of every row's bound: the dicts of `diffusion.bound_estimates`.

    Noise levels are stratified within each answer.
    """
    estimates = []
    for uniform in levels_by_row(len(by_turn(free, turn)), draws, rng):
        noise = corrupt(free, turn, uniform, rng)
        nats, hits = masked_losses(denoise, tokens, noise.masked, mask_id)
        token_weight = token_weights(noise.masked, turn, noise.weight)
        estimates.append(estimate_of(nats, hits, token_weight, noise.masked, free))
    return estimates
