"""Captions of clips are read back as they were meant, and say an order only where it is clear."""

import numpy as np
import pytest

from worlds import motion
from worlds import motion_language as language
from worlds.motion_judge import judge
from worlds.motion_language import Deed, Order, parse
from worlds.motion_sampling import SPLITS, sample
from worlds.reader import Noun, Ungrammatical

CIRCLE, SQUARE = Noun(colour="red", shape="circle"), Noun(colour="blue", shape="square")
ORDER_WORDS = ("then", "before", "after", "while")


def words_of(texts: list[str]) -> set[str]:
    return {word for text in texts for word in text.replace(",", " ").split()}


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_read_and_true(split):
    for number in range(12):
        program = sample(3, split, number)
        for text in language.several(program, np.random.default_rng(number), 4):
            verdict = judge(text, program)
            assert verdict["truthful"] and verdict["exact"], (text, verdict)


def test_order_words_only_where_the_order_is_clear():
    seen = set()
    for number in range(80):
        program = sample(4, "train", number)
        texts = language.several(program, np.random.default_rng(number), 8)
        said = words_of(texts) & set(ORDER_WORDS)
        word = motion.order(*program.events) if len(program.events) == 2 else None
        seen.add(word)
        if word is None:
            assert not said, texts
        elif word == "while":
            assert said <= {"while"}
        else:
            gap = abs(program.events[0].middle - program.events[1].middle)
            assert gap >= 2 and "while" not in said and " and a" not in " ".join(texts)
    assert seen == {None, "while", "before", "after"}


def test_the_reader_by_hand():
    told = parse("a red circle moves to the left and stops, then the blue square vanishes")
    assert told.deeds == [Deed(CIRCLE, "left", stops=True), Deed(SQUARE, "disappears")]
    assert told.orders == [Order(0, "before", 1)]
    orders = {
        "a red circle grows before a blue square grows": Order(0, "before", 1),
        "a red circle grows after a blue square grows": Order(1, "before", 0),
        "after a red circle grows, a blue square grows": Order(0, "before", 1),
        "before a red circle grows, a blue square grows": Order(1, "before", 0),
        "a red circle grows while a blue square grows": Order(0, "while", 1),
    }
    for text, order in orders.items():
        assert parse(text).orders == [order], text
    assert parse("a red circle grows and a blue square grows").orders == []
    (deed,) = parse("a red circle passes over a blue square").deeds
    assert deed == Deed(CIRCLE, "passes", SQUARE)
    (deed,) = parse("the red circle starts to move upwards").deeds
    assert deed == Deed(CIRCLE, "up", starts=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red circle",
        "a red circle moves",
        "a red circle moves sideways",
        "a red circle grows then a blue square grows",
        "after a red circle grows a blue square grows",
        "after a red circle grows, a blue square grows and a blue square grows",
        "a red circle grows and",
        "a red circle passes over",
        "there is a red circle",
    ],
)
def test_other_words_are_refused(text):
    with pytest.raises(Ungrammatical):
        parse(text)


@pytest.mark.parametrize("split", ["swap_order", "swap_time"])
def test_captions_of_pairs(split):
    """Each caption is true of its own clip alone; two orders have the same words."""
    for number in range(0, 24, 2):
        pair = [sample(6, split, number + mate) for mate in (0, 1)]
        texts = [language.swap_captions(p, np.random.default_rng(number))[0] for p in pair]
        for mate in (0, 1):
            assert judge(texts[mate], pair[mate])["exact"], texts
            assert not judge(texts[mate], pair[1 - mate])["truthful"], texts
        if split == "swap_order":
            bags = [sorted(text.replace(",", " ,").split()) for text in texts]
            bags = [sorted("a" if word in ("an", "the") else word for word in bag) for bag in bags]
            assert bags[0] == bags[1]
