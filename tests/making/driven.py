"""Small robots and policies for the control loop: no physics, no network."""

import math

import numpy as np

from base import limits
from base.driving import Made
from base.robots import Frame
from base.scaling import Scaling

TABLE = limits.read("table")
LENGTH = 8


class Point:
    """A robot like the table's hand: a point that goes where it is told, at once."""

    name, names, rate, kinematics = "table", TABLE.names, TABLE.hz, None

    def __init__(self, clock, fps=30.0, lost=(math.inf, math.inf)):
        self.clock, self.fps, self.lost = clock, fps, lost
        self.place = TABLE.pose.copy()
        self.frame_at = self.begun = clock.now()
        self.commands, self.places, self.shares, self.closed = [], [], [], 0
        self.deaf = False

    def observe(self):
        if self.deaf:
            raise ConnectionError("the bus is silent")
        return np.concatenate([self.place, np.zeros(5)]).astype(np.float32)

    def look(self):
        self.clock.wait_until(self.frame_at)
        now = self.clock.now()
        self.frame_at = max(self.frame_at + 1 / self.fps, now)
        if self.lost[0] <= now - self.begun < self.lost[1]:
            raise ConnectionError("the camera was unplugged")
        return Frame(now, {"state": self.observe()})

    def act(self, command):
        self.place = self.place + np.asarray(command[:3], np.float64) * TABLE.metres
        self.commands.append(np.array(command))
        self.places.append(self.place.copy())

    def relax(self, share):
        self.shares.append(share)

    def over(self):
        return ""

    def close(self):
        self.closed += 1


class Waves:
    """A policy whose chunks move slowly and never stop. It keeps what it was given."""

    length, frames, absolute = LENGTH, 1, False

    def __init__(self, frames=1):
        self.frames, self.scaling = frames, Scaling.none(4, 8)
        self.prefixes, self.given = [], []

    def begin(self, text, seed):
        return [word for word in text.split() if word == "xyzzy"]

    def make(self, seen, earlier, prefix):
        self.prefixes.append(prefix)
        self.given.append([seen, *earlier])
        rows = np.zeros((LENGTH, 4), np.float32)
        rows[:, 0] = 0.1 * np.sin(len(self.prefixes) + np.arange(LENGTH))
        if prefix is not None:
            rows[: len(prefix)] = prefix
        return Made(rows)
