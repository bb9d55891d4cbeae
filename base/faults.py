"""Troubles on purpose: a policy that is slow, hangs, raises, writes NaN, or is killed.

They are for trying the control loop: `Troubled` stands between the loop and any maker of chunks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from base import flags
from base.driving import ChunkMaker, Made
from base.flags import setting
from base.robots import Clock

FAULTS = ("none", "hang", "nan", "raise", "killed", "shape")


@dataclass
class Rehearsal:
    """A simulated robot."""

    virtual: bool = setting(False, "a virtual clock: no load of the machine disturbs it")
    think: float = setting(10.0, "ms that a chunk takes on the virtual clock", at_least=0)
    episodes: int = setting(1, "episodes at the simulated table", at_least=1)
    split: str = setting("val", "which tables and orders (docs/robot.md)")
    seed: int = setting(0, "decides the tables and the orders")
    pace: float = setting(0.0, "seconds of the table per second; 0: as --hz asks", at_least=0)
    fps: float = setting(30.0, "frames per second of the camera", above=0, at_most=1000)

    def __post_init__(self):
        flags.check(self)


class Killed(ConnectionError):
    """The process of the policy is gone."""


@dataclass
class Troubles:
    """Troubles on purpose, to try the loop."""

    latency: float = setting(0.0, "ms that every chunk comes later", at_least=0, at_most=60_000)
    drop_frames: float = setting(0.0, "share of the frames that are lost", at_least=0, below=1)
    fault: str = setting("none", "what the policy does from --fault_at on", choices=FAULTS)
    lose_camera: bool = setting(False, "the camera is gone from --fault_at on")
    fault_at: float = setting(1.0, "seconds after the start", at_least=0)
    fault_seconds: float = setting(2.0, "how long the fault lasts; 0: for ever", at_least=0)

    def __post_init__(self):
        flags.check(self)

    def until(self) -> float:
        """When the fault is over, in seconds after the start."""
        return self.fault_at + self.fault_seconds if self.fault_seconds else math.inf


class Troubled:
    """A `base.driving.ChunkMaker` with troubles."""

    def __init__(self, maker: ChunkMaker, troubles: Troubles, clock: Clock):
        self.maker, self.troubles, self.clock = maker, troubles, clock
        self.length, self.frames = maker.length, maker.frames
        self.scaling, self.absolute = maker.scaling, maker.absolute
        self.begun = clock.now()

    def begin(self, text: str, seed: int) -> list[str]:
        self.begun = self.clock.now()
        return self.maker.begin(text, seed)

    def make(self, seen: dict, earlier: Sequence[dict], prefix: np.ndarray | None) -> Made:
        now, troubles = self.clock.now() - self.begun, self.troubles
        struck = troubles.fault_at <= now < troubles.until() and troubles.fault != "none"
        if struck and troubles.fault == "hang":
            self.clock.sleep(troubles.until() - now)
        if struck and troubles.fault == "killed":
            raise Killed("the policy's process was killed")
        if struck and troubles.fault == "raise":
            raise RuntimeError("the policy raised an error on purpose")
        made = self.maker.make(seen, earlier, prefix)
        self.clock.sleep(troubles.latency / 1000)
        if struck and troubles.fault == "nan":
            made.actions = np.full_like(made.actions, np.nan)
        if struck and troubles.fault == "shape":
            made.actions = made.actions[:-1]
        return made
