"""The table: a seed decides an episode, the hand obeys, and the truth is what physics says."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from base.errors import UserError
from worlds import table, table_model
from worlds.layouts import HALF_HEIGHT
from worlds.table import STEPS, STRIDE, TableEnv
from worlds.tasks import sample_task

STAY = np.array([0, 0, 0, -1], np.float32)


@pytest.fixture(scope="module")
def env():
    return TableEnv()


def episode(env, seed: int) -> list:
    seen, info = env.reset(seed=seed, options={"split": "val"})
    rng = np.random.default_rng(seed)
    rows = [np.concatenate([seen["state"], seen["things"].ravel()])]
    for _ in range(5):
        seen, *_ = env.step(rng.uniform(-1, 1, 4))
        rows.append(np.concatenate([seen["state"], seen["things"].ravel()]))
    return [info["text"], np.array(rows)]


def test_a_seed_decides_the_episode(env):
    (text, rows), (again, same), (_, other) = (episode(env, seed) for seed in (1, 1, 2))
    assert text == again and (rows == same).all()
    assert other.shape != rows.shape or (other != rows).any()


def test_what_is_seen_fits_the_spaces(env):
    for seed in range(3):
        seen, _ = env.reset(seed=seed)
        assert env.observation_space.contains(seen)
        assert env.action_space.contains(STAY)
        assert seen["things"] == pytest.approx(
            np.array([[each.x, each.y, each.z] for each in env.task.layout.everything()]), abs=1e-6
        )


def test_the_hand_moves_by_the_stride_and_stops(env):
    env.reset(seed=0)
    before = env.hand()
    for _ in range(2):
        env.step([-1, -1, 0.5, -1])
    seen, *_ = env.step(STAY)
    assert env.hand() - before == pytest.approx(np.array([-2, -2, 1]) * STRIDE, abs=0.002)
    assert np.abs(seen["state"][5:]).max() < 0.01
    assert seen["state"][3] == pytest.approx(2 * table_model.GAP, abs=0.001)
    seen, *_ = env.step([0, 0, 0, 1])
    assert seen["state"][4] == 1 and seen["state"][3] < 0.005


def test_the_hand_stays_in_its_space_and_no_debt_grows(env):
    env.reset(seed=0)
    for _ in range(20):
        env.step([1, 1, 1, -1])
    assert env.hand() == pytest.approx(table_model.HIGH, abs=0.002)
    env.step([-1, -1, -1, -1])
    assert env.hand() == pytest.approx(table_model.HIGH - STRIDE, abs=0.004)


def test_nothing_moves_by_itself(env):
    env.reset(seed=3, options={"split": "crowd"})
    for step in range(STEPS):
        seen, reward, terminated, truncated, info = env.step(STAY)
        assert truncated == (step == STEPS - 1) and not terminated and reward == 0
    start = np.array([[each.x, each.y, each.z] for each in env.task.layout.things])
    assert env.places() == pytest.approx(start, abs=5e-4)
    truth = env.truth()
    assert truth.now.things[0].z == pytest.approx(HALF_HEIGHT, abs=5e-4)
    assert truth.start is env.task.layout and info["wrong"] == []


@pytest.mark.parametrize(
    "action", [[0, 0, 0], [0, 0, 0, np.nan], [[0, 0, 0, 0]], [0, np.inf, 0, 0]]
)
def test_a_bad_action_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(UserError, match="4 finite numbers"):
        env.step(action)


def test_bad_options_and_a_step_before_a_reset_are_refused(env):
    with pytest.raises(UserError, match="reset options"):
        env.reset(options={"splitt": "val"})
    with pytest.raises(UserError, match="reset options"):
        env.reset(options={"verb": "eat"})
    with pytest.raises(UserError, match="the split 'vall'"):
        env.reset(options={"split": "vall"})
    with pytest.raises(UserError, match="a step before a reset"):
        TableEnv().step(STAY)
    with pytest.raises(UserError, match="without images"):
        env.picture()


def test_a_task_can_be_given_and_is_not_changed(env):
    task = sample_task(np.random.default_rng(0), "val", "push")
    before = task.layout.to_dict()
    env.reset(seed=0, options={"task": task})
    for _ in range(5):
        env.step([0, -1, -1, 1])
    assert env.task is task and task.layout.to_dict() == before


def test_without_the_modules_the_table_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(table_model.importlib, "import_module", missing)
    with pytest.raises(UserError, match="pip install -r requirements-robot.txt"):
        table.TableEnv()
