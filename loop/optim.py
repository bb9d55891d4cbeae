"""The optimizers, AdamW and Muon, and the learning rate of a step.

`--optimizer adamw` trains all weights by AdamW. `muon` trains the matrices inside the blocks by
Muon, and the rest by AdamW.

Muon keeps a momentum and makes it orthogonal by a Newton-Schulz iteration (Jordan 2024).
torch.optim.Muon does the same for one matrix at a time and always in bfloat16, which some CPUs
multiply at half the rate of float32. Here all matrices of one shape are one batched product, in
bfloat16 only where it is faster.
"""

import math
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from base.config import TrainConfig
from loop.distributed import is_split, local, split_like, whole
from loop.hardware import fast_bfloat16

# a, b, c of each round: the odd quintics a·s + b·s³ + c·s⁵ that are nearest to 1 in the worst case,
# each on the interval that the round before it leaves (arXiv 2505.16932, section 3). They bring all
# s in [0.002, 1] within 1 ± 0.33, as Jordan's five equal rounds do. Three rounds for [0.01, 1] were
# too few: 95.2% of captions were true in place of 98.4% (docs/log/captions.md). Four digits
# are too few, because each round starts where the one before ends.
MINIMAX = (
    (8.426788, -24.936134, 18.492493),
    (4.111647, -3.059130, 0.574954),
    (3.714570, -2.778125, 0.542939),
    (2.781950, -2.074927, 0.463501),
)
# Beyond its interval a quintic grows fast, and rounding to bfloat16 moves values beyond it. Without
# a margin values reached millions, and a twin learnt word frequencies alone (docs/log/scaling.md).
# So each round but the last reads its values 3% smaller than they are. The least becomes 0.63.
MARGIN = 1.03


def with_margin(rounds: tuple[tuple[float, float, float], ...]) -> list[tuple[float, ...]]:
    """Each round for s / MARGIN, but the last for s: no round follows it."""
    early = [(a / MARGIN, b / MARGIN**3, c / MARGIN**5) for a, b, c in rounds[:-1]]
    return [*early, rounds[-1]]


ROUNDS = with_margin(MINIMAX)
# Split matrices that are whole at one time. FSDP2 saves memory, which a full stack of them would
# spend.
SPLIT_AT_ONCE = 8
# Parameters of a transformer's blocks, whatever the model calls the list of its blocks.
INSIDE_BLOCKS = re.compile(r"(^|\.)(blocks|layers)\.\d+\.")
# Kernels of an autoencoder of pictures. On 6,400 pictures, Muon learnt colours that AdamW did not
# learn on 40,000 (docs/log/pictures.md).
KERNELS = re.compile(r"^(encoder|decoder)\.\d+\.")


def learning_rate(step: int, cfg: TrainConfig) -> float:
    """Share of the peak at `step`, counted from 0: a linear warm-up, then a cosine.

    The cosine ends at cfg.final_learning_rate, which is a share of the peak too.
    """
    if step < cfg.warmup_steps:
        return (step + 1) / cfg.warmup_steps
    done = min(1.0, (step - cfg.warmup_steps) / max(1, cfg.max_steps - cfg.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return cfg.final_learning_rate + (1 - cfg.final_learning_rate) * cosine


def set_learning_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    """Give every group of every optimizer this learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def make_optimizers(model: nn.Module, cfg: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, or Muon for the blocks' matrices and kernels, AdamW for the rest.

    Updates of both have the same size (`Muon`), so one learning rate serves both.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    inside: list[nn.Parameter] = []
    outside: list[nn.Parameter] = []
    for name, weight in trained:
        # Two thin matrices make an adapter: equal singular values of each mean nothing for both.
        is_matrix = weight.ndim == 2 and INSIDE_BLOCKS.search(name) and ".lora_" not in name
        is_kernel = weight.ndim == 4 and KERNELS.search(name)
        (inside if is_matrix or is_kernel else outside).append(weight)
    if cfg.optimizer == "adamw" or not inside:
        return [make_adamw(inside + outside, cfg)]
    muon = Muon(inside, lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
    return [make_adamw(outside, cfg), muon]


def make_adamw(weights: list[nn.Parameter], cfg: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: a norm's gain or a scale has no reason to be near 0."""
    matrices = [weight for weight in weights if weight.ndim >= 2]
    vectors = [weight for weight in weights if weight.ndim < 2]
    groups = []
    if matrices:
        groups.append({"params": matrices, "weight_decay": cfg.weight_decay})
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=cfg.learning_rate, betas=(0.9, cfg.beta2))


def orthogonalize(matrices: Tensor) -> Tensor:
    """(n, rows, columns) float32 -> the same shape and type with all singular values near 1.

    Singular values below 0.002 of the scale stay smaller.
    """
    x = matrices.bfloat16() if fast_bfloat16(matrices.device) else matrices
    is_tall = matrices.shape[1] > matrices.shape[2]
    if is_tall:
        x = x.mT  # the product x xᵀ below is then the smaller of the two
    gram = x @ x.mT
    # The sum of s⁴ bounds the largest s more tightly than the sum of s² does: on random matrices of
    # 160 × 160 the values are then 3 times as large, which is worth a round.
    square = gram.norm(dim=(1, 2), keepdim=True).clamp(min=1e-14)
    x, gram = x / square.sqrt(), gram / square
    for number, (a, b, c) in enumerate(ROUNDS):
        if number:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonal updates, decoupled weight decay.

    An update is scaled by 0.2·sqrt(max(rows, columns)), which gives it the size of an AdamW update
    (arXiv 2502.16982, eq. 4). A convolution's kernel (outputs, inputs, height, width) is the matrix
    of its outputs by all else.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient, those of one shape and device together.

        Where weights are split over processes (FSDP2), the momentum is split too.
        A matrix is whole only while it is made orthogonal.
        """
        for group in self.param_groups:
            alike: dict[tuple, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault((tuple(weight.shape), weight.device), []).append(weight)
            for weights in alike.values():
                self.update(weights, group)

    def update(self, weights: list[nn.Parameter], group: dict) -> None:
        """One step of weights of one shape: momentum, decay, then the orthogonal update."""
        buffers = [self.momentum_of(weight) for weight in weights]
        torch._foreach_lerp_(
            [local(buffer) for buffer in buffers],
            [local(weight.grad) for weight in weights],
            1 - group["momentum"],
        )
        torch._foreach_mul_(
            [local(weight) for weight in weights], 1 - group["lr"] * group["weight_decay"]
        )
        rows = len(weights[0])
        size = -0.2 * math.sqrt(max(rows, weights[0].numel() // rows)) * group["lr"]
        at_once = SPLIT_AT_ONCE if is_split(weights[0]) else len(weights)
        for first in range(0, len(weights), at_once):
            few = weights[first : first + at_once]
            ahead = []  # Nesterov: the gradient, moved towards the momentum
            for weight, buffer in zip(few, buffers[first : first + at_once], strict=True):
                assert weight.grad is not None  # `step` leaves the others out
                ahead.append(whole(weight.grad.lerp(buffer, group["momentum"])).flatten(1))
            updates = []
            for update, weight in zip(orthogonalize(torch.stack(ahead)), few, strict=True):
                updates.append(local(split_like(update.reshape(weight.shape), weight)))
            torch._foreach_add_([local(weight) for weight in few], updates, alpha=size)

    def momentum_of(self, weight: nn.Parameter) -> Tensor:
        """The momentum of a weight, zeros before its first step."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]
