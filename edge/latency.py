"""How fast a bundle is here, stage by stage, beside torch and beside the twin, and what an Orin Nano could reach (floor 2).

All sides of a comparison alternate in one process, warmed up; percentiles are over single calls. Memory and the time from start
to the first caption are those of a process of its own.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from base import bundle
from base.runtime import Runner
from caption import features, writer
from edge import roofline
from loop import checkpoint

STAGES = ("decode", "resize", "encoder", "condition", "loop", "next")


def torch_side(path):
    """generate_caption.py's way from a picture's bytes to its caption."""
    model, tokenizer, saved = checkpoint.open_model(path, kinds=("caption",))
    encoder = features.open_encoder(saved, path)

    def caption(pictures, settings):
        seen = writer.standardise(encoder.features(pictures), saved["statistics"], "cpu")
        return writer.write(model, tokenizer, saved["objective"], seen, settings)

    return caption


def percentiles(times: list[float]) -> dict:
    return {f"p{q}_ms": float(np.percentile(times, q)) * 1000 for q in (50, 90, 99)}


def compare(folders: list, twin, trained, threads: int, batch: int, repeats: int) -> list[dict]:
    """Bundles, the twin's bundle and torch in turn, from the first bundle's golden picture to texts, sampled as that bundle says."""
    torch.set_num_threads(threads)
    runners = {str(folder): Runner(folder, threads=threads) for folder in folders}
    runners |= {"twin's bundle": Runner(twin, threads=threads)} if twin else {}
    base, *_ = runners
    settings, picture, calls = (
        runners[base].settings,
        bundle.golden(folders[0])["picture"].tobytes(),
        {},
    )

    def from_bundle(name):
        runner = runners[name]
        runner.seconds.clear()
        calls[name] = max(
            one.calls
            for one in runner.write(
                np.stack([runner.pixels(picture) for _ in range(batch)]), settings
            )
        )

    sides = {name: lambda name=name: from_bundle(name) for name in runners}
    if trained:
        sides["torch"] = lambda: trained([picture] * batch, settings)
    times, parts = {name: [] for name in sides}, {name: {} for name in runners}
    for turn in range(repeats + 3):
        for name, work in sides.items():
            clock = time.perf_counter()
            work()
            if turn >= 3:  # the first rounds warm up
                times[name].append(time.perf_counter() - clock)
                for stage, spent in (runners[name].seconds if name in runners else {}).items():
                    parts[name].setdefault(stage, []).append(spent)
    first = statistics.median(times[base])
    middles = {
        name: {stage: 1000 * statistics.median(spent) for stage, spent in spents.items()}
        for name, spents in parts.items()
    }
    return [
        {
            "what": name,
            "threads": threads,
            "batch": batch,
            **percentiles(seconds),
            "texts_per_second": batch / statistics.median(seconds),
            "ratio_to_bundle": statistics.median(seconds) / first,
            "calls": calls.get(name),
            "stages_ms": middles.get(name, {}),
        }
        for name, seconds in times.items()
    ]


def alone(words: list[str]) -> dict:
    """Seconds and peak MiB of a process. A small one starts it: a child's peak begins at that of the process that it was forked from."""
    code = (
        "import resource, subprocess, sys, time; clock = time.perf_counter(); "
        "status = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode; "
        "print(status, time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    status, seconds, kib = done.stdout.split()
    return {"seconds": float(seconds), "peak_mib": float(kib) / 2**10, "status": int(status)}


def first_caption(folders: list, path, threads: int) -> list[dict]:
    """From start to the first caption, loading included: bundles and torch, each in a process of its own."""
    with tempfile.TemporaryDirectory() as made:
        picture = Path(made) / "golden"
        picture.write_bytes(bundle.golden(folders[0])["picture"].tobytes())
        more = ["--image", str(picture), "--threads", str(threads)]
        rows = [
            {
                "what": f"{folder}, start to first caption",
                **alone(["infer_onnx.py", "--bundle", str(Path(folder).resolve()), *more]),
            }
            for folder in folders
        ]
        if path:
            rows.append(
                {
                    "what": "torch, start to first caption",
                    **alone(
                        ["generate_caption.py", "--checkpoint", str(Path(path).resolve()), *more]
                    ),
                }
            )
    return rows


def machine(threads: int) -> roofline.Device:
    """This machine's bandwidth (a copy of 256 MB) and float32 rate (a product of 1,024³), best of several."""
    torch.set_num_threads(threads)
    big, square, best = torch.ones(1 << 26), torch.ones(1024, 1024), {"copy": 9e9, "product": 9e9}
    target = torch.empty_like(big)
    for _ in range(5):
        for name, work in (
            ("copy", lambda: target.copy_(big)),
            ("product", lambda: square @ square),
        ):
            clock = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - clock)
    rate = 2 * 1024**3 / best["product"]
    return roofline.Device("here", 2 * big.nbytes / best["copy"], rate, rate, rate)


def bounds(runner: Runner, row: dict, device: roofline.Device) -> list[dict]:
    """The roofline of each stage here, with measured / roofline, and of an Orin Nano at the bundle's precision: predicted."""
    length = int(runner.condition(bundle.golden(runner.folder)["images"][:1])[1][0])
    precision = runner.facts["precision"]
    result = []
    for stage, (size, operations) in roofline.stages(
        runner.folder, runner.facts, row["calls"], length
    ).items():
        least = 1000 * roofline.seconds(size, operations, device, "fp32")
        measured = row["stages_ms"].get("loop" if stage == "step" else stage)
        result.append(
            {
                "stage": stage,
                "mb": size / 1e6,
                "gflop": operations / 1e9,
                "roofline_ms": least,
                "measured_ms": measured,
                "measured_over_roofline": measured / least if measured else None,
                **{
                    one.name: 1000 * roofline.seconds(size, operations, one, precision)
                    for one in roofline.ORIN
                },
            }
        )
    return result


def measure(
    folders: list, twin, path, *, repeats: int, thread_counts=(1, 2), batches=(1, 8)
) -> dict:
    """Everything, as one plain dict: times and starts of all, the roofline of the first bundle."""
    trained, rows = torch_side(path) if path else None, []
    for threads in thread_counts:
        for batch in batches:
            rows += compare(folders, twin, trained, threads, batch, repeats)
    starts = first_caption(folders, path, thread_counts[-1])
    limits = bounds(
        Runner(folders[0], threads=thread_counts[0]), rows[0], machine(thread_counts[0])
    )
    return {"rows": rows, "starts": starts, "roofline": limits}


def tables(found: dict) -> str:
    """Three Markdown tables: speed, start and memory, roofline."""
    lines = [
        "| what | threads | batch | p50 / p90 / p99 | texts/s | time ÷ first's | stages, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        stages = ", ".join(
            f"{name} {row['stages_ms'][name]:.1f}" for name in STAGES if name in row["stages_ms"]
        )
        lines.append(
            f"| {row['what']} | {row['threads']} | {row['batch']} | {row['p50_ms']:.1f} / {row['p90_ms']:.1f} / {row['p99_ms']:.1f} ms "
            f"| {row['texts_per_second']:.1f} | {row['ratio_to_bundle']:.2f} | {stages} |"
        )
    lines += ["", "| process of its own | seconds | peak memory |", "|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['seconds']:.2f} | {row['peak_mib']:.0f} MiB |"
        for row in found["starts"]
    ]
    orin = list(found["roofline"][0])[-2:]
    lines += [
        "",
        f"| stage | MB | GFLOP | roofline here | measured | ÷ roofline | {orin[0]}: predicted | {orin[1]}: predicted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["roofline"]:
        measured = (
            (f"{row['measured_ms']:.2f} ms", f"{row['measured_over_roofline']:.1f}")
            if row["measured_ms"]
            else ("", "")
        )
        lines.append(
            f"| {row['stage']} | {row['mb']:.1f} | {row['gflop']:.2f} | {row['roofline_ms']:.2f} ms | {measured[0]} | {measured[1]} "
            f"| {row[orin[0]]:.2f} ms | {row[orin[1]]:.2f} ms |"
        )
    return "\n".join(lines)
