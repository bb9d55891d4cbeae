"""What a run will take on this machine: seconds per step, and operations per step.

The loop prints it after its first steps. `--minutes` fits the number of steps to a time before the
first step.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from base.config import TrainConfig
from base.files import UserError
from loop import distributed
from loop.run import announce
from model import Denoiser
from net.anatomy import training_flops

# Steps that are measured. The first of them also fill caches, so the median counts.
MEASURED = 10


class Forecast:
    """Watches the first steps of a run, then tells once what the run will take."""

    def __init__(self, model: Any, steps_left: int):
        self.model = model
        self.steps_left = steps_left
        self.seconds: list[float] = []
        self.operations: list[float] = []
        self.clock = time.perf_counter()

    def note(self, step: int, micro_batches: list[dict]) -> None:
        """Count the step that has just ended. After MEASURED steps, print the forecast."""
        if len(self.seconds) == MEASURED:
            return
        now = time.perf_counter()
        self.seconds.append(now - self.clock)
        self.operations.append(sum(operations(self.model, batch) for batch in micro_batches))
        self.clock = now
        if len(self.seconds) == MEASURED:
            announce(step, self.describe())

    def describe(self) -> str:
        """One line: the time of all steps that are left, and their arithmetic."""
        seconds = statistics.median(self.seconds)
        line = f"{self.steps_left:,} steps take about {duration(seconds * self.steps_left)}"
        # Each process counts its own micro-batches.
        work = float(distributed.total(statistics.mean(self.operations)))
        if not work:
            return line
        return (
            f"{line}: {work / 1e9:.1f} GFLOP per step, "
            f"{work * self.steps_left / 1e12:.1f} TFLOP in all, {work / seconds / 1e9:,.0f} GFLOP/s"
        )


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:.1f} hours"


def operations(model: Any, batch: dict) -> float:
    """Floating-point operations to train on a micro-batch; 0 if the model does not count them.

    The convention is `net.anatomy.training_flops`, over all positions, padding included.
    """
    if not isinstance(model, Denoiser):
        return 0.0
    rows, length = batch["tokens"].shape
    # A step in blocks also reads a clean copy of its rows, or reads it alone (net/blocks.py).
    size = batch.get("block_size", length)
    whole = model.config.picture_side**2 or length
    alone = model.config.logit_shift and size == 1
    if size < whole and not alone:
        rows += batch.get("copied_rows", rows)
    features = batch.get("features")  # (n, P, width): one image serves rows / n captions
    if features is None:
        return float(rows * length * training_flops(model, length))
    images, patches = features.shape[:2]
    return float(rows * length * training_flops(model, length, patches, rows // images))


def fit_to_minutes(cfg: TrainConfig, first_step: int, step: Callable[[int], None]) -> TrainConfig:
    """`cfg` with as many steps as take cfg.minutes, counted from `first_step`.

    step(number) trains a copy of the model for a step, so the measured steps leave no trace.
    Evaluations and saves come on top of the minutes.
    Raises UserError for more than one process, whose steps the copy does not measure.
    """
    if distributed.world() > 1:
        raise UserError(
            f"--minutes {cfg.minutes:g} with {distributed.world()} processes",
            "a single process",
            "give --max_steps instead",
        )
    seconds = []
    for number in range(MEASURED):
        clock = time.perf_counter()
        step(first_step + number)
        seconds.append(time.perf_counter() - clock)
    count = max(1, round(60 * cfg.minutes / statistics.median(seconds)))
    print(
        f"minutes: {statistics.median(seconds):.2f} seconds per step, so {count:,} steps "
        f"in {cfg.minutes:g} minutes",
        file=sys.stderr,
    )
    # No minutes any more: a resumed run keeps the number of steps.
    return dataclasses.replace(cfg, max_steps=first_step + count, minutes=0.0)
