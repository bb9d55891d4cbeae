"""The main job in one command: draw scenes, train a captioner, caption images that it never saw.

Reads   nothing but this folder
Writes  runs/demo/ (--out): data/, captioner/, results.json, steps.png, and the page index.html

Seven minutes on two threads of a Xeon without a GPU, nothing to download:
    python demo.py
In a time of your own:
    python demo.py --minutes 5
A minute, to see that it runs:
    python demo.py --out runs/quick --num_train 500 --num_val 50 --max_steps 60
A robot instead: words move an arm in a simulator (pip install -r requirements-robot.txt):
    python demo.py --robot --out runs/robot
Captions, drawings, edits, clips and dialogues on one page, in ten minutes:
    python demo.py --world --out runs/world

Each stage is one of the scripts, printed and then run as a user would run it. A demo that was
stopped continues where it was.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from base import files, flags, system
from base.files import UserError
from base.flags import setting
from image import stages as world_stages
from loop import commands
from loop.commands import Command, run, words
from robot import stages
from worlds import camera

# Looking back over a caption mends what was revealed too early. Truth rises from 96.2 to 98.4% on
# val, and from 88.6 to 92.0% on pairs never seen (docs/log/captions.md).
WRITING = {"revise": 1}
# Scoring and the page take this many times the time of drawing, 70 seconds after about 115
# (docs/log/captions.md), and some room.
SCORING = 0.7


@dataclass
class Demo:
    """The demo."""

    out: str = setting("runs/demo", "folder to write")
    num_train: int = setting(5000, "training images", at_least=10)
    num_val: int = setting(200, "images in each held-out split", at_least=10)
    max_steps: int = setting(700, "optimizer steps: 15 TFLOP of training", at_least=10)
    minutes: float = setting(0.0, "fit the training to this time for all; 0: off", at_least=0.0)
    seed: int = setting(0, "decides the scenes, the weights and the masks")
    robot: bool = setting(False, "train a policy that obeys words at a table, not a captioner")
    world: bool = setting(False, "train all models of scenes in --minutes (or 10): one page")
    codes: str | None = setting(None, "with --world: picture codes; none: those of assets/")
    reader: str | None = setting(None, "with --world: picture reader; none: that of assets/")
    quick: bool = setting(False, "with --robot or --world: a few steps, to see that it runs")

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Demo)
    return parser.parse_args(argv)


def draw(demo: Demo, data: Path) -> Command:
    """The command of stage 1. Two levels: the third needs more training than ten minutes."""
    sizes = {"num_train": demo.num_train, "num_val": demo.num_val}
    return words("prep_caption_synthetic.py", out=data, **sizes, levels="1,2", seed=demo.seed)


def train(demo: Demo, data: Path, run: Path, minutes: float = 0.0) -> Command:
    """The command of stage 2: these are the settings of the README's figures.

    minutes: for the training alone; 0: demo.max_steps steps.
    The length head is linear: it is enough for two objects. Three objects need the wider head.
    """
    length = {"minutes": f"{minutes:.2f}"} if minutes else {"max_steps": demo.max_steps}
    if (run / "resume.pt").exists():
        # A demo that was stopped continues at its last save, with the number of steps it had.
        length = {"resume": True}
    return words(
        "train_captioning.py",
        data_dir=data,
        out=run,
        model_config="tiny",
        d_model=160,  # 256 needs 2.5 times the arithmetic per step
        **length,
        batch_size=128,
        # Micro-batches hold captions of similar lengths, so less padding is computed.
        accumulate=4,
        learning_rate="4e-3",  # 2e-3 learns relations too late (docs/log/captions.md)
        warmup_steps=50,
        eval_every=200,
        eval_images=100,
        length_hidden=0,
        seed=demo.seed,
    )


def score(demo: Demo, data: Path, best: Path, out: Path) -> Command:
    """The command of stage 3: how true the captions are, and how many calls they need."""
    return words(
        "evaluate.py",
        checkpoint=best,
        data_dir=data,
        splits="val,held_pair",
        step_counts="1,2,4,8,32",  # the curve of steps.png: quality over calls
        **WRITING,
        picture=out / "steps.png",
        json=out / "results.json",
        threads=2,
        seed=demo.seed,
    )


def caption(demo: Demo, data: Path, best: Path, out: Path) -> Command:
    """The command of stage 4: captions of colour-shape pairs that were never seen in training."""
    return words(
        "generate_caption.py",
        checkpoint=best,
        use_val_set=True,
        data_dir=data,
        split="held_pair",
        num_samples=40,
        **WRITING,
        html=out / "index.html",
        threads=2,
        seed=demo.seed,
    )


def time_to_train(demo: Demo, drawing: float) -> float:
    """Minutes for the training, if the whole demo has demo.minutes; 0 if it has no limit.

    drawing: seconds that stage 1 took, from which the time of scoring follows.
    Raises UserError if no time is left.
    """
    if not demo.minutes:
        return 0.0
    others = (1 + SCORING) * drawing / 60
    if others >= demo.minutes:
        raise UserError(
            f"--minutes {demo.minutes:g}, of which drawing and scoring take {others:.1f}",
            "more minutes, or fewer images",
            "raise --minutes, or lower --num_train",
        )
    return demo.minutes - others


def act(demo: Demo, out: Path) -> None:
    """The robot's demo: record, ground, train, act."""
    missing = camera.missing_opengl()
    if missing:
        print(f"no page with clips: {missing}", file=sys.stderr)
    for command in stages.commands(out, demo.seed, demo.quick, page=not missing):
        run(commands.resumed(command))
    if not missing:
        print(f"look at {out / 'index.html'}")


def show_world(demo: Demo, out: Path) -> None:
    """The demo of all models of scenes: draw, train two queues side by side, write the page."""
    world_stages.make(
        commands.placed(out),
        demo.codes or world_stages.CODES,
        demo.reader or world_stages.READER,
        minutes=demo.minutes or world_stages.MINUTES,
        seed=demo.seed,
        quick=demo.quick,
    )
    print(f"look at {out / 'index.html'}")


def write_captions(demo: Demo, out: Path) -> None:
    """The captioner's demo: draw, train, score, caption."""
    clock = time.perf_counter()
    data, captioner = out / "data", out / "captioner"
    run(draw(demo, data))
    run(train(demo, data, captioner, time_to_train(demo, time.perf_counter() - clock)))
    run(score(demo, data, captioner / "best.pt", out))
    run(caption(demo, data, captioner / "best.pt", out))
    path = out / "results.json"
    results = files.read_json(path, "the evaluation's figures", "run the demo again")
    seconds, peak = time.perf_counter() - clock, system.peak_mib(children=True)
    # None where the system does not say it.
    memory = None if peak is None else round(peak / 2**10, 2)
    # The evaluation wrote the file; the demo adds what the whole run cost.
    facts = {"seconds": round(seconds, 1), "peak_memory_gb": memory}
    files.write_json(path, {**facts, **results})
    for split in ("val", "held_pair"):
        figures = results["splits"][split]
        truthful, set_exact = 100 * figures["truthful"], 100 * figures["set_exact"]
        low, high = (100 * bound for bound in figures["truthful_ci95"])
        interval = f"[{low:.1f}, {high:.1f}]"
        print(f"{split:<10} truthful {truthful:.1f}% {interval}  set-exact {set_exact:.1f}%")
    most = "" if memory is None else f", at most {memory:.1f} GB per process"
    print(f"{seconds / 60:.1f} minutes{most}; figures in {path}")
    print(f"look at {out / 'index.html'}")


def main(argv=None):
    demo = flags.resolve(Demo, parse_args(argv))
    out = files.writable_folder(demo.out)
    if demo.robot:
        act(demo, out)
    elif demo.world:
        show_world(demo, out)
    else:
        write_captions(demo, out)


if __name__ == "__main__":
    files.run(main)
