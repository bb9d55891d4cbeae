"""The fused kernels of net/kernels.py next to plain and compiled torch: error, time and memory."""

import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from base import metrics
from model import Rotary
from net import kernels
from tools import speed

# Rows, ids, width; and batch, heads, length, width of a head. A GPU's, and the interpreter's.
LARGE = {"rows": 8192, "ids": 8189, "width": 384, "heads": (64, 6, 256, 64)}
SMALL = {"rows": 6, "ids": 50, "width": 16, "heads": (2, 2, 5, 12)}
HEADER = ["kernel", "how", "error against float64", "time", "memory"]

Work = Callable[[], tuple[Tensor, ...]]


@dataclass
class Case:
    """A kernel: what it computes, how else it can be computed, and the answer in float64.

    sides: how -> a function that returns tensors. exact: the same tensors in float64.
    """

    what: str
    sides: dict[str, Work]
    exact: tuple[Tensor, ...]


def run_interpreted(device: torch.device, seed: int, json: str | None) -> bool:
    """Whether this machine has no GPU. Then the errors are measured in another process.

    Triton reads TRITON_INTERPRET when it is imported, so it must be set before Python starts.
    Raises UserError without Triton; SystemExit if the other process failed.
    """
    code = kernels.triton_code()
    if code is None:
        kernels.check(device)
    elif device.type == "cuda" or code.INTERPRETED:
        return False
    print("no GPU here: errors alone, at small shapes, in Triton's interpreter", flush=True)
    words = ["env", "TRITON_INTERPRET=1", sys.executable, "-m", "tools.benchmark", "--kernels"]
    words += ["--device", "cpu", "--seed", str(seed)]
    if json:
        words += ["--json", str(Path(json).resolve())]
    done = subprocess.run(words, cwd=Path(__file__).parent.parent)
    if done.returncode:
        raise SystemExit(done.returncode)
    return True


def differentiate(
    function: Callable, inputs: list[Tensor], grad: Tensor, *rest
) -> tuple[Tensor, ...]:
    """The first value of function(*inputs, *rest), and the gradients of the inputs."""
    inputs = [value.detach().requires_grad_() for value in inputs]
    value = function(*inputs, *rest)
    value = value[0] if isinstance(value, tuple) else value
    return value.detach(), *torch.autograd.grad(value, inputs, grad.to(value.dtype))


def draw_case(size: dict, top_p: float, rng: torch.Generator, device: torch.device) -> Case:
    """Draws from random logits at temperature 0.9."""
    logits = 2 * torch.randn(size["rows"], size["ids"], generator=rng)
    uniform = torch.rand(size["rows"], generator=rng, dtype=torch.float64)
    given = logits.to(device), uniform.to(device), 0.9, top_p
    sides: dict[str, Work] = {
        "eager": partial(kernels.draw_rows_plainly, *given),
        "compiled": partial(torch.compile(kernels.draw_rows_plainly), *given),
        "kernel": partial(kernels.draw_rows, *given),
    }
    exact = kernels.draw_rows_plainly(given[0].double(), *given[1:])
    return Case(f"draw, top_p {top_p:g}", sides, exact)


def rotary_case(size: dict, rng: torch.Generator, device: torch.device) -> Case:
    """QK-norm and rotary positions, forward and backward, in the layout of the network."""
    B, H, L, head = size["heads"]
    x = torch.randn(B, L, H, head, generator=rng).transpose(1, 2)
    weight = torch.rand(head, generator=rng) + 0.5
    grad = torch.randn(B, H, L, head, generator=rng).to(device)
    table = Rotary(head, L).to(device)
    inputs = [x.to(device), weight.to(device)]
    given = inputs, grad, table.cos, table.sin, 1e-6
    plain = kernels.norm_rotary_plainly
    sides: dict[str, Work] = {
        "eager": partial(differentiate, plain, *given),
        "compiled": partial(differentiate, torch.compile(plain), *given),
        "kernel": partial(differentiate, kernels.norm_rotary, *given),
    }
    wide = [value.double() for value in inputs]
    return Case("norm and rotary", sides, differentiate(plain, wide, *given[1:]))


def losses_case(size: dict, rng: torch.Generator, device: torch.device) -> Case:
    """Losses of random states, forward and backward, each token with a weight of its own."""
    rows, ids, width = size["rows"], size["ids"], size["width"]
    x = torch.randn(rows, width, generator=rng)
    output = torch.randn(ids, width, generator=rng) / width**0.5
    target = torch.randint(ids, (rows,), generator=rng).to(device)
    grad = torch.rand(rows, generator=rng).to(device)
    inputs = [x.to(device), output.to(device)]
    given = inputs, grad, target
    plain = kernels.linear_losses_plainly
    sides: dict[str, Work] = {
        "eager": partial(differentiate, plain, *given),
        "compiled": partial(differentiate, torch.compile(plain), *given),
        "torch's own": partial(differentiate, kernels.linear_losses, *given),
    }
    wide = [value.double() for value in inputs]
    return Case("linear cross-entropy", sides, differentiate(exact_losses, wide, *given[1:]))


def exact_losses(x: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """-log p in the type of x, where the plain form rounds its logits to float32."""
    return F.cross_entropy(x @ output.T, target, reduction="none")


def error_of(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> dict:
    """Tokens that differ, if tokens are drawn, and the largest error of all other numbers."""
    pairs = list(zip(found, exact, strict=True))
    differ = None
    if exact[0].dtype == torch.long:
        token, expected = pairs.pop(0)
        differ = int((token != expected).sum())
    error = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    return {"error": error, "tokens_differ": differ}


def peak_of(work: Work, device: torch.device) -> float:
    """MiB of the GPU's memory that a call takes on top of its inputs."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def measure(device: torch.device, seed: int, repeats: int) -> list[dict]:
    """A row for each kernel and each way to compute it. On a CPU: the errors alone."""
    on_gpu = device.type == "cuda"
    size = LARGE if on_gpu else SMALL
    rng = torch.Generator().manual_seed(seed)
    cases = [
        draw_case(size, 1.0, rng, device),
        draw_case(size, 0.9, rng, device),
        rotary_case(size, rng, device),
        losses_case(size, rng, device),
    ]
    rows = []
    for case in cases:
        sides = case.sides
        if not on_gpu:  # a compiler for the CPU says nothing about a GPU
            sides = {how: work for how, work in sides.items() if how != "compiled"}
        seconds = speed.alternate(sides, repeats, device) if on_gpu else {}
        for how, work in sides.items():
            row = {"what": case.what, "how": how, **error_of(work(), case.exact)}
            if on_gpu:
                row["seconds"] = statistics.median(seconds[how])
                row["peak_mib"] = peak_of(work, device)
            rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """The figures as a Markdown table."""
    lines = [HEADER]
    for row in rows:
        error = f"{row['error']:.1e}"
        if row["tokens_differ"] is not None:
            error += f", {row['tokens_differ']} tokens differ"
        time = f"{1000 * row['seconds']:.3f} ms" if "seconds" in row else ""
        memory = f"{row['peak_mib']:,.0f} MiB" if "peak_mib" in row else ""
        lines.append([row["what"], row["how"], error, time, memory])
    return metrics.markdown(lines)
