"""The page of pictures: a span for each token, what an edit shows, hostile words, refusals."""

import re

import pytest

from base.files import UserError
from show import pictures

IMAGE = "data:image/png;base64,AAAA"


def item(**more) -> dict:
    return {
        "image": IMAGE,
        "name": "picture 1",
        "text": "a red star",
        "side": 2,
        "step": [1, 0, 2, 1],
        "probability": [0.5, 1.0, 0.25, 1.0],
        "notes": [],
    } | more


def test_every_token_has_a_span():
    page = pictures.page([item()], {"steps": 2})
    assert re.findall(r'data-step="(\d)" data-p="([\d.]+)"', page) == [
        ("1", "0.5000"),
        ("0", "1.0000"),
        ("2", "0.2500"),
        ("1", "1.0000"),
    ]
    assert "2 calls" in page and "drawn again" not in page and "--side: 2" in page


def test_an_edit_shows_before_mask_and_after():
    page = pictures.page([item(before=IMAGE, true=False, notes=["not so: red star"])], {})
    assert page.count(IMAGE) == 3 and "✗ false" in page and "not so: red star" in page
    kinds = re.findall(r'<span class="(again|kept)"', page)
    assert kinds == ["again", "kept", "again", "again"]  # what a call wrote


def test_words_become_no_markup():
    page = pictures.page([item(text="<script>x", name="<b>")], {})
    assert "<script>x" not in page and "&lt;script&gt;x" in page and "<b>" not in page


def test_refusals():
    with pytest.raises(UserError, match="loads nothing"):
        pictures.page([item(before="http://example.org/x.png")], {})
    with pytest.raises(ValueError, match="each place"):
        pictures.page([item(side=3)], {})
