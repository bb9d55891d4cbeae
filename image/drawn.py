"""Drawn pictures for the trainings of picture codes and reader: drawn once, as arrays of pixels.

    pixels_{split}.npy    uint8 (N, S, S, 3)
    scenes_{split}.jsonl  the scene of each picture, a line each
    meta.json             format, kind "drawn", settings, sizes and checksums; written last

Splits: `train` and `val` have no combination that is held out. `judge` has all that is held out,
and the pictures of four and five objects. Picture codes never see it. The reader learns from it
too: a judge must not take a combination for unlikely because nobody else was shown it.

Pictures are drawn at the size of a scene's image and then reduced. Drawn at 96 pixels directly,
the pen's least width of three pixels would fill small outlined shapes.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from base import files, flags, folders
from base.errors import UserError
from base.flags import setting
from loop import progress
from worlds import drawing
from worlds.collection import Scenes, sample
from worlds.scenes import Scene, scene_from_dict

KIND = "drawn"
SPLITS = ("train", "val", "judge")
# In turn, the splits of which `judge` is made, with the levels that they need.
JUDGED = ("held_pair", "held_relation", "held_count", "long")
WHAT = "drawn pictures"
DO = "remove the folder, or choose another --data_dir"
MOST_OBJECTS = 5  # of a scene


@dataclass
class Drawing:
    """The pictures: drawn into the folder unless they are there."""

    data_dir: str = setting("data_drawn", "folder of the drawn pictures", metavar="FOLDER")
    pictures: int = setting(
        10_000, "pictures to train on; half as many show what is held out", at_least=8
    )
    held_back: int = setting(600, "pictures to score on", at_least=2)
    noise: int = setting(1, "pictures have noise 0 to this", at_least=0, at_most=3)
    # Not 0, the seed of the folders that models are scored on.
    scene_seed: int = setting(1, "decides every scene and pixel", at_least=0)
    workers: int = setting(0, "processes that draw; 0 means a process per core", at_least=0)

    def __post_init__(self):
        flags.check(self)

    @property
    def scenes(self) -> Scenes:
        """The scenes, as worlds/collection.py samples them: all levels."""
        return Scenes(noise=self.noise, seed=self.scene_seed, captions=1)

    def sizes(self) -> dict[str, int]:
        """{split: number of pictures}."""
        return {"train": self.pictures, "val": self.held_back, "judge": self.pictures // 2}


def picture(scene: Scene, side: int) -> np.ndarray:
    """The image of a scene, side × side pixels: (side, side, 3) uint8."""
    # Thrice the side: a tidy object then has the same pixels at each place of the grid.
    image = drawing.draw(scene, 3 * side if scene.tidy else drawing.SIDE)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def draw_number(wanted: Scenes, split: str, side: int, number: int) -> tuple[dict, np.ndarray]:
    """Picture `number` of a split: its scene as a dict, and its pixels (side, side, 3) uint8."""
    if split == "judge":
        split, number = JUDGED[number % len(JUDGED)], number // len(JUDGED)
    scene, _ = sample(split, number, wanted)
    return scene.to_dict(), picture(scene, side)


def draw_split(folder: Path, wanted: Drawing, split: str, side: int) -> None:
    """Draw a split into its two files, on all cores. A finished split is left as it is."""
    pixels, scenes = folder / f"pixels_{split}.npy", folder / f"scenes_{split}.jsonl"
    if pixels.exists() and scenes.exists():
        return
    size = wanted.sizes()[split]
    images = np.empty((size, side, side, 3), np.uint8)
    records: list[dict] = []
    draw = partial(draw_number, wanted.scenes, split, side)
    with ProcessPoolExecutor(wanted.workers or None) as pool:
        drawn = pool.map(draw, range(size), chunksize=32)
        for record, image in progress.bar(drawn, f"drawing {split}", unit="image", total=size):
            images[len(records)] = image
            records.append(record)
    with files.replacing(pixels) as file:
        np.save(file, images)
    files.write_lines(scenes, records)


def make(wanted: Drawing, side: int) -> dict:
    """Draw the pictures that are not there yet. Returns meta.json.

    Raises UserError if the folder holds other pictures, or if another process draws there.
    """
    folder = Path(wanted.data_dir)
    facts: dict = {"side": side, "noise": wanted.noise, "scene_seed": wanted.scene_seed}
    facts["splits"] = wanted.sizes()
    if not (folder / "meta.json").exists():
        files.claim(folder)
        begin(folder, facts)
        names = []
        for split in SPLITS:
            draw_split(folder, wanted, split, side)
            names += [f"pixels_{split}.npy", f"scenes_{split}.jsonl"]
        table = files.listed(folder, names)
        digest = files.sha256("".join(table[name]["sha256"] for name in names).encode())
        meta = {"format": folders.FORMAT, "kind": KIND, "fingerprint": digest, **facts}
        files.write_sealed(folder / "meta.json", {**meta, "files": table})
    meta = folders.read_meta(folder, KIND, WHAT, DO, DO)
    refuse_others(folder, meta, facts)
    return meta


def begin(folder: Path, facts: dict) -> None:
    """Write settings.json, or compare it: a stopped drawing is continued with equal settings."""
    path = folder / "settings.json"
    if path.exists():
        refuse_others(folder, files.read_json(path, "the settings of a stopped run", DO), facts)
    files.write_json(path, facts)


def refuse_others(folder: Path, found: dict, facts: dict) -> None:
    """Raise UserError if these are other pictures."""
    different = [name for name, value in facts.items() if found.get(name) != value]
    if different:
        name = different[0]
        raise UserError(f"{folder} with {name} {found.get(name)}", f"{name} {facts[name]}", DO)


class Pictures:
    """A split of the folder: pixels (N, S, S, 3) uint8, memory-mapped, and scenes.

    places: (N, 5, 3) float32, centre x, y and radius of each object, zeros where there is none.
    Raises UserError if a file was changed.
    """

    def __init__(self, folder, split: str, meta: dict):
        folder = Path(folder)
        names = (f"pixels_{split}.npy", f"scenes_{split}.jsonl")
        for name in names:
            files.existing(folder / name, WHAT, DO)
        folders.check_files(folder, meta, names, DO)
        self.pixels = folders.open_array(folder / names[0], DO)
        lines = files.read_text(folder / names[1], WHAT, DO).splitlines()
        self.scenes = [scene_from_dict(json.loads(line)) for line in lines]
        self.places = np.zeros((len(self.scenes), MOST_OBJECTS, 3), np.float32)
        for number, scene in enumerate(self.scenes):
            for index, thing in enumerate(scene.objects):
                self.places[number, index] = thing.x, thing.y, thing.radius

    def __len__(self) -> int:
        return len(self.scenes)
