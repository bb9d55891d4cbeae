"""Orders: every wording is read back as itself, and goals lie where their words say."""

import dataclasses

import numpy as np
import pytest

from worlds import orders
from worlds.layouts import Layout, Thing, sample_layout
from worlds.orders import NEXT_TO, RELATIONS, SIDES, VERBS, WORDINGS, NotAnOrder, Order, read
from worlds.reader import Noun

RED_STAR, STAR, RED = Noun(colour="red", shape="star"), Noun(shape="star"), Noun(colour="red")
NOUNS = [RED_STAR, STAR, RED]
ORDERS = [
    *(Order("pick", noun) for noun in NOUNS),
    *(Order("put", noun, "on", Noun(colour="blue", shape="plate")) for noun in NOUNS),
    *(Order("put", noun, "in", Noun(shape="tray")) for noun in NOUNS),
    *(Order("put", noun, word, Noun(colour="blue")) for noun in NOUNS for word in RELATIONS),
    Order("put", RED_STAR, NEXT_TO, Noun(colour="blue", shape="heart")),
    *(Order("push", noun, word) for noun in NOUNS for word in SIDES),
    *(Order("stack", noun, "", Noun(colour="blue", shape="heart")) for noun in NOUNS),
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_wording_is_read_back_as_the_order(order):
    for wording in WORDINGS[order.verb]:
        for words in orders.WORDS_OF.get(order.word, [""]):
            nouns = {"x": orders.say(order.noun), "y": orders.say(order.other)}
            text = wording.format(**nouns, w=words)
            assert read(text) == order, text


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_training_and_held_out_wordings_are_apart(order):
    rng = np.random.default_rng(0)
    seen = {orders.write(order, rng) for _ in range(300)}
    held = {orders.write(order, rng, held=True) for _ in range(100)}
    assert not seen & held


def test_no_wording_is_dead():
    for verb in VERBS:
        assert len(set(WORDINGS[verb])) == len(WORDINGS[verb])
        order = next(each for each in ORDERS if each.verb == verb)
        shapes = len(orders.WORDS_OF.get(order.word, [""]))
        rng = np.random.default_rng(0)
        held = {orders.write(order, rng, held) for held in (False, True) for _ in range(600)}
        assert len(held) == len(WORDINGS[verb]) * shapes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pick",
        "pick up star",
        "pick up the dog",
        "pick up the tray",
        "pick up the red star now",
        "put the star on the heart",
        "put the star in front the heart",
        "put the star to the left",
        "push the star behind the heart",
        "stack the star on the tray",
        "push the plate to the left",
    ],
)
def test_what_is_no_order_is_refused(text):
    with pytest.raises(NotAnOrder):
        read(text)


def test_a_goal_makes_its_claim_true():
    other = Thing("heart", "blue", 0.02, -0.03)
    for word in RELATIONS:
        order = Order("put", RED_STAR, word, other.noun())
        x, y = orders.goal(order, Thing("star", "red"), other)
        assert orders.is_true(order, Thing("star", "red", x, y), other)
        assert orders.is_true(
            dataclasses.replace(order, word=NEXT_TO), Thing("star", "red", x, y), other
        )
        opposite = {"left of": "right of", "in front of": "behind"}
        for one, two in opposite.items():
            if word in (one, two):
                wrong = dataclasses.replace(order, word=two if word == one else one)
                assert not orders.is_true(wrong, Thing("star", "red", x, y), other)
    for word in SIDES:
        order = Order("push", RED_STAR, word)
        x, y = orders.goal(order, Thing("star", "red", 0.01, 0.01), None)
        assert orders.is_true(order, Thing("star", "red", x, y), None)
        assert not orders.is_true(order, Thing("star", "red", 0.01, 0.01), None)


def test_what_is_possible_is_not_done_yet_and_has_room():
    for seed in range(15):
        layout = sample_layout(np.random.default_rng(seed))
        for verb in VERBS:
            for order, thing, other in orders.possible(layout, verb):
                assert order.verb == verb and layout.fitting(order.noun) == [thing]
                x, y = orders.goal(order, thing, other)
                assert orders.reachable(x, y)
                if verb in ("put", "push"):
                    assert not orders.is_true(order, thing, other)
                    assert orders.is_free(layout, x, y, [thing, other])


def test_every_layout_admits_three_orders_of_picking_and_stacking():
    for seed in range(15):
        layout = sample_layout(np.random.default_rng(seed), number=3)
        assert len(orders.possible(layout, "pick")) == 3
        assert len(orders.possible(layout, "stack")) == 6


def test_short_nouns_name_one_thing():
    things = [Thing("star", "red"), Thing("star", "blue"), Thing("heart", "green")]
    layout = Layout(things, [Thing("tray", "red")])
    assert orders.short_nouns(layout, things[0]) == [RED_STAR, RED]
    assert orders.short_nouns(layout, layout.zones[0]) == [
        Noun(colour="red", shape="tray"),
        Noun(shape="tray"),
    ]
