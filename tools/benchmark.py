"""How fast: training against the machine's matrix product, sampling against the twin, memory.

Reads   nothing: random weights and random tokens, of a named size or of a checkpoint's
Writes  a Markdown table on the screen; --json FILE all figures

A minute on a laptop:
    python -m tools.benchmark --model_config tiny --repeats 3
For real:
    python -m tools.benchmark --model_config small --repeats 7 --json speed.json
    python -m tools.benchmark --bundle bundle bundle_int8 --twin_bundle bundle_ar --checkpoint \
checkpoints_caption_poc/best.pt --repeats 50
    python -m tools.benchmark --bundle bundle_policy --checkpoint checkpoints_policy/best.pt
The fused kernels next to plain and compiled torch; without a GPU, their errors alone:
    python -m tools.benchmark --kernels

The sides of a comparison alternate in one process. Medians and the median of paired ratios are
printed. Timings on a shared machine wander by tens of percent; the ratios hold.
"""

import json
from dataclasses import dataclass

import torch

from base import bundle, config, files, flags, metrics, system
from base.config import SampleConfig, TrainConfig
from base.files import UserError
from base.flags import check, setting
from edge import latency, policy_latency
from loop import hardware, recipe
from tools import kernel_figures, speed

PARTS = ("training", "sampling", "memory")
HEADER = [
    "what",
    "median (min to max)",
    "tokens/s",
    "time ÷ twin's",
    "share of matrix product (6N; executed)",  # see edge/roofline.py for the two counts
]


@dataclass
class Benchmark:
    """The benchmark: what is timed, and how often."""

    model_config: str = setting("small", "named size", choices=config.NAMED_SIZES)
    checkpoint: str | None = setting(None, "the architecture of this checkpoint instead")
    bundle: list[str] | None = setting(
        None,
        "bundles of captioners, or of policies: stages and memory, compared with --checkpoint and "
        "--twin_bundle",
        metavar="FOLDER",
    )
    twin_bundle: str | None = setting(None, "the twin's bundle")
    only: str | None = setting(None, "one part (default: all)", choices=PARTS)
    # A row of one token would hold only [BOS], which is given, so nothing would be written.
    length: int = setting(256, "tokens of a row", at_least=2)
    batch_size: int = setting(16, "rows of a training step", at_least=1)
    batches: str = setting("1,16", "rows sampled at once")
    samplers: str = setting("first_hitting,confidence", "samplers to time")
    step_counts: str = setting("8,16,32,64,256", "denoiser calls to time")
    repeats: int = setting(5, "counted runs of each side", at_least=1)
    precision: str = setting(
        "auto", "arithmetic of the forward pass", choices=("auto", "fp32", "bf16", "fp16")
    )
    compile: bool = setting(False, "time the compiled blocks as well")
    kernels: bool = setting(False, "the fused kernels of net/kernels.py, and nothing else")
    profile: bool = setting(False, "print where a training step's time goes")
    seed: int = setting(0, "of the weights and the tokens", at_least=0)
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    json: str | None = setting(None, "write all figures here", metavar="FILE")

    def __post_init__(self):
        check(self)
        numbers("batches", self.batches)
        numbers("step_counts", self.step_counts)
        # Refused here, not after minutes of timing.
        for name in self.samplers.split(","):
            SampleConfig(sampler=name)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Benchmark)
    return parser.parse_args(argv)


def numbers(flag: str, text: str) -> list[int]:
    """The numbers in "1,16". Raises UserError that names the flag."""
    words = text.split(",")
    # isdigit refuses signs and points; int refuses 0, which would time nothing.
    if not all(word.isdecimal() and int(word) for word in words):
        raise UserError(
            f"--{flag} {text}", "positive numbers with commas between them", "for example 1,16"
        )
    return [int(word) for word in words]


def case_of(options: Benchmark, device: torch.device) -> speed.Case:
    """What the flags say about the sides that are timed."""
    return speed.Case(
        model_config=options.model_config,
        checkpoint=options.checkpoint,
        length=options.length,
        batch_size=options.batch_size,
        repeats=options.repeats,
        seed=options.seed,
        device=device,
        precision=speed.precision_of(options.precision, device),
    )


def attention(case: speed.Case) -> str:
    """The attention kernel of the denoiser, which has no padding here."""
    values = speed.sizes(case)
    width = values["d_model"] // values["heads"]
    where = case.device, case.precision, values["heads"], width
    return hardware.attention_backend(*where, padded=False)


def memory_flags(options: Benchmark) -> dict:
    """The flags of the two small runs whose memory is measured."""
    same = ("model_config", "length", "batch_size", "device", "threads")
    values = {name: getattr(options, name) for name in same}
    # One step and few calls: a peak is reached at once.
    values |= {"repeats": 1, "batches": 1, "samplers": "first_hitting", "step_counts": 8}
    if options.checkpoint:
        values["checkpoint"] = options.checkpoint
    return values


def measure(options: Benchmark, case: speed.Case) -> list[dict]:
    """The rows of the parts that were asked for."""
    rows = []
    if options.only in (None, "training"):
        rows += speed.time_training(case, compiled=options.compile, profiled=options.profile)
    if options.only in (None, "sampling"):
        batches = numbers("batches", options.batches)
        step_counts = numbers("step_counts", options.step_counts)
        rows += speed.time_sampling(case, batches, options.samplers.split(","), step_counts)
    if options.only in (None, "memory"):
        rows += speed.measure_memory(memory_flags(options))
    return rows


def table(rows: list[dict]) -> str:
    """The figures as a Markdown table."""
    lines = [HEADER]
    for row in rows:
        if "peak_mib" in row:
            lines.append([row["what"], system.memory_text(row["peak_mib"]), "", "", ""])
            continue
        # The range stands next to the median, because other work on a shared machine widens it.
        middle, low, high = (
            f"{1000 * row[name]:,.0f}" for name in ("seconds", "seconds_min", "seconds_max")
        )
        share = ""
        if "share_of_product" in row:
            share = f"{100 * row['share_of_product']:.0f}%; {100 * row['share_executed']:.0f}%"
        lines.append(
            [
                row["what"],
                f"{middle} ms ({low} to {high})",
                f"{row['tokens_per_second']:,.0f}",
                f"{row['ratio_to_twin']:.2f}",
                share,
            ]
        )
    return metrics.markdown(lines)


def benchmark_bundles(options: Benchmark) -> None:
    """Print, and with --json write, the figures of bundles."""
    folders, repeats = options.bundle, options.repeats
    if bundle.read(folders[0])["kind"] == "policy":
        found = policy_latency.measure(folders, options.checkpoint, repeats=repeats)
        print(policy_latency.tables(found))
    else:
        found = latency.measure(folders, options.twin_bundle, options.checkpoint, repeats=repeats)
        print(latency.tables(found))
    if options.json:
        files.write_text(options.json, json.dumps(found, indent=2) + "\n")


def benchmark_kernels(options: Benchmark) -> None:
    """Print, and with --json write, the figures of the kernels."""
    device = hardware.choose_device(options.device)
    if kernel_figures.run_interpreted(device, options.seed, options.json):
        return  # another process has printed them
    found = kernel_figures.measure(device, options.seed, options.repeats)
    print(kernel_figures.table(found))
    if options.json:
        files.write_text(options.json, json.dumps(found, indent=2) + "\n")


def main(argv=None):
    options = flags.resolve(Benchmark, parse_args(argv))
    if options.kernels:
        return benchmark_kernels(options)
    # Bundles need no trainer, no precision and no random weights.
    if options.bundle:
        return benchmark_bundles(options)
    # The trainers choose the device and the threads in the same way.
    shared = ("device", "threads", "precision", "seed")
    device = recipe.start_torch(TrainConfig(**{name: getattr(options, name) for name in shared}))
    case = case_of(options, device)
    rows = measure(options, case)
    facts = {
        "model": options.checkpoint or options.model_config,
        "length": options.length,
        "batch_size": options.batch_size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": str(case.precision),
        "attention": attention(case),
        "repeats": options.repeats,
    }
    print("  ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"\n{table(rows)}")
    # Only the rows of training hold the rate of the product.
    if rows and "product_gflops" in rows[0]:
        print(f"\nmatrix product: {rows[0]['product_gflops']:,.0f} GFLOP/s")
    if options.json:
        files.write_text(options.json, json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    # speed.measure_memory reads this line from its child process: it must stay the last line.
    print(f"\npeak memory of this process: {system.memory_text(speed.peak_mib(device))}")


if __name__ == "__main__":
    files.run(main)
