"""The page of all models: every text is text, every claim has its mark, nothing is loaded."""

import re

import pytest

from base.files import UserError
from show import world
from tests.show.test_pages import NASTY, Reader

IMAGE = "data:image/png;base64,AAAA"
UNMASKED = {"step": [1, 0, 2, 1], "probability": [0.5, 1.0, 0.25, 1.0]}


def items(text: str = "a red star") -> list[dict]:
    """An item of each kind. The claims of the second half are false."""
    common = {"name": text, "alt": text, "image": IMAGE}
    said = {"text": text, "pieces": [text, " b", " c", " d"], **UNMASKED}
    drawn = {"text": text, "side": 2, **UNMASKED}
    marks = [(text, True), (text, False)]
    return [
        {**common, **said, "kind": "captions", "marks": [(text, True)]},
        {**common, **said, "kind": "clips", "marks": marks},
        {**common, **drawn, "kind": "drawings", "marks": marks},
        {**common, **drawn, "kind": "edits", "marks": marks, "before": IMAGE, "change": text},
        {**common, "kind": "dialogues", "turns": [[text, text, text], [text, "", text]]},
    ]


def section(text: str = "a red star", **more) -> dict:
    return {
        "id": "captions",
        "title": text,
        "share": text,
        "of": text,
        "says": [text],
        "items": items(text),
        "commands": [text],
    } | more


def test_texts_are_text():
    nasty, plain = (Reader(world.page([section(text)], {text: text})) for text in (NASTY, "x"))
    assert [tag for tag, _, _ in nasty.elements] == [tag for tag, _, _ in plain.elements]
    assert [sorted(each) for _, each, _ in nasty.elements] == [
        sorted(each) for _, each, _ in plain.elements
    ]
    assert nasty.all("pre")[0][2] == NASTY and nasty.all("p", "says")[0][2] == NASTY
    assert nasty.all("img")[0][1]["alt"] == NASTY


def test_each_claim_and_each_answer_has_its_mark():
    page = Reader(world.page([section()], {}))
    claims = [text.split()[0] for _, _, text in page.all("li") if "✓" in text or "✗" in text]
    assert claims == ["✓", "✓", "✗", "✓", "✗", "✓", "✗", "a", "a"]  # the last two are turns
    turns = [text for _, _, text in page.all("p", "answer")]
    assert "✓ true" in turns[0] and "(nothing)" in turns[1] and "✗ false" in turns[1]
    assert [text for _, _, text in page.all("p", "note")] == ["true: a red star"]
    # An item is true if all its claims are.
    heads = [text for _, _, text in page.all("div", "head")]
    assert [text.split("star")[1].strip() for text in heads] == [
        *("✓ true", "✗ false", "✗ false", "✗ false", "1 of 2 answers true")
    ]
    assert world.marks_of(items()[4]) == [True, False]


def test_it_can_be_used_without_eyes_and_without_a_mouse():
    page = Reader(world.page([section()], {}))
    assert all(attributes.get("alt") for _, attributes, _ in page.all("img"))
    assert all("tabindex" in attributes for _, attributes, _ in page.all("article"))
    ids = [attributes["id"] for _, attributes, _ in page.all("section")]
    links = [attributes["href"] for _, attributes, _ in page.all("a")]
    assert links == [f"#{id}" for id in ids]


def test_a_section_without_a_model():
    page = Reader(world.page([section(items=[], share=None, of="no checkpoint.")], {}))
    assert page.all("p", "share")[0][2].strip() == "no checkpoint."
    assert "—" in page.all("a")[0][2] and not page.all("article")


def test_it_loads_nothing():
    page = world.page([section()], {})
    assert "default-src 'none'" in page and not re.search(r"https?:|url\(|@import", page)
    for name in ("image", "before"):
        bad = items()[3] | {name: "https://example.org/a.png"}
        with pytest.raises(UserError, match="loads nothing"):
            world.page([section(items=[bad])], {})
