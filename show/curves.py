"""Learning curves: the figures of log.jsonl of several runs, drawn into one picture."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import files
from base.files import UserError
from show import plots

# What is drawn unless names are given, next to each run's first held-out figure.
BEFORE, BEHIND = ["loss"], ["learning_rate", "tokens_per_second"]
HELD_OUT = "val_"  # the beginning of the names of held-out figures
TITLES = {
    "loss": "loss of the batch (nats per token)",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens per second",
    "val_nats_per_token": "held-out nats per token",
    "val_bits_per_byte": "held-out bits per byte",
}
X_AXIS = "training tokens (millions, repeats counted)"


@dataclass
class Log:
    """What a run wrote. rows: the lines of log.jsonl, each with `step` and numbers."""

    run: str
    rows: list[dict]

    def names(self) -> list[str]:
        """The names of all figures, in the order in which they were first written."""
        found = {}
        for row in self.rows:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    found[name] = None
        return list(found)

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens seen, and the values of a figure: two arrays (lines with the figure,)."""
        mine = [row for row in self.rows if name in row]
        trained = [row for row in self.rows if "tokens_seen" in row]
        # An evaluation may lie between two logged steps: its tokens are interpolated.
        steps = [0, *(row["step"] for row in trained)]
        seen = [0, *(row["tokens_seen"] for row in trained)]
        tokens = np.interp([row["step"] for row in mine], steps, seen)
        return tokens, np.array([row[name] for row in mine], dtype=float)


def read(run: str) -> Log:
    """The log of a run folder. A last line that is still being written is left out.

    Raises UserError if there is no log, or if a line of it is no line of a training script.
    """
    what, do = "a run folder of a training script", "check --curves"
    path = files.existing(Path(run) / "log.jsonl", what, do)
    rows = []
    for line in files.read_text(path, what, do).splitlines(keepends=True):
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int) or not isinstance(row.get("tokens_seen", 0), int):
                raise ValueError("step and tokens_seen are whole numbers")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if rows and not line.endswith("\n"):
                break
            raise UserError(
                f"{path}, whose line {len(rows) + 1} is no log of a training script ({error})",
                "one JSON object per line",
                "name another run folder",
            ) from error
        rows.append(row)
    if not rows:
        raise UserError(
            f"{path} without a line", "a run that has reached --log_every", "wait, or name another"
        )
    return Log(run, rows)


def chosen(logs: list[Log], names: list[str]) -> list[str]:
    """The figures to draw. names: as asked for, or empty.

    Raises UserError if no run has a figure that was asked for.
    """
    known = list(dict.fromkeys(name for log in logs for name in log.names()))
    for name in names:
        if name not in known:
            raise UserError(
                f"--figures {name}",
                "figures that these runs have: " + ", ".join(known),
                "choose some of these",
            )
    if names:
        return names
    held_out = []
    for log in logs:
        # The first held-out figure chooses best.pt; it differs between tasks.
        held_out += [name for name in log.names() if name.startswith(HELD_OUT)][:1]
    wanted = [*BEFORE, *dict.fromkeys(held_out), *BEHIND]
    return [name for name in wanted if name in known]


def label(log: Log, logs: list[Log]) -> str:
    """The folder's name, or its path if two runs share a name."""
    name = Path(log.run).absolute().name
    same = [other for other in logs if Path(other.run).absolute().name == name]
    return name if len(same) == 1 else log.run


def draw_panel(axes, logs: list[Log], name: str) -> None:
    """One figure of all runs: a line per run, whose last value stands in the legend."""
    for log in logs:
        tokens, values = log.curve(name)
        if not len(values):
            # An empty line would look like a run that was forgotten.
            print(f"note: {log.run} has no {name}", file=sys.stderr)
            continue
        style = "o-" if name.startswith(HELD_OUT) else "-"
        text = f"{label(log, logs)}: {values[-1]:.4g}"
        axes.plot(tokens / 1e6, values, style, markersize=3, linewidth=1.2, label=text)
    axes.set_title(TITLES.get(name, name), fontsize=10)
    axes.set_xlabel(X_AXIS, fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def learning_curves(path, runs: list[str], names: list[str]) -> None:
    """Figures of run folders against training tokens: a panel per figure, a line per run.

    names: of the figures, as in log.jsonl. Empty: the loss, each run's first held-out figure, the
    learning rate and the tokens per second. Raises UserError as `read` and `chosen` do.
    """
    logs = [read(run) for run in runs]
    names = chosen(logs, names)
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    width, height = (7, 4.5) if len(names) == 1 else (6 * columns, 3.8 * rows)
    figure, grid = plots.canvas(width, height, rows, columns)
    panels = list(np.atleast_1d(grid).flat)
    most = max(log.curve(name)[0].max(initial=0.0) for log in logs for name in names) / 1e6
    for axes, name in zip(panels, names, strict=False):
        draw_panel(axes, logs, name)
        if most:
            # The same width for all: a single evaluation then stands where it was made.
            axes.set_xlim(-0.02 * most, 1.02 * most)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    plots.save(figure, path)
