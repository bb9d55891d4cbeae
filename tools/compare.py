"""Run the same small pipeline in two checkouts and compare all that it writes, bit for bit.

Reads   two checkouts of this project, such as a release and a working copy
Writes  --out: the files of both runs; a Markdown table to the screen; status 1 if anything differs

Before a change that must not change a result, about ten minutes on two cores:
    git worktree add ../before v0.1.0
    python -m tools.compare ../before .

The command compares the weights and plain values of every checkpoint, the arrays of every data
folder and bundle, and the texts and figures in JSON files. It leaves out the git revision, times
and speeds.
"""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from base import files, flags
from base.files import UserError
from base.flags import check, resolve, setting

# What may differ between two equal runs: when, how fast, and from which commit or folder.
VOLATILE = {"git", "checksums", "checksum", "command", "source", "versions", "build"} | {
    "seconds",
    "seconds_per_text",
}
# Models that learn nothing: every path of the code runs, in ten minutes.
TINY = "--d_model 32 --heads 2 --layers 2 --batch_size 8 --device cpu --threads 1 --warmup_steps 4"
STEPS = "--max_steps 20 --eval_every 10 --save_every 20"

SHORT = f"{STEPS} --batch_size 8 --threads 1"

# The commands, run in order in an empty folder. An indented line continues the command above it.
COMMANDS = f"""
data_prep.py --input stories.txt --out text --vocab_size 320 --val_fraction 0.1
train.py --data_dir text --out denoiser {TINY} {STEPS} --max_length 48 --eval_documents 8
train.py --data_dir text --out twin --objective ar {TINY} {STEPS} --max_length 48
    --eval_documents 8
train.py --data_dir text --out flat --weight flat --complementary {TINY} {STEPS} --max_length 48
generate.py --checkpoint denoiser/best.pt --num_samples 3 --length 24 --json story.jsonl
generate.py --checkpoint twin/best.pt --num_samples 3 --length 24 --json story_twin.jsonl
generate.py --checkpoint denoiser/best.pt --template "Ann had a [MASK*4]." --sampler remask
    --json blank.jsonl
evaluate.py --checkpoint denoiser/best.pt --data_dir text --documents 8 --json text.json
prep_conditional_data.py --data_dir text --denoiser denoiser/best.pt --out pairs
train_conditional.py --data_dir pairs --denoiser denoiser/best.pt --out context {SHORT}
train_conditional.py --data_dir pairs --denoiser denoiser/best.pt --conditioning cross --out
    cross {SHORT}
train_conditional.py --data_dir pairs --denoiser twin/best.pt --objective ar --out pairs_twin
    {SHORT}
generate_conditional.py --checkpoint context/best.pt --prompt "Ann had a cat." --json
    continued.jsonl
evaluate.py --checkpoint context/best.pt --data_dir pairs --documents 4 --json
    pairs.json
prep_caption_synthetic.py --out scenes --num_train 64 --num_val 12 --vocab_size 320 --workers 1
train_captioning.py --data_dir scenes --out captioner {TINY} {STEPS} --eval_images 8
train_captioning.py --data_dir scenes --out caption_twin --objective ar {TINY} {STEPS}
    --eval_images 8
generate_caption.py --checkpoint captioner/best.pt --use_val_set --data_dir scenes --num_samples
    4 --json captions.jsonl
generate_caption.py --checkpoint captioner/best.pt --image scenes/images/val/000000.png
    --temperature 0.8 --num_samples 3 --seed 5 --json drawn.jsonl
generate_caption.py --checkpoint captioner/best.pt --image scenes/images/val/000001.png
    --template "a [MASK] red [MASK]" --json template.jsonl
evaluate.py --checkpoint captioner/best.pt --data_dir scenes --splits val --step_counts 1,4
    --json captions.json
train_encoder --data_dir scenes --out encoder --max_steps 20 --batch_size 8 --device cpu
    --threads 1
export_onnx.py --checkpoint captioner/best.pt --data_dir scenes --inputs 8 --threads 1 --out
    bundle
infer_onnx.py --bundle bundle --image scenes/images/val/000002.png --threads 1 --json
    bundle.jsonl
export_onnx.py --checkpoint denoiser/best.pt --data_dir text --inputs 8 --threads 1 --out
    text_bundle
"""


@dataclass
class Comparison:
    """What is compared."""

    out: str = setting("runs/compare", "folder for the files of both runs")
    keep: bool = setting(False, "use the files of an earlier comparison where they are there")

    def __post_init__(self):
        check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("before", help="the first checkout")
    parser.add_argument("after", help="the second checkout")
    parser.add_settings(Comparison)
    return parser.parse_args(argv)


def write_stories(path: Path, count: int = 120) -> None:
    """A text file of small made-up stories."""
    # Made up with a fixed seed: both checkouts get the same text, and nothing is downloaded.
    rng, stories = random.Random(0), []
    for _ in range(count):
        sentences = []
        for _ in range(rng.randint(1, 4)):
            name, pet = rng.choice(("Ann", "Ben", "Cleo")), rng.choice(("cat", "dog", "hen"))
            thing = rng.choice(("ball", "kite", "hat"))
            sentences.append(f"{name} had a {pet}. The {pet} saw a {thing} and {name} was glad.")
        stories.append(" ".join(sentences))
    files.write_text(path, "\n<|endoftext|>\n".join(stories))


def command_of(root: Path, line: str) -> list[str]:
    """A line of COMMANDS as a command of a checkout. Before 0.2.0 the tools lay in the root."""
    name, *words = shlex.split(line)
    if name.endswith(".py"):
        return [sys.executable, str(root / name), *words]
    if (root / f"{name}.py").exists():
        return [sys.executable, str(root / f"{name}.py"), *words]
    return [sys.executable, str(root / "tools" / f"{name}.py"), *words]


def run_all(root: Path, out: Path) -> None:
    """Run all commands of one checkout in the folder `out`. Raises UserError where one fails."""
    out.mkdir(parents=True)
    write_stories(out / "stories.txt")
    # The number of threads changes the order of a sum, and so its last bits. PYTHONPATH is needed
    # for tools/: Python puts the folder of a script on its path, not the root.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    for line in re.sub(r"\n +", " ", COMMANDS).strip().splitlines():
        print(f"{root}: {line}", file=sys.stderr)
        command = command_of(root, line)
        # A process per command: modules of the two checkouts have the same names.
        done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
            raise UserError(
                f"status {done.returncode} of `{line}` in {root}: {last}", "0", "see it"
            )


def differences(first, second, path: str = "") -> list[str]:
    """The places where two nested values differ. Floats must have the same bits; NaN equals NaN."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [key for key in {**first, **second} if key not in VOLATILE]
        places = []
        for key in keys:
            if key not in first or key not in second:
                places.append(f"{path}/{key} on one side only")
            else:
                places += differences(first[key], second[key], f"{path}/{key}")
        return places
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [f"{path} of {len(first)} and {len(second)} entries"]
        places = []
        for index, pair in enumerate(zip(first, second, strict=True)):
            places += differences(*pair, f"{path}/{index}")
        return places
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        first, second = first.cpu().numpy(), second.cpu().numpy()
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        # Bytes, not ==: a NaN is unequal to itself, and 0.0 equals -0.0.
        same = first.dtype == second.dtype and first.shape == second.shape
        return [] if same and first.tobytes() == second.tobytes() else [path]
    # repr shows every digit of a float, tells 1 from True, and shows two NaNs alike.
    return [] if repr(first) == repr(second) else [path]


def read(path: Path):
    """The content of a file as nested values: a checkpoint, arrays, JSON, JSON lines, or bytes."""
    if path.suffix == ".pt":
        return torch.load(path, map_location="cpu", weights_only=True)  # runs no code of a pickle
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return path.read_bytes()


def compared(out: Path) -> list[Path]:
    """The files of a run that two equal checkouts write alike, relative to `out`."""
    wanted = {".pt", ".npz", ".npy", ".json", ".jsonl"}
    # A bundle's description names versions and checksums of its code; a log holds speeds.
    left_out = {"bundle.json", "log.jsonl", "config.json", "meta.json", "features.json"}
    paths = [path for path in sorted(out.rglob("*")) if path.suffix in wanted]
    return [path.relative_to(out) for path in paths if path.name not in left_out]


def main(argv=None):
    arguments = parse_args(argv)
    settings = resolve(Comparison, arguments)
    out, roots = Path(settings.out).absolute(), [Path(arguments.before), Path(arguments.after)]
    for root, name in zip(roots, ("before", "after"), strict=True):
        files.existing(root / "train.py", "a checkout of this project", "name its folder")
        # An old run of another commit would be compared without a word.
        if (out / name).exists() and not settings.keep:
            raise UserError(f"{out / name}", "an empty --out", "remove it, or add --keep")
        if not (out / name).exists():
            run_all(root.absolute(), out / name)
    names = {name: compared(out / name) for name in ("before", "after")}
    print("| file | equal |\n|---|---|")
    wrong = 0
    for path in sorted({*names["before"], *names["after"]}):
        if path not in names["before"] or path not in names["after"]:
            places = ["on one side only"]
        else:
            places = differences(read(out / "before" / path), read(out / "after" / path))
        wrong += bool(places)
        print(f"| {path} | {'bit for bit' if not places else '; '.join(places[:3])} |")
    print(f"{wrong} files differ", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    files.run(main)
