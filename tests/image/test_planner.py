"""Plans of a network: written before the picture, read in it, changed, alone as in a batch."""

from dataclasses import replace

import pytest
import torch

import diffusion
from base.config import SampleConfig
from base.files import UserError
from image import planner, studio, writer
from image.guides import Guidance
from image.rows import Pairs
from image.studio import Brush, Studio
from model import Cache
from net.samplers import row_generators
from tests.making.painted import CODES, make_painter, make_pictures
from worlds import changes
from worlds.scenes import Object, Scene

FEW = SampleConfig(**writer.PICTURES | {"steps": 3})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("planner"), planned=2), "val")


def captions_of(pairs):
    plan = pairs.vocabulary.plan
    return [captions[0][:-plan] for captions in pairs.captions]


def painter_of(pairs, causal=False):
    lines = pairs.vocabulary.plan_lines()
    return make_painter(pairs.vocabulary, causal, plan_lines=lines, plan_reach=2, max_length=90)


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_a_plan_alone_is_a_plan_in_a_batch(pairs, objective):
    model, captions = painter_of(pairs, objective == "ar"), captions_of(pairs)
    assert len({len(caption) for caption in captions}) > 1  # rows with padding
    how = (pairs.vocabulary, objective)
    together = planner.write(model, *how, captions, FEW, row_generators(3, len(captions)))
    for row, caption in enumerate(captions):
        assert together[row][: len(caption)] == caption
        assert len(together[row]) == len(caption) + 13
        assert min(together[row]) >= CODES and max(together[row][1:]) < pairs.vocabulary.pad
        alone = planner.write(model, *how, [caption], FEW, row_generators(3, 1, row))
        assert alone == [together[row]]


def test_objects_at_other_places(pairs):
    """Caption, fills, colours, shapes and missing objects stay; the rest is drawn again."""
    model, words = painter_of(pairs), [captions[0] for captions in pairs.captions]
    varied = planner.vary(model, pairs.vocabulary, words, FEW, row_generators(3, len(words)))
    again = []
    for row, (before, after) in enumerate(zip(words, varied, strict=True)):
        start = len(before) - 13
        text = pairs.vocabulary.text(before[start:]).split()
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            word = place - start
            is_attribute = word > 0 and (word - 1) % 6 in (3, 4, 5)
            if word < 0 or is_attribute or text[word] == "nothing":
                assert new == old
            else:
                again.append(new != old)
        alone = planner.vary(model, pairs.vocabulary, [before], FEW, row_generators(3, 1, row))
        assert alone == [after]
    assert sum(again) > len(again) / 2  # a network that learnt nothing


def test_the_twin_reads_places_as_it_learnt_them(pairs):
    """Sampling word by word gives the logits of one pass over the whole row."""
    model, caption = painter_of(pairs, causal=True), captions_of(pairs)[1]
    (words,) = planner.write(
        *(model, pairs.vocabulary, "ar", [caption]),
        SampleConfig(temperature=0.0),
        row_generators(0, 1),
    )
    rows = torch.tensor([words])
    logits = model(rows, words=torch.tensor([len(words)]))
    assert logits[0, len(caption) - 1 : -1].argmax(-1).tolist() == words[len(caption) :]
    true = pairs.captions[1][0]  # a true plan, so that its words stand at places
    whole = model(torch.tensor([true]), words=torch.tensor([len(true)]))
    reader = planner.WordsOfTwin(model, len(true))
    for end in range(1, len(true)):
        unread = torch.tensor([true[end - 1 : end]])
        last = torch.ones_like(unread, dtype=torch.bool)
        step = reader(unread, select=last, cache=None, condition=None)
        assert torch.allclose(step[0], whole[0, end - 1], atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_twin_paints_as_it_learnt(pairs, guidance):
    """Each token of a picture with a plan is the likeliest of a pass over the whole row."""
    model, words = painter_of(pairs, causal=True), pairs.captions[1][0]
    settings = SampleConfig(temperature=0.0, steps=9)
    how = {"guidance": Guidance(guidance)}
    drawn = writer.paint(model, pairs.vocabulary, "ar", [words], settings, **how)
    picture = drawn.tokens[0].tolist()

    def whole(row: list[int], n: int):
        return model(torch.tensor([row + picture]), words=torch.tensor([n]))[0, n - 1 : -1]

    given = whole(words, len(words))
    alone = whole([pairs.vocabulary.bos], 1)
    guided = diffusion.guide(lambda *_: given, lambda *_: alone, guidance)
    logits = guided(given, given, given) if guidance != 1.0 else given
    assert logits.argmax(-1).tolist() == picture
    plain = model.plan.tell(model.objects_of(torch.tensor([words])), torch.arange(9)[None])
    assert plain.any()  # the plan is told, so that the test can fail


def test_words_with_a_plan_are_read_at_one_time(pairs):
    model, words = painter_of(pairs, causal=True), pairs.captions[1][0]
    cache = Cache()
    number = torch.tensor([len(words)])
    model(torch.tensor([words[:3]]), words=number, cache=cache)
    with pytest.raises(ValueError, match="at one time"):
        model(torch.tensor([words[3:4]]), words=number, cache=cache)


def test_a_plan_is_read_in_a_picture(pairs):
    """Another picture, another plan; and the caption stays."""
    model, caption = painter_of(pairs), captions_of(pairs)[0]
    found = [
        planner.fill(
            *(model, pairs.vocabulary, [caption], picture[None], FEW, row_generators(0, 1))
        )[0]
        for picture in pairs.pictures
    ]
    assert all(words[: len(caption)] == caption for words in found)
    assert len({tuple(words) for words in found}) > 1


def test_a_change_of_a_plan(pairs):
    vocabulary = pairs.vocabulary
    before = "dark xd yf medium outlined red triangle xh yh medium solid blue square"
    words = vocabulary.words("a triangle") + vocabulary.plan_words(before)
    change = changes.read("the triangle is green")
    after = planner.changed_plan(vocabulary, words, change)
    assert vocabulary.text(after) == before.replace("red", "green")
    gone = planner.changed_plan(vocabulary, words, changes.read("there is no triangle"))
    assert vocabulary.text(gone) == ("dark xh yh medium solid blue square" + " nothing" * 6)
    assert planner.changed_plan(vocabulary, words, changes.read("the star is green")) is None
    nonsense = vocabulary.words("a triangle") + vocabulary.plan_words("dark" + " red" * 12)
    assert planner.changed_plan(vocabulary, nonsense, change) is None


def test_places_of_a_change():
    stays = Object("circle", "blue", "small", "solid", 0.75, 0.25, 0.0775)
    red = Object("star", "red", "small", "solid", 0.25, 0.75, 0.0775)
    green = replace(red, colour="green")
    before, after = Scene([stays, red]), Scene([stays, green])
    touched = planner.places_of_change(before, after, 12).view(12, 12)
    # From 0.25 - 0.0775 - 1/12 to the same above: the middles of places 1 to 4 lie in between.
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[7:11, 1:5] = True
    assert torch.equal(touched, expected)
    assert torch.equal(planner.places_of_change(before, Scene([stays]), 12).view(12, 12), expected)
    assert not planner.places_of_change(before, before, 12).any()


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_a_studio_plans_before_it_paints(pairs, objective):
    model = painter_of(pairs, objective == "ar")
    saved = {"objective": objective, "statistics": {"row_lengths": pairs.histogram()}}
    opened = Studio(model, pairs.vocabulary, saved, codes=None)  # no pixels are needed
    brush = Brush(FEW, seed=1)
    texts = [texts[0] for texts in pairs.texts]
    painted = opened.paint(texts, brush)
    assert len(painted.plans) == 4 and all(painted.plans)
    assert painted.tokens.shape == (4, 9) and painted.tokens.max() < CODES
    alone = opened.paint(texts[2:3], brush, first=2)
    assert alone.plans == painted.plans[2:3] and torch.equal(alone.tokens[0], painted.tokens[2])


def test_wordings_of_a_change(pairs):
    opened = Studio(
        painter_of(pairs),
        pairs.vocabulary,
        {"objective": "diffusion", "statistics": {"row_lengths": pairs.histogram()}},
        codes=None,
    )
    old = "a red star and a blue circle"
    changed = studio.read_change(old, "the star is green")
    words = opened.wordings(pairs.pictures[0], old, changed.new, changed.change, seed=0)
    assert words.old[:-13] == opened.ids(old) and words.new[:-13] == opened.ids(changed.new)
    same = opened.wordings(pairs.pictures[0], old, old, None, seed=0)
    assert same.old == same.new and not same.is_new
    # Without a change, the plan is read where the picture stays.
    everywhere = torch.ones(9, dtype=torch.bool)
    hidden = opened.wordings(pairs.pictures[0], old, old, None, seed=0, where=everywhere)
    again = opened.wordings(pairs.pictures[1], old, old, None, seed=0, where=everywhere)
    assert hidden.new == again.new and hidden.old != again.old
    with pytest.raises(UserError, match="expected 1 to 66 tokens"):
        opened.ids("a red star " * 30)
    writes_none = replace(opened, saved=opened.saved | {"flags": {"directions": "to_picture"}})
    with pytest.raises(UserError, match="reads no plans"):
        writes_none.wordings(pairs.pictures[0], old, old, None, seed=0)
    said = opened.describe(pairs.pictures)
    assert len(said) == 4 and all(caption.plan for caption in said)
