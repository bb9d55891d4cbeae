"""A policy's bundle: its graphs, its facts, its golden outputs; written, lowered, proved."""

import copy
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import compose, helper
from torch import nn

from base import bundle, files, flags
from base.errors import UserError
from base.policy_runner import PREFIX, SEEN, BundleMaker, check_order
from edge import description, onnx_files, policy_inputs, policy_parity, quantization, smoothing
from edge.graphs import Sizes
from edge.policy_graphs import GrounderGraph, HeadGraph, StepGraph, WordsGraph
from edge.policy_inputs import Observations
from edge.policy_networks import ActorNetwork, GrounderNetwork, WordsNetwork
from edge.policy_twin import TwinGraph
from loop import checkpoint
from net.chunks import ChunkConfig
from robot.policies import Opened
from robot.writer import TorchMaker

IN_EACH_GRAPH = ("build", "kind", "objective", "precision", "tokenizer")
LOWERED = ("step", "head")  # graphs with products in INT8
NOT_IN_GRAPHS = ("draw", "temperature")  # settings of chunks that the graphs do not have
CALLS = 4  # calls per chunk of the states that INT8 is calibrated on
STATES = 16  # states that the costs of INT8 are measured on
FP32_PARTS = (*quantization.FP32_PARTS, "words", "what an actor is told")


def modules_of(opened: Opened) -> dict[str, nn.Module]:
    """The torch module of every graph of this policy, in the order in which they run."""
    policy = copy.deepcopy(opened.policy)  # lowering changes modules in place
    seeing, acting = policy.grounder.config, policy.actor.config
    side = opened.saved.get("image_side", 0)
    modules: dict[str, nn.Module] = {
        "words": WordsGraph(WordsNetwork(policy.grounder), seeing.longest)
    }
    if seeing.sees != "nothing":
        network = GrounderNetwork(policy.grounder, side)
        modules["grounder"] = GrounderGraph(network, seeing, acting.order, side)
    actor = ActorNetwork(policy.actor)
    if acting.head != "l1":
        modules["step"] = StepGraph(actor)
    modules["head"] = TwinGraph(actor) if acting.head == "ar" else HeadGraph(actor)
    return modules


def describe(opened: Opened, path: Path, making: ChunkConfig, precision: str, opset: int) -> dict:
    """The facts of bundle.json, without the rate, graphs, parity report and checksums."""
    saved, policy = opened.saved, opened.policy
    seeing, acting = flags.to_dict(policy.grounder.config), flags.to_dict(policy.actor.config)
    facts = {
        "kind": "policy",
        "objective": saved["objective"],
        "precision": precision,
        "opset": opset,
        "model": {"grounder": seeing, "actor": acting},
        "sampling": {"calls": making.calls, "order": making.order},
        "policy": {
            **{name: acting[name] for name in ("head", "chunk", "actions", "state", "frames")},
            "sees": seeing["sees"],
            "cameras": list(opened.cameras),
            "image_side": saved.get("image_side", 0),
            "absolute": bool(saved.get("absolute", False)),
            "world": saved.get("world", "table"),
            "tasks": saved.get("tasks") or "",
            "scaling": opened.scaling.to_dict(),
            "offsets": saved.get("offsets"),
        },
        "tokenizer": opened.tokenizer.fingerprint,
        "tolerances": policy_parity.TOLERANCES[precision],
        "checkpoint": {
            "sha256": checkpoint.digest(path, saved),
            "data": saved["data"]["fingerprint"],
            "step": saved["step"],
            "git": saved["git"],
        },
        "versions": description.versions(),
    }
    # A name for this export. Every graph carries it, so graphs of two exports never mix.
    facts["build"] = files.sha256(repr(sorted(facts.items())).encode())
    return facts


def recorded_states(opened: Opened, given: Observations) -> list[dict]:
    """States of real chunks: the inputs of `ActorNetwork`, a row each, at every call."""
    states: list[dict] = []
    maker = TorchMaker(opened, ChunkConfig(CALLS, "time"))
    actor, original = opened.policy.actor, opened.policy.actor.logits

    def watched(told, tokens):
        moved = told.moved if told.moved is not None else torch.zeros_like(tokens[:, 0]).float()
        state = {"tokens": tokens.int(), "moved": moved, "places": told.places}
        state |= {"state": told.state, "order": told.order}
        if told.past is not None:
            state |= {"past_places": told.past[0], "past_states": told.past[1]}
        states.append({name: part.clone() for name, part in state.items()})
        return original(told, tokens)

    actor.logits = watched  # type: ignore[method-assign]
    try:
        for number, (text, (seen, *earlier)) in enumerate(given.orders):
            maker.begin(text, 0)
            maker.make(seen, earlier, given.executed[number, :PREFIX] if number % 2 else None)
    finally:
        del actor.logits  # the method of the class again
    return states


def lower(modules: dict, precision: str, states: list[dict]) -> dict:
    """Before the export: halve the products, or smooth the head's and measure what INT8 costs.

    The words stay FP32, because an order is read once. So does what an actor is told, because it
    holds distances of millimetres; and for INT8 the grounder, whose convolutions ONNX Runtime does
    not quantise dynamically. Returns what bundle.json says about it.
    """
    network = modules["head"].network
    if precision == "fp16":
        for part in (network.blocks, modules.get("grounder")):
            if part is not None:
                quantization.halve(part)
        network.head = quantization.Half(network.head)
        return {"fp32_parts": FP32_PARTS}
    smoothing.smooth(network, states)
    some = states[:: max(1, len(states) // STATES)]
    products = products_of(network)
    cost = smoothing.costs(products, lambda: [smoothing.call(network, state) for state in some])
    notes = {"cost": cost, "left_in_fp32": smoothing.too_costly(cost)}
    return notes | {"calibrated_on_states": len(states)}


def products_of(network: ActorNetwork) -> dict[str, nn.Linear]:
    """The products that INT8 may take: those of the blocks, and the last."""
    found = smoothing.named_products(network)
    return {name: one for name, one in found.items() if not name.startswith("told")}


def write_graphs(opened: Opened, folder: Path, facts: dict, states: list[dict]) -> None:
    """Write every graph into `folder`, at facts["precision"]. Adds to `facts` what it did."""
    modules = modules_of(opened)
    precision, opset = facts["precision"], facts["opset"]
    if precision != "fp32":
        facts["lowered"] = lower(modules, precision, states)
    about = {name: facts[name] for name in IN_EACH_GRAPH} | {"format": bundle.FORMAT}
    sizes = Sizes(opened.policy.actor.size)
    for name, module in modules.items():
        clock, path = time.perf_counter(), folder / f"{name}.onnx"
        onnx_files.export(module, name, path, sizes, opset, about)
        seconds = time.perf_counter() - clock
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s", file=sys.stderr)
    if precision == "int8":
        network = modules["head"].network
        taken = set(products_of(network)) - set(facts["lowered"]["left_in_fp32"])
        every = smoothing.named_products(network)
        weights = [one.weight.detach() for name, one in every.items() if name not in taken]
        for name in LOWERED:
            path = folder / f"{name}.onnx"
            if path.exists():
                kept = quantization.holding(path, weights)
                # The quantiser renames a product with a bias before it looks at the list.
                kept += [f"{product}_MatMul" for product in kept]
                quantization.dynamic(path, path, kept)
    names = list(modules)
    if "grounder" in names and opened.policy.actor.config.frames == 1:
        join(folder, opset, about)
        names.append("policy")
    facts["graphs"] = {"cpu": {name: f"{name}.onnx" for name in names}, "tensorrt": {}}


def join(folder: Path, opset: int, facts: dict) -> None:
    """Write policy.onnx from words, grounder and head: words and what is seen in, a chunk out."""
    parts = {name: onnx.load(folder / f"{name}.onnx") for name in ("words", "grounder", "head")}
    for part in parts.values():
        del part.metadata_props[:]
    # The head keeps its names: add_prefix does not reach the names inside a loop.
    words, grounder = (
        compose.add_prefix(parts[name], f"{name}/") for name in ("words", "grounder")
    )
    wires = [("words/queries", "grounder/queries"), ("words/order", "grounder/order")]
    outputs = ["grounder/places", "grounder/scores", "words/order"]
    whole = compose.merge_models(words, grounder, wires, outputs=outputs)
    wires = [("grounder/places", "places"), ("words/order", "order")]
    made = [value.name for value in parts["head"].graph.output]
    outputs = ["grounder/places", *made]
    whole = compose.merge_models(whole, parts["head"], wires, outputs=outputs)
    for value in [*whole.graph.input, *whole.graph.output]:
        if "/" in value.name:
            onnx_files.rename(whole.graph, value.name, value.name.split("/")[-1])
    del whole.opset_import[:]  # merging lists the opset once per part
    whole.opset_import.append(helper.make_opsetid("", opset))
    onnx_files.write(whole, "policy", folder / "policy.onnx", facts)


def golden_arrays(
    opened: Opened, given: Observations, making: ChunkConfig
) -> dict[str, np.ndarray]:
    """Orders and observations, and torch's chunks for them: as shipped, and with a prefix."""
    few = policy_inputs.part(given, description.GOLDEN)
    arrays = {"texts": np.array([text for text, _ in few.orders])}
    for name in few.orders[0][1][0]:
        frames = [np.stack([seen[name] for seen in observed]) for _, observed in few.orders]
        arrays[SEEN + name] = np.stack(frames)  # (n, F, ..)
    tried = policy_parity.cases(making, opened.policy.actor.config.head, few.executed.shape[1])
    for name in ("as shipped", "with a prefix"):
        case = tried[name]
        made = policy_parity.torch_chunks(opened, case, few)
        arrays[name.replace(" ", "_")] = np.stack([each.actions for each in made])
        if case.prefix:
            arrays["prefix"] = few.executed[:, : case.prefix]
        if made[0].places is not None:
            arrays["places"] = np.stack([each.places for each in made])
    return arrays


def making_of(arguments) -> ChunkConfig:
    """How the bundle makes chunks, from the flags. Raises UserError for what the graphs lack."""
    given = flags.given(ChunkConfig, arguments)
    given = {name: value for name, value in given.items() if name not in NOT_IN_GRAPHS}
    making = ChunkConfig(**given)
    check_order(making.order)
    return making


def build(
    path: Path,
    made: Path,
    data_dir: str,
    making: ChunkConfig,
    *,
    precision: str,
    opset: int,
    inputs: int,
    calibration: int,
) -> dict:
    """Fill the folder `made` with a policy's bundle, through the gate, and return its facts.

    Raises UserError if the head has no graphs, if the demonstrations are another robot's, or if
    the gate refuses.
    """
    opened = policy_inputs.open_exportable(path)
    print(f"{path}: {checkpoint.describe(opened.saved)}", file=sys.stderr)
    if precision == "int8" and opened.policy.actor.config.head == "l1":
        raise UserError(
            "--precision int8 for the head 'l1'",
            "fp32 or fp16, or a head that writes tokens",
            "choose another precision",
        )
    watcher = policy_inputs.open_demos(opened, data_dir)
    given = policy_inputs.observations(opened, watcher, inputs, held_out=True)
    facts = describe(opened, path, making, precision, opset)
    facts["policy"]["rate"] = given.rate
    states = []
    if precision == "int8":
        some = policy_inputs.observations(opened, watcher, calibration, held_out=False)
        states = recorded_states(opened, some)
    write_graphs(opened, made, facts, states)
    files.write_text(made / "tokenizer.json", opened.tokenizer.to_json())
    bundle.seal(made, facts)  # the gate runs the bundle as a device would
    facts["parity"] = policy_parity.gate(opened, made, making, given)
    with files.replacing(made / "golden.npz") as file:
        np.savez_compressed(file, **golden_arrays(opened, given, making))
    return facts


def finish(made: Path, facts: dict) -> None:
    """Seal the bundle, and open it as a device would."""
    bundle.seal(made, facts)
    BundleMaker(made)
