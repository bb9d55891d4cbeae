"""The table's gate: what the expert, random actions and an expert without words do, and speeds.

Reads   nothing: tasks are drawn
Writes  a Markdown table on the screen; --json FILE all figures

Half a minute:
    python -m tools.table --episodes 10
The gate, seven minutes:
    python -m tools.table --episodes 200

"ever" counts episodes in which the order was done in some step, with Wilson's 95% intervals. An
expert must reach 99% of 200 without noise. Speeds are per CPU second of one process: other work on
the machine does not change them much.
"""

import json
import time
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from base import files, flags, metrics
from base.files import UserError
from base.flags import check, setting
from worlds import expert, recording
from worlds.layouts import SPLITS
from worlds.table import STEPS, TableEnv
from worlds.tasks import Task, sample_task

KINDS = ("pick", "put to a zone", "put by a relation", "push", "stack", "twins", "next_to")
POLICIES = ("expert", "expert with noise", "without words", "random")
SIZES = (64, 96, 128, 224)  # pixels


@dataclass
class Gate:
    """What is tried, and how often."""

    episodes: int = setting(200, "of each kind of order and each policy", at_least=1)
    split: str = setting("val", "of the tasks", choices=("train", *SPLITS))
    only: str | None = setting(None, "one policy (default: all)", choices=POLICIES)
    seed: int = setting(0, "of the tasks and the noise", at_least=0)
    json: str | None = setting(None, "write all figures here", metavar="FILE")

    def __post_init__(self):
        check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Gate)
    return parser.parse_args(argv)


def draw(rng: np.random.Generator, kind: str, split: str) -> Task:
    """A task of a kind of order. Raises UserError if the split has none."""
    if kind in ("twins", "next_to"):
        return sample_task(rng, kind)
    if split == "held_relation" and kind != "put by a relation":
        raise UserError(f"{kind} in the split {split}", "put by a relation", "choose another split")
    while True:
        task = sample_task(rng, split, kind.split()[0])
        to_zone = task.order.word in ("on", "in")
        if not kind.startswith("put") or to_zone == (kind == "put to a zone"):
            return task


def play(env: TableEnv, task: Task, policy: str, rng: np.random.Generator) -> tuple[dict, int]:
    """An episode: its last `info`, and its steps."""
    if policy == "random":
        _, info = env.reset(seed=int(rng.integers(2**32)), options={"task": task})
        for _ in range(STEPS):
            *_, info = env.step(rng.uniform(-1, 1, 4))
        return info, STEPS
    if policy == "without words":
        guess = expert.without_words(task, rng)
        return play_expert(env, task, guess, rng)
    rows = recording.record(env, task, rng, noise=policy == "expert with noise")
    return env.info(), len(rows["action"])


def play_expert(env: TableEnv, task: Task, guess: Task, rng) -> tuple[dict, int]:
    """The expert does another task than the one that is judged, until the episode ends."""
    _, info = env.reset(seed=int(rng.integers(2**32)), options={"task": task})
    actor = expert.Expert(guess, rng)
    for _ in range(STEPS):
        *_, info = env.step(actor.act(env))
    return info, STEPS


def try_policy(options: Gate, kind: str, policy: str) -> dict:
    """The figures of one policy on one kind of order."""
    env = TableEnv()
    ever, last, wrong, steps = 0, 0, 0, []
    for episode in tqdm(range(options.episodes), desc=f"{policy}, {kind}", leave=False):
        # All policies meet the same tasks.
        task = draw(np.random.default_rng([options.seed, episode]), kind, options.split)
        rng = np.random.default_rng([options.seed, episode, 1])
        info, length = play(env, task, policy, rng)
        ever += info["ever"]
        last += info["done"]
        wrong += bool(info["wrong"])
        steps.append(length)
    return {
        "policy": policy,
        "kind": kind,
        "episodes": options.episodes,
        "ever": ever,
        "interval": metrics.share_interval(ever, options.episodes),
        "at_the_end": last,
        "wrong": wrong,
        "mean_steps": float(np.mean(steps)),
    }


def steps_per_second(seconds: float = 2.0) -> float:
    """Control steps of physics per CPU second, with five things and random actions."""
    env = TableEnv()
    rng = np.random.default_rng(0)
    while env.task is None or len(env.task.layout.things) != 5:
        env.reset(seed=int(rng.integers(2**32)))
    actions = rng.uniform(-1, 1, (64, 4))
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        env.step(actions[count % 64])
        count += 1
    return count / (time.process_time() - start)


def frames_per_second(side: int, seconds: float = 1.0) -> float:
    """Images of the front camera per CPU second, of a table with six things."""
    env = TableEnv(side)
    env.reset(seed=0, options={"split": "crowd"})
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        env.picture()
        count += 1
    speed = count / (time.process_time() - start)
    env.close()
    return speed


def speeds() -> dict[str, float | str]:
    """Speeds by name; a text where there is no OpenGL."""
    found: dict[str, float | str] = {"steps per CPU second": steps_per_second()}
    for side in SIZES:
        try:
            found[f"images per CPU second at {side} pixels"] = frames_per_second(side)
        except UserError as error:
            found[f"images per CPU second at {side} pixels"] = str(error)
    return found


def markdown(rows: list[dict]) -> str:
    table = [["policy", "order", "ever [95%]", "at the end", "another thing moved", "steps"]]
    for row in rows:
        total = row["episodes"]
        low, high = (100 * value for value in row["interval"])
        table.append(
            [
                row["policy"],
                row["kind"],
                f"{row['ever']} of {total} [{low:.1f}, {high:.1f}]",
                f"{row['at_the_end']}",
                f"{row['wrong']}",
                f"{row['mean_steps']:.1f}",
            ]
        )
    return metrics.markdown(table)


def main(argv=None) -> None:
    options = flags.resolve(Gate, parse_args(argv))
    kinds = ("put by a relation",) if options.split == "held_relation" else KINDS
    policies = (options.only,) if options.only else POLICIES
    rows = [try_policy(options, kind, policy) for policy in policies for kind in kinds]
    print(markdown(rows))
    measured = speeds()
    for name, value in measured.items():
        print(f"{name}: {value if isinstance(value, str) else format(value, '.0f')}")
    if options.json:
        facts = {"split": options.split, "seed": options.seed, "speeds": measured, "rows": rows}
        files.write_text(options.json, json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    files.run(main)
