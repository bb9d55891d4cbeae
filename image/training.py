"""What the trainings of picture codes and reader share: batches, symmetries, operations.

Each picture of a batch is shown in one of the square's eight symmetries. All shapes are their own
mirror images, and a scene has no up, so what a picture shows stays true.
"""

import copy
import dataclasses

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from base import flags
from base.errors import UserError
from image.drawn import Pictures
from image.tokenisers import to_pixels
from loop import distributed
from loop.contracts import Checkpoint, LossFn
from worlds.scenes import Scene

SYMMETRIES = 8
JITTER = 0.35  # of a window's side: how far an object may be from the window's middle


def turned_pixels(image: np.ndarray, symmetry: int) -> np.ndarray:
    """An image (S, S, 3) mirrored if symmetry >= 4, then turned by symmetry % 4 quarters."""
    image = image[:, ::-1] if symmetry >= 4 else image
    return np.rot90(image, symmetry % 4)


def turned_points(points: np.ndarray, symmetry: int) -> np.ndarray:
    """What `turned_pixels` does, to points (..., 2): x and y as shares of the side."""
    x, y = points[..., 0], points[..., 1]
    x = 1 - x if symmetry >= 4 else x
    for _ in range(symmetry % 4):
        x, y = y, 1 - x
    return np.stack([x, y], -1)


def turned_scene(scene: Scene, symmetry: int) -> Scene:
    """The scene that the turned image shows. Angles are not kept: nobody reads them."""
    objects = []
    for thing in scene.objects:
        x, y = turned_points(np.array([thing.x, thing.y]), symmetry).tolist()
        objects.append(dataclasses.replace(thing, x=x, y=y))
    return dataclasses.replace(scene, objects=objects)


def window(places: np.ndarray, spot: np.ndarray, side: int, crop: int) -> tuple[int, int]:
    """The top left corner (row, column) of a window of `crop` pixels that shows an object's centre.

    places: (J, 3), as in Pictures. spot: (3,) in [0, 1), which object, and how far from the middle.
    """
    objects = places[places[:, 2] > 0]
    x, y = objects[int(spot[0] * len(objects)), :2] * side
    left = x - crop * (0.5 + JITTER * (2 * spot[1] - 1))
    top = y - crop * (0.5 + JITTER * (2 * spot[2] - 1))
    row, column = np.clip((top, left), 0, side - crop).astype(int).tolist()
    return row, column


class PictureBatches:
    """batches(step): the micro-batches of a step for this process, a function of (seed, step).

    A batch: pixels (B, 3, S, S) float32 in [0, 1]; places (B, 5, 3) float32, as in Pictures;
    scenes, a list; tokens (B,), the pictures' numbers, by which the loop counts rows; weight, B.
    Each step draws its pictures at random, from all of `sources` alike.

    crop: pixels are of a window of this side, which shows an object, at `corners` (B, 2), the row
    and column of its top left pixel. 0: pixels are of whole pictures. Places are of whole pictures.
    """

    def __init__(
        self, sources: list[Pictures], batch_size: int, accumulate: int, seed: int, crop: int = 0
    ):
        self.sources, self.crop = sources, crop
        self.batch_size, self.accumulate, self.seed = batch_size, accumulate, seed
        self.ends = np.cumsum([len(source) for source in sources])

    def __call__(self, step: int) -> list[dict]:
        rng = np.random.default_rng([self.seed, step])
        numbers = rng.integers(self.ends[-1], size=self.batch_size)
        symmetries = rng.integers(SYMMETRIES, size=self.batch_size)
        spots = rng.random((self.batch_size, 3))
        parts = np.array_split(np.arange(self.batch_size), self.accumulate)
        batches = []
        for part, share_of_step in distributed.deal(parts):
            batch = self.batch(numbers[part], symmetries[part], spots[part])
            batches.append(batch | share_of_step)
        return batches

    def batch(self, numbers: np.ndarray, symmetries: np.ndarray, spots: np.ndarray) -> dict:
        """The pictures `numbers` (B,) over all sources, each in its symmetry (B,).

        spots: (B, 3), where the windows are.
        """
        images, places, scenes, corners = [], [], [], []
        for number, symmetry, spot in zip(numbers, symmetries, spots, strict=True):
            which = int(np.searchsorted(self.ends, number, side="right"))
            source = self.sources[which]
            row = int(number - self.ends[which])  # counted from the end: a negative index
            image = turned_pixels(source.pixels[row], symmetry)
            place = source.places[row].copy()
            place[:, :2] = turned_points(place[:, :2], symmetry)
            places.append(place)
            if self.crop:
                top, left = window(place, spot, len(image), self.crop)
                image = image[top : top + self.crop, left : left + self.crop]
                corners.append((top, left))
            images.append(image)
            scenes.append(turned_scene(source.scenes[row], symmetry))
        return {
            "pixels": to_pixels(np.stack(images)),
            "places": torch.from_numpy(np.stack(places)),
            "scenes": scenes,
            "tokens": torch.from_numpy(np.asarray(numbers)),
            "weight": float(len(images)),
            "corners": torch.tensor(corners),
        }


def operations(model, loss_fn: LossFn, batches: PictureBatches) -> float:
    """Floating-point operations of a training step, counted on a single picture."""
    # A batch of one picture: counting must not cost what a step costs.
    batch = batches.batch(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros((1, 3)))
    model = copy.deepcopy(model)  # counting leaves no trace, also not in the means of a batch norm
    with FlopCounterMode(display=False) as counter:
        loss_fn(model, batch, torch.Generator())[0].backward()
    return float(counter.get_total_flops() * batches.batch_size)


def refuse_other_sizes(resume: Checkpoint, size) -> None:
    """Raise UserError unless the network's sizes are those of the resumed run. size: a config."""
    # Refused here, because torch would name tensors and not flags.
    for name, value in flags.to_dict(size).items():
        before = resume["model"].get(name)
        if value != before:
            raise UserError(
                f"--{name} {value}",
                f"the sizes of the run, --{name} {before}",
                "give this flag, or choose another --out",
            )
