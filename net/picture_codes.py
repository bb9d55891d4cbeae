"""Pictures as tokens: a convolutional autoencoder whose middle is rounded to a grid of codes.

The rounding is finite scalar quantisation (FSQ, arXiv 2309.15505). Each place of the grid has a few
numbers. Number i is squashed by a tanh, and rounded to one of levels[i] whole numbers:

    bounded = tanh(z + shift) · half - offset      half = (levels - 1)(1 - eps) / 2
    offset = 1/2 for an even number of levels, else 0      shift = atanh(offset / half)

The offset puts an even number of whole numbers into the range, and the shift keeps z = 0 at 0. The
gradient passes the rounding unchanged. A code is the number whose digits are the levels, so there
is no codebook that could be unused, and no loss for it.

Shapes: B pictures, S side in pixels, G = S / 8 side of the grid, P = G² places, K numbers per
place, J objects.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import flags
from base.errors import UserError
from base.flags import setting

STRIDE = 8  # pixels of a place of the grid: three halvings
EPS = 1e-3  # keeps tanh's limits inside the outer whole numbers
# The weight of an object in the loss; the whole background weighs 1. An object of the smallest size
# covers 2% of a picture, so without weights its loss would hardly count.
OBJECT_WEIGHT = 0.25
# The encoder repeats the outermost pixels beyond the picture: a plain background then has the same
# token at the border and inside.
Border = Literal["zeros", "replicate"]
BORDER: Border = "replicate"


@dataclass
class PictureCodesConfig:
    """The picture codes: sizes of the autoencoder."""

    side: int = setting(
        96, "side of a picture in pixels, a multiple of 8", at_least=16, at_most=512
    )
    levels: str = setting(
        "4,4,4,4,4,4", "levels of each number of a place; their product is the codes"
    )
    width: int = setting(
        128, "channels at the grid; half and a quarter of it before", at_least=16, at_most=1024
    )
    blocks: int = setting(2, "residual blocks at the grid that read tokens", at_least=1, at_most=32)
    # Without blocks, a token sees two places on each side. A block adds two more. With two blocks,
    # an object changed many tokens of the plain background, and painters had to learn these
    # tokens (docs/log/pictures.md).
    encoder_blocks: int = setting(
        0, "residual blocks at the grid that make tokens", at_least=0, at_most=32
    )

    def __post_init__(self):
        flags.check(self)
        if self.side % STRIDE or self.width % 4:
            found = f"--side {self.side} --width {self.width}"
            raise UserError(found, "multiples of 8 and of 4", "choose other sizes")
        numbers = flags.numbers("levels", self.levels)
        # Two levels have no shift: its atanh would be of a number above 1.
        if min(numbers) < 3 or math.prod(numbers) > 65_535:  # tokens are stored as uint16
            found = f"--levels {self.levels}"
            raise UserError(found, "at least 3 levels each, 65,535 codes at most", "choose others")

    @property
    def numbers(self) -> list[int]:
        """The levels as numbers."""
        return flags.numbers("levels", self.levels)

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return math.prod(self.numbers)

    @property
    def grid(self) -> int:
        """Places on a side of the grid."""
        return self.side // STRIDE


class Rounding(nn.Module):
    """Finite scalar quantisation: K real numbers to a code, and back."""

    span: Tensor
    offset: Tensor
    shift: Tensor
    scale: Tensor
    basis: Tensor
    levels: Tensor

    def __init__(self, levels: list[int]):
        super().__init__()
        sizes = torch.tensor(levels)
        half = (sizes - 1) * (1 - EPS) / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0)
        basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])
        values = {
            "levels": sizes,
            "span": half,
            "offset": offset,
            "shift": torch.atanh(offset / half),
            "scale": sizes // 2,
            "basis": basis,
        }
        for name, value in values.items():  # functions of the levels: no part of a file
            self.register_buffer(name, value, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """(..., K) real numbers -> the nearest levels, in [-1, 1]. The gradient is the tanh's."""
        bounded = torch.tanh(z + self.shift) * self.span - self.offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self.scale

    def code(self, values: Tensor) -> Tensor:
        """Levels in [-1, 1] (..., K) -> their codes (...) int64."""
        digits = (values * self.scale).round().long() + self.scale
        return (digits * self.basis).sum(-1)

    def values(self, codes: Tensor) -> Tensor:
        """The inverse of `code`: (...) int64 -> (..., K) float32."""
        digits = codes[..., None] // self.basis % self.levels
        return (digits - self.scale) / self.scale.float()


class ChannelNorm(nn.Module):
    """Each place divided by the root mean square of its channels. Other pictures play no part."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        scale = (x.square().mean(1, keepdim=True) + 1e-5).rsqrt()
        return x * scale * self.gain[:, None, None]


class Residual(nn.Module):
    """x + two convolutions of its norm; the identity before training."""

    def __init__(self, channels: int, border: Border = "zeros"):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=border)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=border)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.second(F.silu(self.first(self.norm(x))))


def halving(inputs: int, outputs: int) -> nn.Conv2d:
    """Half the side: (B, inputs, H, W) -> (B, outputs, H/2, W/2)."""
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, padding_mode=BORDER)


def doubling(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the side: (B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
    return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2))


class PictureCodes(nn.Module):
    """The autoencoder: `encode` makes tokens, `decode` makes pixels of them."""

    def __init__(self, config: PictureCodesConfig):
        super().__init__()
        self.config = config
        wide, middle, narrow = config.width, config.width // 2, config.width // 4
        K = len(config.numbers)
        self.rounding = Rounding(config.numbers)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),  # at full side, convolutions would cost most of the time
            nn.Conv2d(12, narrow, 3, padding=1, padding_mode=BORDER),
            nn.SiLU(),
            halving(narrow, middle),
            Residual(middle, BORDER),
            halving(middle, wide),
            *(Residual(wide, BORDER) for _ in range(config.encoder_blocks)),
            ChannelNorm(wide),
            nn.Conv2d(wide, K, 1),
            # Each number over many places has mean 0 and variance 1, so its levels are used from
            # the first step on. Without it, a few codes served all places, and the pictures of 150
            # steps stayed grey. In evaluation it is a fixed shift and scale.
            nn.BatchNorm2d(K, affine=False, momentum=0.05),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(K, wide, 3, padding=1),
            *(Residual(wide) for _ in range(config.blocks)),
            doubling(wide, middle),
            Residual(middle),
            doubling(middle, narrow),
            Residual(narrow),
            ChannelNorm(narrow),
            nn.Conv2d(narrow, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

        # The first pictures are grey. Random pictures cost so much that the decoder first learns to
        # ignore the codes.
        nn.init.zeros_(self.decoder[-2].weight)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        return self.rounding.basis.device

    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    def drop_encoder_blocks(self, kept: int) -> None:
        """Leave out the encoder's last blocks at the grid, so that tokens see less."""
        parts, count = list(self.encoder), self.config.encoder_blocks
        first = next(i for i, part in enumerate(parts) if isinstance(part, ChannelNorm)) - count
        self.encoder = nn.Sequential(*parts[: first + kept], *parts[first + count :])
        self.config = dataclasses.replace(self.config, encoder_blocks=kept)

    def rounded(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [0, 1] -> the rounded middle (B, G, G, K)."""
        return self.rounding(self.encoder(pixels - 0.5).permute(0, 2, 3, 1))

    def painted(self, values: Tensor) -> Tensor:
        """The middle (B, G, G, K) -> pixels (B, 3, S, S), which may leave [0, 1] a little."""
        return self.decoder(values.permute(0, 3, 1, 2)) + 0.5

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, S, S) in [0, 1] -> pixels for the loss, and tokens (B, P) int64."""
        values = self.rounded(pixels)
        return self.painted(values), self.rounding.code(values.detach()).flatten(1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) float in [0, 1] -> tokens (B, P) int64, row by row of the grid."""
        return self.rounding.code(self.rounded(pixels)).flatten(1)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, P) int64 -> pixels (B, 3, S, S) float32 in [0, 1]."""
        values = self.rounding.values(tokens).unflatten(1, (self.config.grid, self.config.grid))
        return self.painted(values).clamp(0, 1)


# ---- The loss


def pixel_weights(places: Tensor, side: int) -> Tensor:
    """The weight of each pixel in the loss: (B, 1, S, S).

    places: (B, J, 3), centre x, y and radius of each object as shares of the side; a radius of 0 is
    no object. The whole background weighs 1, and the disc of each object weighs OBJECT_WEIGHT,
    whether it is large or small. The scenes are known, so their discs need no guess from the
    pixels, and a textured background gets no weight that belongs to objects.
    """
    middle = (torch.arange(side, device=places.device) + 0.5) / side
    x, y, radius = (part[..., None, None] for part in places.unbind(-1))  # (B, J, 1, 1)
    distance = (middle[None, :] - x).square() + (middle[:, None] - y).square()  # (B, J, S, S)
    inside = (distance < radius.square()).float()
    share = inside.mean((2, 3), keepdim=True).clamp(min=1 / side**2)
    return 1 + OBJECT_WEIGHT * (inside / share).sum(1, keepdim=True)


def reconstruction_loss(found: Tensor, pixels: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """pixels: the weighted L1 distance. squares: the weighted squared distance.

    found, pixels: (B, 3, S, S). weights: (B, 1, S, S). The gradient of L1 is as large for a
    slightly wrong background as for a missing object. Squares let the objects appear first.
    """
    error = found - pixels
    return {
        "pixels": (error.abs() * weights).mean(),
        "squares": (error.square() * weights).mean(),
    }


def usage(tokens: Tensor, codes: int) -> dict[str, float]:
    """used_codes: the share of the codes that occur. perplexity: exp of the codes' entropy."""
    counts = torch.bincount(tokens.flatten(), minlength=codes).double()
    share = counts / counts.sum()
    entropy = -torch.xlogy(share, share).sum()
    return {
        "used_codes": (counts > 0).double().mean().item(),
        "perplexity": entropy.exp().item(),
    }
