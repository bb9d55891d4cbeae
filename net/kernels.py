"""Fused kernels: one pass over memory in place of several. Nothing uses them without `--kernels`.

Three parts, each with a plain form in torch:

    draw_rows      From logits (M, V') to tokens: temperature, top-p, the draw, its log-probability,
                   and how sure the model is. The rule and the numbers of net/draws.py, in float64.
    norm_rotary    QK-norm and rotary positions of model.py, forward and backward.
    linear_losses  -log p of the masked tokens without all logits at once, by torch's own
                   `linear_cross_entropy` (torch 2.13). Older versions of torch take the plain form.

The first two are written in Triton (net/triton_kernels.py) and are operators of torch, so
torch.compile and autograd know them. Without Triton, and for tensors on a CPU, the operators
compute their plain forms. A user who asks for kernels there is refused: nothing would be faster.

No GPU has run the kernels yet. The tests run them on a CPU in Triton's interpreter.

Shapes: M rows, V' ids that can be written, D width, B, L, H and head as in model.py.
"""

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.files import UserError
from model import Denoiser, KeysValues, Norm, Rotary
from net import draws

HELP = "fused kernels, which need a GPU and Triton (net/kernels.py)"
# Rows of logits at once, where only their largest is wanted: 64 MB at 8,192 ids.
ROWS_AT_ONCE = 2048


@functools.cache
def triton_code() -> ModuleType | None:
    """net/triton_kernels.py, or None without Triton."""
    if importlib.util.find_spec("triton") is None:
        return None
    from net import triton_kernels  # importing Triton takes time, so only who needs it does

    return triton_kernels


def code_for(device: torch.device) -> ModuleType | None:
    """The Triton code that can run on this device, or None: then the plain forms compute."""
    code = triton_code()
    if code is None or not (device.type == "cuda" or code.INTERPRETED):
        return None
    return code


# ---- The draw


@torch.library.custom_op("diffusion_llm::draw_rows", mutates_args=())
def draw_rows(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw a token per row: the fields of `draws.Drawn`, (M,) each.

    logits: (M, V') float32. uniform: (M,) float64 in [0, 1), on the same device.
    Each number is read once from memory, and no float64 copy of the logits is written. All
    arithmetic is float64. Raises TypeError for logits of another type.
    """
    if logits.dtype != torch.float32:
        raise TypeError(f"logits of {logits.dtype}; the kernel reads float32")
    code = code_for(logits.device)
    if code is None:
        return draw_rows_plainly(logits, uniform, temperature, top_p)
    return code.draw_rows(code.side_by_side(logits), uniform, temperature, top_p)


def draw_rows_plainly(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`draw_rows` in plain torch."""
    token, log_prob = draws.draw_plainly(logits, uniform, temperature, top_p)
    largest = draws.certainty_plainly(logits, "confidence")
    margin = draws.certainty_plainly(logits, "margin")
    return token, log_prob, largest, margin, -draws.certainty_plainly(logits, "entropy")


@draw_rows.register_fake
def _(logits: Tensor, uniform: Tensor, temperature: float, top_p: float):
    token = uniform.new_empty(uniform.shape, dtype=torch.long)
    figures = [uniform.new_empty(uniform.shape, dtype=torch.float32) for _ in range(3)]
    return token, torch.empty_like(uniform), figures[0], figures[1], figures[2]


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> draws.Drawn:
    """`draw_rows` as the samplers take it: `uniform` may be on the CPU."""
    return draws.Drawn(*draw_rows(logits, uniform.to(logits.device), temperature, top_p))


# ---- QK-norm and rotary positions


@torch.library.custom_op("diffusion_llm::norm_rotary", mutates_args=())
def norm_rotary(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float) -> Tensor:
    """RMSNorm over each head, times a weight, then rotary positions: (B, H, L, head), like x.

    weight: (head,) float32. cos, sin: (L, head) float32, of these L positions. The arithmetic is
    float32 and is rounded once; float64 stays float64. The plain form rounds bfloat16 three times.
    """
    code = code_for(x.device)
    if code is None:
        # An operator's result has the layout that its fake tells: that of x.
        return torch.empty_like(x).copy_(norm_rotary_plainly(x, weight, cos, sin, epsilon))
    return code.norm_rotary(x, weight, cos, sin, epsilon)


def norm_rotary_plainly(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float
) -> Tensor:
    """`norm_rotary` as model.py computes it."""
    x = F.rms_norm(x, weight.shape, weight.to(x.dtype), epsilon)
    return x * cos.to(x.dtype) + x.roll(x.shape[-1] // 2, -1) * sin.to(x.dtype)


@norm_rotary.register_fake
def _(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float):
    return torch.empty_like(x)


@torch.library.custom_op("diffusion_llm::norm_rotary_backward", mutates_args=())
def norm_rotary_backward(
    grad: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The gradients of x, (B, H, L, head), and of weight, (head,), from that of the output."""
    code = code_for(x.device)
    if code is None:
        return norm_rotary_backward_plainly(grad, x, weight, cos, sin, epsilon)
    return code.norm_rotary_backward(grad, x, weight, cos, sin, epsilon)


def norm_rotary_backward_plainly(
    grad: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """`norm_rotary_backward` in plain torch, with the derivative written out."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = torch.empty_like(x)
    grad, x, scale = grad.to(wide), x.to(wide), weight.to(wide)
    # A turn by half a head is its own inverse, so the gradient comes back by the same roll.
    grad = grad * cos.to(wide) + (grad * sin.to(wide)).roll(x.shape[-1] // 2, -1)
    shrink = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    unit = x * shrink
    along = (grad * scale * unit).mean(-1, keepdim=True)
    out.copy_(shrink * (grad * scale - unit * along))
    return out, (grad * unit).sum((0, 1, 2)).to(weight.dtype)


@norm_rotary_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float):
    return torch.empty_like(x), torch.empty_like(weight)


def keep_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    """Keep what the gradients need: the inputs alone."""
    *tensors, ctx.epsilon = inputs
    ctx.save_for_backward(*tensors)


def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs of `norm_rotary`; cos, sin and epsilon have none."""
    grad_x, grad_weight = norm_rotary_backward(grad, *ctx.saved_tensors, ctx.epsilon)
    return grad_x, grad_weight, None, None, None


norm_rotary.register_autograd(backward, setup_context=keep_for_backward)


class FusedRotary(Rotary):
    """Rotary positions that take the norm before them into the same pass."""

    def __init__(self, plain: Rotary):
        nn.Module.__init__(self)
        # The tables are those of the plain module, and stay out of checkpoints too.
        self.register_buffer("cos", plain.cos, persistent=False)
        self.register_buffer("sin", plain.sin, persistent=False)

    def forward(self, x: Tensor, where: slice | Tensor, norm: Norm | None = None) -> Tensor:
        """As `Rotary.forward`."""
        if norm is None:
            return super().forward(x, where)
        assert norm.eps is not None
        return norm_rotary(x, norm.weight, self.cos[where], self.sin[where], norm.eps)


# ---- Losses without all logits at once


def linear_losses(x: Tensor, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """-log p of each target, (M,) float32 with gradient, and whether it is the likeliest, (M,).

    x: (M, D). output: (V', D). target: (M,) int64. The logits are x @ output.T.
    Under autocast the products have its type, and so has the loss of a token before it is summed.
    """
    if not hasattr(F, "linear_cross_entropy"):
        return linear_losses_plainly(x, output, target)
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, output = x.to(dtype), output.to(dtype)
    nats = F.linear_cross_entropy(
        x, output, target, reduction="none", options=nn.LinearCrossEntropyOptions()
    )
    return nats.float(), likeliest(x, output) == target


def linear_losses_plainly(x: Tensor, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """`linear_losses` with all logits at once, as diffusion.py computes it."""
    logits = (x @ output.T).float()
    nats = F.cross_entropy(logits, target, reduction="none")
    return nats, logits.detach().argmax(-1) == target


@torch.no_grad()
def likeliest(x: Tensor, output: Tensor) -> Tensor:
    """The id of each row's largest logit: (M,) int64. It costs the product once more."""
    parts = [(rows @ output.T).argmax(-1) for rows in x.split(ROWS_AT_ONCE)]
    return torch.cat(parts)


class Chunked:
    """A `diffusion.Denoise` of some rows that can also compute losses, chunk by chunk."""

    def __init__(
        self,
        model: Denoiser,
        lengths: Tensor | None = None,
        condition: list[KeysValues] | None = None,
    ):
        self.model, self.lengths, self.condition = model, lengths, condition

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor, /) -> Tensor:
        how = {"share": share, "select": select, "condition": self.condition}
        return self.model(tokens, lengths=self.lengths, **how)

    def losses(
        self, tokens: Tensor, share: Tensor | None, select: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`linear_losses` of the M selected positions, whose tokens are target (M,)."""
        model = self.model
        x = model.trunk(tokens, self.lengths, share, self.condition, None)  # (B, L, D)
        output = model.embedding.weight[: model.config.output_size]
        return linear_losses(model.outputs(x, select), output, target)


# ---- The switch


def check(device: torch.device) -> None:
    """Raise UserError if the kernels cannot run on this device."""
    if triton_code() is None:
        raise UserError(
            "--kernels without Triton",
            "the package triton, which torch for NVIDIA GPUs on Linux brings along",
            "leave out --kernels, or install requirements-extra.txt",
        )
    if code_for(device) is None:
        raise UserError(
            f"--kernels on the device {device}",
            "a GPU that Triton knows",
            "leave out --kernels, or set TRITON_INTERPRET=1 to try them slowly on a CPU",
        )


def say(text: str) -> None:
    """Print a line where no results are printed."""
    print(text, file=sys.stderr)


@contextlib.contextmanager
def use(model: Any, wanted: bool, say: Callable[[str], None] = say) -> Iterator[None]:
    """Run the body with the kernels, if they are wanted: in this network, and in all draws.

    Speculation and uniform noise draw from distributions of their own, which stay plain.
    say: prints what is used. Raises UserError as `check` does.
    """
    if not wanted:
        yield
        return
    check(model.device)
    own = (
        "torch's own" if hasattr(F, "linear_cross_entropy") else "plain, since this torch has none"
    )
    say(f"kernels: draws, QK-norm with rotary; linear cross-entropy: {own}")
    plain = model.rotary
    model.rotary = FusedRotary(plain)
    token = draws.one_pass.set(draw)
    try:
        yield
    finally:
        draws.one_pass.reset(token)
        model.rotary = plain


def are_used(model: object) -> bool:
    """Whether the losses of this network are computed in chunks: a plain denoiser or twin."""
    # Others, such as painters, change the logits behind the output matrix.
    return draws.one_pass.get() is not None and type(model) is Denoiser
