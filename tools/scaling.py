"""What a run costs (floor 3): time, memory, traffic and checkpoints on any number of GPUs, by arithmetic from what a short run shows here."""

import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import diffusion
from base import config, flags
from base.config import ModelConfig, TrainConfig
from loop import checkpoint, fit, hardware
from loop.distributed import SHARD_FROM
from model import Denoiser

GPUS = (1, 8, 64, 1024)
NODE = 8  # GPUs of a machine
EVERY = TrainConfig.save_every
ASSUMED = {
    "peak": (989e12, "products a second of one GPU in bf16, times two; the H100 SXM's data sheet"),
    "memory": (80e9, "bytes of one GPU; its data sheet"),
    "link": (450e9, "bytes a second that a GPU sends inside a machine; NVLink 4's data sheet"),
    "network": (
        50e9,
        "bytes a second that a GPU sends to other machines; one 400 Gbit/s port a GPU",
    ),
}


@dataclass
class Job:
    """A run: `rows` of `length` positions a step, `steps` of them, whatever the number of GPUs. decides: why so many."""

    name: str
    model: ModelConfig
    rows: int
    length: int
    steps: int
    decides: str


JOBS = [
    Job(
        "TinyStories, `small`",
        ModelConfig(**config.named_size("small")),
        64,
        256,
        10_000,
        "the README's command",
    ),
    Job(
        "COCO, `caption`",
        ModelConfig(
            **config.named_size("caption"),
            condition_width=768,
            max_length=64,
            length_hidden=config.LENGTH_HIDDEN,
        ),
        512,
        32,
        27_723,
        "118,287 images (train2017), 128 a step with four captions each, thirty times over: a choice",
    ),
    Job(
        "1B denoiser",
        ModelConfig(d_model=2048, heads=32, layers=20, max_length=1024),
        2048,
        1024,
        9_766,
        "20 tokens a parameter, the rule for autoregressive models (arXiv 2203.15556); nobody knows that of denoisers",
    ),
]


def weights_of(model: ModelConfig) -> tuple[int, int, int, float]:
    """Parameters, those that Muon moves, those of the largest part that is whole at one time, and Muon's operations a step."""
    with torch.device("meta"):
        one = Denoiser(model)
    shapes = [
        weight.shape
        for name, weight in one.named_parameters()
        if name.startswith("blocks.") and weight.ndim == 2
    ]
    rounds = sum(
        5 * (4 * min(shape) ** 2 * max(shape) + 2 * min(shape) ** 3) for shape in shapes
    )  # muon.orthogonalize
    block = sum(weight.numel() for weight in one.blocks[0].parameters())
    hidden = sum(math.prod(shape) for shape in shapes)
    return (
        one.num_parameters(),
        hidden,
        block + one.num_parameters() - block * model.layers,
        float(rounds),
    )


def training_flops(job: Job) -> int:
    """Operations to train on one row, by the convention of model.Denoiser.training_flops."""
    with torch.device("meta"):
        return Denoiser(job.model).training_flops(job.length) * job.length


def plan(
    job: Job,
    gpus: int,
    rate: float,
    hardware: dict[str, float],
    kept: tuple[float, float],
    save_rate: float,
) -> dict:
    """The figures of one job on so many GPUs; only `gpus` and `why` if it cannot run there.

    rate: operations a second of one GPU in training. hardware: memory, link and network as in ASSUMED. kept: bytes a row keeps for
    its backward pass, outside of the blocks and in each. save_rate: bytes a second to disk.
    """
    N, hidden, whole, muon = weights_of(job.model)
    split = gpus > 1 and N >= SHARD_FROM
    state = (
        4 * N * 3 + 4 * hidden + 8 * (N - hidden)
    )  # weights, gradients, averages; Muon's momentum, AdamW's two moments
    resident = (
        state / gpus + 4 * whole if split else state
    ) + 2 * N  # autocast keeps its bfloat16 copies until a micro-batch is through
    row = kept[0] + kept[1] * job.model.layers
    room = int((hardware["memory"] - resident) // row)
    mine = job.rows // gpus
    if job.rows % gpus or not mine:
        return {"gpus": gpus, "why": f"{job.rows} rows a step for {gpus} GPUs: the batch"}
    if room < 1:
        return {"gpus": gpus, "why": "does not fit: memory"}
    micro = max(size for size in range(1, min(mine, room) + 1) if mine % size == 0)
    if split and micro < mine:  # gradients that wait for the last micro-batch are whole
        resident += 4 * N
        micro = max(
            size
            for size in range(1, min(mine, room) + 1)
            if mine % size == 0 and resident + row * size <= hardware["memory"]
        )
    one = training_flops(job)
    wire = hardware["link"] if gpus <= NODE else hardware["network"]
    once = 4 * N * (gpus - 1) / gpus  # an all-gather, or a reduce-scatter
    # Blocks are gathered for forward and for backward of every micro-batch; gradients leave once; Muon makes its matrices whole.
    traffic = once * (2 * mine // micro + 1) + once * hidden / N if split else 2 * once
    seconds = {
        "compute": one * job.rows / gpus / rate,
        "Muon": muon / rate,
        "traffic": traffic / wire,
    }
    last, resume = 8 * N, 8 * N + 4 * hidden + 8 * (N - hidden)
    save = (last + resume / (gpus if split else 1)) / save_rate
    seconds["saving"] = save / EVERY
    step = sum(seconds.values())
    return {
        "gpus": gpus,
        "parallel": "fsdp" if split else "ddp" if gpus > 1 else "alone",
        "micro": micro,
        "accumulate": job.rows // micro,
        "hours": step * job.steps / 3600,
        "seconds": seconds,
        "resident": resident,
        "activations": row * micro,
        "traffic": traffic,
        "last": last,
        "resume": resume,
        "save": save,
        "why": max(seconds, key=seconds.get),
        "share": max(seconds.values()) / step,
    }


def add_flags(parser: flags.Parser, assumed: dict) -> None:
    """What every plan asks: its assumptions, by name with their default and meaning, and how to measure here."""
    for name, (value, words) in assumed.items():
        parser.add_argument(
            f"--{name}", type=float, default=value, help=f"{words} (default {value:g})"
        )
    parser.add_argument(
        "--model_config",
        default="tiny",
        metavar="|".join(config.NAMED_SIZES),
        help="size of the measured step (default tiny)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the weights and inputs that are measured (default 0)",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 means torch's own choice (default 0)"
    )


def measure_step(model_config: str, seed: int, rows: int = 8, length: int = 256) -> dict:
    """One optimizer step here: its floating-point operations a second, and their share of the matrix product's; medians of three."""
    device = hardware.choose_device("auto")
    precision, _ = hardware.choose_precision("auto", device)
    torch.manual_seed(seed)
    model = Denoiser(ModelConfig(**config.named_size(model_config))).to(device)
    tokens = torch.randint(0, model.config.output_size, (rows, length), device=device)
    free = torch.arange(length, device=device).expand(rows, -1) > 0
    cfg = TrainConfig()
    optimizers, scaler = (
        fit.make_optimizers(model, cfg),
        torch.amp.GradScaler(device.type, enabled=False),
    )
    autocast = lambda: torch.autocast(device.type, precision, enabled=precision != torch.float32)
    loss_fn = lambda model, batch, rng: diffusion.loss(
        model.bind(), tokens, free, mask_id=model.config.vocab_size - 1, rng=rng
    )
    step = lambda: fit.optimizer_step(
        model, loss_fn, [{"weight": 1.0}], cfg, 1, optimizers, scaler, autocast
    )
    a, b = (torch.randn(2048, 2048, device=device, dtype=precision) for _ in range(2))
    seconds: dict = {step: [], (lambda: a @ b): []}
    for turn in range(4):
        for work, times in seconds.items():
            clock = time.perf_counter()
            work()
            torch.cuda.synchronize() if device.type == "cuda" else None
            times += [time.perf_counter() - clock] if turn else []  # the first is for warming up
    one, product = (statistics.median(times) for times in seconds.values())
    rate = model.training_flops(length) * rows * length / one
    what = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    return {
        "rate": rate,
        "tokens_per_second": rows * length / one,
        "share": rate / (2 * 2048**3 / product),
        "on": f"{what}, {precision}",
    }


def kept_bytes_at(job: Job, layers: int, rows: int, seed: int) -> int:
    """Bytes that autograd really saves here for the backward pass of so many rows and layers in bfloat16, the weights' copies included."""
    torch.manual_seed(seed)
    model = Denoiser(ModelConfig(**flags.to_dict(job.model) | {"layers": layers}))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    seen: dict[int, int] = {}

    def note(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return value

    tokens = torch.randint(0, job.model.output_size, (rows, job.length))
    condition = (
        model.keys_values(torch.randn(rows, 50, job.model.condition_width))
        if job.model.condition_width
        else None
    )
    free = torch.arange(job.length).expand(rows, -1) > 0
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda value: value),
        torch.autocast("cpu", torch.bfloat16),
    ):
        value, _ = diffusion.loss(
            model.bind(None, condition),
            tokens,
            free,
            mask_id=job.model.vocab_size - 1,
            rng=torch.Generator().manual_seed(seed),
            uniform=torch.full((rows,), 0.5),
        )
    del value
    return sum(seen.values())


def kept_bytes(job: Job, seed: int) -> tuple[float, float]:
    """Bytes that a row keeps for its backward pass, outside of the blocks and in each: from two rows and one, of one layer and of two."""
    one, two = (
        kept_bytes_at(job, layers, 2, seed) - kept_bytes_at(job, layers, 1, seed)
        for layers in (1, 2)
    )
    return 2 * one - two, two - one


def measure_save(parameters: int = 25_000_000) -> float:
    """Bytes a second of checkpoint.save here, fsync and rename included."""
    content = {"kind": "text", "weights": {"weight": torch.randn(parameters)}}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        clock = time.perf_counter()
        checkpoint.save(Path(folder) / "save.pt", content)
        return 4 * parameters / (time.perf_counter() - clock)


def short(value: float, units: tuple) -> str:
    """Three digits and the largest unit that fits."""
    return next(
        f"{value / unit:.3g} {name}"
        for unit, name in units
        if value >= unit or name == units[-1][1]
    )


size = lambda count: short(count, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")))
duration = lambda seconds: short(
    seconds, ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
)
