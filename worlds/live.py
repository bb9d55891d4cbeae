"""The table in real time, as a robot: physics that goes on while a policy thinks.

The hand moves as in `TableEnv`: a control step is 0.1 s of the table. With `pace` 3 the table's
clock runs three times as fast as the loop's, so 30 control steps per second are the same 0.1 s
each, and a delay of 100 ms is three of them.

A camera takes frames at a fixed rate of the loop's clock. The simulator's list of things comes with
each frame, as if a camera saw it.
"""

import copy
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from base.errors import UserError
from base.guard import Kinematics
from base.limits import Limits
from base.robots import Clock, Frame
from worlds import tasks
from worlds.camera import Cameras
from worlds.layouts import SPLITS, Layout
from worlds.so101 import SO101Env
from worlds.table import TableEnv
from worlds.table_model import TIMESTEP
from worlds.tasks import Task

SETTLE = 6  # control steps after the first success: a thing that was let go may still fall
STREAM = 100  # of the seeds: the same as in robot/scores.py, so the tables are the same
EPSILON = 1e-6  # of a substep: what rounding may take from the clock


@dataclass
class Camera:
    """A camera, and what goes wrong with it.

    side: pixels; None for lists only. names: with commas. fps: frames per second. drop: the share
    of the frames that are lost. lost_at: seconds after the start, when it is gone; back_at: when
    it is there again.
    """

    side: int | None = None
    names: str = "front"
    fps: float = 30.0
    drop: float = 0.0
    lost_at: float = math.inf
    back_at: float = math.inf


class LiveTable:
    """A `base.robots.Robot`.

    limits: they say what the numbers of an action are. kinds_of: the attributes of a layout, for
    policies of lists. env: another robot at the same table, with `aim` and `advance`.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        camera: Camera,
        pace: float = 1.0,
        kinds_of: Callable[[Layout], np.ndarray] | None = None,
        env: TableEnv | None = None,
    ):
        self.name, self.names, self.rate = limits.robot, limits.names, limits.hz
        self.kinematics: Kinematics | None = None
        self.clock, self.camera, self.pace, self.kinds_of = clock, camera, pace, kinds_of
        self.env = env or TableEnv()
        self.cameras = Cameras(camera.side) if camera.side else None
        self.lock = threading.Lock()  # physics and reading take turns, for some microseconds
        self.gains: tuple[np.ndarray, np.ndarray] | None = None

    def begin(self, split: str, seed: int, number: int, instruction: str | None) -> str:
        """Begin an episode of a split now. Returns its order; None draws the order."""
        task, table = task_of(split, seed, number, instruction)
        self.lay(task, table, split == "camera")
        return task.text

    def lay(self, task: Task, seed: int, moved: bool = False) -> None:
        """Begin an episode with this task."""
        if self.gains is not None:
            self.relax(1.0)
        self.env.reset(seed=seed, options={"task": task, "camera": moved})
        self.rng = np.random.default_rng([seed, 1])
        model = self.env.model
        self.gains = model.actuator_gainprm.copy(), model.actuator_biasprm.copy()
        self.kinds = self.kinds_of(task.layout) if self.kinds_of else None
        self.begun = self.frame_at = self.clock.now()
        self.substeps = self.after = 0

    def catch_up(self) -> None:
        """Let the physics go on until now."""
        passed = (self.clock.now() - self.begun) * self.pace / TIMESTEP
        due = math.floor(passed + EPSILON) - self.substeps
        if due > 0:
            self.env.advance(due)
            self.substeps += due

    def observe(self) -> np.ndarray:
        with self.lock:
            self.catch_up()
            return self.env.seen()["state"]

    def look(self) -> Frame | None:
        self.clock.wait_until(self.frame_at)
        now = self.clock.now()
        # Frames that nobody waited for are gone.
        behind = max(0, math.floor((now - self.frame_at) * self.camera.fps + EPSILON))
        self.frame_at += (behind + 1) / self.camera.fps
        passed = now - self.begun
        if self.camera.lost_at <= passed < self.camera.back_at:
            raise ConnectionError("the camera was unplugged")
        if self.rng.random() < self.camera.drop:
            return None
        with self.lock:
            self.catch_up()
            seen = self.env.seen()
            if self.cameras is not None:
                data = copy.copy(self.env.data)  # drawing takes milliseconds: without the lock
        if self.kinds is not None:
            seen["kinds"] = self.kinds
        if self.cameras is not None:
            names = self.camera.names.split(",")
            for name in names:
                key = "image" if name == names[0] else f"image_{name}"
                seen[key] = self.cameras.picture(self.env.model, data, name)
        return Frame(now, seen)

    def act(self, command: np.ndarray) -> None:
        with self.lock:
            self.catch_up()
            self.after += self.env.info()["ever"]
            self.env.aim(np.asarray(command, np.float64))

    def relax(self, share: float) -> None:
        assert self.gains is not None  # an episode has begun
        model, (gain, bias) = self.env.model, self.gains
        with self.lock:
            model.actuator_gainprm[:] = gain * share
            model.actuator_biasprm[:] = bias * share

    def over(self) -> str:
        return "the order is done" if self.after > SETTLE else ""

    def judged(self) -> dict:
        """What `TableEnv.info` says now."""
        with self.lock:
            self.catch_up()
            return self.env.info()

    def close(self) -> None:
        if self.cameras is not None:
            self.cameras.close()
            self.cameras = None


def open_table(
    limits: Limits,
    clock: Clock,
    camera: Camera,
    pace: float,
    kinds_of: Callable[[Layout], np.ndarray],
) -> LiveTable:
    """The simulated robot that these limits are of. Raises UserError for a robot without one."""
    if limits.robot == "table":
        return LiveTable(limits, clock, camera, pace, kinds_of)
    if limits.robot == "so101":
        return LiveTable(limits, clock, camera, pace, kinds_of, SO101Env())
    raise UserError(
        f"no simulation of {limits.robot!r}", "table or so101", "name a robot that has one"
    )


def task_of(split: str, seed: int, number: int, instruction: str | None) -> tuple[Task, int]:
    """The task of an episode, and the seed of its table. They are those of run_policy.py.

    Raises UserError for an unknown split, and for words that are no order.
    """
    if split not in SPLITS:
        raise UserError(f"--split {split}", "one of " + ", ".join(SPLITS), "choose one")
    rng = np.random.default_rng([seed, STREAM + SPLITS.index(split), number, 1])
    task = (
        tasks.sample_task(rng, split) if instruction is None else tasks.task_for(rng, instruction)
    )
    return task, int(np.random.default_rng([seed, number]).integers(2**31))
