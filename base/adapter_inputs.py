"""The adapters of a bundle: the base network is stored once, and each adapter's numbers beside it.

bundle.json names them: {"adapters": {NAME: {"file": "adapters/NAME.npz", …}}}. A file holds the
inputs by which the graphs tell one adapter from another (edge/adapter_inputs.py). `base` is the
network alone: it has a file too, whose low-rank matrices are zeros.
"""

import re
from pathlib import Path

import numpy as np

from base import bundle
from base.files import UserError

BASE = "base"  # the name of the network without an adapter
NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
)  # a name is a file's name and a word of a shell


def names(facts: dict) -> list[str]:
    """The names that --adapter knows, the base first; none for a bundle without adapters."""
    return list(facts.get("adapters", {}))


def check_name(facts: dict, name: str) -> None:
    """Raise UserError unless a bundle with these facts has an adapter of this name."""
    known = names(facts)
    if not known:
        raise UserError(
            f"--adapter {name}, and a bundle without adapters",
            "a bundle that was exported with --adapter NAME=FILE",
            "drop --adapter, or export again",
        )
    if name not in known:
        raise UserError(f"--adapter {name}", "one of " + ", ".join(known), "choose one of these")


def load(folder: Path, facts: dict, name: str | None) -> dict[str, np.ndarray]:
    """What the graphs read of an adapter, by the names of their inputs. None: the base.

    Nothing for a bundle without adapters. Raises UserError for a name that the bundle lacks, or a
    file that is damaged.
    """
    if name is None and not names(facts):
        return {}
    check_name(facts, name or BASE)
    return bundle.arrays(folder / facts["adapters"][name or BASE]["file"], "an adapter's numbers")


def check_fits(inputs: list, factors: dict[str, np.ndarray], file: str) -> None:
    """Raise UserError unless the factors are of the types and shapes of a graph's inputs.

    inputs: of an ONNX Runtime session. file: of the graph.
    """
    for node in inputs:
        value = factors.get(node.name)
        # A name with a dot is of a factor alone: the other inputs are names of Python.
        if factors and value is None and "." in node.name:
            raise UserError(f"an adapter without {node.name}", f"what {file} reads", bundle.AGAIN)
        if value is not None and (list(value.shape) != node.shape or value.dtype != np.float32):
            raise UserError(
                f"an adapter whose {node.name} is {value.dtype} of shape {list(value.shape)}",
                f"float32 of shape {node.shape}, as {file} reads it",
                bundle.AGAIN,
            )


def golden_name(name: str, adapter: str | None) -> str:
    """What golden.npz calls the outputs of an adapter: the base's have no addition."""
    return name if adapter in (None, BASE) else f"{name}.{adapter}"
