"""Sayings: they are true, a function of the step, learnt by heart, and judged."""

import numpy as np
import pytest

from robot import data, sayings, stills
from worlds import layouts, tasks


def drawn(number: int) -> layouts.Layout:
    return stills.sample_still(np.random.default_rng([7, number]), "val").layout


def test_every_saying_is_true_and_has_known_words():
    own = sayings.tokenizer()
    for number in range(200):
        layout = drawn(number)
        text = sayings.say(layout, np.random.default_rng(number))
        assert sayings.judged(text, layout).true, text
        ids = sayings.encode(own, text)
        assert own.unk not in ids and len(ids) < sayings.LONGEST
        assert own.decode(ids).strip() == text


def test_a_layout_is_rebuilt_from_the_arrays_of_a_still():
    for number in range(20):
        layout = drawn(number)
        again = sayings.layout_of(stills.kinds_of(layout), stills.places_of(layout))
        names = [thing.name() for thing in layout.everything()]
        assert sorted(thing.name() for thing in again.everything()) == sorted(names)
        by_name = {thing.name(): thing for thing in again.things}
        for thing in layout.things:
            if names.count(thing.name()) == 1:
                assert by_name[thing.name()].x == pytest.approx(thing.x, abs=1e-6)


def test_untrue_sentences_are_found():
    layout = drawn(0)
    first = layout.things[0]
    assert sayings.judged(f"a {first.colour} {first.shape}", layout).true
    absent = next(
        shape for shape in layouts.SHAPES if shape not in {t.shape for t in layout.things}
    )
    assert not sayings.judged(f"a {first.colour} {absent}", layout).true
    assert not sayings.judged("star a a", layout).true
    table = sayings.share_true([sayings.Said("a", True), sayings.Said("b", False)])
    assert table["true"] == 0.5 and table["sayings"] == 2


def test_a_batch_is_a_function_of_the_generator(robot_world):
    own = sayings.Sayings(data.RobotData(robot_world / "data").stills)
    one, same, other = (own.batch(np.arange(6), np.random.default_rng(n)) for n in (0, 0, 1))
    assert (one["tokens"] == same["tokens"]).all()
    assert one["tokens"].shape != other["tokens"].shape or (one["tokens"] != other["tokens"]).any()
    lengths = (one["tokens"] != own.tokenizer.pad).sum(1)
    assert (lengths == one["lengths"]).all()


def test_one_thing_alone_is_named():
    task = tasks.sample_task(np.random.default_rng(0), "val", "pick")
    layout = layouts.Layout(task.layout.things[:1], [])
    assert layout.things[0].shape in sayings.say(layout, np.random.default_rng(0))
