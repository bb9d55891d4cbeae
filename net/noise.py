"""Which noise hides the tokens of a text: one place decides what a network of each noise does.

    absorbing   [MASK] in place of a token             diffusion.py, net/samplers.py
    uniform     a random id in place of a token        net/channels.py, net/token_noise.py
    hybrid      a random id or [MASK]                  net/channels.py, net/token_noise.py
    gaussian    a token's code and normal numbers      net/gaussian_noise.py

The functions below serve networks of all noises but absorbing. Shapes: B rows, L positions.
"""

import dataclasses
from collections.abc import Collection

import torch
from torch import Tensor

from base.config import ModelConfig, SampleConfig
from base.files import UserError
from model import Denoiser
from net import gaussian_noise, gaussian_writing, token_noise, token_writing
from net.channels import channel_of
from net.gaussian_noise import GaussianDenoiser
from net.samplers import Sample


def is_other(config: ModelConfig) -> bool:
    """Whether a network learnt another noise than masks."""
    return config.noise != "absorbing"


def loss(
    model: Denoiser,
    rows: tuple[Tensor, Tensor | None, Tensor],
    *,
    mask_id: int,
    rng: torch.Generator,
    weight: str = "bound",
    uniform: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """What training minimises, in nats per free token, and plain floats to report.

    rows: tokens (B, L) int64, lengths (B,) or None, free (B, L) bool. weight, uniform: as
    `token_noise.loss` takes them.
    """
    tokens, lengths, free = rows
    if isinstance(model, GaussianDenoiser):
        return gaussian_noise.loss(
            model.reading(lengths),
            model.codes(),
            tokens,
            free,
            mask_id=mask_id,
            rng=rng,
            weight=weight,
            uniform=uniform,
        )
    return token_noise.loss(
        channel_of(model.config, mask_id),
        model.bind(lengths),
        tokens,
        free,
        rng=rng,
        weight=weight,
        uniform=uniform,
    )


def bound_estimates(
    model: Denoiser,
    rows: tuple[Tensor, Tensor | None, Tensor],
    *,
    mask_id: int,
    rng: torch.Generator,
    draws: int = 8,
) -> list[dict[str, Tensor]]:
    """Estimates of the bound of rows: the dicts of `diffusion.bound_estimates`.

    rows: tokens (B, L) int64, lengths (B,) or None, free (B, L) bool.
    """
    tokens, lengths, free = rows
    if isinstance(model, GaussianDenoiser):
        reading, codes = model.reading(lengths), model.codes()
        how = {"mask_id": mask_id, "draws": draws}
        return gaussian_noise.bound_estimates(reading, codes, tokens, free, rng=rng, **how)
    channel = channel_of(model.config, mask_id)
    denoise = model.bind(lengths)
    return token_noise.bound_estimates(channel, denoise, tokens, free, rng=rng, draws=draws)


def sample(
    model: Denoiser,
    tokens: Tensor,
    settings: SampleConfig,
    *,
    lengths: Tensor | None = None,
    mask_id: int,
    rngs: list[torch.Generator],
    keep_frames: bool = False,
) -> Sample:
    """Write at every [MASK] of `tokens` (B, L) int64, by the sampler of the network's noise.

    lengths: (B,) real tokens of each row, or None without padding. Raises UserError as `check`.
    """
    check(model.config, settings)
    if isinstance(model, GaussianDenoiser):
        return gaussian_writing.sample(
            model.reading(lengths),
            model.codes(),
            tokens,
            settings,
            mask_id=mask_id,
            rngs=rngs,
            keep_frames=keep_frames,
        )
    return token_writing.sample(
        channel_of(model.config, mask_id),
        model.bind(lengths),
        tokens,
        settings,
        rngs=rngs,
        keep_frames=keep_frames,
    )


# ---- What does not go with other noise


def settings_of(
    config: ModelConfig, settings: SampleConfig, given: Collection[str] = ()
) -> SampleConfig:
    """The settings that a network samples with: other noise has one sampler, `ancestral`.

    given: the names of the settings that the user gave. Raises UserError as `check` does.
    """
    if not is_other(config):
        return settings
    check_parts(config, settings)  # first: --speculate does not go with the sampler below
    if "sampler" not in given:
        settings = dataclasses.replace(settings, sampler="ancestral")
    check(config, settings)
    return settings


def check(config: ModelConfig, settings: SampleConfig) -> None:
    """Raise UserError for settings of samplers that reveal masks."""
    if settings.sampler != "ancestral":
        raise UserError(
            f"--sampler {settings.sampler} for a network of {config.noise} noise",
            "ancestral: the other samplers reveal masks",
            "leave out --sampler, or name a checkpoint of train.py --noise absorbing",
        )
    check_parts(config, settings)


def check_parts(config: ModelConfig, settings: SampleConfig) -> None:
    """Raise UserError for what samplers add to revealing masks."""
    for name in ("block_size", "speculate", "carry", "revise", "recheck"):
        if getattr(settings, name):
            raise UserError(
                f"--{name} for a network of {config.noise} noise",
                "a sampler of whole texts that draws every place again",
                f"leave out --{name}",
            )
