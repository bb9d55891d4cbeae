"""Cameras: each thing is seen in its colour, where it stands. Skipped without OpenGL."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from base.errors import UserError
from worlds import camera, drawing
from worlds.camera import CAMERAS
from worlds.layouts import Layout, Thing
from worlds.orders import Order
from worlds.table import TableEnv
from worlds.tasks import Task

SIDE = 96


def make_task() -> Task:
    things = [Thing("square", "red", -0.15, 0.1), Thing("circle", "blue", 0.15, -0.1)]
    things.append(Thing("star", "green", 0.0, 0.0))
    zones = [Thing("plate", "yellow", -0.1, -0.15, 0.0), Thing("tray", "pink", 0.15, 0.15, 0.0)]
    order = Order("pick", things[0].noun())
    return Task(Layout(things, zones), order, "take the red square", things[0], None)


@pytest.fixture(scope="module")
def env():
    env = TableEnv(SIDE)
    try:
        env.reset(seed=0, options={"task": make_task()})
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    yield env
    env.close()


def where(image: np.ndarray, colour: str) -> np.ndarray:
    """The mean row and column of the pixels with about the hue of a colour."""
    paint = drawing.rgb(drawing.HSV[colour][0], *drawing.HSV[colour][2:])
    pixels = image.astype(float) + 1e-6
    alike = (pixels * paint).sum(-1) / np.linalg.norm(pixels, axis=-1) / np.linalg.norm(paint)
    rows, columns = np.nonzero(alike > 0.985)
    assert len(rows) > 5, colour
    return np.array([rows.mean(), columns.mean()])


def test_each_thing_is_seen_where_it_stands(env):
    seen, _ = env.reset(seed=0, options={"task": make_task()})
    image = seen["image"]
    assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8
    red, blue, green = (where(image, colour) for colour in ("red", "blue", "green"))
    assert red[1] < green[1] < blue[1]  # from left to right
    assert red[0] < green[0] < blue[0]  # from far to near


@pytest.mark.parametrize("moved", [False, True])
def test_a_projected_place_lies_on_the_pixels_of_its_thing(env, moved):
    seen, _ = env.reset(seed=0, options={"task": make_task(), "camera": moved})
    points = env.pixels("front", seen["things"]) * SIDE
    for point, colour in zip(points, ("red", "blue", "green", "yellow", "pink"), strict=True):
        # A thing is about 9 pixels wide here. The mean pixel includes its sides.
        assert np.abs(where(seen["image"], colour) - point[::-1]).max() < 2, colour


def test_a_point_behind_the_camera_has_no_pixels(env):
    env.reset(seed=0, options={"task": make_task()})
    points = env.pixels("front", np.array([[0.0, -2.0, 2.0], [0.0, 0.0, 0.0]]))
    assert np.isnan(points[0]).all() and np.isfinite(points[1]).all()


def test_every_camera_gives_another_image(env):
    images = [env.picture(name) for name in CAMERAS]
    assert all(image.shape == (SIDE, SIDE, 3) for image in images)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(images[first].astype(int) - images[second]).mean() > 5
    with pytest.raises(UserError, match="the camera 'side'"):
        env.picture("side")


def test_the_split_camera_moves_the_camera_and_the_next_episode_moves_it_back(env):
    options = {"task": make_task()}
    before = env.reset(seed=0, options=options)[0]["image"]
    moved = env.reset(seed=0, options=options | {"camera": True})[0]["image"]
    after = env.reset(seed=0, options=options)[0]["image"]
    assert (before == after).all()
    assert np.abs(before.astype(int) - moved).mean() > 5


def test_a_size_that_opengl_cannot_draw_is_refused():
    with pytest.raises(UserError, match="images of 5000 pixels"):
        camera.Cameras(5000)


def test_an_environment_that_nobody_closed_ends_quietly(env):
    code = (
        "from worlds.table import TableEnv\n"
        "tables = [TableEnv(32), TableEnv(32)]\n"
        "print([table.reset(seed=0)[0]['image'].shape for table in tables])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[(32, 32, 3), (32, 32, 3)]\n" and done.stderr == ""


def test_no_driver_is_said_in_one_line_and_physics_goes_on():
    code = (
        "from worlds.table import TableEnv\n"
        "from base.errors import UserError\n"
        "print(TableEnv().reset(seed=0)[0]['state'].shape)\n"
        "try:\n    TableEnv(32).reset(seed=0)\n"
        "except UserError as error:\n    print(error)"
    )
    surroundings = {"MUJOCO_GL": "disable", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=surroundings
    )
    first, second = done.stdout.splitlines()
    assert first == "(8,)" and "no OpenGL" in second and "libegl1" in second
