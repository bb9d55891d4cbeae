"""The main job in one command: draw captioned scenes, train a captioner, caption pictures that it never saw.

Reads   nothing but this folder
Writes  runs/demo/ (--out): data/, captioner/, results.json, steps.png and index.html, the page to look at

Ten minutes on two cores, nothing to download:
    python demo.py
A minute, to see that it runs (its captions are poor):
    python demo.py --out runs/quick --num_train 500 --num_val 50 --max_steps 60

Each stage is one of the scripts, run as you would run it and printed first. A demo that was stopped goes on where it was.
"""

import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

from base import files, flags
from base.files import UserError


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--out", default="runs/demo", help="folder to write (default %(default)s)")
    parser.add_argument(
        "--num_train", type=int, default=5000, help="pictures to train on (default 5000)"
    )
    parser.add_argument(
        "--num_val", type=int, default=200, help="pictures in each held-out split (default 200)"
    )
    parser.add_argument("--max_steps", type=int, default=900, help="optimizer steps (default 900)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def commands(args, out: Path) -> list[list[str]]:
    """The four stages as command lines."""
    data, run = str(out / "data"), str(out / "captioner")
    best, seed = str(out / "captioner" / "best.pt"), ["--seed", str(args.seed)]
    train = [
        "train_captioning.py",
        "--data_dir",
        data,
        "--out",
        run,
        "--model_config",
        "tiny",
        "--max_steps",
        str(args.max_steps),
        "--batch_size",
        "128",
        "--accumulate",
        "4",
        "--learning_rate",
        "4e-3",
        "--warmup_steps",
        "50",
        "--eval_every",
        "200",
        "--eval_images",
        "100",
        "--length_hidden",
        "0",
        *seed,
    ]  # as its figures were measured; three objects and more need the wider head
    score = ["--threads", "2", *seed]
    sizes = ["--num_train", str(args.num_train), "--num_val", str(args.num_val)]
    return [
        ["prep_caption_synthetic.py", "--out", data, *sizes, "--levels", "1,2", *seed],
        train + (["--resume"] if (out / "captioner" / "resume.pt").exists() else []),
        [
            "evaluate.py",
            "--checkpoint",
            best,
            "--data_dir",
            data,
            "--splits",
            "val,held_pair",
            "--step_counts",
            "1,2,4,8,32",
            "--picture",
            str(out / "steps.png"),
            "--json",
            str(out / "results.json"),
            *score,
        ],
        [
            "generate_caption.py",
            "--checkpoint",
            best,
            "--use_val_set",
            "--data_dir",
            data,
            "--split",
            "held_pair",
            "--num_samples",
            "40",
            "--html",
            str(out / "index.html"),
            *score,
        ],
    ]


def run(command: list[str]) -> None:
    """Print and run one script; a failure ends the demo with the script's own status."""
    print(f"\n$ python {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, str(Path(__file__).parent / command[0]), *command[1:]])
    if done.returncode:
        raise SystemExit(done.returncode)


def main(argv=None):
    args = parse_args(argv)
    if min(args.num_train, args.num_val, args.max_steps) < 10:
        raise UserError(
            f"--num_train {args.num_train} --num_val {args.num_val} --max_steps {args.max_steps}",
            "at least 10 each",
            "raise them",
        )
    out, clock = files.writable_folder(args.out), time.perf_counter()
    for command in commands(args, out):
        run(command)
    results = files.read_json(
        out / "results.json", "the evaluation's figures", "run the demo again"
    )
    seconds = time.perf_counter() - clock
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (
        1 << 20 if sys.platform != "darwin" else 1 << 30
    )
    files.write_json(
        out / "results.json",
        {"seconds": round(seconds, 1), "peak_memory_gb": round(memory, 2), **results},
    )
    for split in ("val", "held_pair"):
        figures = results["splits"][split]
        low, high = figures["truthful_ci95"]
        print(
            f"{split:<10} truthful {100 * figures['truthful']:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
            f"  set-exact {100 * figures['set_exact']:.1f}%"
        )
    print(
        f"{seconds / 60:.1f} minutes, at most {memory:.1f} GB in one process; figures in {out / 'results.json'}"
    )
    print(f"look at {out / 'index.html'}")


if __name__ == "__main__":
    files.run(main)
