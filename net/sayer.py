"""Says what a grounder sees: a small masked-diffusion captioner on the same eyes.

It reads what can be named, the things of a list or the cells of a map, through cross-attention, and
writes a sentence. Of each it reads the keys that orders are compared with, and the place. So the
sentences profit from what the eyes learn from orders, and their loss trains the eyes too.

Shapes: B images, N things or cells, L words, D width.
"""

import torch
from torch import Tensor, nn

from base.config import ModelConfig
from base.policy_config import GrounderConfig
from model import Denoiser

LONGEST = 24  # words of a sentence, [BOS] and [EOS] included


class Sayer(nn.Module):
    """A denoiser of sentences, and its view of what the eyes saw."""

    def __init__(self, config: GrounderConfig, places: int):
        super().__init__()
        width = config.width
        self.unit = config.unit if config.sees == "state" else 1.0
        self.enter = nn.Linear(config.attributes * width + places, width)
        self.writer = Denoiser(
            ModelConfig(
                vocab_size=config.sayings,
                output_size=config.sayings - 3,  # [PAD], [BOS] and [MASK] are never written
                max_length=LONGEST,
                d_model=width,
                heads=4,
                layers=config.layers,
                condition_width=width,
                length_hidden=width,
            )
        )

        for name, weight in self.writer.named_parameters():
            # A closed gate would let the words alone be learnt first (docs/log/robot.md).
            if name.endswith("cross.gate"):
                nn.init.ones_(weight)

    def view(self, keys: Tensor, places: Tensor, real: Tensor | None) -> Tensor:
        """What the writer reads: keys (B, N, J, D), places (B, N, P) -> (B, N, D).

        Rows that are no thing are zero, so cross-attention has no bias and reads nothing there.
        """
        x = self.enter(torch.cat([keys.flatten(2), places / self.unit], -1))
        return x if real is None else x * real[..., None]
