"""All graphs of a bundle, written into its folder: built, lowered, exported, joined, proved.

A compact bundle keeps only the graphs that write texts on a CPU. The gate judges all graphs first.
"""

import sys
import time
from pathlib import Path

import numpy as np

from base import bundle
from base.runtime import Runner
from edge import adapter_inputs, graphs, onnx_files, parity, quantization, tensorrt
from edge.adapter_inputs import Variant
from edge.inputs import Material, Trained, as_arrays, real_inputs, states
from edge.loop_graph import LoopGraph
from edge.networks import Network
from loop import progress

RANGE_ROWS = 16  # rows whose states show the largest values inside a graph
# What a CPU needs to write texts. The others serve TensorRT, --revise, and one-file pipelines.
NEEDED = ("encoder", "condition", "loop", "next")
# condition.onnx keeps its head for lengths in FP32: a wrong length ruins the caption.
STORED = {"encoder", "step", "loop"}
# The facts that each graph repeats in its metadata, so that no graph is used in another bundle.
IN_EACH_GRAPH = ("build", "kind", "objective", "precision", "tokenizer")


def modules_of(trained: Trained, network: Network) -> dict:
    """The torch module of every graph of this checkpoint, in the order in which they run."""
    modules = {}
    if trained.encoder is not None:
        statistics, patches = trained.saved["statistics"], trained.encoder.patches
        modules["encoder"] = graphs.EncoderGraph(trained.encoder)
        modules["condition"] = graphs.ConditionGraph(trained.model, statistics, patches)
    if trained.objective == "ar":
        modules["next"] = graphs.NextGraph(network)
    else:
        modules["step"] = graphs.StepGraph(network)
        modules["loop"] = LoopGraph(network, trained.tokenizer.mask)
    return modules


def sizes_of(trained: Trained) -> graphs.Sizes:
    """What the shapes of this checkpoint's graphs follow from."""
    sizes = graphs.Sizes(trained.model.config)
    if trained.encoder is not None:
        sizes.image_size = trained.encoder.preprocess.size
        sizes.patches = trained.encoder.patches
    return sizes


def calibrating(
    variants: list[Variant], data_dir: str, count: int
) -> tuple[list[dict], np.ndarray | None]:
    """What INT8 is calibrated on: states of the base and of each adapter, and a captioner's images.

    Of train: the gate judges on held-out inputs that INT8 has not seen.
    """
    material = real_inputs(variants[0].trained, data_dir, "train", count)
    feeds: list[dict] = []
    for variant in variants:
        calls = states(variant.trained, material, factors=variant.network)
        feeds += progress.bar(calls, "calibration", unit="call")
    return feeds, material.images


def write_graphs(
    variants: list[Variant],
    folder: Path,
    facts: dict,
    data_dir: str,
    calibration: int,
    compact: bool,
) -> None:
    """Write every graph into `folder`, at facts["precision"] and facts["opset"], and the adapters.

    variants: the base, whose weights the graphs hold, and the adapters.
    calibration: training inputs of `data_dir` that INT8 is calibrated on.
    compact: store all large weights as INT8 if the precision is INT8. Adds to `facts` the
    graphs by name, and what lowering the precision did.
    """
    trained = variants[0].trained
    network, feeds, images = Network(trained.model), [], None
    modules = modules_of(trained, network)
    if facts["precision"] == "int8":
        feeds, images = calibrating(variants, data_dir, calibration)
    if facts["precision"] != "fp32":
        own = [variant.network for variant in variants]
        facts["lowered"] = quantization.lower(network, modules, feeds, images, own)
    about = {name: facts[name] for name in IN_EACH_GRAPH}
    about["format"] = facts.get("format", bundle.FORMAT)
    sizes, opset = sizes_of(trained), facts["opset"]
    sizes.network, sizes.condition = variants[0].network, variants[0].condition
    for name, module in modules.items():
        export_graph(module, name, folder, sizes, opset, about)
    if feeds:
        conditions = [variant.condition for variant in variants]
        quantization.quantize(folder, network, modules, facts["lowered"], feeds, images, conditions)
        if compact:
            for name in STORED & set(modules):
                quantization.store_as_int8(folder / f"{name}.onnx")
    adapter_inputs.write(variants, folder)  # after the smoothing, which changes them
    # captioner.onnx needs all three graphs at their final precision, so it is joined last.
    names = list(modules)
    if set(onnx_files.JOINED) <= set(names):
        length = trained.model.config.max_length
        onnx_files.join(folder, facts["special"], length, opset, about)
        names.append("captioner")
    ending = ".tensorrt.onnx" if feeds else ".onnx"
    for_tensorrt = [name for name in names if name in quantization.FOR_TENSORRT]
    facts["graphs"] = {
        "cpu": {name: f"{name}.onnx" for name in names},
        "tensorrt": {name: name + ending for name in for_tensorrt},
    }


def export_graph(module, name: str, folder: Path, sizes, opset: int, about: dict) -> None:
    """Write a graph, and say its size and how long it took."""
    clock, path = time.perf_counter(), folder / f"{name}.onnx"
    onnx_files.export(module, name, path, sizes, opset, about)
    seconds = time.perf_counter() - clock
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s", file=sys.stderr)


def make_compact(folder: Path, facts: dict) -> None:
    """Remove the graphs that a CPU does not need to write texts, from `folder` and from `facts`."""
    kept = {name: file for name, file in facts["graphs"]["cpu"].items() if name in NEEDED}
    for path in folder.glob("*.onnx"):
        if path.name not in kept.values():
            path.unlink()
    facts["graphs"] = {"cpu": kept, "tensorrt": {}}


def prove(
    variants: list[Variant], folder: Path, facts: dict, material: Material, seed: int
) -> None:
    """Compare all graphs with torch, for the base and each adapter, and note it in `facts`.

    Raises UserError if TensorRT would not read a graph, or a comparison is beyond its limit.
    """
    tensorrt.check_readable(folder, facts["graphs"]["tensorrt"])
    if variants[0].trained.objective != "ar":
        feeds = []
        for variant in variants:
            few = material.part(0, RANGE_ROWS)
            for state in states(variant.trained, few, factors=variant.network):
                feeds.append(as_arrays(state))
        half = facts["precision"] == "fp16"
        facts["ranges"] = tensorrt.check_ranges(folder / "step.onnx", feeds, half=half)
    bundle.seal(folder, facts)  # the gate runs the bundle as a device would
    facts["parity"], facts["scores"] = [], {}
    for variant in variants:
        adapter = variant.name if variant.network else None
        rows = parity.gate(variant.trained, folder, material, seed, adapter)
        runner = Runner(folder, check=False, adapter=adapter)
        scores = parity.scores(variant.trained, runner, material)
        if variant is not variants[0]:
            rows = [{**row, "what": f"{adapter}: {row['what']}"} for row in rows]
            scores = {f"{adapter}, {side}": judged for side, judged in scores.items()}
        facts["parity"] += rows
        facts["scores"] |= scores
