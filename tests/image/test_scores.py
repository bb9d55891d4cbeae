"""What a reader saw: figures that can be counted by hand."""

import dataclasses

import pytest

from image import scores
from worlds.collection import Scenes, sample
from worlds.scenes import Object, Scene

RED = Object("circle", "red", "large", "solid", 0.5, 0.5, 0.2)
STAR = Object("star", "blue", "small", "outlined", 0.52, 0.5, 0.08)
TRUE = Scene([RED, STAR])


def changed(**values) -> Scene:
    return Scene([RED, dataclasses.replace(STAR, **values)])


def test_a_perfect_reader_is_right_everywhere():
    true = [sample(split, n, Scenes(captions=1))[0] for split in ("val", "long") for n in range(20)]
    mixed = [Scene(scene.objects[::-1]) for scene in true]
    figures = scores.seen_figures(mixed, true)
    names = ("attributes", *scores.OF_OBJECTS, *scores.OF_PICTURES)
    assert [figures[name] for name in names] == [1.0] * len(names)
    assert scores.ratios(mixed, true, true)["attributes"] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "seen, expected",
    [
        (changed(colour="red"), {"recall": 1, "colour": 0.5, "shape": 1, "set_exact": 0}),
        (changed(fill="solid"), {"fill": 0.5, "set_exact": 1, "all_exact": 0, "attributes": 7 / 8}),
        (changed(x=0.9), {"recall": 0.5, "size": 0.5, "set_exact": 1}),
        (Scene([RED]), {"recall": 0.5, "attributes": 0.5, "set_exact": 0}),
        (Scene([RED, STAR, STAR]), {"recall": 1, "attributes": 1, "set_exact": 0}),
        (Scene(), {"recall": 0, "attributes": 0, "all_exact": 0}),
    ],
)
def test_each_mistake_is_counted(seen, expected):
    figures = scores.seen_figures([seen], [TRUE])
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_ratios_are_of_sums():
    seen = [TRUE, changed(colour="red"), Scene()] * 5
    ratio, low, high = scores.ratios(seen, [TRUE] * 15, [TRUE] * 15)["attributes"]
    assert ratio == pytest.approx((8 + 7 + 0) / 24) and low < ratio < high
    assert scores.ratios(seen, [Scene()] * 15, [TRUE] * 15) == {}  # a reader that is never right


def test_captions_are_judged_on_what_was_seen():
    texts = ["a red circle", "a blue star", "a red star"]
    figures = scores.claim_figures(texts, [TRUE] * 3)
    assert figures["captions"] == 3 and figures["truthful"] == pytest.approx(2 / 3)
    assert figures["claims"] == pytest.approx(5 / 6) and figures["grammatical"] == 1
    low, high = figures["truthful_ci95"]
    assert low < 2 / 3 < high
    scene, captions = sample("val", 1, Scenes())
    assert scores.claim_figures(captions, [scene] * len(captions))["truthful"] == 1


def test_verdicts():
    assert scores.verdict("a red circle", Scene([RED])) == {"true": True, "notes": []}
    wrong = scores.verdict("a red star", Scene([RED]))
    assert wrong["true"] is False and wrong["notes"][0].startswith("not so: ")
    assert scores.verdict("so what", Scene([RED]))["true"] is None
