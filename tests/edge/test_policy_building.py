"""A policy's bundle: its facts, its golden chunks, INT8 where it belongs, flags that are refused."""

import numpy as np
import onnx
import pytest
import torch

from base import bundle
from base.files import UserError
from base.policy_runner import BundleMaker, golden_observations
from edge import policy_building, policy_inputs, policy_parity, quantization
from robot import policies
from robot.writer import TorchMaker
from tests.making.bundles import export, reuse_graphs


def test_facts(policy_bundled):
    about = BundleMaker(policy_bundled.bundle).about
    names = ("head", "chunk", "actions", "state", "frames", "sees", "world", "rate", "absolute")
    values = ["diffusion", 8, 4, 8, 1, "state", "table", 10.0, False]
    assert [about[name] for name in names] == values
    facts = bundle.read(policy_bundled.bundle)
    assert facts["sampling"] == {"calls": 1, "order": "time"}


def test_golden_chunks_are_torchs(policy_bundled):
    opened = policies.open_policy(policy_bundled.checkpoint, torch.device("cpu"))
    maker = TorchMaker(opened, policy_building.ChunkConfig())
    golden = bundle.golden(policy_bundled.bundle)
    observations = golden_observations(golden)
    assert len(observations) == 12
    for number, (text, (seen, *earlier)) in enumerate(observations):
        maker.begin(text, 0)
        made = maker.make(seen, earlier, None)
        assert np.array_equal(made.actions, golden["as_shipped"][number])
        assert np.array_equal(made.places, golden["places"][number])
        made = maker.make(seen, earlier, golden["prefix"][number])
        assert np.array_equal(made.actions, golden["with_a_prefix"][number])


def test_int8_is_in_the_blocks_alone(policy_bundled, monkeypatch, tmp_path):
    reuse_graphs(monkeypatch, policy_bundled.bundle)
    loose = {"places": 1e-3, "bins": 0.0, "actions": 2.0}  # 16 channels are too narrow for INT8
    monkeypatch.setitem(policy_parity.TOLERANCES, "int8", loose)
    monkeypatch.setattr(policy_building.smoothing, "too_costly", lambda cost: [])
    flags = ["--precision", "int8", "--calibration", "6", "--inputs", "3", "--no-code"]
    out = export(policy_bundled.checkpoint, policy_bundled.data, tmp_path / "int8", *flags)
    counts = {}
    for name in ("words", "grounder", "step", "head"):
        nodes = quantization.all_nodes(onnx.load(out / f"{name}.onnx").graph)
        counts[name] = sum(node.op_type == "MatMulInteger" for node in nodes)
    # One layer of qkv, out, up and down, and the last product; inside the head's Loop too.
    assert counts == {"words": 0, "grounder": 0, "step": 5, "head": 5}
    facts = bundle.read(out)
    assert len(facts["lowered"]["cost"]) == 5
    assert not list(out.rglob("*.py"))


def test_states_are_of_real_chunks(policy_bundled):
    opened = policies.open_policy(policy_bundled.checkpoint, torch.device("cpu"))
    watcher = policy_inputs.open_demos(opened, policy_bundled.data)
    given = policy_inputs.observations(opened, watcher, 2, held_out=False)
    states = policy_building.recorded_states(opened, given)
    assert len(states) == 2 * policy_building.CALLS
    masked = [int((state["tokens"] == 65).sum()) for state in states]
    assert masked == [32, 24, 16, 8, 24, 20, 12, 8] or masked[0] == 32
    assert states[-1]["moved"].abs().sum() > 0  # every second chunk has a prefix
    assert "logits" not in vars(opened.policy.actor)


@pytest.mark.parametrize("flag", [["--tensorrt"], ["--compact"], ["--order", "random"]])
def test_refused_flags(policy_bundled, tmp_path, flag):
    with pytest.raises(UserError, match=flag[0]):
        export(policy_bundled.checkpoint, policy_bundled.data, tmp_path / "out", *flag)
    assert not list(tmp_path.iterdir())
