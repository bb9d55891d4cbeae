"""Practice: a painter paints pictures, and keeps those that it reads as they were meant.

A painter of both directions reads its own pictures (image/candidates.py). Of the pictures of pairs
of colour and shape that no picture of training shows, it keeps few, and most of these are right
(docs/log/pictures.md). They can teach it: `train_image.py --practice`. STaR (arXiv 2203.14465) also
learns from its own answers that pass a check.

The scenes are drawn at random, with all pairs of colour and shape alike. No true picture of a scene
is drawn. A scene is practised with a probability, so that pairs which training shows, or which are
painted well, take little time:

    probability = largest over its objects of (dropped + 1) / (painted + shown + 2)

`dropped` and `painted` count the painted pictures that showed the object's pair, `shown` the true
pictures of training. A picture is kept if the network reads each attribute in it with a probability
of at least `least`. No other judge takes part. Another network than the painter may read the
pictures, such as the painter from before practice (docs/log/pictures.md).

Shapes: B pictures, P picture tokens.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from base import flags
from base.errors import UserError
from base.flags import setting
from image import candidates
from image.data import PictureData
from image.studio import Brush, Studio
from worlds import language, plans
from worlds.scenes import Scene, sample_scene, scene_from_dict

# Keeps the scenes apart from those of folders, whose streams are the numbers of their splits.
STREAM = 1000


@dataclass
class Practice:
    """What is practised."""

    pictures: int = setting(8000, "pictures to paint", at_least=1)
    least: float = setting(
        0.5,
        "keep a picture if the network reads each attribute with at least this probability",
        above=0,
        below=1,
    )
    seed: int = setting(0, "decides scenes and pictures", at_least=0)
    batch_size: int = setting(32, "pictures at one time; it decides what is practised", at_least=1)

    def __post_init__(self):
        flags.check(self)


@dataclass
class Tally:
    """How often each pair of colour and shape was painted, and how often dropped.

    shown: how many true pictures of training show it.
    """

    painted: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    shown: Counter = field(default_factory=Counter)

    def probability(self, scene: Scene) -> float:
        """The probability with which a scene is practised."""
        shares = []
        for pair in pairs_of(scene):
            times = self.painted[pair] + self.shown[pair]
            shares.append((self.dropped[pair] + 1) / (times + 2))
        return max(shares)

    def add(self, scene: Scene, is_kept: bool) -> None:
        """Count a picture for each of its pairs."""
        for pair in pairs_of(scene):
            self.painted[pair] += 1
            self.dropped[pair] += not is_kept


def shown_in(data: PictureData) -> Counter:
    """How many pictures of training show each pair of colour and shape."""
    shown: Counter = Counter()
    for record in data.records("train"):
        shown.update(pairs_of(scene_of(record)))
    return shown


def hardest(tally: Tally, count: int = 5) -> str:
    """The pairs that were dropped most often, in words; empty if none was."""
    words = []
    for pair, dropped in tally.dropped.most_common(count):
        if dropped:
            words.append(f"{pair} {dropped} of {tally.painted[pair]}")
    return ", ".join(words)


def pairs_of(scene: Scene) -> set[str]:
    """The pairs of colour and shape in a scene, in words."""
    return {f"{thing.colour} {thing.shape}" for thing in scene.objects}


def draw_scene(opened: Studio, meta: dict, number: int, tally: Tally, seed: int) -> dict:
    """What is practised as picture `number`: a line of captions.jsonl, without a picture.

    meta: meta.json of the painter's folder, whose scenes have the same levels.
    """
    rng = np.random.default_rng([seed, STREAM, number])
    level = meta["levels"][number % len(meta["levels"])]
    room = opened.model.config.max_length - opened.side**2 - opened.vocabulary.plan
    while True:
        scene = sample_scene(rng, level, pairs="any", inside=meta["inside"], tidy=True)
        if rng.random() < tally.probability(scene):
            captions = language.several(scene, rng, 1)
            if len(opened.vocabulary.words(captions[0])) <= room:
                return {"split": "train", "captions": captions, "scene": scene.to_dict()}


def scene_of(record: dict) -> Scene:
    """The scene of a line of captions.jsonl."""
    return scene_from_dict(record["scene"])


def ids_of(opened: Studio, record: dict) -> list[int]:
    """The ids of a record's caption, with the plan of its scene."""
    caption, vocabulary = record["captions"][0], opened.vocabulary
    scene = plans.in_order(scene_of(record), caption)
    text = plans.write(scene, plans.objects_of(vocabulary.plan))
    return vocabulary.words(caption) + vocabulary.plan_words(text)


@torch.no_grad()
def practise(
    opened: Studio, checker: Studio, records: list[dict], brush: Brush, first: int, least: float
) -> tuple[np.ndarray, list[bool]]:
    """A picture for each record, (B, P) uint16, and whether it is kept.

    checker: the network that reads the pictures, of the same folder; it may be the painter itself.
    first: the number of the first picture. A picture's draws are those of its number.
    """
    words = [ids_of(opened, record) for record in records]
    drawn = opened.draw(words, brush, first=first)
    sure = candidates.least_sure(checker.model, checker.vocabulary, words, drawn.tokens)
    return drawn.tokens.numpy().astype(np.uint16), (sure >= least).tolist()


def check_studio(opened: Studio) -> None:
    """Raise UserError for a network that cannot practise: it paints no plans, or reads none."""
    if not opened.reads_own:
        raise UserError(
            "practice of a network that paints no plans or reads none",
            "a diffusion network of both directions, of a folder with plans",
            "name another --checkpoint",
        )


def check_checker(opened: Studio) -> None:
    """Raise UserError for a network that reads no plans in pictures."""
    if not opened.reads_plans:
        raise UserError(
            "--checker with a network that reads no plans in pictures",
            "a diffusion network that learnt words, of a folder with plans",
            "name another --checker, or leave it out: then the painter reads its own pictures",
        )


def open_practice(folders: str, data: PictureData) -> list[PictureData]:
    """Folders of practice, with commas between them, for the trainings on `data`.

    Raises UserError if a folder is none, or if its painter was trained on other pictures.
    """
    result = []
    for folder in folders.split(","):
        found = PictureData(folder)
        painter = found.meta.get("practice", {}).get("data")
        if painter != data.fingerprint:
            raise UserError(
                f"--practice {folder} of a painter of {painter or 'no'} pictures",
                f"practice of a painter of {data.folder}, {data.fingerprint}",
                "run tools.practise with the same --data_dir",
            )
        result.append(found)
    return result
