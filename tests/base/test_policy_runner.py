"""A policy without torch: the chunks of torch, alone in its folder, and one line for bad input."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import infer_onnx
import run_policy
from base import bundle
from base.driving import DriveConfig, Driver
from base.errors import UserError
from base.policy_runner import BundleMaker, golden_observations, unmask
from base.runtime import Runner
from net.chunks import ChunkConfig
from robot import policies
from robot.writer import TorchMaker
from tests.making.bundles import resealed

ALONE = """
import sys
sys.modules.update(torch=None, transformers=None, onnx=None, mujoco=None)
sys.path[:0] = ['.']
import infer_onnx
sys.exit(infer_onnx.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def observations(policy_bundled):
    return golden_observations(bundle.golden(policy_bundled.bundle))


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize(
    "calls, order, given", [(1, "time", 0), (3, "time", 2), (4, "confidence", 1), (9, "time", 0)]
)
def test_chunks_are_torchs(policy_bundled, observations, calls, order, given, stepwise):
    opened = policies.open_policy(policy_bundled.checkpoint, torch.device("cpu"))
    theirs = TorchMaker(opened, ChunkConfig(calls, order))
    ours = BundleMaker(policy_bundled.bundle, calls=calls, order=order, stepwise=stepwise)
    text, (seen,) = observations[0]
    prefix = np.full((given, 4), 0.3, np.float32) if given else None
    assert ours.begin(text + " dinosaur", 0) == theirs.begin(text + " dinosaur", 0) == ["dinosaur"]
    found, expected = ours.make(seen, [], prefix), theirs.make(seen, [], prefix)
    assert np.array_equal(found.calls, expected.calls)
    assert np.allclose(found.actions, expected.actions, atol=1e-6)
    assert np.allclose(found.places, expected.places, atol=1e-5)
    assert found.doubt["naming"] == pytest.approx(expected.doubt["naming"], abs=1e-4)
    if not stepwise:
        assert found.doubt["nats"] == pytest.approx(expected.doubt["nats"], abs=1e-4)
        assert found.doubt["entropy"] == pytest.approx(expected.doubt["entropy"], abs=1e-4)


def test_it_drives(policy_bundled, observations):
    text, (seen,) = observations[1]
    driver = Driver(BundleMaker(policy_bundled.bundle), DriveConfig(delay=1))
    driver.begin(text)
    actions = np.stack([driver.next(seen) for _ in range(9)])
    assert actions.shape == (9, 4) and np.isfinite(actions).all()


def test_alone_in_its_folder(policy_bundled, tmp_path):
    away = shutil.copytree(policy_bundled.bundle, tmp_path / "away")
    words = ["-I", "-c", ALONE, "--self_test", "--threads", "1"]
    done = subprocess.run([sys.executable, *words], cwd=away, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "self-test passed" in done.stdout and "100.00% of the numbers" in done.stdout


def test_a_self_test_can_fail(policy_bundled, tmp_path, capsys):
    def spoil(folder, facts):
        arrays = bundle.golden(folder)
        np.savez(folder / "golden.npz", **arrays | {"as_shipped": -arrays["as_shipped"]})

    out = resealed(policy_bundled.bundle, tmp_path / "spoilt", spoil)
    assert infer_onnx.main(["--bundle", str(out), "--self_test", "--threads", "1"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_other_bundles_are_refused(policy_bundled, bundled, tmp_path):
    with pytest.raises(UserError, match="kind 'caption'"):
        run_policy.main(["--bundle", str(bundled.bundle)])
    with pytest.raises(UserError, match="run_policy.py --bundle"):
        infer_onnx.main(["--bundle", str(policy_bundled.bundle), "--image", "x.jpg"])
    with pytest.raises(UserError, match="run_policy.py --bundle"):
        Runner(policy_bundled.bundle)
    with pytest.raises(UserError, match="--order random"):
        BundleMaker(policy_bundled.bundle, order="random")
    copy = shutil.copytree(policy_bundled.bundle, tmp_path / "copy")
    with open(copy / "head.onnx", "ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="damaged"):
        BundleMaker(copy)

    def strange(folder, facts):
        facts["policy"]["scaling"] = {"low": [0.0]}

    out = resealed(policy_bundled.bundle, tmp_path / "strange", strange)
    with pytest.raises(UserError, match="another shape"):
        BundleMaker(out)


def test_unmasking_reveals_the_promised_numbers():
    def call(tokens, moved):
        assert np.allclose(moved, 0.5 * 2)
        return np.zeros((*tokens.shape, 5), np.float32)

    prefix = np.full((1, 7, 2), 0.5, np.float32)
    actions, revealed = unmask(call, prefix, 2, 3, False, 5)
    assert revealed[0, :, 0].tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert (actions[0, 2:] == 0).all() and (actions[0, :2] == 0.5).all()
