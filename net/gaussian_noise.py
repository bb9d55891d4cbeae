"""Gaussian noise on codes: each token w has a code e(w), d numbers of length 1, which is noised.

    z_t = alpha e(w) + sigma eps      alpha² + sigma² = 1      SNR = alpha² / sigma² = exp(-gamma)

gamma rises linearly with t from QUIET, where z tells the token, to LOUD, where it tells nothing.
The network reads z in place of the token, is told t, and says what the token is (Diffusion-LM,
arXiv 2205.14217; Plaid, arXiv 2305.18619).

As with other noise there are two read-outs, and the network's logits are the leave-one-out:

    posterior = softmax(leave-one-out logits + alpha / sigma² <z, e(w)>)

All codes have the same length, so the rest of the Gaussian's exponent is the same for all tokens.
The guess of a code is its mean under the posterior, e^ = sum over w of p(w | z) e(w).

The bound of a token in continuous time is (VDM, arXiv 2107.00630; Plaid):

    KL(q(z_1 | w) || N(0, I)) + 1/2 ∫ gamma' SNR E |e(w) - e^(z_t)|² dt + E -log p(w | z_0)

p(w | z_0) is the network's posterior at t = 0. In T steps, with s the level before t, the integral
becomes the sum of 1/2 (SNR(s) - SNR(t)) E |e(w) - e^(z_t)|². That is the bound of the sampler in
net/gaussian_writing.py; it falls to the integral while T grows. Without the weights, the squared
error is no bound of anything. For a perfect network the bound is the entropy, and
KL(q(z_1) || N(0, I)), which is below 1e-3 nats per token.

Codes are trained inside the bound. Their length is fixed, so they can neither collapse nor grow.

Shapes: B rows, L positions, M free positions of all rows, V ids, d numbers of a code, D width.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig
from diffusion import levels_by_row, stratified, sum_by_row
from model import WEIGHT_STD, Denoiser
from net.token_noise import PIECE, at_places

QUIET, LOUD = -5.0, 7.0  # gamma at t = 0 and at t = 1
# The share of rows that pay -log p(w | z_0). The others pay for a level of the integral.
RECONSTRUCTED = 1 / 8


class GaussianDenoise(Protocol):
    """tokens (B, L) int64, z (B, L, d), level (B,), select (B, L) bool -> logits (M, V).

    Where z is noise, `tokens` holds [MASK]. Elsewhere tokens are given, and z is 0.
    """

    def __call__(self, tokens: Tensor, z: Tensor, level: Tensor, select: Tensor, /) -> Tensor: ...


# ---- Noise


def gamma(level: Tensor) -> Tensor:
    """-log SNR at the levels t, float64."""
    return QUIET + (LOUD - QUIET) * level.double()


def scales(level: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at the levels t, float64."""
    g = gamma(level)
    return torch.sigmoid(-g).sqrt(), torch.sigmoid(g).sqrt()


def prior_nats(width: int) -> float:
    """KL(q(z_1 | w) || N(0, I)), the same for each token. width: d."""
    alpha2 = 1 / (1 + math.exp(LOUD))
    return 0.5 * (alpha2 - width * alpha2 - width * math.log1p(-alpha2))


def corrupt(
    codes: Tensor, tokens: Tensor, free: Tensor, level: Tensor, rng: torch.Generator
) -> Tensor:
    """z (B, L, d): noise on the codes (V, d) of the free tokens, 0 elsewhere. level: (B,) CPU."""
    # Drawn on the CPU, so that a GPU trains on the same noise.
    noise = torch.randn(*free.shape, codes.shape[-1], generator=rng).to(codes.device)
    alpha, sigma = (at_places(part, free)[:, None].to(codes.dtype) for part in scales(level))
    places = alpha * codes[tokens[free]] + sigma * noise[free].to(codes.dtype)
    empty = torch.zeros(noise.shape, dtype=codes.dtype, device=codes.device)
    return empty.masked_scatter(free[..., None], places)


# ---- The read-out


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the type of a. Under autocast, bfloat16 would round evidence of 100 nats by 0.5."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.to(a.dtype)


def to_posterior(logits: Tensor, codes: Tensor, z: Tensor, level: Tensor) -> Tensor:
    """Leave-one-out logits (M, V) -> posterior logits. z: (M, d). level: (M,)."""
    alpha, sigma = scales(level)
    weight = (alpha / sigma.square()).to(z.dtype)[:, None]
    return logits + product(weight * z, codes.T)


def squared_errors(read: Tensor, codes: Tensor, clean: Tensor) -> Tensor:
    """|e(w) - e^|² of posterior logits (M, V) and clean tokens (M,): (M,), with gradient."""
    guess = product(read.softmax(-1), codes)
    return (codes[clean].to(read.dtype) - guess).square().sum(-1)


# ---- The bound


def split_levels(uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Levels (B,) from numbers u in [0, 1), and which rows reconstruct, at level 0: (B,) bool."""
    rebuilt = uniform < RECONSTRUCTED
    level = (uniform - RECONSTRUCTED) / (1 - RECONSTRUCTED)
    return level.clamp(min=0.0), rebuilt


def place_losses(
    codes: Tensor, logits: Tensor, clean: Tensor, z: Tensor, level: Tensor, rebuilt: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each place the bound's estimate, -log of the posterior, and whether it is right: (M,).

    logits: (M, V), leave-one-out. clean: (M,) tokens. z: (M, d). level: (M,) float64. rebuilt:
    (M,) bool, of `split_levels`.
    """
    read = to_posterior(logits, codes, z, level)
    nats = F.cross_entropy(read, clean, reduction="none")
    # gamma' SNR / 2
    weight = 0.5 * (LOUD - QUIET) * torch.exp(-gamma(level))
    integrand = weight.to(read.dtype) * squared_errors(read, codes, clean)
    both = torch.where(rebuilt, nats / RECONSTRUCTED, integrand / (1 - RECONSTRUCTED))
    return both + prior_nats(codes.shape[-1]), nats, read.detach().argmax(-1) == clean


def loss(
    denoise: GaussianDenoise,
    codes: Tensor,
    tokens: Tensor,
    free: Tensor,
    *,
    mask_id: int,
    rng: torch.Generator,
    weight: str = "bound",
    uniform: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """What training minimises, in nats per free token, and plain floats to report.

    tokens: (B, L) int64. free: (B, L) bool. codes: (V, d). weight: `bound` is the bound; `flat` is
    the plain cross-entropy of the posterior read-out, for optimising only. uniform: (B,) numbers
    in [0, 1), such as a slice of one `stratified` draw; None draws them here.
    Reports `nats_per_token` (the bound), `posterior_cross_entropy` and `posterior_accuracy`.
    Raises ValueError for another weight.
    """
    if weight not in ("bound", "flat"):
        raise ValueError(f"weight {weight}")
    if uniform is None:
        uniform = stratified(len(tokens), rng)
    level, rebuilt = split_levels(uniform)
    z = corrupt(codes, tokens, free, level, rng)
    logits = denoise(tokens.masked_fill(free, mask_id), z, level.to(tokens.device), free)
    rows = at_places(rebuilt, free)
    bounds, nats, hits = place_losses(
        codes, logits, tokens[free], z[free], at_places(level, free), rows
    )
    bound = bounds.mean()
    # Guesses are counted at levels of the integral, which are uniform.
    counted = max(1, int((~rows).sum()))
    flat = nats.masked_fill(rows, 0.0).sum() / counted
    return {"bound": bound, "flat": flat}[weight], {
        "nats_per_token": bound.item(),
        "posterior_cross_entropy": flat.item(),
        "posterior_accuracy": (hits & ~rows).sum().item() / counted,
    }


@torch.no_grad()
def bound_estimates(
    denoise: GaussianDenoise,
    codes: Tensor,
    tokens: Tensor,
    free: Tensor,
    *,
    mask_id: int,
    rng: torch.Generator,
    draws: int = 8,
) -> list[dict[str, Tensor]]:
    """`draws` estimates of every row's bound, with stratified levels in each row.

    Returns a dict per draw, as `diffusion.bound_estimates`. Every free token is guessed, by the
    posterior read-out; a row that reconstructs counts no guesses.
    """
    estimates = []
    for uniform in levels_by_row(len(tokens), draws, rng):
        level, rebuilt = split_levels(uniform)
        z = corrupt(codes, tokens, free, level, rng)
        logits = denoise(tokens.masked_fill(free, mask_id), z, level.to(tokens.device), free)
        table = (
            logits,
            tokens[free],
            z[free],
            at_places(level, free),
            at_places(rebuilt, free),
        )
        parts = [
            place_losses(codes, *piece)
            for piece in zip(*(part.split(PIECE) for part in table), strict=True)
        ]
        nats, cross_entropy, hits = (torch.cat(part) for part in zip(*parts, strict=True))
        counts = (~rebuilt).double() / (1 - RECONSTRUCTED)
        estimate = {
            "nats": sum_by_row(nats, free),
            "share": level,
            "masked": free.sum(1).cpu() * counts,
            "cross_entropy": sum_by_row(cross_entropy, free) * counts,
            "hits": sum_by_row(hits, free) * counts,
        }
        estimates.append(estimate)
    return estimates


# ---- The network


class GaussianDenoiser(Denoiser):
    """A denoiser that reads z next to the [MASK]s of its places, and the codes of its tokens."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.code = nn.Embedding(config.output_size, config.code_width)
        self.read = nn.Linear(config.code_width, config.d_model, bias=False)
        nn.init.normal_(self.code.weight, std=config.code_width**-0.5)  # lengths near 1
        nn.init.normal_(self.read.weight, std=WEIGHT_STD)

    def codes(self) -> Tensor:
        """The codes of all ids that can be written, of length 1: (V, d)."""
        return F.normalize(self.code.weight, dim=-1)

    def reading(self, lengths: Tensor | None = None) -> GaussianDenoise:
        """The network as a function of the given tokens and of z."""

        def denoise(tokens: Tensor, z: Tensor, level: Tensor, select: Tensor) -> Tensor:
            alpha, sigma = scales(level)
            # The root mean square of z's numbers, for numbers near 1.
            size = (alpha.square() / z.shape[-1] + sigma.square()).sqrt()
            seen = self.read(z / size.to(z.dtype)[:, None, None])
            inputs = self.embedding(tokens) + seen
            return self(tokens, share=level, lengths=lengths, select=select, inputs=inputs)

        return denoise

    def bind(self, lengths=None, condition=None):
        """No `diffusion.Denoise`: this network reads noise, not [MASK]s alone."""
        raise TypeError("a network of Gaussian noise is bound by `reading`")
