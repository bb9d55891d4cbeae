"""The page of episodes: all words are there, counts are right, nothing is loaded or unescaped."""

import json
from types import SimpleNamespace

import pytest

from base.files import UserError
from show import rollouts
from tests.show.test_pages import NASTY, Reader, buttons

FRAME = "data:image/webp;base64,AAAA"


def chunk(**changes) -> dict:
    return {
        "since": 0,
        "start": 0,
        "actions": [[0.5, -1.0, 0.0, 1.0], [0.25, 0.0, 0.0, -1.0]],
        "calls": [2, 1],
        "take": [0.25, 0.5],
        "put": None,
    } | changes


def episode(**changes) -> SimpleNamespace:
    plain = {
        "split": "val",
        "verb": "put",
        "text": "put the red star on the blue plate",
        "ever": True,
        "end": True,
        "old": False,
        "moved": [],
        "steps": 3,
        "unknown": [],
        "frames": [FRAME + str(number) for number in range(4)],
        "chunks": [chunk(), chunk(since=2, start=2)],
        "stride": 1,
        "said": None,
    }
    return SimpleNamespace(**plain | changes)


def clips(page: str) -> list[dict]:
    """What the script of a page plays."""
    scripts = Reader(page).all("script")
    return json.loads(next(text for _, names, text in scripts if names.get("id") == "data"))


def test_a_card_shows_the_order_the_verdict_and_the_first_image():
    page = Reader(rollouts.page([episode()], {"head": "diffusion", "calls": 2}))
    (card,) = page.all("article")
    assert card[1]["data-verdict"] == "done" and card[1]["data-split"] == "val"
    assert page.all("p", "caption")[0][2] == "put the red star on the blue plate"
    assert page.all("p", "meta")[0][2] == "put · 3 steps"
    assert page.all("span", "badge good")[0][2] == "✓ done"
    assert page.all("img")[0][1]["src"] == FRAME + "0"
    assert page.all("input", "frame")[0][1]["max"] == "3"
    assert page.all("p", "facts")[0][2] == "head\xa0diffusion · calls\xa02"
    assert not buttons(page) and not page.all("p", "notes") and not page.all("table")


def test_the_script_gets_the_other_images_and_the_chunks():
    (played,) = clips(rollouts.page([episode()], {}))
    assert played["frames"] == [FRAME + "1", FRAME + "2", FRAME + "3"]
    assert played["chunks"][0] == chunk() | {"names": ["x", "y", "z", "grip"]}
    assert played["chunks"][1]["since"] == 2
    seven = chunk(actions=[[0.0] * 7] * 2, calls=None)
    (played,) = clips(rollouts.page([episode(chunks=[seven])], {}))
    assert played["chunks"][0]["names"] == ["1", "2", "3", "4", "5", "6", "7"]
    assert played["chunks"][0]["calls"] is None


def test_what_went_wrong_is_said():
    failed = episode(end=False, old=True, moved=["red star", "blue heart"], unknown=["dinosaur"])
    page = Reader(rollouts.page([failed], {}))
    assert page.all("span", "badge bad")[0][2] == "✗ not done"
    assert [text for _, _, text in page.all("p", "notes")] == [
        "it was done, and then undone",
        "did the order from before the swap",
        "moved a wrong thing: red star, blue heart",
        "unknown words: dinosaur",
    ]


def test_filters_count_verdicts_splits_and_verbs():
    some = [episode(end=False), episode(), episode(split="held_pair", verb="pick")]
    page = Reader(rollouts.page(some, {}, [["split", "done"], ["val", "50.0%"]]))
    assert buttons(page) == [
        *("all 3", "done 2", "not done 1"),
        *("all 3", "val 2", "held_pair 1"),
        *("all 3", "put 2", "pick 1"),
    ]
    keys = [names["data-key"] for _, names, _ in page.all("button") if "data-key" in names]
    assert keys == ["verdict"] * 3 + ["split"] * 3 + ["verb"] * 3
    pressed = [names for _, names, _ in page.all("button") if names.get("aria-pressed") == "true"]
    assert [names["data-value"] for names in pressed] == ["", "", ""]
    names = [text for _, _, text in page.all("span", "number")]
    assert names == ["val 1", "val 2", "held_pair 1"]
    assert page.all("td")[1][2] == "50.0%"


def test_all_text_is_escaped():
    nasty = episode(
        text=NASTY, split=NASTY, verb=NASTY, moved=[NASTY], unknown=[NASTY], end=False, ever=False
    )
    source = rollouts.page([nasty, episode()], {NASTY: NASTY}, [[NASTY], [NASTY]], title=NASTY)
    page = Reader(source)
    assert len(page.all("script")) == source.count("</script>") == 2 and "<!--" not in source
    assert page.all("p", "caption")[0][2] == page.all("h1")[0][2] == page.all("td")[0][2] == NASTY
    assert page.all("article")[0][1]["data-split"] == NASTY
    # Only the legend has bold signs.
    assert [text for _, _, text in page.all("b")] == ["◎", "✚"]


def test_episodes_without_images_are_left_out_and_counted(tmp_path, capsys):
    path = tmp_path / "page.html"
    rollouts.write(path, [episode(), episode(frames=[], chunks=[])], {})
    assert len(Reader(path.read_text(encoding="utf-8")).all("article")) == 1
    assert "clips of 1 of 2 episodes" in capsys.readouterr().out


def test_an_image_of_another_place_is_refused():
    with pytest.raises(UserError, match="the page loads nothing"):
        rollouts.page([episode(frames=[FRAME, "https://example.com/1.webp"])], {})
