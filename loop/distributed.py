"""Several processes as one: who writes, whose micro-batch is it, DDP or FSDP2 around a loss.

`torchrun train.py …` starts a process for each GPU (or, for a trial, several on a CPU), on one
machine or many. Without torchrun every function here answers as a single process would, and nothing
is started.

The number of processes does not change what a step computes. A step's micro-batches are dealt to
the processes. Each micro-batch has its noise levels from the step's one draw, a generator of its
own, and the same weight in the loss. So the number of processes may change at any resume, and the
losses agree to float32's rounding.
"""

import contextlib
import copy
import datetime
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from base import files
from base.files import UserError
from loop.contracts import LossFn

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# How long a process waits for the others: rank 0 may be decoding images or writing a large file.
PATIENCE = datetime.timedelta(minutes=30)
# Parameters from which `auto` chooses FSDP2: the blocks of `xlarge` alone have 85 M.
SHARD_FROM = 80_000_000


def start() -> None:
    """Meet the other processes if torchrun started this one: gloo for CPUs, NCCL for GPUs.

    It returns when all processes have met. A process that refused its arguments before the others
    had met it would leave them in the middle of a connection: they would end with a traceback.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    # Imported here: a run of one process does not need it.
    from torch.distributed.rendezvous import rendezvous

    store, number, count = next(rendezvous("env://"))
    # torchrun (2.13) keeps one store over its restarts, with the addresses of dead processes.
    life = os.getenv("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"life {life}", store)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=number,
        world_size=count,
        timeout=PATIENCE,
    )
    barrier()  # no process passes before all have arrived


def finish() -> None:
    """Leave the other processes, at the end of a script that succeeded.

    A script that failed just ends, and torchrun ends the others.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def say(text: str, file=None) -> None:
    """Print once, not once per process; to stderr unless `file` is given."""
    if leads():
        print(text, file=file or sys.stderr)


def barrier() -> None:
    """Wait until all processes are here."""
    total([0.0])  # over gloo, whatever the device: NCCL's own barrier guesses a GPU


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """Rank 0 runs the body before the others do: they find what it left on disk."""
    if not leads():
        barrier()
    yield
    if leads():
        barrier()


@contextlib.contextmanager
def refusing_together() -> Iterator[None]:
    """If the body raises a UserError in one process, raise it in all of them.

    All processes must enter. Otherwise the others would wait for the process that refused, or lose
    it in the middle of an exchange and end with a traceback.
    """
    if world() == 1:
        yield
        return
    mine: UserError | None = None
    try:
        yield
    except UserError as error:
        mine = error
    except OSError as error:  # a full disk, or a folder without permission
        mine = files.os_error(error)
    for refusal in gathered(mine):
        if refusal is not None:
            raise refusal


def own_gpu(device: torch.device) -> torch.device:
    """The GPU of this process if `device` is just "cuda". All processes must ask for it.

    Raises UserError, in all of them, if a machine has fewer GPUs than processes.
    """
    if world() == 1 or device.type != "cuda":
        return device
    number, count = dist.get_node_local_rank(), torch.cuda.device_count()
    with refusing_together():
        if number >= count:
            raise UserError(
                f"process {number + 1} of this machine, which has {count} GPUs",
                "a GPU for each process",
                f"start torchrun with --nproc-per-node {count}, or the script with --device cpu",
            )
    torch.cuda.set_device(number)  # NCCL uses the current device
    return torch.device("cuda", number)


def gathered(value: Any) -> list[Any]:
    """The values of all processes by rank, the same in all of them. The values must pickle."""
    values: list = [value]
    if world() > 1:
        values = [None] * world()
        dist.all_gather_object(values, value)
    return values


def total(values) -> np.ndarray:
    """Sums over all processes: numbers of one shape from each -> float64, the same in all."""
    sums = np.array(values, dtype=np.float64)  # float32 would round token counts above 16 M
    if world() > 1:
        dist.all_reduce(torch.from_numpy(sums))
    return sums


def any_signal(received: int | None) -> int | None:
    """The signal that asks for a stop, whichever process it reached; the same in all of them."""
    if world() == 1:
        return received
    # Signals are small numbers, and 0 is none of them.
    # If one process stopped alone, the others would wait for it in their next exchange.
    highest = torch.tensor([received or 0])
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return int(highest) or None


def leaders(values: dict[str, float]) -> dict[str, float]:
    """Rank 0's figures, so that all processes decide alike."""
    # The sum of rank 0's figure and zeros is rank 0's figure.
    mine = [value if leads() else 0.0 for value in values.values()]
    return dict(zip(values, total(mine).tolist(), strict=True))


def told(text: str) -> str:
    """The texts of all processes, each different text once, by rank; the same in all of them."""
    return "; ".join(dict.fromkeys(gathered(text)))


def shared(
    items: Iterable[Item],
    work: Callable[[Item], Answer],
    progress: Callable[[list[Item]], Iterable[Item]] = iter,
) -> list[Answer]:
    """[work(item) for item in items], with the items dealt to the processes in turn.

    All processes get all answers, which must pickle. progress: wraps the items of this process.
    """
    mine = list(items)[rank() :: world()]
    answers = gathered([work(item) for item in progress(mine)])
    count = sum(map(len, answers))
    # Item n was dealt to rank n % world().
    return [answers[number % world()][number // world()] for number in range(count)]


def claim(folder) -> Path:
    """`files.claim` by rank 0 for all processes.

    Raises UserError, in all, if another run has the folder.
    """
    with refusing_together():
        if leads():
            # A lock belongs to one process, so rank 0 holds it for all.
            files.claim(folder)
        else:
            files.writable_folder(folder)
    return Path(folder)


def deal(parts: list[np.ndarray], rows_each: int = 1) -> list[tuple[np.ndarray, dict]]:
    """This process's micro-batches of a step, and where they stand in the step.

    parts: the step's micro-batches, each element of which stands for `rows_each` rows.
    With each comes `number`, its place in the step; `first_row`, its first row of the step; and
    `step_rows`, the rows of the whole step. Every world-th micro-batch is dealt, not the first few,
    because short rows come first. Raises UserError unless all processes get as many.
    """
    # A process with a micro-batch fewer would leave the others waiting in an exchange.
    if len(parts) % world():
        raise UserError(
            f"{len(parts)} micro-batches per step for {world()} processes",
            "the same number of them for each",
            f"set --accumulate to a multiple of {world()}: "
            "it counts the micro-batches of all processes together",
        )
    dealt = []
    first_row = 0
    step_rows = rows_each * sum(len(part) for part in parts)
    for number, part in enumerate(parts):
        if number % world() == rank():
            where = {"number": number, "first_row": first_row, "step_rows": step_rows}
            dealt.append((part, where))
        first_row += rows_each * len(part)
    return dealt


def choose_parallel(name: str, parameters: int, compiled: bool) -> tuple[str, str]:
    """`ddp`, `fsdp` or `alone`, and the reason. Raises UserError for fsdp with --compile."""
    if world() == 1 and not dist.is_initialized():
        return "alone", "no torchrun"
    if name == "fsdp" and compiled:
        raise UserError(
            "--parallel fsdp with --compile",
            "one of the two: compiled blocks hold whole weights",
            "drop --compile, or use --parallel ddp",
        )
    if name != "auto":
        return name, "asked for"
    is_large = parameters >= SHARD_FROM
    if is_large and not compiled:
        return "fsdp", f"{SHARD_FROM / 1e6:.0f} M parameters or more"
    return "ddp", "--compile" if is_large else f"fewer than {SHARD_FROM / 1e6:.0f} M parameters"


class Objective(nn.Module):
    """A loss as a module: the hooks of DDP and FSDP2 then run around all that it calls."""

    def __init__(self, model: nn.Module, loss_fn: LossFn):
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    def forward(self, batch: dict, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return self.loss_fn(self.model, batch, rng)


def spread(model: Any, loss_fn: LossFn, parallel: str) -> tuple[Any, nn.Module]:
    """The model whose weights are trained, and the objective(batch, rng) that trains them.

    ddp: `model` itself; its gradients are summed over the processes. fsdp: a copy whose every
    weight is split over the processes; `model` stays whole, on the CPU, for evaluations. alone:
    `model` itself.
    """
    if parallel == "ddp":
        # A twin never hears of the time, a plain step of a soft network of no belief, and a batch
        # whose given captions are all dropped of no caption.
        is_deaf = bool(getattr(model, "time", None)) and model.config.causal
        has_unused = is_deaf or hasattr(model, "w_s") or hasattr(model, "given_place")
        # No device_ids: they would move the batch to the GPU, and noise levels stay on the CPU.
        objective = DistributedDataParallel(
            Objective(model, loss_fn), find_unused_parameters=has_unused
        )
        return model, objective
    if parallel == "fsdp":
        device = model.device
        # The whole model waits on the CPU: a GPU that could hold both would need no FSDP2.
        model = copy.deepcopy(model.cpu()).to(device)
        return model, split(Objective(model, loss_fn), model)
    return model, Objective(model, loss_fn)


def split(objective: nn.Module, model: nn.Module) -> nn.Module:
    """FSDP2 around each block's cross-attention, around each block, and around the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for weight in model.parameters():
        weight.data = weight.data.contiguous()  # FSDP2 takes no channels-last convolutions
    mesh = init_device_mesh(next(model.parameters()).device.type, (world(),))
    for module in list(model.modules()):
        cross = getattr(module, "cross", None)
        is_block = hasattr(module, "attention_norm")
        if is_block and cross is not None:
            fully_shard(cross, mesh=mesh)
        if is_block:
            fully_shard(module, mesh=mesh)
        if cross is not None:  # `keys_values` is called before its forward, and apart from it
            register_fsdp_forward_method(cross, "keys_values")
    # Last, because FSDP2 wants the inner modules split before the outer modules.
    fully_shard(objective, mesh=mesh)
    return objective


def gradients_of(objective: nn.Module, is_last: bool) -> contextlib.AbstractContextManager[object]:
    """A context for one micro-batch: only the step's last exchanges gradients."""
    synchronise: Any = getattr(objective, "set_requires_gradient_sync", None)  # FSDP2's
    if synchronise:
        synchronise(is_last)
    # Gradients add up locally first: an exchange per micro-batch would multiply the traffic.
    if isinstance(objective, DistributedDataParallel) and not is_last:
        return objective.no_sync()
    return contextlib.nullcontext()


def is_split(value: Any) -> bool:
    """Whether this process has only a part of a tensor."""
    if world() == 1 and not dist.is_initialized():
        return False  # spares a single process two seconds of import
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def whole(value: Any) -> Tensor:
    """All of a tensor of which this process has a part; all processes must ask for it."""
    return value.full_tensor() if is_split(value) else value


def local(value: Any) -> Tensor:
    """The part of a tensor that this process has, in the same memory."""
    return value.to_local() if is_split(value) else value


def split_like(value: Tensor, like: Any) -> Tensor:
    """A whole tensor, which all processes have, split as `like` is."""
    if not is_split(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    # None: every process has the whole tensor already, so nothing is sent.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def whole_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with nothing split. Split tensors come to the CPU, one at a time."""
    result = {}
    for name, value in weights.items():
        # A whole model next to the parts of it may not fit on the GPU.
        result[name] = whole(value).cpu() if is_split(value) else value
    return result


def split_weights(weights: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole weights, split as the weights of the same name in `like` are."""
    result = {}
    for name, value in weights.items():
        if is_split(like.get(name)):
            value = split_like(value.to(like[name].device), like[name])
        result[name] = value
    return result
