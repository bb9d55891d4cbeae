"""What to compute on and in which arithmetic (floor 1): device, precision, memory. The reason is always printed."""

import contextlib
import ctypes
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from base.files import UserError


def choose_device(name: str) -> torch.device:
    """The device to run on; `auto` takes the best there is. Raises UserError if the named one is not there."""
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    kind = name.split(":")[0]
    if kind not in there or not there[kind]:
        raise UserError(
            f"--device {name}",
            "auto or one of " + ", ".join(k for k, ok in there.items() if ok),
            "choose one of these",
        )
    return torch.device(name)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16 than in float32.

    CPUs need instructions for it (AVX512-BF16 or AMX): 2.2 to 3 times the rate with them, half of it without (LOG.md).
    """
    if device.type == "cpu":
        return any(
            getattr(torch.cpu, name, lambda: False)()
            for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    return device.type != "cuda" or torch.cuda.is_bf16_supported()


def choose_precision(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The forward pass's dtype and the reason."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            name
        ], "asked for"
    if device.type == "cuda":
        return (
            (torch.bfloat16, "the GPU has bf16")
            if fast_bfloat16(device)
            else (torch.float16, "the GPU lacks bf16")
        )
    if device.type == "cpu" and fast_bfloat16(device):
        return torch.bfloat16, "the CPU has bf16 products"
    return torch.float32, f"the default on this {device.type}"


def product_rate(device: torch.device, precision: torch.dtype = torch.float32) -> float:
    """Operations a second of a matrix product of 2,048 a side, the median of three: what arithmetic can be held to."""
    a, b = (torch.randn(2048, 2048, device=device, dtype=precision) for _ in range(2))
    seconds = []
    for _ in range(4):
        clock = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - clock)
    return 2 * 2048**3 / statistics.median(seconds[1:])


def short_attention(device: torch.device):
    """A context for rows of a few dozen tokens: on CPUs the fused attention's backward pass is the slower one there."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory instead of handing it back to the kernel after every step.

    Activations of tens of MB are otherwise mapped and zeroed afresh each time: 1.3 to 1.4 times the step on a
    2-core Xeon (LOG.md). Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
