"""Columns by name, lists in cells, and JSON objects with columns as keys."""

import json

import pytest

from base.files import UserError
from caption import columns
from caption.collected import Collected


@pytest.mark.parametrize(
    "names, image, captions, split",
    [
        (["image", "caption"], 0, [1], None),
        (["", "File Name", "caption 1", "caption_2", "caption_id", "Split"], 1, [2, 3], 5),
        (["image_id", "file_name", "text"], 1, [2], None),
        (["text", "caption", "img"], 2, [1], None),  # caption comes before text
        (["#image", "comment_number", " comment"], 0, [2], None),
        (["filename", "sentids", "sentences", "subset"], 0, [2], 3),
    ],
)
def test_columns_by_name(names, image, captions, split):
    found = columns.columns_of(names)
    assert (found.image, found.captions, found.split) == (image, captions, split)


@pytest.mark.parametrize("names", [[], ["image"], ["caption"], ["image", "title"], ["url", "text"]])
def test_no_image_or_no_caption_among_the_names(names):
    assert columns.columns_of(names) is None


def test_records_have_columns_too(tmp_path, capsys):
    """Lines of metadata.jsonl, or a list of objects."""
    records = [
        {"file_name": "p0.png", "text": "a dog", "additional": 3},
        {"file_name": "p0.png", "text": ["a cat", "two"]},
        {"file_name": "p1.png", "text": [{"raw": "a boat"}]},
        {"file_name": None, "text": "lost"},
        {"file_name": "p2.png", "text": 3},
        {"file_name": "p3.png"},
        {"file_name": True, "text": "lost"},
    ]
    found = Collected("x", tmp_path)
    columns.read_records(tmp_path / "x.jsonl", records, found)
    assert found.photos == {
        "p0.png": (None, ["a dog", "a cat", "two"]),
        "p1.png": (None, ["a boat"]),
    }
    assert found.records == 7 and found.left_out == 4
    assert found.first == "record 4: no name of an image"
    assert "captions in 'text', not read: 'additional'" in capsys.readouterr().err
    for bad, message in (([{"a": 1}], "with the columns 'a'"), ([records[0], 3], "record 2 is no")):
        with pytest.raises(UserError, match=message):
            columns.read_records(tmp_path / "x.jsonl", bad, found)


def test_a_cell_with_a_list():
    assert columns.texts_in('["a", "b"]') == columns.texts_in("['a', 'b']") == ["a", "b"]
    assert columns.texts_in("a [b]") == ["a [b]"] and columns.texts_in(None) == []
    for odd in ("['a' 'b']", '["a" on a wall]', 3, ["a", 3], {"a": 1}, "['a', 1]"):
        assert columns.texts_in(odd) is None, odd
    assert columns.texts_in(json.dumps(["\\d", "é"])) == ["\\d", "é"]
