"""Rows of words and pictures: what stands where, what is free, shares of a step, a function of (seed, step)."""

import collections
import math

import pytest
import torch

from base.errors import UserError
from image.rows import WAYS, PairBatches, Pairs, length_nats, rows_of
from tests.making.painted import CODES, make_pictures
from worlds import plans
from worlds.scenes import scene_from_dict


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("rows")), "train")


def test_a_row_of_each_way(pairs):
    vocabulary, caption = pairs.vocabulary, pairs.captions[0][0]
    ways = WAYS[:5]
    rows = rows_of(vocabulary, [caption] * 5, pairs.pictures[:1].expand(5, -1), ways)
    n, picture = len(caption), pairs.pictures[0].tolist()
    assert rows["lengths"].tolist() == [n + 9, n + 9, n + 9, 10, n]
    assert rows["words"].tolist() == [n, n, n, 1, n]
    counted = {
        "picture": 9,
        "words": n - 1,
        "both": n + 8,
        "picture_alone": 9,
        "words_alone": n - 1,
    }
    for number, way in enumerate(ways):
        tokens, free = rows["tokens"][number], rows["free"][number]
        words = [vocabulary.bos] if way == "picture_alone" else caption
        expected = words + ([] if way == "words_alone" else picture)
        assert tokens[: len(expected)].tolist() == expected
        assert (tokens[len(expected) :] == vocabulary.pad).all() and not free[len(expected) :].any()
        assert free.sum() == counted[way] and not free[0]
    assert min(caption) >= CODES and vocabulary.text(caption) == pairs.texts[0][0]
    assert vocabulary.mask == vocabulary.size - 1 and vocabulary.output_size == vocabulary.pad


def test_a_row_with_a_plan(tmp_path):
    """Caption, plan and picture follow each other; the caption is not counted with the plan."""
    pairs = Pairs(make_pictures(tmp_path / "planned", planned=2), "train")
    vocabulary, words = pairs.vocabulary, pairs.captions[1][0]
    n = len(words)
    assert vocabulary.plan == 13 and vocabulary.text(words[: n - 13]) == pairs.texts[1][0]
    assert words[n - 14] == vocabulary.eos
    scene = scene_from_dict(pairs.scenes[1])
    ordered = plans.in_order(scene, pairs.texts[1][0])
    assert vocabulary.text(words[n - 13 :]) == plans.write(ordered, 2)
    rows = rows_of(vocabulary, [words] * 6, pairs.pictures[:1].expand(6, -1), WAYS)
    assert rows["words"].tolist() == [n, n, n, 1, n, n]
    assert rows["free"].sum(1).tolist() == [9, n - 1, n + 8, 9, n - 1, 13]
    assert rows["lengths"].tolist() == [n + 9, n + 9, n + 9, 10, n, n]
    assert rows["free"][5].nonzero().flatten().tolist() == list(range(n - 13, n))
    sizes = [len(words) - 13 for captions in pairs.captions for words in captions]
    assert pairs.histogram() == [sizes.count(size) for size in range(max(sizes) + 1)]
    with pytest.raises(ValueError, match="13"):
        vocabulary.plan_words("dark xa")


def test_steps_are_a_function_of_seed_and_step(pairs):
    shares = {"picture": 0.5, "words": 0.25, "picture_alone": 0.25}
    batches = PairBatches(pairs, shares, 8, 2, seed=3)
    there = batches(5)
    again = PairBatches(pairs, shares, 8, 2, seed=3)(5)
    assert all(torch.equal(a["tokens"], b["tokens"]) for a, b in zip(there, again, strict=True))
    assert [len(part["tokens"]) for part in there] == [4, 4]
    assert there[0]["weight"] == there[0]["free"].sum()
    drawn = sum((part["words"] == 1).sum().item() for part in there)
    assert drawn == 2  # a quarter of 8 rows: shares are met as nearly as they can be


def test_every_picture_once_an_epoch(pairs):
    batches = PairBatches(pairs, {"both": 1.0}, 4, 1, seed=0)
    seen = collections.Counter()
    for step in range(batches.epoch_steps):
        seen.update(batches.numbers_of(step).tolist())
    assert set(seen.values()) == {1} and len(seen) == 12


def test_a_length_costs_what_its_histogram_says():
    assert torch.allclose(
        length_nats([0, 3], torch.tensor([1, 9])),
        torch.tensor([math.log(5 / 4), math.log(5)]).double(),
    )


def test_rows_that_learn_plans_stand_together(tmp_path):
    """Half of the rows are plans: half of the micro-batches are short. No picture is lost."""
    pairs = Pairs(make_pictures(tmp_path / "planned", planned=2), "train")
    batches = PairBatches(pairs, {"picture": 0.5, "plan": 0.5}, 8, 4, seed=3)
    parts = batches(0)
    lengths = [part["lengths"] - part["words"] for part in parts]
    assert [set(extra.tolist()) for extra in lengths] == [{0}, {0}, {9}, {9}]
    assert [int(part["free"].sum()) for part in parts] == [26, 26, 18, 18]
    # A part of plans alone would make the part of pictures larger.
    few = PairBatches(pairs, {"picture": 0.75, "plan": 0.25}, 8, 3, seed=3)(0)
    assert [part["words"].numel() for part in few] == [3, 3, 2]
    many = PairBatches(pairs, {"picture": 0.375, "plan": 0.625}, 8, 2, seed=3)(0)
    assert [part["words"].numel() for part in many] == [5, 3]
    only = PairBatches(pairs, {"plan": 1.0}, 8, 3, seed=3)(0)
    assert [part["words"].numel() for part in only] == [3, 3, 2]
    # The order of the rows, and with it their noise, does not depend on the number of parts.
    whole = PairBatches(pairs, {"picture": 0.375, "plan": 0.625}, 8, 1, seed=3)(0)[0]
    assert whole["words"].tolist() == sum((part["words"].tolist() for part in many), [])


def test_plans_that_do_not_fit_the_scenes(tmp_path):
    read = make_pictures(tmp_path / "planned", planned=2)
    read.plans = 1
    with pytest.raises(UserError, match="no plan there"):
        Pairs(read, "train")
