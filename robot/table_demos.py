"""Demonstrations and stills of the table: recorded and drawn, with images if they are wanted.

Another arm at such a table has a `World` of its own, and the rest is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import files, observations, words
from base.tokenizer import Tokenizer
from loop import progress
from robot import data, layout, stills
from robot.demos import ACTION_NAMES, Demos
from robot.recorder import Recorder
from worlds import orders, tasks
from worlds.expert import Expert
from worlds.recording import record
from worlds.table import TableEnv

STATE_NAMES = ["x", "y", "z", "opening", "command", "speed_x", "speed_y", "speed_z"]
FPS = 10


@dataclass
class World:
    """An arm at a table. make: an environment, from pixels and cameras. scale: metres there per
    metre of worlds/layouts.py.
    """

    name: str
    make: Callable[[int | None, str], TableEnv]
    expert: type[Expert]
    state_names: list[str]
    action_names: list[str]
    action_range: tuple[float, float] = (-1.0, 1.0)
    scale: float = 1.0


TABLE = World("table", TableEnv, Expert, STATE_NAMES, ACTION_NAMES)


def all_words() -> list[str]:
    """Every word that training may say: the held-out wordings are left out."""
    texts = [*stills.KINDS, f"the {orders.THING}"]
    for verb in orders.VERBS:
        for wording in orders.wordings(verb, held=False):
            texts.append(wording.format(x="", y="", w=""))
    texts.append(tasks.AROUND)
    for phrases in orders.WORDS_OF.values():
        texts += phrases
    return texts


def record_demos(demos: Demos, folder: Path, world: World = TABLE) -> int:
    """Record the demonstrations. An episode in which the expert failed is drawn again."""
    features = {
        data.STATE: layout.vector(world.state_names),
        data.THINGS: layout.vector([f"thing_{i}" for i in range(data.THINGS_WIDTH)]),
        data.ACTION: layout.vector(world.action_names),
        data.EXECUTED: layout.vector(world.action_names),
    }
    for name in demos.camera_names():
        features[data.CAMERA + name] = layout.image(demos.image_side, demos.image_side)
    recorder = Recorder(folder, FPS, world.name, features, action_range=world.action_range)
    env = world.make(demos.image_side or None, str(demos.cameras))
    failed = 0
    for number in progress.bar(range(recorder.count, demos.num_demos), "recording", "episode"):
        for attempt in range(20):
            rng = np.random.default_rng([demos.seed, 0, number, attempt])
            task = tasks.sample_task(rng, kind_of_task(demos, rng))
            rows = record(env, task, rng, mishaps=demos.mishaps, make=world.expert)
            if rows["done"][-1]:
                break
            failed += 1
        recorder.add(episode_of(rows, task, demos), task.text)
    env.close()
    recorder.finish()
    return failed


def kind_of_task(demos: Demos, rng: np.random.Generator) -> str:
    """The split that a task is drawn from: `train`, or the tasks with a free choice."""
    # Without free choices nothing is drawn: the folder is the same as before there were any.
    free = demos.free_choices and rng.random() < demos.free_choices
    names = demos.free_tasks.split(",")
    if not free:
        return "train"
    return names[0] if len(names) == 1 else str(rng.choice(names))


def episode_of(rows: dict, task: tasks.Task, demos: Demos) -> dict[str, np.ndarray]:
    kinds = stills.kinds_of(task.layout)
    things = [data.things_vector(kinds, observations.padded(places)) for places in rows["things"]]
    episode = {
        data.STATE: rows["state"],
        data.THINGS: np.stack(things),
        data.ACTION: rows["action"],
        data.EXECUTED: rows["executed"],
    }
    for number, name in enumerate(demos.camera_names()):
        episode[data.CAMERA + name] = rows[f"image_{name}" if number else "image"]
    return episode


def draw_stills(demos: Demos, folder: Path, tokenizer: Tokenizer, world: World = TABLE) -> None:
    """Draw the stills, and write their arrays."""
    files.writable_folder(folder)
    env = world.make(demos.image_side, str(demos.cameras)) if demos.image_side else None
    kept: dict[str, list] = {name: [] for name in stills.PARTS}
    for number in progress.bar(range(demos.num_stills), "drawing", "still"):
        rng = np.random.default_rng([demos.seed, 1, number])
        said: list[tasks.Task] = []
        while not said:
            still = stills.sample_still(rng, "train")
            kind = kind_of_task(demos, rng)
            said = stills.sample_orders(rng, still.layout, kind, demos.orders)
        ids = words.encode(tokenizer, [task.text for task in said])
        for name, values in stills.rows_of(still, said, ids).items():
            metres = name in ("places", "take", "put")
            kept[name].append(values * np.float32(world.scale) if metres else values)
        if env is not None:
            for name, values in photograph(env, still, said[0], demos, number, world.scale).items():
                kept.setdefault(name, []).append(values)
    for name, rows in kept.items():
        data.write_array(folder / f"{name}.npy", np.stack(rows))
    if env is not None:
        env.close()


def photograph(
    env: TableEnv, still, task: tasks.Task, demos: Demos, number: int, scale: float
) -> dict:
    """A still as all K cameras see it: images (K, side, side, 3) uint8, and where the things are
    in them: pixels (K, 8, 2) float32."""
    env.rng = np.random.default_rng([demos.seed, 2, number])  # of the shades of the colours
    env.pose(task, still.hand, still.held)
    places = stills.places_of(still.layout).astype(np.float64) * scale
    names = demos.camera_names()
    pixels = np.stack([env.pixels(name, places) for name in names])
    # A thing that a camera cannot see lies far outside of its image.
    pixels = np.nan_to_num(pixels, nan=10.0).clip(-10, 10).astype(np.float32)
    return {"images": np.stack([env.picture(name) for name in names]), "pixels": pixels}
