"""Blocks that read the patches of a clip together, before a captioner looks at them.

A frozen encoder reads each frame alone. So what happens between frames is nowhere in its features:
the captioner's few cross-attentions had to find it for each token. Here the patches of all
frames attend to each other once per clip. A patch can then say "the red circle left from here, and
nothing had happened before".

    x = enter(patches)                    x += attention(x), x += MLP(x), `patch_layers` times
    patches + leave(norm(x))              `leave` starts at zero: at first nothing changes

Places and times are codes in the features (caption/writer.py), so the blocks have no positions of
their own. The captioner's head for lengths reads the same patches, because the length of a caption
follows from the number of events. But the blocks learn from captions alone: a gradient of lengths
would cost another pass back.

Shapes: B clips, P patches of all frames, C channels of a patch, D width.
"""

import dataclasses

import torch
from torch import Tensor, nn

from base.config import ModelConfig
from model import MLP, WEIGHT_STD, CrossAttention, Denoiser, KeysValues, Norm


class PatchBlock(nn.Module):
    """Attention among the patches and an MLP, each added to the stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = Norm(config.d_model)
        self.attention = CrossAttention(config)  # of the patches to themselves
        self.mlp_norm = Norm(config.d_model)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, D) -> (B, P, D)."""
        seen = self.attention_norm(x)
        x = x + self.dropout(self.attention(seen, self.attention.keys_values(seen)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class PatchReader(nn.Module):
    """Patches (B, P, C) -> patches that know of each other, (B, P, C)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        own = dataclasses.replace(config, condition_width=config.d_model)
        self.enter = nn.Linear(config.condition_width, config.d_model, bias=False)
        self.blocks = nn.ModuleList(PatchBlock(own) for _ in range(config.patch_layers))
        self.norm = Norm(config.d_model)
        self.leave = nn.Linear(config.d_model, config.condition_width, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=WEIGHT_STD)
            elif name.endswith("gate"):
                nn.init.ones_(weight)
        nn.init.zeros_(self.leave.weight)

    def forward(self, patches: Tensor) -> Tensor:
        x = self.enter(patches)
        for block in self.blocks:
            x = block(x)
        return patches + self.leave(self.norm(x))


class PatchDenoiser(Denoiser):
    """A denoiser, or a twin, whose condition is read by a `PatchReader` first."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        # After the plain parts, which get the random numbers that they would get without it.
        self.reader = PatchReader(config)

    def keys_values(self, condition: Tensor, attend: Tensor | None = None) -> list[KeysValues]:
        """What every block reads of clips (B, P, C): once per clip, not per call."""
        assert attend is None, "patches have no padding"
        return super().keys_values(self.reader(condition))

    def length_logits(self, condition: Tensor) -> Tensor:
        """As `Denoiser.length_logits`, from patches that were read."""
        with torch.no_grad():
            read = self.reader(condition)
        return super().length_logits(read)
