"""The eyes of a grounder: what can be named in what is seen, and where it is.

    ThingEyes   a simulator's list of things
    CameraEyes  images, by a small network that learns along with the words
    FrozenEyes  images, by an encoder that was trained elsewhere and does not change

Shapes: B rows, K cameras, N things or cells of all maps, J attributes, D width, C channels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.errors import UserError
from base.policy_config import GrounderConfig
from model import Norm
from net import image_encoders

CHANNELS = 64  # of the image's map
SHRINK = 4  # pixels per cell of the map


@dataclass
class Seen:
    """What can be named: keys (B, N, J, D), places (B, N, P), and which N are real (B, N) bool."""

    keys: Tensor
    places: Tensor
    features: Tensor  # (B, N, C), or (B, N, 0) where the places are exact
    real: Tensor | None
    apart: float = 0.0  # between the places of neighbouring cells


class ThingEyes(nn.Module):
    """Reads a simulator's list of things: attributes (B, N, C) in 0 and 1, places (B, N, 3)."""

    def __init__(self, config: GrounderConfig):
        super().__init__()
        self.attributes = config.attributes
        self.keys = nn.Linear(config.kinds, config.attributes * config.width, bias=False)

    def forward(self, seen: dict[str, Tensor]) -> Seen:
        kinds, places = seen["kinds"], seen["places"]
        keys = self.keys(kinds).unflatten(-1, (self.attributes, -1))
        return Seen(keys, places, kinds[..., :0], seen["real"])


class MapEyes(nn.Module):
    """Maps of K cameras, of which each cell can be named. Children make the maps."""

    def __init__(self, config: GrounderConfig):
        super().__init__()
        self.attributes = config.attributes
        self.make_maps(config)
        self.camera = nn.Embedding(config.cameras, CHANNELS)
        self.norm = Norm(CHANNELS)
        self.keys = nn.Linear(CHANNELS, config.attributes * config.width, bias=False)

    def make_maps(self, config: GrounderConfig) -> None:
        """Build what `maps` needs."""
        raise NotImplementedError

    def maps(self, images: Tensor) -> Tensor:
        """Images (n, H, W, 3) uint8 -> (n, C, h, w)."""
        raise NotImplementedError

    def forward(self, seen: dict[str, Tensor]) -> Seen:
        images = seen["images"]  # (B, K, H, W, 3)
        B, K = images.shape[:2]
        x = self.maps(images.flatten(0, 1))  # (B·K, C, h, w)
        h, w = x.shape[-2:]
        cells = x.flatten(2).transpose(1, 2).view(B, K, h * w, CHANNELS)
        cells = self.norm(cells + self.camera.weight[:, None]).flatten(1, 2)  # (B, N, C)
        keys = self.keys(cells).unflatten(-1, (self.attributes, -1))
        places = cell_places(K, h, w, x.device).expand(B, -1, -1)
        return Seen(keys, places, cells, None, apart=cell_width(min(h, w)))


class CameraEyes(MapEyes):
    """A small network, SHRINK pixels per cell."""

    def make_maps(self, config: GrounderConfig) -> None:
        half = CHANNELS // 2
        self.layers = nn.Sequential(
            nn.Conv2d(3, half, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(half, CHANNELS, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GELU(),
        )

    def maps(self, images: Tensor) -> Tensor:
        return self.layers(images.permute(0, 3, 1, 2).float() / 127.5 - 1)


class FrozenEyes(MapEyes):
    """The patches of a frozen image encoder (net/image_encoders.py), through a linear layer.

    The encoder is no part of the weights: the checkpoint keeps its name and its key. Raises
    UserError if there is no such encoder, if it is another than the checkpoint's, or if its
    patches are no square.
    """

    def make_maps(self, config: GrounderConfig) -> None:
        encoder = image_encoders.load(config.encoder)
        if config.encoder_key not in ("", encoder.key):
            raise UserError(
                f"the encoder {config.encoder} with key {encoder.key[:12]}",
                f"{config.encoder_key[:12]}, which the grounder was trained with",
                "get the encoder of the training, or train again",
            )
        self.side = math.isqrt(encoder.patches)
        if encoder.patches - self.side**2 not in (0, 1):  # 1: [CLS], which stands first
            raise UserError(
                f"the encoder {config.encoder} with {encoder.patches} patches",
                "a square of patches",
                "choose another encoder",
            )
        # In a list, a module is no part of this module's weights.
        self.encoder = [encoder]
        self.enter = nn.Linear(encoder.width, CHANNELS)

    @property
    def encoder_key(self) -> str:
        return self.encoder[0].key

    def maps(self, images: Tensor) -> Tensor:
        encoder = self.encoder[0]
        size = encoder.preprocess.size
        x = images.permute(0, 3, 1, 2).float() / 255
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
        encoder.model.to(x.device)
        with torch.no_grad():
            x = (x - encoder.mean.to(x.device)) / encoder.std.to(x.device)
            patches = encoder.model(pixel_values=x).last_hidden_state.float()
        patches = self.enter(patches[:, -(self.side**2) :])  # (n, P, C)
        return patches.transpose(1, 2).unflatten(-1, (self.side, self.side))


def of_config(config: GrounderConfig) -> nn.Module:
    """The eyes that a configuration names."""
    if config.sees == "state":
        return ThingEyes(config)
    return FrozenEyes(config) if config.encoder else CameraEyes(config)


def cell_width(side: int) -> float:
    """How far neighbouring cells of `cell_places` are apart, `side` cells per row."""
    return 2 / max(side - 1, 1)


def around_best(scores: Tensor, places: Tensor, apart: float) -> Tensor:
    """Scores (B, Q, N) with -inf but for the best thing, or the best cell and its neighbours.

    The mean of two places is no place: half of the shares on the red cube and half on another red
    thing say a place between them. Among equal scores the first is the best. places: (B, N, P).
    """
    best = scores.argmax(-1)[..., None].expand(-1, -1, places.shape[-1])  # (B, Q, P)
    scores = scores.clamp(min=-1e4)  # all rows may have -inf, if nothing is seen
    middle = places.expand(scores.shape[0], -1, -1).gather(1, best)
    distance = (places[:, None] - middle[:, :, None]).abs().amax(-1)  # (B, Q, N)
    return scores.masked_fill(distance > 1.5 * apart, -torch.inf)


def cell_places(cameras: int, h: int, w: int, device) -> Tensor:
    """(1, K·h·w, 2 + K): the cell's centre in -1 .. 1, and which camera it is of."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, h, device=device),
        torch.linspace(-1, 1, w, device=device),
        indexing="ij",
    )
    grid = torch.stack([x, y], -1).flatten(0, 1).repeat(cameras, 1)
    which = torch.eye(cameras, device=device).repeat_interleave(h * w, 0)
    return torch.cat([grid, which], -1)[None]
