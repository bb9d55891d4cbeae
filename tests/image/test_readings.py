"""Plans that are read in pictures: their neighbours, their likelihood, and the best of them."""

import pytest
import torch

from image import planner, readings
from image.rows import Pairs
from image.studio import Studio, read_change
from tests.making.painted import make_painter, make_pictures

WORDS = 13  # of a plan of two objects
CAPTION = "a red star above a blue circle"
PLAN = "dark xd yc small solid red star xe yi medium outlined blue circle"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("readings"), planned=2), "val")


def painter_of(pairs, block_sizes="1"):
    lines = pairs.vocabulary.plan_lines()
    sizes = {"plan_lines": lines, "plan_reach": 2, "max_length": 90, "block_sizes": block_sizes}
    return make_painter(pairs.vocabulary, **sizes)


def ids_of(pairs, plan=PLAN, caption=CAPTION):
    vocabulary = pairs.vocabulary
    return vocabulary.words(caption) + vocabulary.plan_words(plan)


def plans_of(pairs, rows):
    return [planner.text_of(pairs.vocabulary, words) for words in rows]


def likeness(pairs, plan):
    """A stand-in for the painter: a picture is as likely as its plan has words of `plan`."""

    def likelihoods(model, vocabulary, words, picture):
        found = [text.split() for text in plans_of(pairs, words)]
        same = [sum(a == b for a, b in zip(text, plan.split(), strict=True)) for text in found]
        return torch.tensor(same, dtype=torch.float64)

    return likelihoods


def test_words_of_plans_have_the_ids_that_they_have_in_plans(pairs):
    vocabulary, plan = pairs.vocabulary, PLAN.split()
    ids = vocabulary.plan_words(PLAN)
    assert vocabulary.ids_in_plan(plan[1:]) == ids[1:]
    assert vocabulary.ids_of_grounds()[0] == ids[0]  # dark is the first
    absent = vocabulary.plan_words(" ".join([*plan[:7], *["nothing"] * 6]))
    assert absent[7:] == [vocabulary.nothing] * 6


def test_likelihoods_by_hand(pairs):
    """The picture's tokens one after another, each given those before it."""
    model, words, picture = painter_of(pairs), ids_of(pairs), pairs.pictures[0]
    other = ids_of(pairs, PLAN.replace("small", "large"))
    found = readings.likelihoods(model, pairs.vocabulary, [words, other, words], picture)
    for row, nats in zip([words, other], found.tolist(), strict=False):
        total = 0.0
        for place in range(len(picture)):
            tokens = torch.tensor([row + picture.tolist()[: place + 1]])
            tokens[0, -1] = pairs.vocabulary.mask
            select = torch.zeros_like(tokens, dtype=torch.bool)
            select[0, -1] = True
            count = torch.tensor([len(row)])
            with torch.no_grad():
                logits = blocked(model, tokens, select, count)
            total += float(logits.log_softmax(-1)[0, picture[place]])
        assert nats == pytest.approx(total, abs=1e-3)
    assert found[0] == found[2] != found[1]


def blocked(model, tokens, select, count):
    """The logits of the last token, where words see words and a token sees what is before it."""
    position = torch.arange(tokens.shape[1])
    block = (position - count + 1).clamp(min=0)
    attend = (block[:, None] >= block[None, :])[None, None]
    return model(tokens, select=select, words=count, attend=attend)


def test_neighbours(pairs):
    model, words = painter_of(pairs), ids_of(pairs)
    found = readings.neighbours(model, pairs.vocabulary, words, pairs.pictures[0])
    texts = plans_of(pairs, found)
    assert len(set(texts)) == len(texts) and PLAN not in texts
    for row in found:
        assert row[: len(words) - WORDS] == words[: len(words) - WORDS]
    # A single other word, in a scene that can be drawn.
    for before, after in (("dark", "middle"), ("medium", "large"), ("outlined", "dotted")):
        assert PLAN.replace(before, after) in texts
    for before, after in (("red", "pink"), ("xd", "xc"), ("yc", "yd"), ("yi", "yj")):
        assert PLAN.replace(before, after) in texts
    for before, after in (("solid", "dotted"), ("xd", "xb"), ("yi", "ym"), ("yi", "yd")):
        assert PLAN.replace(before, after) not in texts  # a small pattern, outside, too near
    # An exchange of a part, of places, and of looks. The star always comes first.
    assert "dark xd yc small outlined red star xe yi medium solid blue circle" in texts
    assert "dark xe yi small solid red star xd yc medium outlined blue circle" in texts
    assert "dark xd yc small outlined blue circle xe yi medium solid red star" not in texts
    assert "dark xe yi medium solid red star xd yc small outlined blue circle" in texts
    # No plan has half an object.
    assert all(text.count("nothing") in (0, 6, 12) for text in texts)
    # Two lines at one time.
    moved = [text.split()[1:3] for text in texts if text.split()[3:] == PLAN.split()[3:]]
    assert any(column != "xd" and row != "yc" for column, row in moved)


def test_a_plan_is_corrected_step_by_step(pairs, monkeypatch):
    """Wrong words at four places, and objects with each other's fills, are all put right."""
    wrong = "bright xf yd large outlined red star xe yj medium solid blue circle"
    monkeypatch.setattr(readings, "likelihoods", likeness(pairs, PLAN))
    model, picture = painter_of(pairs), pairs.pictures[0]
    words = readings.check(model, pairs.vocabulary, ids_of(pairs, wrong), picture)
    assert words == ids_of(pairs)
    assert readings.check(model, pairs.vocabulary, words, picture) == words
    # What is no plan becomes a plan, if a neighbour is a plan.
    broken = PLAN.replace("star", "nothing")
    assert readings.check(model, pairs.vocabulary, ids_of(pairs, broken), picture) == words
    # A plan in another order is as likely as it is in the caption's order.
    turned = "dark xe yi medium outlined blue circle xd yc small solid red star"
    assert readings.check(model, pairs.vocabulary, ids_of(pairs, turned), picture) == words


def test_the_result_is_likelier_than_its_neighbours(pairs, monkeypatch):
    """A painter that learnt nothing: it reads what it finds likely."""
    monkeypatch.setattr(readings, "ROUNDS", 100)
    model, picture, vocabulary = painter_of(pairs), pairs.pictures[1], pairs.vocabulary
    before = ids_of(pairs)
    after = readings.check(model, vocabulary, before, picture)
    near = readings.neighbours(model, vocabulary, after, picture)
    nats = readings.likelihoods(model, vocabulary, [before, after, *near], picture)
    assert nats[1] > nats[0] and nats[1] == nats.max()
    assert readings.ordered(vocabulary, after) == after


def test_who_corrects_plans(pairs, monkeypatch):
    """A network that learnt blocks of one token, before a change in words."""
    calls = []

    def check(model, vocabulary, words, picture):
        calls.append((model.config.block_sizes, tuple(picture.tolist())))
        return words

    monkeypatch.setattr(readings, "check", check)
    picture, change = pairs.pictures[0], read_change(CAPTION, "the star is green")
    for sizes in ("1", "3", ""):
        saved = {"objective": "diffusion"}
        opened = Studio(painter_of(pairs, sizes), pairs.vocabulary, saved, codes=None)
        opened.wordings(picture, CAPTION, change.new, change.change, seed=0)
        opened.wordings(picture, CAPTION, CAPTION, None, seed=0, where=picture > 4)
    assert calls == [("1", tuple(picture.tolist()))]
