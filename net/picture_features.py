"""How far two pictures are apart for a network that knows shapes: a loss for picture codes.

Pixels say little about a thin stripe that is off by a pixel. The maps inside a network that was
trained to recognise things say more (arXiv 1603.08155, 1801.03924). The network here is the frozen
encoder in assets/, which captioners read. It is not the reader that judges.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from net import image_encoders


class FeatureDistance:
    """Callable: found and pixels (B, 3, S, S) in [0, 1] -> a number, 0 if they are equal.

    The mean over the encoder's maps of |difference|² / |map of pixels|². side: of a whole picture
    in pixels, which the encoder sees at its own size.
    """

    def __init__(self, side: int, device: str | torch.device):
        self.encoder = image_encoders.load_embedded(device)
        self.body: Any = self.encoder.model.body
        self.scale = self.encoder.preprocess.size / side

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """The maps inside the encoder: (B, C, h, w) each."""
        seen = F.interpolate(pixels, scale_factor=self.scale, mode="bilinear", align_corners=False)
        seen = (seen - self.encoder.mean) / self.encoder.std
        seen = seen.contiguous(memory_format=torch.channels_last)
        return list(self.body(pixel_values=seen, output_hidden_states=True).hidden_states)

    def __call__(self, found: Tensor, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.maps(pixels)
        total = found.new_zeros(())
        for own, want in zip(self.maps(found), wanted, strict=True):
            total = total + (own - want).square().mean() / want.square().mean()
        return total / len(wanted)
