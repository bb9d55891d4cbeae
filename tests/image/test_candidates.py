"""Candidates: how a network scores what it painted, which picture is kept, and who cannot choose."""

import math
from dataclasses import replace

import pytest
import torch

from base.config import SampleConfig
from base.files import UserError
from image import candidates, writer
from image.rows import Pairs
from image.studio import Brush, Studio
from image.writer import Painting
from tests.making.painted import make_painter, make_pictures
from worlds.scenes import SHAPES

FEW = SampleConfig(**writer.PICTURES | {"steps": 3})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("candidates"), planned=2), "val")


def studio_of(pairs, objective: str = "diffusion", directions: str = "both") -> Studio:
    settings = {"plan_lines": pairs.vocabulary.plan_lines(), "plan_reach": 2, "max_length": 90}
    model = make_painter(pairs.vocabulary, objective == "ar", **settings)
    saved = {"objective": objective, "flags": {"directions": directions}}
    return Studio(model, pairs.vocabulary, saved, codes=None)


@torch.no_grad()
def test_scores_by_hand(pairs):
    """Row by row. The caption is hidden, and each object's fill, colour and shape, and all words of
    an object that is not there. The hidden words of the plan count.
    """
    opened, vocabulary = studio_of(pairs), pairs.vocabulary
    words = [captions[0] for captions in pairs.captions]
    assert len({len(row) for row in words}) > 1  # rows of several lengths stand in a batch
    found = candidates.scores(opened.model, vocabulary, words, pairs.pictures)
    objects = []
    for row, picture, score in zip(words, pairs.pictures.tolist(), found.tolist(), strict=True):
        start = len(row) - vocabulary.plan
        hidden = list(range(1, start))
        text = vocabulary.text(row[start:]).split()
        attributes = []
        for place in (1, 7):
            is_there = text[place + 5] in SHAPES
            attributes += range(start + place + (3 if is_there else 0), start + place + 6)
            objects.append(is_there)
        ids = torch.tensor([row + picture])
        select = torch.zeros_like(ids, dtype=torch.bool)
        select[0, hidden + attributes] = True
        seen = ids.masked_fill(select, vocabulary.mask)
        logits = opened.model(seen, select=select, words=torch.tensor([len(row)]))
        said = logits.log_softmax(-1).gather(1, ids[select][:, None])[:, 0]
        assert score == pytest.approx(float(said[len(hidden) :].sum()), abs=1e-3)
    assert set(objects) == {True, False}


def test_the_best_of_each_group_is_kept(pairs, monkeypatch):
    """Of equals the first; all fields go with the tokens; reading is a call."""
    painting = Painting(
        tokens=torch.arange(6)[:, None].expand(6, 9),
        step=torch.arange(10, 16)[:, None].expand(6, 9),
        probability=torch.arange(20.0, 26)[:, None].expand(6, 9),
        calls=torch.arange(30, 36),
        plans=list("abcdef"),
    )
    values = torch.tensor([-2.0, -0.5, -1.0, -math.inf, -3.0, -3.0])
    monkeypatch.setattr(candidates, "scores", lambda *_: values)
    kept = candidates.best(None, pairs.vocabulary, painting, [[]] * 6, 3)
    assert kept.tokens[:, 0].tolist() == [1, 4] and kept.step[:, 0].tolist() == [11, 14]
    assert kept.probability[:, 0].tolist() == [21.0, 24.0]
    assert kept.calls.tolist() == [32, 35] and kept.plans == ["b", "e"]
    assert candidates.best(None, pairs.vocabulary, painting, [[]] * 6, 1) is painting


def test_a_picture_has_the_same_candidates_in_any_batch(pairs, monkeypatch):
    """Painted and repainted; the picture that is kept has the best score of all its candidates."""
    opened, three = studio_of(pairs), Brush(FEW, best_of=3)
    prompts = [texts[0] for texts in pairs.texts]
    score, read = candidates.scores, []

    def spy(model, vocabulary, words, pictures):
        found = score(model, vocabulary, words, pictures)
        read.append((words, pictures, found))
        return found

    monkeypatch.setattr(candidates, "scores", spy)
    kept = opened.paint(prompts, three)
    alone = opened.paint(prompts[2:3], three, first=2)
    assert torch.equal(alone.tokens[0], kept.tokens[2]) and alone.plans[0] == kept.plans[2]
    words, pictures, found = read[1]
    assert len(words) == 3 and len(set(found.tolist())) == 3
    assert torch.equal(kept.tokens[2], pictures[int(found.argmax())])
    every = opened.draw(words, Brush(FEW), first=6)
    assert torch.equal(pictures, every.tokens)
    where = torch.tensor([False] * 6 + [True] * 3)
    before, words = pairs.pictures[0], pairs.captions[0][0]
    again = opened.edit(before, where, words, three, first=1)
    assert torch.equal(again.tokens[0][~where], before[~where]) and len(again.tokens) == 1
    each = [opened.edit(before, where, words, Brush(FEW), number).tokens for number in (3, 4, 5)]
    _, pictures, found = read[2]
    assert torch.equal(pictures, torch.cat(each)) and len(read) == 3
    assert torch.equal(again.tokens[0], pictures[int(found.argmax())])


@pytest.mark.parametrize(("objective", "directions"), [("ar", "both"), ("diffusion", "to_picture")])
def test_who_cannot_read_what_it_painted(pairs, objective, directions):
    opened = studio_of(pairs, objective, directions)
    with pytest.raises(UserError, match="--best_of 2 with a network that paints no plans or reads"):
        opened.paint(pairs.texts[0][:1], Brush(FEW, best_of=2))


def test_candidates_must_differ_and_be_read(pairs):
    opened = studio_of(pairs)
    with pytest.raises(UserError, match="--temperature 0, so all candidates are alike"):
        opened.paint(pairs.texts[0][:1], Brush(replace(FEW, temperature=0.0), best_of=2))
    opened.saved["flags"] |= {"share_words": 0.0, "share_both": 0.0}
    with pytest.raises(UserError, match="paints no plans or reads none"):
        opened.paint(pairs.texts[0][:1], Brush(FEW, best_of=2))


def test_a_network_without_plans_is_refused(tmp_path):
    opened = studio_of(Pairs(make_pictures(tmp_path / "plain"), "val"))
    with pytest.raises(UserError, match="of a folder with plans"):
        opened.edit(torch.zeros(9).long(), torch.ones(9).bool(), [1, 2], Brush(FEW, best_of=2), 0)
