"""The table's model: outlines become closed meshes, and a dressed model shows what was asked."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from base.errors import UserError
from worlds import table_model
from worlds.layouts import RADIUS, SHAPES, ZONES
from worlds.table_model import corners, dress, meshes


@pytest.mark.parametrize("shape", SHAPES)
def test_an_outline_turns_left_and_fits_its_radius(shape):
    points = corners(shape)
    x, y = points.T
    assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0
    assert np.linalg.norm(points, axis=1).max() <= 1.04 * RADIUS


ROOT = Path(__file__).parent.parent.parent


def test_a_triangle_points_away_from_the_viewer():
    highest = corners("triangle")[corners("triangle")[:, 1].argmax()]
    assert highest == pytest.approx([0, RADIUS], abs=1e-9)


@pytest.mark.parametrize("name", [*SHAPES, *ZONES, "plate_rim", "tray_rim"])
def test_a_mesh_is_closed_and_looks_outwards(name):
    vertices, faces = meshes()[name]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there = {tuple(edge) for edge in edges.tolist()}
    assert len(there) == len(edges)
    assert there == {(b, a) for a, b in there}
    a, b, c = (vertices[faces[:, column]] for column in range(3))
    assert np.einsum("ij,ij->i", np.cross(a, b), c).sum() > 0  # six times the volume


def test_a_missing_module_is_said_in_one_line():
    with pytest.raises(UserError, match="no module mujocow.*requirements-robot.txt"):
        table_model.load("mujocow")


@pytest.mark.parametrize("mesh", [*SHAPES, *ZONES])
def test_a_dressed_geom_has_the_corners_of_its_shape(mesh):
    mujoco = pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium")
    model = mujoco.MjModel.from_xml_string(table_model.table_xml(3))
    dress(model, "thing1", mesh, np.array([0.1, 0.2, 0.3]))
    data = mujoco.MjData(model)
    data.joint(5 + 1).qpos[:] = (0.1, -0.1, 0.2, 1, 0, 0, 0)  # after 5 joints of the hand
    mujoco.mj_forward(model, data)
    shape, seen = model.mesh(mesh), data.geom("thing1")
    start, count = model.mesh_vertadr[shape.id], model.mesh_vertnum[shape.id]
    points = model.mesh_vert[start : start + count] @ seen.xmat.reshape(3, 3).T + seen.xpos
    wanted = meshes()[mesh][0] + [0.1, -0.1, 0.2]
    assert np.sort(points, 0) == pytest.approx(np.sort(wanted, 0), abs=1e-5)
    assert model.geom("thing1").rgba[:3] == pytest.approx([0.1, 0.2, 0.3])


def test_physics_needs_no_opengl():
    """A library that is missing: OSMesa is not among the packages that the docs name."""
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium")
    code = (
        "from worlds import camera, table; env = table.TableEnv(); env.reset(seed=0);"
        "env.step([0, 0, 0, 1]); print(camera.missing_opengl())"
    )
    environment = os.environ | {"MUJOCO_GL": "disable"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "libegl1" in done.stdout and "found no OpenGL" in done.stdout
