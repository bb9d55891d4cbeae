"""To the edge: graphs equal to torch, bundles that prove themselves, run without torch, and refuse what is damaged."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import export_onnx
import generate_caption
import infer_onnx
from base import bundle, decoding
from base.config import ModelConfig, SampleConfig
from base.files import UserError
from base.runtime import Runner
from caption import data as caption_data
from caption import writer
from edge import engines, graphs, latency, operators, parity, quantization, roofline
from loop import checkpoint
from model import Denoiser
from net import image_encoders
from tests.making.captioned import make_captioner, make_captions, save_encoder
from tests.making.corpus import make_data, make_run

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_captions(tmp_path_factory.mktemp("edge") / "data")


def decisive(path):
    """A hardly trained model with louder weights: its choices are arbitrary but clear, where near ties would be a coin's."""
    saved = torch.load(path, weights_only=True)
    for weights in filter(None, (saved["weights"], saved["averaged"])):
        for name, weight in weights.items():
            if weight.ndim == 2 and not name.startswith("length"):
                weight *= 15 if name == "embedding.weight" else 4
            if name.endswith("cross.gate"):
                weight += 0.5
    checkpoint.save(path, saved)
    return path


@pytest.fixture(scope="module")
def captioner(data):
    return decisive(
        make_captioner(
            data, data.parent / "run", "--time_conditioning", "sinusoidal", "--layers", "1"
        )
        / "best.pt"
    )


def export(path, data, out, *flags):
    export_onnx.main(
        [
            "--checkpoint",
            str(path),
            "--data_dir",
            str(data),
            "--out",
            str(out),
            "--threads",
            "1",
            *flags,
        ]
    )
    return out


@pytest.fixture(scope="module")
def made(data, captioner):
    """A captioner's bundle; its export has passed the gate, on the split's 8 pictures."""
    return export(captioner, data, data.parent / "bundle")


def picture(data):
    return caption_data.image_path(
        data, next(one for one in caption_data.read_records(data) if one["split"] == "val")
    )


def resealed(made, out, change):
    """A copy of a bundle, changed and given right checksums again."""
    shutil.copytree(made, out)
    facts = bundle.read(out)
    change(out, facts)
    bundle.seal(
        out,
        {
            name: value
            for name, value in facts.items()
            if name not in ("files", "checksum", "format")
        }
        | {name: facts[name] for name in ("format",) if facts["format"] != bundle.FORMAT},
    )
    return out


def test_schedule_is_the_samplers():
    from diffusion import Schedule
    from net.samplers import Progress, paced

    for name in ("linear", "cosine", "polynomial"):
        for steps in (1, 3, 6, 32):
            table = decoding.schedule_table(SampleConfig(steps=steps, schedule=name), 9)
            masked = torch.arange(10)[:, None] > torch.arange(9)
            for step in range(steps):
                shown = paced(
                    Progress(masked, masked, torch.full((10,), step), torch.full((10,), steps)),
                    Schedule(name),
                )
                assert (np.arange(10) - table[:, step] == shown.numpy()).all()


def test_report_says_every_graph_was_compared(made):
    facts = bundle.read(made)
    names = {row["what"] for row in facts["parity"]}
    assert {
        "features",
        "keys",
        "values",
        "lengths",
        "logits, 55% masked",
        "texts, as shipped",
        "texts, until all are sure",
        "texts, with noise",
        "texts, random order, noise",
        "texts, looking back",
        "divergence, 100% masked",
        "texts, single file",
        "texts, as shipped (step by step)",
    } <= names
    assert all(row.get("identical", 1.0) == 1.0 and row["inputs"] >= 8 for row in facts["parity"])
    assert set(facts["files"]) == {str(p.relative_to(made)) for p in bundle.contents(made)}
    assert set(facts["files"]) > {"infer_onnx.py", "requirements-jetson.txt", "base/runtime.py"}


def test_captions_are_scored_by_truth_or_by_references(made, captioner, data):
    """The bundle's and torch's: of scenes, and of the same pictures as if nothing but their captions were known."""
    trained = export_onnx.open_trained(captioner)
    material = export_onnx.real_inputs(trained, data, "val", 8)
    for keys in ({"images", "truthful", "set_exact"}, {"images", "bleu_4", "cider"}):
        found = parity.scores(trained, Runner(made), material)
        assert (
            found["bundle"] == found["torch"]
            and set(found["torch"]) == keys
            and found["torch"]["images"] == 8
        )
        for record in material.records:
            record["scene"] = None


def test_graphs_are_as_promised(made):
    for name in ("encoder", "condition", "step", "loop", "captioner"):
        proto = onnx.load(made / f"{name}.onnx")
        assert [one.version for one in proto.opset_import if one.domain == ""] == [
            18
        ] and proto.ir_version <= 10
        about = {one.key: one.value for one in proto.metadata_props}
        assert about["graph"] == name and about["build"] == bundle.read(made)["build"]
        assert all(
            one.type.tensor_type.elem_type != onnx.TensorProto.INT64
            for one in [*proto.graph.input, *proto.graph.output]
        )
        text = proto.SerializeToString()
        assert str(ROOT).encode() not in text and b"site-packages" not in text, (
            "a stack trace of this machine"
        )
    loop = onnx.load(made / "loop.onnx")
    assert [node.op_type for node in loop.graph.node].count("Loop") == 1


def test_bundle_writes_what_generate_caption_writes(data, captioner, made, capsys):
    """The shell's way on both sides: same flags, same seed, same words."""
    flags = [
        "--image",
        str(picture(data)),
        "--num_samples",
        "3",
        "--temperature",
        "0.9",
        "--sampler",
        "first_hitting",
        "--steps",
        "5",
        "--seed",
        "7",
    ]
    for more in (
        [],
        ["--text", "a [MASK*2] red [MASK]"],
        ["--text", "a [MASK*2] red [MASK]", "--sampler", "confidence", "--revise", "1"],
    ):
        capsys.readouterr()
        infer_onnx.main(["--bundle", str(made), *flags, *more])
        ours = capsys.readouterr().out
        generate_caption.main(
            ["--checkpoint", str(captioner), *flags, *(["--template", *more[1:]] if more else [])]
        )
        theirs, count = re.subn(
            r" {3}\([\d.]+ nats/token\)\n", "\n", capsys.readouterr().out
        )  # hardly trained, it may write line breaks
        assert ours == theirs and count == 3


def test_numpy_and_the_loop_graph_agree_on_every_sampler(made):
    """tokens, steps, probabilities and the number of calls, at odd batch sizes."""
    step, loop = Runner(made, for_tensorrt=True), Runner(made)
    golden = np.load(made / "golden.npz")
    for rows, settings in (
        (1, SampleConfig("confidence", 3, "cosine", 0.0)),
        (3, SampleConfig("threshold", 9, temperature=0.0, threshold=0.004)),
        (5, SampleConfig("left_to_right", 4, temperature=1.0)),
        (8, SampleConfig("first_hitting", 40, "polynomial", 0.7)),
    ):
        condition, lengths = loop.condition(golden["images"][:rows])
        tokens, lengths = loop.blanks(lengths, None)
        one, two = (
            loop.fill(tokens, lengths, condition, settings, 3),
            step.fill(tokens, lengths, condition, settings, 3),
        )
        assert (
            (one[0] == two[0]).all()
            and (one[1] == two[1]).all()
            and np.allclose(one[2], two[2], atol=1e-5)
            and (one[3] == two[3]).all()
        )
        assert not (one[0] == loop.tokenizer.mask).any()


def test_a_bundle_looks_back_as_torch_does(made, captioner):
    """ids, the call of each, its probability and the calls of a row, greedily and drawn, whichever graph writes the first draft."""
    trained, golden = export_onnx.open_trained(captioner), np.load(made / "golden.npz")
    seen = trained.seen(trained.features(golden["images"]))
    for settings in (
        SampleConfig("confidence", 2, temperature=0.0, revise=1),
        SampleConfig("threshold", 9, temperature=0.9, threshold=0.004, revise=2),
        SampleConfig("first_hitting", 2, temperature=0.0, revise=1),
    ):
        expected = writer.write(
            trained.model, trained.tokenizer, "diffusion", seen, settings, seed=3
        )
        drafts = writer.write(
            trained.model, trained.tokenizer, "diffusion", seen, replace(settings, revise=0), seed=3
        )
        assert [one.ids for one in drafts] != [one.ids for one in expected]
        for runner in (Runner(made), Runner(made, for_tensorrt=True)):
            found = runner.write(golden["images"], settings, seed=3)
            assert [(one.ids, one.step, one.calls) for one in found] == [
                (one.ids, one.step, one.calls) for one in expected
            ]
            assert np.allclose(
                sum((one.probability for one in found), []),
                sum((one.probability for one in expected), []),
                atol=1e-4,
            )
    with pytest.raises(UserError, match="--revise with first_hitting"):
        Runner(made).write(
            golden["images"], SampleConfig("first_hitting", 2, temperature=1.0, revise=1)
        )


def test_a_bundle_needs_nothing_of_the_project(made, data, tmp_path):
    """Copied away, torch and transformers not importable, other working folder: self-test and a caption."""
    away = shutil.copytree(made, tmp_path / "away")
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, onnx=None); sys.path[:0] = ['.']; import infer_onnx; "
        "sys.exit(infer_onnx.main(sys.argv[1:]))"
    )
    for flags in (
        ["--self_test", "--threads", "1"],
        ["--self_test", "--threads", "1", "--low_memory"],
        ["--image", str(picture(data)), "--json", "out.jsonl"],
    ):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, *flags], cwd=away, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert (
        "self-test passed"
        in subprocess.run(
            [sys.executable, "infer_onnx.py", "--self_test", "--threads", "1"],
            cwd=away,
            capture_output=True,
            text=True,
        ).stdout
    )
    assert json.loads((away / "out.jsonl").read_text())["caption"]


def test_a_changed_byte_anywhere_is_an_error(made, data, tmp_path):
    flags = ["--image", str(picture(data)), "--threads", "1"]
    for path in [*bundle.contents(made), made / "bundle.json"]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(made, copy)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        (copy / path.relative_to(made)).write_bytes(raw)
        with pytest.raises(UserError, match="changed|JSON|format"):
            infer_onnx.main(["--bundle", str(copy), *flags])
        (copy / path.name).unlink()
        with pytest.raises(UserError, match="found no .*" + re.escape(path.name)):
            infer_onnx.main(["--bundle", str(copy), *flags])


def test_other_bad_input_is_one_line_and_status_2(made, data, tmp_path):
    def old_format(out, facts):
        facts["format"] = 99

    def other_opset(out, facts):
        proto = onnx.load(out / "encoder.onnx")
        proto.opset_import[0].version = 99
        (out / "encoder.onnx").write_bytes(proto.SerializeToString())

    def other_build(out, facts):
        facts["build"] = "another"

    cut = tmp_path / "cut.png"
    cut.write_bytes(picture(data).read_bytes()[:-200])
    small = tmp_path / "cut.jpg"
    Image.open(picture(data)).save(small)
    small.write_bytes(small.read_bytes()[:400])
    good = ["--image", str(picture(data))]
    for folder, flags, words in (
        (resealed(made, tmp_path / "a", old_format), good, "format 99"),
        (resealed(made, tmp_path / "b", other_opset), good, "does not run"),
        (resealed(made, tmp_path / "c", other_build), good, "another bundle"),
        (made, [*good, "--provider", "tensorrt"], "lacks"),
        (made, [*good, "--provider", "tpu"], "lacks"),
        (made, ["--image", str(cut)], "damaged"),
        (made, ["--image", str(small)], "damaged"),
        (made, [*good, "--sampler", "remask"], "graphs know"),
        (made, [*good, "--text", "no blank"], "blanks"),
        (made, ["--camera", "0"], "OpenCV|camera"),
        (made, [], "no picture"),
        (tmp_path, good, "no .*bundle.json"),
    ):
        done = subprocess.run(
            [sys.executable, "infer_onnx.py", "--bundle", str(folder), *flags],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (
            done.returncode == 2
            and done.stdout == ""
            and done.stderr.count("\n") == 1
            and re.search(words, done.stderr)
        ), done.stderr


def test_an_export_that_fails_the_gate_leaves_nothing(made, data, captioner, monkeypatch):
    """The graphs are those of the fixture; the trained model is another by one weight matrix."""
    before, opened = (made / "bundle.json").read_bytes(), export_onnx.open_trained(captioner)
    opened.model.blocks[0].attention.value.weight.data *= 1.01
    monkeypatch.setattr(export_onnx, "open_trained", lambda path: opened)
    monkeypatch.setattr(
        graphs, "export", lambda module, name, path, *rest: shutil.copy(made / path.name, path)
    )
    with pytest.raises(UserError, match="logits, 15% masked with an error"):
        export(captioner, data, made)
    assert (made / "bundle.json").read_bytes() == before and not list(made.parent.glob(".*tmp*"))
    with pytest.raises(UserError, match="which is no bundle"):
        export(captioner, data, data)
    with pytest.raises(UserError, match="--opset 17"):
        export(captioner, data, data, "--opset", "17")


def test_tensorrt_is_asked_in_its_own_words(made, monkeypatch):
    """The commands, the lint, and ONNX Runtime's provider against a fake of the module: no TensorRT was ever at hand."""
    facts = bundle.read(made)
    words = engines.build(facts, "step")
    size = facts["model"]
    shape = f"1x{size['layers']}x{size['heads']}x{size['d_model'] // size['heads']}x64"
    assert words[:3] == [
        "/usr/src/tensorrt/bin/trtexec",
        "--onnx=step.onnx",
        f"--saveEngine=engines/step-{facts['build']}.plan",
    ]
    at = f"tokens:1x{size['max_length']},lengths:1,keys:{shape},"
    assert all(
        any(word.startswith(f"--{which}Shapes={at}") for word in words)
        for which in ("min", "opt", "max")
    )
    assert {
        "--stronglyTyped",
        "--memPoolSize=workspace:1024",
        "--timingCacheFile=engines/timing.cache",
        "--skipInference",
    } <= set(words)
    assert not {"--fp16", "--int8", "--workspace"} & set(
        " ".join(words).replace("=", " ").split()
    )  # gone in TensorRT 11
    given = {one.name: tuple(one.shape[1:]) for one in Runner(made).session("step").get_inputs()}
    assert {
        name: shape[1:] for name, shape in engines.shapes(facts, "step").items()
    }.keys() == given.keys()
    assert (
        engines.script(facts).count("--saveEngine=")
        == 3
        == engines.script(facts).count("--loadEngine=")
    )
    for name in ("encoder", "condition", "step"):
        assert operators.lint(made / f"{name}.onnx") == []
    assert any(
        "operator Loop" in line or "DOUBLE" in line for line in operators.lint(made / "loop.onnx")
    )

    import onnxruntime

    asked = {}

    class Session:
        def __init__(self, path, options, providers):
            asked["providers"], self.taken = (
                providers,
                [one if isinstance(one, str) else one[0] for one in providers],
            )

        def get_providers(self):
            return self.taken[asked.get("fall_back", 0) :]

        def get_modelmeta(self):
            return SimpleNamespace(custom_metadata_map={"build": facts["build"]})

    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    runner = Runner(made, "tensorrt")
    runner.session("step")
    (name, options), *rest = asked["providers"]
    assert name == "TensorrtExecutionProvider" and rest == [
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]
    assert (
        options["trt_engine_cache_enable"]
        and facts["build"] in options["trt_engine_cache_path"]
        and not options["trt_fp16_enable"]
    )
    asked["fall_back"] = 2
    with pytest.raises(UserError, match="in whose place onnxruntime took CPUExecutionProvider"):
        Runner(made, "tensorrt").session("encoder")


def test_lint_knows_what_tensorrt_does_not_read(tmp_path):
    def graph(operator, opset=20, **attributes):
        node = onnx.helper.make_node(operator, ["x"], ["y"], **attributes)
        float_ = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])
        proto = onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", [float_("x")], [float_("y")]),
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )
        onnx.save(proto, tmp_path / "g.onnx")
        return operators.lint(tmp_path / "g.onnx")

    assert (
        graph("Sigmoid") == []
        and graph("Gelu") == ["the operator Gelu"]
        and graph("Sigmoid", 23) == ["opset 23, above 20"]
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["clip", "vit", "siglip", "dinov2"])
def test_every_kind_of_encoder_is_exported_for_tensorrt(kind, precision, tmp_path):
    """At the default opset, at which a GELU is spelt with Erf: TensorRT 10.3 reads no Gelu."""
    encoder = image_encoders.load(str(save_encoder(tmp_path / kind, kind)))
    encoder.model.set_attn_implementation("eager")
    model = Denoiser(ModelConfig(d_model=16, heads=2, layers=1, condition_width=encoder.width))
    opset = export_onnx.parse_args([]).opset
    graph = graphs.EncoderGraph(encoder)
    if precision == "fp16":
        quantization.halve(graph)
    graphs.export(
        graph,
        "encoder",
        tmp_path / "encoder.onnx",
        model,
        opset,
        {},
        encoder.preprocess.size,
        encoder.patches,
    )
    assert operators.lint(tmp_path / "encoder.onnx") == []
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx")).run(
        None, {"image": images}
    )[0]
    assert (
        parity.error(found, encoder.encode(images).float().numpy())
        < parity.TOLERANCES[precision]["features"]
    )


def test_a_result_that_is_no_number_passes_no_gate():
    rows = [
        {"error": 1.0, "limit": 2.0},
        {"identical": 1.0, "limit": 1.0},
        {"error": float("nan"), "limit": 2.0},
        {"error": 3.0, "limit": 2.0},
        {"identical": 0.9, "limit": 1.0},
        {"identical": 0.1, "limit": None},
    ]
    assert [parity.passes(row) for row in rows] == [True, True, False, False, False, True]


def test_divergence_is_the_mean_of_each_words():
    """KL by hand: (1/2, 1/2) against (1/4, 3/4) is log(2)/2 + log(2/3)/2, and 0 against itself; a shift of the logits is none."""
    expected, found = (
        np.log(np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)),
        np.log(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)),
    )
    by_hand = (math.log(2) + math.log(2 / 3)) / 4
    assert (
        parity.divergence(found + 7, expected) == pytest.approx(by_hand, abs=1e-6)
        and parity.divergence(expected, expected) == 0
    )


def test_what_float16_cannot_hold_is_found(tmp_path):
    """A product of 1e5 is refused for fp16; a norm's input of 300 is told, for its square overflows."""
    two = onnx.helper.make_node
    info = lambda name, shape: onnx.helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, shape
    )
    weight = onnx.numpy_helper.from_array(np.full((2, 2), 150.0, np.float32), "w")
    square = onnx.numpy_helper.from_array(np.array(2.0, np.float32), "two")
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [two("MatMul", ["x", "w"], ["y"]), two("Pow", ["y", "two"], ["z"])],
            "g",
            [info("x", [1, 2])],
            [info("z", [1, 2])],
            [weight, square],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(proto, tmp_path / "g.onnx")
    found = operators.check_ranges(
        tmp_path / "g.onnx", [{"x": np.ones((1, 2), np.float32)}], half=True
    )
    assert found["largest_squared"] == 300.0 and not found["squares_fit_half"]
    with pytest.raises(UserError, match=r"a product of 1.2e\+05"):
        operators.check_ranges(
            tmp_path / "g.onnx", [{"x": np.full((1, 2), 400, np.float32)}], half=True
        )


def network_and_states(data, captioner):
    trained = export_onnx.open_trained(captioner)
    feeds = list(quantization.states(trained, export_onnx.real_inputs(trained, data, "train", 8)))
    return trained, graphs.Network(trained.model).eval(), feeds


def test_smoothing_keeps_the_function_and_tames_a_loud_channel(data, captioner):
    """Two channels made 100 times louder, as CLIP's are: INT8 alone ruins the logits, smoothed INT8 does not."""
    _, network, feeds = network_and_states(data, captioner)
    assert {round(float(feed["share"].max()), 2) for feed in feeds} >= {1.0} and len(
        feeds
    ) == 8  # all noise levels, from all masked on
    block = network.blocks[0]
    block.mlp_norm.weight.data[:2] *= 100
    block.up.weight.data[:, :2] /= 100
    exact = quantization.call(network, feeds[0]).detach()
    costs = lambda: quantization.costs(
        quantization.named_linears(network),
        lambda: [quantization.call(network, state) for state in feeds],
    )
    before = costs()["blocks.0.up"]
    quantization.smooth(network, feeds)
    assert parity.error(quantization.call(network, feeds[0]).detach().numpy(), exact.numpy()) < 1e-4
    assert costs()["blocks.0.up"] < before / 4
    assert quantization.too_costly({"a": 1.0, "b": 1.1, "c": 9.0}) == ["c"]


def test_an_encoders_worst_product_stays_fp32(tmp_path):
    """One loud channel, as trained ViTs have them, leaves the others of a tensor no INT8 step; its product is found again in the graph."""
    encoder = image_encoders.load(str(save_encoder(tmp_path / "vit", "vit")))
    encoder.model.set_attn_implementation("eager")
    graph = graphs.EncoderGraph(encoder)
    products = quantization.named_linears(graph)
    loud = [name for name in products if name.endswith("mlp.fc2")][0]
    products[loud.replace("fc2", "fc1")].bias.data[0] += 1e3
    products[loud].weight.data[:, 0] = 0
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    cost = quantization.costs(products, lambda: [graph(images)])
    assert quantization.too_costly(cost) == [loud]
    model = Denoiser(ModelConfig(d_model=16, heads=2, layers=1, condition_width=encoder.width))
    graphs.export(
        graph,
        "encoder",
        tmp_path / "encoder.onnx",
        model,
        18,
        {},
        encoder.preprocess.size,
        encoder.patches,
    )
    keep = quantization.holding(tmp_path / "encoder.onnx", [products[loud].weight.detach()])
    assert len(keep) == 1

    def error(kept: list[str]) -> float:
        quantization.dynamic(tmp_path / "encoder.onnx", tmp_path / "int8.onnx", kept)
        found = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx")).run(
            None, {"image": images.numpy()}
        )[0]
        return parity.error(found, graph(images).detach().numpy())

    assert error(keep) < error([]) / 4


@pytest.mark.parametrize("kind", ["clip", "vit", "siglip", "dinov2"])
def test_an_encoders_norms_are_smoothed(kind, tmp_path):
    """A channel that training made loud (here the norm's gain, and its readers' weights small): the function stays, its INT8 gets better.

    A norm that is also read by something else is left alone, and so is all the rest.
    """
    encoder = image_encoders.load(str(save_encoder(tmp_path / kind, kind)))
    encoder.model.set_attn_implementation("eager")
    graph = graphs.EncoderGraph(encoder)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    up = [name for name in quantization.named_linears(graph) if name.endswith("fc1")][0]
    norm = [
        one
        for name, one in graph.named_modules()
        if isinstance(one, torch.nn.LayerNorm)
        and name.endswith(("layer_norm2", "layernorm_after", "norm2"))
    ][0]
    with torch.no_grad():
        for part in (norm.weight[:2], norm.bias[:2]):
            part *= 300
        quantization.named_linears(graph)[up].weight[:, :2] /= 300
        exact = graph(images)
        cost = lambda: quantization.costs(
            {up: quantization.named_linears(graph)[up]}, lambda: [graph(images)]
        )[up]
        before = cost()
        assert quantization.smooth_encoder(graph, images) >= 2
        assert parity.error(graph(images).numpy(), exact.numpy()) < 2e-3 and cost() < before / 4

        class Twice(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.product = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)

            def forward(self, x):
                x = self.norm(x)
                return x + self.product(x)

        twice, x = Twice(), torch.randn(2, 3, 8)
        exact = twice(x)
        assert quantization.smooth_encoder(twice, x) == 0 and torch.equal(twice(x), exact)


def test_int8_and_fp16_bundles(made, data, captioner, monkeypatch, tmp_path):
    """INT8 from the fixture's graphs, through its own gate, smaller, both artefacts; FP16 products in an exported step."""
    monkeypatch.setattr(
        graphs,
        "export",
        lambda module, name, path, model, opset, facts, *rest: graphs.write(
            onnx.load(made / path.name), name, path, facts
        ),
    )
    monkeypatch.setitem(
        parity.TOLERANCES,
        "int8",
        {
            "features": 0.25,
            "logits": 0.5,
            "divergence": 1.0,
            "lengths": 0.0,
            "texts": 0.0,
            "drawn": None,
        },
    )  # 16 channels wide is no model for INT8
    out = export(
        captioner,
        data,
        tmp_path / "int8",
        "--precision",
        "int8",
        "--calibration",
        "8",
        "--tensorrt",
    )
    facts = bundle.read(out)
    operators_in = lambda name: {node.op_type for node in onnx.load(out / name).graph.node}
    assert "QuantizeLinear" in operators_in(
        "step.tensorrt.onnx"
    ) and "MatMulInteger" in operators_in("step.onnx")
    nodes = onnx.load(out / "step.tensorrt.onnx").graph.node
    rounded = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    into = [sum(one in rounded for one in node.input) for node in nodes if node.op_type == "MatMul"]
    assert set(into) == {0, 2} and into.count(2) == 7 - len(
        facts["lowered"]["left_in_fp32"]
    )  # attention's scores stay as they are
    loop = onnx.load(out / "loop.onnx").graph
    body = next(node for node in loop.node if node.op_type == "Loop").attribute[0].g
    assert sum(node.op_type == "MatMulInteger" for node in body.node) == 7 - len(
        facts["lowered"]["left_in_fp32"]
    )
    assert (out / "build_engines.sh").read_text().count("step.tensorrt.onnx") == 1
    assert (out / "encoder.tensorrt.onnx").stat().st_size < 0.4 * (
        out / "encoder.onnx"
    ).stat().st_size
    monkeypatch.undo()
    trained, network, feeds = network_and_states(data, captioner)
    exact = quantization.call(network, feeds[3]).detach().numpy()
    quantization.halve(network)
    graphs.export(
        graphs.StepGraph(network),
        "step",
        tmp_path / "step.onnx",
        trained.model,
        20,
        {"build": "b"},
        128,
        64,
    )
    kinds = [
        one.data_type
        for one in onnx.load(tmp_path / "step.onnx").graph.initializer
        if len(one.dims) == 2 and min(one.dims) >= 16
    ]
    assert kinds.count(onnx.TensorProto.FLOAT16) == 7  # all products with weights
    session = bundle.open_graph(tmp_path / "step.onnx", threads=1, build="b")
    found = session.run(
        ["logits"],
        {name: feeds[3][name].numpy() for name in (one.name for one in session.get_inputs())},
    )[0]
    real = np.arange(found.shape[1]) < feeds[3]["lengths"].numpy()[:, None]
    assert 0 < parity.error(found[real], exact[real]) < 1e-2


def test_benchmark_of_a_bundle(made, captioner, capsys, tmp_path):
    """Stages, percentiles, start and memory in processes of their own, roofline: each is a number that something measured."""
    again = shutil.copytree(made, tmp_path / "again")
    found = latency.measure(
        [made, again], None, captioner, repeats=1, thread_counts=(1,), batches=(2,)
    )
    ours, other, torchs = found["rows"]
    assert [row["what"] for row in found["rows"]] == [str(made), str(again), "torch"] and ours[
        "p50_ms"
    ] <= ours["p99_ms"]
    assert ours["ratio_to_bundle"] == 1 and all(
        set(row["stages_ms"]) == {"decode", "resize", "encoder", "condition", "loop"}
        for row in (ours, other)
    )
    assert (
        all(row["status"] == 0 and row["peak_mib"] > 10 for row in found["starts"])
        and found["starts"][0]["peak_mib"] < found["starts"][2]["peak_mib"]
    )
    assert {row["stage"] for row in found["roofline"]} == {
        "encoder",
        "condition",
        "step",
    } and "predicted" in latency.tables(found)


def test_roofline_counts_what_is_multiplied(tmp_path):
    info = lambda name, shape: onnx.helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, shape
    )
    weight = onnx.numpy_helper.from_array(np.zeros((8, 4), np.float32), "w")
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [info("x", ["batch", 3, 8])],
            [info("y", None)],
            [weight],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
    )
    onnx.save(proto, tmp_path / "g.onnx")
    assert roofline.work(tmp_path / "g.onnx", batch=2) == (8 * 4 * 4, 2 * (2 * 3) * 8 * 4)
    device = roofline.Device("d", bandwidth=64.0, fp32=1e9, fp16=1e9, int8=1e9)
    assert (
        roofline.seconds(128, 10.0, device, "fp16") == 2.0
        and roofline.seconds(1, 5e9, device, "int8") == 5.0
    )


def test_text_models_and_twins(data, tmp_path_factory):
    """A text denoiser and its twin: each through the gate, at opset 20 too, and equal to torch in the shell."""
    folder = tmp_path_factory.mktemp("text")
    stories = make_data(folder / "data")
    denoiser = export(
        decisive(make_run(stories, folder / "run") / "best.pt"),
        stories,
        folder / "bundle",
        "--opset",
        "20",
        "--inputs",
        "6",
    )
    twin = export(
        decisive(make_run(stories, folder / "ar", "--objective", "ar") / "best.pt"),
        stories,
        folder / "twin",
        "--inputs",
        "6",
    )
    assert set(bundle.read(denoiser)["graphs"]["cpu"]) == {"step", "loop"}
    for one in (denoiser, twin):
        assert infer_onnx.main(["--bundle", str(one), "--self_test", "--threads", "1"]) == 0
    with pytest.raises(UserError, match="words behind a blank"):
        infer_onnx.main(["--bundle", str(twin), "--text", "Ann [MASK] a hen."])
    infer_onnx.main(
        ["--bundle", str(denoiser), "--text", "Ann had a [MASK*3] hen.", "--num_samples", "2"]
    )


def test_a_bundle_of_an_older_commit_still_runs(tmp_path, capsys):
    """old_bundle.zip: a text denoiser of one layer, exported by the first commit that could. Never remake it: that is its use."""
    shutil.unpack_archive(ROOT / "tests" / "base" / "old_bundle.zip", tmp_path)
    assert infer_onnx.main(["--bundle", str(tmp_path), "--self_test", "--threads", "1"]) == 0
    capsys.readouterr()
    infer_onnx.main(
        [
            "--bundle",
            str(tmp_path),
            "--text",
            "Ann had a [MASK*3] hen.",
            "--seed",
            "1",
            "--steps",
            "3",
        ]
    )
    ours = capsys.readouterr().out
    done = subprocess.run(
        [
            sys.executable,
            "infer_onnx.py",
            "--text",
            "Ann had a [MASK*3] hen.",
            "--seed",
            "1",
            "--steps",
            "3",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == ours and ours.startswith(
        "Ann had a"
    )  # today's code and its own write the same


def test_key_mask_free_networks_equal_the_model(captioner):
    """The rearranged network against model.py, padding and all, on random ids."""
    model, _, saved = checkpoint.open_model(captioner)
    features, lengths = torch.randn(3, 64, model.config.condition_width), torch.tensor([5, 9, 7])
    tokens, share = torch.randint(0, model.config.output_size, (3, 9)), torch.rand(3)
    with torch.no_grad():
        keys, values, _ = graphs.ConditionGraph(model, saved["statistics"], 64)(features)
        seen = writer.standardise(features, saved["statistics"], "cpu")
        condition = model.keys_values(seen)
        expected = model(tokens, lengths=lengths, share=share, condition=condition)
        found = graphs.Network(model)(tokens.int(), lengths.int(), keys, values, share)
    real = torch.arange(9) < lengths[:, None]
    assert parity.error(found[real].numpy(), expected[real].numpy()) < 1e-5
