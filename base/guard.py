"""The guard: between a policy and an arm. What comes out never exceeds a limit, whatever came in.

In this order, and every change is counted by its kind:

    shape, nan    an action of another shape, or with numbers that are not finite: the arm holds
    workspace     a hand's target is cut to the box; joints whose hand would leave it do not move
    joints        each number of the action is cut to its lowest and highest value
    velocity      the way of this control step is cut
    acceleration  the change of that way since the last control step is cut
    braking       the way is cut so that the arm can still stop in front of its limits
    hard_stop     the arm was pushed, and stops faster than the acceleration allows

The guard is a plain class without a clock: state and action in, command and counts out. It counts
a way from the place that it commanded last (the reference), which never runs ahead of the arm by
more than the leash.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from base.limits import Limits

DUST = 1e-6  # what rounding to float32 may add: less is no cut
SHARES = (1.0, 0.5, 0.25, 0.0)  # of a way of joints that are tried before the arm stands still
CUTS = ("workspace", "joints", "velocity", "acceleration", "braking", "hard_stop")
FAULTS = ("shape", "nan", "state")
KINDS = (*FAULTS, *CUTS)

# From the places of joints (P,) to the hand's place (3,) in metres.
Kinematics = Callable[[np.ndarray], np.ndarray]


@dataclass
class Safe:
    """A command that may be sent. counts: 1 for each kind of change.

    command: (A,) float32; None while nobody knows where the joints are: send nothing.
    """

    command: np.ndarray | None
    counts: Counter = field(default_factory=Counter)


class Guard:
    """Holds the actions of one robot to its limits.

    rate: control steps per second of the robot's own time. speed: the share of the velocity and
    acceleration that is allowed. kinematics: needed to hold joints to a workspace.
    """

    def __init__(
        self,
        limits: Limits,
        rate: float,
        speed: float = 1.0,
        kinematics: Kinematics | None = None,
    ):
        self.limits, self.kinematics = limits, kinematics
        self.step_way = limits.velocity / rate * speed  # (P,) per control step
        self.step_change = limits.acceleration / rate**2 * speed  # (P,) per control step, twice
        self.low, self.high = limits.bounds()
        self.reference: np.ndarray | None = None  # (P,) the place that was commanded last
        self.way = np.zeros(limits.places)  # of the last control step
        self.rest = np.clip(np.zeros(limits.width), limits.low, limits.high)

    # --- one control step ----------------------------------------------------------------------

    def check(self, state: np.ndarray | None, action: np.ndarray | None) -> Safe:
        """The command of this control step.

        state: (S,), its first P numbers are places; None: it is not known. action: (A,) in the
        robot's units; None holds.
        The arm also holds if either is not what it should be.
        """
        counts: Counter = Counter()
        self.follow(state, counts)
        values = self.sound(action, counts)
        if self.reference is None:
            return Safe(None, counts)
        if values is None:  # slowing down for a hold is no cut
            way = self.slowed(np.zeros(self.limits.places), Counter())
        else:
            way = self.slowed(self.wanted(values, counts), counts)
        way = self.inside(way, counts)
        if (np.abs(way - self.way) > self.step_change + DUST).any():
            counts["hard_stop"] = 1
        self.way, self.reference = way, self.reference + way
        return Safe(self.told(way), counts)

    def stop(self) -> np.ndarray | None:
        """The command of an emergency stop, (A,): no way at all, whatever the acceleration.

        None while nobody knows where the joints are.
        """
        self.way = np.zeros(self.limits.places)
        if self.reference is None and self.limits.kind == "joints":
            return None
        return self.told(self.way)

    def anchor(self, state: np.ndarray) -> None:
        """Begin again from where the arm is, at rest."""
        self.reference = np.array(state[: self.limits.places], np.float64)
        self.way = np.zeros(self.limits.places)

    # --- its parts -----------------------------------------------------------------------------

    def follow(self, state, counts: Counter) -> None:
        """Keep the reference within the leash of the measured place."""
        places = self.limits.places
        try:
            measured = np.asarray(state, np.float64)
        except (TypeError, ValueError):
            measured = np.zeros(0)
        if measured.ndim != 1 or len(measured) < places or not np.isfinite(measured[:places]).all():
            counts["state"] = 1
            return
        measured = measured[:places]
        if self.reference is None:
            self.reference = measured.copy()
        leash = self.limits.leash
        self.reference = np.clip(self.reference, measured - leash, measured + leash)

    def sound(self, action, counts: Counter) -> np.ndarray | None:
        """The action as (A,) float64, its numbers cut to low and high; None if it is not sound."""
        if action is None or counts["state"]:
            return None
        try:
            values = np.asarray(action, np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape != (self.limits.width,):
            counts["shape"] = 1
            return None
        if not np.isfinite(values).all():
            counts["nan"] = 1
            return None
        return values

    def wanted(self, values: np.ndarray, counts: Counter) -> np.ndarray:
        """The way that an action asks for, within the box and the joints' limits: (P,)."""
        assert self.reference is not None
        limits, places = self.limits, self.limits.places
        inside = np.clip(values, limits.low, limits.high)
        if limits.kind == "hand":
            assert limits.metres is not None
            target = self.reference + inside[:places] * limits.metres
            boxed = np.clip(target, self.low, self.high)
            note(counts, "workspace", target, boxed)
            target = boxed
        else:
            target = inside
        note(counts, "joints", values, inside)
        self.rest = inside
        return target - self.reference

    def slowed(self, way: np.ndarray, counts: Counter) -> np.ndarray:
        """A way within velocity and acceleration that still lets the arm stop in time: (P,)."""
        assert self.reference is not None
        slow = np.clip(way, -self.step_way, self.step_way)
        note(counts, "velocity", way, slow)
        smooth = np.clip(slow, self.way - self.step_change, self.way + self.step_change)
        note(counts, "acceleration", slow, smooth)
        # From outside of the limits, the only way is back.
        ahead = braking(self.high - self.reference, self.step_change)
        behind = braking(self.reference - self.low, self.step_change)
        stoppable = np.clip(smooth, -behind, ahead)
        note(counts, "braking", smooth, stoppable)
        return stoppable

    def inside(self, way: np.ndarray, counts: Counter) -> np.ndarray:
        """The way of joints, or a part of it, that keeps the hand in its box: (P,).

        The hand must be inside after this step, and after slowing down from it. The way that only
        slows down was held to this one step ago.
        """
        box = self.limits.workspace
        if self.kinematics is None or box is None or self.limits.kind == "hand":
            return way
        assert self.reference is not None
        slowest = np.sign(self.way) * np.maximum(np.abs(self.way) - self.step_change, 0)
        now = beyond(self.kinematics(self.reference), box)
        for share in SHARES:
            part = slowest + share * (way - slowest)
            stop = part + coasting(part, self.step_change)
            out = max(beyond(self.kinematics(self.reference + each), box) for each in (part, stop))
            # A hand that was pushed out of its box may come back.
            if out == 0 or out < now:
                if share < 1:
                    counts["workspace"] = 1
                return part
        counts["workspace"] = 1
        return np.zeros_like(way)

    def told(self, way: np.ndarray) -> np.ndarray:
        """The command that goes this way: (A,) float32, in the robot's units."""
        limits, places = self.limits, self.limits.places
        command = self.rest.copy()
        if limits.kind == "hand":
            assert limits.metres is not None
            # Rounding to float32 may not lead over the edge.
            command[:places] = np.clip(
                way / limits.metres, limits.low[:places], limits.high[:places]
            )
        elif self.reference is not None:
            command = self.reference.copy()
        return command.astype(np.float32)


def note(counts: Counter, kind: str, before: np.ndarray, after: np.ndarray) -> None:
    """Count a change of this kind, if there was one."""
    if (np.abs(before - after) > DUST).any():
        counts[kind] = 1


def braking(room: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The longest way in this step after which the arm can stop within `room`: (P,), at least 0.

    A way w is followed by w - change, w - 2 change and so on, down to 0. With n steps of slowing
    down, all of it is (n + 1) w - change n (n + 1) / 2, and n change <= w <= (n + 1) change.
    """
    room = np.maximum(room, 0)
    steps = np.floor((np.sqrt(1 + 8 * room / change) - 1) / 2)
    return (room + change * steps * (steps + 1) / 2) / (steps + 1)


def coasting(way: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The way after this step until the arm stands, if it slows down as fast as it may: (P,)."""
    size = np.abs(way)
    steps = np.floor(size / change)
    return np.sign(way) * (steps * size - change * steps * (steps + 1) / 2)


def beyond(place: np.ndarray, box: np.ndarray) -> float:
    """Metres by which a place (3,) is outside of a box (2, 3); 0 inside."""
    return float(np.maximum(np.maximum(box[0] - place, place - box[1]), 0).max())
