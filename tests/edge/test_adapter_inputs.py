"""Adapters as inputs: the networks with them are the merged networks, and one bundle holds all."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from base import bundle
from base.config import ModelConfig
from base.files import UserError
from base.runtime import Runner
from edge import adapter_inputs, graphs, inputs, parity, roofline, smoothing, tensorrt
from edge.adapter_inputs import Layout, Variant, parse
from edge.inputs import Trained
from edge.networks import Network
from net import adapters, soft_masks
from tests.making.bundles import export

SIZE = ModelConfig(
    vocab_size=13, output_size=10, max_length=8, d_model=16, heads=2, layers=2, condition_width=6
)
KINDS = (
    {"lora_rank": 3},
    {"lora_rank": 2, "lora_targets": "query,out,up", "lora_root": True},
    {"lora_rank": 2, "lora_targets": "value,down", "lora_norm": True},
)
STATISTICS = {"feature_mean": [0.1] * 6, "feature_std": [0.5] * 6, "place_scale": 0.3}


def make(seed: int | None = None, **settings) -> nn.Module:
    """A base, or the same base with an adapter of this seed."""
    torch.manual_seed(0)
    model = soft_masks.build(SIZE).eval()
    for block in model.blocks:
        nn.init.constant_(block.cross.gate, 0.7)
    if seed is not None:
        adapters.adapt(model, dataclasses.replace(SIZE, **settings))
        adapters.begin(model)
        rng = torch.Generator().manual_seed(seed)
        for name, weight in model.named_parameters():
            if adapters.is_own(name):
                weight.data = weight + 0.1 * torch.randn(weight.shape, generator=rng)
    return model


@pytest.fixture(scope="module")
def variants() -> list[Variant]:
    """A base and an adapter of each kind, with what the graphs read of them."""
    models = [make(), *(make(seed, **how) for seed, how in enumerate(KINDS))]
    found = [adapter_inputs.low_rank(model) for model in models]
    layout, result = Layout(found), []
    for number, (model, own) in enumerate(zip(models, found, strict=True)):
        mean = [0.1 * number] * 6
        saved = {"statistics": {**STATISTICS, "feature_mean": mean}}
        trained = Trained(adapters.merge(model), None, saved)
        variant = Variant(str(number), trained, layout.network(model, own))
        variant.condition = layout.condition(trained, own)
        result.append(variant)
    return result


def example(variant: Variant) -> tuple[dict, torch.Tensor]:
    """What the network reads, and the logits of the merged network."""
    rng = torch.Generator().manual_seed(1)
    tokens, lengths = torch.randint(13, (3, 8), generator=rng), torch.tensor([8, 7, 5])
    model = variant.trained.model
    condition = model.keys_values(torch.randn(3, 4, 6, generator=rng))
    given = variant.trained.graph_condition(condition)
    state = {"tokens": tokens.int(), "lengths": lengths.int(), **given, "factors": variant.network}
    real = torch.arange(8) < lengths[:, None]
    return state, model(tokens, lengths=lengths, condition=condition)[real]


@torch.no_grad()
def largest_error(network: Network, variant: Variant) -> float:
    state, expected = example(variant)
    real = torch.arange(8) < state["lengths"][:, None]
    return float((network(**state)[real] - expected).abs().max() / expected.abs().max())


def test_the_network_with_an_adapter_is_the_merged_network(variants):
    """All kinds from one network; without their numbers it is another network."""
    network = Network(variants[0].trained.model)
    shapes = {name: factor.shape for name, factor in variants[0].network.items()}
    for variant in variants:
        assert {name: factor.shape for name, factor in variant.network.items()} == shapes
        assert largest_error(network, variant) < 2e-6
    for variant in variants[1:]:
        state, expected = example(variant)
        state["factors"] = variants[0].network
        assert largest_error(network, dataclasses.replace(variant, network={})) > 1e-3
    # Ranks 3, 3 and 3 of query, key and value side by side; DoRA's gain only where an adapter has it.
    assert shapes["blocks.1.qkv.down"] == (16, 9) and shapes["blocks.1.qkv.up"] == (9, 48)
    assert "blocks.0.down.gain" in shapes and "blocks.0.up.gain" not in shapes


@torch.no_grad()
def test_zeros_change_no_bit(variants):
    state, _ = example(variants[0])
    network = Network(variants[0].trained.model)
    plain = {name: value for name, value in state.items() if name != "factors"}
    assert torch.equal(network(**state), network(**plain))


@torch.no_grad()
def test_the_condition_with_an_adapter_is_the_merged_networks(variants):
    """Keys, values and lengths, with the adapter's own statistics and its own head."""
    base = variants[0].trained
    graph = graphs.ConditionGraph(base.model, base.saved["statistics"], patches=4)
    features = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(3))
    for variant in variants:
        seen = variant.trained.standardised(features)
        model = variant.trained.model
        expected = variant.trained.graph_condition(model.keys_values(seen))
        keys, values, lengths = graph(features, variant.condition)
        torch.testing.assert_close(keys, expected["keys"], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(values, expected["values"], atol=2e-5, rtol=1e-5)
        likeliest = model.length_logits(seen).argmax(-1).clamp(min=graphs.SHORTEST)
        assert torch.equal(lengths.long(), likeliest)


def test_smoothing_keeps_every_variant(variants):
    """SmoothQuant moves factors between the weights; the adapters must follow."""
    network, copies = Network(variants[0].trained.model), []
    for variant in variants:
        own = {name: factor.clone() for name, factor in variant.network.items()}
        copies.append(dataclasses.replace(variant, network=own))
    before = network.blocks[0].up.weight.clone()
    feeds = [example(variant)[0] for variant in copies]
    smoothing.smooth(network, feeds, [variant.network for variant in copies])
    assert not torch.allclose(before, network.blocks[0].up.weight, rtol=0.05)
    for variant in copies:
        assert largest_error(network, variant) < 1e-5


def test_the_words_of_the_flag(tmp_path):
    odd = tmp_path / "a=b.safetensors"
    odd.touch()
    assert parse(None) == (None, {})
    assert parse(["runs/x.safetensors"]) == ("runs/x.safetensors", {})
    assert parse([str(odd)]) == (str(odd), {})  # a file that is there is no NAME=FILE
    assert parse(["a=x=y"]) == (None, {"a": "x=y"})
    assert parse(["a=x", "b-2=y"]) == (None, {"a": "x", "b-2": "y"})
    for words, message in (
        (["x", "y"], "--adapter x among 2; expected a name for each"),
        (["a=x", "y"], "--adapter y among 2"),
        (["a=x", "a=y"], "--adapter a twice"),
        (["base=x"], "--adapter base=x; expected NAME=FILE"),
        (["../a=x", "b=y"], "NAME of at most 40 letters"),
        (["a="], "write NAME=FILE"),
    ):
        with pytest.raises(UserError, match=message):
            parse(words)


def sizes(folder, *patterns: str) -> int:
    return sum(path.stat().st_size for what in patterns for path in folder.glob(what))


@pytest.mark.parametrize("kind", ["texts", pytest.param("captions", marks=pytest.mark.long)])
def test_one_bundle_holds_all(kind, request):
    """The gate compared each adapter with torch; all of them write, and write other texts."""
    root = request.getfixturevalue(f"adapted_{kind}")
    facts = bundle.read(root / "bundle")
    assert facts["format"] == bundle.ADAPTED and list(facts["adapters"]) == ["base", "one", "two"]
    rows = {row["what"]: row for row in facts["parity"]}
    for name in ("texts, as shipped", "texts, 8 steps", "texts, as shipped (step by step)"):
        for start in ("", "one: ", "two: "):
            assert rows[start + name]["identical"] == 1.0
    golden = bundle.golden(root / "bundle")
    texts = [golden[f"as_shipped{end}"].tolist() for end in ("", ".one", ".two")]
    assert texts[0] != texts[1] != texts[2] != texts[0]
    if kind == "captions":
        assert rows["two: texts, single file"]["identical"] == 1.0
    # A merged bundle has the graphs of this bundle without the adapters' products.
    adapted = sizes(root / "bundle", "*.onnx", "adapters/*")
    merged = sizes(request.getfixturevalue("texts_bundled")[0].bundle, "*.onnx")
    if kind == "captions":
        merged = sizes(request.getfixturevalue("bundled").bundle, "*.onnx")
    assert adapted < 2 * merged


@pytest.mark.long  # the bundle takes a minute of a core
def test_the_graphs_of_an_adapted_bundle(adapted_captions):
    """TensorRT reads them; the roofline counts the adapter; the loop copies no factor."""
    folder = adapted_captions / "bundle"
    facts = bundle.read(folder)
    factors = bundle.arrays(folder / "adapters" / "one.npz", "")
    for name in ("condition", "step"):
        assert tensorrt.lint(folder / f"{name}.onnx") == []
        given = {value.name: value for value in onnx.load(folder / f"{name}.onnx").graph.input}
        free = tensorrt.shapes(facts, name)
        assert given.keys() - free.keys() == given.keys() & factors.keys()
        own = sum(factors[key].nbytes for key in given.keys() & factors.keys())
        assert roofline.adapter_bytes(folder / f"{name}.onnx") == own > 0
    loop = next(
        node for node in onnx.load(folder / "loop.onnx").graph.node if node.op_type == "Loop"
    )
    assert not factors.keys() & set(loop.input)
    with pytest.raises(UserError, match="--adapter three; expected one of base, one, two"):
        Runner(folder, adapter="three")


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_numbers_with_adapters(adapted_texts, precision, monkeypatch, tmp_path):
    """The thin products stay FP32, and an adapter costs no more than the base."""
    loose = {"logits": 0.5, "divergence": 1.0, "texts": 0.0}  # 16 channels are narrow for INT8
    limits = parity.TOLERANCES[precision] | loose
    monkeypatch.setitem(parity.TOLERANCES, precision, limits)
    words = []
    for name in ("one", "two"):
        words.append(f"{name}={adapted_texts / name / 'adapter.safetensors'}")
    flags = ["--precision", precision, "--calibration", "4", "--inputs", "4", "--no-code"]
    path, data = adapted_texts / "run" / "best.pt", adapted_texts / "data"
    out = export(path, data, tmp_path / "bundle", *flags, "--tensorrt", "--adapter", *words)
    rows = {row["what"]: row for row in bundle.read(out)["parity"]}
    error = {start: rows[start + "logits, 55% masked"]["error"] for start in ("", "one: ", "two: ")}
    # Of the logits' size. Adapters that do not follow the smoothing have errors near 1.
    assert max(error.values()) < max(3 * error[""], 0.05)
    weights = onnx.load(out / "step.onnx").graph.initializer
    small = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
    assert sum(weight.data_type == small and len(weight.dims) == 2 for weight in weights) >= 4


@pytest.mark.long  # the bundle takes a minute of a core
def test_a_runner_changes_its_adapter(adapted_captions):
    """In one session, and back."""
    runner = Runner(adapted_captions / "bundle", adapter="one")
    images = bundle.golden(runner.folder)["images"][:2]
    first = runner.write(images, runner.settings)
    runner.choose("two")
    assert runner.write(images, runner.settings) != first
    runner.choose("one")
    assert runner.write(images, runner.settings) == first


def test_states_carry_the_adapter(adapted_texts):
    trained = inputs.open_trained(adapted_texts / "run" / "best.pt")
    material = inputs.real_inputs(trained, adapted_texts / "data", "val", 2)
    factors = {"blocks.0.out.down": torch.ones(2)}
    state = next(inputs.states(trained, material, factors=factors))
    assert state["factors"] is factors
    arrays = inputs.as_arrays(state)
    assert "factors" not in arrays and (arrays["blocks.0.out.down"] == np.ones(2)).all()
