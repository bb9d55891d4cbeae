"""Train a masked-diffusion captioner, or its autoregressive twin, on frozen image features.

Reads   data_captions_synthetic/ (--data_dir): a folder from a prep_caption script
Writes  checkpoints_caption_poc/ (--out): config.json, log.jsonl, best.pt, last.pt, resume.pt, samples/

Five minutes on a laptop:
    python train_captioning.py --model_config tiny --max_steps 1200 --batch_size 64
For real, the 6-layer, 768-wide decoder:
    python train_captioning.py --model_config caption --max_steps 5000 --batch_size 64
For long runs, rows that are mostly masked (thousands of steps; LOG.md):
    python train_captioning.py --max_steps 3500 --batch_size 128 --accumulate 4 --learning_rate 4e-3 --weight flat --estimator cosine
The twin, on the same captions in the same order:
    python train_captioning.py --objective ar --out checkpoints_caption_ar
A second phase, for few calls: trained on what a captioner (itself, or a twin) writes for the same pictures:
    python train_captioning.py --teacher runs/long/best.pt --init_from runs/long/best.pt --max_steps 700 --out runs/few
Another, minutes, for the lengths alone:
    python train_captioning.py --length_only --length_dropout 0.1 --init_from runs/long/best.pt --optimizer adamw --batch_size 512 --out runs/len
Another, on the score that photographs are judged by:
    python train_captioning.py --init_from checkpoints_caption_poc/best.pt --self_critical 1 --learning_rate 3e-4 --out checkpoints_caption_sc

best.pt is chosen on the val split, never on a test split.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import diffusion
from base import config, files, flags
from base.config import ModelConfig, SampleConfig, TrainConfig
from base.files import UserError
from caption import teach, writer
from caption.data import CaptionBatches, CaptionData
from loop import checkpoint, distributed, fit, hardware
from loop.batches import to_device, with_noise_levels
from model import Denoiser
from net import twin

CHOICES = {
    "model_config": ("tiny", config.NAMED_SIZES, "named size"),
    "objective": ("diffusion", config.OBJECTIVES, "what to train; ar is the autoregressive twin"),
    "estimator": (
        "count",
        config.ESTIMATORS,
        "how noise levels are drawn; with --weight flat, cosine masks more",
    ),
    "weight": ("bound", config.WEIGHTS, "weights of the loss; bound is the likelihood's own"),
}
SHARES = ("image_dropout", "patch_dropout", "length_dropout", "label_smoothing")
# What a resumed run keeps beside its settings.
KEPT = (
    "objective",
    "estimator",
    "weight",
    *SHARES,
    "complementary",
    "self_critical",
    "captions_per_image",
    "eval_images",
    "teacher",
    "length_only",
)
DEFAULTS = {"learning_rate": 2e-3, "eval_every": 500, "save_every": 500}


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--data_dir",
        default="data_captions_synthetic",
        help="folder from a prep_caption script (default %(default)s)",
    )
    parser.add_argument(
        "--out", default="checkpoints_caption_poc", help="run folder (default %(default)s)"
    )
    parser.add_choices(CHOICES)
    parser.add_argument(
        "--image_dropout",
        type=float,
        default=0.1,
        help="share of captions trained without their image, for guidance (default 0.1)",
    )
    parser.add_argument(
        "--patch_dropout",
        type=float,
        default=0.0,
        help="share of an image's patches hidden in training (default 0)",
    )
    parser.add_argument(
        "--length_only",
        action="store_true",
        help="train a new length head for --init_from, and nothing else",
    )
    parser.add_argument(
        "--length_dropout",
        type=float,
        default=0.0,
        help="share of an image's patches hidden from the length head in training (default 0; 0.1 helps with --length_only)",
    )
    parser.add_argument(
        "--label_smoothing",
        type=float,
        default=0.0,
        help="share of the target spread over the vocabulary (default 0)",
    )
    parser.add_argument(
        "--complementary", action="store_true", help="train on each mask and its opposite"
    )
    parser.add_argument(
        "--self_critical",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="weight of a CIDEr-D reward, for a second phase: with --init_from a trained captioner (default 0: none)",
    )
    parser.add_argument(
        "--init_from",
        help="start from this text or caption checkpoint's weights; new parts start as the identity",
    )
    parser.add_argument(
        "--teacher",
        help="train on the captions that this captioner or twin writes for the pictures, in place of people's",
    )
    parser.add_argument(
        "--captions_per_image",
        type=int,
        default=4,
        help="of the batch's captions so many share an image (default 4)",
    )
    parser.add_argument(
        "--eval_images", type=int, default=500, help="val images at each evaluation (default 500)"
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
        ModelConfig, skip=("vocab_size", "output_size", "causal", "condition_width")
    )
    parser.add_settings(TrainConfig, **DEFAULTS)
    args = parser.parse_args(argv)
    return args


def make_loss(args, tokenizer, statistics: dict, reward: teach.Reward | None = None):
    """loss_fn for `training.fit`: the caption's loss given its image, and the length head's."""

    def loss_fn(model, batch, rng):
        tokens, lengths, free = to_device(batch, model.device)
        images = writer.standardise(
            batch["features"], statistics, model.device
        )  # (B / n, P, width)
        seen = writer.hide(images, args.length_dropout, rng)
        length_logits = model.length_logits(seen).repeat_interleave(len(tokens) // len(images), 0)
        sizes = F.cross_entropy(length_logits, batch["lengths"].to(model.device))
        if args.length_only:
            return sizes, {}
        kept = torch.rand(len(images), generator=rng) >= args.image_dropout
        images = images * kept.to(model.device)[:, None, None]
        condition = model.keys_values(writer.hide(images, args.patch_dropout, rng))
        if args.objective == "ar":
            loss, stats = twin.loss(model, tokens, free, condition)
        elif reward is not None:
            loss, stats = teach.self_critical_loss(
                model.bind(lengths, condition),
                tokens,
                free,
                batch["sources"],
                reward,
                tokenizer,
                uniform=batch["uniform"],
                rng=rng,
                share=args.self_critical,
                estimator=args.estimator,
                weight=args.weight,
            )
        else:
            loss, stats = diffusion.loss(
                model.bind(lengths, condition),
                tokens,
                free,
                mask_id=tokenizer.mask,
                rng=rng,
                uniform=batch["uniform"],
                estimator=args.estimator,
                weight=args.weight,
                complementary=args.complementary,
                label_smoothing=args.label_smoothing,
            )
        return loss + 0.1 * sizes, {**stats, "length_cross_entropy": sizes.item()}

    return loss_fn


def make_eval(args, cfg, held_out: CaptionData, statistics: dict):
    """eval_fn and preview_fn for `training.fit`: nats per token (or length) on val, and captions of its first pictures to read."""
    numbers = np.arange(min(args.eval_images, len(held_out)))

    def eval_fn(model):
        nats = tokens = 0.0
        for part in np.array_split(numbers, -(-len(numbers) // 50)):
            images = writer.standardise(held_out.features_of(part), statistics, model.device)
            if args.length_only:
                log_p = model.length_logits(images).log_softmax(-1).cpu()
                sizes = [[len(one) for one in held_out.tokens[n]] for n in part]
                nats -= sum(float(row[some].mean()) for row, some in zip(log_p, sizes, strict=True))
                continue
            texts = [held_out.tokens[n][0].tolist() for n in part]
            nats += writer.bounds(
                model, held_out.tokenizer, args.objective, images, texts, seed=int(part[0])
            ).sum()
            tokens += sum(len(one) - 1 for one in texts)
        return (
            {"nats_per_length": nats / len(numbers)}
            if args.length_only
            else {"nats_per_token": nats / tokens}
        )

    def preview_fn(model):
        images = writer.standardise(held_out.features_of(numbers[:6]), statistics, model.device)
        greedy = SampleConfig(**config.CAPTIONS)
        written = writer.write(
            model, held_out.tokenizer, args.objective, images, greedy, seed=cfg.seed
        )
        return "\n".join(
            f"{one.text}   | {record['captions'][0]}"
            for one, record in zip(written, held_out.records, strict=False)
        )

    return eval_fn, preview_fn


def build(args, resume):
    """The settings and the data; a resumed run keeps its own settings unless a flag says otherwise."""
    file_values = flags.read_config_file(args.config, args.parser)
    before = resume or {"model": {}, "train": {}}
    data = CaptionData(args.data_dir, "train")
    fixed = {
        "vocab_size": data.tokenizer.vocab_size,
        "output_size": data.tokenizer.output_size,
        "causal": args.objective == "ar",
        "condition_width": data.encoder["width"],
    }
    hidden = (
        0 if resume else config.LENGTH_HIDDEN
    )  # a run from before there was such a head has none; another says so itself
    sizes = {"max_length": data.longest + 4, "length_hidden": hidden} | config.named_size(
        args.model_config
    )
    model_config = flags.resolve(ModelConfig, args, sizes, file_values, before["model"], fixed)
    if model_config.max_length < data.longest:
        raise UserError(
            f"--max_length {model_config.max_length}",
            f"at least the longest caption's {data.longest} tokens",
            "raise it",
        )
    if resume and (
        resume["data"]["fingerprint"] != data.meta["fingerprint"]
        or resume["encoder"]["key"] != data.encoder["key"]
    ):
        raise UserError(
            f"{args.data_dir} with other captions or features",
            "the data of the run",
            "resume with the same --data_dir",
        )
    if resume and (
        model_config != flags.from_dict(ModelConfig, resume["model"])
        or args.objective != resume["objective"]
    ):
        raise UserError(
            "flags for another model or objective",
            "the model that is being resumed",
            "drop the model's flags or choose another --out",
        )
    cfg = flags.resolve(TrainConfig, args, DEFAULTS, file_values, before["train"])
    if cfg.batch_size % (args.captions_per_image * cfg.accumulate):
        raise UserError(
            f"--batch_size {cfg.batch_size} with --captions_per_image {args.captions_per_image} and --accumulate {cfg.accumulate}",
            "a multiple of both together: every micro-batch has whole images",
            "change one of them",
        )
    return model_config, cfg, data


def main(argv=None):
    args = parse_args(argv)
    distributed.start()
    for flag in SHARES:
        if not 0 <= getattr(args, flag) < 1:
            raise UserError(
                f"--{flag} {getattr(args, flag)}",
                "a share from 0 to below 1",
                "choose such a number",
            )
    for flag in ("eval_images", "captions_per_image"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} {getattr(args, flag)}", "at least 1", "choose such a number")
    if args.self_critical and (
        args.objective == "ar" or args.self_critical < 0 or not (args.init_from or args.resume)
    ):
        raise UserError(
            f"--self_critical {args.self_critical:g}",
            "a weight above 0 for a trained diffusion captioner",
            "name that captioner with --init_from, or drop the flag",
        )
    if args.self_critical and (args.complementary or args.label_smoothing):
        raise UserError(
            "--self_critical with --complementary or --label_smoothing",
            "one mask a caption, and the loss as it is beside the reward",
            "drop these flags",
        )
    if args.length_only and (args.objective == "ar" or not (args.init_from or args.resume)):
        raise UserError(
            "--length_only " + ("with --objective ar" if args.init_from else "without --init_from"),
            "a trained diffusion captioner",
            "name it with --init_from",
        )
    if args.complementary and args.estimator != "count":
        raise UserError(
            f"--complementary with --estimator {args.estimator}",
            "the count estimator",
            "add --estimator count",
        )
    out = Path(args.out)
    resume = fit.find_resume(out, args.resume, ("caption",))
    config.take_over(args, resume)
    model_config, cfg, data = build(args, resume)
    held_out = CaptionData(args.data_dir, "val", model_config.max_length)
    distributed.claim(out)
    settings = {**flags.to_dict(model_config), **flags.to_dict(cfg)}
    if distributed.leads():
        loss = ("objective", "estimator", "weight", "image_dropout")
        flags.show("settings", {**{name: getattr(args, name) for name in loss}, **settings})
        files.write_json(
            out / "config.json",
            {key: settings[key] for group in args.parser.groups.values() for key in group},
        )

    device = fit.start(cfg)
    if args.teacher:
        teach.use_teacher(
            [data, held_out],
            args.teacher,
            out,
            model_config.max_length,
            device,
            cfg,
            resumed=bool(resume),
        )
    model, before = Denoiser(model_config).to(device), resume
    if args.init_from and not resume:
        before = checkpoint.start_from(model, args.init_from, data.tokenizer.fingerprint)
        sizes = lambda values: dataclasses.replace(
            flags.from_dict(ModelConfig, values), length_hidden=0, dropout=0.0
        )  # noqa: E731
        if args.length_only and (
            before["kind"] != "caption"
            or sizes(before["model"]) != sizes(flags.to_dict(model_config))
        ):
            raise UserError(
                f"--length_only from {args.init_from}, a {before['kind']} model ({before['objective']}) of other sizes or kind",
                "a diffusion captioner of this --model_config",
                "name one with --init_from, or its sizes",
            )
    elif not resume:
        for block in model.blocks:
            torch.nn.init.ones_(
                block.cross.gate
            )  # nothing learnt yet that a closed gate would protect
    if args.length_only:
        model.requires_grad_(False)
        if not resume:  # anew: from what was learnt beside captions it ends higher (2.154 nats on val for 2.136; LOG.md)
            model.length_head = Denoiser(model_config).to(device).length_head
        model.length_head.requires_grad_(True)
    statistics = writer.feature_statistics(data.features, data.rows) | {
        "row_lengths": data.length_histogram().tolist()
    }
    if args.length_only:  # what stays as it was reads features as it did
        statistics = before["statistics"]
    elif before and before["kind"] == "caption":  # whose keys know the place code at this size
        statistics["place_scale"] = before["statistics"].get("place_scale", 1.0)
    about = {
        "kind": "caption",
        "objective": args.objective,
        "model": flags.to_dict(model_config),
        "statistics": statistics,
        "tokenizer": data.tokenizer.to_json(),
        "encoder": {name: data.encoder[name] for name in ("encoder", "key", "patches", "width")},
        "data": {"fingerprint": data.meta["fingerprint"], "tokenizer": data.tokenizer.fingerprint},
        "flags": {name: getattr(args, name) for name in KEPT},
    }
    batches = CaptionBatches(
        data,
        cfg.batch_size,
        cfg.accumulate,
        cfg.seed,
        args.captions_per_image,
        pad_multiple=16 if cfg.compile else 1,
    )
    distributed.say(
        f"data: {len(data):,} images with {data.encoder['encoder']} features, {batches.epoch_steps:,} steps an epoch"
    )
    eval_fn, preview_fn = make_eval(args, cfg, held_out, statistics)
    noisy = lambda step: with_noise_levels(
        batches(step), fit.step_generator(cfg.seed, step, stream=1)
    )
    reward = (
        teach.Reward([record["captions"] for record in data.records])
        if args.self_critical
        else None
    )
    with hardware.short_attention(device):
        metrics = fit.fit(
            model,
            make_loss(args, data.tokenizer, statistics, reward),
            noisy,
            cfg,
            out,
            about=about,
            eval_fn=eval_fn,
            preview_fn=preview_fn,
            resume=resume,
        )
    distributed.say(
        f"done: {out / 'best.pt'}  "
        + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
        file=sys.stdout,
    )
    distributed.say(
        f"next: python generate_caption.py --checkpoint {out / 'best.pt'} --use_val_set --num_samples 5",
        file=sys.stdout,
    )
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
