"""Images of the table: cameras, light, and the flags that make rendering cheap, in this place only.

Other flags change pixels: a policy must be trained and tried with the same ones. Measured on a CPU,
shadows and four samples per pixel cost eight times the time. Rendering needs OpenGL; `MUJOCO_GL`
chooses how, and is `egl` where it is not set.
"""

import atexit
import weakref

import numpy as np

from base.errors import UserError
from worlds.table_model import load

CAMERAS = ("front", "top", "wrist")
SMALLEST = 16
LARGEST = 640  # pixels: the side of MuJoCo's off-screen buffer in table_model.py
PACKAGES = "apt install libegl1 libegl-mesa0 libgl1-mesa-dri"
# The split `camera`: metres and radians by which the front camera is moved, and another light.
MOVED = {"pos": (0.10, -0.04, 0.05), "light": (0.5, 0.2, -1.0), "diffuse": 0.36}


def make_renderer(model, side: int):
    """A renderer of square images, `side` pixels wide. Raises UserError without OpenGL."""
    mujoco = load("mujoco")
    try:
        # A renderer that fails half-way is noisy when it is deleted, so the parts are tried first.
        context = mujoco.gl_context.GLContext(side, side)
        context.make_current()
        mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value).free()
        context.free()
    except Exception as error:  # PyOpenGL and GLFW raise many kinds
        raise UserError(
            f"no OpenGL ({type(error).__name__} from {mujoco.gl_context.__name__})",
            "a driver that draws without a screen",
            f"on Debian: {PACKAGES}, and leave MUJOCO_GL unset",
        ) from error
    return mujoco.Renderer(model, side, side)


def missing_opengl() -> UserError | None:
    """What is missing for pictures of the table, or None."""
    mujoco = load("mujoco")
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    try:
        make_renderer(model, SMALLEST).close()
    except UserError as error:
        return error
    return None


def make_cheap(mujoco, scene) -> None:
    """Switch off what costs time: shadows, reflections, haze, the sky."""
    flags = mujoco.mjtRndFlag
    for flag in (flags.mjRND_SHADOW, flags.mjRND_REFLECTION, flags.mjRND_HAZE, flags.mjRND_SKYBOX):
        scene.flags[flag] = 0


def move_camera(model, original, moved: bool, scale: float = 1.0) -> None:
    """The front camera and the light of the split `camera`, or those of all other splits.

    scale: the size of the table, where 1 is the large table.
    """
    camera, lamp = model.camera("front"), model.light("lamp")
    camera.pos[:] = original.camera("front").pos
    camera.quat[:] = original.camera("front").quat
    lamp.dir[:] = original.light("lamp").dir
    lamp.diffuse[:] = original.light("lamp").diffuse
    if not moved:
        return
    camera.pos[:] += np.array(MOVED["pos"]) * scale
    camera.quat[:] = look_at(camera.pos, np.array([0.0, 0.03, 0.0]) * scale)
    lamp.dir[:] = np.array(MOVED["light"]) / np.linalg.norm(MOVED["light"])
    lamp.diffuse[:] = MOVED["diffuse"]


def look_at(place: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The quaternion (4,) of a camera at a place that looks at a target, its x axis level."""
    backward = (place - target) / np.linalg.norm(place - target)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    matrix = np.stack([right, np.cross(backward, right), backward], 1)
    quaternion = np.zeros(4)
    load("mujoco").mju_mat2Quat(quaternion, matrix.ravel())
    return quaternion


def project(model, data, camera: str, points: np.ndarray) -> np.ndarray:
    """Where a camera sees points (n, 3), in metres: (n, 2), as shares of the image's side.

    (0, 0) is the top left corner, (1, 1) the bottom right. Points behind the camera are NaN.
    """
    number = model.camera(camera).id
    rotation = data.cam_xmat[number].reshape(3, 3)
    x, y, z = ((points - data.cam_xpos[number]) @ rotation).T
    # A camera of MuJoCo looks along its -z axis, with y upwards.
    depth = np.where(z < 0, -z, np.nan) * np.tan(np.radians(model.cam_fovy[number]) / 2)
    return np.stack([0.5 + x / depth / 2, 0.5 - y / depth / 2], 1)


class Cameras:
    """Renderers of one size, one for each model, made when they are first needed.

    A process that forks must fork before the first image: OpenGL's state does not survive a fork.
    """

    def __init__(self, side: int):
        if not SMALLEST <= side <= LARGEST:
            raise UserError(
                f"images of {side} pixels",
                f"{SMALLEST} to {LARGEST}",
                "choose another --image_size",
            )
        self.side = side
        self.renderers: dict = {}

    def picture(self, model, data, camera: str) -> np.ndarray:
        """What a camera sees: (side, side, 3) uint8."""
        if camera not in CAMERAS:
            raise UserError(f"the camera {camera!r}", " or ".join(CAMERAS), "choose one of them")
        if id(model) not in self.renderers:
            self.renderers[id(model)] = make_renderer(model, self.side)
            if len(self.renderers) == 1:
                # After the first context: Python runs the newest exit first, and MuJoCo's own exit
                # ends OpenGL.
                atexit.register(close_if_alive, weakref.ref(self))
        renderer = self.renderers[id(model)]
        renderer.update_scene(data, camera)
        make_cheap(load("mujoco"), renderer.scene)
        return renderer.render().copy()

    def close(self) -> None:
        """Free OpenGL. A renderer that is still open when Python ends raises an error."""
        for renderer in self.renderers.values():
            renderer.close()
        self.renderers.clear()


def close_if_alive(reference) -> None:
    cameras = reference()
    if cameras is not None:
        cameras.close()
