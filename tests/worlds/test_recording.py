"""Recorded episodes: disturbed, with clean labels, and after mishaps."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from worlds.expert import Expert
from worlds.orders import VERBS
from worlds.recording import mishap, record
from worlds.table import STEPS, TableEnv
from worlds.tasks import sample_task


@pytest.fixture(scope="module")
def env():
    return TableEnv()


def drawn(verb: str, seed: int):
    rng = np.random.default_rng([seed, 1])
    return sample_task(rng, "val", verb), rng


def test_noise_disturbs_what_is_done_and_not_the_labels(env):
    done = 0
    for seed in range(5):
        task, rng = drawn("put", seed)
        rows = record(env, task, rng)
        difference = (rows["executed"] - rows["action"])[:, :3]
        assert 0.05 < difference.std() < 0.4
        assert len(rows["action"]) <= STEPS
        done += env.info()["ever"]
    assert done >= 4


def test_a_record_is_decided_by_its_seed(env):
    (first, one), (second, two) = drawn("stack", 0), drawn("stack", 0)
    rows, again = record(env, first, one), record(env, second, two)
    assert all((rows[name] == again[name]).all() for name in rows)


def test_fingers_are_flipped_rarely(env):
    flipped = []
    for seed in range(8):
        task, rng = drawn("put", seed)
        rows = record(env, task, rng)
        flipped += (rows["executed"][:, 3] != rows["action"][:, 3]).tolist()
    assert 0 < np.mean(flipped) < 0.06


@pytest.mark.parametrize("verb", VERBS)
def test_the_expert_recovers_from_mishaps(env, verb):
    done = 0
    for seed in range(8):
        task, rng = drawn(verb, seed)
        rows = record(env, task, rng, mishaps=1.0)
        done += bool(rows["done"][-1])
        assert len(rows["action"]) <= STEPS
    assert done >= 6  # a push is lost if the thing was lifted


def test_a_mishap_is_no_part_of_the_episode(env):
    task, rng = drawn("put", 0)
    env.reset(seed=0, options={"task": task})
    home = env.hand()
    seen = mishap(env, Expert(task, rng), rng)
    assert env.steps == 0 and not env.ever
    assert np.linalg.norm(seen["state"][:3] - home) > 0.02


def test_an_episode_without_a_mishap_begins_at_home(env):
    task, rng = drawn("put", 0)
    begins = record(env, task, rng)["state"][0]
    assert begins[2] > 0.1 and begins[3] > 0.06
