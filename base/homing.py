"""A run begins at home: the arm is there, or it moves there first, slowly and guarded."""

from collections.abc import Callable

import numpy as np

from base.errors import UserError
from base.guard import Guard
from base.limits import Limits
from base.robots import Clock, Robot

SPEED = 0.2  # share of the velocity on the way home


def away_from_home(limits: Limits, state: np.ndarray) -> np.ndarray:
    """How far each place is outside of the tolerance around home: (P,), 0 inside."""
    distance = np.abs(state[: limits.places] - limits.pose)
    return np.maximum(distance - limits.tolerance, 0)


def check_home(limits: Limits, state: np.ndarray) -> None:
    """Raise UserError unless the arm is at home."""
    away = away_from_home(limits, state)
    if away.any() or not np.isfinite(away).all():
        worst = int(np.argmax(np.nan_to_num(away / limits.tolerance, nan=np.inf)))
        name, at, home = limits.names[worst], state[worst], limits.pose[worst]
        raise UserError(
            f"an arm that is not at home: {name} is {at:.3f}",
            f"{home:.3f}, give or take {limits.tolerance[worst]:g}",
            "move it there by hand, or start with --home",
        )


def go_home(
    robot: Robot,
    limits: Limits,
    clock: Clock,
    hz: float,
    stopped: Callable[[], bool],
    seconds: float = 30.0,
) -> None:
    """Move home in a straight line, at a fifth of the speed.

    The guard holds this way to the limits too, but nothing looks where it goes. Raises UserError
    if it takes longer, or if somebody stopped it.
    """
    guard = Guard(limits, robot.rate, SPEED, robot.kinematics)
    begun = due = clock.now()
    while clock.now() - begun < seconds and not stopped():
        state = robot.observe()
        near = bool((np.abs(state[: limits.places] - limits.pose) <= limits.tolerance / 2).all())
        safe = guard.check(state, None if near else homeward(limits, state))
        if safe.command is not None:
            robot.act(safe.command)
        if near and not guard.way.any():
            return
        due += 1 / hz
        clock.wait_until(due)
    command = guard.stop()
    if command is not None:
        robot.act(command)
    why = "it was stopped" if stopped() else f"it took {seconds:g} s"
    raise UserError(f"an arm that is not at home: {why}", "home", "look at what blocks it")


def homeward(limits: Limits, state: np.ndarray) -> np.ndarray:
    """The action that leads straight home: (A,) in the robot's units."""
    if limits.kind == "joints":
        return limits.pose
    assert limits.metres is not None
    action = np.clip(np.zeros(limits.width), limits.low, limits.high)
    action[: limits.places] = (limits.pose - state[: limits.places]) / limits.metres
    return action
