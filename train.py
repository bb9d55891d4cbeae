"""Train a masked-diffusion language model, or its autoregressive twin, on tokens from data_prep.py.

Reads   data_full/ (--data_dir): train.npy, val.npy, tokenizer.json, meta.json
Writes  checkpoints/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, samples/

One minute on a laptop:
    python train.py --model_config tiny --max_steps 100 --batch_size 16 --max_length 128
For real, on one GPU or on eight:
    python train.py --model_config small --max_steps 10000
    torchrun --nproc-per-node 8 train.py --model_config small --max_steps 10000 --accumulate 8
The twin, on the same rows in the same order, and a denoiser that starts from it:
    python train.py --objective ar --out checkpoints_ar
    python train.py --init_from checkpoints_ar/best.pt --out checkpoints_from_ar
"""

import sys
from pathlib import Path

import torch

import diffusion
from base import config, files, flags
from base.config import ModelConfig, SampleConfig, TrainConfig
from base.files import UserError
from loop import checkpoint, distributed, fit
from loop.batches import to_device, with_noise_levels
from model import Denoiser
from net import twin
from net.samplers import row_generators, sample
from text import scores
from text.data import Batches, TextData

CHOICES = {
    "model_config": ("small", config.NAMED_SIZES, "named size"),
    "objective": ("diffusion", config.OBJECTIVES, "what to train; ar is the autoregressive twin"),
    "estimator": (
        "count",
        config.ESTIMATORS,
        "how noise levels are drawn; all estimate the same bound",
    ),
    "weight": ("bound", config.WEIGHTS, "weights of the loss; bound is the likelihood's own"),
}
KEPT = (
    "objective",
    "estimator",
    "weight",
    "complementary",
    "eval_documents",
)  # what a resumed run keeps beside its settings


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--data_dir", default="data_full", help="folder from data_prep.py (default %(default)s)"
    )
    parser.add_argument("--out", default="checkpoints", help="run folder (default %(default)s)")
    parser.add_choices(CHOICES)
    parser.add_argument(
        "--complementary", action="store_true", help="train on each mask and its opposite"
    )
    parser.add_argument(
        "--init_from",
        help="start from this checkpoint's weights: those of the twin spare diffusion its slow start",
    )
    parser.add_argument(
        "--eval_documents",
        type=int,
        default=200,
        help="held-out documents at each evaluation (default 200)",
    )
    parser.add_argument("--config", help="JSON file of settings, such as another run's config.json")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="must",
        choices=("must", "auto"),
        help="go on from resume.pt in --out; auto: if there is one, else begin (for torchrun --max-restarts)",
    )
    parser.add_settings(
        ModelConfig,
        skip=("vocab_size", "output_size", "causal", "condition_width", "length_hidden"),
    )
    parser.add_settings(TrainConfig)
    args = parser.parse_args(argv)
    return args


def make_loss(args, mask_id: int):
    """loss_fn for `training.fit`: the first token of a row is given, padding is not language."""

    def loss_fn(model, batch, rng):
        tokens, lengths, free = to_device(batch, model.device)
        if args.objective == "ar":
            return twin.loss(model, tokens, free)
        return diffusion.loss(
            model.bind(lengths),
            tokens,
            free,
            mask_id=mask_id,
            rng=rng,
            uniform=batch["uniform"],
            estimator=args.estimator,
            weight=args.weight,
            complementary=args.complementary,
        )

    return loss_fn


def make_preview(args, cfg, tokenizer, length: int):
    """preview_fn for `training.fit`: two short samples, so that progress can be read."""

    def preview_fn(model):
        prompt = torch.full((2, length), tokenizer.mask, device=model.device)
        prompt[:, 0] = tokenizer.bos
        rngs = row_generators(cfg.seed, 2)
        if args.objective == "ar":
            drawn = twin.sample(
                model, prompt[:, :1], length, eos=tokenizer.eos, pad=tokenizer.pad, rngs=rngs
            )
        else:
            drawn = sample(
                model.bind(), prompt, SampleConfig(steps=length), mask_id=tokenizer.mask, rngs=rngs
            )
        return "\n\n".join(tokenizer.decode(row.tolist()) for row in drawn.tokens)

    return preview_fn


def build(args, resume) -> tuple[ModelConfig, TrainConfig, TextData]:
    """The settings and the data; a resumed run keeps its own settings unless a flag says otherwise."""
    file_values = flags.read_config_file(args.config, args.parser)
    before = resume or {"model": {}, "train": {}}
    length = {"max_length": 256} | before["model"] | file_values
    data = TextData(args.data_dir, "train", args.max_length or length["max_length"])
    tokens = {
        "vocab_size": data.tokenizer.vocab_size,
        "output_size": data.tokenizer.output_size,
        "causal": args.objective == "ar",
    }
    model_config = flags.resolve(
        ModelConfig,
        args,
        config.named_size(args.model_config),
        file_values,
        before["model"],
        tokens,
    )
    cfg = flags.resolve(TrainConfig, args, file_values, before["train"])
    if resume:
        if resume["data"]["fingerprint"] != data.meta["fingerprint"]:
            raise UserError(
                f"{args.data_dir} with fingerprint {data.meta['fingerprint']}",
                f"the data of the run, {resume['data']['fingerprint']}",
                "resume with the same --data_dir",
            )
        if (
            model_config != flags.from_dict(ModelConfig, resume["model"])
            or args.objective != resume["objective"]
        ):
            raise UserError(
                "flags for another model or objective",
                "the model that is being resumed",
                "drop the model's flags or choose another --out",
            )
    return model_config, cfg, data


def main(argv=None):
    args = parse_args(argv)
    distributed.start()
    if args.eval_documents < 1:
        raise UserError(
            f"--eval_documents {args.eval_documents}", "at least 1", "choose such a number"
        )
    if args.complementary and args.estimator != "count":
        raise UserError(
            f"--complementary with --estimator {args.estimator}",
            "the count estimator",
            "drop one of the two flags",
        )
    out = Path(args.out)
    resume = fit.find_resume(out, args.resume, ("text",))
    config.take_over(args, resume)
    model_config, cfg, data = build(args, resume)
    held_out = TextData(args.data_dir, "val", model_config.max_length)
    distributed.claim(out)
    settings = {**flags.to_dict(model_config), **flags.to_dict(cfg)}
    if distributed.leads():
        flags.show(
            "settings",
            {
                "objective": args.objective,
                "estimator": args.estimator,
                "weight": args.weight,
                **settings,
            },
        )
        files.write_json(
            out / "config.json",
            {key: settings[key] for group in args.parser.groups.values() for key in group},
        )

    device = fit.start(cfg)
    model = Denoiser(model_config).to(device)
    if args.init_from and not resume:
        checkpoint.start_from(model, args.init_from, data.tokenizer.fingerprint)
    batches = Batches(
        data, cfg.batch_size, cfg.accumulate, cfg.seed, pad_multiple=64 if cfg.compile else 1
    )
    distributed.say(
        f"data: {len(data.starts):,} rows, {int(data.lengths.sum()):,} tokens, {batches.epoch_steps:,} steps an epoch"
    )
    statistics = {"row_lengths": data.length_histogram().tolist()}
    about = {
        "kind": "text",
        "objective": args.objective,
        "model": flags.to_dict(model_config),
        "statistics": statistics,
        "tokenizer": data.tokenizer.to_json(),
        "data": {"fingerprint": data.meta["fingerprint"], "tokenizer": data.tokenizer.fingerprint},
        "flags": {name: getattr(args, name) for name in KEPT},
    }
    metrics = fit.fit(
        model,
        make_loss(args, data.tokenizer.mask),
        lambda step: with_noise_levels(batches(step), fit.step_generator(cfg.seed, step, stream=1)),
        cfg,
        out,
        about=about,
        eval_fn=lambda model: scores.summary(
            model, args.objective, held_out, statistics, documents=args.eval_documents, draws=4
        ),
        preview_fn=make_preview(args, cfg, data.tokenizer, min(128, model_config.max_length)),
        resume=resume,
    )
    distributed.say(
        f"done: {out / 'best.pt'}  "
        + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
        file=sys.stdout,
    )
    distributed.say(
        f"next: python generate.py --checkpoint {out / 'best.pt'} --num_samples 5", file=sys.stdout
    )
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
