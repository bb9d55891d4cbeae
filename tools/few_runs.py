"""Trainings on few data: what each run is told, whether it is finished, and its held-out curve.

A run is `train.py` in a process of its own. Its folder is named after its tokens, its side and its
trial. What a run was told stands in its resume.pt: other settings there are refused.
"""

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from base.config import ModelConfig
from base.files import UserError
from loop import checkpoint
from model import Denoiser
from net.anatomy import training_flops
from show import curves
from text.data import TextData

SIDES = ("diffusion", "ar")
GROWTH = 1.25  # --eval_growth: about ten evaluations while the passes grow tenfold
TRAIN = Path(__file__).parent.parent / "train.py"
AGAIN = "run again with the same flags, or choose another --out"
# A run may be continued with other values of these; its figures stay the same.
FREE = ("max_steps", "save_every", "log_every")


@dataclass
class Few:
    """The first documents of a train split. wanted: their tokens at most; tokens: in fact."""

    wanted: int
    tokens: int
    rows: int
    documents: int
    fingerprint: str
    vocabulary: tuple[int, int]  # all ids, and those that can be emitted

    def steps(self, passes: float, batch_size: int) -> int:
        """The steps that make so many passes."""
        return max(1, math.ceil(passes * self.rows / batch_size))


@dataclass
class Trial:
    """A run to train. settings: the flags of train.py that decide its figures."""

    few: Few
    side: str
    name: str  # such as 0.1:0.5, dropout and weight decay
    folder: Path
    settings: dict

    @property
    def title(self) -> str:
        return f"{self.few.wanted:,} tokens, {self.side}, {self.name}"


def read_few(data_dir: str, max_length: int, unique_tokens: list[int]) -> list[Few]:
    """What each number of tokens stands for. Raises UserError if the split has fewer tokens."""
    found = []
    for wanted in unique_tokens:
        data = TextData(data_dir, "train", max_length)
        if data.num_tokens < wanted:
            raise UserError(
                f"{data.num_tokens:,} tokens for training in {data_dir}",
                f"at least {wanted:,}",
                "lower --unique_tokens, or prepare more text",
            )
        data.keep_first(wanted)
        vocabulary = (data.tokenizer.vocab_size, data.tokenizer.output_size)
        counts = (data.num_tokens, len(data.starts), data.num_documents)
        found.append(Few(wanted, *counts, data.meta["fingerprint"], vocabulary))
    return found


def plan(few: Few, out: Path, trials: list[tuple[float, float]], options) -> list[Trial]:
    """The runs on these documents: the same trials on both sides.

    options: the settings of the tool, some of them with the names of train.py's flags.
    """
    same = ("d_model", "heads", "layers", "max_length", "batch_size", "learning_rate")
    same += ("warmup_steps", "seed", "eval_documents", "patience")
    settings = {name: getattr(options, name) for name in same}
    settings |= {
        "unique_tokens": few.wanted,
        "max_steps": few.steps(options.passes, options.batch_size),
        "final_learning_rate": 1.0,  # constant: each point of the curve is a finished training
        "eval_growth": GROWTH,
        "eval_every": few.steps(0.5, options.batch_size),
        "log_every": few.steps(0.5, options.batch_size),
        "save_every": few.steps(2, options.batch_size),
    }
    runs = []
    for side in SIDES:
        for dropout, decay in trials:
            own = {"objective": side, "dropout": dropout, "weight_decay": decay}
            folder = out / f"{few.wanted}_{side}_{dropout:g}_{decay:g}"
            runs.append(Trial(few, side, f"{dropout:g}:{decay:g}", folder, settings | own))
    return runs


def operations(trial: Trial, passes: int) -> float:
    """Floating-point operations to train a run over all its passes, without evaluations."""
    few, names = trial.few, ("d_model", "heads", "layers", "max_length")
    sizes = {name: trial.settings[name] for name in names}
    config = ModelConfig(*few.vocabulary, **sizes, causal=trial.side == "ar")
    with torch.device("meta"):  # shapes without memory
        model = Denoiser(config)
    return passes * few.tokens * training_flops(model, round(few.tokens / few.rows) + 1)


def is_finished(trial: Trial) -> bool:
    """Whether the run made its last step, or stopped early and is saved.

    Raises UserError if the folder holds a run with other settings or other data, or a longer run.
    """
    state = trial.folder / "resume.pt"
    if not state.exists():
        return False
    saved = checkpoint.load(state, kinds=("text",), do="choose another --out")
    told = {**saved["model"], **saved["train"], **saved.get("flags", {})}
    told["objective"] = saved["objective"]
    for name, value in trial.settings.items():
        if name not in FREE and told.get(name) != value:
            raise UserError(f"{trial.folder} with --{name} {told.get(name)}", f"{value}", AGAIN)
    if saved["data"]["fingerprint"] != trial.few.fingerprint:
        raise UserError(f"{trial.folder} with other texts", "the texts of --data_dir", AGAIN)
    last = trial.settings["max_steps"]
    if saved["step"] > last:
        raise UserError(
            f"{trial.folder} after {saved['step']:,} steps", f"at most {last:,}", "raise --passes"
        )
    return saved["step"] == last or 0 < trial.settings["patience"] <= saved.get("no_better", 0)


def command(trial: Trial, data_dir: str, device: str, threads: int) -> list[str]:
    """The words that begin or continue a run."""
    words = [sys.executable, str(TRAIN), "--data_dir", data_dir, "--out", str(trial.folder)]
    for name, value in {**trial.settings, "device": device, "threads": threads}.items():
        words += [f"--{name}", str(value)]
    return [*words, "--resume", "auto"]


def run(words: list[str]) -> int:
    """The status of train.py. Its own last lines name the next command, which is not the next."""
    return subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode


def train(trial: Trial, data_dir: str, device: str, threads: int) -> None:
    """Train a run to its end, from where it stopped. Raises UserError if it does not get there."""
    status = run(command(trial, data_dir, device, threads))
    if status:
        raise UserError(
            f"train.py with status {status} in {trial.folder}",
            "a run to its end",
            "read its last line above, then run again with the same flags",
        )


def curve(trial: Trial) -> dict:
    """The figures of a run: its held-out bits per byte after each evaluation, and the best."""
    tokens, bits = curves.read(str(trial.folder)).curve("val_bits_per_byte")
    best = int(np.argmin(bits))  # the first of equals, as best.pt
    passes = tokens / trial.few.tokens
    return {
        "unique_tokens": trial.few.wanted,
        "tokens": trial.few.tokens,
        "documents": trial.few.documents,
        "side": trial.side,
        "trial": trial.name,
        "run": str(trial.folder),
        "passes": passes.tolist(),
        "bits_per_byte": bits.tolist(),
        "best_bits_per_byte": float(bits[best]),
        "passes_at_best": float(passes[best]),
        "passes_run": float(passes[-1]),
    }
