"""Train a denoiser to write what is missing: the rest of a story, its middle, any blank.

Reads   data_conditional/ (--data_dir) from prep_conditional_data.py, and a trained denoiser
        (--denoiser, default: the newest text run)
Writes  checkpoints_conditional/ (--out): as train.py; the first stage of --conditioning cross in
        stage_1/ below it

A minute on a laptop:
    python train_conditional.py --max_steps 60 --batch_size 16
For real:
    python train_conditional.py --denoiser checkpoints_long/final.pt --max_steps 10000
The other conditioning, and the twin, on the same pairs in the same order:
    python train_conditional.py --conditioning cross --out checkpoints_cross
    python train_conditional.py --objective ar --denoiser checkpoints_ar/best.pt --out pairs_ar

context: the given words stand in the row itself, unmasked. cross: an encoder reads the given words,
and the denoiser attends to them. cross has two stages. --stage_1_steps of --max_steps train the new
parts only: without a condition the model stays the denoiser, bit for bit. The other steps train
everything.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base import files, flags
from base.config import TrainConfig
from base.files import UserError
from base.flags import setting
from loop import checkpoint, distributed, fit, recipe
from loop.batches import with_noise
from net.free_lengths import with_edits
from net.text_encoder import TextConditioned
from text.fill_objective import PairRun, make_eval, make_loss, make_preview
from text.pairs import PairBatches, PairData

STAGE_1 = "stage_1"  # folder of the first stage, in the run folder
PAD_COMPILED = 64  # --compile: row lengths are multiples of it, so that few shapes are compiled


@dataclass
class PairStart:
    """Data and start."""

    data_dir: str = setting(
        "data_conditional", "folder from prep_conditional_data.py", metavar="FOLDER"
    )
    denoiser: str | None = setting(
        None,
        "a checkpoint of train.py to start from; without it the newest text run below this folder",
        metavar="FILE",
    )

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(recipe.RunFolder, out="checkpoints_conditional")
    parser.add_settings(PairStart)
    parser.add_settings(PairRun)
    # Two stages share the steps, so no time is fitted. The weights have been trained before.
    parser.add_settings(TrainConfig, skip=("minutes",), learning_rate=1e-3)
    return parser.parse_args(argv)


def open_start(start: PairStart, own: PairRun, pairs: PairData):
    """The denoiser to start from.

    Raises UserError if its objective or its length does not fit the pairs.
    """
    path = start.denoiser or checkpoint.newest()
    model, tokenizer, saved = checkpoint.open_model(path, kinds=("text",))
    pairs.check_tokenizer(tokenizer.fingerprint, start.data_dir, path)
    if saved["objective"] != own.objective:
        raise UserError(
            f"{path} trained with --objective {saved['objective']}",
            f"a checkpoint of --objective {own.objective}",
            f"add --objective {saved['objective']}, or name another --denoiser",
        )
    if model.config.max_length < pairs.meta["max_length"]:
        raise UserError(
            f"pairs made for a denoiser of {pairs.meta['max_length']} tokens",
            f"pairs for the {model.config.max_length} of {path}",
            "run " + files.python("prep_conditional_data.py", "--denoiser", path, "--force"),
        )
    if model.config.soft_masks:
        raise UserError(
            f"{path}, a text model with soft masks",
            "a plain denoiser",
            "train one without --soft_masks",
        )
    distributed.say(f"from {path}: {checkpoint.describe(saved)}")
    # Templates are filled whole, not block by block.
    model.config = dataclasses.replace(model.config, block_sizes="")
    return model


def build(setup: recipe.Setup, start: PairStart, own: PairRun, pairs: PairData):
    """The model before its first step: resumed, or the denoiser, for `cross` with new parts."""
    if setup.resume:
        # The denoiser is not needed: resume.pt holds all weights.
        return checkpoint.build_conditional(setup.resume)
    denoiser = open_start(start, own, pairs)
    if own.form != "cross":
        # What is given stands in its rows. Only growing blanks need new parts.
        return with_edits(denoiser) if own.free_lengths else denoiser
    model = TextConditioned(denoiser.config, own.encoder_layers)
    model.start_from(denoiser)
    return model


def read_pairs(setup: recipe.Setup, start: PairStart, own: PairRun) -> tuple[PairData, PairData]:
    """Both splits. Raises UserError if a resumed run had other pairs or another form."""
    train, held_out = (PairData(start.data_dir, split, own.form) for split in ("train", "val"))
    if setup.resume:
        # The form decides what a row looks like, so another form is other data.
        current = [train.meta["fingerprint"], own.form]
        run = [setup.resume["data"]["fingerprint"], setup.resume["form"]]
        recipe.refuse_other_data(start.data_dir, "pairs or form", current, run)
    return train, held_out


@dataclass
class Task:
    """What both stages share."""

    model: Any
    loss_fn: Any
    batches: PairBatches
    about: dict
    eval_fn: Any
    preview_fn: Any

    def fit(self, cfg: TrainConfig, folder: Path, first_step: int, resume) -> dict[str, float]:
        """Train a stage whose first step is step `first_step` of the run."""
        return fit.fit(
            self.model,
            self.loss_fn,
            # Steps count over both stages: stage 2 must not repeat stage 1's batches.
            with_noise(self.batches, cfg.seed, first_step),
            cfg,
            folder,
            about=self.about,
            eval_fn=self.eval_fn,
            preview_fn=self.preview_fn,
            resume=resume,
        )


def train_new_parts(task: Task, cfg: TrainConfig, folder: Path, resume) -> None:
    """The first stage of `cross`: the encoder and the cross-attention alone."""
    # By identity: two weights of equal values are still two weights.
    new = {id(weight) for weight in task.model.new_parts()}
    for weight in task.model.parameters():
        weight.requires_grad_(id(weight) in new)
    task.fit(cfg, folder, 0, resume)
    # Read from the file, so that a run stopped between the stages continues with the same bits.
    last = checkpoint.load(folder / "last.pt", kinds=("conditional",))
    task.model.load_state_dict(last["averaged"] or last["weights"])
    task.model.requires_grad_(True)
    vars(task.model).pop("trunk", None)  # compiled again, now that all of it learns


def main(argv=None):
    args = parse_args(argv)
    setup = recipe.read_run(
        args, kinds=("conditional",), states=("resume.pt", f"{STAGE_1}/resume.pt")
    )
    start, own, cfg = setup.own(PairStart), setup.own(PairRun), setup.train_config()
    # Before it is stored: a resumed run with other --max_steps keeps its first stage.
    if own.stage_1_steps < 0:
        own.stage_1_steps = cfg.max_steps // 10
    first_steps = own.stage_1_steps if own.form == "cross" else 0
    if first_steps >= cfg.max_steps:
        raise UserError(
            f"--stage_1_steps {first_steps}",
            f"fewer than --max_steps {cfg.max_steps}, which counts both stages",
            "change one of them",
        )
    train, held_out = read_pairs(setup, start, own)
    device = recipe.begin(setup, cfg, own, cfg)

    model = build(setup, start, own, train).to(device)
    pad_multiple = PAD_COMPILED if cfg.compile else 1
    batches = PairBatches(train, cfg.batch_size, cfg.accumulate, cfg.seed, pad_multiple)
    distributed.say(
        f"pairs: {len(train):,}, {batches.epoch_steps:,} steps per epoch; form {own.form}"
    )
    statistics = {"blank_lengths": train.length_histograms()}
    about = recipe.about("conditional", own.objective, model.config, train, statistics, own)
    about |= {"form": own.form, "encoder_layers": own.encoder_layers}
    about["free_lengths"] = own.free_lengths > 0
    about["both_stages"] = {"max_steps": cfg.max_steps, "learning_rate": cfg.learning_rate}
    task = Task(
        model,
        make_loss(own, train.tokenizer, statistics["blank_lengths"]),
        batches,
        about,
        make_eval(own, held_out, statistics["blank_lengths"]),
        make_preview(own, cfg.seed, held_out),
    )
    resume = setup.resume
    if first_steps and setup.state != setup.out / "resume.pt":  # else stage 1 is done
        stage = dataclasses.replace(
            cfg, max_steps=first_steps, learning_rate=own.stage_1_learning_rate
        )
        train_new_parts(task, stage, setup.out / STAGE_1, resume)
        resume = None  # stage 2 trains other weights, so its optimizers are new
    # --max_steps counts both stages; a stage counts its own steps from 0.
    stage = dataclasses.replace(cfg, max_steps=cfg.max_steps - first_steps)
    metrics = task.fit(stage, setup.out, first_steps, resume)
    prompt = ["--prompt", "Once upon a time there was a brave knight."]
    recipe.end(setup.out, metrics, "generate_conditional.py", prompt)


if __name__ == "__main__":
    files.run(main)
