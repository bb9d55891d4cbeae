"""Clips of a simulated arm: one arm, two arms under a delay, and what is refused."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

from base.errors import UserError
from tools import arm_clip
from worlds.camera import missing_opengl

needs_opengl = pytest.mark.skipif(missing_opengl() is not None, reason="it draws with OpenGL")


@needs_opengl
@pytest.mark.parametrize("name, late", [("one.gif", 0), ("two.webp", 200)])
def test_a_clip_has_an_image_per_control_step(robot_world, tmp_path, capsys, name, late):
    checkpoint = ["--checkpoint", str(robot_world / "policy" / "best.pt")]
    more = ["--out", str(tmp_path / name), "--latency", str(late), "--side", "64"]
    arm_clip.main([*checkpoint, *more, "--seconds", "1"])
    image = Image.open(tmp_path / name)
    durations = []
    for number in range(image.n_frames):  # equal images in a row are one, which stays longer
        image.seek(number)
        image.load()
        durations.append(image.info["duration"])
    assert sum(durations) == 100 * (12 + arm_clip.LAST)  # steps at 0.0 to 1.1 s
    arms = 2 if late else 1
    assert image.size == (64 * arms + arm_clip.GAP * (arms - 1), 64 + arm_clip.STRIP)
    assert capsys.readouterr().out.count("not done") == arms


def test_the_end_is_written_below_each_arm():
    black = [np.zeros((64, 64, 3), np.uint8)]
    arms = [{"text": "lift it", "images": black, "done": done, "rate": 10} for done in (1, 0)]
    whole = np.asarray(arm_clip.page(arms, ["a", "b"], 0)).astype(int)
    green = (whole[64:, :66, 1] - whole[64:, :66, 0]) > 50
    red = (whole[64:, 66:, 0] - whole[64:, 66:, 1]) > 50
    assert green.any() and red.any()


def test_what_is_refused(robot_world):
    with pytest.raises(UserError, match="a .gif or a .webp"):
        arm_clip.main(["--out", "arm.mp4"])
    with pytest.raises(UserError, match="one of val"):
        checkpoint = ["--checkpoint", str(robot_world / "policy" / "best.pt")]
        arm_clip.main([*checkpoint, "--split", "valley"])
