"""What a robot is to the control loop, and a robot that only plays a recorded episode.

Two threads use a robot: the control loop calls `observe` and `act`, the camera's thread calls
`look`. `observe` and `act` must return at once. A robot with a serial bus needs a lock of its own.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from base.errors import UserError

KINDS = ("table", "so101", "replay")
DO = "take the file of an episode that the documentation describes (docs/robot.md)"


class Clock(Protocol):
    """Seconds that only go forward."""

    def now(self) -> float: ...

    def wait_until(self, moment: float) -> None: ...

    def sleep(self, seconds: float) -> None: ...


class RealClock:
    """The machine's own monotonic clock. `stopped` ends every wait."""

    def __init__(self):
        self.stopped = threading.Event()

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, moment: float) -> None:
        self.sleep(moment - self.now())

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.stopped.wait(min(seconds, threading.TIMEOUT_MAX))


@dataclass
class Frame:
    """What was seen at a moment. seen: as `base.driving` describes; the state may be missing."""

    stamp: float
    seen: dict = field(default_factory=dict)


class Robot(Protocol):
    """A robot. names: of the numbers of an action. rate: control steps per second of its own time.

    kinematics: from joints (P,) to the hand's place (3,) in metres, or None. frame_at: the time
    of the next frame, which only the virtual clock asks for.
    """

    name: str
    names: list[str]
    rate: float
    frame_at: float
    kinematics: Callable[[np.ndarray], np.ndarray] | None

    def observe(self) -> np.ndarray:
        """The state now: (S,) float32. Raises anything if the robot does not answer."""

    def look(self) -> Frame | None:
        """Wait for the next frame. None: it was lost. Raises anything if the camera is gone."""

    def act(self, command: np.ndarray) -> None:
        """Send a command that the guard let through: (A,) in the robot's units."""

    def relax(self, share: float) -> None:
        """Go down to a share of the motors' force, or back up to 1."""

    def over(self) -> str:
        """Why the run is over, such as an order that is done; nothing while it goes on."""

    def close(self) -> None:
        """Let go of motors, buses, cameras. It may be called twice."""


def recorded(path: Path | str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file: `robot` (its name), `rate` (frames per second), `state` (N, S),
    `action` (N, A), and what was seen: `image`, `things`, `kinds`.

    Raises UserError unless they are there and fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise UserError(f"no file {path}", "a recorded episode (.npz)", DO) from None
    except Exception as error:  # errors of zip files, headers and types
        raise UserError(f"{path}, which is no .npz file of arrays", "an episode", DO) from error
    for key in ("robot", "rate", "state", "action"):
        if key not in arrays:
            raise UserError(f"{path} without {key!r}", "robot, rate, state and action", DO)
    count = arrays["state"].shape[0] if arrays["state"].ndim else 0
    for key, rows in arrays.items():
        if key in ("robot", "rate"):
            continue
        if rows.ndim < 2 or len(rows) != count or not count or rows.dtype.kind not in "fiu":
            found = f"{path}: {key} of the shape {rows.shape} and type {rows.dtype}"
            raise UserError(found, f"numbers, a row for each of {count} frames", DO)
    rate = arrays["rate"]
    if rate.shape != () or rate.dtype.kind not in "fiu" or not 0 < rate < math.inf:
        raise UserError(f"{path}: a rate of {rate}", "a number above 0", DO)
    return arrays


class Replay:
    """Plays a recorded episode, and compares what the policy would have done. It moves nothing.

    arrays: as `recorded` reads them. names: of the numbers of an action.
    """

    kinematics = None

    def __init__(self, arrays: dict[str, np.ndarray], names: list[str], clock: Clock):
        parts = dict(arrays)
        self.name, self.rate = str(parts.pop("robot")), float(parts.pop("rate"))
        self.states = parts.pop("state").astype(np.float32)
        self.actions, self.parts = parts.pop("action"), parts
        if self.actions.shape[1] != len(names):
            found = f"recorded actions of {self.actions.shape[1]} numbers"
            raise UserError(found, f"{len(names)}: {', '.join(names)}", DO)
        self.names, self.clock = list(names), clock
        self.frame_at = self.begun = clock.now()
        self.differences: deque[float] = deque(maxlen=100_000)

    def index(self) -> int:
        """The recorded frame of now."""
        passed = math.floor((self.clock.now() - self.begun) * self.rate + 1e-6)
        return min(passed, len(self.states) - 1)

    def observe(self) -> np.ndarray:
        return self.states[self.index()]

    def look(self) -> Frame | None:
        self.clock.wait_until(self.frame_at)
        index, stamp = self.index(), self.clock.now()
        self.frame_at += 1 / self.rate
        seen = {name: rows[index] for name, rows in self.parts.items()}
        return Frame(stamp, seen | {"state": self.states[index]})

    def act(self, command: np.ndarray) -> None:
        recorded = self.actions[self.index()]
        self.differences.append(float(np.abs(command - recorded).mean()))

    def relax(self, share: float) -> None:
        """There is no motor."""

    def over(self) -> str:
        """The mean difference between the commands and the recorded actions, at the end."""
        if (self.clock.now() - self.begun) * self.rate < len(self.states):
            return ""
        mean = np.mean(self.differences) if self.differences else math.nan
        return f"the episode ended; the commands differ from the recorded by {mean:.4f} on average"

    def close(self) -> None:
        """There is nothing to let go of."""
