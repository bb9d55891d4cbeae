"""Smaller numbers: products in float16, or in INT8 after smoothing, and what each layer's INT8 costs (floor 2).

INT8 comes twice, for no artefact is good for both machines: `dynamic` for CPUs (2.3 times FP32 on a Xeon with VNNI, and no
operator of it known to TensorRT), static symmetric Q/DQ for TensorRT (and slower than FP32 on a CPU). Only products with
weights are quantised: with everything quantised a captioner lost three times as many captions.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from base.config import SampleConfig
from edge.parity import Material, Trained, holes
from net.samplers import row_generators, sample

FP32_PARTS = (
    "normalisations",
    "softmax",
    "attention scores",
    "residual stream",
    "embedding",
    "rotary positions",
    "time embedding",
    "sampling",
)
LEFT_OUT = (
    3.0  # a layer is left in FP32 if its INT8 alone costs so many times the median layer's error
)
PRODUCTS = ["MatMul", "Conv", "Gemm"]
FEED = 16  # rows in one calibration feed


class Half(nn.Module):
    """A product in float16 whose input and output are float32: the sums inside a layer stay where they cannot overflow."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner.half()

    @property
    def weight(self) -> torch.Tensor:
        return (
            self.inner.weight
        )  # ViT asks for its type before it calls the layer, SigLIP's pooling for the bias too

    @property
    def bias(self) -> torch.Tensor | None:
        return self.inner.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.half()).float()


def halve(module: nn.Module) -> None:
    """Every product with weights below `module` in float16, in place; all of FP32_PARTS stays."""
    for name, child in module.named_children():
        if name in ("time", "length_head"):
            continue
        if isinstance(child, (nn.Linear, nn.Conv2d)):
            setattr(module, name, Half(child))
        else:
            halve(child)


@torch.no_grad()
def states(trained: Trained, material: Material, steps: int = 8) -> Iterator[dict]:
    """Real intermediate states of the denoising, all noise levels, FEED rows each: what StepGraph sees, as torch tensors."""
    model, tokenizer = trained.model, trained.tokenizer
    for first in range(0, len(material.rows), FEED):
        rows = material.rows[first : first + FEED]
        tokens, sizes = (torch.from_numpy(part) for part in holes(rows, tokenizer, 1.0))
        condition, seen, given = None, [], {}
        if material.images is not None:
            images = material.images[first : first + FEED]
            condition = model.keys_values(trained.seen(trained.features(images)))
            head = model.config.d_model // model.config.heads
            given = {
                "keys": torch.stack([k.mT for k, _ in condition], 1) * head**-0.5,
                "values": torch.stack([v for _, v in condition], 1),
            }
        inner = model.bind(sizes, condition)

        def denoise(tokens, share, select, inner=inner, seen=seen):
            seen.append((tokens.int(), share.float()))
            return inner(tokens, share, select)

        sample(
            denoise,
            tokens.long(),
            SampleConfig("confidence", steps, temperature=0.0),
            mask_id=tokenizer.mask,
            rngs=row_generators(0, len(rows)),
        )
        for tokens, share in seen:
            yield {"tokens": tokens, "lengths": sizes.int(), "share": share, **given}


def named_linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and not name.startswith(("time", "length_head"))
    }


def call(network: nn.Module, state: dict) -> torch.Tensor:
    return network(
        state["tokens"], state["lengths"], state.get("keys"), state.get("values"), state["share"]
    )


@torch.no_grad()
def input_sizes(network: nn.Module, feeds: list[dict]) -> dict[str, torch.Tensor]:
    """The largest magnitude of each input channel of every product, over these states."""
    largest: dict[str, torch.Tensor] = {}

    def watch(name):
        def hook(module, inputs):
            size = inputs[0].abs().flatten(0, -2).amax(0)
            largest[name] = torch.maximum(largest[name], size) if name in largest else size

        return hook

    hooks = [
        child.register_forward_pre_hook(watch(name))
        for name, child in named_linears(network).items()
    ]
    for state in feeds:
        call(network, state)
    for hook in hooks:
        hook.remove()
    return largest


def balance(largest: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    """What each input channel of these products (out, in) is divided by and its weights multiplied with: (in,)."""
    return (
        largest.clamp(min=1e-5)
        / torch.stack([one.abs().amax(0) for one in weights]).amax(0).clamp(min=1e-5)
    ).sqrt()


@torch.no_grad()
def smooth(network: nn.Module, feeds: list[dict]) -> None:
    """SmoothQuant (Xiao et al. 2023, arXiv 2211.10438) with alpha 1/2: what is loud in a product's input goes into its weights.

    The inverse factor is folded into what comes before: the norm's gain, the value rows, the ungated rows. The function stays.
    """
    sizes = input_sizes(network, feeds)

    def fold(name: str, product: nn.Linear, *before: torch.Tensor) -> None:
        factor = balance(sizes[name], product.weight)
        product.weight *= factor
        for part in before:  # (in,) a gain, or (in, any) the rows that make this input
            part /= factor if part.ndim == 1 else factor[:, None]

    for number, block in enumerate(network.blocks):
        width, at = block.out.weight.shape[1], f"blocks.{number}."
        fold(at + "qkv", block.qkv, block.attention_norm.weight)
        fold(at + "out", block.out, block.qkv.weight[2 * width :])
        if block.crossed:
            fold(at + "cross_query", block.cross_query, block.cross_norm.weight)
        fold(at + "up", block.up, block.mlp_norm.weight)
        if block.gated:
            fold(at + "down", block.down, block.up.weight[block.down.weight.shape[1] :])
    fold("head", network.head, network.norm.weight)


@torch.no_grad()
def smooth_encoder(encoder: nn.Module, images: torch.Tensor) -> int:
    """The same for a transformer of any make: between its norms and the products that are seen to read them. Returns the number of norms.

    If a norm's output went somewhere else too, the function would change; then nothing is smoothed, and it returns 0.
    """
    source, readers, largest = (
        {},
        {},
        {},
    )  # of each norm's output, kept alive so that its id stays its own

    def made(norm, inputs, output):
        source[id(output)] = norm, output

    def read(product, inputs):
        norm, x = source.get(id(inputs[0]), (None, None))
        if norm is not None and norm.weight is not None:
            readers.setdefault(norm, []).append(product)
            largest[norm] = x.abs().flatten(0, -2).amax(0)

    hooks = [
        one.register_forward_hook(made)
        for one in encoder.modules()
        if isinstance(one, nn.LayerNorm)
    ]
    hooks += [
        one.register_forward_pre_hook(read)
        for one in encoder.modules()
        if isinstance(one, nn.Linear)
    ]
    before, kept = (
        encoder(images),
        {name: value.clone() for name, value in encoder.state_dict().items()},
    )
    for hook in hooks:
        hook.remove()
    for norm, products in readers.items():
        factor = balance(largest[norm], *(product.weight for product in products))
        for part in (norm.weight, norm.bias):
            if part is not None:
                part /= factor
        for product in products:
            product.weight *= factor
    if (
        encoder(images) - before
    ).abs().max() <= 2e-3 * before.abs().max():  # features are rounded to float16
        return len(readers)
    encoder.load_state_dict(kept)
    return 0


def round_to_int8(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (x / scale).round().clamp(-127, 127) * scale


@torch.no_grad()
def costs(
    products: dict[str, nn.Linear], outputs: Callable[[], list[torch.Tensor]]
) -> dict[str, float]:
    """Relative error of the outputs (L2) when one product alone is INT8: weights by channel, activations by tensor."""
    exact, result = outputs(), {}
    norm = sum(float(one.square().sum()) for one in exact)
    for name, product in products.items():
        kept = product.weight.clone()
        product.weight.copy_(
            round_to_int8(kept, kept.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127)
        )
        hook = product.register_forward_pre_hook(
            lambda module, inputs: (
                round_to_int8(inputs[0], inputs[0].abs().amax().clamp(min=1e-12) / 127),
            )
        )
        result[name] = (
            sum(
                float((found - one).square().sum())
                for found, one in zip(outputs(), exact, strict=True)
            )
            / norm
        ) ** 0.5
        hook.remove()
        product.weight.copy_(kept)
    return result


def too_costly(cost: dict[str, float]) -> list[str]:
    """The layers that stay FP32: those far above the median."""
    return [
        name
        for name, value in cost.items()
        if value > LEFT_OUT * float(np.median(list(cost.values())))
    ]


def holding(path: Path, weights: list[torch.Tensor]) -> list[str]:
    """The names of a graph's products with these weights (out, in)."""
    import onnx

    graph = onnx.load(path).graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    wanted = [weight.numpy() for weight in weights]
    return [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and node.input[1] in constants
        and any(
            np.array_equal(turned, weight)
            for weight in wanted
            for turned in (constants[node.input[1]], constants[node.input[1]].T)
        )
    ]


def without_weights(path: Path) -> list[str]:
    """The names of a graph's products of two activations: attention's scores and what they weigh."""
    import onnx

    graph = onnx.load(path).graph
    constants = {one.name for one in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in PRODUCTS and not constants & set(node.input)
    ]


def node_names(network: nn.Module, kept: list[str]) -> list[str]:
    """The names that the exporter gives the products of `kept`: it numbers them in the order in which they run, which is ours."""
    before = 0 if network.time is None else 2  # the time embedding's two run first, and stay
    return numbered(
        [
            *range(before),
            *(place for place, name in enumerate(named_linears(network), before) if name in kept),
        ]
    )


def numbered(places: list[int]) -> list[str]:
    """The exporter's names of these products; with a bias they are Gemm, which the quantiser renames before it looks."""
    return [
        f"node_linear_{place}{end}" if place else f"node_linear{end}"
        for place in places
        for end in ("", "_MatMul")
    ]


@contextlib.contextmanager
def quiet():
    """Without the quantiser's advice to run its pre-processing, which finds nothing to do in these graphs."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def dynamic(path: Path, target: Path, keep: list[str] = ()) -> None:
    """INT8 weights by channel, activations quantised as they come: for CPUs. Reaches into the Loop."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            path,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep),
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )


def static(path: Path, target: Path, feeds: list[dict], keep: list[str] = ()) -> None:
    """Symmetric INT8 Q/DQ with weights by channel, calibrated on these feeds: for TensorRT.

    Inputs and weights of products with weights only. Their outputs go into sums and norms: rounding them too made up to three times the
    error. The quantiser's own MatMulConstBOnly leaves attention's scores in, which cost more than all the rest (LOG.md).
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter(feeds)

        def get_next(self):
            return next(self.rest, None)

    with quiet():
        quantize_static(
            path,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=PRODUCTS,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*keep, *without_weights(path)],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": PRODUCTS,
            },
        )


def lower(
    network: nn.Module, modules: dict, feeds: list[dict], images: np.ndarray | None = None
) -> dict:
    """Before the export: halve the products, or smooth them and find what INT8 would cost. Returns what bundle.json says of it."""
    if not feeds:
        for module in modules.values():
            halve(module)
        return {"fp32_parts": FP32_PARTS}
    smooth(network, feeds)
    some = feeds[:: max(1, len(feeds) // 8)]
    cost = costs(named_linears(network), lambda: [call(network, state) for state in some])
    notes = {
        "cost": cost,
        "left_in_fp32": too_costly(cost),
        "calibrated_on_states": sum(len(feed["tokens"]) for feed in feeds),
    }
    if images is not None:
        encoder, few = modules["encoder"], torch.from_numpy(images[:8])
        smoothed = smooth_encoder(encoder, torch.from_numpy(images[:FEED]))
        cost = costs(named_linears(encoder), lambda: [encoder(few)])
        notes |= {
            "encoder_cost": cost,
            "encoder_left_in_fp32": too_costly(cost),
            "encoder_norms_smoothed": smoothed,
        }
    return notes


def quantize(
    made: Path,
    network: nn.Module,
    modules: dict,
    notes: dict,
    feeds: list[dict],
    images: np.ndarray | None,
) -> None:
    """Replace every graph by its dynamic INT8 form, and write NAME.tensorrt.onnx, the static one, of those that TensorRT runs."""
    import onnxruntime

    inside, length_head = (
        node_names(network, notes["left_in_fp32"]),
        numbered([2, 3, 4]),
    )  # condition's products: keys, values, length
    keep = {"step": inside, "loop": inside, "next": inside, "condition": length_head}
    if images is not None:
        products = named_linears(modules["encoder"])
        keep["encoder"] = holding(
            made / "encoder.onnx",
            [products[name].weight.detach() for name in notes["encoder_left_in_fp32"]],
        )
    arrays = [{name: value.numpy() for name, value in feed.items()} for feed in feeds]
    pieces = (
        []
        if images is None
        else [{"image": images[at : at + FEED]} for at in range(0, len(images), FEED)]
    )
    for name in ("encoder", "condition", "step", "loop", "next"):
        path = made / f"{name}.onnx"
        if path.exists():
            if name in ("encoder", "condition", "step"):
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                wanted = [one.name for one in session.get_inputs()]
                given = arrays if name == "step" else pieces
                static(
                    path,
                    made / f"{name}.tensorrt.onnx",
                    [{key: feed[key] for key in wanted} for feed in given],
                    keep.get(name, ()),
                )
                if name == "encoder":
                    pieces = [{"features": session.run(None, piece)[0]} for piece in pieces]
            dynamic(path, path, keep.get(name, ()))
