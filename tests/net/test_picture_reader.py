"""The reader: scenes to targets and back, no object twice, and a loss that falls."""

import numpy as np
import torch

from net.picture_reader import (
    ANSWERS,
    MOST,
    NAMED,
    Answers,
    PictureReader,
    ReaderConfig,
    reading_loss,
    scenes_of,
    targets,
)
from worlds.collection import Scenes, sample
from worlds.scenes import SIZES, Object, Scene

GRID = 24


def perfect(scenes: list[Scene]) -> Answers:
    """The maps of a reader that sees everything."""
    wanted = targets(scenes, GRID)
    maps = (len(scenes), len(SIZES), GRID, GRID)
    picture, size, row, column = wanted.where
    classes = {}
    for name, words in NAMED.items():
        logits = torch.zeros(*maps[:2], len(words), GRID, GRID)
        logits[picture, size, wanted.classes[name], row, column] = 20.0
        classes[name] = logits
    place = torch.zeros(*maps[:2], 3, GRID, GRID)
    place[picture, size, :, row, column] = wanted.place
    return Answers(torch.logit(wanted.heat, eps=1e-6), classes, place)


def described(scene: Scene) -> list[tuple]:
    things = [(*t.kind(), round(t.x, 4), round(t.y, 4), round(t.radius, 4)) for t in scene.objects]
    return sorted(things)


def test_perfect_maps_are_read_as_the_scene():
    """Also a small object in the middle of a large object, and five objects."""
    wanted = Scenes(inside=0.6, captions=1)
    scenes = [sample(split, n, wanted)[0] for split in ("train", "long") for n in range(60)]
    nested = [
        Object("circle", "red", "large", "solid", 0.5, 0.5, 0.2),
        Object("star", "blue", "small", "outlined", 0.5, 0.5, 0.08),
    ]
    scenes.append(Scene(nested))
    for found, scene in zip(scenes_of(perfect(scenes), 0.9), scenes, strict=True):
        assert described(found) == described(scene)


def test_an_object_is_not_seen_twice():
    thing = Object("circle", "red", "medium", "solid", 0.5, 0.5, 0.12)
    answers = perfect([Scene([thing])])
    answers.heat[0, 2, 12, 12] = 1.0  # a weaker peak on the map of large objects
    answers.place[0, 2, :, 12, 12] = torch.tensor([0.0, 0.0, 0.9])
    (found,) = scenes_of(answers, 0.3)
    assert described(found) == described(Scene([thing]))
    assert scenes_of(answers, 0.3)[0].objects[0].size == "medium"
    noise = Answers(torch.randn(1, 3, GRID, GRID), answers.classes, answers.place * 0)
    assert len(scenes_of(noise, 0.1)[0].objects) <= MOST


def test_the_reader_learns_one_picture_and_reads_it():
    torch.manual_seed(0)
    model = PictureReader(ReaderConfig(side=32, width=16, blocks=1))
    scene = Scene([Object("square", "red", "large", "solid", 0.4, 0.6, 0.2)])
    pixels = torch.full((1, 3, 32, 32), 0.5)
    pixels[:, 0, 14:25, 8:18], pixels[:, 1:, 14:25, 8:18] = 0.9, 0.1
    assert model(pixels).heat.shape == (1, 3, 8, 8) and ANSWERS == 25
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        loss = sum(reading_loss(model(pixels), targets([scene], 8)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0] and np.isfinite(losses).all()
    (found,) = model.read(pixels)
    assert [thing.kind() for thing in found.objects] == [("large", "solid", "red", "square")]
    assert abs(found.objects[0].x - 0.4) < 0.05 and abs(found.objects[0].y - 0.6) < 0.05


def test_a_scene_without_objects_has_a_loss():
    model = PictureReader(ReaderConfig(side=32, width=16, blocks=1))
    losses = reading_loss(model(torch.rand(1, 3, 32, 32)), targets([Scene()], 8))
    assert all(torch.isfinite(loss) for loss in losses.values()) and losses["heat"] > 0


def test_the_default_has_the_size_that_is_documented():
    assert 1.1e6 < PictureReader(ReaderConfig()).num_parameters() < 1.3e6
