"""The table: physics where words decide, with the interface of Gymnasium.

    env = TableEnv()
    seen, info = env.reset(seed=0, options={"split": "val"})
    seen, reward, terminated, truncated, info = env.step(action)

A gripper hangs over the table. An action is (4,) float32 in [-1, 1]: dx, dy, dz in steps of 3 cm,
and the gripper: above 0 it closes, else it opens. A control step takes 0.1 s. What is seen:

    state   (8,) float32: the hand's x, y, z, the opening (m), the last gripper command (-1 or 1),
            the hand's velocity in x, y, z (m/s)
    things  (N, 3) float32: where the things and zones are (m), in the order of the layout
    image   (side, side, 3) uint8, if `image_size` is given

The reward is 1 in steps where the order is done. An episode is truncated after 60 steps, and never
terminated: success at the end and success at any time are both in `info`.
"""

import copy
import dataclasses

import numpy as np

from base.errors import UserError
from worlds import deeds, drawing, table_model, wall
from worlds.camera import Cameras, move_camera, project
from worlds.deeds import Table
from worlds.layouts import HALF_WIDTH, Layout, Thing
from worlds.orders import VERBS
from worlds.table_model import GAP, HIGH, LOW, SUBSTEPS, load
from worlds.tasks import Task, sample_task

try:
    from gymnasium import Env as Base
    from gymnasium import spaces
except ImportError:  # the pure parts of this module work without it
    Base, spaces = object, None  # type: ignore

STEPS = 60  # of an episode
STRIDE = 0.03  # metres per step of the largest action
LAG = 0.01  # metres by which the target may run ahead of a hand that is blocked
HOME = np.array([0.0, 0.20, 0.14])  # where the hand begins: behind the things, it hides none
JITTER = np.array([0.06, 0.02, 0.02])  # metres: half of the range around HOME
OPENED, CLOSED = -1.0, 1.0


class TableEnv(Base):
    """The table as a Gymnasium environment.

    image_size: pixels of an image's side; None: no images, and no OpenGL. camera: names with commas
    between them: the first gives `image`, others `image_NAME`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"
    longest = STEPS

    def __init__(self, image_size: int | None = None, camera: str = "front"):
        load("gymnasium")
        self.mujoco = load("mujoco")
        self.image_size, self.camera_names = image_size, camera.split(",")
        self.cameras = Cameras(image_size) if image_size is not None else None
        self.rng = np.random.default_rng()
        self.models: dict = {}  # by number of things: a model that is ours, and its data
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.task: Task | None = None

    @property
    def observation_space(self):
        """Of the current layout: the number of things differs between episodes."""
        number = len(self.task.layout.everything()) if self.task else 5
        parts = {
            "state": spaces.Box(-np.inf, np.inf, (8,), np.float32),
            "things": spaces.Box(-np.inf, np.inf, (number, 3), np.float32),
        }
        if self.image_size is not None:
            shape = (self.image_size, self.image_size, 3)
            for name in self.camera_names:
                parts[self.key_of(name)] = spaces.Box(0, 255, shape, np.uint8)
        return spaces.Dict(parts)

    def key_of(self, camera: str) -> str:
        """The name of a camera's image in what is seen."""
        return "image" if camera == self.camera_names[0] else f"image_{camera}"

    # --- an episode ----------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Begin an episode: (seen, info).

        options: {"task": Task}, or {"split": name, "verb": name} to draw a task; both may be left
        out. {"camera": True} moves the camera, as the split `camera` does. Raises UserError for
        another option.
        """
        options = dict(options or {})
        unknown = set(options) - {"task", "split", "verb", "camera"}
        if unknown or options.get("verb") not in (None, *VERBS):
            raise UserError(
                f"the reset options {options}", "task, or split and verb", "correct the options"
            )
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        split = options.get("split", "train")
        task = options.get("task") or sample_task(self.rng, split, options.get("verb"))
        moved = bool(options.get("camera", split == "camera"))
        self.begin(task, moved)
        return self.seen(), self.info()

    def begin(self, task: Task, moved: bool) -> None:
        self.task = task
        layout = task.layout
        number = len(layout.things)
        if number not in self.models:
            model = copy.copy(table_model.compiled(number))
            self.models[number] = model, self.mujoco.MjData(model)
        self.model, self.data = self.models[number]
        self.mujoco.mj_resetData(self.model, self.data)
        move_camera(self.model, table_model.compiled(number), moved)
        self.dress(layout)
        self.model.body("wall").pos[:] = wall.PLACE if task.wall else wall.HIDDEN
        start = HOME + self.rng.uniform(-1, 1, 3) * JITTER
        self.data.qpos[:3] = start
        self.data.qpos[3:5] = GAP
        for index, thing in enumerate(layout.things):
            place = 5 + 7 * index
            self.data.qpos[place : place + 7] = (thing.x, thing.y, thing.z, 1, 0, 0, 0)
        self.target, self.command = start.copy(), OPENED
        self.start, self.since = start.copy(), 0
        self.data.ctrl[:] = (*start, GAP, GAP)
        self.mujoco.mj_forward(self.model, self.data)
        self.peaks = [thing.z for thing in layout.things]
        self.steps, self.ever = 0, False

    def dress(self, layout: Layout) -> None:
        """Shapes and colours, each in a shade of its own, and the zones' places."""
        table_model.grey_table(self.model, self.rng)
        for index, thing in enumerate(layout.things):
            paint = drawing.paint_of(thing.colour, self.rng) / 255
            table_model.dress(self.model, f"thing{index}", thing.shape, paint)
        for index, zone in enumerate(layout.zones):
            paint = drawing.paint_of(zone.colour, self.rng) / 255
            table_model.dress_zone(self.model, index, zone.shape, paint)
            self.model.body(f"zone{index}").pos[:] = (zone.x, zone.y, 0.0)

    def step(self, action):
        """One control step. Raises UserError for an action of another shape, or with NaN."""
        if self.task is None:
            raise UserError("a step before a reset", "a reset first", "call reset()")
        action, shape = np.asarray(action, dtype=np.float64), self.action_space.shape
        if action.shape != shape or not np.isfinite(action).all():
            raise UserError(
                f"the action {action.tolist()}", f"{shape[0]} finite numbers", "check what made it"
            )
        self.aim(action)
        self.advance(SUBSTEPS)
        self.steps += 1
        info = self.info()
        return self.seen(), float(info["done"]), False, self.steps >= self.longest, info

    def aim(self, action: np.ndarray) -> None:
        """Tell the hand where to go: (4,) float64, finite. `advance` moves it."""
        move = np.clip(action[:3], -1, 1) * STRIDE
        hand = self.data.qpos[:3]
        self.start, self.since = self.data.ctrl[:3].copy(), 0
        # A blocked hand must not gather a debt that it pays when the way is free again.
        reached = np.clip(self.target, hand - LAG, hand + LAG)
        self.target = np.clip(reached + move, LOW, HIGH)
        self.command = CLOSED if action[3] > 0 else OPENED
        self.data.ctrl[3:] = 0.0 if self.command == CLOSED else GAP

    def advance(self, substeps: int) -> None:
        """Let the physics go on after `aim`, by TIMESTEP each."""
        for _ in range(substeps):
            self.since += 1
            # The target moves evenly during half of the step: a sudden one would shake the thing.
            share = min(1.0, 2 * self.since / SUBSTEPS)
            self.data.ctrl[:3] = self.start + share * (self.target - self.start)
            self.mujoco.mj_step(self.model, self.data)
        heights = self.places()[:, 2].tolist()
        self.peaks = [max(pair) for pair in zip(self.peaks, heights, strict=True)]

    # --- what is seen, and what is true --------------------------------------------------------

    def places(self) -> np.ndarray:
        """Where the things' centres are: (N, 3) float64, metres."""
        return self.data.qpos[5:].reshape(-1, 7)[:, :3].copy()

    def opening(self) -> float:
        """Metres between the fingers."""
        return float(self.data.qpos[3] + self.data.qpos[4])

    def hand(self) -> np.ndarray:
        """Where the fingertips' middle is: (3,) float64, metres."""
        return self.data.qpos[:3].copy()

    def seen(self) -> dict[str, np.ndarray]:
        """What a policy may see: the docstring of this module says its parts."""
        state = [*self.hand(), self.opening(), self.command, *self.data.qvel[:3]]
        zones = np.array([[zone.x, zone.y, zone.z] for zone in self.task.layout.zones])
        things = np.concatenate([self.places(), zones])
        seen = {"state": np.array(state, np.float32), "things": things.astype(np.float32)}
        if self.cameras is not None:
            for name in self.camera_names:
                seen[self.key_of(name)] = self.picture(name)
        return seen

    def truth(self) -> Table:
        """The table as deeds.py judges it."""
        start = self.task.layout
        # Not deepcopy, which costs a fifth of the physics of a step.
        things = [
            Thing(thing.shape, thing.colour, *place)
            for thing, place in zip(start.things, self.places().tolist(), strict=True)
        ]
        now = Layout(things, [dataclasses.replace(zone) for zone in start.zones])
        return Table(now, start, list(self.peaks), self.opening())

    def info(self) -> dict:
        """done: now. ever: in any step so far. wrong: indices of things that no order was about,
        and that were moved. text: the order's words.
        """
        table = self.truth()
        done = deeds.is_done(self.task.order, table)
        self.ever = self.ever or done
        wrong = deeds.wrong_things(self.task.order, table)
        return {"done": done, "ever": self.ever, "wrong": wrong, "text": self.task.text}

    # --- images --------------------------------------------------------------------------------

    def picture(self, camera: str = "front") -> np.ndarray:
        """What a camera sees now: (side, side, 3) uint8. Raises UserError without `image_size`."""
        if self.cameras is None:
            raise UserError(
                "a table without images", "an image size", "give TableEnv an image_size"
            )
        return self.cameras.picture(self.model, self.data, camera)

    def pose(self, task: Task, hand, held: bool) -> None:
        """Begin a task with the hand at `hand`, in metres; held: its fingers are around a thing."""
        self.begin(task, moved=False)
        self.data.qpos[:3] = hand
        self.data.qpos[3:5] = HALF_WIDTH if held else GAP
        self.mujoco.mj_forward(self.model, self.data)

    def pixels(self, camera: str, points: np.ndarray) -> np.ndarray:
        """Where a camera sees points (n, 3), in metres: (n, 2), as shares of the image's side."""
        return project(self.model, self.data, camera, points)

    def render(self) -> np.ndarray:
        return self.picture(self.camera_names[0])

    def close(self) -> None:
        if self.cameras is not None:
            self.cameras.close()
