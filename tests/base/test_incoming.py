"""Observations of strangers: their names, shapes and types become ours, or one line."""

import numpy as np
import pytest

from base.errors import UserError
from base.incoming import Reader, check_earlier, parse_names
from tests.making.served import SEEN, facts_of

PIXELS = facts_of(sees="pixels", cameras=["observation.images.front", "observation.images.wrist"])
IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
STATE = SEEN["state"]


@pytest.mark.parametrize(
    "names",
    [
        ("state", "image", "image_wrist", "prompt"),
        ("observation/state", "observation/image", "observation/wrist_image", "prompt"),
        ("observation.state", "observation.images.front", "observation.images.wrist", "task"),
        ("observation/state", "images/front", "images/wrist", "instruction"),
    ],
)
def test_names_of_openpi_and_lerobot(names):
    values = (STATE, IMAGE, IMAGE[::-1], "go")
    asked = Reader(PIXELS, {}).read(dict(zip(names, values, strict=True)))
    assert (asked.seen["image"] == IMAGE).all() and (asked.seen["image_wrist"] == IMAGE[::-1]).all()
    assert (asked.seen["state"] == STATE).all() and asked.text == "go" and not asked.unread


def test_images_in_a_dict_and_ones_own_names():
    reader = Reader(PIXELS, parse_names("q=state, images/right=image_wrist"))
    images = {"front": IMAGE, "right": IMAGE, "left": IMAGE}
    asked = reader.read({"q": STATE.tolist(), "images": images, "prompt": "go", "speed": 3})
    assert set(asked.seen) == {"state", "image", "image_wrist"}
    assert sorted(asked.unread) == ["images/left", "speed"]


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        IMAGE.transpose(2, 0, 1),
        IMAGE.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255),
        IMAGE.astype(np.float64) / 255,
    ],
)
def test_images_of_any_layout(image):
    asked = Reader(PIXELS, {}).read({"state": STATE, "image": image, "image_wrist": IMAGE})
    assert asked.seen["image"].dtype == np.uint8 and (asked.seen["image"] == IMAGE).all()


@pytest.mark.parametrize(
    "changed, part",
    [
        ({"state": np.zeros(7)}, "8 numbers"),
        ({"state": "up"}, "no array of numbers"),
        ({"state": [[1, 2], [3]]}, "no array of numbers"),
        ({"state": np.full(8, np.nan)}, "finite"),
        ({"state": np.full(8, 1e300)}, "finite"),
        ({"state": None}, "no array of numbers"),
        ({"things": np.zeros((9, 3))}, "at most 8"),
        ({"things": np.zeros((2, 4))}, "at most 8"),
        ({"kinds": np.zeros((8, 3))}, r"\(8, 17\)"),
        ({"prompt": 3}, "no text"),
        ({"prompt": "x" * 2000}, "no text"),
        ({"prompt": " "}, "no text"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"begin": 1}, "begin"),
        ({"prefix": np.zeros((6, 4))}, "1 to 5 rows"),
        ({"prefix": np.zeros((2, 3))}, "1 to 5 rows"),
        ({"prefix": np.zeros((2, 4)), "frozen": np.zeros((2, 4))}, "prefix or frozen"),
        ({"frozen": np.full((2, 4), 2)}, "beyond 1"),
        ({"earlier": [dict(SEEN)]}, "1 earlier"),
        ({"earlier": 3}, "no list"),
        ({"observation/state": np.zeros(8)}, "twice"),
    ],
)
def test_faults_are_one_line(changed, part):
    with pytest.raises(UserError, match=part) as error:
        Reader(facts_of(), {}).read({**SEEN, "prompt": "go", **changed})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "image, part",
    [
        (np.zeros((4, 4), np.uint8), "no image"),
        (np.zeros((4, 4, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int32), "type"),
        (np.full((4, 4, 3), 2.0), "floats"),
        (np.full((4, 4, 3), np.nan), "floats"),
        ("image.png", "no image"),
    ],
)
def test_odd_images_are_refused(image, part):
    with pytest.raises(UserError, match=part):
        Reader(PIXELS, {}).read({"state": STATE, "image": image, "image_wrist": IMAGE})


def test_what_is_missing_is_named():
    with pytest.raises(UserError, match="without things .*it has state"):
        Reader(facts_of(), {}).read({"state": STATE})
    with pytest.raises(UserError, match="no dict"):
        Reader(facts_of(), {}).read([1, 2])
    with pytest.raises(UserError, match="no dict"):
        Reader(facts_of(), {}).read({b"state": STATE})


def test_a_prefix_in_the_robots_units_or_exact():
    reader = Reader(facts_of(), {})
    told = np.full((2, 4), 4, np.float32)  # of -2 to 6
    assert (reader.read({**SEEN, "prefix": told}).prefix == 0.5).all()
    frozen = np.full((2, 4), 0.3, np.float32)
    assert (reader.read({**SEEN, "frozen": frozen}).prefix == frozen).all()
    with pytest.raises(UserError, match="keeps no prefix"):
        Reader(facts_of(keeps_prefix=False), {}).read({**SEEN, "frozen": frozen})


def test_earlier_observations_are_needed_by_policies_of_several_frames():
    facts = facts_of(frames=2)
    reader = Reader(facts, {})
    with pytest.raises(UserError, match="1 in 'earlier'"):
        check_earlier(reader.read(dict(SEEN)), facts)
    asked = reader.read({**SEEN, "earlier": [dict(SEEN)]})
    check_earlier(asked, facts)
    assert len(asked.earlier) == 1


@pytest.mark.parametrize("text", ["a", "a=", "=b", "a=b=,c"])
def test_wrong_names(text):
    with pytest.raises(UserError):
        Reader(facts_of(), parse_names(text))
