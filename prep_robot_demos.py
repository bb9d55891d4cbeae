"""Record demonstrations on the table, and still moments that teach words.

Reads   nothing
Writes  data_robot/ (--out): demos/ (a LeRobot dataset v3.0), stills/, tokenizer.json, meta.json

A minute or two on a laptop, without OpenGL: what a simulator knows, and no images:
    python prep_robot_demos.py --num_demos 200 --num_stills 4000 --image_side 0
With a camera's images (five minutes; docs/robot.md names the packages that OpenGL needs):
    python prep_robot_demos.py

It needs `pip install -r requirements-robot.txt`. The expert is disturbed while it records, so the
demonstrations show how to recover; the recorded actions are the undisturbed ones.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import files, flags, folders
from base.files import UserError
from base.flags import setting
from loop import progress
from robot import data, layout, stills, words
from robot.recorder import Recorder
from worlds import orders, tasks
from worlds.camera import CAMERAS, LARGEST, SMALLEST
from worlds.expert import record
from worlds.table import TableEnv

STATE_NAMES = ["x", "y", "z", "opening", "command", "speed_x", "speed_y", "speed_z"]
ACTION_NAMES = ["x", "y", "z", "gripper"]
FPS = 10


@dataclass
class Demos:
    """The demonstrations and the stills."""

    out: str = setting("data_robot", "folder to write", metavar="FOLDER")
    num_demos: int = setting(800, "demonstrations, an order each", at_least=1)
    num_stills: int = setting(20_000, "still moments, for the words", at_least=10)
    orders: int = setting(8, "orders per still", at_least=1)
    image_side: int = setting(96, "pixels of an image's side; 0: no images", at_least=0)
    cameras: str = setting("front", "cameras with commas between them: front, top, wrist")
    free_choices: float = setting(
        0.0,
        "share of the tasks that leave a choice free: next to a thing",
        at_least=0.0,
        at_most=1.0,
    )
    seed: int = setting(0, "decides every layout, order and disturbance")

    def __post_init__(self):
        flags.check(self)

        for name in self.cameras.split(","):
            if name not in CAMERAS:
                raise flags.unknown(f"--cameras {self.cameras}", name, list(CAMERAS))
        if self.image_side and not SMALLEST <= self.image_side <= LARGEST:
            raise UserError(
                f"--image_side {self.image_side}", f"0, or {SMALLEST} to {LARGEST}", "choose 96"
            )

    def camera_names(self) -> list[str]:
        return self.cameras.split(",") if self.image_side else []


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Demos)
    return parser.parse_args(argv)


def all_words() -> list[str]:
    """Every word that training may say: the held-out wordings are left out."""
    texts = [*stills.KINDS, f"the {orders.THING}"]
    for verb in orders.VERBS:
        for wording in orders.wordings(verb, held=False):
            texts.append(wording.format(x="", y="", w=""))
    for phrases in orders.WORDS_OF.values():
        texts += phrases
    return texts


def record_demos(demos: Demos, folder: Path) -> int:
    """Record the demonstrations. An episode in which the expert failed is drawn again."""
    features = {
        data.STATE: layout.vector(STATE_NAMES),
        data.THINGS: layout.vector([f"thing_{i}" for i in range(data.THINGS_WIDTH)]),
        data.ACTION: layout.vector(ACTION_NAMES),
    }
    for name in demos.camera_names():
        features[data.CAMERA + name] = layout.image(demos.image_side, demos.image_side)
    recorder = Recorder(folder, FPS, "table", features)
    env = TableEnv(demos.image_side or None, demos.cameras)
    failed = 0
    for number in progress.bar(range(recorder.count, demos.num_demos), "recording", "episode"):
        for attempt in range(20):
            rng = np.random.default_rng([demos.seed, 0, number, attempt])
            task = tasks.sample_task(rng, kind_of_task(demos, rng))
            rows = record(env, task, rng)
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
    return "next_to" if free else "train"


def episode_of(rows: dict, task: tasks.Task, demos: Demos) -> dict[str, np.ndarray]:
    kinds = stills.kinds_of(task.layout)
    things = [data.things_vector(kinds, stills.padded(places)) for places in rows["things"]]
    episode = {
        data.STATE: rows["state"],
        data.THINGS: np.stack(things),
        data.ACTION: rows["action"],
    }
    for number, name in enumerate(demos.camera_names()):
        episode[data.CAMERA + name] = rows[f"image_{name}" if number else "image"]
    return episode


def draw_stills(demos: Demos, folder: Path, tokenizer) -> None:
    """Draw the stills, and write their arrays."""
    files.writable_folder(folder)
    env = TableEnv(demos.image_side, demos.cameras) if demos.image_side else None
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
            kept[name].append(values)
        if env is not None:
            for name, values in photograph(env, still, said[0], demos, number).items():
                kept.setdefault(name, []).append(values)
    for name, rows in kept.items():
        data.write_array(folder / f"{name}.npy", np.stack(rows))
    if env is not None:
        env.close()


def photograph(env: TableEnv, still, task: tasks.Task, demos: Demos, number: int) -> dict:
    """A still as all K cameras see it: images (K, side, side, 3) uint8, and where the things are
    in them: pixels (K, 8, 2) float32."""
    env.rng = np.random.default_rng([demos.seed, 2, number])  # of the shades of the colours
    env.pose(task, still.hand, still.held)
    places = stills.places_of(still.layout).astype(np.float64)
    names = demos.camera_names()
    pixels = np.stack([env.pixels(name, places) for name in names])
    # A thing that a camera cannot see lies far outside of its image.
    pixels = np.nan_to_num(pixels, nan=10.0).clip(-10, 10).astype(np.float32)
    return {"images": np.stack([env.picture(name) for name in names]), "pixels": pixels}


def is_there(out: Path, facts: dict) -> bool:
    """Whether the folder is finished. Raises UserError if it is of other settings."""
    name = "meta.json" if (out / "meta.json").exists() else "settings.json"
    if not (out / name).exists():
        return False
    before = files.read_json(out / name, "the settings of the folder", "remove the folder")
    if any(before.get(key) != value for key, value in facts.items()):
        raise UserError(
            f"data with other settings in {out}",
            "the same flags, or a folder of its own",
            "choose another --out, or remove it",
        )
    return name == "meta.json"


def main(argv=None):
    demos = flags.resolve(Demos, parse_args(argv))
    out = files.claim(files.writable_folder(demos.out))
    facts = flags.to_dict(demos)
    facts.pop("out")
    if is_there(out, facts):
        print(f"{out}: all is there", file=sys.stderr)
    else:
        # First of all: a stopped run is continued with the same settings only.
        files.write_json(out / "settings.json", facts)
        make(demos, out, facts)
    print(f"{out}: {demos.num_demos:,} demonstrations, {demos.num_stills:,} stills")
    print("next: " + files.python("train_grounding.py", "--data_dir", out))


def make(demos: Demos, out: Path, facts: dict) -> None:
    """Record and draw everything; meta.json comes last."""
    tokenizer = words.from_texts(all_words())
    failed = record_demos(demos, out / "demos")
    print(f"{failed} episodes of the expert failed, and were drawn again", file=sys.stderr)
    draw_stills(demos, out / "stills", tokenizer)
    names = [*stills.PARTS, *(("images", "pixels") if demos.image_side else ())]
    sizes = {"stills": demos.num_stills, "demos": demos.num_demos}
    facts = facts | {"splits": sizes, "failed": failed}
    folders.seal(out, "robot", tokenizer, [f"stills/{name}.npy" for name in names], facts)


if __name__ == "__main__":
    files.run(main)
