"""Collections of captioned scenes: the splits, and the scene and captions of each number.

A collection is a function of its settings. Scene `number` of a split is the same in every folder
that is made from the same settings, whoever makes the folder.
"""

from dataclasses import dataclass

import numpy as np

from base import flags
from base.errors import UserError
from base.flags import setting
from worlds import language, scenes

HELD = ("held_pair", "held_relation", "held_count", "long", "noise3", "swap")
# A split's number is part of its random seed, so the order must never change.
SPLITS = [*HELD, "train", "val"]
# Splits that need a level (how many objects a scene has) of their own.
LEVEL_OF = {"held_relation": 2, "swap": 2, "held_count": 3, "long": 3}


@dataclass
class Scenes:
    """The scenes. They decide every image and caption, and are kept in meta.json."""

    num_train: int = setting(5000, "training images", at_least=10)
    num_val: int = setting(500, "images in val and in each test split", at_least=2)
    levels: str = setting("1,2,3", "1: one object, 2: two with a relation, 3: three")
    noise: int = setting(2, "training images have noise 0 to this", at_least=0, at_most=3)
    inside: float = setting(
        scenes.INSIDE,
        "share of the draws of two objects that put one into the other; "
        "at 0.15, an eighth of the images show that",
        at_least=0,
        below=1,
    )
    tidy: bool = setting(
        False,
        "upright objects on a grid, one radius per size, one shade per colour: easier to paint",
    )
    captions: int = setting(5, "true captions per image", at_least=1)
    vocab_size: int = setting(512, "most tokens of the captions' BPE")
    seed: int = setting(0, "decides every scene, pixel and word")

    def __post_init__(self):
        flags.check(self)
        if set(self.levels.split(",")) - {"1", "2", "3"}:
            expected = "some of 1,2,3 with commas between them"
            raise UserError(f"--levels {self.levels}", expected, "for example --levels 1,2")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The levels as numbers, in order: "2,1" is (1, 2)."""
        return tuple(sorted({int(word) for word in self.levels.split(",")}))

    def facts(self) -> dict:
        """What settings.json and meta.json say of the scenes."""
        facts = {"levels": list(self.numbers)}
        for name in ("noise", "inside", "captions", "seed", "vocab_size", "num_train", "num_val"):
            facts[name] = getattr(self, name)
        if self.tidy:  # the facts of other folders stay as they were
            facts |= {"tidy": True, "gap": scenes.TIDY_GAP}
        return facts

    def sizes(self) -> dict[str, int]:
        """{split: number of images}. A split whose level is not drawn is left out."""
        sizes = {"train": self.num_train, "val": self.num_val}
        for split in HELD:
            if split not in LEVEL_OF or LEVEL_OF[split] in self.numbers:
                sizes[split] = self.num_val
        return sizes


def most_objects(wanted: Scenes) -> int:
    """The most objects of a scene, of all splits."""
    highest = max(wanted.numbers)
    return 5 if highest == 3 else highest  # with level 3 goes the split `long`


def sample(split: str, number: int, wanted: Scenes) -> tuple[scenes.Scene, list[str]]:
    """Scene `number` of a split and its captions: a pure function of the arguments."""
    # Images 2k and 2k + 1 of swap share a scene; the second shows it with the objects swapped.
    scene_number = number // 2 if split == "swap" else number
    # A seed per image: the number of workers does not change an image.
    rng = np.random.default_rng([wanted.seed, SPLITS.index(split), scene_number])
    level = LEVEL_OF.get(split, wanted.numbers[scene_number % len(wanted.numbers)])
    # The order of the draws decides the scene: noise first, then the number of objects.
    settings = {
        "noise": 3 if split == "noise3" else int(rng.integers(wanted.noise + 1)),
        "number": int(rng.integers(4, 6)) if split == "long" else 3,
        "inside": wanted.inside,
        "tidy": wanted.tidy,
    }
    if split in ("held_pair", "held_relation", "held_count"):
        settings[split.removeprefix("held_") + "s"] = "held"
    scene = scenes.sample_scene(rng, level, **settings)
    if split != "swap":
        return scene, language.several(scene, rng, wanted.captions)
    # Swapping the colours must not make a pair that training never shows.
    while any(scenes.held_pair(item.colour, item.shape) for item in scenes.swapped(scene).objects):
        scene = scenes.sample_scene(rng, level, **settings)
    mate = number % 2
    texts = language.swap_captions(scene, mate, rng)
    return (scenes.swapped(scene) if mate else scene), texts
