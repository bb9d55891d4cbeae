"""A real arm through LeRobot's driver: the SO-101, if the package `lerobot` is installed.

This module was written from the driver's source. It never moved a real arm.

The state is the six joints in degrees, and the gripper from 0 to 100, as the driver gives them with
`use_degrees`. So it fits policies that were trained on recordings of such an arm.
"""

import threading
import time
from typing import Any

import numpy as np

from base.errors import UserError
from base.limits import Limits
from base.robots import Frame

FULL = 1000  # of the motors' register Torque_Limit: all of their force
IMAGE = (480, 640)  # pixels, height and width, that webcams give
FPS = 30
INSTALL = "pip install 'lerobot[feetech]', in an environment of its own"


def driver() -> Any:
    """LeRobot's module of the SO-101. Raises UserError if it is not installed."""
    import importlib

    for name in ("so101_follower", "so_follower"):  # its name in older and in newer versions
        try:
            return importlib.import_module(f"lerobot.robots.{name}")
        except ImportError:
            continue
    raise UserError("no module lerobot with the SO-101", "LeRobot's driver", INSTALL)


def cameras_of(text: str) -> dict:
    """Cameras from "front=0,wrist=2": a name of each, and its number in the system."""
    from lerobot.cameras.opencv.configuration_opencv import OpenCVCameraConfig

    height, width = IMAGE
    found = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if not name or not number.isdigit():
            raise UserError(
                f"--cameras {text!r}", "names and numbers: front=0,wrist=2", "correct it"
            )
        found[name] = OpenCVCameraConfig(
            index_or_path=int(number), fps=FPS, width=width, height=height
        )
    return found


class LeRobotArm:
    """A `base.robots.Robot`: the SO-101 on a serial port.

    cameras: as `cameras_of` reads them. The first gives "image", the others "image_NAME".
    """

    kinematics = None

    def __init__(self, limits: Limits, port: str, identity: str, cameras: str):
        module = driver()
        self.name, self.names, self.rate = limits.robot, limits.names, limits.hz
        self.camera_names = [part.partition("=")[0] for part in cameras.split(",")]
        config = module.SO101FollowerConfig(
            port=port,
            id=identity,
            cameras=cameras_of(cameras),
            use_degrees=True,
            # An arm without force falls. Whoever ends a run takes hold of it first.
            disable_torque_on_disconnect=False,
        )
        self.arm = module.SO101Follower(config)
        self.lock = threading.Lock()  # of the serial bus
        self.frame_at = float("inf")
        self.share = 1.0
        try:
            self.arm.connect(calibrate=False)
            if not self.arm.is_calibrated:
                raise UserError("an arm without calibration", "a calibration", "lerobot-calibrate")
        except UserError:
            raise
        except Exception as error:  # serial ports and cameras fail in many ways
            raise UserError(
                f"an arm at {port} that does not connect ({error})",
                "an SO-101 with power, and its cameras",
                "check the port with lerobot-find-port",
            ) from error

    def observe(self) -> np.ndarray:
        with self.lock:
            places = self.arm.bus.sync_read("Present_Position")
        return np.array([places[name.removesuffix(".pos")] for name in self.names], np.float32)

    def look(self) -> Frame | None:
        seen = {}
        for number, name in enumerate(self.camera_names):
            key = "image" if number == 0 else f"image_{name}"
            seen[key] = self.arm.cameras[name].async_read()  # waits for the next image
        return Frame(time.monotonic(), seen)

    def act(self, command: np.ndarray) -> None:
        wanted = {
            name.removesuffix(".pos"): float(value)
            for name, value in zip(self.names, command, strict=True)
        }
        with self.lock:
            self.arm.bus.sync_write("Goal_Position", wanted)

    def relax(self, share: float) -> None:
        if abs(share - self.share) < 0.01:
            return
        self.share = share
        with self.lock:
            for motor in self.arm.bus.motors:
                self.arm.bus.write("Torque_Limit", motor, int(FULL * share))

    def over(self) -> str:
        """Nobody judges a real arm."""
        return ""

    def close(self) -> None:
        if self.arm.is_connected:
            self.arm.disconnect()
