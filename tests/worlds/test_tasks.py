"""Tasks: every split keeps its promise, and training never shows or says what is held out."""

from collections import Counter

import numpy as np
import pytest

from base.errors import UserError
from worlds import orders, tasks
from worlds.layouts import SPLITS
from worlds.orders import NEXT_TO, VERBS
from worlds.scenes import held_pair
from worlds.tasks import FREE_CHOICES, sample_task, swapped

MANY = 60


def sampled(split: str, verb: str | None = None, number: int = MANY):
    return [sample_task(np.random.default_rng([3, seed]), split, verb) for seed in range(number)]


def has_held_pair(task) -> bool:
    return any(held_pair(thing.colour, thing.shape) for thing in task.layout.things)


def is_held_wording(text: str) -> bool:
    """Whether only a held-out wording says this."""
    order = orders.read(text)
    rng = np.random.default_rng(0)
    return text not in {orders.write(order, rng) for _ in range(400)}


def relation_of(task) -> bool:
    """Whether the order's two things, with both words, are in a held-out relation."""
    order = orders.Order(
        task.order.verb,
        task.thing.noun(),
        task.order.word,
        task.other.noun() if task.other else orders.Noun(),
    )
    return orders.is_held_relation(order)


@pytest.mark.parametrize("split", ["train", *SPLITS, *FREE_CHOICES])
def test_words_and_things_agree(split):
    for task in sampled(split):
        assert orders.read(task.text.removeprefix(tasks.AROUND)) == task.order
        fitting = task.layout.fitting(task.order.noun)
        assert any(each is task.thing for each in fitting)
        assert len(fitting) == (2 if split == "twins" else 1)
        if task.other is not None:
            assert task.layout.fitting(task.order.other) == [task.other]
        assert (task.other is None) == (task.order.verb in ("pick", "push"))


@pytest.mark.parametrize(
    "split", ["train", "val", "held_wording", "adversarial", "crowd", "camera"]
)
def test_no_other_split_shows_a_held_out_pair_or_says_a_held_out_relation(split):
    for task in sampled(split):
        assert not has_held_pair(task)
        assert not relation_of(task)


def test_training_says_no_held_out_wording_and_some_single_words():
    found = sampled("train", number=150)
    assert not any(is_held_wording(task.text) for task in found)
    short = [task for task in found if not (task.order.noun.colour and task.order.noun.shape)]
    assert 0.2 < len(short) / len(found) < 0.6


def test_each_split_keeps_its_promise():
    for task in sampled("held_pair"):
        assert held_pair(task.thing.colour, task.thing.shape)
    assert all(relation_of(task) for task in sampled("held_relation"))
    assert all(is_held_wording(task.text) for task in sampled("held_wording", number=25))
    assert all(len(task.layout.things) == 6 for task in sampled("crowd"))
    for task in sampled("adversarial"):
        others = [each for each in task.layout.things if each is not task.thing]
        assert any(each.colour == task.thing.colour for each in others)
        assert any(each.shape == task.thing.shape for each in others)
    assert all(len(task.layout.fitting(task.order.noun)) == 2 for task in sampled("twins"))
    assert all(task.order.word == NEXT_TO for task in sampled("next_to"))


def test_every_twin_and_every_thing_is_chosen():
    places = Counter()
    for task in sampled("val", "pick", 120):
        places[next(i for i, each in enumerate(task.layout.things) if each is task.thing)] += 1
    assert set(places) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_can_be_asked_for(verb):
    assert {task.order.verb for task in sampled("val", verb, 10)} == {verb}


def test_verbs_have_their_shares():
    shares = Counter(task.order.verb for task in sampled("train", number=300))
    for verb, share in tasks.VERB_WEIGHTS.items():
        assert abs(shares[verb] / 300 - share) < 0.09


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="the split 'vall'"):
        sample_task(np.random.default_rng(0), "vall")


def test_a_seed_decides_the_task():
    first, second = (sample_task(np.random.default_rng(5), "train") for _ in range(2))
    assert first == second


def test_swapped_keeps_layout_and_verb_and_changes_the_thing():
    rng = np.random.default_rng(0)
    for task in sampled("val", number=20):
        other = swapped(rng, task)
        if other is not None:
            assert other.layout is task.layout and other.order.verb == task.order.verb
            assert other.thing is not task.thing and not relation_of(other)


@pytest.mark.parametrize(
    "text",
    [
        "pick up the red star",
        "Please put the heart in the blue tray.",
        "stack the green thing on the black cross",
        "slide the circle to the left",
        "move the pink square behind the orange heart",
    ],
)
def test_a_typed_order_finds_its_table(text):
    task = tasks.task_for(np.random.default_rng(0), text)
    assert task.layout.fitting(task.order.noun) == [task.thing]
    if task.other is not None:
        assert task.layout.fitting(task.order.other) == [task.other]
    assert orders.can_be_done(task.layout, task.order, task.thing, task.other)


@pytest.mark.parametrize(
    "text", ["dance", "", "pick up the purple dinosaur", "stack the red star on the red star"]
)
def test_what_is_no_order_is_refused(text):
    with pytest.raises(UserError, match="order"):
        tasks.task_for(np.random.default_rng(0), text)
