"""Frames of videos, if PyAV is installed; without it, a line that says how to get it."""

import sys

import numpy as np
import pytest

from base.files import UserError
from robot import videos


def test_without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError) as error:
        videos.require()
    assert str(error.value).endswith("pip install av")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Twenty grey frames at 10 per second: frame i has the level 10·i."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "file-000.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(20):
            pixels = np.full((32, 32, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("numbers", [[0], [19], [3, 4, 4, 11], list(range(20))])
def test_frames_are_found_by_their_time(video, numbers):
    frames = videos.decode(video, [number / 10 for number in numbers], 10)
    levels = frames.mean((1, 2, 3)) / 10
    assert frames.shape == (len(numbers), 32, 32, 3) and frames.dtype == np.uint8
    assert levels.round().astype(int).tolist() == numbers


def test_a_time_without_a_frame_is_named(video, tmp_path):
    with pytest.raises(UserError) as error:
        videos.decode(video, [1.9, 2.0], 10)
    assert "without a frame at 2.000 s" in str(error.value)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(UserError):
        videos.decode(broken, [0.0], 10)
