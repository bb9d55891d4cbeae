"""Episodes of an expert, disturbed, as demonstrations.

The expert's action depends on the present moment alone. So it recovers from whatever happens, and
its recoveries are worth recording: `record` disturbs the executed actions and keeps the
undisturbed labels (DART, Laskey et al. 2017, arXiv 1703.09327).

A disturbance of every step does not bring the arm where a policy gets by a mistake: empty fingers
at the goal, say. A policy that never saw such a moment stays there until the episode ends. So a
share of the episodes begins after a mishap: something went wrong in steps that nobody kept.
"""

import numpy as np

from worlds import orders
from worlds.expert import GRIP, HOVER, Expert
from worlds.layouts import REACH
from worlds.table import CLOSED, OPENED, TableEnv
from worlds.tasks import Task

ENDS = 4  # steps that a record goes on after the first step that is done
NOISE = (0.15, 0.35)  # standard deviations of the disturbance, as shares of an action's range
FLIPS = 0.02  # share of the steps in which the gripper does the opposite
BEFORE = 20  # steps of the expert before a mishap, at most
ASTRAY = (2, 9)  # steps of a mishap: from, and below
ASIDE = 0.015  # metres: deviation of a mishap's place from the thing, or from its goal


def record(
    env: TableEnv,
    task: Task,
    rng: np.random.Generator,
    noise: bool = True,
    mishaps: float = 0.0,
    make: type[Expert] = Expert,
) -> dict:
    """An episode of the expert, as arrays with one row per step.

    noise: disturb the executed actions, by a strength that is drawn per episode. mishaps: the
    chance that the episode begins after a mishap. make: the expert of the arm.

    state (T, S), things (T, N, 3), images if the table has images: before the action. action
    (T, A): what the expert wants. executed (T, A): what was done. done (T,) bool: after the
    action. It ends ENDS steps after the order is done, or when the episode does.
    """
    seen, _ = env.reset(seed=int(rng.integers(2**32)), options={"task": task})
    expert = make(task, rng)
    sigma = float(rng.uniform(*NOISE)) if noise else 0.0
    if mishaps and rng.random() < mishaps:
        seen = mishap(env, expert, rng)
    rows: dict[str, list] = {name: [] for name in (*seen, "action", "executed", "done")}
    after = 0
    while after < ENDS:
        wish = expert.wish(env)
        action = executed = expert.toward(env, *wish)
        if noise:
            pushed, flip = rng.normal(0, sigma, 3), bool(rng.random() < FLIPS)
            executed = expert.toward(env, *wish, pushed, flip)
        for name, value in seen.items():
            rows[name].append(value)
        seen, _, _, truncated, info = env.step(executed)
        rows["action"].append(action)
        rows["executed"].append(executed)
        rows["done"].append(info["done"])
        after = after + 1 if info["done"] else 0
        if truncated:
            break
    return {name: np.stack(values) for name, values in rows.items()}


def mishap(env: TableEnv, expert: Expert, rng: np.random.Generator) -> dict:
    """Something goes wrong: what is seen then, and the episode begins anew at this moment.

    The expert acts for a while. Then the hand goes near the thing, near its goal or anywhere, with
    open or closed fingers. So it may miss the thing, drop it, push it, or arrive without it.
    """
    seen = env.seen()
    for _ in range(int(rng.integers(BEFORE + 1))):
        seen, *_ = env.step(expert.act(env))
    place, command = astray(env, expert, rng), (OPENED, CLOSED)[int(rng.integers(2))]
    for _ in range(int(rng.integers(*ASTRAY))):
        seen, *_ = env.step(expert.toward(env, place, command))
    env.steps, env.ever = 0, False
    return seen


def astray(env: TableEnv, expert: Expert, rng: np.random.Generator) -> np.ndarray:
    """Where the hand goes by mistake: (3,) metres."""
    everything = env.truth().now.everything()
    thing = everything[expert.thing]
    other = None if expert.other is None else everything[expert.other]
    near = [
        (thing.x, thing.y),
        orders.goal(expert.order, thing, other),
        tuple(rng.uniform(-REACH, REACH, 2)),
    ]
    x, y = near[int(rng.integers(len(near)))] + rng.normal(0, ASIDE, 2)
    return np.array([x, y, rng.uniform(GRIP, 2 * HOVER)])
