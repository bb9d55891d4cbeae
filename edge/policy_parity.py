"""The gate of a policy's bundle: it must make the chunks that torch makes.

Both sides get the same observations and orders, and go the whole way: pixels or lists in, a chunk
out. Numbers of a chunk are compared bin by bin: a number near the border of two bins may fall into
the neighbour, and with several calls the later numbers follow it.

A row of the report is a dict: what, inputs, limit, and either error (the largest) or identical (a
share, with the largest difference).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base.driving import Made
from base.policy_runner import PREFIX, BundleMaker, agreement, chunks_of
from edge import parity
from edge.policy_inputs import Observations
from loop import progress
from net.chunks import ChunkConfig
from robot.policies import Opened
from robot.writer import TorchMaker

# Per precision: the largest error of a place, in metres; the least share of numbers in the same
# bin; the largest error of a number in [-1, 1] of a head without tokens.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"places": 1e-4, "bins": 0.999, "actions": 1e-3},
    "fp16": {"places": 2e-3, "bins": 0.95, "actions": 0.02},
    "int8": {"places": 2e-3, "bins": 0.80, "actions": 0.2},
}


@dataclass
class Case:
    """A way of making chunks. prefix: actions that are given; stepwise: by step.onnx."""

    calls: int
    order: str
    prefix: int = 0
    stepwise: bool = False


def cases(making: ChunkConfig, head: str, length: int) -> dict[str, Case]:
    """The ways that the gate tries, by name."""
    shipped = (making.calls, making.order)
    few = min(PREFIX, length - 1)
    tried = {"as shipped": Case(*shipped), "with a prefix": Case(*shipped, few)}
    if head == "l1":
        return tried
    tried["step by step"] = Case(*shipped, few, stepwise=True)
    if head == "diffusion":
        tried["4 calls, in time"] = Case(4, "time")
        tried[f"{length} calls, by confidence"] = Case(length, "confidence", few)
    return tried


def torch_chunks(opened: Opened, case: Case, given: Observations) -> list[Made]:
    """Torch's chunks."""
    maker = TorchMaker(opened, ChunkConfig(case.calls, case.order))
    return chunks_of(maker, given.orders, prefixes_of(case, given))


def prefixes_of(case: Case, given: Observations) -> np.ndarray | None:
    """The committed actions (n, prefix, A): what the robot did; None without a prefix."""
    return given.executed[:, : case.prefix] if case.prefix else None


def compare(opened: Opened, maker: BundleMaker, name: str, case: Case, given: Observations):
    """The rows of a case, and torch's chunks."""
    expected = torch_chunks(opened, case, given)
    maker.calls, maker.order, maker.stepwise = case.calls, case.order, case.stepwise
    found = chunks_of(maker, given.orders, prefixes_of(case, given))
    row = action_row(maker, name, given, [made.actions for made in found], expected)
    if found[0].calls is not None:
        same = [np.array_equal(ours.calls, theirs.calls) for ours, theirs in pairs(found, expected)]
        row["same_calls"] = float(np.mean(same))
    rows = [row]
    if name == "as shipped" and found[0].places is not None:
        wide = [
            np.abs(ours.places - theirs.places).max() for ours, theirs in pairs(found, expected)
        ]
        error = {"error": float(max(wide)), "limit": maker.facts["tolerances"]["places"]}
        rows.insert(0, {"what": "places, in metres", "inputs": len(found), **error})
    return rows, expected


def action_row(
    maker: BundleMaker, name: str, given: Observations, found: list, expected: list[Made]
) -> dict:
    """A row about chunks (T, A): found by the bundle, expected of torch."""
    limits = maker.facts["tolerances"]
    result = agreement(maker, given.orders, found, [made.actions for made in expected])
    row = {"what": f"actions, {name}", "inputs": len(found)}
    if maker.about["head"] == "l1":
        return row | {"error": result["error"], "limit": limits["actions"]}
    share = {"identical": result["same"], "limit": limits["bins"]}
    return row | share | {"difference": result["error"]}


def pairs(found: list[Made], expected: list[Made]):
    return zip(found, expected, strict=True)


def compare_single(maker: BundleMaker, given: Observations, expected: list[Made]) -> dict:
    """policy.onnx, words and what is seen in, against torch's chunks as shipped."""
    found = []
    whole = np.zeros((1, maker.length, len(maker.scaling.low)), np.float32)
    for text, (seen, *_) in given.orders:
        parts, state = maker.observer.read(seen)
        inputs = {**maker.words_of(text), **parts, "state": state, "prefix": whole}
        made = maker.run("policy", {**inputs, **maker.numbers(0)})
        found.append(maker.meant(made["actions"][0], seen))
    return action_row(maker, "single file", given, found, expected)


def gate(opened: Opened, folder: Path, making: ChunkConfig, given: Observations) -> list[dict]:
    """Every comparison of the bundle in `folder`. Raises UserError if one is beyond its limit."""
    maker = BundleMaker(folder, check=False)
    config = opened.policy.actor.config
    rows, shipped = [], []
    tried = cases(making, config.head, config.chunk)
    for name, case in progress.bar(tried.items(), "gate", unit="case"):
        found, expected = compare(opened, maker, name, case, given)
        rows += found
        if name == "as shipped":
            shipped = expected
    if "policy" in maker.facts["graphs"]["cpu"]:
        maker.calls, maker.order = making.calls, making.order
        rows.append(compare_single(maker, given, shipped))
    parity.judge(rows)
    return rows
