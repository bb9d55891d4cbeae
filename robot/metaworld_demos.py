"""Demonstrations and stills of Meta-World, in the form of the table's: the same scripts train on
them.

Two things are named in each task: the first is taken, the second (or the goal) is where it goes. In
the list of things, their attributes say no more than which is which.
"""

from pathlib import Path

import numpy as np

from base import files, observations, words
from base.tokenizer import Tokenizer
from loop import progress
from robot import data, layout, stills
from robot.demos import ACTION_NAMES, Demos
from robot.recorder import Recorder
from worlds import metaworld
from worlds.metaworld import MetaWorld, record

STATE_NAMES = ["x", "y", "z", "opening"]
FULL = "observation.full_state"  # Meta-World's own observation, which LeRobot's folder has too
PER_EPISODE = 5  # stills of one episode
TRIES = 20  # of the expert, before a task is given up


def all_words() -> list[str]:
    """The instructions of all tasks, also of those that are not recorded: one vocabulary."""
    return [text for _, text in metaworld.TASKS.values()]


def kinds() -> np.ndarray:
    """The attributes of the two things: (8, kinds) uint8."""
    rows = np.zeros((observations.MOST, len(stills.KINDS)), np.uint8)
    rows[0, 0] = rows[1, 1] = 1
    return rows


def schedule(tasks: list[str], count: int) -> list[str]:
    """The task of each of `count` episodes: blocks, since a task takes seconds to set up.

    The last episodes, which trainers hold out, have all tasks again.
    """
    few = data.held_out(count)
    blocks = []
    for length in (count - few, few):
        blocks += [tasks[number * len(tasks) // length] for number in range(length)]
    return blocks


def episode_rng(demos: Demos, stream: int, task: str, number: int) -> np.random.Generator:
    """Of an episode: the same, whichever other tasks are recorded."""
    index = list(metaworld.TASKS).index(task)
    return np.random.default_rng([demos.seed, stream, index, number, 1])


def good_episode(env: MetaWorld, rng: np.random.Generator) -> tuple[dict, int]:
    """An episode in which the expert succeeds, and how often it failed before."""
    for failed in range(TRIES):
        rows = record(env, rng)
        if rows["done"][-1]:
            return rows, failed
    raise files.UserError(
        f"an expert that failed {TRIES} times at {env.task}",
        "a task that Meta-World's expert does",
        "leave the task out of --tasks",
    )


def record_demos(demos: Demos, folder: Path) -> int:
    """Record `num_demos` demonstrations, task by task. Returns how often the expert failed."""
    names = schedule(demos.task_names(), demos.num_demos)
    features = {
        data.STATE: layout.vector(STATE_NAMES),
        data.THINGS: layout.vector([f"thing_{i}" for i in range(data.THINGS_WIDTH)]),
        FULL: layout.vector([f"number_{i}" for i in range(39)]),
        data.ACTION: layout.vector(ACTION_NAMES),
        data.EXECUTED: layout.vector(ACTION_NAMES),
    }
    for name in demos.camera_names():
        features[data.CAMERA + name] = layout.image(demos.image_side, demos.image_side)
    recorder = Recorder(folder, metaworld.FPS, "metaworld", features)
    failed, env = 0, None
    for number in progress.bar(range(recorder.count, demos.num_demos), "recording", "episode"):
        name = names[number]
        if env is None or env.task != name:
            if env is not None:
                env.close()
            env = MetaWorld(name, demos.image_side or None)
        rows, failures = good_episode(env, episode_rng(demos, 1, name, number))
        failed += failures
        recorder.add(episode_of(rows, demos), env.text)
    if env is not None:
        env.close()
    recorder.finish()
    return failed


def episode_of(rows: dict, demos: Demos) -> dict[str, np.ndarray]:
    things = [data.things_vector(kinds(), observations.padded(places)) for places in rows["things"]]
    episode = {
        data.STATE: rows["state"],
        data.THINGS: np.stack(things),
        FULL: rows["full"],
        data.ACTION: rows["action"],
        data.EXECUTED: rows["executed"],
    }
    for name in demos.camera_names():
        episode[data.CAMERA + name] = rows["image"]
    return episode


def draw_stills(demos: Demos, folder: Path, tokenizer: Tokenizer) -> None:
    """Draw the stills, and write their arrays: moments of other episodes than the recorded ones."""
    files.writable_folder(folder)
    episodes = -(-demos.num_stills // PER_EPISODE)
    names = schedule(demos.task_names(), episodes)
    kept: dict[str, list] = {}
    env = None
    for number in progress.bar(range(episodes), "drawing", "episode"):
        name = names[number]
        if env is None or env.task != name:
            if env is not None:
                env.close()
            env = MetaWorld(name, demos.image_side or None)
        ids = words.encode(tokenizer, [env.text])
        rng = episode_rng(demos, 2, name, number)
        left = demos.num_stills - number * PER_EPISODE
        for values in moments(env, ids, rng, min(PER_EPISODE, left)):
            for key, value in values.items():
                kept.setdefault(key, []).append(value)
    if env is not None:
        env.close()
    for key, rows in kept.items():
        data.write_array(folder / f"{key}.npy", np.stack(rows))


def moments(env: MetaWorld, ids: np.ndarray, rng: np.random.Generator, count: int) -> list[dict]:
    """Some moments of an episode of the expert, each as the rows of a still."""
    env.reset(seed=int(rng.integers(2**31)))
    act = metaworld.expert_of(env.task)
    sigma = float(rng.uniform(*metaworld.NOISE))
    found = []
    for _ in range(count):
        for _ in range(int(rng.integers(1, 25))):
            noise = sigma * np.append(rng.standard_normal(3), 0.0)
            env.step(act(env.full) + noise)
        found.append(still_of(env, ids))
    return found


def still_of(env: MetaWorld, ids: np.ndarray) -> dict[str, np.ndarray]:
    """This moment as arrays: one instruction, whose thing is row 0 and whose other is row 1."""
    places = env.things()
    row = {
        "kinds": kinds(),
        "places": observations.padded(places),
        "real": np.arange(observations.MOST) < len(places),
        "words": ids,
        "take": places[:1],
        "put": places[1:],
        "index": np.array([[0, 1]], np.int8),
    }
    if env.image_size is not None:
        pixels = env.pixels(observations.padded(places).astype(np.float64))
        row["images"] = env.picture()[None]
        row["pixels"] = np.nan_to_num(pixels, nan=10.0).clip(-10, 10).astype(np.float32)[None]
    return row
