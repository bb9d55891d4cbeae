"""Clips from anywhere: GIFs, folders, videos by whatever is installed; odd and bad ones."""

import builtins
import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from base import clips
from base.files import UserError


def frames(count: int) -> list[Image.Image]:
    """Grey images; frame i has the value 2·i."""
    return [Image.new("RGB", (8, 6), (2 * i,) * 3) for i in range(count)]


def values(read: list[Image.Image]) -> list[int]:
    return [int(np.asarray(frame)[0, 0, 0]) // 2 for frame in read]


def gif(path, count: int):
    first, *rest = frames(count)
    first.save(path, save_all=True, append_images=rest)
    return path


def folder(path, count: int):
    path.mkdir()
    for number, frame in enumerate(frames(count)):
        frame.save(path / f"frame_{number}.png")
    (path / "notes.txt").write_text("no frame")
    return path


@pytest.mark.parametrize("make", [gif, folder])
@pytest.mark.parametrize("count, expected", [(8, list(range(8))), (15, list(range(0, 15, 2)))])
def test_frames_in_their_order(make, count, expected, tmp_path):
    read, note = clips.read(make(tmp_path / "clip.gif", count), 8)
    assert values(read) == expected and {frame.mode for frame in read} == {"RGB"}
    assert (note is None) == (count == 8)


def test_few_and_many_frames(tmp_path):
    one, note = clips.read(gif(tmp_path / "one.gif", 1), 8)
    assert values(one) == [0] * 8 and "1 frame, which stands for all 8" in note
    Image.new("RGB", (8, 6), "white").save(tmp_path / "still.png")
    assert "1 frame" in clips.read(tmp_path / "still.png", 8)[1]
    three, note = clips.read(gif(tmp_path / "three.gif", 3), 8)
    assert values(three) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert "3 frames; 3 are read" in note and "more than once" in note
    many, note = clips.read(gif(tmp_path / "many.gif", 120), 8)
    assert values(many) == list(range(7, 120, 15)) and "120 frames; 8 are read" in note
    thousand = clips.spread([1.0] * 1000, 8)
    assert thousand[0] == 62 and thousand[-1] == 937


def test_a_long_frame_counts_as_long(tmp_path):
    """Pillow joins equal neighbours: eight frames, of which the last four are alike, become five."""
    still = [*frames(5), *[frames(5)[-1]] * 3]
    still[0].save(tmp_path / "a.gif", save_all=True, append_images=still[1:], duration=80)
    assert Image.open(tmp_path / "a.gif").n_frames == 5
    read, note = clips.read(tmp_path / "a.gif", 8)
    assert values(read) == [0, 1, 2, 3, 4, 4, 4, 4] and "5 frames" in note


def test_a_spread_is_even():
    for total in range(1, 40):
        numbers = clips.spread([1.0] * total, 8)
        steps = {after - before for before, after in itertools.pairwise(numbers)}
        assert max(steps) - min(steps) <= 1 and numbers[0] + 1 >= total - 1 - numbers[-1]
    assert clips.spread([1.0] * 8, 8) == list(range(8))
    assert clips.spread([5.0, 1.0, 1.0, 1.0], 4) == [0, 0, 1, 3]  # at 1, 3, 5, and 7 of 8


def test_bad_clips(tmp_path, monkeypatch):
    good = gif(tmp_path / "good.gif", 20).read_bytes()
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "words.gif").write_text("no clip")
    (tmp_path / "none").mkdir()
    folder(tmp_path / "broken", 3)
    (tmp_path / "broken" / "frame_1.png").write_bytes(b"x")
    (tmp_path / "cut.gif").write_bytes(good[: len(good) // 4])
    for name in ("empty.gif", "words.gif", "none", "broken", "missing.gif"):
        with pytest.raises(UserError, match=name) as error:
            clips.read(tmp_path / name, 8)
        assert all(error.value.parts) and "\n" not in str(error.value)
    try:  # what can be read of it counts, or it is refused
        assert clips.read(tmp_path / "cut.gif", 8)[1]
    except UserError as error:
        assert "cut.gif" in str(error)
    monkeypatch.setattr(clips, "MOST_FRAMES", 10)
    with pytest.raises(UserError, match="more than 10 frames"):
        clips.read(tmp_path / "good.gif", 8)
    monkeypatch.setattr(clips.images, "MAX_PIXELS", 10)
    with pytest.raises(UserError, match="at most 10 pixels"):
        clips.read(tmp_path / "good.gif", 8)


def without(monkeypatch, *modules: str) -> None:
    """Let the import of these modules fail."""
    real = builtins.__import__

    def importing(name, *rest):
        if name.split(".")[0] in modules:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_a_video_without_a_module_that_reads_it(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"not empty")
    without(monkeypatch, "av", "imageio")
    with pytest.raises(UserError, match="neither PyAV nor imageio.*pip install av"):
        clips.read(tmp_path / "clip.mp4", 8)


def test_a_video_by_imageio(tmp_path, monkeypatch):
    """A stand-in for imageio: the order of the frames, and its own errors in one line."""
    (tmp_path / "clip.mp4").write_bytes(b"not empty")
    without(monkeypatch, "av")
    fake = SimpleNamespace(imiter=lambda path: (np.asarray(frame) for frame in frames(15)))
    monkeypatch.setitem(sys.modules, "imageio", SimpleNamespace(v3=fake))
    monkeypatch.setitem(sys.modules, "imageio.v3", fake)
    read, note = clips.read(tmp_path / "clip.mp4", 8)
    assert values(read) == list(range(0, 15, 2)) and "15 frames" in note
    fake.imiter = lambda path: 1 / 0
    with pytest.raises(UserError, match="clip.mp4, which is damaged or no video"):
        clips.read(tmp_path / "clip.mp4", 8)


def test_a_video_by_pyav(tmp_path, monkeypatch):
    """With the real module, where it is installed."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(15):
            image = Image.new("RGB", (32, 32), (16 * number,) * 3)
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    read, note = clips.read(tmp_path / "clip.mp4", 8)
    light = [int(np.asarray(frame).mean()) for frame in read]
    assert "15 frames" in note and light == sorted(light) and light[-1] - light[0] > 150
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(UserError, match="bad.mp4, which is damaged or no video"):
        clips.read(tmp_path / "bad.mp4", 8)
