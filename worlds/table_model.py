"""The table as a MuJoCo model: its XML, and how a compiled model gets other shapes and colours.

To the physics every thing is the same box, so grip and stacking do not depend on the outline. To
the eye a thing is a prism with the outline of drawing.py. A model is compiled once for each number
of things. `dress` then changes meshes and colours in place: compiling takes longer than an episode.
"""

import ctypes
import functools
import importlib
import importlib.util
import os
import sys
from types import ModuleType

import numpy as np

from base.errors import UserError
from worlds import wall
from worlds.drawing import outline, rgb
from worlds.layouts import HALF_HEIGHT, HALF_WIDTH, RADIUS, SHAPES, ZONE_RADIUS

SUBSTEPS = 20  # of the physics in one control step
TIMESTEP = 0.005  # seconds: 20 of them are 0.1 s, so control runs at 10 Hz
GAP = 0.033  # metres from the hand's middle to an open finger: 14 mm of room on both sides
LOW, HIGH = np.array([-0.26, -0.26, 0.014]), np.array([0.26, 0.26, 0.26])  # where the hand may go
ZONE_HEIGHT = 0.0016  # of a plate or a tray without its rim, in metres
RIM = 0.005  # height of a rim, in metres
TRAY = 0.047  # half of a tray's width, in metres
ROUND = 36  # corners of a circle: more cost time and show no difference at 224 pixels
RIM_SHADE = 0.62  # a rim is darker than its zone
INSTALL = "run: pip install -r requirements-robot.txt"


def load(name: str) -> ModuleType:
    """The module `mujoco` or `gymnasium`. Raises UserError if it is not installed.

    MuJoCo reads MUJOCO_GL while it is imported, and is not imported at all if the library that it
    names is missing. Physics needs no OpenGL, so MuJoCo is then imported without any.
    """
    if name == "mujoco":
        choose_opengl()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if importlib.util.find_spec(name) is not None and name == "mujoco":
            return without_opengl()
        raise UserError(
            f"no module {name} ({error})", "the modules of the table's physics", INSTALL
        ) from error
    except Exception:  # PyOpenGL raises AttributeError where a library is missing
        if name != "mujoco":
            raise
        return without_opengl()


def without_opengl() -> ModuleType:
    """MuJoCo with its physics alone, after an import that failed for the lack of OpenGL."""
    for half_imported in [each for each in sys.modules if each.split(".")[0] == "mujoco"]:
        del sys.modules[half_imported]
    os.environ["MUJOCO_GL"] = "disable"
    return importlib.import_module("mujoco")


def choose_opengl() -> None:
    """Let MuJoCo draw without a screen, if it is not imported yet and nobody chose otherwise."""
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ or "mujoco" in sys.modules:
        return
    try:
        ctypes.CDLL("libEGL.so.1")
        os.environ["MUJOCO_GL"] = "egl"
    except OSError:
        os.environ["MUJOCO_GL"] = "disable"


# --- meshes ------------------------------------------------------------------------------------


def corners(shape: str) -> np.ndarray:
    """The outline of a thing in metres, counter-clockwise, y away from the viewer: (N, 2)."""
    if shape == "circle":
        angle = np.arange(ROUND) * 2 * np.pi / ROUND
        return np.stack([np.cos(angle), np.sin(angle)], 1) * RADIUS
    points = outline(shape) * [1, -1] * RADIUS
    x, y = points.T
    area = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum()
    return points if area > 0 else points[::-1]


def prism(points: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A prism above an outline that its middle sees whole: corners (2N + 2, 3), faces (4N, 3)."""
    n = len(points)
    ring = np.arange(n)
    after = (ring + 1) % n
    bottom = np.column_stack([points, np.full(n, low)])
    top = np.column_stack([points, np.full(n, high)])
    ends = np.array([[0.0, 0.0, low], [0.0, 0.0, high]])
    faces = [
        np.column_stack([np.full(n, 2 * n), after, ring]),
        np.column_stack([np.full(n, 2 * n + 1), n + ring, n + after]),
        np.column_stack([ring, after, n + after]),
        np.column_stack([ring, n + after, n + ring]),
    ]
    return np.concatenate([bottom, top, ends]), np.concatenate(faces)


def frame(points: np.ndarray, inner: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A raised rim along an outline, from the share `inner` of its size: corners and faces."""
    n = len(points)
    ring = np.arange(n)
    after = (ring + 1) % n
    rings = [(points, 0.0), (points, high), (points * inner, high), (points * inner, 0.0)]
    vertices = [np.column_stack([flat, np.full(n, height)]) for flat, height in rings]
    faces = []
    for level in range(4):
        here, there = level * n, (level + 1) % 4 * n
        faces.append(np.column_stack([here + ring, here + after, there + after]))
        faces.append(np.column_stack([here + ring, there + after, there + ring]))
    return np.concatenate(vertices), np.concatenate(faces)


def zone_corners(shape: str) -> np.ndarray:
    if shape == "tray":
        return np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * TRAY
    return corners("circle") / RADIUS * ZONE_RADIUS


def meshes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All meshes by name: corners in metres and faces."""
    found = {shape: prism(corners(shape), -HALF_HEIGHT, HALF_HEIGHT) for shape in SHAPES}
    for zone, inner in (("plate", 0.84), ("tray", 0.86)):
        found[zone] = prism(zone_corners(zone), 0.0, ZONE_HEIGHT)
        found[zone + "_rim"] = frame(zone_corners(zone), inner, RIM)
    return found


def mesh_xml(name: str, vertices: np.ndarray, faces: np.ndarray) -> str:
    points = " ".join(f"{value:.7f}" for value in vertices.ravel())
    corners_of_faces = " ".join(str(value) for value in faces.ravel())
    return f'<mesh name="{name}" vertex="{points}" face="{corners_of_faces}"/>'


# --- the model ---------------------------------------------------------------------------------

HAND = f"""
<body name="hand" gravcomp="1">
  <joint name="x" type="slide" axis="1 0 0"/>
  <joint name="y" type="slide" axis="0 1 0"/>
  <joint name="z" type="slide" axis="0 0 1"/>
  <geom class="bare" type="box" size="0.042 0.009 0.006" pos="0 0 0.048" mass="0.9"
    rgba="0.25 0.27 0.30 1"/>
  <geom class="bare" type="cylinder" size="0.007 0.16" pos="0 0 0.21" mass="0.1"
    rgba="0.25 0.27 0.30 1"/>
  <camera name="wrist" pos="0 -0.055 0.050" xyaxes="1 0 0 0 0.94 0.34" fovy="80"/>
  <body name="left_finger" gravcomp="1">
    <joint name="left" type="slide" axis="-1 0 0" range="0 {GAP}" limited="true"/>
    <geom class="finger" pos="-0.004 0 0.015"/>
  </body>
  <body name="right_finger" gravcomp="1">
    <joint name="right" type="slide" axis="1 0 0" range="0 {GAP}" limited="true"/>
    <geom class="finger" pos="0.004 0 0.015"/>
  </body>
</body>"""


def thing_xml(index: int) -> str:
    """A thing: a box that collides, and a mesh that is seen."""
    size = f"{HALF_WIDTH} {HALF_WIDTH} {HALF_HEIGHT}"
    return (
        f'<body name="thing{index}" pos="{index * 0.1} 0 1"><freejoint/>'
        f'<geom class="block" size="{size}"/>'
        f'<geom class="seen" name="thing{index}" mesh="circle"/></body>'
    )


def zone_xml(index: int) -> str:
    return (
        f'<body name="zone{index}"><geom class="seen" mass="1" name="zone{index}" mesh="plate"/>'
        f'<geom class="seen" mass="1" name="rim{index}" mesh="plate_rim"/></body>'
    )


def words_of(numbers) -> str:
    return " ".join(str(number) for number in numbers)


def table_xml(number: int) -> str:
    """The XML of a table with this number of things and two zones."""
    shapes = "".join(mesh_xml(name, *mesh) for name, mesh in meshes().items())
    things = "".join(thing_xml(index) for index in range(number))
    zones = "".join(zone_xml(index) for index in range(2))
    servo = 'kp="2500" kv="100"'  # critically damped for 1 kg: a step ends within 0.1 s
    grip = 'kp="600" kv="12" forcerange="-12 12"'  # 10 N on a thing that weighs 0.5 N
    return f"""
<mujoco>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual>
    <global offwidth="640" offheight="640"/>
    <quality offsamples="0" shadowsize="0"/>
    <map znear="0.02" zfar="20"/>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.18 0.18 0.18" specular="0 0 0"/>
  </visual>
  <default>
    <default class="bare"><geom contype="0" conaffinity="0"/></default>
    <default class="seen">
      <geom type="mesh" contype="0" conaffinity="0" mass="0" group="1"/>
    </default>
    <default class="block">
      <geom type="box" mass="0.05" friction="0.8 0.02 0.001" condim="4" group="3"/>
    </default>
    <default class="finger">
      <geom type="box" size="0.004 0.010 0.027" mass="0.05" friction="1.5 0.02 0.001" condim="4"
        rgba="0.42 0.45 0.50 1"/>
    </default>
  </default>
  <asset>{shapes}</asset>
  <worldbody>
    <light name="lamp" directional="true" pos="0 0 1" dir="-0.25 0.45 -1"
      diffuse="0.5 0.5 0.5" specular="0 0 0"/>
    <camera name="front" pos="0 -0.461 0.971" xyaxes="1 0 0 0 0.883 0.469" fovy="30"/>
    <camera name="top" pos="0 0.01 1.2" fovy="24"/>
    <geom name="table" type="plane" size="3 3 0.1" rgba="0.5 0.5 0.5 1" friction="0.8 0.02 0.001"/>
    <body name="wall" pos="{words_of(wall.HIDDEN)}">
      <geom name="wall" type="box" size="{words_of(wall.HALF)}" rgba="0.36 0.33 0.30 1"/>
    </body>
    {zones}{HAND}{things}
  </worldbody>
  <equality>
    <joint joint1="left" joint2="right" solref="0.01 1"/>
  </equality>
  <actuator>
    <position joint="x" {servo}/><position joint="y" {servo}/><position joint="z" {servo}/>
    <position joint="left" {grip}/><position joint="right" {grip}/>
  </actuator>
</mujoco>"""


@functools.cache
def compiled(number: int):
    """The compiled model for this number of things. Callers work on a copy."""
    return load("mujoco").MjModel.from_xml_string(table_xml(number))


# --- dressing ----------------------------------------------------------------------------------


def dress(model, geom: str, mesh: str, colour: np.ndarray) -> None:
    """Give a visible geom another mesh, and a colour (3,) in 0..1."""
    part, shape = model.geom(geom), model.mesh(mesh)
    part.dataid[0] = shape.id
    # MuJoCo stores a mesh around its own centre of mass, so the geom stands where that centre is.
    part.pos[:] = model.mesh_pos[shape.id]
    part.quat[:] = model.mesh_quat[shape.id]
    start, count = model.mesh_vertadr[shape.id], model.mesh_vertnum[shape.id]
    points = model.mesh_vert[start : start + count]
    # The renderer leaves out what lies outside the image, by this radius.
    # Model and mesh no longer share a frame: MuJoCo would skip the offset.
    part.sameframe[0] = 0
    part.rbound[0] = np.linalg.norm(points, axis=1).max()
    part.rgba[:3] = colour


def dress_zone(model, index: int, shape: str, colour: np.ndarray) -> None:
    dress(model, f"zone{index}", shape, colour)
    dress(model, f"rim{index}", f"{shape}_rim", colour * RIM_SHADE)


def grey_table(model, rng: np.random.Generator) -> None:
    """A table of some neutral grey."""
    model.geom("table").rgba[:3] = rgb(rng.uniform(0, 360), 0.03, rng.uniform(0.44, 0.58)) / 255
