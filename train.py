"""Train a masked-diffusion language model, or its autoregressive twin, on tokens from data_prep.py.

Reads   data_full/ (--data_dir): train.npy, val.npy, their offsets, tokenizer.json, meta.json
Writes  checkpoints/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, samples/

One minute on a laptop:
    python train.py --model_config tiny --max_steps 100 --batch_size 16 --max_length 128
For real, on one GPU or on eight:
    python train.py --model_config small --max_steps 10000
    torchrun --nproc-per-node 8 train.py --model_config small --max_steps 10000 --accumulate 8
The twin, on the same rows in the same order, and a denoiser that starts from the twin:
    python train.py --objective ar --out checkpoints_ar
    python train.py --init_from checkpoints_ar/best.pt --out checkpoints_from_ar
"""

from dataclasses import dataclass, replace

import torch

import diffusion
from base import config, files, flags
from base.config import ModelConfig, SampleConfig, TrainConfig
from base.files import UserError
from base.flags import setting
from loop import checkpoint, distributed, fit, recipe
from loop.batches import to_device, with_noise
from model import Denoiser
from net import twin
from net.samplers import row_generators, sample
from text import scores
from text.data import Batches, TextData

PREVIEW_LENGTH = 128  # tokens of a sample in samples/: long enough to judge, quick to draw
PAD_COMPILED = 64  # --compile: row lengths are multiples of it, so that few shapes are compiled


@dataclass
class TextStart:
    """Data and start."""

    data_dir: str = setting("data_full", "folder from data_prep.py", metavar="FOLDER")
    model_config: str = setting("small", "named size", choices=config.NAMED_SIZES)
    init_from: str | None = setting(
        None,
        "start from this checkpoint's weights: a twin's spare diffusion its slow start",
        metavar="FILE",
    )

    def __post_init__(self):
        flags.check(self)


@dataclass
class TextRun:
    """The loss and its evaluation. A resumed run keeps these."""

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
    eval_documents: int = setting(200, "held-out documents at each evaluation", at_least=1)

    def __post_init__(self):
        flags.check(self)
        if self.complementary and self.estimator != "count":
            raise UserError(
                f"--complementary with --estimator {self.estimator}",
                "the count estimator",
                "drop one of the two flags",
            )


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder)
    parser.add_settings(TextStart)
    parser.add_settings(TextRun)
    parser.add_settings(
        ModelConfig,
        # The tokenizer and the objective decide the first three. The others are for captioners.
        skip=("vocab_size", "output_size", "causal", "condition_width", "length_hidden"),
    )
    parser.add_settings(TrainConfig)
    return parser.parse_args(argv)


def make_loss(own: TextRun, mask_id: int):
    """loss_fn for `fit`: the first token of a row is given, and padding is not language."""

    def loss_fn(model, batch, rng):
        tokens, lengths, free = to_device(batch, model.device)
        if own.objective == "ar":
            return twin.loss(model, tokens, free)  # padding behind a causal row is never seen
        return diffusion.loss(
            model.bind(lengths),
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


def make_preview(own: TextRun, seed: int, tokenizer, length: int):
    """preview_fn for `fit`: two short samples, so that progress can be read."""

    def preview_fn(model):
        prompt = torch.full((2, length), tokenizer.mask, device=model.device)  # (2, L)
        prompt[:, 0] = tokenizer.bos
        # The same draws at every preview, so that two previews differ by training alone.
        rngs = row_generators(seed, 2)
        if own.objective == "ar":
            drawn = twin.sample(
                model, prompt[:, :1], length, eos=tokenizer.eos, pad=tokenizer.pad, rngs=rngs
            )
        else:
            # A token per call is exact, so the preview shows the model and not the sampler.
            settings = SampleConfig(steps=length)
            drawn = sample(model.bind(), prompt, settings, mask_id=tokenizer.mask, rngs=rngs)
        return "\n\n".join(tokenizer.decode(row.tolist()) for row in drawn.tokens)

    return preview_fn


def read_data(setup: recipe.Setup, start: TextStart, own: TextRun):
    """The architecture and both splits.

    Raises UserError if a resumed run had other data or another model.
    """
    size = {"max_length": 256} | config.named_size(start.model_config)
    model_config = setup.model_config(size)
    # The length of a row decides how the texts are cut, so it is known before they are read.
    train, held_out = (
        TextData(start.data_dir, split, model_config.max_length) for split in ("train", "val")
    )
    model_config = replace(
        model_config,
        # These follow from the data and the objective; no flag can contradict them.
        vocab_size=train.tokenizer.vocab_size,
        output_size=train.tokenizer.output_size,
        causal=own.objective == "ar",
    )
    if setup.resume:
        fingerprint, saved = train.meta["fingerprint"], setup.resume["data"]["fingerprint"]
        # Before the processes meet, each of them refuses by itself (loop/recipe.py).
        recipe.refuse_other_data(start.data_dir, "texts", [fingerprint], [saved])
        recipe.refuse_other_model(setup.resume, model_config, own.objective)
    return model_config, train, held_out


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(args, kinds=("text",))
    start, own, cfg = setup.own(TextStart), setup.own(TextRun), setup.train_config()
    model_config, train, held_out = read_data(setup, start, own)
    # Before the model: this sets the seed of the start weights.
    device = recipe.begin(setup, cfg, own, model_config, cfg)

    model = Denoiser(model_config).to(device)
    if start.init_from and not setup.resume:  # a resumed run has weights of its own
        checkpoint.start_from(model, start.init_from, train.tokenizer.fingerprint)
    pad_multiple = PAD_COMPILED if cfg.compile else 1
    batches = Batches(train, cfg.batch_size, cfg.accumulate, cfg.seed, pad_multiple)
    distributed.say(
        f"data: {len(train.starts):,} rows, {int(train.lengths.sum()):,} tokens, "
        f"{batches.epoch_steps:,} steps per epoch"
    )
    # generate.py draws lengths from it, and the bound pays for lengths under it.
    statistics = {"row_lengths": train.length_histogram().tolist()}
    # A small model's rows may be shorter than the usual preview.
    preview_length = min(PREVIEW_LENGTH, model_config.max_length)
    metrics = fit.fit(
        model,
        make_loss(own, train.tokenizer.mask),
        with_noise(batches, cfg.seed),
        cfg,
        setup.out,
        about=recipe.about("text", own.objective, model_config, train, statistics, own),
        eval_fn=make_eval(own, held_out, statistics),
        preview_fn=make_preview(own, cfg.seed, train.tokenizer, preview_length),
        resume=setup.resume,
    )
    recipe.end(setup.out, metrics, "generate.py", ["--num_samples", "5"])


if __name__ == "__main__":
    files.run(main)
