"""A policy in action: from what is seen to the next action, chunk by chunk, also under a delay.

The delay is the time between an observation and the chunk that it gives, in control steps:

    wait      the robot stands still meanwhile
    naive     it goes on with the old chunk; of the new chunk it skips what is past
    ensemble  as naive, and where both chunks have an action it does their mean
    frozen    as naive, and the new chunk is filled around the actions that are done meanwhile

Who makes the chunks is open: torch (robot/writer.py), a bundle, or a server.

What is seen, `seen`, is a dict of arrays by name: "state" (S,) in the robot's units; "image"
(side, side, 3) uint8 of the first camera, "image_NAME" of the others; for policies of lists
"things" (N, 3) metres and "kinds" (8, kinds), their attributes.

Shapes: T actions per chunk, A numbers per action, S numbers of the state.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from base import flags
from base.errors import UserError
from base.flags import setting
from base.scaling import Scaling

MODES = ("wait", "naive", "ensemble", "frozen")


@dataclass
class Made:
    """A chunk, and what people want to see of it.

    actions: (T, A) float32 in [-1, 1]. places: (2, 3) metres, where to take and where to put; None
    if nothing was looked for. calls: (T, A), the call that revealed each number, 0 if it was
    given; None for a head that reveals nothing. doubt: signals by name. step: the control step in
    which the chunk was made.
    """

    actions: np.ndarray
    places: np.ndarray | None = None
    calls: np.ndarray | None = None
    doubt: dict[str, float] = field(default_factory=dict)
    step: int = 0


class ChunkMaker(Protocol):
    """What makes chunks.

    length: actions per chunk. frames: observations that a chunk is made from. scaling: between the
    robot's units and [-1, 1]. absolute: whether an action says where to be, and not how to move.
    """

    length: int
    frames: int
    scaling: Scaling
    absolute: bool

    def begin(self, text: str, seed: int) -> list[str]:
        """Begin an episode with an order. Returns the words that the policy does not know."""

    def make(self, seen: dict, earlier: Sequence[dict], prefix: np.ndarray | None) -> Made:
        """A chunk from what is seen now and was seen before, the newest first.

        prefix: (n, A) in [-1, 1], the first n actions, which stay as they are; None for a maker's
        own choice of all.
        """


@dataclass
class DriveConfig:
    """How a policy drives."""

    execute: int = setting(4, "actions of a chunk that are done before the next chunk", at_least=1)
    delay: int = setting(0, "control steps from an observation to its chunk", at_least=0)
    while_waiting: str = setting("frozen", "what is done during the delay", choices=MODES)

    def __post_init__(self):
        flags.check(self)


class Driver:
    """Drives one robot. `begin` with an order, then `next` once per control step.

    For people who want to see it, after an episode:

    made   every chunk
    taken  for each chunk that was followed: the step from which on, and its first action's step
    """

    def __init__(self, maker: ChunkMaker, drive: DriveConfig, seed: int = 0):
        self.maker, self.drive, self.seed = maker, drive, seed
        if drive.execute + drive.delay > maker.length:
            raise UserError(
                f"--execute {drive.execute} with --delay {drive.delay}",
                f"at most {maker.length} together, the length of a chunk",
                "lower --execute or --delay",
            )

    def begin(self, text: str) -> list[str]:
        """Begin an episode with an order. Returns the words that the policy does not know."""
        self.step = 0
        self.chunk: np.ndarray | None = None
        self.start = 0  # the control step of the chunk's first action
        self.coming: tuple[int, np.ndarray] | None = None  # when it began, and the chunk
        self.before: list[dict] = []  # what was seen in earlier looks, the newest first
        self.last: np.ndarray | None = None  # the last action
        self.made: list[Made] = []
        self.taken: list[tuple[int, int]] = []
        self.seconds: list[float] = []
        return self.maker.begin(text, self.seed)

    def next(self, seen: dict) -> np.ndarray:
        """The action of this control step: (A,) float32, in the robot's units.

        seen may lack what only a look needs, in steps that do not look.
        """
        if self.looks():
            if self.due():
                clock = time.perf_counter()
                self.coming = (self.step, self.think(seen))
                self.seconds.append(time.perf_counter() - clock)
                self.arrive()  # at once, without a delay
            self.before = [seen, *self.before][: self.maker.frames - 1]
        self.last = self.current(seen)
        self.step += 1
        return self.maker.scaling.restore(self.last).astype(np.float32)

    def looks(self) -> bool:
        """Whether the next control step looks, and so needs an image.

        A policy of F frames looks in the last F steps before each chunk, that step included.
        """
        self.arrive()
        return self.step + self.maker.frames > self.due_at()

    def due(self) -> bool:
        """Whether a new chunk is made in the next control step."""
        self.arrive()
        return self.step >= self.due_at()

    def due_at(self) -> int:
        """The control step in which the next chunk will be made, as it is known now."""
        if self.coming is None:
            return self.step if self.chunk is None else self.start + self.drive.execute
        begun, arrival = self.coming[0], self.coming[0] + self.drive.delay
        start = self.first_step(begun, arrival)
        return max(arrival, start + self.drive.execute)

    def first_step(self, begun: int, arrival: int) -> int:
        """The control step of the first action of the chunk that is coming."""
        # While the robot stands still, nothing of the chunk gets past.
        still = self.drive.while_waiting == "wait" or self.chunk is None
        return arrival if still else begun

    def arrive(self) -> None:
        """Take over a chunk whose delay is over."""
        if self.coming is None or self.step < self.coming[0] + self.drive.delay:
            return
        begun, chunk = self.coming
        begun = self.first_step(begun, self.step)
        if self.drive.while_waiting == "ensemble" and self.chunk is not None:
            # Both chunks know the steps that they share.
            shared = self.chunk[begun - self.start :][: len(chunk)]
            chunk = chunk.copy()
            chunk[: len(shared)] = (chunk[: len(shared)] + shared) / 2
        self.chunk, self.start, self.coming = chunk, begun, None
        self.taken.append((self.step, begun))

    def current(self, seen: dict) -> np.ndarray:
        """The action of now, (A,) in [-1, 1]: the chunk's, or rest."""
        standing = self.drive.while_waiting == "wait" and self.coming is not None
        index = self.step - self.start
        if self.chunk is None or standing or index >= len(self.chunk):
            return rest(self.maker, self.last, seen.get("state"))
        return self.chunk[index]

    def think(self, seen: dict) -> np.ndarray:
        """A new chunk from what is seen now: (T, A) in [-1, 1]."""
        earlier = self.maker.frames - 1
        # At an episode's start its first observation is repeated.
        oldest = self.before[-1] if self.before else seen
        before = [*self.before, *[oldest] * earlier][:earlier]
        made = self.maker.make(seen, before, self.committed())
        made.step = self.step
        self.made.append(made)
        return made.actions

    def committed(self) -> np.ndarray | None:
        """The old chunk's actions that will be done before the new chunk arrives: (n, A)."""
        if self.drive.while_waiting != "frozen" or self.chunk is None or not self.drive.delay:
            return None
        index = self.step - self.start
        left = self.chunk[index : index + self.drive.delay]
        return left if len(left) else None


def rest(maker: ChunkMaker, last: np.ndarray | None, state: np.ndarray | None) -> np.ndarray:
    """The action that changes nothing: (A,) in [-1, 1].

    last: the last action, in [-1, 1]. state: (S,) in the robot's units; the first A numbers of an
    absolute robot are where its joints are. Of a robot that is told how to move, all numbers are
    0 but the last, the gripper, which stays as it was told; at the start it opens.
    """
    width = len(maker.scaling.low)
    if maker.absolute and last is not None:
        return last
    if maker.absolute:
        assert state is not None  # the first step looks
        return maker.scaling.shrink(state[:width]).astype(np.float32)
    still = np.zeros(width, np.float32)
    still[-1] = -1.0 if last is None else last[-1]
    return still
