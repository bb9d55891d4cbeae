"""Batches on their device, and the randomness of an optimizer step.

The step decides everything: the batch, the noise and dropout of step s are functions of (seed, s)
alone. So no generator's state is saved, and a resumed run equals a straight run bit for bit.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from base.randomness import step_seed
from diffusion import stratified

MicroBatches = Callable[[int], list[dict]]  # batches(step) -> the micro-batches of this process
NOISE_STREAM = 1  # of `step_generator`
BLOCK_STREAM = -1  # of `step_generator`; the streams from 0 on are taken
SOFT_STREAM = -2


def to_device(batch: dict, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor]:
    """A batch on its device: tokens (B, L), lengths (B,) or None without padding, free (B, L) bool.

    Free positions are predicted: all positions but the first of a row and the padding.
    """
    tokens = batch["tokens"].to(device, non_blocking=True)
    lengths = batch["lengths"].to(device, non_blocking=True)
    position = torch.arange(tokens.shape[1], device=device)
    free = (position >= 1) & (position < lengths[:, None])  # [BOS] is always given
    # Asked of the CPU's copy: a question to the GPU would wait for the GPU.
    has_padding = int(batch["lengths"].min()) < tokens.shape[1]
    return tokens, lengths if has_padding else None, free


def stream_of(number: int) -> int:
    """The stream of micro-batch `number` of a step. Stream 1 belongs to the noise levels."""
    return number + 1 if number else 0


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The CPU generator of one stream of a step: of noise levels, or of a micro-batch's masks."""
    return torch.Generator().manual_seed(step_seed(seed, step, stream))


def with_noise_levels(micro_batches: list[dict], rng: torch.Generator) -> list[dict]:
    """Give each micro-batch its slice, `uniform` (B,), of the step's one stratified draw.

    Under torchrun only some of the step's micro-batches are in this process: `first_row` and
    `step_rows` say which of the step's rows they hold.
    """
    sizes = [len(batch["tokens"]) for batch in micro_batches]
    # One draw for the whole step: --accumulate must not change the noise levels.
    levels = stratified(micro_batches[0].get("step_rows", sum(sizes)), rng)
    first = 0
    for batch, size in zip(micro_batches, sizes, strict=True):
        first = batch.get("first_row", first)
        batch["uniform"] = levels[first : first + size]
        first += size
    return micro_batches


def with_noise(batches: MicroBatches, seed: int, first_step: int = 0) -> MicroBatches:
    """`batches`, from `first_step` on, whose micro-batches hold their noise levels."""

    def noisy(step: int) -> list[dict]:
        step += first_step
        return with_noise_levels(batches(step), step_generator(seed, step, NOISE_STREAM))

    return noisy


def with_block_sizes(batches: MicroBatches, seed: int, sizes: list[int]) -> MicroBatches:
    """`batches`, each step with a `block_size` of its own, drawn from `sizes`."""

    def sized(step: int) -> list[dict]:
        rng = step_generator(seed, step, BLOCK_STREAM)
        size = sizes[int(torch.randint(len(sizes), (), generator=rng))]
        return [batch | {"block_size": size} for batch in batches(step)]

    return sized


def with_soft_steps(batches: MicroBatches, seed: int, share: float) -> MicroBatches:
    """`batches`, each with `soft`: whether its step trains with beliefs. share: of such steps."""

    def chosen(step: int) -> list[dict]:
        rng = step_generator(seed, step, SOFT_STREAM)
        soft = bool(torch.rand((), generator=rng) < share)
        return [batch | {"soft": soft} for batch in batches(step)]

    return chosen
