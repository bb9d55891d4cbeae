"""Break runs on purpose, and see whether anything that was reported as saved is lost.

    python tests/hostile/faults/run.py --faults 200 --seed 0 --minutes 30

Kills training, data preparation, feature caching and export at random moments, fills the disk, makes fsync and rename fail, flips
a byte anywhere in every kind of file, runs two writers into one folder, sets the clock back. After each fault: what was reported
as saved is there and whole; a process that ended by itself ended well or with status 2, one line and no traceback; the same
command again comes to the very result of an undisturbed run. A flipped byte is an error that names the file, or changes nothing
that is read. Prints one table and exits with 1 if anything was lost.

Every fault is a fork of this process, which has torch loaded and has never used it: a fault costs tenths of a second.
"""

import argparse
import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT)]

import numpy as np
import torch
from PIL import Image

import data_prep
import export_onnx
import prep_conditional_data
import train
from base import (
    bundle,
    files,
)
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data as caption_data
from caption import features
from edge import onnx_files, parity, tensorrt
from loop import (
    checkpoint,
    checksums,
    fit,
)
from net import image_encoders
from tests.making.corpus import TINY, make_data, write_corpus
from text import (
    data,
    pairs,
)

STEPS = [
    "--max_steps",
    "24",
    "--save_every",
    "3",
    "--eval_every",
    "8",
    "--log_every",
    "2",
    "--precision",
    "fp32",
]
HALF = 9  # a step at which the straight run was saved
PICTURES = 24


class Child:
    """A fork that runs `work` as files.run would: its status (minus the signal that killed it) and what it wrote to the screen."""

    def __init__(self, work, setup=None):
        reading, writing = os.pipe()
        self.text = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(writing, 1), os.dup2(writing, 2)
            sys.stdout, sys.stderr = (
                open(number, "w", closefd=False, buffering=1) for number in (1, 2)
            )
            code: object = 1
            try:
                if setup:
                    setup()
                files.run(work)
            except SystemExit as stop:
                code = stop.code
            except BaseException:
                traceback.print_exc()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)
        os.close(writing)
        self.reader = threading.Thread(target=self.read, args=(reading,), daemon=True)
        self.reader.start()

    def read(self, pipe: int) -> None:
        with open(pipe, "rb") as file:
            while piece := file.read1(1 << 16):
                self.text += piece

    def hit(self, number: int) -> None:
        """Send a signal to it and to its workers, as a terminal or a system does."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.hit(signal.SIGKILL)  # workers that outlive it
        self.reader.join(5)
        self.log = self.text.decode(errors="replace")
        return status


def reporting(path: Path):
    """From now on every checkpoint, cache state and meta.json that is said to be saved is noted in `path`, name and number."""
    save, sealed = checkpoint.save, files.write_sealed

    def note(name, number) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{name} {number}\n".encode())
        os.close(handle)

    def save_and_note(target, content) -> None:
        save(target, content)
        note(Path(target).name, content["step"])

    def seal_and_note(target, value) -> None:
        sealed(target, value)
        note(Path(target).name, value.get("done", 0))

    checkpoint.save, files.write_sealed = save_and_note, seal_and_note


class Stub:
    """An encoder that costs nothing: the picture's pixels in four rows."""

    name, key, patches, width, frames = "embedded", "stub", 4, 192, 1
    preprocess, device = (
        image_encoders.Preprocess(16, "squash", (0.5,) * 3, (0.5,) * 3),
        torch.device("cpu"),
    )

    blank = np.zeros((1, 16, 16, 3), np.uint8)

    def encode(self, pixels):
        time.sleep(0.004)
        return torch.from_numpy(pixels.reshape(len(pixels), 4, 192)).float() / 255


class Training:
    """train.py, from the start or from half of a run."""

    def __init__(self, world: Path):
        self.world = world

    def prepare(self, out: Path, rng) -> None:
        if rng.random() < 0.6:
            shutil.copytree(self.world / "half", out)

    def work(self, out: Path):
        going_on = ["--resume"] if (out / "resume.pt").exists() else []
        return lambda: train.main(
            ["--data_dir", str(self.world / "data"), "--out", str(out), *TINY, *STEPS, *going_on]
        )

    def lost(self, out: Path, reported: dict) -> str:
        for name, step in reported.items():
            if name.endswith(".pt") and checkpoint.load(out / name)["step"] < step:
                return f"{name} is older than step {step}"
        return ""

    def final(self, out: Path) -> str:
        one, other = (
            torch.load(run / "resume.pt", weights_only=True)
            for run in (out, self.world / "straight")
        )
        same = all(
            torch.equal(one[part][name], other[part][name])
            for part in ("weights", "averaged")
            for name in one[part]
        )
        return (
            ""
            if same and one["step"] == other["step"] and one["best"] == other["best"]
            else "another result"
        )


class Preparation:
    """data_prep.py into an empty folder."""

    def __init__(self, world: Path):
        self.world = world

    def prepare(self, out: Path, rng) -> None:
        pass

    def work(self, out: Path):
        return lambda: data_prep.main(
            [
                "--input",
                str(self.world / "stories.txt"),
                "--out",
                str(out),
                "--vocab_size",
                "300",
                "--val_fraction",
                "0.1",
            ]
        )

    def lost(self, out: Path, reported: dict) -> str:
        if "meta.json" in reported:
            return self.final(out)
        try:
            data.TextData(out, "train", 48)
        except UserError:
            return ""
        return (
            ""
            if (out / "meta.json").exists() and not self.final(out)
            else "an unfinished folder is taken for whole"
        )

    def final(self, out: Path) -> str:
        same = all(
            np.array_equal(
                data.TextData(out, split, 48).tokens,
                data.TextData(self.world / "data", split, 48).tokens,
            )
            for split in ("train", "val")
        )
        leftover = [
            path.name
            for path in out.iterdir()
            if path.name.startswith(".") and path.name != ".lock"
        ]
        return "another result" if not same else f"{leftover} left behind" if leftover else ""


class Caching:
    """The features of a folder of pictures, 4 between two states."""

    def __init__(self, world: Path):
        self.world = world

    def prepare(self, out: Path, rng) -> None:
        shutil.copytree(self.world / "pictures", out, ignore=shutil.ignore_patterns("features.*"))

    def work(self, out: Path):
        def cache():
            files.claim(out)
            features.CHUNK = 4
            features.cache_features(Stub(), out, workers=1, batch_size=4)

        return cache

    def lost(self, out: Path, reported: dict) -> str:
        done, expected = (
            reported.get("features.json", 0),
            np.load(self.world / "pictures" / "features.npy", allow_pickle=False),
        )
        if done and not np.array_equal(
            np.load(out / "features.npy", allow_pickle=False)[:done], expected[:done]
        ):
            return f"not all of {done} rows are there"
        try:
            caption_data.CaptionData(out, "train").features_of(np.arange(PICTURES // 2))
        except UserError:
            return "" if done < PICTURES else "a finished cache is refused"
        return "" if done == PICTURES else self.final(out)

    def final(self, out: Path) -> str:
        found = caption_data.read_features(out, caption_data.read_meta(out))[0][np.arange(PICTURES)]
        return (
            ""
            if np.array_equal(
                found, np.load(self.world / "pictures" / "features.npy", allow_pickle=False)
            )
            else "another result"
        )


class Export:
    """export_onnx.py over an older bundle or none, with graphs and gate that were computed before: what is written is the same."""

    def __init__(self, world: Path):
        self.world = world

    def prepare(self, out: Path, rng) -> None:
        self.had = rng.random() < 0.6
        if self.had:
            shutil.copytree(self.world / "bundle", out)

    def work(self, out: Path):
        made, facts = self.world / "bundle", bundle.read(self.world / "bundle")

        def copy(graph, name, path, *rest):
            with files.replacing(path) as file:
                file.write((made / f"{name}.onnx").read_bytes())

        def export():
            onnx_files.export = copy
            parity.gate = lambda *rest: facts["parity"]
            parity.scores = lambda *rest: facts["scores"]
            tensorrt.check_ranges = lambda *rest, **words: facts["ranges"]
            export_onnx.Runner = lambda folder, **words: None
            export_real(self.world, out)

        return export

    def lost(self, out: Path, reported: dict) -> str:
        return self.final(out) if self.had or (out / "bundle.json").exists() else ""

    def final(self, out: Path) -> str:
        facts = bundle.read(out)
        bundle.check(out, facts)
        return (
            ""
            if facts["build"] == bundle.read(self.world / "bundle")["build"]
            else "another result"
        )


def export_real(world: Path, out: Path) -> None:
    export_onnx.main(
        [
            "--checkpoint",
            str(world / "straight" / "best.pt"),
            "--data_dir",
            str(world / "data"),
            "--out",
            str(out),
            "--inputs",
            "4",
            "--threads",
            "1",
        ]
    )


def build(world: Path, exporting: bool) -> None:
    """What the faults are measured against: a data folder, pairs, a straight run and half of it, pictures with features, a bundle."""
    write_corpus(world / "stories.txt")
    make_data(world / "data")
    save = fit.Run.save

    def save_and_copy(run) -> None:
        save(run)
        if run.step == HALF:
            shutil.copytree(run.dir, world / "half")

    fit.Run.save = save_and_copy
    train.main(["--data_dir", str(world / "data"), "--out", str(world / "straight"), *TINY, *STEPS])
    prep_conditional_data.main(
        [
            "--denoiser",
            str(world / "straight" / "best.pt"),
            "--data_dir",
            str(world / "data"),
            "--out",
            str(world / "pairs"),
        ]
    )
    rng, folder = np.random.default_rng(0), world / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{number}.png")
    records = [
        {
            "image": f"{number}.png",
            "split": ("train", "val")[number % 2],
            "captions": [f"picture {number}"],
        }
        for number in range(PICTURES)
    ]
    caption_data.write_folder(folder, records, Tokenizer.train(["picture"] * 5, 280), {})
    features.cache_features(Stub(), folder, workers=1)
    if exporting:
        export_real(world, world / "bundle")


STAGES = {
    "training": Training,
    "preparation": Preparation,
    "feature cache": Caching,
    "export": Export,
}


def failing(name: str, after: int):
    """os.fsync or os.replace fails from its call number `after` on."""
    real, calls = getattr(os, name), Counter()

    def fail(*args, **words):
        calls[name] += 1
        if calls[name] > after:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **words)

    setattr(os, name, fail)


def clock_back() -> None:
    time.time = lambda: 86_400.0


def read_reports(path: Path) -> dict[str, int]:
    """{file: the last number that was reported for it}. A line that a kill cut is no report."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {name: int(number) for name, number in (line.split() for line in lines)}


def writing_fault(kind: str, stage, room: int, folder: Path, rng) -> str:
    """One fault while something is written. Returns what was lost, `missed` if the fault came too late, or nothing."""
    out, told = folder / "out", folder.with_name(folder.name + ".told")
    stage.prepare(out, rng)
    before = (
        {path.name: checkpoint.load(path)["step"] for path in out.glob("*.pt")}
        if out.exists()
        else {}
    )
    setups = [lambda: reporting(told)]
    if kind == "disk full (file size)":
        limit = int(room * rng.random())
        setups.append(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    elif kind in ("fsync fails", "rename fails"):
        name, after = {"fsync fails": "fsync", "rename fails": "replace"}[kind], rng.randrange(12)
        setups.append(lambda: failing(name, after))
    elif kind == "clock set back":
        setups.append(clock_back)
        for path in out.rglob("*") if out.exists() else ():
            os.utime(path, (rng.choice((0, 4_000_000_000)),) * 2)
    setup = lambda: [one() for one in setups]
    child = Child(stage.work(out), setup)
    second = Child(stage.work(out), setup) if kind == "two at once" else None
    late = False
    if kind in ("SIGKILL", "SIGTERM", "SIGINT"):
        time.sleep(stage.seconds * rng.random())
        late = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        child.hit(getattr(signal, kind))
    statuses = [one.wait() for one in (child, second) if one]
    log = child.log + (second.log if second else "")
    if not kind.startswith("SIG") and ("Traceback" in log or not set(statuses) <= {0, 2}):
        return f"status {statuses}: {log[-1500:]}"
    if kind == "two at once" and sorted(statuses) != [0, 2]:
        return f"statuses {statuses} of two in one folder: {log[-600:]}"
    problem = stage.lost(out, before | read_reports(told))
    if problem:
        return problem
    if kind == "disk full (tmpfs)":
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    if not (isinstance(stage, Preparation | Training) and statuses == [0]):
        again, clock = Child(stage.work(out)), time.perf_counter()
        status = again.wait()
        stage.seconds = 0.7 * stage.seconds + 0.3 * (
            time.perf_counter() - clock
        )  # the machine may have become slower or faster
        if status != 0 and not (statuses[0] == 0 and "a run in" in again.log):
            return f"the next run: {again.log[-1500:]}"
    return stage.final(out) or ("missed" if late else "")


def on_tmpfs(stage, room, folder: Path, rng) -> str:
    """A disk that holds the start, and is full somewhere between that and a little more than is needed."""
    start, share = folder.with_name(folder.name + ".start"), rng.random()
    state = rng.getstate()  # of the very start that writing_fault will draw again
    stage.prepare(start, rng)
    pages = (
        sum(4096 * (2 + path.stat().st_size // 4096) for path in start.rglob("*"))
        if start.exists()
        else 0
    )
    shutil.rmtree(start, ignore_errors=True)
    rng.setstate(state)
    size = pages + 32_768 + int(1.3 * room * share)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        return writing_fault("disk full (tmpfs)", stage, room, folder, rng)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def content_of(path: Path) -> str:
    """A fingerprint of all that the project reads from the folder or file, read as the project reads it."""
    parts: list = []
    if path.suffix == ".pt":
        parts = [checksums.digests(checkpoint.load(path))]
        if path.name != "resume.pt":
            model, tokenizer, _ = checkpoint.open_model(path)
            parts += [checksums.digests(model.state_dict()), tokenizer.fingerprint]
    elif (path / "bundle.json").exists():
        facts = bundle.read(path)
        bundle.check(path, facts)
        parts = [facts]
    else:
        kind = files.read_json(path / "meta.json", "", "").get("kind")
        for split in ("train", "val"):
            if kind == "captions":
                held = caption_data.CaptionData(path, split)
                parts += [
                    held.features_of(np.arange(len(held))).numpy().tobytes(),
                    held.records,
                    held.meta,
                    held.encoder,
                ]
            elif kind == "pairs":
                held = pairs.PairData(path, split, "context")
                parts += [
                    held.tokens.tobytes(),
                    held.offsets.tobytes(),
                    held.blanks.tobytes(),
                    held.meta,
                ]
            else:
                held = data.TextData(path, split, 48)
                parts += [held.tokens.tobytes(), held.offsets.tobytes(), held.meta]
            parts.append(held.tokenizer.fingerprint)
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()


def flip(world: Path, folder: Path, rng, exporting: bool, expected: dict) -> tuple[str, str]:
    """One bit, anywhere in any file: (kind of file, what was lost)."""
    places = [
        "data",
        "pairs",
        "pictures",
        "straight/resume.pt",
        "straight/last.pt",
        "straight/best.pt",
    ] + ["bundle"] * exporting
    place = rng.choice(places)
    copy = folder / Path(place).name
    (shutil.copytree if (world / place).is_dir() else shutil.copy)(world / place, copy)
    names = (
        sorted(
            path
            for path in copy.rglob("*")
            if path.suffix not in (".png", ".lock")
            and path.name not in (".lock", "settings.json")
            and path.is_file()
        )
        if copy.is_dir()
        else [copy]
    )
    victim = rng.choice(names)
    raw = bytearray(victim.read_bytes())
    at = rng.randrange(len(raw))
    raw[at] ^= 1 << rng.randrange(8)
    victim.write_bytes(raw)
    if place not in expected:
        expected[place] = content_of(world / place)

    def read():
        if content_of(copy) != expected[place]:
            raise RuntimeError("read as if it were whole")

    child = Child(read)
    status = child.wait()
    named = status == 2 and victim.name in child.log and "Traceback" not in child.log
    return (
        "checkpoint" if place.startswith("straight") else place,
        ""
        if status == 0 or named
        else f"{victim.name} at {at}: status {status}, {child.log[-1500:]}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="stop after so many")
    parser.add_argument(
        "--no_export",
        action="store_true",
        help="leave out bundles: making one takes most of a minute",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no small disk stays mounted
    files.git_revision()  # is asked once a process: here, for all forks
    rng, began = random.Random(args.seed), time.time()
    memory = next(
        (place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None
    )  # a kill leaves what was written; fsync is free there
    root = Path(tempfile.mkdtemp(prefix="faults_", dir=memory))
    world = root / "world"
    world.mkdir()
    made = Child(lambda: build(world, not args.no_export))
    if made.wait():
        print(made.log)
        return 1
    stages = {
        name: kind(world) for name, kind in STAGES.items() if name != "export" or not args.no_export
    }
    rooms = {}
    for name, stage in stages.items():
        out, clock = root / "timing" / name, time.perf_counter()
        timed = Child(
            stage.work(out)
            if name != "feature cache"
            else (stage.prepare(out, rng), stage.work(out))[1]
        )
        if timed.wait():
            print(name, timed.log)
            return 1
        sizes = [path.stat().st_size for path in out.iterdir() if path.is_file()]
        stage.seconds, rooms[name] = time.perf_counter() - clock, (max(sizes), sum(sizes))
        print(f"undisturbed {name}: {stage.seconds:.2f} s", file=sys.stderr)
    kinds = [
        "SIGKILL",
        "SIGTERM",
        "SIGINT",
        "disk full (file size)",
        "fsync fails",
        "rename fails",
        "two at once",
        "clock set back",
    ]
    kinds += ["disk full (tmpfs)"] if can_mount(root) else []
    pairs_left = [
        (kind, name)
        for kind in kinds
        for name in stages
        if (kind, name) not in (("two at once", "export"), ("clock set back", "export"))
    ]
    counts, lost, missed, expected, turn = Counter(), Counter(), 0, {}, []
    while sum(counts.values()) < args.faults and time.time() - began < 60 * args.minutes:
        if not turn:
            turn = pairs_left + [("a bit flipped", "")] * (len(pairs_left) // 2)
            rng.shuffle(turn)
        (kind, name), folder = turn.pop(), Path(tempfile.mkdtemp(dir=root))
        if kind == "a bit flipped":
            name, problem = flip(world, folder, rng, not args.no_export, expected)
        else:
            try:
                tmpfs = "tmpfs" in kind
                one = (stages[name], rooms[name][tmpfs], folder, rng)
                problem = on_tmpfs(*one) if tmpfs else writing_fault(kind, *one)
            except (UserError, OSError) as error:
                problem = f"cannot be read any more: {error}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(folder.name + ".told").unlink(missing_ok=True)
        missed += problem == "missed"
        if problem != "missed":
            counts[kind, name] += 1
            lost[kind, name] += bool(problem)
            if problem:
                print(
                    f"LOST: {kind}, {name} (fault {sum(counts.values())}): {problem}",
                    file=sys.stderr,
                    flush=True,
                )
    shutil.rmtree(root, ignore_errors=True)
    print("| fault | in | count | survived | lost |\n|---|---|---|---|---|")
    for (kind, name), count in sorted(counts.items()):
        print(f"| {kind} | {name} | {count} | {count - lost[kind, name]} | {lost[kind, name]} |")
    total, bad = sum(counts.values()), sum(lost.values())
    print(f"| all | seed {args.seed} | {total} | {total - bad} | {bad} |")
    print(f"{missed} signals came after the end and are not counted; {time.time() - began:.0f} s")
    return 1 if bad or not total else 0


def can_mount(root: Path) -> bool:
    """Whether this machine lets us make a small disk."""
    folder = root / "mounted"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        return False
    return subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
