"""LeRobot's driver, played by a stand-in with the methods that its source has."""

import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

from base import lerobot_arm, limits
from base.errors import UserError
from base.lerobot_arm import LeRobotArm

NAMES = [f"{name}.pos" for name in ("shoulder_pan", "gripper")]
BOUNDS = SimpleNamespace(robot="so101", names=NAMES, hz=10.0)


class Bus:
    motors = ("shoulder_pan", "gripper")

    def __init__(self):
        self.written = []

    def sync_read(self, name):
        assert name == "Present_Position"
        return {"gripper": 40.0, "shoulder_pan": -12.5}

    def sync_write(self, name, values):
        self.written.append((name, values))

    def write(self, name, motor, value):
        self.written.append((name, motor, value))


class Follower:
    is_calibrated = True

    def __init__(self, config):
        self.config, self.bus, self.is_connected = config, Bus(), False
        image = np.zeros((4, 4, 3), np.uint8)
        self.cameras = {name: SimpleNamespace(async_read=lambda: image) for name in config.cameras}

    def connect(self, calibrate):
        assert calibrate is False
        if self.config.port == "/dev/nothing":
            raise OSError("no such port")
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False


@pytest.fixture
def driver(monkeypatch):
    module = SimpleNamespace(SO101Follower=Follower, SO101FollowerConfig=SimpleNamespace)
    monkeypatch.setattr(lerobot_arm, "driver", lambda: module)
    name = "lerobot.cameras.opencv.configuration_opencv"
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        monkeypatch.setitem(
            sys.modules, ".".join(parts[:count]), types.ModuleType(parts[count - 1])
        )
    sys.modules[name].OpenCVCameraConfig = SimpleNamespace
    return module


def test_reading_and_writing(driver):
    arm = LeRobotArm(BOUNDS, "/dev/ttyACM0", "mine", "front=0,wrist=2")
    config = arm.arm.config
    assert config.use_degrees and config.disable_torque_on_disconnect is False
    assert config.cameras["wrist"].index_or_path == 2
    assert arm.observe().tolist() == [-12.5, 40.0]
    assert set(arm.look().seen) == {"image", "image_wrist"}
    arm.act(np.array([1.0, 2.0], np.float32))
    arm.relax(0.5)
    arm.relax(0.501)  # the bus is slow: nothing is written for so little
    kept = [("Goal_Position", {"shoulder_pan": 1.0, "gripper": 2.0})]
    kept += [("Torque_Limit", motor, 500) for motor in Bus.motors]
    assert arm.arm.bus.written == kept and arm.over() == ""
    arm.close()
    arm.close()


def test_what_is_missing_is_one_line(driver, monkeypatch):
    with pytest.raises(UserError, match="does not connect .no such port."):
        LeRobotArm(BOUNDS, "/dev/nothing", "mine", "front=0")
    with pytest.raises(UserError, match="front=0,wrist=2"):
        LeRobotArm(BOUNDS, "/dev/ttyACM0", "mine", "front")
    monkeypatch.setattr(Follower, "is_calibrated", False)
    with pytest.raises(UserError, match="without calibration"):
        LeRobotArm(BOUNDS, "/dev/ttyACM0", "mine", "front=0")


def test_without_lerobot_its_installation_is_named(monkeypatch):
    for name in ("lerobot", "lerobot.robots", "lerobot.robots.so101_follower"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "lerobot.robots.so_follower", None)
    with pytest.raises(UserError, match="pip install"):
        lerobot_arm.driver()


def test_the_names_are_those_of_the_limits():
    if "so101" in limits.known():
        assert all(name.endswith(".pos") for name in limits.read("so101").names)
