"""The main job in one command: draw scenes, train a captioner, caption images that it never saw.

Reads   nothing but this folder
Writes  runs/demo/ (--out): data/, captioner/, results.json, steps.png, and the page index.html

Ten minutes on two cores, nothing to download:
    python demo.py
A minute, to see that it runs (its captions are poor):
    python demo.py --out runs/quick --num_train 500 --num_val 50 --max_steps 60

Each stage is one of the scripts, printed and then run as a user would run it. A demo that was
stopped continues where it was.
"""

import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from base import files, flags
from base.flags import setting


@dataclass
class Demo:
    """The demo."""

    out: str = setting("runs/demo", "folder to write")
    num_train: int = setting(5000, "training images", at_least=10)
    num_val: int = setting(200, "images in each held-out split", at_least=10)
    max_steps: int = setting(900, "optimizer steps", at_least=10)
    seed: int = setting(0, "decides the scenes, the weights and the masks")

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Demo)
    return parser.parse_args(argv)


def words(script: str, *pairs: tuple[str, object]) -> list[str]:
    """A command line: the script, then --name value for each pair; None: a flag without a value."""
    command = [script]
    for name, value in pairs:
        command.append(f"--{name}")
        if value is not None:
            command.append(str(value))
    return command


def draw(demo: Demo, data: Path) -> list[str]:
    """The command of stage 1. Two levels: the third needs more training than ten minutes."""
    sizes = [("num_train", demo.num_train), ("num_val", demo.num_val)]
    levels = ("levels", "1,2")
    return words("prep_caption_synthetic.py", ("out", data), *sizes, levels, ("seed", demo.seed))


def train(demo: Demo, data: Path, run: Path) -> list[str]:
    """The command of stage 2: these are the settings of the README's figures.

    The length head is linear: it is enough for two objects. Three objects need the wider head.
    """
    # A demo that was stopped continues at its last save.
    resume = [("resume", None)] if (run / "resume.pt").exists() else []
    return words(
        "train_captioning.py",
        ("data_dir", data),
        ("out", run),
        ("model_config", "tiny"),
        ("max_steps", demo.max_steps),
        ("batch_size", 128),
        # Micro-batches hold captions of similar lengths, so less padding is computed.
        ("accumulate", 4),
        ("learning_rate", "4e-3"),  # 2e-3 learns relations too late (docs/log/captions.md)
        ("warmup_steps", 50),
        ("eval_every", 200),
        ("eval_images", 100),
        ("length_hidden", 0),
        ("seed", demo.seed),
        *resume,
    )


def score(demo: Demo, data: Path, best: Path, out: Path) -> list[str]:
    """The command of stage 3: how true the captions are, and how many calls they need."""
    return words(
        "evaluate.py",
        ("checkpoint", best),
        ("data_dir", data),
        ("splits", "val,held_pair"),
        ("step_counts", "1,2,4,8,32"),  # the curve of steps.png: quality over calls
        ("picture", out / "steps.png"),
        ("json", out / "results.json"),
        ("threads", 2),
        ("seed", demo.seed),
    )


def caption(demo: Demo, data: Path, best: Path, out: Path) -> list[str]:
    """The command of stage 4: captions of colour-shape pairs that were never seen in training."""
    return words(
        "generate_caption.py",
        ("checkpoint", best),
        ("use_val_set", None),
        ("data_dir", data),
        ("split", "held_pair"),
        ("num_samples", 40),
        ("html", out / "index.html"),
        ("threads", 2),
        ("seed", demo.seed),
    )


def commands(demo: Demo) -> list[list[str]]:
    """The four stages as command lines."""
    out = Path(demo.out)
    data, run = out / "data", out / "captioner"
    best = run / "best.pt"
    return [
        draw(demo, data),
        train(demo, data, run),
        score(demo, data, best, out),
        caption(demo, data, best, out),
    ]


def run(command: list[str]) -> None:
    """Print and run one script; if it fails, the demo ends with the script's own status."""
    print(f"\n$ python {shlex.join(command)}", flush=True)  # before the script writes
    # A process per stage, as for a user: a stage's memory is then its own.
    script = Path(__file__).parent / command[0]
    done = subprocess.run([sys.executable, str(script), *command[1:]])
    # The script has said what is wrong; a traceback of the demo would hide it.
    if done.returncode:
        raise SystemExit(done.returncode)


def peak_memory() -> float:
    """The largest memory of a stage's process, in GiB."""
    unit = 1 << 30 if sys.platform == "darwin" else 1 << 20  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit


def main(argv=None):
    demo = flags.resolve(Demo, parse_args(argv))
    out, clock = files.writable_folder(demo.out), time.perf_counter()
    for command in commands(demo):
        run(command)
    path = out / "results.json"
    results = files.read_json(path, "the evaluation's figures", "run the demo again")
    seconds, memory = time.perf_counter() - clock, peak_memory()
    # The evaluation wrote the file; the demo adds what the whole run cost.
    facts = {"seconds": round(seconds, 1), "peak_memory_gb": round(memory, 2)}
    files.write_json(path, {**facts, **results})
    for split in ("val", "held_pair"):
        figures = results["splits"][split]
        truthful, set_exact = 100 * figures["truthful"], 100 * figures["set_exact"]
        low, high = (100 * bound for bound in figures["truthful_ci95"])
        interval = f"[{low:.1f}, {high:.1f}]"
        print(f"{split:<10} truthful {truthful:.1f}% {interval}  set-exact {set_exact:.1f}%")
    print(f"{seconds / 60:.1f} minutes, at most {memory:.1f} GB per process; figures in {path}")
    print(f"look at {out / 'index.html'}")


if __name__ == "__main__":
    files.run(main)
