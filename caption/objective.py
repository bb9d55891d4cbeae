"""A captioner while it trains: its loss, its score on val, and captions to read.

The caption's loss is masked diffusion's bound, the twin's likelihood, or the bound with a reward.
The length head's loss is added to it.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion
from base import config, flags, metrics
from base.config import ModelConfig, SampleConfig, TrainConfig
from base.files import UserError
from base.flags import setting
from caption import store, teach, writer
from caption.data import CaptionData
from loop import checkpoint
from loop.batches import to_device
from net import quality, soft_masks, twin

LENGTH_WEIGHT = 0.1  # of the length head's loss, added to the caption's loss
EVAL_BATCH = 50  # images scored at one time
PREVIEWS = 6  # captions in a file of samples/
PATCH_LAYERS = 2  # of captioners of clips; other numbers were not tried


@dataclass
class CaptionRun:
    """The loss and its evaluation. A resumed run keeps these."""

    objective: str = setting(
        "diffusion", "what to train; ar is the autoregressive twin", choices=config.OBJECTIVES
    )
    estimator: str = setting(
        "count",
        "how a noise level becomes a mask; with --weight flat, cosine masks more",
        choices=config.ESTIMATORS,
    )
    weight: str = setting(
        "bound", "weights of the loss; bound is the likelihood's own", choices=config.WEIGHTS
    )
    image_dropout: float = setting(
        0.1, "share of captions trained without their image, for guidance", at_least=0, below=1
    )
    patch_dropout: float = setting(
        0.0, "share of an image's patches hidden in training", at_least=0, below=1
    )
    neighbours: int = setting(
        7, "with --retrieve: similar images whose captions training draws from", at_least=1
    )
    given_dropout: float = setting(
        0.1,
        "with --retrieve: share of images trained without their given captions",
        at_least=0,
        below=1,
    )
    length_dropout: float = setting(
        0.0,
        "share of an image's patches hidden from the length head; 0.1 helps with --length_only",
        at_least=0,
        below=1,
    )
    label_smoothing: float = setting(
        0.0, "share of the target spread over the vocabulary", at_least=0, below=1
    )
    complementary: bool = setting(False, "train on each mask and its opposite")
    soft_share: float = setting(
        0.8, "with --soft_masks: share of the steps that train with beliefs", at_least=0, at_most=1
    )
    self_critical: float = setting(
        0.0,
        "weight of a CIDEr-D reward, in a second phase from a trained captioner; 0 means none",
        at_least=0,
        metavar="WEIGHT",
    )
    frame_changes: bool = setting(
        True, "a captioner of clips also reads how each frame differs from the frame before"
    )
    captions_per_image: int = setting(4, "captions of one image in a batch", at_least=1)
    eval_images: int = setting(500, "val images at each evaluation", at_least=1)
    teacher: str | None = setting(
        None,
        "train on the captions that this captioner or twin writes, instead of human captions",
        metavar="FILE",
    )
    length_only: bool = setting(False, "train a new length head for --init_from, and nothing else")
    quality_reveals: int = setting(
        1,
        "with --quality_layers: masked tokens that the denoiser draws per caption; 0: all",
        at_least=0,
    )

    def of_clips(self, data: CaptionData, resume, frozen: str | None) -> tuple[bool, int]:
        """Whether a new captioner of this folder reads how frames differ, and its patch layers.

        Captioners of images do not read changes, and have no patch layers. A flag may set other
        patch layers. resume: the state of a run that goes on, or None. frozen: the checkpoint of a
        captioner that gets a new head or adapters, or None. A checkpoint decides.
        """
        before = checkpoint.load(frozen) if frozen and resume is None else resume
        if before is not None:
            statistics = before.get("statistics", {})
            return "change_scale" in statistics, before["model"].get("patch_layers", 0)
        is_clip = data.encoder.get("frames", 1) > 1
        return self.frame_changes and is_clip, PATCH_LAYERS if is_clip else 0

    def __post_init__(self):
        flags.check(self)
        if self.self_critical and (self.complementary or self.label_smoothing):
            raise UserError(
                "--self_critical with --complementary or --label_smoothing",
                "one mask per caption and its plain loss, to which the reward is added",
                "drop these flags",
            )
        if self.complementary and self.estimator != "count":
            raise UserError(
                f"--complementary with --estimator {self.estimator}",
                "the count estimator",
                "add --estimator count",
            )

    def check_start(self, has_start: bool) -> None:
        """Raise UserError for a second phase without a trained denoiser to start from."""
        problem = "with --objective ar" if self.objective == "ar" else "without --init_from"
        if has_start and self.objective != "ar":
            return
        if self.self_critical:
            raise UserError(
                f"--self_critical {self.self_critical:g} {problem}",
                "a trained diffusion captioner",
                "name it with --init_from, or drop --self_critical",
            )
        if self.length_only:
            raise UserError(
                f"--length_only {problem}",
                "a trained diffusion captioner",
                "name it with --init_from",
            )

    def check_quality(self, has_start: bool) -> None:
        """Raise UserError if a quality head cannot be trained with these flags."""
        refused = {
            "--length_only": self.length_only,
            "--self_critical": bool(self.self_critical),
            "--complementary": self.complementary,
            "--label_smoothing": bool(self.label_smoothing),
            f"--weight {self.weight}": self.weight != "bound",
            "--patch_dropout": bool(self.patch_dropout),
        }
        quality.check_training(refused, has_start)

    def check_batch(self, cfg: TrainConfig) -> None:
        """Raise UserError unless every micro-batch has all captions of its images."""
        if cfg.batch_size % (self.captions_per_image * cfg.accumulate):
            raise UserError(
                f"--batch_size {cfg.batch_size} with --captions_per_image "
                f"{self.captions_per_image} and --accumulate {cfg.accumulate}",
                "a multiple of both together: every micro-batch has whole images",
                "change one of them",
            )


def check_sizes(path: str, saved, model_config: ModelConfig) -> None:
    """Raise UserError unless a checkpoint is a captioner of these sizes; its head may differ."""
    # What is made again may differ. Dropout has no weights.
    flag, new = "--length_only", {"length_hidden": 0, "dropout": 0.0}
    if model_config.quality_layers:
        flag, new = "--quality_layers", {"quality_layers": 0, "dropout": 0.0}
    found = dataclasses.replace(checkpoint.model_config(saved), **new)
    if saved["kind"] != "caption" or found != dataclasses.replace(model_config, **new):
        raise UserError(
            f"{flag} from {path}, a {saved['kind']} model ({saved['objective']}) "
            "of other sizes or kind",
            "a diffusion captioner of this --model_config",
            "name one with --init_from, or its sizes",
        )


def make_loss(own: CaptionRun, tokenizer, statistics: dict, reward: teach.Reward | None = None):
    """loss_fn for `fit`: the caption's loss given its image, and the length head's.

    n captions of an image are neighbours in a batch: features are (B / n, P, width), tokens (B, L).
    """
    drawing = partial(quality_draws, own, tokenizer)

    def denoiser_loss(denoise, batch, tokens, free, rng):
        noise = {"uniform": batch["uniform"], "rng": rng}
        noise |= {"estimator": own.estimator, "weight": own.weight}
        if reward is not None:
            sources, share = batch["sources"], own.self_critical
            return teach.self_critical_loss(
                denoise, tokens, free, sources, reward, tokenizer, share=share, **noise
            )
        noise |= {"complementary": own.complementary, "label_smoothing": own.label_smoothing}
        return diffusion.loss(denoise, tokens, free, mask_id=tokenizer.mask, **noise)

    def loss_fn(model, batch, rng):
        tokens, lengths, free = to_device(batch, model.device)
        features = writer.standardise(batch["features"], statistics, model.device)
        if isinstance(model, quality.QualityDenoiser):
            checked = model.bind(lengths, model.keys_values(features))
            return quality.loss(checked, tokens, free, **drawing(batch["uniform"], rng))
        seen = writer.hide(features, own.length_dropout, rng)
        repeats = len(tokens) // len(features)
        length_logits = model.length_logits(seen).repeat_interleave(repeats, 0)
        length_loss = F.cross_entropy(length_logits, batch["lengths"].to(model.device))
        if own.length_only:
            return length_loss, {}
        # After the length head: guidance drops the image from the caption, never from the length.
        kept = torch.rand(len(features), generator=rng) >= own.image_dropout
        # Zeros are what a blind model sees when captions are written.
        features = features * kept.to(model.device)[:, None, None]
        visible = writer.hide(features, own.patch_dropout, rng)
        if model.config.retrieve:  # the blind model reads no captions either
            kept &= torch.rand(len(features), generator=rng) >= own.given_dropout
            visible = store.see(model, tokenizer, visible, batch["texts"], kept)
        condition = model.keys_values(visible)
        if own.objective == "ar":
            loss, figures = twin.loss(model, tokens, free, condition)
        else:
            denoise = soft_masks.trainer_of(model, batch, lengths, condition)
            loss, figures = denoiser_loss(denoise, batch, tokens, free, rng)
        return loss + LENGTH_WEIGHT * length_loss, {
            **figures,
            "length_cross_entropy": length_loss.item(),
        }

    return loss_fn


def quality_draws(own: CaptionRun, tokenizer, uniform: Tensor, rng: torch.Generator) -> dict:
    """How `quality.draw` makes the tokens that a quality head learns from."""
    how = {"mask_id": tokenizer.mask, "uniform": uniform, "rng": rng}
    return how | {"estimator": own.estimator, "reveals": own.quality_reveals}


def statistics_of(data: CaptionData, before, only_head: bool, changes: bool = False) -> dict:
    """What a captioner must know of its training data.

    before: the checkpoint that it started from. only_head: whether all but a head is frozen.
    changes: whether it reads how the frames of clips differ.
    """
    if only_head:  # the frozen rest must read features as it always did
        return before["statistics"]
    frames = data.encoder.get("frames", 1)  # of clips
    statistics = writer.feature_statistics(data.features, data.rows, frames, changes)
    statistics["row_lengths"] = data.length_histogram().tolist()
    if before and before["kind"] == "caption":  # its keys know the place code at this size
        statistics["place_scale"] = before["statistics"].get("place_scale", 1.0)
        if frames > 1 and "time_scale" in before["statistics"]:
            statistics["time_scale"] = before["statistics"]["time_scale"]
    return statistics


@torch.no_grad()
def length_nats(model, held_out: CaptionData, numbers, features) -> float:
    """The length head's nats on these images, each the mean over the image's captions."""
    log_p = model.length_logits(features).log_softmax(-1).cpu()  # (images, max_length + 1)
    nats = []
    for row, number in zip(log_p, numbers, strict=True):
        lengths = [len(caption) for caption in held_out.tokens[number]]
        nats.append(float(row[lengths].mean()))
    return -sum(nats)


@torch.no_grad()
def quality_figures(own: CaptionRun, model, held_out: CaptionData, statistics: dict, numbers):
    """The head's nats per drawn token of these images' first captions, and its AUC for right."""
    odds, right = [], []
    for batch in np.array_split(numbers, -(-len(numbers) // EVAL_BATCH)):
        features = writer.standardise(held_out.features_of(batch), statistics, model.device)
        rows = held_out.texts.batch(batch, np.zeros((len(batch), 1), dtype=np.int64))
        tokens, lengths, free = to_device(rows, model.device)
        # The same draws at every evaluation: two steps then differ by their weights alone.
        rng = torch.Generator().manual_seed(int(batch[0]))
        how = quality_draws(own, held_out.tokenizer, diffusion.stratified(len(batch), rng), rng)
        checked = model.bind(lengths, model.keys_values(features))
        said, is_right = quality.verdicts(checked, tokens, free, **how)
        odds.append(said.cpu())
        right.append(is_right.cpu())
    said, is_right = torch.cat(odds), torch.cat(right)
    nats = F.binary_cross_entropy_with_logits(said, is_right.float())
    auc = metrics.auc(said[~is_right].numpy(), said[is_right].numpy())
    # None: no drawn token is wrong, or none is right.
    return {"quality_nats": float(nats)} | ({} if auc is None else {"quality_auc": auc})


def make_eval(own: CaptionRun, held_out: CaptionData, statistics: dict):
    """eval_fn for `fit`: nats per token of val's first captions, or of their lengths."""
    numbers = np.arange(min(own.eval_images, len(held_out)))

    def eval_fn(model):
        if isinstance(model, quality.QualityDenoiser):
            return quality_figures(own, model, held_out, statistics, numbers)
        nats = tokens = 0.0
        for batch in np.array_split(numbers, -(-len(numbers) // EVAL_BATCH)):
            features = store.look(model, held_out.tokenizer, statistics, held_out, batch)
            if own.length_only:
                nats += length_nats(model, held_out, batch, features)
                continue
            captions = [held_out.tokens[number][0].tolist() for number in batch]
            # The same noise at every evaluation: two steps then differ by their weights alone.
            nats += writer.bounds(
                model, held_out.tokenizer, own.objective, features, captions, seed=int(batch[0])
            ).sum()
            tokens += sum(len(caption) - 1 for caption in captions)  # [BOS] is given
        if own.length_only:
            return {"nats_per_length": nats / len(numbers)}
        return {"nats_per_token": nats / tokens}

    return eval_fn


def make_preview(own: CaptionRun, seed: int, held_out: CaptionData, statistics: dict):
    """preview_fn for `fit`: captions of val's first images, each next to a human caption."""
    # The same images each time, so that people see the captions change.
    numbers = np.arange(min(PREVIEWS, own.eval_images, len(held_out)))

    def preview_fn(model):
        features = store.look(model, held_out.tokenizer, statistics, held_out, numbers)
        settings = SampleConfig(**config.CAPTIONS)
        written = writer.write(
            model, held_out.tokenizer, own.objective, features, settings, seed=seed
        )
        lines = []
        for caption, record in zip(written, held_out.records, strict=False):
            lines.append(f"{caption.text}   | {record['captions'][0]}")
        return "\n".join(lines)

    return preview_fn
