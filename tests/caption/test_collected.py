"""Captions gathered by image: spellings of a path, splits, and the count of what gave none."""

import pytest

from base.files import UserError
from caption.collected import Collected, shown, spelling, split_named


@pytest.fixture
def folder(tmp_path):
    """A folder photos/ with a.jpg, b.png, c.jpg, c.png and sub/d.jpg."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "c.jpg", "c.png", "sub/d.jpg"):
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    "name, image",
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("sub//d.jpg", "sub/d.jpg"),
        ("sub\\d.jpg", "sub/d.jpg"),
        ("photos/a.jpg", "a.jpg"),
        ("photos\\sub\\d.jpg", "sub/d.jpg"),
        ("b", "b.png"),
        ("sub\\d", "sub/d.jpg"),
        ("c", "c"),  # c.jpg or c.png: nobody knows
        ("gone.jpg", "gone.jpg"),
        ("x\\gone.jpg", "x\\gone.jpg"),
    ],
)
def test_a_name_is_spelled_as_its_file(folder, name, image):
    assert spelling(folder, name) == image


@pytest.mark.parametrize("name", ["../a.jpg", "..\\a.jpg", "/etc/passwd", "a\0.jpg"])
def test_a_name_stays_in_the_folder(folder, name):
    with pytest.raises(UserError, match="leads out of"):
        spelling(folder, name)


def test_one_image_has_one_entry_whatever_its_spelling(folder):
    found = Collected("x", folder, absolute=True)
    for name in ("sub/d.jpg", "./sub/d.jpg", "sub\\d", str(folder / "sub" / "d.jpg")):
        assert found.add(name, None, [" a \n dog ", " "], "line 1") == 1
    assert found.photos == {"sub/d.jpg": (None, ["a dog"] * 4)}


def test_a_split_is_known_by_any_record_and_never_two(folder):
    found = Collected("x.csv", folder)
    found.add("a.jpg", None, ["a"], "line 1")
    found.add("a.jpg", "Validation", ["b"], "line 2")
    found.add("a.jpg", "", ["c"], "line 3")
    found.add("a.jpg", "dev", ["d"], "line 4")
    assert found.photos == {"a.jpg": ("val", ["a", "b", "c", "d"])}
    with pytest.raises(
        UserError, match="a.jpg of the split val and, at line 5, of the split train"
    ):
        found.add("./a.jpg", "restval", ["e"], "line 5")


def test_names_of_splits():
    for name, split in (("TRAIN", "train"), ("training", "train"), ("testing ", "test")):
        assert split_named(name) == split
    assert split_named("Fold 3") == "Fold 3" and split_named(" ") is split_named(None) is None


def test_what_is_left_out_is_counted_and_the_first_is_shown(folder, capsys):
    found = Collected("x.csv", folder)
    found.report()
    assert capsys.readouterr().err == ""
    found.records = 5000
    for number in range(1200):
        found.leave_out(f"line {number}", "no caption")
    found.report()
    assert capsys.readouterr().err == (
        "x.csv: 1,200 of 5,000 rows gave no image with a caption and are left out; "
        "the first: line 0: no caption\n"
    )


def test_a_text_in_a_message_is_one_short_line():
    assert shown("a\nb") == "'a\\nb'" and len(shown("x" * 500)) == 81
