"""Kept episodes: images of their own size, the chunks that were followed, the calls. Need OpenGL."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from base.driving import DriveConfig, Driver, Made
from base.errors import UserError
from net.chunks import ChunkConfig
from robot import film, policies, scores
from robot.scores import Trial
from robot.writer import TorchMaker
from worlds.table import TableEnv


@pytest.fixture(scope="module")
def camera():
    pytest.importorskip("mujoco")
    try:
        camera = film.Film(64)
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    yield camera
    camera.close()


@pytest.mark.parametrize("places, marks", [(np.zeros((2, 3)), [0.5, 0.25]), (None, None)])
def test_a_policy_that_looks_for_nothing_has_no_marks(places, marks):
    driver = SimpleNamespace(made=[Made(np.zeros((8, 4)), places)], taken=[(0, 0)])
    (chunk,) = film.chunks_of(driver, lambda places: np.array([[0.5, 0.25]] * 2))
    assert chunk["take"] == marks and chunk["put"] == marks


def play(robot_world, camera, **drive) -> scores.Episode:
    opened = policies.open_policy(robot_world / "policy" / "best.pt", torch.device("cpu"))
    driver = Driver(TorchMaker(opened, ChunkConfig(calls=4)), DriveConfig(**drive))
    return scores.run_episode(TableEnv(), driver, Trial(), "val", 0, camera)


def test_an_episode_is_kept_although_the_policy_sees_no_images(robot_world, camera):
    episode = play(robot_world, camera)
    assert len(episode.frames) == episode.steps + 1
    prefix, _, content = episode.frames[0].partition(",")
    assert prefix == "data:image/webp;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert pixels.shape == (64, 64, 3) and pixels.std() > 5
    assert [chunk["since"] for chunk in episode.chunks] == list(range(0, episode.steps, 4))
    for chunk in episode.chunks:
        assert chunk["since"] == chunk["start"]
        assert np.shape(chunk["actions"]) == (8, 4)
        # Eight steps in four calls, in the order of time.
        assert chunk["calls"] == [1, 1, 2, 2, 3, 3, 4, 4]
        assert chunk["take"] is None or np.shape(chunk["take"]) == (2,)


def test_under_a_delay_the_first_steps_are_given(robot_world, camera):
    episode = play(robot_world, camera, delay=2, execute=4)
    first, second, *_ = episode.chunks
    assert (first["since"], first["start"]) == (2, 2)
    assert second["since"] == second["start"] + 2
    assert first["calls"] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert second["calls"][:2] == [0, 0] and second["calls"][2:] == [1, 2, 2, 3, 4, 4]


def test_points_behind_the_camera_have_no_place():
    assert film.share(np.array([0.25, 0.123456])) == [0.25, 0.1235]
    assert film.share(np.array([np.nan, 0.5])) is None


def test_a_pillow_without_webp_is_named(monkeypatch):
    monkeypatch.setattr(film.features, "check", lambda name: False)
    with pytest.raises(UserError, match="pip install -U pillow"):
        film.Film()
