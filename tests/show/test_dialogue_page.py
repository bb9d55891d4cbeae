"""The page of a dialogue is whole, loads nothing, and shows every text as text."""

import re

import pytest

from base.files import UserError
from show import dialogue_page
from tests.show.test_pages import NASTY, Reader


def made(text="is it red ?", image="data:image/jpeg;base64,AAAA"):
    turns = [
        {"question": text, "answer": text, "note": text, "objects": [text, text]},
        {"question": "where is it ?", "answer": "", "note": ""},
    ]
    return dialogue_page.page({"image": image, "name": text, "turns": turns}, {text: text}, text)


def test_texts_are_text():
    plain, nasty = Reader(made()), Reader(made(NASTY))
    assert [tag for tag, _, _ in plain.elements] == [tag for tag, _, _ in nasty.elements]
    assert [text for _, _, text in nasty.all("p", "question")] == [NASTY, "where is it ?"]
    assert [text for _, _, text in nasty.all("p", "answer")] == [NASTY, "(nothing)"]
    assert [text for _, _, text in nasty.all("p", "note")] == [NASTY]
    about = f"It noted: {NASTY}; {NASTY}"
    assert [text for _, _, text in nasty.all("p", "objects")] == [about]
    assert nasty.all("img")[0][1]["alt"] == NASTY


def test_it_loads_nothing():
    page = made()
    assert "default-src 'none'" in page and "<script" not in page
    assert not re.search(r"https?:|url\(|@import", page)
    with pytest.raises(UserError, match="the page loads nothing"):
        made(image="https://example.org/a.png")
