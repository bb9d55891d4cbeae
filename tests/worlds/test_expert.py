"""The expert: it does every verb, and its action depends on the moment alone."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from worlds import deeds
from worlds.expert import Expert, without_words
from worlds.orders import VERBS
from worlds.recording import ENDS, record
from worlds.table import TableEnv
from worlds.tasks import FREE_CHOICES, sample_task, twins_task


@pytest.fixture(scope="module")
def env():
    return TableEnv()


def drawn(kind: str, seed: int):
    """A task and its generator; kind: a verb, or a free choice."""
    rng = np.random.default_rng([seed, 1])
    split, verb = (kind, None) if kind in FREE_CHOICES else ("val", kind)
    return sample_task(rng, split, verb), rng


@pytest.mark.parametrize("kind", [*VERBS, *FREE_CHOICES])
def test_the_expert_does_it_and_touches_nothing_else(env, kind):
    for seed in range(3):
        task, rng = drawn(kind, seed)
        rows = record(env, task, rng, noise=False)
        steps = len(rows["action"])
        assert env.info()["done"] and env.info()["wrong"] == [], task.text
        assert rows["done"][-ENDS:].all() and not rows["done"][:-ENDS].any()
        assert rows["state"].shape == (steps, 8) and rows["action"].dtype == np.float32
        assert np.abs(rows["action"]).max() <= 1
        assert (rows["action"] == rows["executed"]).all()


def test_the_action_is_a_function_of_the_moment(env):
    task, rng = drawn("put", 4)
    env.reset(seed=0, options={"task": task})
    expert = Expert(task, rng)
    for _ in range(12):
        env.step(expert.act(env))
    fresh = Expert(task, np.random.default_rng(9))
    assert (fresh.act(env) == expert.act(env)).all()


def test_the_expert_takes_the_twin_that_the_task_names(env):
    rng = np.random.default_rng(0)
    layout = sample_task(rng, "twins").layout
    lifted = set()
    for _ in range(8):
        task = twins_task(rng, layout)
        record(env, task, rng, noise=False)
        lifted |= {
            index
            for index, peak in enumerate(env.peaks)
            if peak > layout.things[index].z + deeds.LIFTED
        }
    alike = {i for i, each in enumerate(layout.things) if len(layout.fitting(each.noun())) == 2}
    assert lifted == alike


def test_next_to_uses_several_sides(env):
    task, _ = drawn("next_to", 0)
    words = {Expert(task, np.random.default_rng(seed)).order.word for seed in range(30)}
    assert words == {"left of", "right of", "in front of", "behind"}


def test_the_gripper_is_flipped_if_it_is_told_so(env):
    task, rng = drawn("pick", 0)
    env.reset(seed=0, options={"task": task})
    expert = Expert(task, rng)
    wish = expert.wish(env)
    calm, other = expert.act(env), expert.toward(env, *wish, noise=(0.5, 0, 0), flip=True)
    assert other[3] == -calm[3] and other[0] == min(calm[0] + 0.5, 1) and other[1] == calm[1]


def test_without_words_keeps_the_verb_and_the_layout():
    rng = np.random.default_rng(0)
    task, _ = drawn("pick", 0)
    guesses = [without_words(task, rng) for _ in range(40)]
    assert {guess.order.verb for guess in guesses} == {"pick"}
    assert {guess.order.noun for guess in guesses} == {each.noun() for each in task.layout.things}
    assert dataclasses.replace(guesses[0], order=task.order, thing=task.thing, other=None) == task
