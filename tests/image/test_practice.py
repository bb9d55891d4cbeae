"""Practice: which scenes are practised, what is kept, and whose pictures may teach a network."""

import numpy as np
import pytest
import torch

from base.config import SampleConfig
from base.files import UserError
from image import candidates, practice, writer
from image.data import write_folder
from image.objective import ImageRun
from image.practice import Tally
from image.rows import PairBatches, Pairs
from image.studio import Brush, Studio
from tests.making.painted import make_painter, make_pictures
from worlds.collection import SPLITS, Scenes, sample
from worlds.judge import judge
from worlds.scenes import COLOURS, SHAPES, Object, Scene, held_pair

META = {"levels": [1, 2], "inside": 0.0}
BRUSH = Brush(SampleConfig(**writer.PICTURES | {"steps": 3}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("practice"), planned=2)


@pytest.fixture(scope="module")
def opened(data):
    pairs = Pairs(data, "val")
    lines = {"plan_lines": pairs.vocabulary.plan_lines(), "plan_reach": 2, "max_length": 90}
    model = make_painter(pairs.vocabulary, **lines)
    return Studio(model, pairs.vocabulary, {"objective": "diffusion"}, codes=None)


def scene_of(*pairs):
    return Scene([Object(shape, colour, "small", "solid") for colour, shape in pairs], tidy=True)


def test_what_is_painted_wrong_is_practised_more():
    """(dropped + 1) / (painted + 2), of the pair at which the painter is worst."""
    tally, easy, hard = Tally(), ("red", "star"), ("blue", "circle")
    assert tally.probability(scene_of(easy)) == 1 / 2
    for _ in range(8):
        tally.add(scene_of(easy), True)
    for is_kept in (False, False, True):
        tally.add(scene_of(hard), is_kept)
    assert tally.probability(scene_of(easy)) == 1 / 10
    assert tally.probability(scene_of(hard)) == 3 / 5 == tally.probability(scene_of(easy, hard))
    assert practice.hardest(tally, 1) == "blue circle 2 of 3"


def test_scenes_of_all_pairs(opened):
    """Also of the pairs that are held out; captions are true, and a number decides its scene."""
    records = [practice.draw_scene(opened, META, n, Tally(), seed=0) for n in range(400)]
    pairs = set()
    for record in records:
        scene = practice.scene_of(record)
        assert scene.tidy and judge(record["captions"][0], scene)["truthful"]
        pairs |= practice.pairs_of(scene)
    assert len(pairs) == len(COLOURS) * len(SHAPES)
    objects = [thing for record in records for thing in practice.scene_of(record).objects]
    held = [held_pair(thing.colour, thing.shape) for thing in objects]
    pairs_held = [held_pair(colour, shape) for colour in COLOURS for shape in SHAPES]
    assert np.mean(held) == pytest.approx(np.mean(pairs_held), abs=0.06)
    both = [
        all(held_pair(t.colour, t.shape) for t in practice.scene_of(r).objects) for r in records
    ]
    assert any(both[1::2])  # two new pairs in a scene
    assert practice.draw_scene(opened, META, 7, Tally(), seed=0) == records[7]
    # No scene of a folder with the same seed comes back.
    wanted = Scenes(levels="1,2", noise=0, inside=0.0, tidy=True, captions=1)
    drawn = {str(record["scene"]) for record in records}
    for split in SPLITS:
        found = [sample(split, number, wanted)[0].to_dict() for number in range(40)]
        assert not drawn & {str(scene) for scene in found}
    easy = Tally()
    easy.painted.update({pair: 10_000 for pair in pairs if pair != "red star"})
    rare = [practice.draw_scene(opened, META | {"levels": [1]}, n, easy, seed=0) for n in range(20)]
    assert all(practice.pairs_of(practice.scene_of(record)) == {"red star"} for record in rare)
    known = Tally(shown=easy.painted)
    again = [
        practice.draw_scene(opened, META | {"levels": [1]}, n, known, seed=0) for n in range(20)
    ]
    assert again == rare  # a true picture counts as a picture that was painted and kept


def test_a_picture_is_kept_if_the_network_reads_it_surely(opened):
    """Its draws are those of its number, and the check is that of candidates."""
    records = [practice.draw_scene(opened, META, n, Tally(), seed=0) for n in range(4)]
    words = [practice.ids_of(opened, record) for record in records]
    tokens, _ = practice.practise(opened, opened, records, BRUSH, 0, 0.5)
    sure = candidates.least_sure(
        opened.model, opened.vocabulary, words, torch.from_numpy(tokens.astype(np.int64))
    )
    middle = float(sure.sort().values[1:3].mean())
    again, kept = practice.practise(opened, opened, records, BRUSH, 0, middle)
    assert (again == tokens).all() and kept == (sure >= middle).tolist() and sum(kept) == 2
    last, _ = practice.practise(opened, opened, records[3:], BRUSH, 3, 0.5)
    assert (last[0] == tokens[3]).all()
    nats = candidates.hidden_nats(
        opened.model, opened.vocabulary, words, torch.from_numpy(tokens.astype(np.int64))
    )
    assert sure.log().tolist() == pytest.approx(nats.min(1).values.tolist())


@pytest.mark.parametrize("way", ["picture", "plan"])
def test_rows_from_practice(data, way):
    """A share of the rows for pictures and for plans; rows for words stay as they are."""
    pairs, practised = Pairs(data, "train"), Pairs(data, "val")
    shares = {way: 0.5, "words": 0.5}
    how = (pairs, shares, 12, 1, 0, 0.0)
    plain, some = PairBatches(*how), PairBatches(*how, practised, 0.5)
    counts = {way: [0, 0], "words": [0, 0]}
    for step in range(40):
        (before,), (after,) = plain(step), some(step)
        for row in range(12):
            same = is_row(before, after, row)
            # A row for words is free from its second word on, and only there.
            counts["words" if after["free"][row, 1] else way][same] += 1
            if not same:
                words = int(after["words"][row])
                tokens = after["tokens"][row, :words].tolist()
                assert tokens in [captions[0] for captions in practised.captions]
    assert counts["words"][0] == 0 and counts["words"][1] == 240
    assert 90 < counts[way][0] < 150


def is_row(first, second, row):
    length = int(first["lengths"][row])
    same = length == int(second["lengths"][row])
    return same and torch.equal(first["tokens"][row, :length], second["tokens"][row, :length])


def test_how_often_a_pair_is_practised():
    tally = Tally()
    scene = Scene([Object("circle", "red", "small", "solid")], tidy=True)
    assert tally.probability(scene) == 1 / 2
    tally.add(scene, is_kept=False)
    tally.add(scene, is_kept=True)
    assert tally.probability(scene) == 2 / 4
    tally.shown["red circle"] = 6
    assert tally.probability(scene) == 2 / 10


def test_what_training_shows(data):
    shown = practice.shown_in(data)
    scenes = [practice.scene_of(record) for record in data.records("train")]
    for pair in shown:
        assert shown[pair] == sum(pair in practice.pairs_of(scene) for scene in scenes)
    assert set(shown) == {pair for scene in scenes for pair in practice.pairs_of(scene)}


def test_whose_pictures_teach(data, tmp_path):
    """Those of a painter of the same folder."""
    records, tokens = data.records("train"), data.tokens("train")
    where = (records, tokens, data.codes_file, data.tokenizer)
    for name, painter in (("same", data.fingerprint), ("other", "0" * 16)):
        (tmp_path / name).mkdir()
        settings = {"plans": 2, "practice": {"data": painter}}
        write_folder(tmp_path / name, *where, codes=data.codes, settings=settings)
    same, other = str(tmp_path / "same"), str(tmp_path / "other")
    found = practice.open_practice(f"{same},{same}", data)
    assert [len(Pairs(folder, "train")) for folder in found] == [12, 12]
    with pytest.raises(UserError, match="of a painter of 0000"):
        practice.open_practice(f"{same},{other}", data)
    with pytest.raises(UserError, match="of a painter of no pictures"):
        practice.open_practice(str(data.folder), data)


@pytest.mark.parametrize(
    "own, plan",
    [
        ({"objective": "ar"}, 13),
        ({"directions": "to_words"}, 13),
        ({}, 0),
        ({"share_words": 0.5, "share_both": 0.5, "share_absent": 0.0}, 13),
    ],
)
def test_who_learns_nothing_from_practice(own, plan):
    with pytest.raises(UserError, match="--practice folder where no row learns a picture"):
        ImageRun(**own).check_plans("folder", plan)
    with pytest.raises(UserError, match="--share_hidden 0.3 where no row learns a picture"):
        ImageRun(**own, share_hidden=0.3).check_plans(None, plan)
    ImageRun(**own).check_plans(None, plan)
    ImageRun(share_hidden=0.3).check_plans("folder", 13)


def test_who_cannot_practise(opened):
    practice.check_studio(opened)
    twin = Studio(opened.model, opened.vocabulary, {"objective": "ar"}, codes=None)
    with pytest.raises(UserError, match="practice of a network"):
        practice.check_studio(twin)
    with pytest.raises(UserError, match="--checker with a network that reads no plans"):
        practice.check_checker(twin)
    to_words = Studio(
        opened.model,
        opened.vocabulary,
        {"objective": "diffusion", "flags": {"directions": "to_words"}},
        codes=None,
    )
    practice.check_checker(to_words)
    with pytest.raises(UserError, match="practice of a network"):
        practice.check_studio(to_words)
