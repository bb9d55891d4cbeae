"""Layouts: a seed decides them, everything has room, and what is held out stays out."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worlds import layouts
from worlds.layouts import Layout, Thing, as_scene, layout_from_dict, sample_layout
from worlds.reader import Noun
from worlds.scenes import held_pair

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_a_seed_decides_the_layout_and_json_keeps_it(seed):
    layout, again = (sample_layout(np.random.default_rng(seed)) for _ in range(2))
    assert layout == again == layout_from_dict(json.loads(json.dumps(layout.to_dict())))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([None, 3, 6]))
def test_everything_has_room(seed, number):
    layout = sample_layout(np.random.default_rng(seed), number=number)
    assert len(layout.things) == (number or len(layout.things)) and len(layout.zones) == 2
    everything = layout.everything()
    for index, thing in enumerate(everything):
        assert max(abs(thing.x), abs(thing.y)) <= layouts.REACH
        for other in everything[:index]:
            assert thing.away(other.x, other.y) > layouts.APART


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_no_two_things_are_alike_and_no_pair_is_held_out(seed):
    layout = sample_layout(np.random.default_rng(seed))
    kinds = [(thing.colour, thing.shape) for thing in layout.things]
    assert len(set(kinds)) == len(kinds)
    assert not any(held_pair(*kind) for kind in kinds)


def test_exactly_one_thing_has_a_held_out_pair_when_asked_for():
    for seed in range(20):
        layout = sample_layout(np.random.default_rng(seed), held=True)
        assert sum(held_pair(thing.colour, thing.shape) for thing in layout.things) == 1


def test_adversarial_layouts_have_a_distractor_for_each_word():
    for seed in range(20):
        things = sample_layout(np.random.default_rng(seed), adversarial=True).things
        assert any(
            sum(each.colour == thing.colour for each in things) > 1
            and sum(each.shape == thing.shape for each in things) > 1
            for thing in things
        )


def test_twins_are_two():
    layout = sample_layout(np.random.default_rng(0), twins=True)
    alike = [thing for thing in layout.things if len(layout.fitting(thing.noun())) == 2]
    assert len(alike) == 2 and alike[0].noun() == alike[1].noun()


def test_the_interesting_thing_can_stand_at_any_place_of_the_list():
    first = set()
    for seed in range(40):
        things = sample_layout(np.random.default_rng(seed), number=3, held=True).things
        first |= {i for i, thing in enumerate(things) if held_pair(thing.colour, thing.shape)}
    assert first == {0, 1, 2}


@pytest.mark.parametrize(
    ("noun", "found"),
    [
        (Noun(shape="star"), [0]),
        (Noun(colour="red"), [0, 1]),
        (Noun(colour="red", shape="tray"), [2]),
        (Noun(shape="heart"), []),
    ],
)
def test_the_red_thing_is_no_zone(noun, found):
    things = [Thing("star", "red"), Thing("cross", "red"), Thing("tray", "red")]
    layout = Layout(things[:2], things[2:])
    assert layout.fitting(noun) == [things[index] for index in found]


def test_the_scene_of_a_table_has_up_as_away_from_the_viewer():
    scene = as_scene(Layout([Thing("star", "red", 0.12, 0.12)], [Thing("tray", "blue")]))
    assert [each.shape for each in scene.objects] == ["tray", "star"]
    assert scene.objects[1].x == pytest.approx(0.75) and scene.objects[1].y == pytest.approx(0.25)
