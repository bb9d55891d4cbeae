"""Train a denoiser to write what is missing: the rest of a story, its middle, any blank.

Reads   data_conditional/ (--data_dir) from prep_conditional_data.py, and a trained denoiser (--denoiser, default: the newest text run)
Writes  checkpoints_conditional/ (--out): as train.py; the first stage of --conditioning cross in stage_1/ below it

A minute on a laptop:
    python train_conditional.py --max_steps 60 --batch_size 16
For real:
    python train_conditional.py --denoiser checkpoints_long/final.pt --max_steps 10000
The other way of conditioning, and the twin, on the same pairs in the same order:
    python train_conditional.py --conditioning cross --out checkpoints_cross
    python train_conditional.py --objective ar --denoiser checkpoints_ar/best.pt --out checkpoints_conditional_ar

context: what is given stands in the row itself, unmasked. cross: it goes through an encoder, and the denoiser attends to it.
Cross has two stages: --stage_1_steps of --max_steps train the new parts only (the denoiser without a condition stays what
it was, bit for bit), the rest train everything.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

import diffusion
from base import config, files, flags
from base.config import SampleConfig, TrainConfig
from base.files import UserError
from loop import checkpoint, distributed, fit
from loop.batches import with_noise_levels
from net import twin
from net.text_encoder import TextConditioned
from text import writer
from text.pairs import PairBatches, PairData, to_device

CHOICES = {
    "conditioning": ("context", ("context", "cross"), "how the given text is read"),
    "objective": (
        "diffusion",
        config.OBJECTIVES,
        "what to train; ar is the autoregressive twin, which reads the ending first",
    ),
    "weight": ("bound", config.WEIGHTS, "weights of the loss; bound is the likelihood's own"),
}
# What a resumed run keeps beside its settings.
KEPT = (
    "conditioning",
    "objective",
    "weight",
    "encoder_layers",
    "stage_1_steps",
    "stage_1_learning_rate",
    "condition_dropout",
    "eval_pairs",
)
DEFAULTS = {"learning_rate": 1e-3}  # the weights have been trained before


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--denoiser",
        help="a checkpoint of train.py to start from (default: the newest text run below this folder)",
    )
    parser.add_argument(
        "--data_dir",
        default="data_conditional",
        help="folder from prep_conditional_data.py (default %(default)s)",
    )
    parser.add_argument(
        "--out", default="checkpoints_conditional", help="run folder (default %(default)s)"
    )
    parser.add_choices(CHOICES)
    parser.add_argument(
        "--encoder_layers",
        type=int,
        default=2,
        help="cross: blocks of the encoder, copies of the denoiser's first (default 2)",
    )
    parser.add_argument(
        "--stage_1_steps",
        type=int,
        default=-1,
        help="cross: steps for the new parts alone (default: a tenth of --max_steps)",
    )
    parser.add_argument(
        "--stage_1_learning_rate",
        type=float,
        default=2e-3,
        help="cross: peak learning rate of those steps (default 0.002)",
    )
    parser.add_argument(
        "--condition_dropout",
        type=float,
        default=0.1,
        help="share of rows that see nothing given, for guidance (default 0.1)",
    )
    parser.add_argument(
        "--eval_pairs",
        type=int,
        default=200,
        help="held-out pairs at each evaluation (default 200)",
    )
    parser.add_argument("--config", help="JSON file of settings, such as another run's config.json")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="must",
        choices=("must", "auto"),
        help="go on from resume.pt in --out, whichever stage it is in; auto: or begin (for torchrun --max-restarts)",
    )
    parser.add_settings(TrainConfig, **DEFAULTS)
    args = parser.parse_args(argv)
    return args


def make_loss(args, form: str, tokenizer):
    """loss_fn for `training.fit`: the blanks' loss given the rest; rows whose condition is dropped see nothing given."""

    def loss_fn(model, batch, rng):
        tokens, lengths, free = to_device(batch, model.device)
        if form == "ar":
            return twin.loss(model, tokens, free)
        kept = (torch.rand(len(tokens), generator=rng) >= args.condition_dropout).to(model.device)
        condition = None
        if form == "cross":
            condition = model.read(
                batch["condition"].to(model.device),
                batch["condition_lengths"].to(model.device),
                kept,
            )
        else:  # a row without a condition is a document to be written whole
            free = torch.where(kept[:, None], free, writer.hideable(batch, model.device))
        return diffusion.loss(
            model.bind(lengths, condition),
            tokens,
            free,
            mask_id=tokenizer.mask,
            rng=rng,
            uniform=batch["uniform"],
            weight=args.weight,
        )

    return loss_fn


def make_eval(args, cfg, form: str, held_out: PairData):
    """eval_fn and preview_fn for `training.fit`: the blanks' bound on val, and how some of them are filled."""
    numbers = np.unique(
        np.linspace(0, len(held_out) - 1, min(args.eval_pairs, len(held_out))).astype(int)
    )
    tokenizer, sizes = held_out.tokenizer, held_out.tokenizer.token_bytes()

    def eval_fn(model):
        some = [held_out.pair(int(number)) for number in numbers]
        nats = sum(
            writer.nats(model, tokenizer, form, pair, draws=4, seed=number)
            for number, pair in enumerate(some)
        )
        blanks = np.concatenate([blank for pair in some for blank in pair.blanks])
        return {
            "nats_per_token": nats / len(blanks),
            "bits_per_byte": nats / np.log(2) / max(1, sizes[blanks].sum()),
        }

    def preview_fn(model):
        asked = [held_out.pair(int(number)) for number in numbers[:3]]
        empty = [
            dataclasses.replace(
                pair, blanks=[np.full(len(blank), tokenizer.mask) for blank in pair.blanks]
            )
            for pair in asked
        ]
        return "\n\n".join(
            tokenizer.decode(one.ids)
            for one in writer.fill(model, tokenizer, form, empty, SampleConfig(), seed=cfg.seed)
        )

    return eval_fn, preview_fn


def open_start(args, folder: PairData):
    """The model to start from. Raises UserError if the pairs were made for another, or it is of the other objective."""
    path = args.denoiser or checkpoint.newest()
    model, tokenizer, saved = checkpoint.open_model(path, kinds=("text",))
    folder.check_tokenizer(tokenizer.fingerprint, args.data_dir, path)
    if saved["objective"] != args.objective:
        raise UserError(
            f"{path} trained with --objective {saved['objective']}",
            f"one of --objective {args.objective}",
            f"add --objective {saved['objective']}, or name another --denoiser",
        )
    if model.config.max_length < folder.meta["max_length"]:
        raise UserError(
            f"pairs made for a denoiser of {folder.meta['max_length']} tokens",
            f"pairs for the {model.config.max_length} of {path}",
            f"run prep_conditional_data.py --denoiser {path} --force",
        )
    distributed.say(f"from {path}: {checkpoint.describe(saved)}")
    return model


def check(args) -> None:
    if (
        not 0 <= args.condition_dropout < 1
        or args.eval_pairs < 1
        or args.encoder_layers < 1
        or args.stage_1_learning_rate <= 0
    ):
        raise UserError(
            f"--condition_dropout {args.condition_dropout} --eval_pairs {args.eval_pairs} --encoder_layers {args.encoder_layers} "
            f"--stage_1_learning_rate {args.stage_1_learning_rate}",
            "a share below 1, and positive numbers",
            "correct them",
        )
    if args.objective == "ar" and args.conditioning == "cross":
        raise UserError(
            "--conditioning cross with --objective ar",
            "the twin, which reads its prompt in the row",
            "drop one of the two flags",
        )


def find_run(args) -> tuple[int, dict | None]:
    """The stage that --out has a resume.pt of (0: none), and what it holds if the run is to go on; its flags are taken over."""
    out = Path(args.out)
    states = {2: out / "resume.pt", 1: out / "stage_1" / "resume.pt"}
    there = next((stage for stage, path in states.items() if path.exists()), 0)
    if there and not args.resume:
        raise UserError(
            f"a run in {out}", "an empty run folder", "go on with --resume, or choose another --out"
        )
    going_on = args.resume == "must" or (args.resume == "auto" and there)
    resume = (
        checkpoint.load(
            states[there or 2], kinds=("conditional",), do="start a run without --resume"
        )
        if going_on
        else None
    )
    config.take_over(args, resume)
    return there, resume


def build(args, form: str, train: PairData, resume: dict | None):
    """The model: the resumed one, or the denoiser, for `cross` with its new parts."""
    if resume:
        return checkpoint.KINDS["conditional"](resume)
    denoiser = open_start(args, train)
    if form != "cross":
        return denoiser
    model = TextConditioned(denoiser.config, args.encoder_layers)
    model.start_from(denoiser)
    return model


def main(argv=None):
    args = parse_args(argv)
    distributed.start()
    there, resume = find_run(args)
    check(args)
    before = resume["train"] | resume["both_stages"] if resume else {}
    cfg = flags.resolve(
        TrainConfig, args, DEFAULTS, flags.read_config_file(args.config, args.parser), before
    )
    if args.stage_1_steps < 0:
        args.stage_1_steps = cfg.max_steps // 10
    form = "ar" if args.objective == "ar" else args.conditioning
    first_steps = args.stage_1_steps if form == "cross" else 0
    if first_steps >= cfg.max_steps:
        raise UserError(
            f"--stage_1_steps {first_steps}",
            f"fewer than --max_steps {cfg.max_steps}, which counts both stages",
            "change one of them",
        )
    train, held_out = (PairData(args.data_dir, split, form) for split in ("train", "val"))
    if resume and (
        resume["data"]["fingerprint"] != train.meta["fingerprint"] or resume["form"] != form
    ):
        raise UserError(
            f"{args.data_dir} or flags of another run",
            f"pairs {resume['data']['fingerprint']} and form {resume['form']}",
            "resume with the same --data_dir and --conditioning",
        )
    out = distributed.claim(args.out)
    if distributed.leads():
        flags.show("settings", {name: getattr(args, name) for name in KEPT} | flags.to_dict(cfg))
        files.write_json(out / "config.json", flags.to_dict(cfg))

    device = fit.start(cfg)
    model = build(args, form, train, resume).to(device)
    batches = PairBatches(
        train, cfg.batch_size, cfg.accumulate, cfg.seed, pad_multiple=64 if cfg.compile else 1
    )
    distributed.say(f"pairs: {len(train):,}, {batches.epoch_steps:,} steps an epoch; form {form}")
    about = {
        "kind": "conditional",
        "objective": args.objective,
        "form": form,
        "encoder_layers": args.encoder_layers,
        "model": flags.to_dict(model.config),
        "statistics": {"blank_lengths": train.length_histograms()},
        "tokenizer": train.tokenizer.to_json(),
        "data": {
            "fingerprint": train.meta["fingerprint"],
            "tokenizer": train.tokenizer.fingerprint,
        },
        "flags": {name: getattr(args, name) for name in KEPT},
        "both_stages": {"max_steps": cfg.max_steps, "learning_rate": cfg.learning_rate},
    }
    eval_fn, preview_fn = make_eval(args, cfg, form, held_out)
    loss_fn = make_loss(args, form, train.tokenizer)

    def stage(folder: Path, begin: int, state: dict | None, **own) -> dict:
        noisy = lambda step: with_noise_levels(
            batches(begin + step), fit.step_generator(cfg.seed, begin + step, stream=1)
        )
        return fit.fit(
            model,
            loss_fn,
            noisy,
            dataclasses.replace(cfg, **own),
            folder,
            about=about,
            eval_fn=eval_fn,
            preview_fn=preview_fn,
            resume=state,
        )

    if first_steps and there != 2:
        new = {id(weight) for weight in model.new_parts()}
        for weight in model.parameters():
            weight.requires_grad_(id(weight) in new)
        stage(
            out / "stage_1",
            0,
            resume,
            max_steps=first_steps,
            learning_rate=args.stage_1_learning_rate,
        )
        # Read from the file, averaged, so that a run stopped between the stages goes on with the same bits.
        last = checkpoint.load(out / "stage_1" / "last.pt", kinds=("conditional",))
        model.load_state_dict(last["averaged"] or last["weights"])
        model.requires_grad_(True)
        vars(model).pop("trunk", None)  # compiled anew, now that all of it learns
        resume = None
    metrics = stage(out, first_steps, resume, max_steps=cfg.max_steps - first_steps)
    distributed.say(
        f"done: {out / 'best.pt'}  "
        + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
        file=sys.stdout,
    )
    distributed.say(
        f'next: python generate_conditional.py --checkpoint {out / "best.pt"} --prompt "Once upon a time there was a brave knight."',
        file=sys.stdout,
    )
    distributed.finish()


if __name__ == "__main__":
    files.run(main)
