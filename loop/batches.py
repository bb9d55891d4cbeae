"""Batches on their device, and the noise levels of an optimizer step."""

import torch
from torch import Tensor

from diffusion import stratified


def to_device(batch: dict, device) -> tuple[Tensor, Tensor | None, Tensor]:
    """A batch on its device: tokens (B, L), lengths (B,) or None if nothing is padding, free (B, L) bool.

    Free are the positions that a model predicts: all but the first of a row and the padding.
    """
    tokens, lengths = (
        batch["tokens"].to(device, non_blocking=True),
        batch["lengths"].to(device, non_blocking=True),
    )
    position = torch.arange(tokens.shape[1], device=device)
    free = (position >= 1) & (position < lengths[:, None])
    full = int(batch["lengths"].min()) == tokens.shape[1]
    return tokens, None if full else lengths, free


def with_noise_levels(micro_batches: list[dict], rng: torch.Generator) -> list[dict]:
    """Give each micro-batch its slice, `uniform` (B,), of one stratified draw over all rows of the optimizer step.

    Where only some of the step's micro-batches are here, `first_row` and `step_rows` say which of its rows they are.
    """
    sizes = [len(batch["tokens"]) for batch in micro_batches]
    levels, first = stratified(micro_batches[0].get("step_rows", sum(sizes)), rng), 0
    for batch, size in zip(micro_batches, sizes, strict=True):
        first = batch.get("first_row", first)
        batch["uniform"] = levels[first : first + size]
        first += size
    return micro_batches
