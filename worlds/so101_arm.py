"""The arm's kinematics: from joints to the hand's place, and back.

The hand is the middle between the jaws, where they grip. It moves as they close, because a single
jaw moves. The way back is plain geometry: a pan, two links in the arm's plane, and a gripper that
hangs down, or leans outwards as little as the reach asks for, and opens along the table's x axis. A
few steps of damped least squares with MuJoCo's Jacobians then remove what is left, a millimetre or
two. So the joints are a function of the place, whatever the arm did before, and no solver of
quadratic programs is needed.

The units of joints are those of LeRobot's driver of the SO-101 (`use_degrees`): five joints in
degrees from the middle of their range, and the gripper from 0 (closed) to 100 (open).
"""

import math

import numpy as np

from worlds import so101_model
from worlds.so101_model import ARM, JOINTS, middle
from worlds.table_model import load

ROUNDS = 4  # of least squares
CLOSE = 1e-4  # metres: the place is found
DAMPED = 1e-4  # square metres
STRETCHED = 0.975  # of both links: a straight arm can hardly move
BEND = math.radians(2)  # what the wrist keeps to its limit
LEAN = math.radians(70)  # the most that the gripper leans


class Arm:
    """Kinematics of an arm of its own, without a table."""

    def __init__(self):
        self.mujoco = load("mujoco")
        self.model = so101_model.compiled(3)
        self.data = self.mujoco.MjData(self.model)
        joints = [self.model.joint(name) for name in JOINTS]
        self.where = np.array([int(joint.qposadr[0]) for joint in joints])
        self.speeds = np.array([int(joint.dofadr[0]) for joint in joints])[:ARM]
        self.range = np.array([joint.range for joint in joints])  # (6, 2) radians
        self.gripper = self.model.body("gripper").id
        self.measure()

    def measure(self) -> None:
        """The lengths and angles of the links, at joints of 0."""
        self.pose(np.zeros(6))
        names = ("upper_arm", "lower_arm", "wrist")
        points = [self.data.body(name).xpos.copy() for name in names]
        points.append(self.point(0.0))
        self.pan = self.data.body("shoulder").xpos[:2].copy()
        # In the arm's plane: metres from the pan's axis, and height. The arm looks along -y.
        flat = [np.array([self.pan[1] - point[1], point[2]]) for point in points]
        self.shoulder = flat[0]
        links = [after - before for before, after in zip(flat[:-1], flat[1:], strict=True)]
        self.lengths = [math.hypot(*link) for link in links[:2]]
        self.lengths.append(float(links[2][0]))  # of the gripper, whose own axis is level at 0
        self.zero = [math.atan2(link[1], link[0]) for link in links[:2]]
        opens = self.data.xmat[self.gripper].reshape(3, 3)[:, 0]
        self.level = math.pi / 2 - math.atan2(opens[0], opens[2])  # of the roll

    # --- units ---------------------------------------------------------------------------------

    def radians(self, joints: np.ndarray) -> np.ndarray:
        """LeRobot's units (6,) -> radians (6,), inside the limits."""
        low, high = self.range.T
        angles = np.radians(joints)
        angles[-1] = low[-1] + joints[-1] / 100 * (high[-1] - low[-1])
        return np.clip(angles, low, high)

    def units(self, angles: np.ndarray) -> np.ndarray:
        """Radians (6,) -> LeRobot's units (6,)."""
        low, high = self.range[-1]
        joints = np.degrees(angles)
        joints[-1] = 100 * (angles[-1] - low) / (high - low)
        return joints

    # --- kinematics ----------------------------------------------------------------------------

    def pose(self, angles: np.ndarray) -> None:
        self.data.qpos[self.where] = angles
        self.mujoco.mj_kinematics(self.model, self.data)
        self.mujoco.mj_comPos(self.model, self.data)  # Jacobians need it

    def hand(self, angles: np.ndarray) -> np.ndarray:
        """Where the hand is, at joints (6,) in radians: (3,) metres from the table's centre."""
        self.pose(angles)
        return self.point(angles[-1])

    def point(self, gripper: float) -> np.ndarray:
        turn = self.data.xmat[self.gripper].reshape(3, 3)
        return self.data.xpos[self.gripper] + turn @ middle(gripper)

    def reach(self, place: np.ndarray, gripper: float) -> np.ndarray:
        """Joints (6,) in radians that bring the hand to a place (3,) in metres.

        gripper: its angle in radians. A place out of reach gives joints that come close to it.
        """
        # The hand lies beside the gripper's axis, along x.
        angles = self.planar(place - [middle(gripper)[0], 0.0, 0.0])
        angles = np.clip(np.append(angles, gripper), *self.range.T)
        moves = np.zeros((3, self.model.nv))
        for _ in range(ROUNDS):
            self.pose(angles)
            point = self.point(gripper)
            missing = place - point
            if np.linalg.norm(missing) < CLOSE:
                break
            self.mujoco.mj_jac(self.model, self.data, moves, None, point, self.gripper)
            move = moves[:, self.speeds]
            step = move.T @ np.linalg.solve(move @ move.T + DAMPED * np.eye(3), missing)
            angles[:ARM] += step
            angles = np.clip(angles, *self.range.T)
        return angles

    def planar(self, axis: np.ndarray) -> np.ndarray:
        """The five joints for a point (3,) on the gripper's own axis, by geometry."""
        aside, ahead = axis[0] - self.pan[0], self.pan[1] - axis[1]
        pan = math.atan2(aside, ahead)
        target = np.array([math.hypot(aside, ahead), axis[2]]) - self.shoulder
        lift, elbow, flex = self.links(target, self.lean(target))
        # The roll turns the jaws along the table's x axis.
        return np.array([-pan, lift, elbow, flex, self.level - pan])

    def links(self, target: np.ndarray, lean: float) -> tuple[float, float, float]:
        """The three joints in the arm's plane. target: (2,) metres from the shoulder."""
        wrist = target - self.lengths[2] * np.array([math.sin(lean), -math.cos(lean)])
        upper, fore, _ = self.lengths
        away = max(math.hypot(*wrist), 1e-6)
        cosine = (upper**2 + away**2 - fore**2) / (2 * upper * away)
        first = math.atan2(wrist[1], wrist[0]) + math.acos(min(1.0, max(-1.0, cosine)))
        rest = wrist - upper * np.array([math.cos(first), math.sin(first)])
        second = math.atan2(rest[1], rest[0])
        a, b = first - self.zero[0], second - self.zero[1]
        # A positive joint lowers its link.
        return -a, a - b, b + math.pi / 2 - lean

    def lean(self, target: np.ndarray) -> float:
        """The smallest angle from straight down at which the arm reaches the target."""
        if self.can_lean(target, 0.0):
            return 0.0
        low, high = 0.0, LEAN
        for _ in range(16):
            between = (low + high) / 2
            low, high = (low, between) if self.can_lean(target, between) else (between, high)
        return high

    def can_lean(self, target: np.ndarray, lean: float) -> bool:
        """Whether the arm is not too straight for the target, and the wrist not too bent."""
        wrist = target - self.lengths[2] * np.array([math.sin(lean), -math.cos(lean)])
        longest = STRETCHED * (self.lengths[0] + self.lengths[1])
        bent = self.links(target, lean)[2]
        return math.hypot(*wrist) <= longest and bent <= self.range[3, 1] - BEND
