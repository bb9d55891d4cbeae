"""A quality head: how likely each revealed token is right, without masking it (arXiv 2510.01384).

To ask a denoiser whether token i of a text y is right, token i must be masked: a call per token. A
small head on the denoiser answers for all tokens in one pass:

    g_i(y) = p(x_i = y_i | all tokens of y but i, and the condition)

Training. A row x is masked at random, and the denoiser draws one masked token y_i itself. The label
is 1 if y_i = x_i, and the loss is its cross-entropy at i alone. The draw did not use x_i. So the
label's mean is p(x_i = y_i | all others), which is g_i(y). Tokens that were given have no label: it
would always be 1. With n tokens drawn per row, g is a mean of p(x_i = y_i | y without the n).

The paper shows the head the text from which the token was drawn. There the denoiser is seldom wrong
once most tokens are known, and the head learns little about finished texts. Here other masked
tokens are shown again after the draw, as true tokens. The label's mean stays the same, because the
draw used a part of what is shown. So y_i was drawn without most of its context, like the early
tokens of a sampler.

The network below the head does not change: its law and its bound stay the same bit for bit.

Writing (`recheck`). A call on the finished text says g for every token. The tokens below `doubt`
are masked, at most `doubtful` of them, the least likely first. The next call draws them again, and
in the same pass says g for the others. It ends when nothing is doubtful. The choice looks at the
written tokens, so the law of the text is no longer that of the sampler.

Shapes: B rows, L positions, D width, M selected positions, V' ids that can be written.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig, SampleConfig
from base.files import UserError
from diffusion import corrupt, mask_exactly
from model import (
    WEIGHT_STD,
    Block,
    CrossAttention,
    Denoiser,
    KeysValues,
    Norm,
    Rotary,
    real_positions,
)
from net.draws import draw_tokens

if TYPE_CHECKING:
    from net.samplers import Writing


class QualityHead(nn.Module):
    """Blocks over the denoiser's last states, then a number for each position."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.quality_layers))
        self.norm = Norm(config.d_model)
        self.verdict = nn.Linear(config.d_model, 1)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                adds_to_stream = name.endswith(("out.weight", "down.weight"))
                shrink = math.sqrt(2 * config.quality_layers) if adds_to_stream else 1.0
                nn.init.normal_(weight, std=WEIGHT_STD / shrink)
            elif name.endswith("gate"):  # nothing is learnt yet that a closed gate would protect
                nn.init.ones_(weight)

    def forward(
        self, x: Tensor, rotary: Rotary, attend: Tensor | None, condition: list[KeysValues] | None
    ) -> Tensor:
        """States (B, L, D) -> the log-odds that each token is right, (B, L) float32."""
        for number, block in enumerate(self.blocks):
            keys_values = condition[number] if condition else None
            x = block(x, rotary, attend, keys_values, None, 0)
        return self.verdict(self.norm(x))[..., 0].float()


class QualityDenoiser(Denoiser):
    """A denoiser with a quality head. As a denoiser it is the plain one, bit for bit."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        # After the plain parts, which get the random numbers that they would get without a head.
        self.quality = QualityHead(config)

    def keys_values(self, condition: Tensor, attend: Tensor | None = None) -> list[KeysValues]:
        """What the denoiser's blocks read of a condition, and then what the head's blocks read."""
        crosses = [cast(CrossAttention, block.cross) for block in self.quality.blocks]
        own = [cross.keys_values(condition, attend) for cross in crosses]
        return super().keys_values(condition, attend) + own

    def bind(
        self, lengths: Tensor | None = None, condition: list[KeysValues] | None = None
    ) -> "Checked":
        """A `diffusion.Denoise` that can also check."""
        return Checked(self, lengths, condition)


class Checked:
    """A `diffusion.Denoise` of some rows, with their lengths and condition, that can also check."""

    def __init__(
        self, model: QualityDenoiser, lengths: Tensor | None, condition: list[KeysValues] | None
    ):
        self.model, self.lengths, self.condition = model, lengths, condition

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor, /) -> Tensor:
        how = {"share": share, "select": select, "condition": self.condition}
        return self.model(tokens, lengths=self.lengths, **how)

    def check(self, tokens: Tensor, select: Tensor) -> tuple[Tensor, Tensor]:
        """One pass: logits (M, V') of the selected positions, and log-odds (B, L) of all tokens.

        tokens: (B, L) int64. Log-odds at masked positions and padding mean nothing.
        """
        model, attend = self.model, None
        x = model.trunk(tokens, self.lengths, None, self.condition, None)
        if self.lengths is not None:
            attend = real_positions(self.lengths, tokens.shape[1])
            attend = attend.repeat_interleave(len(tokens) // len(self.lengths), 0)
        own = self.condition and self.condition[model.config.layers :]
        output = model.embedding.weight[: model.config.output_size]  # (V', D)
        logits = (x[select] @ output.T).float()
        return logits, model.quality(x, model.rotary, attend, own)


# ---- Training


def freeze(model: QualityDenoiser) -> None:
    """Train the head alone: frozen weights get no gradient, and no decay either."""
    model.requires_grad_(False)
    model.quality.requires_grad_(True)


def check_training(refused: Mapping[str, bool], has_start: bool) -> None:
    """Raise UserError unless a head can be trained. refused: flags that mean nothing then."""
    if not has_start:
        raise UserError(
            "--quality_layers without --init_from",
            "a trained denoiser, which stays as it is",
            "name it with --init_from",
        )
    for flag in [flag for flag, given in refused.items() if given]:
        raise UserError(
            f"--quality_layers with {flag}", "training of the head alone", f"leave out {flag}"
        )


@dataclass
class Drawn:
    """Rows in which the denoiser drew some tokens.

    tokens: (B, L) int64, other tokens are given or [MASK]. where: (B, L) bool, the M drawn tokens.
    right: (M,) bool, whether each is the true token.
    """

    tokens: Tensor
    where: Tensor
    right: Tensor


@torch.no_grad()
def draw(
    denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    mask_id: int,
    rng: torch.Generator,
    uniform: Tensor,
    estimator: str = "count",
    reveals: int = 1,
) -> Drawn:
    """Mask rows (B, L), let the denoiser draw `reveals` of the masked tokens, show others again.

    free: (B, L) bool, what may be masked. uniform: (B,) noise levels in [0, 1). reveals: 0 means
    all masked tokens. Half of the rows are then shown whole. In the others, 0 to all of the masked
    tokens stay masked. No place depends on a token, or the labels would be biased.
    """
    rows = corrupt(free, uniform, rng, estimator)
    count = rows.masked.sum(1).cpu()
    where = mask_exactly(rows.masked, count.clamp(max=reveals) if reveals else count, rng)
    logits = denoise(tokens.masked_fill(rows.masked, mask_id), rows.share, where)  # (M, V')
    number = torch.rand(len(logits), generator=rng, dtype=torch.float64)
    token = draw_tokens(logits, number)[0]
    rest = rows.masked & ~where
    part = 2 * torch.rand(len(tokens), generator=rng, dtype=torch.float64) - 1
    stay = torch.floor(part.clamp(min=0) * (rest.sum(1).cpu() + 1)).long()
    text = tokens.masked_fill(mask_exactly(rest, stay, rng), mask_id)
    text[where] = token
    return Drawn(text, where, token == tokens[where])


def verdicts(denoise, tokens: Tensor, free: Tensor, **how) -> tuple[Tensor, Tensor]:
    """What the head says of drawn tokens: log-odds (M,), and whether each is right, (M,) bool.

    how: as `draw` takes.
    """
    drawn = draw(denoise, tokens, free, **how)
    nothing = torch.zeros_like(drawn.where)
    return denoise.check(drawn.tokens, nothing)[1][drawn.where], drawn.right


def loss(denoise, tokens: Tensor, free: Tensor, **how) -> tuple[Tensor, dict[str, float]]:
    """The head's cross-entropy in nats per drawn token, and the share that is right."""
    odds, right = verdicts(denoise, tokens, free, **how)
    value = F.binary_cross_entropy_with_logits(odds, right.float())
    return value, {"drawn_right": right.float().mean().item()}


# ---- Writing


def check(model: nn.Module, settings: SampleConfig) -> None:
    """Raise UserError if a network without a head is to recheck."""
    if settings.recheck and not isinstance(model, QualityDenoiser):
        raise UserError(
            f"--recheck {settings.recheck} with a network without a quality head",
            "a checkpoint of --quality_layers",
            "leave out --recheck, or look back with --revise",
        )


def doubted(right: Tensor, among: Tensor, settings: SampleConfig) -> Tensor:
    """The least likely tokens `among` (B, L) bool that are below the doubt: (B, L) bool.

    right: (B, L), how likely each token is right.
    """
    right = right.masked_fill(~among, torch.inf)
    rank = right.argsort(stable=True, dim=1).argsort(dim=1)
    return (rank < settings.doubtful) & (right < settings.doubt)


def recheck(writing: "Writing", free: Tensor) -> None:
    """Draw doubtful tokens of `free` (B, L) bool again, in at most `config.recheck` + 1 calls.

    The first call only says what is doubtful. The last one only draws. A row without doubt takes
    no further call. An unchanged token keeps its step and log-probability. A changed one gets new
    ones: their sum is then no longer a likelihood.
    """
    settings, denoise = writing.config, writing.denoise
    assert isinstance(denoise, Checked)
    hidden = torch.zeros_like(free)
    active = free.any(1)  # (B,)
    for number in range(settings.recheck + 1):
        if not active.any():
            break
        text = writing.tokens.masked_fill(hidden, writing.mask_id)
        logits, odds = denoise.check(text, hidden)
        writing.calls += 1
        writing.used += active
        writing.rows += active
        if hidden.any():
            writing.change(hidden, *writing.draw(logits, hidden))
        among = free & ~hidden & active[:, None]
        hidden = doubted(odds.sigmoid(), among, settings)
        if number == settings.recheck:
            break
        active = hidden.any(1)
