"""A text model in training: its loss, its score on held-out documents, its preview."""

from dataclasses import dataclass

import torch

import diffusion
from base import config, flags
from base.config import ModelConfig, SampleConfig
from base.files import UserError
from base.flags import setting
from loop.batches import to_device
from net import block_writing, blocks, kernels, noise, soft_masks, twin
from net.samplers import row_generators, sample
from text import scores
from text.data import TextData

PREVIEW_LENGTH = 128  # tokens of a sample in samples/: long enough to judge, quick to draw


@dataclass
class TextRun:
    """The loss, its data and its evaluation. A resumed run keeps these."""

    objective: str = setting(
        "diffusion", "what to train; ar is the autoregressive twin", choices=config.OBJECTIVES
    )
    estimator: str = setting(
        "count",
        "how a noise level becomes a mask; all estimate the same bound",
        choices=config.ESTIMATORS,
    )
    # `flat` helps long runs of captioners (docs/method.md).
    weight: str = setting(
        "bound", "weights of the loss; bound is the likelihood's own", choices=config.WEIGHTS
    )
    complementary: bool = setting(False, "train on each mask and its opposite")
    unique_tokens: int = setting(
        0,
        "train on the first whole documents that hold at most this many tokens; 0: on all",
        at_least=0,
    )
    soft_share: float = setting(
        0.8, "with --soft_masks: share of the steps that train with beliefs", at_least=0, at_most=1
    )
    eval_documents: int = setting(200, "held-out documents at each evaluation", at_least=1)
    kernels: bool = setting(False, kernels.HELP)

    def __post_init__(self):
        flags.check(self)
        if self.complementary and self.estimator != "count":
            raise UserError(
                f"--complementary with --estimator {self.estimator}",
                "the count estimator",
                "drop one of the two flags",
            )


def check_blocks(own: TextRun, model_config: ModelConfig) -> None:
    """Raise UserError for a loss that blocks do not have."""
    if not model_config.trained_sizes:
        return
    flag = f"--block_sizes {model_config.block_sizes}"
    if own.estimator != "count":
        raise UserError(
            f"{flag} with --estimator {own.estimator}", "exact counts", "leave out --estimator"
        )
    if own.complementary:
        raise UserError(f"{flag} with --complementary", "a mask per block", "drop --complementary")


def check_noise(own: TextRun, model_config: ModelConfig) -> None:
    """Raise UserError for a loss of masks, for a network of other noise."""
    if not noise.is_other(model_config):
        return
    flag = f"--noise {model_config.noise}"
    if own.estimator != "count":
        raise UserError(
            f"{flag} with --estimator {own.estimator}",
            "the one estimator of this noise",
            "leave out --estimator",
        )
    if own.complementary:
        raise UserError(f"{flag} with --complementary", "no masks", "leave out --complementary")
    if own.weight == "clipped":
        raise UserError(
            f"{flag} with --weight clipped",
            "bound, or flat: the cross-entropy of the posterior read-out",
            "choose one of these",
        )


def make_loss(own: TextRun, model_config: ModelConfig, mask_id: int):
    """loss_fn for `fit`: the first token of a row is given, and padding is not language."""

    def loss_fn(model, batch, rng):
        rows = tokens, lengths, free = to_device(batch, model.device)
        if own.objective == "ar":
            return twin.loss(model, tokens, free)  # padding behind a causal row is never seen
        if noise.is_other(model_config):
            return noise.loss(
                model,
                rows,
                mask_id=mask_id,
                rng=rng,
                weight=own.weight,
                uniform=batch["uniform"],
            )
        if model_config.trained_sizes:
            size = batch["block_size"]
            value, figures = blocks.loss(
                blocks.bind(model, size, lengths),
                tokens,
                free,
                size=size,
                mask_id=mask_id,
                rng=rng,
                weight=own.weight,
                uniform=batch["uniform"],
            )
            return value, {**figures, "block_size": float(size)}
        return diffusion.loss(
            soft_masks.trainer_of(model, batch, lengths),
            tokens,
            free,
            mask_id=mask_id,
            rng=rng,
            uniform=batch["uniform"],
            estimator=own.estimator,
            weight=own.weight,
            complementary=own.complementary,
        )

    return loss_fn


def make_eval(own: TextRun, held_out: TextData, statistics: dict):
    """eval_fn for `fit`: the bound, or the twin's likelihood, on held-out documents."""

    def eval_fn(model):
        return scores.summary(
            model, own.objective, held_out, statistics, documents=own.eval_documents, draws=4
        )

    return eval_fn


def make_preview(own: TextRun, seed: int, tokenizer, model_config: ModelConfig):
    """preview_fn for `fit`: two short samples, so that progress can be read."""
    # A small model's rows may be shorter than the usual preview.
    length = min(PREVIEW_LENGTH, model_config.max_length)
    # A token per call is exact, so the preview shows the model and not the sampler.
    settings = SampleConfig(steps=length)
    mask_id, ends = tokenizer.mask, {"eos": tokenizer.eos, "pad": tokenizer.pad}

    def preview_fn(model):
        prompt = torch.full((2, length), mask_id, device=model.device)  # (2, L)
        prompt[:, 0] = tokenizer.bos
        # The same draws at every preview, so that two previews differ by training alone.
        rngs = row_generators(seed, 2)
        size = blocks.choose(model_config, 0)
        if own.objective == "ar":
            drawn = twin.sample(model, prompt[:, :1], length, rngs=rngs, **ends)
        elif size:
            by_block = SampleConfig(steps=model_config.max_length)
            drawn = block_writing.sample(
                model, prompt, by_block, size=size, mask_id=mask_id, rngs=rngs, **ends
            )
        elif noise.is_other(model_config):
            how = noise.settings_of(model_config, settings)
            drawn = noise.sample(model, prompt, how, mask_id=mask_id, rngs=rngs)
        else:
            drawn = sample(model.bind(), prompt, settings, mask_id=mask_id, rngs=rngs)
        return "\n\n".join(tokenizer.decode(row.tolist()) for row in drawn.tokens)

    return preview_fn
