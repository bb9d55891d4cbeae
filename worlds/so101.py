"""The SO-101 at a table of half the size, with the interface of Gymnasium.

    env = SO101Env()
    seen, info = env.reset(seed=0, options={"split": "val"})
    seen, reward, terminated, truncated, info = env.step(action)

An action is (6,): where the joints shall be, in the units of LeRobot's driver of the SO-101 with
`use_degrees`. Five joints are in degrees from the middle of their range. The gripper goes from 0,
closed, to 100. A control step takes 0.1 s. What is seen:

    state   (10,) float32: the six joints in the same units; the hand's x, y, z (m), which follow
            from the joints; the gripper's last target
    things  (N, 3) float32: where the things and zones are (m), in the order of the layout
    image   (side, side, 3) uint8, if `image_size` is given

Metres are real ones, from the table's centre. Tasks, orders and deeds are those of the large table:
`truth`, `hand` and `opening` are in its metres, twice the real ones.
"""

import copy

import numpy as np

from base.errors import UserError
from worlds import so101_model
from worlds.camera import move_camera
from worlds.layouts import HALF_WIDTH
from worlds.so101_arm import Arm
from worlds.so101_model import JOINTS, SCALE, gap
from worlds.table import CLOSED, OPENED, TableEnv, spaces
from worlds.table_model import SUBSTEPS
from worlds.tasks import Task

STEPS = 80  # of an episode
HOME = np.array([0.0, 0.165, 0.11])  # where the hand begins, in metres of the large table
JITTER = np.array([0.05, 0.02, 0.02])
GRIPPER_OPEN = 21.0  # 33 mm between the jaws: 7 mm of room on both sides of a thing
GRIPPER_CLOSED = 0.0
EACH = 2  # substeps between the moves of the targets
HALFWAY = 12.0  # a target above it opens
JOINT_NAMES = [f"{name}.pos" for name in JOINTS]
STATE_NAMES = [*JOINT_NAMES, "hand_x", "hand_y", "hand_z", "gripper_target"]
HAND = 6  # where the hand's place begins in the state


class SO101Env(TableEnv):
    """The SO-101 as a Gymnasium environment. The arguments are those of `TableEnv`."""

    longest = STEPS

    def __init__(self, image_size: int | None = None, camera: str = "front"):
        super().__init__(image_size, camera)
        self.arm = Arm()
        low, high = so101_model.limits().T.astype(np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)

    @property
    def observation_space(self):
        parts = dict(super().observation_space)
        parts["state"] = spaces.Box(-np.inf, np.inf, (len(STATE_NAMES),), np.float32)
        return spaces.Dict(parts)

    # --- an episode ----------------------------------------------------------------------------

    def begin(self, task: Task, moved: bool) -> None:
        if task.wall:
            raise UserError("a wall at the SO-101", "a table without a wall", "leave out around")
        self.task = task
        number = len(task.layout.things)
        original = so101_model.compiled(number)
        if number not in self.models:
            model = copy.copy(original)
            self.models[number] = model, self.mujoco.MjData(model)
        self.model, self.data = self.models[number]
        self.mujoco.mj_resetData(self.model, self.data)
        move_camera(self.model, original, moved, SCALE)
        self.dress(task.layout)
        joints = [self.model.joint(name) for name in JOINTS]
        self.where = np.array([int(joint.qposadr[0]) for joint in joints])
        self.blocks = 7 * number  # of qpos: the things come first
        for index, thing in enumerate(task.layout.things):
            place = np.array([thing.x, thing.y, thing.z]) * SCALE
            self.data.qpos[7 * index : 7 * index + 7] = (*place, 1, 0, 0, 0)
        self.put_hand(HOME + self.rng.uniform(-1, 1, 3) * JITTER, GRIPPER_OPEN)
        self.peaks = [thing.z for thing in task.layout.things]
        self.steps, self.ever = 0, False

    def put_hand(self, place: np.ndarray, gripper: float) -> None:
        """The arm at rest with its hand at a place, in metres of the large table."""
        angle = self.arm.radians(np.array([0, 0, 0, 0, 0, gripper]))[-1]
        angles = self.arm.reach(place * SCALE, angle)
        self.data.qpos[self.where] = angles
        self.data.ctrl[:] = angles
        self.target = self.arm.units(angles)
        self.start = self.wanted = angles
        self.since = SUBSTEPS
        self.mujoco.mj_forward(self.model, self.data)

    def dress(self, layout) -> None:
        super().dress(layout)
        for index in range(len(layout.zones)):
            self.model.body(f"zone{index}").pos[:] *= SCALE

    def aim(self, action: np.ndarray) -> None:
        """Tell the joints where to go: (6,) float64, finite. `advance` moves them."""
        self.start, self.since = self.data.ctrl.copy(), 0
        self.wanted = self.arm.radians(action)
        self.target = self.arm.units(self.wanted)

    def advance(self, substeps: int) -> None:
        """Let the physics go on after `aim`, by TIMESTEP each."""
        while substeps > 0:
            # As at the large table, the targets move during half of the step.
            share = min(1.0, 2 * EACH * (self.since // EACH + 1) / SUBSTEPS)
            self.data.ctrl[:] = self.start + share * (self.wanted - self.start)
            now = substeps if share == 1 else min(substeps, EACH - self.since % EACH)
            self.mujoco.mj_step(self.model, self.data, now)
            self.since, substeps = self.since + now, substeps - now
        heights = self.places()[:, 2].tolist()
        self.peaks = [max(pair) for pair in zip(self.peaks, heights, strict=True)]

    # --- what is seen, and what is true --------------------------------------------------------

    def angles(self) -> np.ndarray:
        """The joints: (6,) float64, radians."""
        return self.data.qpos[self.where].copy()

    @property
    def command(self) -> float:
        """What the gripper was told: OPENED or CLOSED, as at the large table."""
        return OPENED if self.target[-1] > HALFWAY else CLOSED

    def places(self) -> np.ndarray:
        """Where the things' centres are: (N, 3) float64, metres of the large table."""
        return self.data.qpos[: self.blocks].reshape(-1, 7)[:, :3] / SCALE

    def opening(self) -> float:
        return gap(self.data.qpos[self.where[-1]]) / SCALE

    def hand(self) -> np.ndarray:
        return self.arm.hand(self.angles()) / SCALE

    def seen(self) -> dict[str, np.ndarray]:
        hand = self.hand() * SCALE
        state = [*self.arm.units(self.angles()), *hand, self.target[-1]]
        zones = np.array([[zone.x, zone.y, zone.z] for zone in self.task.layout.zones])
        things = np.concatenate([self.places(), zones]) * SCALE
        seen = {"state": np.array(state, np.float32), "things": things.astype(np.float32)}
        if self.cameras is not None:
            for name in self.camera_names:
                seen[self.key_of(name)] = self.picture(name)
        return seen

    def pose(self, task: Task, hand, held: bool) -> None:
        """Begin a task with the hand at `hand`; held: its jaws are around a thing."""
        self.begin(task, moved=False)
        closed = self.gripper_at(2 * HALF_WIDTH * SCALE)
        self.put_hand(np.asarray(hand), closed if held else GRIPPER_OPEN)

    def gripper_at(self, wanted: float) -> float:
        """The gripper's number at which the jaws are `wanted` metres apart."""
        numbers = np.linspace(0, 100, 1001)
        angles = np.interp(numbers, [0, 100], self.arm.range[-1])
        gaps = np.array([gap(angle) for angle in angles])
        return float(numbers[np.abs(gaps - wanted).argmin()])
