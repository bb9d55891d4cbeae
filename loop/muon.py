"""Muon for matrices, many at a time (floor 1): momentum, made orthogonal by a Newton-Schulz iteration (Jordan 2024).

torch.optim.Muon does the same one matrix at a time and always in bfloat16, which some CPUs multiply at half the rate
of float32. Here matrices of one shape are one batched product, in bfloat16 where that is the faster one.
"""

import math

import torch
from torch import Tensor

from loop.distributed import divide, is_split, part, whole
from loop.hardware import fast_bfloat16

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # of Jordan's quintic: steep at 0, and 1 ± 0.3 after five rounds
SPLIT_AT_ONCE = 8  # matrices that are whole at one time where they are split: what FSDP2 saves is not spent here


def orthogonalize(matrices: Tensor, rounds: int = 5) -> Tensor:
    """(n, rows, columns) float32 -> the same with all singular values near 1."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if fast_bfloat16(matrices.device) else matrices
    if x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if matrices.shape[1] > matrices.shape[2] else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonal updates of AdamW's size (0.2·sqrt(max(rows, columns)), arXiv 2502.16982, eq. 4), weight decay."""

    def __init__(self, params, lr: float, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Where weights are split over processes (FSDP2), momentum is as well; a matrix is made whole only to be made orthogonal."""
        for group in self.param_groups:
            shapes: dict[tuple, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault((tuple(weight.shape), weight.device), []).append(weight)
            for (shape, _), weights in shapes.items():
                for weight in weights:
                    if "momentum_buffer" not in self.state[weight]:
                        self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
                buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
                torch._foreach_lerp_(
                    [part(one) for one in buffers],
                    [part(weight.grad) for weight in weights],
                    1 - group["momentum"],
                )
                torch._foreach_mul_(
                    [part(weight) for weight in weights], 1 - group["lr"] * group["weight_decay"]
                )
                at_once = SPLIT_AT_ONCE if is_split(weights[0]) else len(weights)
                for first in range(0, len(weights), at_once):
                    some = slice(first, first + at_once)
                    ahead = [
                        whole(weight.grad.lerp(buffer, group["momentum"]))
                        for weight, buffer in zip(weights[some], buffers[some], strict=True)
                    ]
                    updates = [
                        part(divide(update, weight))
                        for update, weight in zip(
                            orthogonalize(torch.stack(ahead)), weights[some], strict=True
                        )
                    ]
                    torch._foreach_add_(
                        [part(weight) for weight in weights[some]],
                        updates,
                        alpha=-0.2 * math.sqrt(max(shape)) * group["lr"],
                    )
