"""The scripted expert: it does an order, by rules that read only what is true at the moment.

There is no hidden phase: the same table and hand give the same action, so a policy that sees them
can learn it, and the expert recovers from whatever happens. worlds/recording.py records it.
"""

import dataclasses

import numpy as np

from worlds import deeds, orders, wall
from worlds.layouts import HALF_HEIGHT, HALF_WIDTH, Thing
from worlds.orders import NEXT_TO, PUSH_FROM, RELATIONS, SIDES
from worlds.scenes import pick
from worlds.table import CLOSED, OPENED, STRIDE, TableEnv
from worlds.tasks import Task

GRIP = 0.016  # metres above the table: the hand's height when it grips a thing there
CARRY = 0.085  # a carried thing's centre: it clears two things that are stacked, 0.06 m high
HOVER = 0.090  # the hand's height on its way
NEAR = 0.011  # metres: fingers that come down this close to a thing's middle do not touch it
ABOVE = 0.030  # metres: a carried thing this close to its goal need not be high
AT, AT_STACK = 0.012, 0.008  # metres: a thing is let go this close to its goal
HELD = (0.010, 0.018, 0.014)  # metres in x, y, z between the hand and a thing in its fingers
BEHIND = 0.040  # metres: a low hand this far behind a thing can move sideways
GRIPPED = deeds.OPEN + 0.010  # metres: closed fingers with less than this between them hold it
LIFT = deeds.LIFTED + 0.02  # metres: the expert lifts higher than it must
CALM = (0.0, 0.0, 0.0)  # no disturbance of the hand


class Expert:
    """Does a task. Any `Task` will do: an order of its own makes it a words-free expert."""

    gripped = GRIPPED

    def __init__(self, task: Task, rng: np.random.Generator):
        """rng draws the side of "next to", and the end of a wall, once."""
        everything = [*task.layout.things, *task.layout.zones]
        self.thing = index_of(task.thing, everything)
        self.other = None if task.other is None else index_of(task.other, everything)
        self.said = self.order = task.order
        if self.order.word == NEXT_TO:
            word = pick(rng, tuple(RELATIONS))
            self.order = dataclasses.replace(self.order, word=word)
        self.start = task.layout.things[self.thing].z
        # The end of the wall that it goes around, drawn once, if there is a wall.
        self.end = int(rng.choice([-1, 1])) if task.wall else 0

    def act(self, env: TableEnv) -> np.ndarray:
        """The action at this moment: (A,) float32."""
        return self.toward(env, *self.wish(env))

    def toward(self, env: TableEnv, goal, command: float, noise=CALM, flip=False) -> np.ndarray:
        """The action that moves the hand towards a goal, (3,) metres: (4,) float32 in [-1, 1].

        noise: (3,) added to the move, in shares of the longest move. flip: the gripper does the
        opposite of the command.
        """
        move = np.clip((goal - env.hand()) / STRIDE, -1, 1) + noise
        return np.clip([*move, -command if flip else command], -1, 1).astype(np.float32)

    def wish(self, env: TableEnv) -> tuple[np.ndarray, float]:
        """Where the hand should be next, (3,) metres, and the gripper's command."""
        goal, command = self.straight(env)
        if self.end:
            goal = wall.way_around(env.hand(), goal, self.end)
        return goal, command

    def straight(self, env: TableEnv) -> tuple[np.ndarray, float]:
        """The same, if no wall were there."""
        table = env.truth()
        everything = table.now.everything()
        thing = everything[self.thing]
        other = None if self.other is None else everything[self.other]
        hand = env.hand()
        if self.order.verb == "push":
            return self.push(thing, hand, env.opening())
        held = is_held(thing, hand, env, self.gripped)
        if self.order.verb == "pick":
            return self.pick(thing, hand, held)
        return self.carry(thing, other, hand, held, env.opening())

    # --- verbs: where the hand should be next, and the gripper's command -----------------------

    def pick(self, thing: Thing, hand, held: bool) -> tuple[np.ndarray, float]:
        if held:
            return np.array([hand[0], hand[1], GRIP + self.start - HALF_HEIGHT + LIFT]), CLOSED
        return grasp(thing, hand)

    def carry(self, thing, other, hand, held, opening) -> tuple[np.ndarray, float]:
        """Take the thing to its goal, let it go, and leave upwards."""
        x, y = orders.goal(self.order, thing, other)
        height = orders.height_of(self.order, other)
        if held:
            return self.bring(thing, hand, (x, y, height))
        if self.rests_there(thing, other, height):
            if opening < deeds.OPEN + 0.010 and hand[2] < thing.z + 0.03:
                return hand, OPENED  # the fingers are still on their way
            return np.array([hand[0], hand[1], HOVER + height]), OPENED
        return grasp(thing, hand)

    def bring(self, thing: Thing, hand, place) -> tuple[np.ndarray, float]:
        """A held thing: up, over to its place, down, and let it go."""
        x, y, height = place
        away = thing.away(x, y)
        aim = hand + (x - thing.x, y - thing.y, 0.0)
        grip = hand[2] - thing.z  # where the fingers hold it
        if away > ABOVE:
            if thing.z < CARRY - 0.015:
                return np.array([hand[0], hand[1], CARRY + grip]), CLOSED
            return np.array([aim[0], aim[1], CARRY + grip]), CLOSED
        if away > (AT_STACK if self.order.verb == "stack" else AT):
            return np.array([aim[0], aim[1], max(thing.z, height + 0.004) + grip]), CLOSED
        if thing.z - height > 0.006:
            return np.array([aim[0], aim[1], height + grip]), CLOSED
        return hand, OPENED

    def rests_there(self, thing: Thing, other: Thing, height: float) -> bool:
        """Whether the thing is where the order wants it, nobody holding it."""
        if not deeds.rests(thing, height):
            return False
        if self.order.verb == "stack":
            return other.away(thing.x, thing.y) < deeds.ON_TOP
        return orders.is_true(self.said, thing, other)

    def push(self, thing: Thing, hand, opening: float) -> tuple[np.ndarray, float]:
        """Behind the thing, down, and on until it is there."""
        forward = np.array(SIDES[self.order.word], dtype=float)
        centre = np.array([thing.x, thing.y])
        ahead = float((orders.goal(self.order, thing, None) - centre) @ forward)
        behind = float((centre - hand[:2]) @ forward)
        sideways = (hand[:2] - centre) + behind * forward
        off = float(np.linalg.norm(sideways))
        up = np.array([hand[0], hand[1], HOVER])
        low = hand[2] < GRIP + 0.02
        if opening > 0.015 and hand[2] < HOVER - 0.02:
            return up, OPENED  # the fingers opened by accident: the thing may be between them
        if ahead <= 0:
            # Fingers that rise along the thing would lift its edge: first they step back.
            back = np.array([*(hand[:2] - forward * STRIDE), GRIP])
            return (back if low and behind < HALF_WIDTH + 0.014 else up), CLOSED
        if low and behind > BEHIND and 0.014 <= off < 0.04:
            return np.array([*(hand[:2] - sideways), GRIP]), CLOSED
        if low and behind > HALF_WIDTH - 0.004 and off < 0.014:
            step = min(ahead + 0.004, STRIDE)
            return np.array([*(hand[:2] - sideways + forward * step), GRIP]), CLOSED
        start = centre - forward * PUSH_FROM
        return descend(start, hand, GRIP, CLOSED, room=0.012)


def index_of(thing: Thing, things: list[Thing]) -> int:
    """By identity: twins are equal."""
    return next(index for index, each in enumerate(things) if each is thing)


def is_held(thing: Thing, hand: np.ndarray, env: TableEnv, widest: float) -> bool:
    """Whether the closed fingers have the thing between them, at most `widest` metres apart."""
    gripped = HALF_WIDTH < env.opening() < widest
    between = np.abs(hand - (thing.x, thing.y, thing.z)) < HELD
    return bool(between.all()) and gripped and env.command == CLOSED


def grasp(thing: Thing, hand: np.ndarray) -> tuple[np.ndarray, float]:
    """Above the thing, down with open fingers, and close."""
    height = GRIP + thing.z - HALF_HEIGHT
    x, y, z = np.abs(hand - (thing.x, thing.y, height))
    above = np.array([thing.x, thing.y, height])
    if z < 0.015 and x < NEAR:
        # The thing is between the fingers, or will be when the hand slides along them.
        return above, CLOSED if y < 0.012 and z < 0.010 else OPENED
    return descend(above[:2], hand, height, OPENED, room=NEAR)


def descend(place: np.ndarray, hand, height: float, command: float, room: float):
    """Go down at a place. Away from it the hand rises first, and travels high."""
    away = float(np.abs(place - hand[:2]).max())
    if away < room:
        return np.array([*place, height]), command
    if hand[2] < height + 0.035:
        return np.array([hand[0], hand[1], height + HOVER]), command
    # The last steps over a place may already sink: only far away must the hand be high.
    level = max(HOVER, height + 0.05) if away > 2 * STRIDE else height + 0.05
    return np.array([*place, level]), command


# --- a control ---------------------------------------------------------------------------------


def without_words(task: Task, rng: np.random.Generator) -> Task:
    """What somebody would do who knows the verb and not the words: any order that is possible."""
    found = orders.possible(task.layout, task.order.verb)
    order, thing, other = pick(rng, found)
    return dataclasses.replace(task, order=order, thing=thing, other=other)
