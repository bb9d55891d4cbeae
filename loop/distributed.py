"""Several processes as one (floor 1): who am I, who writes, whose micro-batch is it, and DDP or FSDP2 around a loss.

`torchrun train.py …` starts a process for each GPU (or, to try it, several on a CPU), on one machine or many. Without
torchrun every function here answers as a single process would, and nothing is started.

A step is the same whoever computes it: its micro-batches are dealt to the processes, each has noise levels from the step's one
draw and a generator of its own, and its loss weighs what it weighs in the step. So the number of processes may change at any
resume, and the losses agree to float32's rounding.
"""

import contextlib
import copy
import datetime
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from base import files
from base.files import UserError

PATIENCE = datetime.timedelta(
    minutes=30
)  # of a process for the others: rank 0 may be decoding pictures or writing a large file
SHARD_FROM = (
    80_000_000  # parameters from which `auto` chooses FSDP2: the blocks of `xlarge` alone are 85 M
)


def start() -> None:
    """Join the other processes if torchrun started this one: gloo for what is on CPUs, NCCL for what is on GPUs."""
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    from torch.distributed.rendezvous import rendezvous

    store, number, count = next(rendezvous("env://"))
    # torchrun (2.13) keeps one store over its restarts, where a new process would find the addresses of dead ones.
    store = dist.PrefixStore(f"life {os.getenv('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=number,
        world_size=count,
        timeout=PATIENCE,
    )


def finish() -> None:
    """Leave them, at the end of a script that went well. (One that failed just ends, and torchrun ends the others.)"""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def say(text: str, file=None) -> None:
    """Print once, not once a process; to stderr unless told otherwise."""
    if leads():
        print(text, file=file or sys.stderr)


def barrier() -> None:
    """Wait until all processes are here."""
    total([0.0])  # over gloo, whatever the device: NCCL's own barrier guesses a GPU


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """Rank 0 runs the body before the others do: what it leaves on disk they find."""
    if not leads():
        barrier()
    yield
    if leads():
        barrier()


def own_gpu(device: torch.device) -> torch.device:
    """The GPU of this process if `device` is just "cuda". Raises UserError if a machine has fewer GPUs than processes."""
    if world() == 1 or device.type != "cuda":
        return device
    number, there = dist.get_node_local_rank(), torch.cuda.device_count()
    if number >= there:
        raise UserError(
            f"process {number + 1} of this machine, which has {there} GPUs",
            "a GPU for each process",
            f"start torchrun with --nproc-per-node {there}, or the script with --device cpu",
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def total(values) -> np.ndarray:
    """Sums over all processes: numbers of one shape from each -> float64, the same everywhere. Alone, they are just copied."""
    sums = np.array(values, dtype=np.float64)
    if world() > 1:
        dist.all_reduce(torch.from_numpy(sums))
    return sums


def any_signal(received: int | None) -> int | None:
    """The signal that asks for a stop, whichever process it reached; the same answer in all of them."""
    if world() == 1:
        return received
    highest = torch.tensor([received or 0])
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return int(highest) or None


def leaders(values: dict[str, float]) -> dict[str, float]:
    """Rank 0's figures, so that all decide alike."""
    return dict(
        zip(
            values,
            total([value if leads() else 0.0 for value in values.values()]).tolist(),
            strict=True,
        )
    )


def told(text: str) -> str:
    """What the processes say, each different answer once, from rank 0 on; the same in all of them."""
    if world() == 1:
        return text
    texts: list = [None] * world()
    dist.all_gather_object(texts, text)
    return "; ".join(dict.fromkeys(texts))


def shared(items: Iterable, work: Callable, progress: Callable[[list], Iterable] = iter) -> list:
    """[work(item) for item in items], the items dealt to the processes in turn; all of them get all answers, which must pickle."""
    answers = [work(item) for item in progress(list(items)[rank() :: world()])]
    if world() == 1:
        return answers
    parts: list = [None] * world()
    dist.all_gather_object(parts, answers)
    return [parts[number % world()][number // world()] for number in range(sum(map(len, parts)))]


def claim(folder) -> Path:
    """`files.claim` by rank 0 for all of them. Raises UserError if another run has the folder."""
    return files.claim(folder) if leads() else files.writable_folder(folder)


def deal(parts: list[np.ndarray], rows_each: int = 1) -> list[tuple[np.ndarray, dict]]:
    """This process's micro-batches of a step, of `rows_each` rows an element, and where they stand in the step:
    `number` of the micro-batch, `first_row`, and `step_rows` in all. Every world-th one, for short rows come first.

    Raises UserError if there is not the same number of them for each process.
    """
    if len(parts) % world():
        raise UserError(
            f"{len(parts)} micro-batches a step for {world()} processes",
            "the same number of them for each",
            f"set --accumulate to a multiple of {world()}: it counts the micro-batches of all processes together",
        )
    ends = np.cumsum([rows_each * len(part) for part in parts])
    return [
        (
            part,
            {
                "number": number,
                "first_row": int(end) - rows_each * len(part),
                "step_rows": int(ends[-1]),
            },
        )
        for number, (part, end) in enumerate(zip(parts, ends, strict=True))
        if number % world() == rank()
    ]


def choose_parallel(name: str, parameters: int, compiled: bool) -> tuple[str, str]:
    """ddp or fsdp (or alone), and the reason. Raises UserError on fsdp with --compile."""
    if world() == 1 and not dist.is_initialized():
        return "alone", "no torchrun"
    if name == "fsdp" and compiled:
        raise UserError(
            "--parallel fsdp with --compile",
            "one of the two: the compiled blocks are those of whole weights",
            "drop --compile, or use --parallel ddp",
        )
    if name != "auto":
        return name, "asked for"
    if parameters >= SHARD_FROM and not compiled:
        return "fsdp", f"{SHARD_FROM / 1e6:.0f} M parameters or more"
    return (
        "ddp",
        "--compile"
        if parameters >= SHARD_FROM
        else f"fewer than {SHARD_FROM / 1e6:.0f} M parameters",
    )


class Objective(nn.Module):
    """A loss as a module, so that the hooks of DDP and FSDP2 run round all of it, whatever it calls of the model."""

    def __init__(self, model: nn.Module, loss_fn: Callable):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, batch: dict, rng: torch.Generator):
        return self.loss_fn(self.model, batch, rng)


def spread(model: nn.Module, loss_fn: Callable, parallel: str) -> tuple[nn.Module, nn.Module]:
    """The model whose weights are trained, and the objective(batch, rng) that trains them.

    ddp: `model` itself, its gradients summed over the processes. fsdp: a copy whose every weight is split over the processes;
    `model` stays whole, on the CPU, for evaluations.
    """
    if parallel == "fsdp":
        device = model.device
        model = copy.deepcopy(model.cpu()).to(device)
        for weight in model.parameters():
            weight.data = weight.data.contiguous()  # FSDP2 takes no channels-last convolutions
    objective = Objective(model, loss_fn)
    if parallel == "ddp":
        # No device_ids: they would move the whole batch to the GPU, and noise levels are drawn on the CPU. Of all losses only the
        # twin's leaves weights out, those of the time that it is never told.
        untold = bool(getattr(model, "time", None)) and model.config.causal
        return model, DistributedDataParallel(objective, find_unused_parameters=untold)
    if parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = init_device_mesh(model.device.type, (world(),))
        for module in list(model.modules()):
            for part in (
                [module.cross, module] if hasattr(module, "attention_norm") else []
            ):  # a transformer's block
                if part is not None:
                    fully_shard(part, mesh=mesh)
            if getattr(module, "cross", None) is not None:
                register_fsdp_forward_method(
                    module.cross, "keys_values"
                )  # called before, and apart from, its forward
        fully_shard(objective, mesh=mesh)
    return model, objective


@contextlib.contextmanager
def gradients_of(objective: nn.Module, last: bool) -> Iterator[None]:
    """Forward and backward of one micro-batch: gradients are exchanged only after the last one of the step."""
    if hasattr(objective, "set_requires_gradient_sync"):  # FSDP2's
        objective.set_requires_gradient_sync(last)
    with (
        contextlib.nullcontext()
        if last or not isinstance(objective, DistributedDataParallel)
        else objective.no_sync()
    ):
        yield


def is_split(value) -> bool:
    """Whether this process has only a part of a tensor. Alone it never has, and need not spend two seconds on the import."""
    if world() == 1 and not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def whole(value: Tensor) -> Tensor:
    """All of a tensor of which this process has a part; all processes must ask for it."""
    return value.full_tensor() if is_split(value) else value


def part(value: Tensor) -> Tensor:
    """What this process has of a tensor, sharing its memory."""
    return value.to_local() if is_split(value) else value


def divide(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which all processes have, split as `like` is."""
    if not is_split(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def whole_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with nothing split; what was split comes to the CPU, one tensor at a time."""
    return {
        name: whole(value).cpu() if is_split(value) else value for name, value in weights.items()
    }


def split_weights(weights: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole weights, split as those of the same name in `like` are."""
    return {
        name: divide(value.to(like[name].device), like[name]) if is_split(like.get(name)) else value
        for name, value in weights.items()
    }
