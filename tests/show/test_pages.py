"""Pages are whole, load nothing, escape everything and count right. No browser is needed."""

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from base.files import UserError
from show import pages

VOID = {"meta", "img", "input", "br"}
NASTY = "</script><b>\"bold\" & 'so' 🐝 \u202e<!--"


class Reader(HTMLParser):
    """Every element with its attributes and text; fails at a tag that closes another."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open, self.elements = [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"an attribute of <{tag}> twice"
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag: str, kind: str = "") -> list:
        return [
            element
            for element in self.elements
            if element[0] == tag and kind in (element[1].get("class") or "")
        ]


def item(number: int = 1, **changes) -> dict:
    return {
        "image": "data:image/jpeg;base64,AAAA",
        "name": f"val {number}",
        "pieces": [" a", " small", " red", " square"],
        "step": [0, 2, 1, 3],
        "probability": [1.0, 0.5, 0.98, 0.25],
        "caption": "a small red square",
        "score": -0.123,
        "references": [],
        "verdict": None,
        "others": [],
        "group": "val",
    } | changes


def verdict(truthful: bool, exact: bool = False, notes=()) -> dict:
    return {"truthful": truthful, "exact": exact, "notes": list(notes)}


def buttons(page: Reader) -> list[str]:
    return [text for _, attributes, text in page.all("button") if "data-key" in attributes]


def test_a_caption_can_be_read_and_played():
    page = Reader(pages.gallery([item()], {"calls": 3, "sampler": "first_hitting"}))
    assert page.all("p", "caption")[0][2] == "a small red square"
    spans = [attributes for _, attributes, _ in page.all("span") if "data-step" in attributes]
    assert [int(span["data-step"]) for span in spans] == [0, 2, 1, 3]
    assert [float(span["data-p"]) for span in spans] == [1.0, 0.5, 0.98, 0.25]
    assert page.all("p", "meta")[0][2] == "3 calls · bound 0.12 nats/token"
    assert page.all("p", "facts")[0][2] == "calls\xa03 · sampler\xa0first_hitting"
    picture = page.all("img")[0][1]
    assert (picture["loading"], picture["decoding"], picture["alt"]) == ("lazy", "async", "val 1")
    assert (
        not page.all("details")
        and "bound" not in Reader(pages.gallery([item(score=None)], {})).all("p", "meta")[0][2]
    )


def test_all_text_is_escaped():
    nasty = item(
        name=NASTY,
        caption=NASTY,
        pieces=list(NASTY),
        step=list(range(len(NASTY))),
        probability=[0.5] * len(NASTY),
        references=[NASTY],
        others=[[NASTY, NASTY]],
        group=NASTY,
        verdict=verdict(False, notes=[NASTY]),
    )
    source = pages.gallery(
        [nasty, item()], {NASTY: NASTY}, [[NASTY, NASTY], [NASTY, NASTY]], title=NASTY
    )
    page = Reader(source)
    assert (
        len(page.all("script")) == source.count("</script>") == 1
        and not page.all("b")
        and "<!--" not in source
    )
    assert (
        page.all("p", "caption")[0][2]
        == page.all("li")[0][2]
        == page.all("dd")[0][2]
        == page.all("h1")[0][2]
        == NASTY
    )
    assert page.all("p", "notes")[0][2] == page.all("td")[0][2] == NASTY
    assert (
        page.all("article")[0][1]["data-group"] == NASTY == page.all("button")[3][1]["data-value"]
    )
    assert page.all("article")[0][1]["aria-label"].startswith(NASTY)


def test_nothing_is_loaded():
    page = Reader(
        pages.gallery(
            [
                item(
                    caption="see https://example.org",
                    pieces=["see", " https://example.org"],
                    step=[1, 2],
                    probability=[1, 1],
                )
            ],
            {},
        )
    )
    for tag, attributes, _ in page.elements:
        assert tag not in ("link", "iframe", "base", "object") and not {
            "href",
            "srcset",
            "action",
        } & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")
        if tag != "article":  # its label is the caption
            assert not any(re.search(r"https?:|^//", value or "") for value in attributes.values())
    for path in sorted(pages.ASSETS.iterdir()):
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"https?:|url\(|@import|fetch\(|innerHTML|<link", code), path.name
    assert "default-src 'none'" in page.all("meta")[2][1]["content"]
    with pytest.raises(UserError, match="data:image/"):
        pages.gallery([item(image="https://example.org/a.png")], {})


def test_badges_and_filters_follow_the_verdicts():
    items = [
        item(1, verdict=verdict(True, exact=True)),
        item(2, verdict=verdict(True)),
        item(3, verdict=verdict(False, notes=["colour: red, not blue"])),
        item(4),
        item(5, group="new colours"),
    ]
    page = Reader(pages.gallery(items, {}))
    assert [text for _, _, text in page.all("span", "badge")] == ["✓ true", "✓ true", "✗ false"]
    assert [attributes["data-verdict"] for _, attributes, _ in page.all("article")] == [
        "true",
        "true",
        "false",
        "",
        "",
    ]
    assert buttons(page) == ["all 5", "true 2", "false 1", "val 4", "new colours 1"]
    assert [attributes["aria-pressed"] for _, attributes, _ in page.all("button")[:5]] == [
        "true"
    ] + ["false"] * 4
    assert [text for _, _, text in page.all("p", "notes")] == ["colour: red, not blue"]
    assert [text.endswith("exact") for _, _, text in page.all("p", "meta")] == [True] + [False] * 4


def test_no_verdict_no_badge_and_no_choice_no_filter():
    page = Reader(pages.gallery([item(), item(2)], {}))
    assert not page.all("span", "badge") and not buttons(page) and not page.all("div", "filters")
    assert buttons(Reader(pages.gallery([item(verdict=verdict(False))], {}))) == [
        "all 1",
        "true 0",
        "false 1",
    ]
    assert buttons(Reader(pages.gallery([item(), item(2, group="test")], {}))) == [
        "all 2",
        "val 1",
        "test 1",
    ]


def test_what_else_was_said_is_folded():
    page = Reader(
        pages.gallery(
            [item(references=["one", "two"], others=[["blind", "a ring"], ["twin", "a square"]])],
            {},
        )
    )
    assert [text for _, _, text in page.all("summary")] == ["references (2)", "other models (2)"]
    assert [text for tag, _, text in page.elements if tag in ("li", "dt", "dd")] == [
        "one",
        "two",
        "blind",
        "a ring",
        "twin",
        "a square",
    ]
    assert not any("open" in attributes for _, attributes, _ in page.all("details"))


def test_the_table():
    page = Reader(
        pages.gallery(
            [item()],
            {},
            [["model", "true", "bound"], ["diffusion", "91%", "≤ 0.31"], ["<blind>", "12%", "—"]],
        )
    )
    assert [text for _, _, text in page.all("th")] == ["model", "true", "bound"]
    assert [text for _, _, text in page.all("td")] == [
        "diffusion",
        "91%",
        "≤ 0.31",
        "<blind>",
        "12%",
        "—",
    ]
    assert [text for _, _, text in page.all("td", "figure")] == ["91%", "≤ 0.31", "12%", "—"]
    assert not Reader(pages.gallery([item()], {})).all("table")
    assert len(Reader(pages.gallery([item()], {}, [["only", "a header"]])).all("th")) == 2


@pytest.mark.parametrize(
    "caption, expected",
    [("a square", "ltr"), ("ריבוע אדום", "rtl"), ("7 مربع", "rtl"), ("🐝 12!", "ltr"), ("", "ltr")],
)
def test_the_direction_is_the_captions(caption, expected):
    page = Reader(pages.gallery([item(caption=caption, pieces=[], step=[], probability=[])], {}))
    assert (
        page.all("p", "caption")[0][1]["dir"] == expected
        and page.all("p", "caption")[0][2] == caption
    )


def test_none_and_many():
    assert not Reader(pages.gallery([], {})).all("article")
    page = Reader(
        pages.gallery([item(number, verdict=verdict(number % 2 == 0)) for number in range(500)], {})
    )
    assert len(page.all("article")) == 500 and buttons(page) == ["all 500", "true 250", "false 250"]


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        pages.gallery([item(step=[1, 2])], {})


class Letters:
    """A tokenizer whose ids from 3 on are the letters of a text."""

    bos, eos, pad = 0, 1, 2

    def __init__(self, pieces):
        self.pieces = pieces

    def piece(self, id: int) -> str:
        return self.pieces[id - 3]


def sample(pieces: list[str], step: list[int]) -> SimpleNamespace:
    ids = [0, *range(3, 3 + len(pieces)), 1, 2]
    probability = [1.0, *[0.25] * len(pieces), 1.0, 1.0]
    return SimpleNamespace(ids=ids, step=[0, *step, 9, 0], probability=probability)


def test_a_text_is_unmasked_without_its_special_tokens():
    pieces = ["Once", " upon", "\n\nA", " <b>$title</b>"]
    page = Reader(
        pages.unmasking([sample(pieces, [0, 2, 1, 2])], Letters(pieces), {NASTY: NASTY}, NASTY)
    )
    assert page.all("p", "caption")[0][2] == "".join(pieces)
    spans = [(text, a["data-step"], a["data-p"]) for tag, a, text in page.elements if "data-p" in a]
    assert [text for text, _, _ in spans] == ["Once", "upon", "A", "<b>$title</b>"]
    assert [(int(step), float(p)) for _, step, p in spans] == [
        (0, 0.25),
        (2, 0.25),
        (1, 0.25),
        (2, 0.25),
    ]
    assert page.all("span", "number")[0][2] == "sample 1 · 2 calls"
    assert page.all("h1")[0][2] == NASTY and not page.all("b")
    assert page.all("p", "facts")[0][2] == f"{NASTY}\xa0{NASTY}"


def test_only_the_gallery_starts_by_itself():
    gallery = Reader(pages.gallery([item()], {}))
    text = Reader(pages.unmasking([sample(["a"], [1])], Letters(["a"]), {}))
    assert "data-autoplay" in gallery.all("body")[0][1]
    assert "data-autoplay" not in text.all("body")[0][1]


def test_what_is_filled_in_is_never_filled_again():
    assert pages.fill("bar.html", slow="$medium", medium=1, fast="<").count("$medium") == 1
    assert 'value="&lt;"' in pages.fill("bar.html", slow=1, medium=1, fast="<")
    with pytest.raises(KeyError):
        pages.fill("bar.html", slow=1)


def test_json_in_a_script_cannot_close_it():
    values = [NASTY, "]]>", "é 漢"]
    text = pages.embed(values)
    assert not re.search("[<>&]", text) and json.loads(text) == values


def test_attributes_of_an_element():
    text = pages.element("p", "<b>", class_='a "b"', data_step=3)
    assert text == '<p class="a &quot;b&quot;" data-step="3"><b></p>'
