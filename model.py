"""The network: token ids in, logits out. It knows nothing of diffusion.

A pre-norm transformer: RMSNorm, rotary positions, QK-norm, SwiGLU or GELU, no biases. Its output
matrix is its embedding. It attends both ways; with `causal=True` it is the autoregressive twin.

Ids from `output_size` on ([PAD], [BOS], [MASK]) have no output row, so they can never be written.

Read from the bottom: `Denoiser.forward` is the story, `Block` is its step, the rest are parts.
Shapes: B batch, L length, D width, H heads, V ids (V' can be written), P patches, M selected.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig

# What a block reads of a condition: keys, values (B, H, P, head); a mask (B, 1, 1, P) if padded.
KeysValues = tuple[Tensor, ...]

NORM_EPSILON = 1e-6  # torch's default is the type's own epsilon, which differs between precisions
WEIGHT_STD = 0.02  # of every matrix at the start, as in GPT-2


def real_positions(lengths: Tensor, width: int) -> Tensor:
    """Which of `width` positions are real tokens, not padding: (B,) -> (B, 1, 1, width) bool."""
    position = torch.arange(width, device=lengths.device)
    return (position < lengths[:, None])[:, None, None]


class Norm(nn.RMSNorm):
    """RMSNorm (arXiv 1910.07467): x divided by its root mean square, times a learnt weight."""

    def __init__(self, width: int):
        super().__init__(width, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast x is bfloat16. Torch's fused kernel wants the weight in the same type.
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Rotary(nn.Module):
    """Rotary positions (arXiv 2104.09864): each pair of channels turns with its position.

    A product of two turned vectors depends on the distance between them, not on where they stand.
    """

    cos: Tensor  # (max_length, head), and so is sin
    sin: Tensor

    def __init__(self, head_width: int, max_length: int, base: float = 10_000.0):
        super().__init__()
        # float64: near 1000, where long rows end, float32 numbers are 6e-5 apart.
        speed = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angle = torch.outer(torch.arange(max_length, dtype=torch.float64), speed)  # (L, head/2)
        cos = torch.cat([angle.cos(), angle.cos()], -1).float()
        sin = torch.cat([-angle.sin(), angle.sin()], -1).float()
        # Not persistent: a checkpoint need not hold what its config decides.
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, where: slice | Tensor, norm: Norm | None = None) -> Tensor:
        """Turn x (B, H, L, head) after its norm. where: its L positions, a slice or int64."""
        x = x if norm is None else norm(x)  # net/kernels.py does both in one pass
        cos = self.cos[where].to(x.dtype)
        sin = self.sin[where].to(x.dtype)
        # Channel i is paired with channel i + head/2. The order of terms decides the last bit.
        return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class Cache:
    """Keys and values that a model has already read: (B, H, max_length, head) per layer."""

    def __init__(self) -> None:
        self.length = 0  # tokens that it holds
        self.position = 0  # where the next token stands in its text
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, n, head) behind the earlier ones. Returns all of them."""
        B, H, n, head = k.shape
        if layer not in self.layers:
            # The whole length at once: growing a tensor would copy it for every token.
            shape = (B, H, max_length, head)
            self.layers[layer] = (k.new_empty(shape), v.new_empty(shape))
        all_k, all_v = self.layers[layer]
        end = self.length + n
        all_k[:, :, self.length : end] = k
        all_v[:, :, self.length : end] = v
        return all_k[:, :, :end], all_v[:, :, :end]

    def where(self, count: int) -> slice | Tensor:
        """The positions of the next `count` tokens."""
        return slice(self.position, self.position + count)

    def advance(self, count: int) -> None:
        """All layers have stored `count` tokens."""
        self.length += count
        self.position += count


class TimeEmbedding(nn.Module):
    """Sinusoids of the masked share (arXiv 2006.11239, section 3.3), then two linear layers."""

    speed: Tensor  # (D/2,)

    def __init__(self, width: int):
        super().__init__()
        speed = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
        self.register_buffer("speed", speed, persistent=False)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def forward(self, share: Tensor) -> Tensor:
        """share: (B,) in [0, 1] -> (B, 1, D)."""
        # The sinusoids were made for 1000 steps of noise, so the share is stretched to 0 .. 1000.
        angle = 1000 * share.float()[:, None] * self.speed
        wave = torch.cat([angle.sin(), angle.cos()], -1).to(self.up.weight.dtype)
        return self.down(F.silu(self.up(wave)))[:, None]


class MLP(nn.Module):
    """Feed-forward: SwiGLU (arXiv 2002.05202) with 8/3 D hidden units, or GELU with 4 D.

    Three matrices, or two of GELU's: both have about 8 D² parameters. `attend` is for experts.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, hidden = config.d_model, 4 * config.d_model
        self.gate = None
        if config.mlp == "swiglu":
            hidden = 32 * max(1, round(8 * width / 3 / 32))  # multiples of 32 suit matrix units
            self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        if self.gate is None:
            return self.down(F.gelu(self.up(x)))
        return self.down(F.silu(self.gate(x)) * self.up(x))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, head)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head attention with rotary positions and QK-norm (arXiv 2010.04245), which bounds the
    products of queries and keys, so that large learning rates are stable."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.d_model
        self.heads, self.causal, self.max_length = config.heads, config.causal, config.max_length
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = Norm(width // self.heads)
        self.key_norm = Norm(width // self.heads)

    def forward(
        self, x: Tensor, rotary: Rotary, attend: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        """x: (B, L, D) -> (B, L, D). attend: bool, fits (B, 1, L, keys), False: not to be seen."""
        B, L, D = x.shape
        where = cache.where(L) if cache else slice(0, L)
        q = rotary(split_heads(self.query(x), self.heads), where, self.query_norm)
        k = rotary(split_heads(self.key(x), self.heads), where, self.key_norm)
        v = split_heads(self.value(x), self.heads)
        if cache is not None:
            k, v = cache.extend(layer, k, v, self.max_length)
        # A single new query sees the whole cache. Only a longer, first read needs the triangle.
        triangle = self.causal and attend is None and L > 1
        y = F.scaled_dot_product_attention(q, k, v, attend, is_causal=triangle)  # (B, H, L, head)
        return self.out(y.transpose(1, 2).reshape(B, L, D))


class CrossAttention(nn.Module):
    """Attention to a condition (B, P, width), such as an image's features.

    Its gate starts at 0 (arXiv 2204.14198): added to a trained model, it changes nothing at first.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, self.heads = config.d_model, config.heads
        self.query = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(config.condition_width, width, bias=False)
        self.value = nn.Linear(config.condition_width, width, bias=False)
        self.query_norm = Norm(width // self.heads)
        self.key_norm = Norm(width // self.heads)
        self.gate = nn.Parameter(torch.zeros(1))

    def keys_values(self, condition: Tensor, attend: Tensor | None = None) -> KeysValues:
        """(B, P, width) -> keys and values: once per image or prompt, not per denoiser call.

        attend: (B, 1, 1, P) bool, False where the condition is padding.
        """
        keys = self.key_norm(split_heads(self.key(condition), self.heads))
        values = split_heads(self.value(condition), self.heads)
        return (keys, values) if attend is None else (keys, values, attend)

    def forward(self, x: Tensor, keys_values: KeysValues) -> Tensor:
        """x: (B, L, D) -> (B, L, D), times the gate.

        A condition of B / n rows serves n rows of x each, which are read as one query of n·L.
        """
        B, L, D = x.shape
        keys, values = keys_values[:2]
        attend = keys_values[2] if len(keys_values) > 2 else None
        q = self.query(x).view(len(keys), -1, self.heads, D // self.heads).transpose(1, 2)
        q = self.query_norm(q)  # (B / n, H, n·L, head)
        y = F.scaled_dot_product_attention(q, keys, values, attend)
        return self.gate * self.out(y.transpose(1, 2).reshape(B, L, D))


class Block(nn.Module):
    """Add to the stream, in turn: self-attention, cross-attention if there is a condition, MLP."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.d_model
        self.attention_norm = Norm(width)
        self.attention = SelfAttention(config)
        self.cross_norm = Norm(width) if config.condition_width else None
        self.cross = CrossAttention(config) if config.condition_width else None
        self.mlp_norm = Norm(width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        attend: Tensor | None,
        keys_values: KeysValues | None,
        cache: Cache | None,
        layer: int,
    ) -> Tensor:
        """x: (B, L, D) -> (B, L, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotary, attend, cache, layer))
        if keys_values is not None:
            assert self.cross_norm is not None and self.cross is not None
            x = x + self.dropout(self.cross(self.cross_norm(x), keys_values))
        return x + self.dropout(self.mlp(self.mlp_norm(x), attend))


class LengthHead(nn.Module):
    """Unnormalised log p(row length | condition), from every patch: their mean and their maximum.

    The mean alone cannot tell three equal objects from two and one (docs/log/captions.md).
    """

    def __init__(self, width: int, hidden: int, lengths: int):
        super().__init__()
        self.patch = nn.Linear(width, hidden)
        self.pooled = nn.Linear(2 * hidden, hidden)
        self.out = nn.Linear(hidden, lengths)

    def forward(self, condition: Tensor) -> Tensor:
        x = F.silu(self.patch(condition))  # (B, P, hidden)
        x = torch.cat([x.mean(1), x.amax(1)], -1)  # (B, 2·hidden)
        return self.out(F.silu(self.pooled(x)))  # (B, lengths)


class MeanLengthHead(nn.Linear):
    """A linear map of the mean patch: the head of the first checkpoints."""

    def forward(self, condition: Tensor) -> Tensor:
        return super().forward(condition.mean(1))


def length_head(config: ModelConfig) -> LengthHead | MeanLengthHead:
    lengths = config.max_length + 1  # 0 .. max_length
    if config.length_hidden:
        return LengthHead(config.condition_width, config.length_hidden, lengths)
    return MeanLengthHead(config.condition_width, lengths)


class Denoiser(nn.Module):
    """Token ids -> logits over the ids that can be written."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        # The order below is part of the format: it decides which random numbers each weight gets.
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        knows_time = config.time_conditioning == "sinusoidal"
        self.time = TimeEmbedding(config.d_model) if knows_time else None
        self.rotary = Rotary(config.d_model // config.heads, config.max_length)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Norm(config.d_model)
        self.length_head = length_head(config) if config.condition_width else None
        self.draw_weights()

    def draw_weights(self) -> None:
        """Normal weights. What adds to the stream starts smaller, against its growth (GPT-2)."""
        for name, weight in self.named_parameters():
            if weight.ndim != 2:
                continue  # norms stay at 1, gates at 0
            adds_to_stream = name.endswith(("out.weight", "down.weight"))
            shrink = math.sqrt(2 * self.config.layers) if adds_to_stream else 1.0
            nn.init.normal_(weight, std=WEIGHT_STD / shrink)

    def forward(
        self,
        tokens: Tensor,
        *,
        lengths: Tensor | None = None,
        share: Tensor | None = None,
        condition: list[KeysValues] | None = None,
        select: Tensor | None = None,
        cache: Cache | None = None,
        attend: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Logits of every position, or of the selected positions only.

        tokens: (B, L) int64. share: (B,) masked share in [0, 1]; read only with time conditioning.
        lengths: (B,) real tokens of each row, or (B / n,) for n neighbours each. The rest is
            padding: nobody attends to it, and its logits mean nothing. None: no padding.
        condition: from `keys_values`, of B rows, or of B / n rows that serve n neighbours each.
        select: (B, L) bool. cache: continue behind the tokens that it holds.
        attend: bool, fits (B, 1, L, keys), which keys each query sees: in place of `lengths`.
        inputs: (B, L, D), what the blocks read in place of the tokens' embeddings.
        Returns float32 logits (B, L, V'), or (M, V') of the M selected positions, row by row.
        """
        x = self.trunk(tokens, lengths, share, condition, cache, attend, inputs)  # (B, L, D)
        return self.logits(self.outputs(x, select))

    def outputs(self, x: Tensor, select: Tensor | None) -> Tensor:
        """Of x (B, L, D), what predicts the selected positions, (M, D), or all positions."""
        if self.config.logit_shift:  # the position before predicts, as in a twin
            x = F.pad(x, (0, 0, 1, -1))
        return x if select is None else x[select]  # the output matrix is a third of the work

    def logits(self, x: Tensor) -> Tensor:
        """What `outputs` returns, (M, D) or (B, L, D), times the output matrix: float32 logits."""
        return (x @ self.embedding.weight[: self.config.output_size].T).float()

    def trunk(
        self,
        tokens: Tensor,
        lengths: Tensor | None,
        share: Tensor | None,
        condition: list[KeysValues] | None,
        cache: Cache | None,
        attend: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """All but the output matrix: (B, L) -> (B, L, D). This is what torch.compile compiles."""
        x = self.embedding(tokens) if inputs is None else inputs
        if self.time is not None and share is not None:
            x = x + self.time(share)
        if attend is None and lengths is not None and not self.config.causal:
            # Padding stands behind the row, where a causal model does not look anyway.
            attend = real_positions(lengths, tokens.shape[1])
            attend = attend.repeat_interleave(len(tokens) // len(lengths), 0)
        for layer, block in enumerate(self.blocks):
            read = condition[layer] if condition else None
            x = block(x, self.rotary, attend, read, cache, layer)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.norm(x)

    def keys_values(self, condition: Tensor, attend: Tensor | None = None) -> list[KeysValues]:
        """What every block reads of a condition (B, P, condition_width): pass it as `condition`."""
        crosses = [cast(CrossAttention, block.cross) for block in self.blocks]
        return [cross.keys_values(condition, attend) for cross in crosses]

    def length_logits(self, condition: Tensor) -> Tensor:
        """Unnormalised log p(row length | condition): (B, P, width) -> (B, max_length + 1)."""
        assert self.length_head is not None, "this model takes no condition, or is told lengths"
        return self.length_head(condition).float()

    def bind(
        self, lengths: Tensor | None = None, condition: list[KeysValues] | None = None
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The function that diffusion.py and net/samplers.py take: a `diffusion.Denoise`."""

        def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
            return self(tokens, share=share, select=select, lengths=lengths, condition=condition)

        return denoise

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def num_parameters(self) -> int:
        """Trainable values; the embedding, which is also the output matrix, counts once."""
        return sum(weight.numel() for weight in self.parameters())
