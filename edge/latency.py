"""How fast a bundle is on this machine, stage by stage, and what a device could reach at best.

A bundle is compared with torch and with the twin. All sides alternate in one process after a
warm-up; percentiles are over single calls. Memory and the time from start to the first caption
belong to a process of their own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from base import bundle, metrics, system
from base.runtime import Runner
from caption import features, writer
from edge import roofline
from loop import checkpoint, progress

STAGES = ("decode", "resize", "encoder", "condition", "loop", "next")
WARM_UP = 3  # uncounted rounds: first calls allocate memory and start threads
PERCENTILES = (50, 90, 99)


def torch_side(path) -> Callable:
    """A function (images, settings): generate_caption.py's way from bytes to captions."""
    model, tokenizer, saved = checkpoint.open_model(path, kinds=("caption",))
    encoder = features.open_encoder(saved, path)

    def caption(images, settings):
        seen = writer.standardise(encoder.features(images), saved["statistics"], "cpu")
        return writer.write(model, tokenizer, saved["objective"], seen, settings)

    return caption


def percentiles(times: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": 1000 * float(np.percentile(times, q)) for q in PERCENTILES}


class BundleSide:
    """A bundle that captions the same image again and again, and notes its stages and its calls."""

    def __init__(self, runner: Runner, image: bytes, settings, batch: int):
        self.runner, self.image, self.settings, self.batch = runner, image, settings, batch
        self.calls = 0
        self.stages: dict[str, list[float]] = {}

    def __call__(self) -> None:
        self.runner.seconds.clear()  # the runner adds up over its calls
        pixels = np.stack([self.runner.pixels(self.image) for _ in range(self.batch)])
        written = self.runner.write(pixels, self.settings)
        self.calls = max(text.calls for text in written)

    def note(self) -> None:
        """Keep the stages' seconds of the last call."""
        for stage, seconds in self.runner.seconds.items():
            self.stages.setdefault(stage, []).append(seconds)

    def stages_ms(self) -> dict[str, float]:
        """The median milliseconds of each stage."""
        return {stage: 1000 * statistics.median(spent) for stage, spent in self.stages.items()}


def compare(folders: list, twin, trained, threads: int, batch: int, repeats: int) -> list[dict]:
    """Bundles, the twin's bundle and torch in turn, from the first bundle's golden image to texts.

    All of them sample as the first bundle says. trained: from `torch_side`, or None.
    """
    torch.set_num_threads(threads)
    runners = {str(folder): Runner(folder, threads=threads) for folder in folders}
    first = next(iter(runners))
    if twin:
        runners["twin's bundle"] = Runner(twin, threads=threads)
    # One setting for all: bundles with samplers of their own would make other numbers of calls.
    settings = runners[first].settings
    image = bundle.golden(folders[0])["picture"].tobytes()
    sides: dict[str, Callable] = {}
    for name, runner in runners.items():
        sides[name] = BundleSide(runner, image, settings, batch)
    if trained:
        sides["torch"] = lambda: trained([image] * batch, settings)

    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in progress.bar(range(repeats + WARM_UP), "latency", unit="round"):
        for name, side in sides.items():
            clock = time.perf_counter()
            side()
            seconds = time.perf_counter() - clock
            if turn >= WARM_UP:
                times[name].append(seconds)
                if isinstance(side, BundleSide):
                    side.note()
    rows = []
    for name, side in sides.items():
        middle, ours = statistics.median(times[name]), isinstance(side, BundleSide)
        rows.append(
            {
                "what": name,
                "threads": threads,
                "batch": batch,
                **percentiles(times[name]),
                "texts_per_second": batch / middle,
                "ratio_to_bundle": middle / statistics.median(times[first]),
                "calls": side.calls if ours else None,
                "stages_ms": side.stages_ms() if ours else {},
            }
        )
    return rows


# Run by a small process: the peak of a child begins at the peak of the process that forked it.
ALONE = """
import json, subprocess, sys, time
from base import system
clock = time.perf_counter()
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
status = subprocess.run([sys.executable, *sys.argv[1:]], **quiet).returncode
seconds = time.perf_counter() - clock
peak = system.peak_mib(children=True)
print(json.dumps({"seconds": seconds, "peak_mib": peak, "status": status}))
"""


def alone(words: list[str]) -> dict:
    """Seconds, peak MiB (None where the system does not say it) and status of a Python process.

    words: what stands behind `python`.
    """
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    return json.loads(done.stdout)


def first_caption(folders: list, path, threads: int) -> list[dict]:
    """From start to the first caption, loading included: each side in its own process."""
    # A new process pays for imports and loading, which a user waits for too.
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "golden"
        image.write_bytes(bundle.golden(folders[0])["picture"].tobytes())
        more = ["--image", str(image), "--threads", str(threads)]
        commands = {}
        # Absolute paths: `alone` runs in the project's folder.
        for name in folders:
            commands[name] = ["infer_onnx.py", "--bundle", str(Path(name).resolve()), *more]
        if path:
            checkpoint_flag = ["--checkpoint", str(Path(path).resolve())]
            commands["torch"] = ["generate_caption.py", *checkpoint_flag, *more]
        rows = []
        for name, words in commands.items():
            rows.append({"what": f"{name}, start to first caption", **alone(words)})
    return rows


def machine(threads: int) -> roofline.Device:
    """This machine's bandwidth (a copy of 256 MB) and float32 rate (a product of 1,024³).

    Each is the best of five.
    """
    torch.set_num_threads(threads)
    # 256 MB is more than a cache holds.
    big, square = torch.ones(1 << 26), torch.ones(1024, 1024)
    target = torch.empty_like(big)
    copy = best_of_five(lambda: target.copy_(big))
    product = best_of_five(lambda: square @ square)
    rate = 2 * 1024**3 / product
    # A copy reads and writes every byte.
    return roofline.Device("here", 2 * big.nbytes / copy, rate, rate, rate)


def best_of_five(work: Callable) -> float:
    """The least seconds of five calls."""
    best = float("inf")  # the least: other processes can only add time
    for _ in range(5):
        clock = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - clock)
    return best


def bounds(runner: Runner, row: dict, device: roofline.Device) -> list[dict]:
    """The roofline of each stage here, with measured / roofline, and predicted for an Orin Nano.

    row: the first bundle's, from `compare`. The Orin's figures are at the bundle's precision.
    """
    images = bundle.golden(runner.folder)["images"][:1]
    # The work of a call grows with the length, so the bound is of the length of this caption.
    length = int(runner.condition(images)[1][0])
    precision = runner.facts["precision"]
    stages = roofline.stages(runner.folder, runner.facts, row["calls"], length)
    result = []
    for stage, (size, operations) in stages.items():
        # The rate of this machine was measured in float32.
        least = 1000 * roofline.seconds(size, operations, device, "fp32")
        # The loop graph makes all calls of the step.
        measured = row["stages_ms"].get("loop" if stage == "step" else stage)
        line = {
            "stage": stage,
            "mb": size / 1e6,
            "gflop": operations / 1e9,
            "roofline_ms": least,
            "measured_ms": measured,
            "measured_over_roofline": measured / least if measured else None,
        }
        for orin in roofline.ORIN:
            line[orin.name] = 1000 * roofline.seconds(size, operations, orin, precision)
        result.append(line)
    return result


def measure(
    folders: list, twin, path, *, repeats: int, thread_counts=(1, 2), batches=(1, 8)
) -> dict:
    """Times and starts of all sides, and the roofline of the first bundle: a plain dict.

    folders: captioners' bundles. twin: the twin's bundle, or None. path: a checkpoint, or None.
    """
    trained, rows = torch_side(path) if path else None, []
    for threads in thread_counts:
        for batch in batches:
            rows += compare(folders, twin, trained, threads, batch, repeats)
    starts = first_caption(folders, path, thread_counts[-1])
    threads = thread_counts[0]
    limits = bounds(Runner(folders[0], threads=threads), rows[0], machine(threads))
    return {"rows": rows, "starts": starts, "roofline": limits}


def speed_table(rows: list[dict]) -> str:
    """Markdown: percentiles, texts per second, ratio to the first bundle, stages."""
    header = ["what", "threads", "batch", "p50 / p90 / p99", "texts/s", "time ÷ first's"]
    table = [[*header, "stages, ms"]]
    for row in rows:
        times = " / ".join(f"{row[f'p{q}_ms']:.1f}" for q in PERCENTILES)
        known = [name for name in STAGES if name in row["stages_ms"]]
        table.append(
            [
                row["what"],
                str(row["threads"]),
                str(row["batch"]),
                f"{times} ms",
                f"{row['texts_per_second']:.1f}",
                f"{row['ratio_to_bundle']:.2f}",
                ", ".join(f"{name} {row['stages_ms'][name]:.1f}" for name in known),
            ]
        )
    return metrics.markdown(table)


def roofline_table(rows: list[dict]) -> str:
    """Markdown: bytes, operations, the bound and the measured time of each stage."""
    orin = [device.name for device in roofline.ORIN]
    header = ["stage", "MB", "GFLOP", "roofline here", "measured", "÷ roofline"]
    table = [[*header, *(f"{name}: predicted" for name in orin)]]
    for row in rows:
        measured = ["", ""]
        if row["measured_ms"]:  # a stage that this bundle does not time alone has none
            measured = [f"{row['measured_ms']:.2f} ms", f"{row['measured_over_roofline']:.1f}"]
        table.append(
            [
                row["stage"],
                f"{row['mb']:.1f}",
                f"{row['gflop']:.2f}",
                f"{row['roofline_ms']:.2f} ms",
                *measured,
                *(f"{row[name]:.2f} ms" for name in orin),
            ]
        )
    return metrics.markdown(table)


def tables(found: dict) -> str:
    """Three Markdown tables of `measure`'s figures: speed, start and memory, roofline."""
    starts = [["process of its own", "seconds", "peak memory"]]
    for row in found["starts"]:
        starts.append([row["what"], f"{row['seconds']:.2f}", system.memory_text(row["peak_mib"])])
    parts = [speed_table(found["rows"]), metrics.markdown(starts)]
    return "\n\n".join([*parts, roofline_table(found["roofline"])])
