"""The network: token ids in, logits out (floor 1). It knows nothing of diffusion.

A pre-norm transformer: RMSNorm, rotary positions, QK-norm, SwiGLU or GELU, tied embedding, no biases.
Bidirectional it is the denoiser; with `causal=True` the very same blocks are the autoregressive twin.
Ids at or above `output_size` ([PAD], [BOS], [MASK]) have no output row, so they can never be emitted.

Shapes: B batch, L length, D width, H heads, V vocabulary (V' = output_size rows of it), P patches of the
condition, M selected positions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864): pairs of channels turn with the position."""

    def __init__(self, head_width: int, max_length: int, base: float = 10_000.0):
        super().__init__()
        speed = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angle = torch.outer(torch.arange(max_length, dtype=torch.float64), speed)  # (L, head/2)
        self.register_buffer(
            "cos", torch.cat([angle.cos()] * 2, -1).float(), persistent=False
        )  # (L, head)
        self.register_buffer(
            "sin", torch.cat([-angle.sin(), angle.sin()], -1).float(), persistent=False
        )

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x: (B, H, L, head), its first position being `start`."""
        cos = self.cos[start : start + x.shape[2]].to(x.dtype)
        sin = self.sin[start : start + x.shape[2]].to(x.dtype)
        return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class Cache:
    """Keys and values of the positions that a causal model has already read: (B, H, max_length, head) a layer."""

    def __init__(self):
        self.length = 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, n, head) behind what is there; return all of it."""
        B, H, n, head = k.shape
        if layer not in self.layers:
            self.layers[layer] = (
                k.new_empty(B, H, max_length, head),
                v.new_empty(B, H, max_length, head),
            )
        all_k, all_v = self.layers[layer]
        all_k[:, :, self.length : self.length + n] = k
        all_v[:, :, self.length : self.length + n] = v
        return all_k[:, :, : self.length + n], all_v[:, :, : self.length + n]


class Norm(nn.RMSNorm):
    """RMSNorm (arXiv 1910.07467) with an epsilon of its own and weights in the input's type, which torch's fused kernel asks for."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class SelfAttention(nn.Module):
    """Multi-head attention with rotary positions and normalised queries and keys (QK-norm, arXiv 2010.04245)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, self.heads, self.causal, self.max_length = (
            config.d_model,
            config.heads,
            config.causal,
            config.max_length,
        )
        self.query, self.key, self.value, self.out = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.query_norm, self.key_norm = Norm(D // self.heads), Norm(D // self.heads)

    def forward(
        self, x: Tensor, rotary: Rotary, attend: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        """x: (B, L, D); attend: (B, 1, 1, L) bool, False where the key is padding."""
        B, L, D = x.shape
        split = lambda y: y.view(B, L, self.heads, -1).transpose(1, 2)  # noqa: E731  (B, H, L, head)
        start = cache.length if cache else 0
        q = rotary(self.query_norm(split(self.query(x))), start)
        k = rotary(self.key_norm(split(self.key(x))), start)
        v = split(self.value(x))
        if cache is not None:
            k, v = cache.extend(layer, k, v, self.max_length)
        # One new query sees all of the cache; only a first, longer read needs the triangle.
        y = F.scaled_dot_product_attention(
            q, k, v, attend, is_causal=self.causal and attend is None and L > 1
        )
        return self.out(y.transpose(1, 2).reshape(B, L, D))


class CrossAttention(nn.Module):
    """Attention to a condition (B, P, width). Its gate starts at 0: added to a trained model it is the identity."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        D, self.heads = config.d_model, config.heads
        self.query, self.out = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.key, self.value = (nn.Linear(config.condition_width, D, bias=False) for _ in range(2))
        self.query_norm, self.key_norm = Norm(D // self.heads), Norm(D // self.heads)
        self.gate = nn.Parameter(torch.zeros(1))

    def keys_values(self, condition: Tensor, attend: Tensor | None = None) -> tuple[Tensor, ...]:
        """(B, P, width) -> keys and values, each (B, H, P, head), and `attend` if there is one: once per image or prompt,
        not once per step. attend: (B, 1, 1, P) bool, False where the condition is padding."""
        split = lambda y: y.view(*y.shape[:2], self.heads, -1).transpose(1, 2)  # noqa: E731
        keys_values = self.key_norm(split(self.key(condition))), split(self.value(condition))
        return keys_values if attend is None else (*keys_values, attend)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, ...]) -> Tensor:
        """x: (B, L, D) -> (B, L, D), times the gate. A condition of B / n serves n rows in a row, as one long query."""
        B, L, D = x.shape
        q = self.query_norm(
            self.query(x).view(len(keys_values[0]), -1, self.heads, D // self.heads).transpose(1, 2)
        )  # (B / n, H, n·L, head)
        y = F.scaled_dot_product_attention(q, *keys_values)
        return self.gate * self.out(y.transpose(1, 2).reshape(B, L, D))


class MLP(nn.Module):
    """Feed-forward: SwiGLU (Shazeer 2020, arXiv 2002.05202) with 8/3 D hidden units, or GELU with 4 D."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        D = config.d_model
        hidden = 4 * D if config.mlp == "gelu" else 32 * max(1, round(8 * D / 3 / 32))
        self.gate = nn.Linear(D, hidden, bias=False) if config.mlp == "swiglu" else None
        self.up, self.down = nn.Linear(D, hidden, bias=False), nn.Linear(hidden, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(
            F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x)
        )


class Block(nn.Module):
    """x + attention(norm x), then x + cross-attention(norm x) if there is a condition, then x + mlp(norm x)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm, self.attention = Norm(config.d_model), SelfAttention(config)
        self.cross_norm, self.cross = None, None
        if config.condition_width:
            self.cross_norm, self.cross = Norm(config.d_model), CrossAttention(config)
        self.mlp_norm, self.mlp = Norm(config.d_model), MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, rotary: Rotary, attend: Tensor | None, keys_values, cache, layer: int
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), rotary, attend, cache, layer))
        if keys_values is not None:
            x = x + self.dropout(self.cross(self.cross_norm(x), keys_values))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class TimeEmbedding(nn.Module):
    """Sinusoids of the masked share (arXiv 2006.11239, section 3.3), then two linear layers."""

    def __init__(self, D: int):
        super().__init__()
        self.register_buffer(
            "speed",
            torch.exp(-math.log(10_000) * torch.arange(D // 2) / (D // 2)),
            persistent=False,
        )
        self.up, self.down = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, share: Tensor) -> Tensor:
        """share: (B,) in [0, 1] -> (B, 1, D)."""
        angle = 1000 * share.float()[:, None] * self.speed
        wave = torch.cat([angle.sin(), angle.cos()], -1).to(self.up.weight.dtype)
        return self.down(F.silu(self.up(wave)))[:, None]


class LengthHead(nn.Module):
    """Unnormalised log p(row length | condition): a small network on each patch, and one on what all of them give together.

    Their largest values tell what there is at all, their mean how much of it: with the mean patch alone nobody can tell three alike from
    two and one, and no caption of the wrong length is true (LOG.md).
    """

    def __init__(self, width: int, hidden: int, lengths: int):
        super().__init__()
        self.patch, self.pooled, self.out = (
            nn.Linear(width, hidden),
            nn.Linear(2 * hidden, hidden),
            nn.Linear(hidden, lengths),
        )

    def forward(self, condition: Tensor) -> Tensor:
        x = F.silu(self.patch(condition))  # (B, P, hidden)
        return self.out(F.silu(self.pooled(torch.cat([x.mean(1), x.amax(1)], -1))))


class MeanLengthHead(nn.Linear):
    """The same from the mean patch, linearly: what checkpoints from before have."""

    def forward(self, condition: Tensor) -> Tensor:
        return super().forward(condition.mean(1))


class Denoiser(nn.Module):
    """Token ids -> logits over the ids that can be emitted."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.time = (
            TimeEmbedding(config.d_model) if config.time_conditioning == "sinusoidal" else None
        )
        self.rotary = Rotary(config.d_model // config.heads, config.max_length)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config.d_model)
        self.length_head = None
        if config.condition_width:
            shape = (
                config.condition_width,
                *([config.length_hidden] if config.length_hidden else []),
                config.max_length + 1,
            )
            self.length_head = (LengthHead if config.length_hidden else MeanLengthHead)(*shape)
        for name, weight in self.named_parameters():
            if (
                weight.ndim == 2
            ):  # residual outputs smaller, so that the stream's variance does not grow with depth
                nn.init.normal_(
                    weight,
                    std=0.02 / math.sqrt(2 * config.layers)
                    if name.endswith(("out.weight", "down.weight"))
                    else 0.02,
                )

    def forward(
        self,
        tokens: Tensor,
        *,
        lengths: Tensor | None = None,
        share: Tensor | None = None,
        condition: list | None = None,
        select: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits of every position, or of the selected ones only.

        tokens: (B, L) int64. lengths: (B,) real tokens of each row; what lies behind is padding, neither
        attended to nor meaningful. None: no padding. share: (B,) masked share in [0, 1], read only with time
        conditioning. condition: from `keys_values`, for all rows or for B / n of them: each then serves n rows in a row.
        select: (B, L) bool. cache: continue behind what it holds.
        Returns float32 logits (B, L, V'), or (M, V') for the M selected positions in row-major order.
        """
        x = self.trunk(tokens, lengths, share, condition, cache)  # (B, L, D)
        if select is not None:
            x = x[select]  # (M, D): the output matrix is a third of a small model's work
        return (x @ self.embedding.weight[: self.config.output_size].T).float()

    def trunk(self, tokens: Tensor, lengths, share, condition, cache) -> Tensor:
        """Everything but the output matrix: (B, L) -> (B, L, D). This is what torch.compile compiles."""
        x = self.embedding(tokens)
        if self.time is not None and share is not None:
            x = x + self.time(share)
        attend = None
        if (
            lengths is not None and not self.config.causal
        ):  # behind a causal row padding is never seen anyway
            attend = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None])[
                :, None, None
            ]  # (B, 1, 1, L)
        for layer, block in enumerate(self.blocks):
            x = block(x, self.rotary, attend, condition[layer] if condition else None, cache, layer)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x)

    def keys_values(self, condition: Tensor, attend: Tensor | None = None) -> list:
        """(B, P, condition_width) -> one (keys, values) pair a layer, to be passed as `condition`; attend: (B, 1, 1, P) bool."""
        return [block.cross.keys_values(condition, attend) for block in self.blocks]

    def length_logits(self, condition: Tensor) -> Tensor:
        """Unnormalised log p(row length | condition): (B, P, condition_width) -> (B, max_length + 1)."""
        return self.length_head(condition).float()

    def bind(self, lengths: Tensor | None = None, condition: list | None = None):
        """The callable that diffusion.py and samplers.py take: denoise(tokens, share, select) -> logits (M, V')."""
        return lambda tokens, share, select: self(
            tokens, share=share, select=select, lengths=lengths, condition=condition
        )

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def num_parameters(self) -> int:
        """Trainable values, the tied embedding once."""
        return sum(weight.numel() for weight in self.parameters())

    def training_flops(self, length: int) -> int:
        """Floating-point operations to train on one token: 6·N plus attention 12·layers·L·D (arXiv 2204.02311, app. B).

        The convention, not the exact count: it takes the output matrix at every position.
        """
        attention = (
            12
            * self.config.layers
            * length
            * self.config.d_model
            // (2 if self.config.causal else 1)
        )
        return 6 * self.num_parameters() + attention
