"""A frozen image encoder that reads clips: the features of each frame, pooled, frame after frame.

Pixels (B, T, S, S, 3) become features (B, T·P, width), where P is at most 16 patches per frame. A
frame with 8 × 8 patches is averaged 2 × 2. A [CLS] token is left out: it stands at no place.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from base import files
from net import image_encoders
from net.image_encoders import Encoder

SIDE = 4  # patches of a frame, in each direction, at most


class FrameEncoder:
    """An encoder of clips of `frames` frames, with the attributes of `image_encoders.Encoder`.

    patches: of a whole clip, T·P. key: tells clips from images, although the weights are the same.
    """

    def __init__(self, encoder: Encoder, frames: int):
        self.encoder = encoder
        self.frames = frames
        self.name, self.width = encoder.name, encoder.width
        self.preprocess, self.device = encoder.preprocess, encoder.device
        self.key = files.sha256(f"{encoder.key} frames={frames} side={SIDE}".encode())
        self.blank = np.zeros((1, frames, *encoder.blank.shape[1:]), np.uint8)
        self.patches = frames * pool(torch.zeros(1, encoder.patches, 1)).shape[1]

    def encode(self, pixels: np.ndarray) -> Tensor:
        """Pixels (B, T, size, size, 3) uint8 -> features (B, T·P, width) float32."""
        features = self.encoder.encode(pixels.reshape(-1, *pixels.shape[2:]))  # (B·T, P', width)
        return pool(features).reshape(len(pixels), -1, self.width)

    def features(self, clips: list) -> Tensor:
        """Clips, each a list of T images -> features (B, T·P, width) float32.

        They are rounded to float16 as a features file is.
        """
        pixels = np.stack([[self.preprocess(image) for image in clip] for clip in clips])
        return self.encode(pixels).half().float()


AnyEncoder = Encoder | FrameEncoder


def pool(features: Tensor) -> Tensor:
    """Features of images (B, P', width) -> (B, P, width), P at most 16: means of neighbours.

    Where the sides do not divide, the regions overlap, as `adaptive_avg_pool2d` has them.
    """
    side = math.isqrt(features.shape[1])
    grid = features[:, features.shape[1] - side * side :]  # without [CLS]
    if side <= SIDE:
        return grid
    grid = grid.transpose(1, 2).unflatten(2, (side, side))  # (B, width, side, side)
    return F.adaptive_avg_pool2d(grid, SIDE).flatten(2).transpose(1, 2)


def load(name: str, frames: int = 1, device="cpu") -> AnyEncoder:
    """The encoder of this name, for images or, with several frames, for clips."""
    encoder = image_encoders.load(name, device)
    return encoder if frames == 1 else FrameEncoder(encoder, frames)
