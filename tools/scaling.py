"""What a run costs on any number of GPUs: time, memory, traffic, checkpoints.

A plan is arithmetic from a few figures that are measured on this machine: the rate of a training
step, the bytes that a row keeps for its backward pass, and the rate at which a checkpoint is saved.

Names: N parameters, of which Muon moves the hidden matrices and AdamW the rest.
"""

import functools
import math
from dataclasses import dataclass, field, fields

import torch

from base import config, flags
from base.config import ModelConfig, TrainConfig
from base.flags import check, setting
from loop.distributed import SHARD_FROM
from loop.optim import ROUNDS
from model import Denoiser
from net import anatomy

GPUS = (1, 8, 64, 1024)
NODE = 8  # GPUs of a machine
EVERY = TrainConfig.save_every
FLOAT = 4  # bytes of a float32 number


@dataclass
class Measure:
    """What is measured on this machine."""

    model_config: str = setting(
        "tiny", "size of the measured training step", choices=config.NAMED_SIZES
    )
    seed: int = setting(0, "of the weights and inputs that are measured", at_least=0)
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        check(self)


@dataclass
class Hardware:
    """What is assumed about the GPUs. None of it is measured."""

    peak: float = setting(
        989e12,
        "products per second of a GPU in bf16, times two; the H100 SXM's data sheet",
        above=0,
    )
    memory: float = setting(80e9, "bytes of a GPU; its data sheet", above=0)
    link: float = setting(
        450e9,
        "bytes per second that a GPU sends inside a machine; NVLink 4's data sheet",
        above=0,
    )
    network: float = setting(
        50e9,
        "bytes per second that a GPU sends to other machines; one 400 Gbit/s port per GPU",
        above=0,
    )

    def __post_init__(self):
        check(self)


def assumptions(settings) -> str:
    """A Markdown list of the flags of a dataclass with their values and meanings."""
    lines = []
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        lines.append(f"- `--{entry.name} {value:g}`: {entry.metadata['help']}")
    return "\n".join(lines)


@dataclass
class Job:
    """A run: `rows` of `length` positions per step, `steps` of them, on any number of GPUs.

    decides: why it has this many steps.
    """

    name: str
    model: ModelConfig
    rows: int
    length: int
    steps: int
    decides: str


CAPTIONER = ModelConfig(
    **config.named_size("caption"),
    condition_width=768,
    max_length=64,
    length_hidden=config.LENGTH_HIDDEN,
)
JOBS = [
    Job(
        "TinyStories, `small`",
        ModelConfig(**config.named_size("small")),
        rows=64,
        length=256,
        steps=10_000,
        decides="the README's command",
    ),
    Job(
        "COCO, `caption`",
        CAPTIONER,
        rows=512,
        length=32,
        steps=27_723,
        decides="a choice: 118,287 images (train2017), 30 times, 128 per step, 4 captions each",
    ),
    Job(
        "1B denoiser",
        ModelConfig(d_model=2048, heads=32, layers=20, max_length=1024),
        rows=2048,
        length=1024,
        steps=9_766,
        decides="20 tokens per parameter: the rule for autoregressive models (arXiv 2203.15556); "
        "nobody knows whether it holds for denoisers",
    ),
]


@dataclass
class Weights:
    """Counts of a model's weights.

    count: all parameters. hidden: those that Muon moves. whole: the largest part that is whole on a
    GPU at one time when weights are split. muon: Muon's operations per step.
    """

    count: int
    hidden: int
    whole: int
    muon: float


@functools.cache
def shapes_only(**values) -> Denoiser:
    """A model without memory for its weights, from the values of a ModelConfig."""
    # The weights of the 1B model would take 4 GB here.
    with torch.device("meta"):
        return Denoiser(ModelConfig(**values))


def weights_of(model_config: ModelConfig) -> Weights:
    model = shapes_only(**flags.to_dict(model_config))
    shapes = []
    for name, weight in model.named_parameters():
        if name.startswith("blocks.") and weight.ndim == 2:
            shapes.append(weight.shape)
    operations = 0
    for shape in shapes:  # as optim.orthogonalize multiplies
        # A round has X·Xᵀ and B·X with 2·s²·l operations each, and A·A with 2·s³.
        small, large = min(shape), max(shape)
        operations += len(ROUNDS) * (4 * small**2 * large + 2 * small**3)
    count = model.num_parameters()
    block = sum(weight.numel() for weight in model.blocks[0].parameters())
    return Weights(
        count=count,
        hidden=sum(math.prod(shape) for shape in shapes),
        whole=block + count - block * model_config.layers,
        muon=float(operations),
    )


def training_flops(job: Job) -> int:
    """Operations to train on one row, by the convention of net.anatomy.training_flops."""
    model = shapes_only(**flags.to_dict(job.model))
    return anatomy.training_flops(model, job.length) * job.length


@dataclass
class Measured:
    """The figures that a plan starts from.

    rate: operations per second of one GPU in training. outside, per_block: bytes that a row keeps
    for its backward pass, outside of the blocks and in each. save_rate: bytes per second to disk.
    """

    rate: float
    outside: float
    per_block: float
    save_rate: float


@dataclass
class Plan:
    """A job on some GPUs. `problem` says why it cannot run there; then the other figures are 0."""

    job: Job
    gpus: int
    hardware: Hardware
    measured: Measured
    weights: Weights = field(init=False)
    resident: float = field(init=False, default=0.0)  # bytes of weights and their state
    micro: int = field(init=False, default=0)  # rows that a GPU takes at once
    problem: str = field(init=False, default="")

    def __post_init__(self):
        self.weights = weights_of(self.job.model)
        self.fit_memory()

    @property
    def split(self) -> bool:
        """Whether FSDP2 splits the weights."""
        return self.gpus > 1 and self.weights.count >= SHARD_FROM

    @property
    def parallel(self) -> str:
        if self.split:
            return "fsdp"
        return "ddp" if self.gpus > 1 else "alone"

    @property
    def adamw_weights(self) -> int:
        return self.weights.count - self.weights.hidden

    @property
    def row_bytes(self) -> float:
        """Bytes that a row keeps for its backward pass."""
        return self.measured.outside + self.measured.per_block * self.job.model.layers

    @property
    def rows_per_gpu(self) -> int:
        return self.job.rows // self.gpus

    def fit_memory(self) -> None:
        """Find `resident` and `micro`, or the problem."""
        weights, rows = self.weights, self.rows_per_gpu
        # Weights, gradients and averages; Muon has one moment, AdamW two.
        state = 3 * FLOAT * weights.count
        state += FLOAT * weights.hidden + 2 * FLOAT * self.adamw_weights
        if self.split:
            state = state / self.gpus + FLOAT * weights.whole
        # autocast keeps its bfloat16 copies until a micro-batch is through.
        self.resident = state + 2 * weights.count
        room = self.hardware.memory - self.resident
        if self.job.rows % self.gpus or not rows:
            self.problem = f"{self.job.rows} rows per step for {self.gpus} GPUs: the batch"
        elif room < self.row_bytes:
            self.problem = "does not fit: memory"
        else:
            self.micro = self.largest_micro(self.hardware.memory - self.resident)
            if self.split and self.micro < rows:
                # Gradients that wait for the last micro-batch are whole.
                self.resident += FLOAT * weights.count
                self.micro = self.largest_micro(self.hardware.memory - self.resident)
                if not self.micro:
                    self.problem = "does not fit: memory"

    def largest_micro(self, room: float) -> int:
        """The most rows that divide the GPU's rows and fit into `room` bytes."""
        rows = self.rows_per_gpu
        fitting = [n for n in range(1, rows + 1) if rows % n == 0 and n * self.row_bytes <= room]
        return max(fitting, default=0)  # 0: not a single row fits

    @property
    def accumulate(self) -> int:
        """Micro-batches of the whole job per step, as --accumulate counts them."""
        return self.job.rows // self.micro

    @property
    def activations(self) -> float:
        return self.row_bytes * self.micro

    @property
    def traffic(self) -> float:
        """Bytes that a GPU sends per step."""
        count = self.weights.count
        once = FLOAT * count * (self.gpus - 1) / self.gpus  # an all-gather, or a reduce-scatter
        if not self.split:
            return 2 * once  # a ring all-reduce of the gradients
        # Blocks are gathered for the forward and the backward pass of every micro-batch. Gradients
        # leave once. Muon gathers its matrices.
        micro_batches = 2 * self.rows_per_gpu // self.micro
        return once * (micro_batches + 1) + once * self.weights.hidden / count

    @property
    def last(self) -> int:
        """Bytes of last.pt: the weights and their averages."""
        return 2 * FLOAT * self.weights.count

    @property
    def resume(self) -> int:
        """Bytes of the resume state."""
        return self.last + FLOAT * self.weights.hidden + 2 * FLOAT * self.adamw_weights

    @property
    def save(self) -> float:
        """Seconds of a save: rank 0 writes last.pt; of split weights each rank writes its part."""
        resume = self.resume / (self.gpus if self.split else 1)
        return (self.last + resume) / self.measured.save_rate

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of a step, by what takes them; nothing overlaps."""
        rate = self.measured.rate
        # The slowest link of a ring decides: with two machines, all traffic goes at the network's
        # rate.
        wire = self.hardware.link if self.gpus <= NODE else self.hardware.network
        return {
            "compute": training_flops(self.job) * self.job.rows / self.gpus / rate,
            "Muon": self.weights.muon / rate,
            "traffic": self.traffic / wire,
            "saving": self.save / EVERY,
        }

    @property
    def hours(self) -> float:
        return sum(self.seconds.values()) * self.job.steps / 3600

    @property
    def bottleneck(self) -> tuple[str, float]:
        """What takes most of a step, and its share."""
        seconds = self.seconds
        name = max(seconds, key=lambda part: seconds[part])
        return name, seconds[name] / sum(seconds.values())
