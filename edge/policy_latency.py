"""How fast a policy's bundle makes chunks on this machine, stage by stage, next to torch.

All sides alternate in one process after a warm-up, on the first bundle's golden observations.
`words` runs once per order, so a chunk is timed without it. Memory belongs to a process of its own.
"""

import statistics
import time
from pathlib import Path

import torch

from base import bundle, metrics, system
from base.policy_runner import BundleMaker, golden_observations
from edge import latency, roofline
from loop import progress
from net.chunks import ChunkConfig
from robot import policies
from robot.writer import TorchMaker

WARM_UP = 5  # uncounted rounds
STAGES = ("words", "grounder", "step", "head")
# What a process of its own does with torch: it opens the checkpoint and makes a chunk.
TORCH = """
import sys, torch
from base import bundle
from base.policy_runner import chunks_of, golden_observations
from net.chunks import ChunkConfig
from robot import policies
from robot.writer import TorchMaker
torch.set_num_threads(1)
opened = policies.open_policy(sys.argv[1], torch.device("cpu"))
chunks_of(TorchMaker(opened, ChunkConfig()), golden_observations(bundle.golden(sys.argv[2]))[:1])
"""


class Side:
    """A maker that is timed. times: seconds of each counted chunk. stages: by graph."""

    def __init__(self, name: str, maker: BundleMaker | TorchMaker):
        self.name, self.maker = name, maker
        self.times: list[float] = []
        self.stages: dict[str, list[float]] = {}

    def make(self, text: str, observed: list[dict], counted: bool) -> None:
        ours = isinstance(self.maker, BundleMaker)
        if ours:
            self.maker.seconds.clear()
        self.maker.begin(text, 0)
        clock = time.perf_counter()
        self.maker.make(observed[0], observed[1:], None)
        seconds = time.perf_counter() - clock
        if not counted:
            return
        self.times.append(seconds)
        if ours:
            for stage, spent in self.maker.seconds.items():
                self.stages.setdefault(stage, []).append(spent)


def sides_of(folders: list, path, threads: int, calls: int) -> list[Side]:
    """Bundles, also step by step if their head writes tokens; and torch, if there is a path."""
    sides = []
    for folder in folders:
        maker = BundleMaker(folder, threads=threads, calls=calls)
        sides.append(Side(str(folder), maker))
        if maker.about["head"] != "l1":
            stepwise = BundleMaker(folder, threads=threads, calls=calls, stepwise=True)
            sides.append(Side(f"{folder}, step by step", stepwise))
    if path:
        opened = policies.open_policy(path, torch.device("cpu"))
        sides.append(Side("torch", TorchMaker(opened, ChunkConfig(calls))))
    return sides


def compare(folders: list, path, threads: int, calls: int, repeats: int) -> list[dict]:
    """The rows of one number of threads and calls."""
    torch.set_num_threads(threads)
    observations = golden_observations(bundle.golden(folders[0]))
    sides = sides_of(folders, path, threads, calls)
    for turn in progress.bar(range(repeats + WARM_UP), "latency", unit="round"):
        text, observed = observations[turn % len(observations)]
        for side in sides:
            side.make(text, observed, counted=turn >= WARM_UP)
    first = statistics.median(sides[0].times)
    rows = []
    for side in sides:
        middle = {name: 1000 * statistics.median(spent) for name, spent in side.stages.items()}
        row = {"what": side.name, "threads": threads, "calls": calls, "stages_ms": middle}
        row |= latency.percentiles(side.times)
        rows.append(row | {"ratio_to_bundle": statistics.median(side.times) / first})
    return rows


def memory(folders: list, path) -> list[dict]:
    """Peak memory and seconds of a process that opens a bundle and tests it; and torch's."""
    rows = []
    for name in folders:
        folder = str(Path(name).resolve())
        words = ["infer_onnx.py", "--bundle", folder, "--self_test", "--threads", "1"]
        rows.append({"what": f"{name}, a self-test", **latency.alone(words)})
    if path:
        golden = str(Path(folders[0]).resolve())
        words = ["-c", TORCH, str(Path(path).resolve()), golden]
        rows.append({"what": "torch, a chunk", **latency.alone(words)})
    return rows


def bounds(folder, device: roofline.Device) -> list[dict]:
    """The roofline of each stage of a chunk of one call, here and predicted for an Orin Nano."""
    maker = BundleMaker(folder)
    found = []
    for name in STAGES:
        file = maker.facts["graphs"]["cpu"].get(name)
        # The loop holds the step, which is counted alone.
        if file is None or (name == "head" and maker.about["head"] != "l1"):
            continue
        size, operations = roofline.work(Path(folder) / file, batch=1)
        row = {"stage": name, "mb": size / 1e6, "gflop": operations / 1e9}
        row["roofline_ms"] = 1000 * roofline.seconds(size, operations, device, "fp32")
        for orin in roofline.ORIN:
            precision = maker.facts["precision"]
            row[orin.name] = 1000 * roofline.seconds(size, operations, orin, precision)
        found.append(row)
    return found


def measure(folders: list, path, *, repeats: int, thread_counts=(1, 2), call_counts=(1, 8)) -> dict:
    """Times of all sides, memory, and the roofline of the first bundle: a plain dict."""
    rows = []
    for threads in thread_counts:
        for calls in call_counts:
            rows += compare(folders, path, threads, calls, repeats)
    limits = bounds(folders[0], latency.machine(thread_counts[0]))
    return {"rows": rows, "memory": memory(folders, path), "roofline": limits}


def tables(found: dict) -> str:
    """Three Markdown tables of `measure`'s figures."""
    speed = [["what", "threads", "calls", "p50 / p90 / p99, ms", "time ÷ first's", "stages, ms"]]
    for row in found["rows"]:
        times = " / ".join(f"{row[f'p{q}_ms']:.2f}" for q in latency.PERCENTILES)
        stages = [f"{name} {spent:.2f}" for name, spent in row["stages_ms"].items()]
        numbers = [str(row["threads"]), str(row["calls"]), times, f"{row['ratio_to_bundle']:.2f}"]
        speed.append([row["what"], *numbers, ", ".join(stages)])
    starts = [["process of its own", "seconds", "peak memory"]]
    for row in found["memory"]:
        peak = system.memory_text(row["peak_mib"])
        starts.append([row["what"], f"{row['seconds']:.2f}", peak])
    orin = [device.name for device in roofline.ORIN]
    table = [["stage", "MB", "MFLOP", "roofline here", *(f"{name}: predicted" for name in orin)]]
    for row in found["roofline"]:
        cells = [f"{row['mb']:.2f}", f"{1000 * row['gflop']:.1f}", f"{row['roofline_ms']:.3f} ms"]
        table.append([row["stage"], *cells, *(f"{row[name]:.4f} ms" for name in orin)])
    return "\n\n".join(map(metrics.markdown, (speed, starts, table)))
