"""Small recordings of a robot that does not exist."""

from pathlib import Path

import numpy as np

from robot import layout
from robot.recorder import Recorder

FRONT = "observation.images.front"
STATE = "observation.state"
FEATURES = {
    FRONT: layout.image(6, 8),
    STATE: layout.vector(["x", "y", "z"]),
    "action": layout.vector(["dx", "grip"]),
}
FILE_MB = 0.0035  # puts two of these episodes into a data file
LENGTHS = (5, 1, 7, 3)
TASKS = (["pick the red cube", "take the red cube"], "wait", "push the ring", "wait")


def episode(number: int) -> dict[str, np.ndarray]:
    """The arrays of an episode, drawn from its number."""
    rng = np.random.default_rng(number)
    length = LENGTHS[number % len(LENGTHS)]
    return {
        FRONT: rng.integers(0, 256, (length, 6, 8, 3), dtype=np.uint8),
        STATE: rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
    }


def recorder(folder, **more) -> Recorder:
    return Recorder(folder, 10, "toy", FEATURES, **more)


def record(folder, count: int = 4, **more) -> Path:
    """A finished dataset of `count` episodes; an unfinished one is continued."""
    writer = recorder(folder, **more)
    for number in range(writer.count, count):
        writer.add(episode(number), TASKS[number % len(TASKS)])
    writer.finish()
    return Path(folder)
