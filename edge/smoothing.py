"""Before INT8: make loud channels quiet, and measure what the INT8 of each product costs.

SmoothQuant (Xiao et al. 2023, arXiv 2211.10438) with alpha 1/2: the loudness of a product's input
moves into its weights. The inverse factor is folded into the module before it, so the function
stays.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from loop import progress

LEFT_OUT = 3.0  # a product stays FP32 if its INT8 costs more than 3 times the median product's
SAME = 2e-3  # largest change of an encoder by smoothing: its features are rounded to float16 anyway
SMALLEST = 1e-5  # of a channel's magnitude, so that no factor is infinite


def named_products(module: nn.Module) -> dict[str, nn.Linear]:
    """The products with weights that INT8 may take, by name, in their order."""
    result = {}
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear) and not name.startswith(("time", "length_head")):
            result[name] = child
    return result


def call(network: nn.Module, state: dict) -> Tensor:
    """The network's logits (B, L, V') at a state of a real run, such as of `inputs.states`."""
    return network(**state)


def channel_sizes(x: Tensor) -> Tensor:
    """The largest magnitude of each channel: (..., in) -> (in,)."""
    return x.abs().flatten(0, -2).amax(0)


@torch.no_grad()
def input_sizes(network: nn.Module, feeds: list[dict]) -> dict[str, Tensor]:
    """The largest magnitude (in,) of each input channel of every product, over these states."""
    largest: dict[str, Tensor] = {}

    def watch(name: str):
        def hook(module, inputs):
            size = channel_sizes(inputs[0])
            largest[name] = torch.maximum(largest[name], size) if name in largest else size

        return hook

    hooks = []
    for name, product in named_products(network).items():
        hooks.append(product.register_forward_pre_hook(watch(name)))
    for state in feeds:
        call(network, state)
    for hook in hooks:
        hook.remove()
    return largest


def balance(largest: Tensor, *weights: Tensor) -> Tensor:
    """The factor (in,) that divides each input channel and multiplies its weights.

    largest: (in,) of the input. weights: of the products (out, in) that read it.
    """
    loudest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    # SmoothQuant, equation 4, with alpha 1/2.
    return (largest.clamp(min=SMALLEST) / loudest.clamp(min=SMALLEST)).sqrt()


@torch.no_grad()
def smooth(network: nn.Module, feeds: list[dict], adapters: Sequence[dict] = ()) -> None:
    """Smooth every product of `networks.Network`, in place.

    The inverse factor goes into the norm's gain, the rows that make the values, or the ungated
    rows. adapters: the factors of each (edge/adapter_inputs.py), which follow in place.
    """
    sizes = input_sizes(network, feeds)

    def fold(name: str, product: nn.Linear, before: Tensor, maker: str = "") -> None:
        """before: a gain (in,), or the last rows (in, any) of `maker`, which make this input."""
        factor = balance(sizes[name], product.weight)
        product.weight *= factor
        # Rows of a matrix make the channels, so each row has its own factor.
        before /= factor if before.ndim == 1 else factor[:, None]
        for adapter in adapters:
            if f"{name}.down" in adapter:
                adapter[f"{name}.down"] *= factor[:, None]
            if f"{maker}.up" in adapter:
                adapter[f"{maker}.up"][:, -len(factor) :] /= factor

    for number, block in enumerate(network.blocks):
        prefix = f"blocks.{number}."
        width = block.out.weight.shape[1]
        fold(prefix + "qkv", block.qkv, block.attention_norm.weight)
        fold(prefix + "out", block.out, block.qkv.weight[2 * width :], prefix + "qkv")
        if block.crossed:
            fold(prefix + "cross_query", block.cross_query, block.cross_norm.weight)
        fold(prefix + "up", block.up, block.mlp_norm.weight)
        if block.gated:
            ungated = block.up.weight[block.down.weight.shape[1] :]
            fold(prefix + "down", block.down, ungated, prefix + "up")
    fold("head", network.head, network.norm.weight)


class Readers:
    """Which products read a norm's output, seen while an encoder of any make runs."""

    def __init__(self):
        # id of an output -> its norm and the output, which is kept alive so that its id stays
        # unique
        self.source: dict[int, tuple] = {}
        self.products: dict[nn.Module, list[nn.Linear]] = {}
        self.largest: dict[nn.Module, Tensor] = {}

    def made(self, norm, inputs, output) -> None:
        self.source[id(output)] = norm, output

    def read(self, product, inputs) -> None:
        norm, x = self.source.get(id(inputs[0]), (None, None))
        if norm is not None and norm.weight is not None:
            self.products.setdefault(norm, []).append(product)
            self.largest[norm] = channel_sizes(x)

    def watch(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """Run the encoder and return its output."""
        hooks = []
        for module in encoder.modules():
            if isinstance(module, nn.LayerNorm):
                hooks.append(module.register_forward_hook(self.made))
            elif isinstance(module, nn.Linear):
                hooks.append(module.register_forward_pre_hook(self.read))
        output = encoder(images)
        for hook in hooks:
            hook.remove()
        return output


@torch.no_grad()
def smooth_encoder(encoder: nn.Module, images: Tensor) -> int:
    """Smooth a transformer of any make between its norms and the products that read them, in place.

    Returns the number of norms. If another module reads a norm's output too, the function would
    change: then nothing is smoothed, and 0 is returned.
    """
    readers = Readers()
    kept = {name: value.clone() for name, value in encoder.state_dict().items()}
    before = readers.watch(encoder, images)
    for norm, products in readers.products.items():
        factor = balance(readers.largest[norm], *(product.weight for product in products))
        for weights in (norm.weight, norm.bias):
            if weights is not None:
                weights /= factor
        for product in products:
            product.weight *= factor
    # Another reader of a norm, such as a residual sum, shows as a changed output.
    if (encoder(images) - before).abs().max() <= SAME * before.abs().max():
        return len(readers.products)
    encoder.load_state_dict(kept)
    return 0


def round_to_int8(x: Tensor, scale: Tensor) -> Tensor:
    return (x / scale).round().clamp(-127, 127) * scale


def scale_of(largest: Tensor) -> Tensor:
    """The INT8 step for values up to `largest`."""
    return largest.clamp(min=1e-12) / 127


def round_input(module, inputs) -> tuple[Tensor]:
    """A hook that rounds a product's input to INT8, with one scale for the whole tensor."""
    return (round_to_int8(inputs[0], scale_of(inputs[0].abs().amax())),)


def squared(tensors: list[Tensor]) -> float:
    return sum(float(tensor.square().sum()) for tensor in tensors)


@torch.no_grad()
def costs(products: dict[str, nn.Linear], outputs: Callable[[], list[Tensor]]) -> dict[str, float]:
    """Relative error (L2) of the outputs when one product alone is INT8, by the product's name.

    Weights are rounded per output channel, activations per tensor.
    """
    exact = outputs()
    norm = squared(exact)
    result = {}
    for name, product in progress.bar(products.items(), "cost of INT8", unit="product"):
        # One product at a time: the median over all tells which of them is unusual.
        kept = product.weight.clone()
        scale = scale_of(kept.abs().amax(1, keepdim=True))
        product.weight.copy_(round_to_int8(kept, scale))
        hook = product.register_forward_pre_hook(round_input)
        differences = [found - right for found, right in zip(outputs(), exact, strict=True)]
        result[name] = (squared(differences) / norm) ** 0.5
        hook.remove()
        product.weight.copy_(kept)
    return result


def too_costly(cost: dict[str, float]) -> list[str]:
    """The products that stay FP32: those far above the median."""
    if not cost:  # a convolutional encoder has no such products
        return []
    limit = LEFT_OUT * float(np.median(list(cost.values())))
    return [name for name, value in cost.items() if value > limit]
