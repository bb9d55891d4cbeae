"""The denoiser's network as it runs at the edge: model.py, arranged for ONNX.

- Attention is written out: 281 nodes, where the fused operator exports 395.
- Query, key and value are a single product, because they read the same input.
- The gate of the cross-attention is folded into its output matrix.
- RMSNorm is spelt with the operators that ONNX Runtime fuses into its own kernel.
- Adapters are inputs, not weights (`product`): edge/adapted.py says why.

Shapes: B batch, L length, D width, H heads, N blocks, P patches, V' emittable tokens; head = D / H.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge.experts import EdgeExperts
from model import Block, Denoiser
from net.experts import Experts

Factors = dict[str, Tensor]  # an adapter's numbers, by the names of edge/adapted.py

# Added to the scores of padding. It is finite in float16 too, where -inf would become NaN.
HIDDEN = -1e4


class Norm(nn.Module):
    """RMSNorm (arXiv 1910.07467) as Pow, ReduceMean, Add, Sqrt, Div, Mul."""

    def __init__(self, norm: nn.RMSNorm):
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.weight


def linear(*weights: Tensor) -> nn.Linear:
    """One product without bias for matrices (out_i, in) that read the same input."""
    joined = torch.cat([weight.detach() for weight in weights])
    result = nn.Linear(joined.shape[1], joined.shape[0], bias=False)
    result.weight = nn.Parameter(joined.clone())
    return result


def product(linear: nn.Linear, x: Tensor, factors: Factors | None, name: str) -> Tensor:
    """x (B, L, in) -> (B, L, out): the product, with the adapter that `factors` hold for `name`.

    name.down (in, R) and name.up (R, out) add x down up; name.gain (out,) multiplies the sum.
    """
    y = linear(x)
    if factors and f"{name}.down" in factors:
        y = y + x @ factors[f"{name}.down"] @ factors[f"{name}.up"]
    if factors and f"{name}.gain" in factors:
        y = y * factors[f"{name}.gain"]
    return y


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, L, H, head)."""
    return x.unflatten(-1, (heads, -1))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864): x (B, H, L, head); cos, sin (L, head)."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([right, left], -1) * sin


def key_layout(keys: Tensor, heads_width: int) -> Tensor:
    """Keys (..., P, head) of the condition -> the graphs' layout (..., head, P), times head^-0.5.

    The scale of the scores is folded in here, once per image instead of once per call.
    """
    return keys.mT * heads_width**-0.5


class EdgeBlock(nn.Module):
    """One block of model.py: self-attention, feed-forward, and cross-attention if any."""

    def __init__(self, block: Block):
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.heads = attention.heads
        self.crossed = block.cross is not None
        self.has_experts = isinstance(mlp, Experts)

        self.attention_norm = Norm(block.attention_norm)
        self.query_norm = Norm(attention.query_norm)
        self.key_norm = Norm(attention.key_norm)
        self.qkv = linear(attention.query.weight, attention.key.weight, attention.value.weight)
        self.out = linear(attention.out.weight)
        # The scale of the scores sits in the gain of the queries' norm: no product of its own.
        self.query_norm.weight.data *= (attention.out.weight.shape[0] // self.heads) ** -0.5

        if self.crossed:
            self.cross_norm = Norm(block.cross_norm)
            self.cross_query_norm = Norm(block.cross.query_norm)
            self.cross_query = linear(block.cross.query.weight)
            self.cross_out = linear(block.cross.gate.detach() * block.cross.out.weight)

        self.mlp_norm = Norm(block.mlp_norm)
        if self.has_experts:
            self.experts = EdgeExperts(mlp)
            return
        self.gated = mlp.gate is not None
        self.up = linear(mlp.gate.weight, mlp.up.weight) if self.gated else linear(mlp.up.weight)
        self.down = linear(mlp.down.weight)

    def heads_of(self, x: Tensor, factors: Factors | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, D) -> queries, keys and values without positions, each (B, H, L, head).

        factors: of this block, from `of_block`; None without an adapter.
        """
        parts = product(self.qkv, self.attention_norm(x), factors, "qkv").chunk(3, -1)
        q, k, v = (split_heads(part, self.heads) for part in parts)
        return (
            self.query_norm(q).transpose(1, 2),
            self.key_norm(k).transpose(1, 2),
            v.transpose(1, 2),
        )

    # heads_of and mix are two functions, because NextGraph puts its cache between them.
    def mix(
        self,
        x: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        factors: Factors | None = None,
    ) -> Tensor:
        """The rest of the block: (B, L, D) -> (B, L, D).

        q, k, v: (B, H, L, head), with positions. bias: added to the scores.
        keys (B, H, head, P) and values (B, H, P, head): of the condition; None without one.
        factors: as in `heads_of`.
        """
        y = (q @ k.transpose(-1, -2) + bias).softmax(-1) @ v  # (B, H, L, head)
        x = x + product(self.out, y.transpose(1, 2).flatten(2), factors, "out")
        if keys is not None:
            asked = product(self.cross_query, self.cross_norm(x), factors, "cross_query")
            q = split_heads(asked, self.heads)
            q = self.cross_query_norm(q).transpose(1, 2)
            y = (q @ keys).softmax(-1) @ values  # (B, H, L, head)
            x = x + product(self.cross_out, y.transpose(1, 2).flatten(2), factors, "cross_out")
        if self.has_experts:
            return x + self.experts(self.mlp_norm(x), bias)
        hidden = product(self.up, self.mlp_norm(x), factors, "up")
        if self.gated:
            gate, hidden = hidden.chunk(2, -1)
            return x + product(self.down, F.silu(gate) * hidden, factors, "down")
        return x + product(self.down, F.gelu(hidden), factors, "down")


def of_layer(condition: Tensor | None, layer: int) -> Tensor | None:
    """The keys or values (B, N, H, ...) of one block: (B, H, ...); None without a condition."""
    return None if condition is None else condition[:, layer]


def of_block(factors: Factors | None, layer: int) -> Factors:
    """The factors of one block, by the names of its products."""
    start = f"blocks.{layer}."
    own = {}
    for name, factor in (factors or {}).items():
        if name.startswith(start):
            own[name.removeprefix(start)] = factor
    return own


class Network(nn.Module):
    """Tokens -> logits (B, L, V') float32: what `Denoiser.forward` computes without selection."""

    def __init__(self, model: Denoiser):
        super().__init__()
        self.embedding = nn.Parameter(model.embedding.weight.detach().clone())
        self.blocks = nn.ModuleList(EdgeBlock(block) for block in model.blocks)
        self.norm = Norm(model.norm)
        self.head = linear(model.embedding.weight[: model.config.output_size])
        self.shifted = model.config.logit_shift
        self.time = model.time
        self.register_buffer("cos", model.rotary.cos.clone())
        self.register_buffer("sin", model.rotary.sin.clone())

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        share: Tensor | None = None,
        factors: Factors | None = None,
    ) -> Tensor:
        """tokens (B, L) int32 -> logits (B, L, V')."""
        x = self.trunk(tokens, lengths, keys, values, share, factors)
        if self.shifted:  # as Denoiser.outputs, in operators that TensorRT 10.3 reads
            x = F.pad(x, (0, 0, 1, 0))[:, :-1]
        return self.head(x)

    def trunk(
        self,
        tokens: Tensor,
        lengths: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        share: Tensor | None = None,
        factors: Factors | None = None,
    ) -> Tensor:
        """tokens (B, L) int32 -> (B, L, D), all but the output matrix.

        lengths (B,) int32: positions behind them are padding, and nobody attends to them.
        keys (B, N, H, head, P), values (B, N, H, P, head): from ConditionGraph; None without one.
        share (B,): the masked share, read with time conditioning alone.
        factors: of an adapter; None: the base alone.
        """
        L = tokens.shape[1]
        x = F.embedding(tokens, self.embedding)  # (B, L, D)
        if self.time is not None:
            x = x + self.time(share)
        position = torch.arange(L, dtype=torch.int32)
        bias = torch.where(position < lengths[:, None], 0.0, HIDDEN)[:, None, None]  # (B, 1, 1, L)
        cos, sin = self.cos[:L], self.sin[:L]
        for layer, block in enumerate(self.blocks):
            own = of_block(factors, layer)
            q, k, v = block.heads_of(x, own)
            q, k = turned(q, cos, sin), turned(k, cos, sin)
            x = block.mix(x, q, k, v, bias, of_layer(keys, layer), of_layer(values, layer), own)
        return self.norm(x)
