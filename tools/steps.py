"""One whole optimizer step on random tokens: what the tools time, and what plans are made from."""

from collections.abc import Callable

import torch

import diffusion
from base.config import TrainConfig
from loop import fit
from loop.distributed import Objective
from loop.hardware import Arithmetic
from loop.optim import make_optimizers
from model import Denoiser
from net import twin


def optimizer_step(
    model: Denoiser, tokens: torch.Tensor, precision: torch.dtype, *, is_twin: bool = False
) -> Callable[[], object]:
    """A function that does one optimizer step of the denoiser, or of the twin, on full rows.

    tokens: (B, L) int64, without padding. The first token of each row is given, as [BOS] is.
    """
    cfg, device = TrainConfig(), tokens.device
    optimizers = make_optimizers(model, cfg)
    arithmetic = Arithmetic(device, precision)
    free = torch.ones_like(tokens, dtype=torch.bool)
    free[:, 0] = False
    batches = [{"weight": float(free.sum())}]

    def loss(model, batch, rng):
        if is_twin:
            return twin.loss(model, tokens, free)
        # There is no tokenizer here: the last id stands for [MASK].
        mask_id = model.config.vocab_size - 1
        return diffusion.loss(model.bind(), tokens, free, mask_id=mask_id, rng=rng)

    objective = Objective(model, loss)

    def step():
        # Step 1, always: its number chooses the noise, and every call shall do the same work.
        return fit.optimizer_step(objective, batches, 1, cfg, optimizers, arithmetic)

    return step
