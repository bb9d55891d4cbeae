"""The commands of README.md and docs/, run as they stand, page by page, with small numbers.

Each page runs in a folder of its own, where earlier commands make what later commands read. The test
makes the files that a user brings: photographs, texts, other people's captions. It leaves out
commands that need a network, a GPU, a camera, several processes, a key press, or another checkout.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from base import files
from edge import parity
from tests.making import demonstrations
from tests.making.sources import ROOT

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
SIMULATED = ("tools.table", "tools.doubt", "robot_demos", "grounding.py", "_policy.py")
NOT_HERE = (
    *("--interactive", "tools.compare", "tools.house", "--camera", "--provider"),
    "--port /dev/",  # an arm
    "-m pytest",  # this suite itself
    *("--world", "tools.world_page"),  # checkpoints of several pages
    *("--clip_score", "--ratings", "observation.environment_state"),
    *(() if importlib.util.find_spec("mujoco") else SIMULATED),
    *(() if importlib.util.find_spec("triton") else ("--kernels",)),
)

# What is set in the commands of a script, whatever the page says.
SMALL = {
    "data_prep": {"--max_documents": 60, "--val_fraction": 0.3},
    # A model of four steps has near ties, which the gate of an export refuses.
    "train": {"--max_steps": 40, "--warmup_steps": 2, "--eval_documents": 4, "--threads": 1},
    "train_conditional": {"--max_steps": 4, "--warmup_steps": 2, "--eval_pairs": 4, "--threads": 1},
    "train_captioning": {"--max_steps": 4, "--warmup_steps": 2, "--eval_images": 4, "--threads": 1},
    "tools.train_encoder": {"--max_steps": 4, "--warmup_steps": 2, "--threads": 1},
    "train_dialogue": {
        **{"--max_steps": 4, "--warmup_steps": 2, "--eval_dialogues": 2, "--threads": 1},
        **{"--d_model": 32, "--heads": 2, "--layers": 2, "--batch_size": 4, "--accumulate": 1},
    },
    "train_image": {
        **{"--max_steps": 4, "--warmup_steps": 2, "--eval_images": 4, "--threads": 1},
        **{"--d_model": 32, "--heads": 2, "--layers": 2, "--batch_size": 4},
    },
    "prep_caption_synthetic": {"--num_train": 24, "--num_val": 6, "--workers": 1},
    "prep_caption_video": {"--num_train": 12, "--num_val": 4, "--workers": 1},
    "prep_caption_photos": {"--workers": 1},
    "prep_dialogue": {"--num_train": 24, "--num_val": 4, "--workers": 1},
    "prep_image_tokens": {"--num_train": 24, "--num_val": 6, "--workers": 1, "--threads": 1},
    "tools.train_picture_codes": {
        **{"--max_steps": 4, "--batch_size": 4, "--width": 16, "--pictures": 16},
        **{"--held_back": 8, "--threads": 1, "--workers": 1},
    },
    "tools.train_picture_reader": {
        **{"--max_steps": 4, "--batch_size": 4, "--width": 16, "--pictures": 16},
        **{"--held_back": 8, "--threads": 1, "--workers": 1},
    },
    "generate": {"--steps": 4, "--num_samples": 1},
    "generate_conditional": {"--steps": 4, "--num_samples": 1},
    "generate_caption": {"--steps": 4, "--num_samples": 2},
    "generate_image": {"--steps": 12, "--num_samples": 2, "--threads": 1},
    "tools.paint_scores": {
        **{"--prompts": 2, "--captions": 2, "--edits": 2, "--step_counts": 4, "--threads": 1},
    },
    "tools.practise": {
        # A painter of four steps reads nothing surely.
        **{"--pictures": 8, "--batch_size": 4, "--least": 1e-9, "--threads": 1},
    },
    "demo": {"--num_train": 24, "--num_val": 10, "--max_steps": 10},
    "export_onnx": {"--inputs": 4},
    "tools.benchmark": {"--repeats": 1},
    "tools.few_data": {
        **{"--unique_tokens": 400, "--trials": "0.1:0.1", "--passes": 2},
        **{"--d_model": 16, "--heads": 2, "--layers": 1, "--max_length": 32, "--batch_size": 4},
        **{"--eval_documents": 4, "--draws": 1, "--threads": 1},
    },
    "tools.block_line": {
        **{"--texts": 2, "--documents": 4, "--draws": 1, "--min_tokens": 8, "--steps": 4},
        **{"--repeats": 1, "--threads": 1},
    },
    "tools.shortcuts": {"--texts": 2, "--repeats": 1, "--guesses": 2, "--threads": 1},
    "tools.table": {"--episodes": 1},
    "prep_robot_demos": {"--num_demos": 3, "--num_stills": 24},
    "train_grounding": {"--max_steps": 4, "--batch_size": 4, "--threads": 1},
    "train_policy": {"--max_steps": 4, "--batch_size": 8, "--threads": 1},
    "run_policy": {"--episodes": 1},
    "drive_robot": {"--episodes": 1, "--seconds": 1, "--status_port": 0},
}
# A page trains several policies in the default folder, where a user would name another.
RUNS = {"train_grounding": "checkpoints_grounding", "train_policy": "checkpoints_policy"}
TINY = {"--d_model": 32, "--heads": 2, "--layers": 2, "--batch_size": 20, "--accumulate": 1}


def put(words: list[str], flags: dict) -> None:
    """Set flags in a command, in place of what the page says."""
    for flag, value in flags.items():
        if flag in words:
            words[words.index(flag) + 1] = str(value)
        else:
            words += [flag, str(value)]


def drop(words: list[str], flag: str) -> None:
    """Take a flag and its value out of a command."""
    if flag in words:
        del words[words.index(flag) : words.index(flag) + 2]


def small(name: str, words: list[str]) -> list[str]:
    """The words of a command with small numbers. What they are is otherwise as the page says."""
    words = list(words)
    if name == "data_prep" and "--input" not in words:
        words += ["--input", "assets/stories.txt", "--vocab_size", "512"]
    drop(words, "--minutes")  # --max_steps says how long it is
    put(words, SMALL.get(name, {}))
    if name in ("train", "train_captioning") and "--resume" not in words:
        put(words, TINY)
    if name == "train_conditional":
        put(words, {"--batch_size": 8})
    if name == "tools.train_encoder":
        put(words, {"--batch_size": 8})
    if "--resume" in words:
        put(words, {"--max_steps": 44})
    if name.startswith("prep_caption") and "none" not in words:
        put(words, {"--encoder": "embedded"})
    if name == "evaluate":
        shrink_evaluation(words)
    if name == "export_onnx" and "int8" in words:
        put(words, {"--calibration": 4})
    if name == "tools.benchmark" and "--bundle" not in words:
        put(words, {"--model_config": "tiny", "--batch_size": 2, "--length": 16, "--batches": 1})
        put(words, {"--step_counts": 2, "--samplers": "first_hitting"})
    return words


def shrink_evaluation(words: list[str]) -> None:
    """Set the sizes of an evaluation; which flags it takes depends on what is scored."""
    if not {"--ratings", "--curves", "--hypotheses"} & set(words):
        put(words, {"--threads": 1})
    if "--samples" in words:
        put(words, {"--num_samples": 2, "--step_counts": 4, "--min_tokens": 10})
    elif "--step_counts" in words:
        put(words, {"--step_counts": "1,2"})
    if "--judge" in words and "--samples" not in words:
        put(words, {"--documents": 4, "--num_samples": 2})
    if "--rerank" in words:
        put(words, {"--rerank": 2})


def commands(page: str) -> list[tuple[str, list[str]]]:
    """(module or `shell`, its words) of each line of a page's bash blocks that can run here."""
    lines = []
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"```bash\n(.*?)```", text, re.S):
        for line in block.strip().splitlines():
            words = shlex.split(line, comments=True)
            if any(mark in line for mark in NOT_HERE) or not words:
                continue
            if line == "make demo":
                lines.append(("demo", []))
            elif words[0] in ("cp", "mkdir"):
                lines.append(("shell", [line]))
            elif words[:2] == ["python", "-m"]:
                lines.append((words[2], words[3:]))
            elif words[0] == "python" and ("infer_onnx.py" not in line or "--bundle" in line):
                lines.append((words[1].removesuffix(".py"), words[2:]))
    return lines


def write_photographs(folder: Path, count: int = 15) -> list[str]:
    """Small images of noise; their names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{number:03}.jpg" for number in range(count)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / name)
    return names


def bring_files() -> None:
    """What the pages call by name and a user brings: a text, photographs, captions."""
    shutil.copy("assets/stories.txt", "train.txt")
    shutil.copy("docs/scene.png", "picture.png")
    said = [f"a dog number {number} runs over the grass" for number in range(5)]
    rows = [f"{name},{caption}" for name in write_photographs(Path("flickr8k")) for caption in said]
    Path("flickr8k/captions.txt").write_text("\n".join(["image,caption", *rows]) + "\n")
    for table, folder in (("coco", "coco"), ("flickr30k", "flickr30k-images")):
        images = []
        for number, name in enumerate(write_photographs(Path(folder))):
            split = ("train", "val", "test")[number % 3]
            sentences = [{"raw": caption} for caption in said]
            images.append({"filename": name, "split": split, "sentences": sentences})
        files.write_json(f"dataset_{table}.json", {"images": images})
    for name in ("my_recordings", "demonstrations"):
        demonstrations.record(Path(name))
    results = [{"image_id": number, "caption": said[number]} for number in range(3)]
    references = [{"image_id": number, "caption": text} for number in range(3) for text in said]
    Path("results.json").write_text(json.dumps(results))
    files.write_json("captions.json", {"annotations": references})


@contextlib.contextmanager
def serving(words: list[str]):
    """A server in a process of its own, for the commands that follow: it would never end."""
    command = [sys.executable, str(ROOT / "serve_policy.py"), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline().startswith("serving at")
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def threads():
    """Some commands set torch's threads; the tests that follow have one."""
    yield
    torch.set_num_threads(1)


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_run_as_documented(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # a dialogue in the terminal ends at once
    # A captioner of four steps has near ties, of which FP16 and INT8 turn some: with four inputs,
    # a single text is a quarter. Its texts are not judged.
    for precision in ("fp16", "int8"):
        monkeypatch.setitem(parity.TOLERANCES[precision], "texts", 0.0)
    shutil.copytree(ROOT / "assets", "assets")
    shutil.copytree(ROOT / "docs", "docs")
    bring_files()
    with contextlib.ExitStack() as servers:
        for name, words in commands(page):
            if name == "shell":
                subprocess.run(["bash", "-c", *words], check=True)
            elif name == "serve_policy":
                servers.enter_context(serving(words))
            else:
                run(name, words)


def run(name: str, words: list[str]) -> None:
    words = small(name, words)
    if name in RUNS and "--out" not in words:
        shutil.rmtree(RUNS[name], ignore_errors=True)
    status = importlib.import_module(name).main(words)
    assert not status, shlex.join([name, *words])
