"""Speeds and memory of training and sampling, the two sides of every comparison in turn."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from base import config, system
from base.config import ModelConfig, SampleConfig
from base.files import UserError
from edge import roofline
from loop import checkpoint, hardware, progress
from model import Denoiser
from net import twin
from net.anatomy import training_flops
from net.samplers import row_generators, sample
from tools.steps import optimizer_step

SQUARE = 2048  # side of the matrix product that a training step is compared with


@dataclass
class Case:
    """What is timed. checkpoint: its architecture in place of the named size."""

    model_config: str
    checkpoint: str | None
    length: int
    batch_size: int
    repeats: int
    seed: int
    device: torch.device
    precision: torch.dtype


def alternate(sides: dict[str, Callable], repeats: int, device) -> dict[str, list[float]]:
    """Seconds of every side, run in turn A B C A B C …, after an uncounted round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in progress.bar(range(repeats + 1), unit="round", leave=False):
        for name, work in sides.items():
            clock = time.perf_counter()
            work()
            if device.type == "cuda":  # a GPU works on after the call
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - clock)
    return seconds


def ratio(times: list[float], others: list[float]) -> float:
    """Median of the paired ratios."""
    # Pairs of one round: other work on the machine slows both, so it cancels in their ratio.
    return statistics.median(ours / theirs for ours, theirs in zip(times, others, strict=True))


def spread(times: list[float]) -> dict[str, float]:
    """The median and the range of some seconds."""
    return {
        "seconds": statistics.median(times),
        "seconds_min": min(times),
        "seconds_max": max(times),
    }


def sizes(case: Case) -> dict:
    """The architecture of a case: fields of ModelConfig."""
    if case.checkpoint:
        return checkpoint.load(case.checkpoint)["model"]
    return {"max_length": case.length, **config.named_size(case.model_config)}


def make_models(case: Case) -> dict[str, Denoiser]:
    """The denoiser and its twin at the same shapes, with random weights."""
    values = sizes(case)
    if case.length > values["max_length"]:
        raise UserError(
            f"--length {case.length}",
            f"at most {values['max_length']}, the model's length",
            "choose a shorter one",
        )
    torch.manual_seed(case.seed)  # speed does not depend on the weights
    models = {}
    for name in ("denoiser", "twin"):
        model_config = ModelConfig(**{**values, "causal": name == "twin"})
        models[name] = Denoiser(model_config).to(case.device)
    return models


def product_sides(case: Case, width: int) -> dict[str, tuple[Callable, float]]:
    """Matrix products and their operations: a square, and a feed-forward layer's shape."""
    tokens = case.batch_size * case.length
    sides = {}
    for m, k, n in ((SQUARE, SQUARE, SQUARE), (tokens, width, 4 * width)):
        a = torch.randn(m, k, device=case.device, dtype=case.precision)
        b = torch.randn(k, n, device=case.device, dtype=case.precision)
        sides[f"product {len(sides)}"] = (lambda a=a, b=b: a @ b), 2.0 * m * k * n
    return sides


def executed_per_token(model: Denoiser, name: str, length: int) -> float:
    """Operations that a training step really executes per token, of the denoiser or the twin."""
    if name.startswith("denoiser"):
        return roofline.executed_flops(model, length)
    size = model.config
    # The twin multiplies all its parameters, and half of the attention matrix is masked.
    return 6 * model.num_parameters() + 6 * size.layers * length * size.d_model


def time_training(case: Case, *, compiled: bool, profiled: bool) -> list[dict]:
    """Tokens per second of both, and their share of the machine's matrix-product rate.

    compiled: time the compiled blocks too. profiled: print where a step's time goes.
    """
    models = make_models(case)
    size = models["denoiser"].config
    shape = (case.batch_size, case.length)
    tokens = torch.randint(0, size.output_size, shape, device=case.device)
    sides = {}
    for name, model in models.items():
        sides[name] = optimizer_step(model, tokens, case.precision, is_twin=name == "twin")
    if compiled:
        for name in ("denoiser", "twin"):
            # Another model: compiling changes it.
            model = make_models(case)[name]
            model.trunk = torch.compile(model.trunk, dynamic=False)
            step = optimizer_step(model, tokens, case.precision, is_twin=name == "twin")
            sides[f"{name}, compiled"] = step
    products = product_sides(case, size.d_model)
    works = {name: work for name, (work, _) in products.items()}
    seconds = alternate({**sides, **works}, case.repeats, case.device)
    rates = []
    for name, (_, operations) in products.items():
        rates.append(operations / statistics.median(seconds[name]))
    if profiled:
        profile(sides["denoiser"])
    rows = []
    for name in sides:
        model = models[name.split(",")[0]]
        rate = tokens.numel() / statistics.median(seconds[name])  # tokens per second
        executed = executed_per_token(model, name, case.length)
        rows.append(
            {
                "what": f"train, {name}",
                "tokens_per_second": rate,
                **spread(seconds[name]),
                "ratio_to_twin": ratio(seconds[name], seconds["twin"]),
                "product_gflops": max(rates) / 1e9,
                "share_of_product": training_flops(model, case.length) * rate / max(rates),
                "share_executed": executed * rate / max(rates),
            }
        )
    return rows


def profile(work: Callable) -> None:
    """Print where the time of one training step goes, by operation."""
    with torch.profiler.profile() as trace:
        work()
    events = sorted(trace.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:15]:
        print(f"  {100 * event.self_cpu_time_total / total:5.1f}%  {event.key}", file=sys.stderr)


def sampling_sides(
    case: Case, models: dict, batch: int, samplers: list[str], step_counts: list[int]
) -> dict[str, Callable]:
    """The twin with its key-value cache, and the denoiser with each sampler and number of calls."""
    mask = models["denoiser"].config.vocab_size - 1
    tokens = torch.full((batch, case.length), mask, device=case.device)
    tokens[:, 0] = 0  # given, as [BOS] is

    def write_with_twin():
        # eos=-1: no token ends a row early, so both sides write as many tokens.
        rngs = row_generators(0, batch)
        return twin.sample(models["twin"], tokens[:, :1], case.length, eos=-1, pad=0, rngs=rngs)

    def writer(settings: SampleConfig) -> Callable:
        def write():
            denoise, rngs = models["denoiser"].bind(), row_generators(0, batch)
            return sample(denoise, tokens, settings, mask_id=mask, rngs=rngs)

        return write

    sides: dict[str, Callable] = {"twin": write_with_twin}
    for name in samplers:
        for steps in step_counts:
            settings = SampleConfig(sampler=name, steps=steps)
            sides[f"{name}, {steps} steps"] = writer(settings)
    return sides


def time_sampling(
    case: Case, batches: list[int], samplers: list[str], step_counts: list[int]
) -> list[dict]:
    """Seconds to fill rows of tokens, compared with the twin that writes as many."""
    models = {name: model.eval() for name, model in make_models(case).items()}
    rows = []
    for batch in batches:
        sides = sampling_sides(case, models, batch, samplers, step_counts)
        seconds = alternate(sides, case.repeats, case.device)
        for name, times in seconds.items():
            # The first token is given and not written.
            rate = batch * (case.length - 1) / statistics.median(times)
            rows.append(
                {
                    "what": f"sample, {name}, batch {batch}",
                    **spread(times),
                    "tokens_per_second": rate,
                    "ratio_to_twin": ratio(times, seconds["twin"]),
                }
            )
    return rows


def measure_memory(flags: dict) -> list[dict]:
    """Peak MiB of one training step and of one sample, each in its own process: a peak never falls.

    flags: of tools.benchmark, for both processes.
    """
    rows = []
    for part in ("training", "sampling"):
        words = [sys.executable, "-m", "tools.benchmark"]
        for name, value in {**flags, "only": part}.items():
            words += [f"--{name}", str(value)]
        root = Path(__file__).parent.parent
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
        # The last line ends in "... : 123 MiB", or says that this system does not know it.
        *_, peak, unit = done.stdout.strip().splitlines()[-1].split()
        peak = float(peak.replace(",", "")) if unit == "MiB" else None
        rows.append({"what": f"peak memory, {part}", "peak_mib": peak})
    return rows


def peak_mib(device: torch.device) -> float | None:
    """The most memory that this process has held: the GPU's if it has one, else the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return system.peak_mib()


def precision_of(name: str, device: torch.device) -> torch.dtype:
    return hardware.choose_precision(name, device)[0]
