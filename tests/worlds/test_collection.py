"""Collections of scenes: every split keeps its promise, and a number decides its scene."""

from collections import Counter

import pytest

from base import files
from base.errors import UserError
from worlds import judge, scenes
from worlds.collection import SPLITS, Scenes, sample
from worlds.scenes import Scene


def has_held_pair(scene: Scene) -> bool:
    return any(scenes.held_pair(thing.colour, thing.shape) for thing in scene.objects)


def has_held_count(scene: Scene) -> bool:
    counts = Counter(thing.shape for thing in scene.objects)
    return any(scenes.held_count(number, shape) for shape, number in counts.items())


def has_held_relation(scene: Scene) -> bool:
    back, front = scene.objects
    return scenes.held_relation(front.shape, scenes.relation(front, back), back.shape)


@pytest.fixture(scope="module")
def records() -> dict[str, list]:
    """24 scenes of every split, each with its captions."""
    wanted = Scenes(captions=2)
    return {split: [sample(split, number, wanted) for number in range(24)] for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_splits_keep_their_promise(records, split):
    sampled = [scene for scene, _ in records[split]]
    for scene in sampled:
        assert has_held_pair(scene) == (split == "held_pair")
        assert has_held_count(scene) == (split == "held_count")
        if len(scene.objects) == 2:
            assert has_held_relation(scene) == (split == "held_relation")
    assert {len(scene.objects) for scene in sampled} <= ({4, 5} if split == "long" else {1, 2, 3})
    assert {scene.noise for scene in sampled} <= ({3} if split == "noise3" else {0, 1, 2})


def test_swapped_captions_are_true_of_their_own_image_only(records):
    pairs = records["swap"]
    for (left, left_texts), (right, right_texts) in zip(pairs[::2], pairs[1::2], strict=True):
        for mine, theirs in zip(left_texts, right_texts, strict=True):
            assert Counter(mine.split()) == Counter(theirs.split()) and mine != theirs
            assert judge.judge(mine, left)["truthful"] and judge.judge(theirs, right)["truthful"]
            assert not judge.judge(mine, right)["truthful"]
            assert not judge.judge(theirs, left)["truthful"]


def test_a_number_decides_a_scene_and_its_captions():
    wanted = Scenes(levels="1,2", seed=3)
    assert sample("val", 5, wanted) == sample("val", 5, wanted)
    assert sample("val", 5, wanted) != sample("val", 6, wanted) != sample("train", 6, wanted)
    # The digest was computed before this module was cut out of prep_caption_synthetic.py.
    text = repr([sample(split, 3, Scenes()) for split in SPLITS]).replace(", tidy=False", "")
    assert files.sha256(text.encode()) == "d935787c3638f6fe"


def test_tidy_scenes_keep_the_promise_too():
    wanted = Scenes(levels="1,2", tidy=True, captions=2)
    for split in ("train", "val", "held_pair", "held_relation"):
        for number in range(24):
            scene, texts = sample(split, number, wanted)
            assert scene.tidy and all(judge.judge(text, scene)["truthful"] for text in texts)
            assert has_held_pair(scene) == (split == "held_pair")
            if len(scene.objects) == 2:
                assert has_held_relation(scene) == (split == "held_relation")


def test_levels_decide_the_splits():
    assert Scenes(levels="2,1", num_train=10, num_val=2).sizes() == {
        **{"train": 10, "val": 2, "held_pair": 2, "held_relation": 2, "noise3": 2, "swap": 2}
    }
    assert "held_relation" not in Scenes(levels="1").sizes()
    with pytest.raises(UserError, match="--levels 1,4"):
        Scenes(levels="1,4")
