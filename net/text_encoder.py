"""A text as the condition of a denoiser: an encoder of its own, read through cross-attention (floor 1).

The encoder is the denoiser's embedding and copies of its first blocks, so it understands text from the start. The gates
of the cross-attention start at 0: before the first step the model is the denoiser it was made of, bit for bit. Without
a condition it always is.
"""

import dataclasses

import torch
from torch import Tensor, nn

from base.config import ModelConfig
from model import Block, Denoiser, Norm


class TextConditioned(Denoiser):
    """A denoiser with cross-attention, and the encoder of what it attends to."""

    def __init__(self, config: ModelConfig, encoder_layers: int):
        super().__init__(dataclasses.replace(config, condition_width=config.d_model))
        self.length_head = (
            None  # lengths come from the training pairs' histogram, for both ways of conditioning
        )
        bare = dataclasses.replace(config, condition_width=0)
        self.encoder = nn.ModuleDict(
            {
                "layers": nn.ModuleList(Block(bare) for _ in range(encoder_layers)),
                "norm": Norm(config.d_model),
            }
        )

    def start_from(self, denoiser: Denoiser) -> None:
        """Take over a trained denoiser whole, and its first blocks once more as the encoder."""
        self.load_state_dict(denoiser.state_dict(), strict=False)
        for mine, theirs in zip(self.encoder["layers"], denoiser.blocks, strict=False):
            mine.load_state_dict(theirs.state_dict())
        self.encoder["norm"].load_state_dict(denoiser.norm.state_dict())

    def new_parts(self) -> list[nn.Parameter]:
        """What the denoiser did not have: the encoder and the cross-attention."""
        return [
            weight
            for name, weight in self.named_parameters()
            if name.startswith("encoder.") or ".cross" in name
        ]

    def read(
        self, tokens: Tensor, lengths: Tensor | None = None, kept: Tensor | None = None
    ) -> list:
        """Keys and values of every block for the condition: read once per prompt, whatever the number of steps.

        tokens: (B, P) int64. lengths: (B,) real tokens; what lies behind is padding and not attended to. kept: (B,) bool,
        False where the condition is dropped: all zeros, to which attention adds nothing, since there are no biases.
        """
        attend = None
        if lengths is not None and int(lengths.min()) < tokens.shape[1]:
            attend = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None])[
                :, None, None
            ]  # (B, 1, 1, P)
        x = self.embedding(tokens)  # (B, P, D)
        for layer, block in enumerate(self.encoder["layers"]):
            x = block(x, self.rotary, attend, None, None, layer)
        x = self.encoder["norm"](x)
        return self.keys_values(x if kept is None else x * kept[:, None, None], attend)
