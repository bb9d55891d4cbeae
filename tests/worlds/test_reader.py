"""From the words of a caption to its claims."""

import pytest

from worlds.reader import Claim, Noun, Ungrammatical, parse
from worlds.scenes import Object

CIRCLE = Noun(colour="red", shape="circle")
STAR = Noun(size="large", fill="outlined", shape="star")


@pytest.mark.parametrize(
    "caption, claims",
    [
        ("a red circle", [Claim("some", CIRCLE)]),
        ("two red circles", [Claim("count", CIRCLE, 2)]),
        ("one red circle and nothing else", [Claim("count", CIRCLE, 1), Claim("total", number=1)]),
        (
            "a big hollow star over a red circle",
            [
                Claim("some", STAR),
                Claim("some", CIRCLE),
                Claim("relation", STAR, word="above", other=CIRCLE),
            ],
        ),
        (
            "a red circle with a large outlined star to its left",
            [
                Claim("some", CIRCLE),
                Claim("some", STAR),
                Claim("relation", STAR, word="left of", other=CIRCLE),
            ],
        ),
        (
            "the red circle is in the top left",
            [Claim("some", CIRCLE), Claim("place", CIRCLE, 1, "top left")],
        ),
        (
            "on the left there is a red circle",
            [Claim("some", CIRCLE), Claim("place", CIRCLE, 1, "left")],
        ),
        (
            "the red circle is larger than the star",
            [
                Claim("some", CIRCLE),
                Claim("some", Noun(shape="star")),
                Claim("larger", CIRCLE, word="larger", other=Noun(shape="star")),
            ],
        ),
        ("the largest is a red circle", [Claim("some", CIRCLE), Claim("largest", CIRCLE)]),
        (
            "two shapes: a red circle and a star but no crosses",
            [
                Claim("total", number=2),
                Claim("some", CIRCLE),
                Claim("some", Noun(shape="star")),
                Claim("none", Noun(shape="cross")),
            ],
        ),
    ],
)
def test_claims(caption, claims):
    assert parse(caption) == claims


@pytest.mark.parametrize(
    "caption, message",
    [
        ("", "'the end' instead of 'an'"),
        ("a", "'the end' instead of 'circle'"),
        ("a red circle left of", "'the end' instead of 'an'"),
        ("a red circle a blue square", "'a blue square' after the end"),
        ("seven red circles", "'seven red circles' instead of 'an'"),
    ],
)
def test_what_is_no_caption(caption, message):
    with pytest.raises(Ungrammatical, match=message):
        parse(caption)


def test_a_noun_fits_what_it_does_not_contradict():
    thing = Object("circle", "red", "small", "solid")
    assert Noun().fits(thing) and CIRCLE.fits(thing)
    assert not Noun(colour="blue").fits(thing) and not STAR.fits(thing)
    assert STAR.named() == {"size": "large", "fill": "outlined", "shape": "star"}
