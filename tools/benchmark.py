"""How fast: training beside the machine's matrix product, sampling beside the twin with its key-value cache, memory.

Reads   nothing: random weights and random tokens, of a named size or of a checkpoint's
Writes  a Markdown table on the screen; --json FILE all figures

A minute on a laptop:
    python -m tools.benchmark --model_config tiny --repeats 3
For real:
    python -m tools.benchmark --model_config small --repeats 7 --json speed.json
    python -m tools.benchmark --bundle bundle bundle_int8 --twin_bundle bundle_ar --checkpoint checkpoints_caption_poc/best.pt --repeats 50
The two sides of every comparison alternate in one process; medians and the median of paired ratios are printed.
Timings on a shared machine wander by tens of percent; the ratios hold.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import diffusion
from base import config, files, flags
from base.config import ModelConfig, SampleConfig, TrainConfig
from base.files import UserError
from edge import latency, roofline
from loop import checkpoint, fit, hardware
from model import Denoiser
from net import twin
from net.samplers import row_generators, sample

PARTS = ("training", "sampling", "memory")


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--model_config",
        default="small",
        metavar="|".join(config.NAMED_SIZES),
        help="named size (default small)",
    )
    parser.add_argument("--checkpoint", help="the architecture of this checkpoint instead")
    parser.add_argument(
        "--bundle",
        nargs="+",
        metavar="FOLDER",
        help="captioners' bundles: stages, memory, beside --checkpoint and --twin_bundle",
    )
    parser.add_argument("--twin_bundle", help="the twin's bundle")
    parser.add_argument("--only", metavar="|".join(PARTS), help="one part (default all)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row (default 256)")
    parser.add_argument(
        "--batch_size", type=int, default=16, help="rows of a training step (default 16)"
    )
    parser.add_argument("--batches", default="1,16", help="rows sampled at once (default 1,16)")
    parser.add_argument(
        "--samplers",
        default="first_hitting,confidence",
        help="samplers to time (default first_hitting,confidence)",
    )
    parser.add_argument(
        "--step_counts",
        default="8,16,32,64,256",
        help="denoiser calls to time (default 8,16,32,64,256)",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="counted runs of each side (default 5)"
    )
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16, fp16")
    parser.add_argument("--compile", action="store_true", help="time the compiled blocks as well")
    parser.add_argument(
        "--profile", action="store_true", help="print where a training step's time goes"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the weights and the tokens (default 0)"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", help="write all figures here")
    return parser.parse_args(argv)


def alternate(sides: dict, repeats: int, device) -> dict[str, list[float]]:
    """Seconds of every side, run in turn A B C A B C …, after one uncounted round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in tqdm(range(repeats + 1), unit="round", leave=False):
        for name, work in sides.items():
            clock = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - clock)
    return seconds


def ratio(one: list[float], other: list[float]) -> float:
    """Median of the paired ratios."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def make_models(args, device) -> dict[str, Denoiser]:
    """The denoiser and its twin at the same shapes, random weights."""
    values = (
        checkpoint.load(args.checkpoint)["model"]
        if args.checkpoint
        else {"max_length": args.length, **config.named_size(args.model_config)}
    )
    if args.length > values["max_length"]:
        raise UserError(
            f"--length {args.length}",
            f"at most {values['max_length']}, the model's length",
            "choose a shorter one",
        )
    torch.manual_seed(args.seed)
    return {
        name: Denoiser(ModelConfig(**{**values, "causal": name == "twin"})).to(device)
        for name in ("denoiser", "twin")
    }


def training_step(model: Denoiser, name: str, tokens, precision):
    """A function that does one whole optimizer step of the denoiser or the twin on full rows."""
    cfg, device = TrainConfig(), tokens.device
    optimizers, scaler = (
        fit.make_optimizers(model, cfg),
        torch.amp.GradScaler(device.type, enabled=precision == torch.float16),
    )
    free = torch.ones_like(tokens, dtype=torch.bool)
    free[:, 0] = False
    batch = {"weight": float(free.sum())}
    autocast = lambda: torch.autocast(device.type, precision, enabled=precision != torch.float32)

    def loss_fn(model, batch, rng):
        if name == "twin":
            return twin.loss(model, tokens, free)
        return diffusion.loss(
            model.bind(), tokens, free, mask_id=model.config.vocab_size - 1, rng=rng
        )

    return lambda: fit.optimizer_step(model, loss_fn, [batch], cfg, 1, optimizers, scaler, autocast)


def time_training(args, device) -> list[dict]:
    """Tokens a second of both, and their share of the machine's matrix-product rate, all measured in turn."""
    precision, _ = hardware.choose_precision(args.precision, device)
    models = make_models(args, device)
    tokens = torch.randint(
        0, models["denoiser"].config.output_size, (args.batch_size, args.length), device=device
    )
    sides = {name: training_step(model, name, tokens, precision) for name, model in models.items()}
    if args.compile:
        for name in ("denoiser", "twin"):
            model = make_models(args, device)[name]
            model.trunk = torch.compile(model.trunk, dynamic=False)
            sides[f"{name}, compiled"] = training_step(model, name, tokens, precision)
    D, size = models["denoiser"].config.d_model, 2048
    shapes = [(size, size, size), (tokens.numel(), D, 4 * D)]
    pairs = [
        (
            torch.randn(m, k, device=device, dtype=precision),
            torch.randn(k, n, device=device, dtype=precision),
        )
        for m, k, n in shapes
    ]
    for number, (a, b) in enumerate(pairs):
        sides[f"product {number}"] = lambda a=a, b=b: a @ b
    seconds = alternate(sides, args.repeats, device)
    rates = [
        2 * m * k * n / statistics.median(seconds[f"product {number}"])
        for number, (m, k, n) in enumerate(shapes)
    ]
    if args.profile:
        profile(sides["denoiser"])
    rows = []
    for name in (side for side in sides if not side.startswith("product")):
        model = models[name.split(",")[0]]
        middle = statistics.median(seconds[name])
        executed = (
            roofline.executed_flops(model, args.length)
            if name.startswith("denoiser")
            else 6 * (model.num_parameters()) + 6 * model.config.layers * args.length * D
        )
        rows.append(
            {
                "what": f"train, {name}",
                "tokens_per_second": tokens.numel() / middle,
                "seconds": middle,
                "seconds_min": min(seconds[name]),
                "seconds_max": max(seconds[name]),
                "ratio_to_twin": ratio(seconds[name], seconds["twin"]),
                "product_gflops": max(rates) / 1e9,
                "share_of_product": model.training_flops(args.length)
                * tokens.numel()
                / middle
                / max(rates),
                "share_executed": executed * tokens.numel() / middle / max(rates),
            }
        )
    return rows


def profile(work) -> None:
    """Where the time of one training step goes, by operation."""
    with torch.profiler.profile() as trace:
        work()
    events = sorted(trace.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:15]:
        print(f"  {100 * event.self_cpu_time_total / total:5.1f}%  {event.key}", file=sys.stderr)


def time_sampling(args, device) -> list[dict]:
    """Milliseconds to fill a row of --length tokens, beside the twin writing as many with its cache."""
    models = {name: model.eval() for name, model in make_models(args, device).items()}
    mask, rows = models["denoiser"].config.vocab_size - 1, []
    for batch in map(int, args.batches.split(",")):
        tokens = torch.full((batch, args.length), mask, device=device)
        tokens[:, 0] = 0
        sides = {
            "twin": lambda batch=batch, tokens=tokens: twin.sample(
                models["twin"],
                tokens[:, :1],
                args.length,
                eos=-1,
                pad=0,
                rngs=row_generators(0, batch),
            )
        }
        for name in args.samplers.split(","):
            for steps in map(int, args.step_counts.split(",")):
                settings = SampleConfig(sampler=name, steps=steps)
                sides[f"{name}, {steps} steps"] = (
                    lambda batch=batch, tokens=tokens, settings=settings: sample(
                        models["denoiser"].bind(),
                        tokens,
                        settings,
                        mask_id=mask,
                        rngs=row_generators(0, batch),
                    )
                )
        seconds = alternate(sides, args.repeats, device)
        rows += [
            {
                "what": f"sample, {name}, batch {batch}",
                "seconds": statistics.median(times),
                "seconds_min": min(times),
                "seconds_max": max(times),
                "tokens_per_second": batch * (args.length - 1) / statistics.median(times),
                "ratio_to_twin": ratio(times, seconds["twin"]),
            }
            for name, times in seconds.items()
        ]
    return rows


def measure_memory(args) -> list[dict]:
    """Peak MiB of one training step and of one sample, each in a process of its own, since a peak never falls."""
    rows = []
    for part in ("training", "sampling"):
        flags = {
            "only": part,
            "model_config": args.model_config,
            "length": args.length,
            "batch_size": args.batch_size,
            "repeats": 1,
            "batches": 1,
            "samplers": "first_hitting",
            "step_counts": 8,
            "device": args.device,
            "threads": args.threads,
        }
        flags |= {"checkpoint": args.checkpoint} if args.checkpoint else {}
        words = [
            sys.executable,
            "-m",
            "tools.benchmark",
            *(word for name, value in flags.items() for word in (f"--{name}", str(value))),
        ]
        done = subprocess.run(
            words, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
        )
        rows.append(
            {
                "what": f"peak memory, {part}",
                "peak_mib": float(done.stdout.strip().splitlines()[-1].split()[-2]),
            }
        )
    return rows


def peak_mib(device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def table(rows: list[dict]) -> str:
    """Markdown: seconds with their range, tokens a second, the ratio to the twin, the share of the matrix product."""
    lines = [
        "| what | median (min to max) | tokens/s | time ÷ twin's | share of matrix product (6N; executed) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if "peak_mib" in row:
            lines.append(f"| {row['what']} | {row['peak_mib']:,.0f} MiB | | | |")
            continue
        share = (
            f"{100 * row['share_of_product']:.0f}%; {100 * row['share_executed']:.0f}%"
            if "share_of_product" in row
            else ""
        )
        lines.append(
            f"| {row['what']} | {1000 * row['seconds']:,.0f} ms ({1000 * row['seconds_min']:,.0f} to {1000 * row['seconds_max']:,.0f}) "
            f"| {row['tokens_per_second']:,.0f} | {row['ratio_to_twin']:.2f} | {share} |"
        )
    return "\n".join(lines)


def main(argv=None):
    args = parse_args(argv)
    if args.only and args.only not in PARTS:
        raise flags.unknown(f"--only {args.only}", args.only, list(PARTS))
    if min(args.length, args.repeats, args.batch_size) < 1 or args.length < 2:
        raise UserError(
            "a --length under 2, or --repeats or --batch_size under 1",
            "positive numbers",
            "choose such numbers",
        )
    for flag in ("batches", "step_counts"):
        if not all(word.isdigit() and int(word) for word in getattr(args, flag).split(",")):
            raise UserError(
                f"--{flag} {getattr(args, flag)}",
                "positive numbers with commas between them",
                "for example 1,16",
            )
    if args.bundle:
        found = latency.measure(
            args.bundle, args.twin_bundle, args.checkpoint, repeats=args.repeats
        )
        print(latency.tables(found))
        return (
            files.write_text(args.json, json.dumps(found, indent=2) + "\n") if args.json else None
        )
    device = fit.start(
        TrainConfig(
            device=args.device, threads=args.threads, precision=args.precision, seed=args.seed
        )
    )
    rows = []
    if args.only in (None, "training"):
        rows += time_training(args, device)
    if args.only in (None, "sampling"):
        rows += time_sampling(args, device)
    if args.only in (None, "memory"):
        rows += measure_memory(args)
    precision, _ = hardware.choose_precision(args.precision, device)
    facts = {
        "model": args.checkpoint or args.model_config,
        "length": args.length,
        "batch_size": args.batch_size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": str(precision),
        "repeats": args.repeats,
    }
    print("  ".join(f"{key} {value}" for key, value in facts.items()) + "\n\n" + table(rows))
    if rows and "product_gflops" in rows[0]:
        print(f"\nmatrix product: {rows[0]['product_gflops']:,.0f} GFLOP/s")
    if args.json:
        files.write_text(args.json, json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    print(f"\npeak memory of this process: {peak_mib(device):.0f} MiB")


if __name__ == "__main__":
    files.run(main)
