"""A run at a step: its state, the folder it is saved in, its log, and the signals that stop it."""

import contextlib
import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from base import files, flags
from base.config import TrainConfig
from base.files import UserError
from loop import board, checkpoint, distributed
from loop.contracts import Checkpoint, EvalFn, PreviewFn
from loop.hardware import Arithmetic
from loop.optim import make_optimizers


class StopSignal:
    """SIGTERM and Ctrl-C ask for a stop after the current step; a second Ctrl-C stops at once."""

    def __enter__(self) -> "StopSignal":
        self.received: int | None = None
        self.before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: Any) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Log:
    """log.jsonl: one JSON object per line, written by rank 0.

    step: the step that the run continues from. Lines of later steps are dropped: a process that was
    killed wrote them behind its last saved state. tensorboard: show the figures there too.
    """

    def __init__(self, path: Path, step: int, tensorboard: bool = False):
        self.file: Any = None
        self.board: board.Board | None = None
        if not distributed.leads():
            return
        kept = []
        if step and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line may be half a line
                    if json.loads(line).get("step", 0) <= step:
                        kept.append(line + "\n")
        files.write_text(path, "".join(kept))
        self.file = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        if tensorboard:
            self.board = board.Board(path.parent, step, [json.loads(line) for line in kept])

    def write(self, **values: Any) -> None:
        """Add one line, and hand it to the system so that a reader sees it now."""
        if self.file:
            self.file.write(json.dumps(values) + "\n")
            self.file.flush()
        if self.board:
            self.board.write(values)


def announce(step: int, text: str) -> None:
    """Print one line about a step above the progress bar, once over all processes."""
    if distributed.leads():
        tqdm.write(f"step {step:6d}  {text}", file=sys.stderr)


@contextlib.contextmanager
def averaged_weights(model: Any, averaged: dict[str, Tensor] | None) -> Iterator[None]:
    """Run the body with the averaged weights, then put the trained weights back."""
    if averaged is None:
        yield
        return
    # load_state_dict copies into the weights, so the trained values must be kept apart.
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(averaged)
    try:
        yield
    finally:
        model.load_state_dict(trained)


class Run:
    """A model in training: its optimizers, averaged weights, best score, and folder.

    model: the trained model. plain: the evaluated model, another object only where `model` is split
    over processes. about: the checkpoint's fixed part. resume: the content of a resume.pt, or None.
    """

    def __init__(
        self,
        model: Any,
        cfg: TrainConfig,
        run_dir: Path,
        about: Checkpoint,
        resume: Checkpoint | None,
        plain: Any,
    ):
        self.model = model
        self.plain = plain
        self.cfg = cfg
        self.dir = run_dir
        self.about = about
        self.optimizers = make_optimizers(model, cfg)
        self.averaged: dict[str, Tensor] | None = None
        if cfg.ema:  # 0 means no average
            # state_dict hands out the weights themselves, which the optimizer changes in place.
            self.averaged = {name: value.clone() for name, value in model.state_dict().items()}
        self.step = 0
        self.best = math.inf
        self.tokens_seen = 0
        self.metrics: dict[str, float] = {}
        self.skipped = 0
        self.no_better = 0  # evaluations since the best
        if resume is not None:
            self.continue_from(resume)
        self.log = Log(run_dir / "log.jsonl", self.step, cfg.tensorboard)

    @property
    def is_split(self) -> bool:
        """Whether each process has only a part of the weights (FSDP2)."""
        return self.model is not self.plain

    def steps_left(self) -> range:
        """The steps that are still to do, counted from 0."""
        return range(self.step, self.step if self.is_over else self.cfg.max_steps)

    @property
    def is_over(self) -> bool:
        """Whether the run has made its last step."""
        return self.step >= self.cfg.max_steps or self.is_out_of_patience

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the last cfg.patience evaluations were no better than the best before them."""
        return 0 < self.cfg.patience <= self.no_better

    def whole_model(self) -> Any:
        """The caller's model, on its device, with the trained weights."""
        if self.is_split:
            self.plain.load_state_dict(distributed.whole_weights(self.model.state_dict()))
            self.plain.to(self.model.device)
        return self.plain

    def continue_from(self, resume: Checkpoint) -> None:
        """Take the state of a resume.pt. Raises UserError if it is of another optimizer."""
        if resume.get("shards") or self.is_split:
            from loop import shards  # torch.distributed.checkpoint takes two seconds to import

            resume = shards.whole_or_split(resume, self.dir, self.model, self.optimizers)
        self.model.load_state_dict(resume["weights"])
        self.averaged = resume["averaged"]
        try:
            # zip and load_state_dict both raise ValueError for the state of another optimizer.
            for optimizer, state in zip(self.optimizers, resume["optimizer"], strict=True):
                optimizer.load_state_dict(state)
        except ValueError as error:
            raise UserError(
                f"the state of another optimizer in {self.dir / 'resume.pt'}",
                f"the state of {self.cfg.optimizer}",
                f"resume with --optimizer {resume['train']['optimizer']}",
            ) from error
        self.step = resume["step"]
        self.best = resume["best"]
        self.tokens_seen = resume["tokens_seen"]
        self.metrics = resume["metrics"]
        self.skipped = resume.get("skipped", 0)  # version 0.1.0 had no --skip_nonfinite
        self.no_better = resume.get("no_better", 0)  # nor --patience

    def content(self) -> Checkpoint:
        """A checkpoint of this step, nothing in it split; all processes must ask for it."""
        averaged = None if self.averaged is None else distributed.whole_weights(self.averaged)
        return {
            **self.about,
            "weights": distributed.whole_weights(self.model.state_dict()),
            "averaged": averaged,
            "train": flags.to_dict(self.cfg),
            "step": self.step,
            "seed": self.cfg.seed,
            "git": files.git_revision(),
            "metrics": self.metrics,
        }

    def save(self) -> None:
        """Write resume.pt, then last.pt. All processes must ask for it.

        Where the model is split, resume.pt only names a folder with the part of every process.
        """
        content = self.content()
        # resume.pt comes first: if only one of the two is written, the run can continue.
        resume: Checkpoint = {
            **content,
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "best": self.best,
            "tokens_seen": self.tokens_seen,
            "skipped": self.skipped,
            "no_better": self.no_better,
        }
        if self.is_split:
            from loop import shards

            weights = self.model.state_dict()
            resume |= shards.save(self.dir, self.step, weights, self.averaged, resume["optimizer"])
        if distributed.leads():
            # First resume.pt: a run that is killed between the two files loses no step.
            checkpoint.save(self.dir / "resume.pt", resume)
            checkpoint.save(self.dir / "last.pt", content)
            if any(self.dir.glob("resume_*/")):  # parts of earlier steps
                from loop import shards

                shards.remove_others(self.dir, resume.get("shards"))
        distributed.barrier()  # no process ends before everything is on disk

    def count(self, step: int, tokens: float) -> None:
        """Note that `step` is done, and how many tokens the weights have learnt from in it."""
        self.step = step + 1
        self.tokens_seen += int(tokens)

    def skip(self, step: int, problem: str, rows: str) -> None:
        """Leave out a step without a finite loss or gradient.

        Raises UserError if cfg.skip_nonfinite steps have been left out already.
        """
        if self.skipped >= self.cfg.skip_nonfinite:
            before = f", after {self.skipped} that were left out," if self.skipped else ""
            raise UserError(
                f"{problem} at step {step + 1}{before} from {rows}",
                "a finite value",
                "look at these rows, lower --learning_rate, or add --skip_nonfinite; "
                f"the last good state is in {self.dir / 'resume.pt'}",
            )
        self.skipped += 1
        self.log.write(step=step + 1, skipped=self.skipped, reason=f"{problem} from {rows}")
        count = f"{self.skipped} of {self.cfg.skip_nonfinite}"
        announce(step + 1, f"left out ({count}): {problem} from {rows}")

    def average(self) -> None:
        """Move the averaged weights towards the trained weights.

        The first steps move them faster than cfg.ema says, because they started as noise.
        """
        if self.averaged is None:
            return
        decay = min(self.cfg.ema, (1 + self.step) / (10 + self.step))
        trained = self.model.state_dict()
        smooth = [name for name, value in self.averaged.items() if value.is_floating_point()]
        # One call for all weights: a loop would start an operation for each weight.
        torch._foreach_lerp_(
            [distributed.local(self.averaged[name]) for name in smooth],
            [distributed.local(trained[name]) for name in smooth],
            1 - decay,
        )
        for name in self.averaged.keys() - set(smooth):  # counters have no mean
            self.averaged[name].copy_(trained[name])

    def evaluate(
        self, eval_fn: EvalFn, preview_fn: PreviewFn | None, arithmetic: Arithmetic
    ) -> None:
        """Score the averaged weights; write best.pt if their score is the lowest so far."""
        preview = None
        self.plain.eval()
        with self.evaluated_weights(), arithmetic.autocast():
            figures = eval_fn(self.plain)
            if preview_fn and distributed.leads():
                preview = preview_fn(self.plain)
        self.plain.train()
        # numpy's floats are no plain values, which a checkpoint may hold.
        metrics = {name: float(value) for name, value in figures.items()}
        self.metrics = distributed.leaders(metrics)
        named = {f"val_{name}": value for name, value in self.metrics.items()}
        self.log.write(step=self.step, **named)
        announce(self.step, "  ".join(f"{name} {value:.4f}" for name, value in named.items()))
        if preview:
            files.write_text(self.dir / "samples" / f"step_{self.step:06d}.txt", preview + "\n")
        score = next(iter(self.metrics.values()))
        self.no_better += 1
        if score < self.best:
            self.no_better = 0
            self.best = score  # in all processes: rank 0 told them its figures
            content = self.content()
            if distributed.leads():
                checkpoint.save(self.dir / "best.pt", content)
        if self.is_out_of_patience:
            announce(self.step, f"stopped: {self.no_better} evaluations without a better figure")

    @contextlib.contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Run the body with the averaged weights in `plain`, which is then on the device."""
        if not self.is_split:
            with averaged_weights(self.model, self.averaged):
                yield
            return
        weights = self.averaged or self.model.state_dict()
        self.plain.load_state_dict(distributed.whole_weights(weights))
        self.plain.to(self.model.device)
        yield
        self.plain.cpu()  # between evaluations the GPU's memory belongs to the split model
