"""What to compute on, and in which arithmetic. The reason of a choice is always printed."""

import contextlib
import ctypes
import statistics
import time
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from base.files import UserError
from model import SelfAttention

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Instructions that make bfloat16 products 2.2 to 3 times as fast as float32's; without them they
# take twice as long (docs/log).
BFLOAT16_INSTRUCTIONS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
PRODUCT_SIDE = 2048  # rows and columns of the product that `product_rate` times
# What stands in the name of an attention's derivative, and what people call the kernel.
ATTENTIONS = {"Flash": "flash", "Efficient": "memory-efficient", "Cudnn": "cuDNN"}
# Parameters of glibc's mallopt, from malloc.h.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1


def choose_device(name: str) -> torch.device:
    """The device to run on; `auto` takes the best device of this machine.

    Raises UserError if the named device is not available.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available.get(name.split(":")[0], False):
        usable = ", ".join(kind for kind, yes in available.items() if yes)
        raise UserError(f"--device {name}", f"auto or one of {usable}", "choose one of these")
    return torch.device(name)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16 than in float32."""
    if device.type == "cpu":
        # Private names of torch, which older versions lack: then the answer is no.
        checks = [getattr(torch.cpu, name, lambda: False) for name in BFLOAT16_INSTRUCTIONS]
        return any(check() for check in checks)
    return device.type != "cuda" or torch.cuda.is_bf16_supported()


def choose_precision(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype of the forward pass and the reason. name: a key of PRECISIONS or `auto`."""
    if name != "auto":
        return PRECISIONS[name], "asked for"
    if device.type == "cuda":
        if fast_bfloat16(device):
            return torch.bfloat16, "the GPU has bf16"
        return torch.float16, "the GPU lacks bf16"
    if device.type == "cpu" and fast_bfloat16(device):
        return torch.bfloat16, "the CPU has bf16 products"
    return torch.float32, f"the default on this {device.type}"


class Arithmetic:
    """The precision of a step.

    scaler: multiplies float16's loss, whose gradients would vanish otherwise.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device = device
        self.dtype = dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def autocast(self) -> AbstractContextManager:
        """A context in which products are computed in the dtype."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=enabled)


def product_rate(device: torch.device, precision: torch.dtype = torch.float32) -> float:
    """Operations per second of a large matrix product: the best that this device can do."""
    shape = (PRODUCT_SIDE, PRODUCT_SIDE)
    a = torch.randn(shape, device=device, dtype=precision)
    b = torch.randn(shape, device=device, dtype=precision)
    seconds = []
    for _ in range(4):
        clock = time.perf_counter()
        (a @ b)[0, 0].item()  # reading a value waits for the device
        seconds.append(time.perf_counter() - clock)
    # The first product also pays for loading the library, so the median is of the other three.
    return 2 * PRODUCT_SIDE**3 / statistics.median(seconds[1:])


def short_attention(device: torch.device) -> AbstractContextManager:
    """A context for rows of a few dozen tokens.

    On CPUs the backward pass of the fused attention is slower for such rows than plain products.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def attention_backend(
    device: torch.device, dtype: torch.dtype, heads: int, width: int, padded: bool
) -> str:
    """Which kernel torch takes for attention in training: flash, memory-efficient, cuDNN or math.

    width: of a head. padded: with a mask that hides padding. One small attention is computed and
    looked at. So the answer is what torch did, on any device, and inside of `sdpa_kernel` too.
    """
    with torch.enable_grad():
        x = torch.zeros(1, heads, 16, width, device=device, dtype=dtype, requires_grad=True)
        attend = torch.ones(1, 1, 1, 16, device=device, dtype=torch.bool) if padded else None
        y = F.scaled_dot_product_attention(x, x, x, attend)
    pending = [y.grad_fn]
    while pending:
        node = pending.pop()
        if node is None:
            continue
        for word, name in ATTENTIONS.items():
            if f"ScaledDotProduct{word}" in node.name():
                return name
        # A kernel that wants wider heads is wrapped in other operators.
        pending += [parent for parent, _ in node.next_functions]
    return "math"


def describe_attention(model: nn.Module, dtype: torch.dtype) -> str:
    """The attention kernels of a network on its device, in words, without and with padding."""
    for module in model.modules():
        if isinstance(module, SelfAttention):
            weight = module.query_norm.weight
            where = weight.device, dtype, module.heads, len(weight)
            plain = attention_backend(*where, padded=False)
            return f"{plain}; rows with padding: {attention_backend(*where, padded=True)}"
    return "none"


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory instead of returning it to the kernel after every step.

    Otherwise the kernel maps and zeroes tens of MB of activations again in each step: a step then
    takes 1.3 to 1.4 times as long on a 2-core Xeon (docs/log). Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
