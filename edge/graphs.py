"""The graphs of a bundle: torch modules whose only purpose is to be exported to ONNX.

    EncoderGraph    image (B, S, S, 3) uint8 -> features (B, P, width)
    ConditionGraph  features -> keys and values of all N blocks, and the likeliest length
    StepGraph       tokens, lengths (, keys, values) -> logits: one denoiser call
    LoopGraph       the whole denoising in one call: an ONNX Loop (edge/loop_graph.py)
    NextGraph       the autoregressive twin: a token and its key-value cache -> the next token

Each graph has `example(sizes)`, its inputs in their order, and `outputs`, the names of its outputs.
Ids are int32 at the boundary, because TensorRT takes no int64 there. edge/parity.py compares every
graph with model.py and net/samplers.py.

Shapes: B batch, L length, D width, H heads, N blocks, P patches, V' emittable tokens; head = D / H.
"""

import copy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from base.config import ModelConfig
from caption.writer import place_code
from edge.networks import HIDDEN, Factors, Network, Norm, linear, of_block, of_layer, turned
from model import Denoiser
from net.adapters import WHOLE

SHORTEST = 3  # tokens of a caption at least: [BOS], a word, [EOS]


@dataclass
class Input:
    """An input of a graph: an example tensor, and the names of its free axes by their numbers.

    factor: it reaches the torch module in the dict `factors`, under its name.
    """

    example: Tensor
    free: dict[int, str] = field(default_factory=dict)
    factor: bool = False


Inputs = dict[str, Input]  # in the order of the graph's inputs


@dataclass
class Sizes:
    """What the shapes of a graph's inputs follow from.

    image_size and patches are 0 for text models. network, condition: the base's factors
    (edge/adapted.py) of the graphs with that part; none if the bundle has no adapters to choose.
    """

    model: ModelConfig
    image_size: int = 0
    patches: int = 0
    network: Factors = field(default_factory=dict)
    condition: Factors = field(default_factory=dict)

    @property
    def head(self) -> int:
        """The width of an attention head."""
        return self.model.d_model // self.model.heads


BATCH = 2  # rows of the examples: torch.export would fix a batch of 1


def integers(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def row_inputs(sizes: Sizes) -> Inputs:
    """tokens (B, L) and lengths (B,)."""
    length = min(9, sizes.model.max_length)
    return {
        "tokens": Input(integers(BATCH, length), {0: "batch", 1: "length"}),
        "lengths": Input(integers(BATCH) + length, {0: "batch"}),
    }


def condition_inputs(sizes: Sizes) -> Inputs:
    """keys (B, N, H, head, P) and values (B, N, H, P, head); nothing for a text model."""
    if not sizes.patches:
        return {}
    before = (BATCH, sizes.model.layers, sizes.model.heads)
    return {
        "keys": Input(torch.zeros(*before, sizes.head, sizes.patches), {0: "batch"}),
        "values": Input(torch.zeros(*before, sizes.patches, sizes.head), {0: "batch"}),
    }


def factor_inputs(factors: Factors) -> Inputs:
    """The inputs that an adapter fills, each of a fixed shape."""
    return {name: Input(factor.clone(), factor=True) for name, factor in factors.items()}


class EncoderGraph(nn.Module):
    """Images of the right size as bytes -> features. Normalisation is inside the graph.

    Features are rounded to float16, because the captioner was trained with rounded features.
    """

    outputs = ("features",)

    def __init__(self, encoder):
        super().__init__()
        self.body = copy.deepcopy(encoder.model)  # a copy: `quantization.halve` may change it
        self.register_buffer("scale", (1 / (255 * encoder.std)).clone())
        self.register_buffer("shift", (-encoder.mean / encoder.std).clone())

    def example(self, sizes: Sizes) -> Inputs:
        shape = (BATCH, sizes.image_size, sizes.image_size, 3)
        return {"image": Input(torch.zeros(shape, dtype=torch.uint8), {0: "batch"})}

    def forward(self, image: Tensor) -> Tensor:
        x = image.float().permute(0, 3, 1, 2) * self.scale + self.shift  # (B, 3, S, S)
        return self.body(pixel_values=x).last_hidden_state.half().float()  # (B, P, width)


class ConditionGraph(nn.Module):
    """Features -> all that the blocks need to know of an image, computed once per image."""

    outputs = ("keys", "values", "lengths")

    def __init__(self, model: Denoiser, statistics: dict, patches: int):
        super().__init__()
        self.layers, self.heads = model.config.layers, model.config.heads
        # Standardisation and the code of a patch's place, as caption.writer.standardise has them.
        self.register_buffer("scale", 1 / torch.tensor(statistics["feature_std"]))
        code = place_code(patches, model.config.condition_width)
        self.register_buffer("places", code, persistent=False)
        code = statistics.get("place_scale", 1.0) * code
        self.register_buffer("shift", code - torch.tensor(statistics["feature_mean"]) * self.scale)

        self.key = linear(*(block.cross.key.weight for block in model.blocks))
        self.value = linear(*(block.cross.value.weight for block in model.blocks))
        norms = [block.cross.key_norm for block in model.blocks]
        gains = torch.stack([norm.weight.detach() for norm in norms])[:, None]  # (N, 1, head)
        head = model.config.d_model // self.heads
        self.norm = Norm(norms[0])
        # The scale of the scores sits in this gain, as in `networks.key_layout`.
        self.norm.weight = nn.Parameter(gains * head**-0.5)
        self.length_head = model.length_head

    def example(self, sizes: Sizes) -> Inputs:
        features = torch.zeros(BATCH, sizes.patches, sizes.model.condition_width)
        return {"features": Input(features, {0: "batch"}), **factor_inputs(sizes.condition)}

    def split(self, x: Tensor) -> Tensor:
        """(B, P, N*H*head) -> (B, P, N, H, head)."""
        return x.unflatten(-1, (self.layers, self.heads, -1))

    def forward(
        self, features: Tensor, factors: Factors | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, P, width) -> keys (B, N, H, head, P), values (B, N, H, P, head), lengths (B,)."""
        scale, shift = self.scale, self.shift
        if factors:  # an adapter was trained with statistics of its own
            scale = factors["statistics.scale"]
            shift = factors["statistics.place"] * self.places - factors["statistics.mean"] * scale
        seen = features * scale + shift
        keys = self.norm(self.split(self.of_blocks("key", seen, factors))).permute(0, 2, 3, 4, 1)
        values = self.split(self.of_blocks("value", seen, factors)).permute(0, 2, 3, 1, 4)
        length = self.lengths(seen, factors).argmax(-1).clamp(min=SHORTEST)
        return keys, values, length.int()

    def lengths(self, seen: Tensor, factors: Factors | None) -> Tensor:
        """Logits of the lengths: (B, P, width) -> (B, lengths). An adapter has its own head."""
        if not factors:
            return self.length_head(seen)
        own = {name: factors[WHOLE + name] for name, _ in self.length_head.named_parameters()}
        return functional_call(self.length_head, own, (seen,))

    def of_blocks(self, name: str, seen: Tensor, factors: Factors | None) -> Tensor:
        """The keys or values of all blocks: (B, P, width) -> (B, P, N*H*head).

        name.down (width, N*R) and name.up (N, R, H*head) are an adapter's, name.gain (N*H*head,)
        is as in `networks.product`.
        """
        y = getattr(self, name)(seen)
        if factors and f"{name}.down" in factors:
            # A batch of N small products: as one matrix, `up` would be zeros but for its diagonal.
            low = (seen @ factors[f"{name}.down"]).unflatten(-1, (self.layers, -1)).transpose(1, 2)
            y = y + (low @ factors[f"{name}.up"]).transpose(1, 2).flatten(2)
        if factors and f"{name}.gain" in factors:
            y = y * factors[f"{name}.gain"]
        return y


class StepGraph(nn.Module):
    """One denoiser call, for TensorRT 10.3 and other runtimes that drive the loop themselves."""

    outputs = ("logits", "likeliest", "confidence")

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def example(self, sizes: Sizes) -> Inputs:
        inputs = {**row_inputs(sizes), **condition_inputs(sizes)}
        if self.network.time is not None:
            inputs["share"] = Input(torch.zeros(BATCH), {0: "batch"})
        return inputs | factor_inputs(sizes.network)

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        share: Tensor | None = None,
        factors: Factors | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (B, L) -> logits (B, L, V'), the likeliest token and its probability, (B, L)."""
        logits = self.network(tokens, lengths, keys, values, share, factors)
        confidence = logits.log_softmax(-1).amax(-1).exp()
        return logits, logits.argmax(-1).int(), confidence


class NextGraph(nn.Module):
    """The twin's next token.

    past_keys, past_values (B, N, H, max_length, head): filled up to `position`, (1,) int32.
    """

    outputs = ("logits", "new_keys", "new_values")

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def example(self, sizes: Sizes) -> Inputs:
        model = sizes.model
        shape = (BATCH, model.layers, model.heads, model.max_length, sizes.head)
        return {
            "token": Input(integers(BATCH, 1), {0: "batch"}),
            "position": Input(integers(1)),
            # Two tensors: torch.export takes the same object for the same input.
            "past_keys": Input(torch.zeros(shape), {0: "batch"}),
            "past_values": Input(torch.zeros(shape), {0: "batch"}),
            **condition_inputs(sizes),
            **factor_inputs(sizes.network),
        }

    def forward(
        self,
        token: Tensor,
        position: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        factors: Factors | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The token (B, 1) at `position` -> logits (B, V'), and the cache with this position."""
        net = self.network
        positions = torch.arange(past_keys.shape[3], dtype=torch.int32)
        here = (positions == position)[:, None]  # (max_length, 1)
        bias = torch.where(positions <= position, 0.0, HIDDEN)
        cos, sin = net.cos.index_select(0, position), net.sin.index_select(0, position)
        x = F.embedding(token, net.embedding)  # (B, 1, D)
        all_keys, all_values = [], []
        for layer, block in enumerate(net.blocks):
            own = of_block(factors, layer)
            q, k, v = block.heads_of(x, own)
            q, k = turned(q, cos, sin), turned(k, cos, sin)
            k = torch.where(here, k, past_keys[:, layer])
            v = torch.where(here, v, past_values[:, layer])
            x = block.mix(x, q, k, v, bias, of_layer(keys, layer), of_layer(values, layer), own)
            all_keys.append(k)
            all_values.append(v)
        return net.head(net.norm(x))[:, 0], torch.stack(all_keys, 1), torch.stack(all_values, 1)
