"""A folder of robot data: stills that teach words, and demonstrations that teach acts.

tokenizer.json          the words of the orders
stills/kinds.npy        (S, 8, kinds) uint8: the attributes of each thing, in 0 and 1
stills/places.npy       (S, 8, 3) float32: where the things are, in metres
stills/real.npy         (S, 8) bool: which of the 8 rows are things
stills/words.npy        (S, M, 24) int16: M orders per still, as ids of words
stills/take.npy         (S, M, 3) float32: where the thing is that the order names
stills/put.npy          (S, M, 3) float32: where the order wants it
stills/index.npy        (S, M, 2) int8: the row of the thing and of the other; -1: no other
stills/images.npy       (S, K, side, side, 3) uint8, of K cameras, if images were drawn
demos/                  a LeRobot dataset v3.0 (robot/layout.py)
meta.json               format, kind "robot", fingerprint, checksums, settings; written last
"""

from pathlib import Path

import numpy as np
import torch

from base import files, folders, observations, words
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import distributed
from robot import stills
from robot.hearing import Hearing
from robot.sayings import Sayings

WHAT = "a folder of robot data"
DO = "run prep_robot_demos.py, or name another folder with --data_dir"
STATE = "observation.state"
THINGS = "observation.environment_state"  # LeRobot's name for what only a simulator knows
ACTION = "action"
# What the arm did, where the expert was disturbed while it recorded: `action` is what it wanted.
EXECUTED = "action.executed"
CAMERA = "observation.images."
THINGS_WIDTH = observations.MOST * (len(stills.KINDS) + 3)  # numbers of `things_vector`


def things_vector(kinds: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Attributes and places of up to 8 things as one vector: (8 · (kinds + 3),) float32."""
    return np.concatenate([kinds, places], 1).astype(np.float32).reshape(-1)


def split_things(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse: (..., 8 · (kinds + 3)) -> attributes, places, and which rows are things."""
    table = vector.reshape(*vector.shape[:-1], observations.MOST, -1)
    kinds, places = table[..., :-3], table[..., -3:]
    return kinds, places, observations.real_of(kinds)


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array, whole or not at all."""
    with files.replacing(path) as file:
        np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)


class RobotData:
    """The stills of a folder, memory-mapped, and its demonstrations.

    Raises UserError if a file is missing, damaged or changed.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.meta = folders.read_meta(folder, "robot", WHAT, DO, DO)
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        folders.check_tokenizer(self.tokenizer.fingerprint, self.meta["tokenizer"], folder)
        names = [name for name in self.meta.get("files", {}) if name.startswith("stills/")]
        folders.check_files(folder, self.meta, tuple(names), DO)
        self.stills = {}
        for name in names:
            path = files.existing(self.folder / name, WHAT, DO)
            self.stills[Path(name).stem] = folders.open_array(path, DO)

    def __len__(self) -> int:
        return len(self.stills["words"])

    @property
    def has_images(self) -> bool:
        return "images" in self.stills

    def need_images(self) -> None:
        """Raise UserError if the folder was made without images."""
        if not self.has_images:
            raise UserError(
                f"{self.folder} without images",
                "images, or --sees state",
                "run prep_robot_demos.py with --image_side 64, or add --sees state",
            )

    def need_table(self, flag: str) -> None:
        """Raise UserError if the folder is of another world than our table."""
        if self.meta.get("world", "table") != "table":
            raise UserError(
                f"{flag} with {self.folder}, of the world {self.meta['world']}",
                "data of the table",
                f"leave out {flag}",
            )

    def cameras(self) -> list[str]:
        """The features of the demonstrations that hold images."""
        return (
            [CAMERA + name for name in self.meta["cameras"].split(",")] if self.has_images else []
        )


def held_out(number: int, share: float = 0.05) -> int:
    """How many of `number` rows are kept for validation: the last ones."""
    return max(1, int(number * share))


class StillBatches:
    """batches(step): stills and all their orders, a pure function of (seed, step).

    batch_size: stills per step. hearing: what happens to the words. sayings: what is said of each
    still, or None.
    """

    def __init__(
        self,
        data: RobotData,
        numbers,
        cfg,
        sees: str,
        hearing: Hearing,
        sayings: Sayings | None = None,
    ):
        self.data, self.numbers, self.sees, self.hearing = data, np.asarray(numbers), sees, hearing
        self.batch_size, self.accumulate, self.seed = cfg.batch_size, cfg.accumulate, cfg.seed
        self.sayings = sayings

    def __call__(self, step: int) -> list[dict]:
        rng = np.random.default_rng([self.seed, 1, step])
        chosen = rng.choice(self.numbers, min(self.batch_size, len(self.numbers)), replace=False)
        parts = np.array_split(np.sort(chosen), self.accumulate)
        result = []
        for part, where in distributed.deal(parts):
            batch = self.batch(part, np.random.default_rng([self.seed, 2, step]))
            if self.sayings is not None:
                batch["sayings"] = self.sayings.batch(
                    part, np.random.default_rng([self.seed, 3, step])
                )
            result.append(batch | where)
        return result

    def batch(self, numbers: np.ndarray, rng: np.random.Generator | None = None) -> dict:
        """Stills `numbers` with their orders; rng: of what happens to the words."""
        arrays = self.data.stills
        ids = arrays["words"][numbers].astype(np.int64)  # (n, M, W)
        ids = ids.reshape(-1, ids.shape[-1])
        tokenizer = self.data.tokenizer
        ids = self.hearing.heard(tokenizer, ids, rng)
        batch = {
            "tokens": torch.from_numpy(ids),
            "lengths": torch.from_numpy(words.lengths(tokenizer, ids)),
            "seen": self.seen(numbers),
            "weight": float(len(ids)),
        }
        for name in ("take", "put", "index"):
            values = arrays[name][numbers]
            batch[name] = torch.from_numpy(values.reshape(-1, values.shape[-1]).copy())
        if self.sees == "pixels":
            batch["pixels"] = self.pixels(numbers)
        return batch

    def pixels(self, numbers: np.ndarray) -> torch.Tensor:
        """Where the cameras see what is named: (n · M, 2, K, 2); the first row for no thing."""
        arrays = self.data.stills
        named = np.maximum(arrays["index"][numbers].astype(np.int64), 0)  # (n, M, 2)
        every = arrays["pixels"][numbers].transpose(0, 2, 1, 3)  # (n, 8, K, 2)
        found = every[np.arange(len(numbers))[:, None, None], named]  # (n, M, 2, K, 2)
        return torch.from_numpy(found.reshape(-1, *found.shape[2:]))

    def seen(self, numbers: np.ndarray) -> dict[str, torch.Tensor]:
        """What the grounder sees of these stills."""
        arrays = self.data.stills
        names = ("kinds", "places", "real") if self.sees == "state" else ("images",)
        seen = {name: torch.from_numpy(np.array(arrays[name][numbers])) for name in names}
        if self.sees == "state":
            seen["kinds"] = seen["kinds"].float()
        return seen
