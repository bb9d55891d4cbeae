"""Facts of a policy: they come back whole, and what is odd is refused in one line."""

import numpy as np
import pytest

from base import facts
from base.errors import UserError
from base.facts import Facts
from tests.making.served import facts_of


def test_they_come_back():
    told = facts_of(sees="pixels", cameras=["observation.images.front", "wrist"]).to_dict()
    found = Facts.from_dict(told)
    assert found.to_dict() == told
    assert found.scaling.low.dtype == np.float32
    assert found.reads() == ["state", "image", "image_wrist"]
    assert facts_of().reads() == ["state", "things", "kinds"]
    assert facts_of(sees="nothing").reads() == ["state"]


@pytest.mark.parametrize(
    "name, value, part",
    [
        ("length", 0, "length"),
        ("length", True, "length"),
        ("length", 10**9, "length"),
        ("frames", "1", "frames"),
        ("sees", "smells", "smells"),
        ("cameras", "front", "front"),
        ("cameras", [1], "sees"),
        ("image_side", -1, "pixels"),
        ("scaling", None, "none"),
        ("scaling", {"low": [0]}, "none"),
        ("scaling", {"low": [0], "high": [0], "mean": [0], "deviation": [1]}, "empty range"),
        ("scaling", {"low": [0], "high": [1, 2], "mean": [0], "deviation": [1]}, "shapes"),
        ("scaling", {"low": [0], "high": [float("nan")], "mean": [0], "deviation": [1]}, "finite"),
        ("world", None, "world"),
    ],
)
def test_odd_facts_are_refused(name, value, part):
    with pytest.raises(UserError, match=part) as error:
        Facts.from_dict(facts_of().to_dict() | {name: value})
    assert "\n" not in str(error.value)


def test_other_names_are_refused():
    told = facts_of().to_dict()
    with pytest.raises(UserError, match="colour"):
        Facts.from_dict(told | {"colour": 1})
    del told["length"]
    with pytest.raises(UserError, match="length"):
        Facts.from_dict(told)


def test_facts_of_a_maker():
    class Maker:
        length, frames, absolute = 8, 2, True
        scaling = facts_of().scaling
        about = {
            "sees": "state",
            "cameras": [],
            "image_side": 0,
            "world": "table",
            "tasks": "",
            "head": "l1",
        }

    found = facts.of_maker(Maker(), kinds=17)
    assert (found.length, found.frames, found.absolute, found.head) == (8, 2, True, "l1")
    assert Facts.from_dict(found.to_dict()).to_dict() == found.to_dict()
