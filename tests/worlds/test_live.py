"""The table in real time: the same physics, frames at their time, and what goes wrong with them."""

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

from base import limits
from base.errors import UserError
from base.virtual import VirtualClock
from robot.scores import Trial, draw_task
from robot.stills import kinds_of
from worlds import live
from worlds.live import Camera, LiveTable
from worlds.table import TableEnv

TABLE = limits.read("table")


def make_table(clock=None, pace=1.0, **camera):
    robot = LiveTable(TABLE, clock or VirtualClock(), Camera(**camera), pace, kinds_of)
    text = robot.begin("val", 0, 3, None)
    return robot, text


@pytest.mark.parametrize("pace", [1.0, 3.0])
def test_at_its_own_rate_the_physics_is_that_of_the_environment(pace):
    robot, text = make_table(pace=pace)
    env = TableEnv()
    task, seed = live.task_of("val", 0, 3, None)
    seen, info = env.reset(seed=seed, options={"task": task})
    assert info["text"] == text
    rng = np.random.default_rng(0)
    for step in range(12):
        assert np.array_equal(robot.observe(), seen["state"])
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        robot.act(action)
        robot.clock.wait_until((step + 1) / 10 / pace)
        seen, *_ = env.step(action)
    assert np.array_equal(robot.look().seen["things"], seen["things"])
    assert robot.judged()["text"] == text and not robot.over()
    robot.close()


def test_the_tasks_are_those_of_run_policy():
    for split in ("val", "adversarial"):
        mine, _ = live.task_of(split, 2, 5, None)
        theirs, _ = draw_task(Trial(seed=2), split, 5)
        assert mine.text == theirs.text and mine.layout == theirs.layout
    with pytest.raises(UserError, match="one of val"):
        live.task_of("valley", 0, 0, None)


def test_time_goes_on_between_control_steps():
    robot, _ = make_table()
    robot.act(np.array([1, 0, 0, -1], np.float32))
    begun = robot.observe()[0]
    robot.clock.wait_until(0.03)
    part = robot.observe()[0]
    robot.clock.wait_until(0.1)
    assert begun < part < robot.observe()[0]


def test_frames_come_at_their_time_and_some_are_lost():
    robot, _ = make_table(fps=20.0, drop=0.3)
    frames = [robot.look() for _ in range(200)]
    kept = [frame.stamp for frame in frames if frame]
    assert 40 <= frames.count(None) <= 80
    assert np.allclose(np.mod(np.array(kept) * 20 + 0.5, 1), 0.5)
    robot.clock.wait_until(robot.frame_at + 1.0)  # nobody looked: those frames are gone
    robot.look()
    assert 0 < robot.frame_at - robot.clock.now() <= 1 / 20 + 1e-6


def test_a_lost_camera_comes_back():
    robot, _ = make_table(fps=10.0, lost_at=0.35, back_at=0.55)
    seen = []
    for _ in range(8):
        try:
            seen.append(robot.look() is not None)
        except ConnectionError:
            seen.append(False)
    assert seen == [True] * 4 + [False] * 2 + [True] * 2


def test_a_relaxed_hand_is_weaker_and_comes_back():
    robot, _ = make_table()
    gains = robot.env.model.actuator_gainprm.copy()
    robot.relax(0.3)
    assert np.allclose(robot.env.model.actuator_gainprm, 0.3 * gains)
    robot.begin("val", 0, 3, None)
    assert np.array_equal(robot.env.model.actuator_gainprm, gains)


def test_images_are_drawn_from_a_copy():
    robot, _ = make_table(side=32, names="front,top")
    try:
        frame = robot.look()
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    assert frame.seen["image"].shape == frame.seen["image_top"].shape == (32, 32, 3)
    robot.close()
    robot.close()


def test_only_robots_with_a_simulation(tmp_path):
    other = limits.from_dict(limits.files.read_json(limits.FOLDER / "table.json", "", ""), "here")
    object.__setattr__(other, "robot", "crane")
    with pytest.raises(UserError, match="no simulation of 'crane'"):
        live.open_table(other, VirtualClock(), Camera(), 1.0, kinds_of)
