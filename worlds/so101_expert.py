"""The expert of the SO-101: the phases of the large table's expert, and inverse kinematics.

worlds/expert.py says where the hand should be next, from what is true at the moment. The arm then
moves its joints so that the hand goes there, by at most 1.5 cm per step. worlds/recording.py
disturbs the hand's way, and keeps the undisturbed joints as labels.
"""

import numpy as np

from worlds.expert import CALM, Expert
from worlds.layouts import HALF_WIDTH
from worlds.so101 import GRIPPER_CLOSED, GRIPPER_OPEN, SO101Env
from worlds.so101_model import SCALE
from worlds.table import OPENED, STRIDE

# Where the hand may go, in metres of the large table: closer to its base the arm cannot fold.
LOW, HIGH = np.array([-0.26, -0.26, 0.013]), np.array([0.26, 0.205, 0.155])
LETTING_GO = 0.04  # metres: an opening hand this close to its thing keeps the thing in its middle


class ArmExpert(Expert):
    """Does a task with the arm. `wish` of an `Expert` says where the hand should be."""

    gripped = 2 * HALF_WIDTH + 0.003  # the jaws close slowly, and hold nothing before they touch it

    def toward(self, env: SO101Env, goal, command: float, noise=CALM, flip=False) -> np.ndarray:
        """The joints (6,) float32 that move the hand towards a goal, in LeRobot's units."""
        hand, angles = env.hand(), env.angles()
        move = np.clip((goal - hand) / STRIDE + noise, -1, 1) * STRIDE
        place = np.clip(hand + move, LOW, HIGH) * SCALE
        wanted = env.arm.units(env.arm.reach(place, angles[-1]))
        wanted[-1] = GRIPPER_OPEN if (command == OPENED) != flip else GRIPPER_CLOSED
        return wanted.astype(np.float32)

    def wish(self, env: SO101Env) -> tuple[np.ndarray, float]:
        """As at the large table. There both fingers open; here the arm moves the other jaw."""
        goal, command = super().wish(env)
        hand = env.hand()
        thing = env.truth().now.things[self.thing]
        around = np.abs(hand - (thing.x, thing.y, thing.z)).max() < LETTING_GO
        still = np.abs(goal[:2] - hand[:2]).max() < 1e-6
        if self.order.verb != "push" and command == OPENED and around and still:
            goal = np.array([thing.x, thing.y, goal[2]])
        return goal, command
