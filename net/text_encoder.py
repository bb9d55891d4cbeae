"""A text as the condition of a denoiser: an encoder that the denoiser reads by cross-attention.

The encoder is the denoiser's embedding and copies of its first blocks, so it understands text from
the start. The gates of the cross-attention start at 0. Before the first training step the model is
therefore the denoiser that it was made from, bit for bit; without a condition it always is.
"""

import dataclasses
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from base.config import ModelConfig
from model import Block, Denoiser, KeysValues, Norm, real_positions
from net.experts import refuse


class TextConditioned(Denoiser):
    """A denoiser with cross-attention, and the encoder of the text that it attends to."""

    def __init__(self, config: ModelConfig, encoder_layers: int):
        refuse(config, "--form cross", "name another --denoiser")
        super().__init__(dataclasses.replace(config, condition_width=config.d_model))
        self.length_head = None  # lengths come from the training pairs' histogram
        without_condition = dataclasses.replace(config, condition_width=0)
        layers = nn.ModuleList(Block(without_condition) for _ in range(encoder_layers))
        self.encoder = nn.ModuleDict({"layers": layers, "norm": Norm(config.d_model)})

    def encoder_blocks(self) -> Iterable[Block]:
        """The encoder's blocks, first to last."""
        return cast(Iterable[Block], self.encoder["layers"])

    def start_from(self, denoiser: Denoiser) -> None:
        """Take all weights of a trained denoiser, and its first blocks again as the encoder."""
        # strict=False: the denoiser has no encoder and no cross-attention.
        self.load_state_dict(denoiser.state_dict(), strict=False)
        # The encoder has fewer blocks than the denoiser, so the pairs end with it.
        for block, trained in zip(self.encoder_blocks(), denoiser.blocks, strict=False):
            block.load_state_dict(trained.state_dict())
        self.encoder["norm"].load_state_dict(denoiser.norm.state_dict())

    def new_parts(self) -> list[nn.Parameter]:
        """The weights that the denoiser did not have: the encoder's and the cross-attention's."""
        weights = []
        for name, weight in self.named_parameters():
            if name.startswith("encoder.") or ".cross" in name:
                weights.append(weight)
        return weights

    def read(
        self, tokens: Tensor, lengths: Tensor | None = None, kept: Tensor | None = None
    ) -> list[KeysValues]:
        """Keys and values of a text, for every block: once per prompt, not once per denoiser call.

        tokens: (B, P) int64. lengths: (B,) real tokens; the rest is padding, which nobody attends
        to. kept: (B,) bool, False where the condition is dropped in training. It is then all zeros,
        and attention to zeros adds nothing, since there are no biases.
        """
        # No mask where nothing is padded: torch has faster attention kernels without a mask.
        attend = None
        if lengths is not None and int(lengths.min()) < tokens.shape[1]:
            attend = real_positions(lengths, tokens.shape[1])  # (B, 1, 1, P)
        x = self.embedding(tokens)  # (B, P, D)
        for layer, block in enumerate(self.encoder_blocks()):
            x = block(x, self.rotary, attend, None, None, layer)
        x = self.encoder["norm"](x)
        if kept is not None:
            x = x * kept[:, None, None]
        return self.keys_values(x, attend)
