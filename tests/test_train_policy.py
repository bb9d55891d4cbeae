"""Training a head: all four run, a killed run equals a straight run, other kinds are refused."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import generate_caption
import run_policy
import train_policy
from base import words
from base.driving import DriveConfig, Driver
from base.files import UserError
from base.policy_config import HEADS
from net import chunks
from net.chunks import ChunkConfig
from robot import acting, policies
from robot.data import split_things
from robot.hearing import Hearing
from robot.writer import TorchMaker
from tests.making import demonstrations
from tests.making.robots import ACT, Killed, killed_at, make_data, make_policy, same_run


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_and_acts(robot_world, tmp_path, head, capsys):
    data, ground = robot_world / "data", robot_world / "ground"
    run = make_policy(data, ground, tmp_path / "run", "--head", head)
    assert f"--checkpoint {run / 'best.pt'}" in capsys.readouterr().out
    run_policy.main(["--checkpoint", str(run / "best.pt"), "--episodes", "1", "--splits", "val"])
    assert "| val | all | 1 |" in capsys.readouterr().out


def test_a_killed_run_equals_a_straight_run(robot_world, tmp_path, monkeypatch):
    data, ground = robot_world / "data", robot_world / "ground"
    killed_at(3, monkeypatch, train_policy.acting)
    with pytest.raises(Killed):
        make_policy(data, ground, tmp_path / "run")
    monkeypatch.undo()
    make_policy(data, ground, tmp_path / "run", "--resume")
    same_run(robot_world / "policy", tmp_path / "run")


def test_other_data_are_refused(robot_world, tmp_path):
    other = make_data(tmp_path / "other", "--seed", "1")
    run = shutil.copytree(robot_world / "policy", tmp_path / "run")
    with pytest.raises(UserError, match="other data"):
        make_policy(other, robot_world / "ground", run, "--resume")
    with pytest.raises(UserError, match="a run in"):
        make_policy(robot_world / "data", robot_world / "ground", run)


def test_a_policy_writes_no_captions(robot_world, tmp_path):
    checkpoint, image = str(robot_world / "policy" / "best.pt"), tmp_path / "image.png"
    Image.new("RGB", (32, 32)).save(image)
    with pytest.raises(UserError, match="kind 'policy'"):
        generate_caption.main(["--checkpoint", checkpoint, "--image", str(image)])


def test_a_caption_is_no_grounding(robot_world, captioner, tmp_path):
    arguments = ["--data_dir", str(robot_world / "data"), "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match="kind 'caption'"):
        train_policy.main([*arguments, "--grounding", str(captioner)])


def test_a_strangers_dataset_trains(tmp_path):
    """Other numbers, other units, a camera of its own: nothing but flags."""
    folder = demonstrations.record(tmp_path / "toy")
    arguments = ["--dataset", str(folder), "--out", str(tmp_path / "run"), "--image_side", "16"]
    small = ["--d_model", "16", "--layers", "1", "--max_steps", "3", "--threads", "1"]
    train_policy.main([*arguments, *small, "--batch_size", "4", "--log_every", "1"])
    opened = policies.open_policy(tmp_path / "run" / "best.pt", torch.device("cpu"))
    assert opened.policy.actor.config.actions == 2 and not opened.policy.actor.config.cartesian
    assert opened.scaling.low.shape == (2,) and opened.scaling.mean.shape == (3,)
    assert words.unknown(opened.tokenizer, "push the red ring") == []
    # All of it learns: the eyes too.
    first = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["weights"]
    assert any(name.startswith("grounder.eyes") for name in first)


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--cameras", "observation.images.side"], "observation.images.front"),
        (["--state_name", "observation.joints"], "observation.state"),
        (["--dataset", "nowhere"], "nowhere"),
    ],
)
def test_wrong_features(tmp_path, flags, part):
    folder = demonstrations.record(tmp_path / "toy")
    with pytest.raises(UserError, match=part):
        train_policy.main(["--dataset", str(folder), "--out", str(tmp_path / "run"), *flags])
    assert not (tmp_path / "run" / "best.pt").exists()


def test_a_driver_tells_what_training_told(robot_world, tmp_path):
    """A recorded episode again, step by step: the chunks are those of the recorded frames."""
    data, ground = robot_world / "data", robot_world / "ground"
    run = make_policy(data, ground, tmp_path / "run", "--frames", "3", "--unknown", "0")
    opened = policies.open_policy(run / "best.pt", torch.device("cpu"))
    watcher = acting.open_watcher(data / "demos", "state", [])
    episodes = watcher.episodes
    states = torch.from_numpy(episodes.states)
    told = acting.told_of(opened.policy, watcher, opened.tokenizer, states, Hearing())
    first, length = int(episodes.starts[1]), int(episodes.lengths[1])
    frames = first + np.arange(length)
    batch = acting.known(told, episodes, 3)(frames, np.zeros_like(frames))
    wanted = chunks.make(
        opened.policy.actor, acting.condition_of(opened.policy, batch), ChunkConfig()
    )
    driver = Driver(TorchMaker(opened, ChunkConfig()), DriveConfig(execute=4))
    driver.begin(episodes.task(first))
    for frame in frames:
        kinds, places, real = split_things(watcher.things[frame])
        driver.next({"state": episodes.states[frame], "things": places[real], "kinds": kinds})
    assert [made.step for made in driver.made] == list(range(0, length, 4))
    for made in driver.made:
        expected = wanted[made.step].numpy()
        assert np.abs(made.actions - expected).max() < 1e-5


def test_a_run_is_resumed_as_the_policy_that_it_is(tmp_path):
    """Each is refused in one line, and the run keeps its settings."""
    folder, run = demonstrations.record(tmp_path / "toy"), tmp_path / "run"
    arguments = ["--dataset", str(folder), "--image_side", "16", "--out", str(run), *ACT]
    train_policy.main([*arguments, "--state_only", "--frames", "2", "--max_steps", "2"])
    settings = (run / "config.json").read_text()
    again = [*arguments, "--resume", "--max_steps", "3"]
    for more, part in (
        ([], "sees nothing, of the run"),
        (["--state_only", "--frames", "3"], "frames 2, of the run"),
        (["--state_only", "--d_model", "32"], "d_model 16, of the run"),
    ):
        with pytest.raises(UserError, match=part):
            train_policy.main([*again, *more])
        assert (run / "config.json").read_text() == settings
    train_policy.main([*again, "--state_only"])
    opened = policies.open_policy(run / "last.pt", torch.device("cpu"))
    assert opened.policy.actor.config.frames == 2 and opened.saved["step"] == 3


def test_words_and_numbers_alone(tmp_path, capsys):
    folder = demonstrations.record(tmp_path / "toy")
    more = [
        "--dataset",
        str(folder),
        "--state_only",
        "--out",
        str(tmp_path / "run"),
        "--frames",
        "2",
    ]
    train_policy.main([*more, *ACT, "--max_steps", "4"])
    opened = policies.open_policy(tmp_path / "run" / "best.pt", torch.device("cpu"))
    assert opened.cameras == [] and opened.policy.grounder.config.sees == "nothing"
    driver = Driver(TorchMaker(opened, ChunkConfig()), DriveConfig())
    assert driver.begin("push the ring") == []
    assert driver.next({"state": np.zeros(3, np.float32)}).shape == (2,)


@pytest.mark.parametrize(
    "flags, part",
    [(["--state_only"], "--dataset"), (["--state_only", "--dataset", "x", "--cameras", "y"], "no")],
)
def test_state_only_needs_a_dataset_and_no_camera(tmp_path, flags, part):
    with pytest.raises(UserError, match=part):
        train_policy.main(["--out", str(tmp_path / "run"), *flags])
