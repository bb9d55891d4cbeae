"""Drive a robot with a trained policy: in real time, and within limits that a file sets.

Reads   a policy: --bundle (needs no torch), --checkpoint, or --server
        the robot's limits: base/limits/ROBOT.json, or --limits
Writes  nothing, or a log of JSON lines (--log) and figures (--json)

At the simulated table, in real time, with a page at http://127.0.0.1:8080:
    python drive_robot.py --checkpoint checkpoints_policy/best.pt --status_port 8080
The commands of a real arm without moving it, then at a fifth of its speed:
    python drive_robot.py --robot so101 --port /dev/ttyACM0 --bundle my_bundle --dry_run
    python drive_robot.py --robot so101 --port /dev/ttyACM0 --bundle my_bundle --speed 0.2
A recorded episode: what would the policy have done?
    python drive_robot.py --robot replay --replay my_recordings --checkpoint my_policy/best.pt
Fifty episodes under a delay of 100 ms, on a virtual clock that no load disturbs:
    python drive_robot.py --checkpoint my_policy/best.pt --virtual --episodes 50 --latency 100
A policy that hangs for two seconds, and a camera that is lost:
    python drive_robot.py --checkpoint my_policy/best.pt --virtual --fault hang
    python drive_robot.py --checkpoint my_policy/best.pt --virtual --lose_camera --fault_seconds 0

Space, Enter or Ctrl-C stop the arm. An emergency stop is a switch that takes away its power.
"""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from base import files, flags, limits, metrics, robots, virtual
from base.control import ControlConfig
from base.errors import UserError
from base.faults import Rehearsal, Troubled, Troubles
from base.flags import setting
from base.runs import Runner, summary
from base.status import Journal, serve
from base.stopping import stops


@dataclass
class Driving:
    """The policy and the robot."""

    bundle: str | None = setting(None, "a policy's bundle", metavar="FOLDER")
    checkpoint: str | None = setting(None, "a checkpoint of train_policy.py", metavar="FILE")
    server: str | None = setting(None, "a policy's server", metavar="ws://HOST:PORT")
    server_key: str | None = setting(None, "file with the server's key", metavar="FILE")
    robot: str = setting("table", "what is driven", choices=robots.KINDS)
    instruction: str | None = setting(
        None, "the order; none: at a simulated table, an order of the split"
    )
    limits: str | None = setting(None, "another file of limits", metavar="FILE")
    home: bool = setting(False, "move home first, slowly; nothing looks where it goes")
    port: str | None = setting(None, "so101: the arm's serial port; none: simulation")
    arm_id: str = setting("so101", "so101: the name of the arm's calibration in LeRobot")
    cameras: str = setting("front=0", "so101: names and numbers, such as front=0,wrist=2")
    replay: str | None = setting(
        None, "replay: a LeRobot dataset, or an episode as .npz", metavar="FOLDER"
    )
    episode: int = setting(0, "replay: the number of the dataset's episode", at_least=0)
    log: str | None = setting(None, "write a line of JSON per second here", metavar="FILE")
    json: str | None = setting(None, "write the figures here", metavar="FILE")
    status_port: int | None = setting(None, "serve a page of figures at 127.0.0.1", at_least=0)
    threads: int = setting(1, "CPU threads of the policy", at_least=1)

    def __post_init__(self):
        flags.check(self)
        given = [name for name in ("bundle", "checkpoint", "server") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "no policy"
            raise UserError(found, "one of --bundle, --checkpoint, --server", "name one policy")
        if self.robot == "replay" and not self.replay:
            raise UserError(
                "--robot replay without an episode", "--replay FOLDER", "name a dataset"
            )


def parse_args(argv):
    parser = flags.Parser(__doc__)
    for kind in (Driving, ControlConfig, Rehearsal, Troubles):
        parser.add_settings(kind)
    return parser.parse_args(argv)


def open_maker(own: Driving):
    """What makes the chunks. Torch is imported for a checkpoint only."""
    if own.bundle:
        from base.policy_runner import BundleMaker

        return BundleMaker(own.bundle, threads=own.threads)
    if own.server:
        from base.remote import Calling, RemoteMaker

        return RemoteMaker(Calling(server=own.server, server_key=own.server_key))
    try:
        import torch

        from net.chunks import ChunkConfig
        from robot import policies
        from robot.writer import TorchMaker
    except ImportError as error:
        do = "use --bundle here, or install the checkout's requirements"
        raise UserError(f"--checkpoint without {error.name}", "torch and a checkout", do) from error
    torch.set_num_threads(own.threads)
    return TorchMaker(policies.open_policy(own.checkpoint, torch.device("cpu")), ChunkConfig())


def open_robot(own: Driving, bounds: limits.Limits, clock, trial, troubles, maker, hz: float):
    """The robot. maker: its policy says which images it needs."""
    if own.robot == "so101" and own.port:
        from base.lerobot_arm import LeRobotArm

        return LeRobotArm(bounds, own.port, own.arm_id, own.cameras)
    try:
        from robot.stills import kinds_of
        from worlds import live
    except ImportError as error:
        do = "run it in a checkout of the project"
        raise UserError(f"a simulated {own.robot} in a bundle", "the room worlds/", do) from error
    side, names = images_of(maker)
    camera = live.Camera(side, names, trial.fps, troubles.drop_frames)
    if troubles.lose_camera:
        camera.lost_at, camera.back_at = troubles.fault_at, troubles.until()
    return live.open_table(bounds, clock, camera, trial.pace or hz / bounds.hz, kinds_of)


def images_of(maker) -> tuple[int | None, str]:
    """The pixels of the images that a policy needs, or None, and its cameras' names."""
    about = maker.about
    names = ",".join(name.split(".")[-1] for name in about["cameras"]) or "front"
    return (int(about["image_side"]) if about["sees"] == "pixels" else None), names


def open_recording(own: Driving, maker) -> tuple[dict, str | None]:
    """The arrays of a recorded episode, and its order. Nothing for another robot than `replay`."""
    if own.robot != "replay":
        return {}, None
    if not Path(own.replay).is_dir():
        return robots.recorded(own.replay), None
    try:
        from robot import replays
    except ImportError as error:
        do = "run it in a checkout of the project, or give it a .npz"
        raise UserError("a dataset and no reader of it", "the room robot/", do) from error
    cameras = maker.about["cameras"] if maker.about["sees"] == "pixels" else []
    return replays.read(own.replay, own.episode, list(cameras))


def open_world(own: Driving, trial: Rehearsal, troubles: Troubles, hz: float | None, maker):
    """The limits, the clock, the robot, and the order. hz: control steps per second; None: as the
    limits say."""
    arrays, order = open_recording(own, maker)
    bounds = limits.read(str(arrays.get("robot", own.robot)), own.limits)
    clock = virtual.VirtualClock() if trial.virtual else robots.RealClock()
    order = own.instruction or order
    if arrays:
        return bounds, clock, robots.Replay(arrays, bounds.names, clock), order
    robot = open_robot(own, bounds, clock, trial, troubles, maker, hz or bounds.hz)
    return bounds, clock, robot, order


def main(argv=None):
    arguments = parse_args(argv)
    own, config = flags.resolve(Driving, arguments), flags.resolve(ControlConfig, arguments)
    trial, troubles = flags.resolve(Rehearsal, arguments), flags.resolve(Troubles, arguments)
    settings: dict = {}
    for each in (own, config, trial, troubles):
        settings |= flags.to_dict(each)
    if own.robot != "replay":
        limits.read(own.robot, own.limits)  # a wrong file is named before a policy is opened
    maker = open_maker(own)
    bounds, clock, robot, order = open_world(own, trial, troubles, config.hz or None, maker)
    with ExitStack() as stack:
        stack.callback(robot.close)
        log = stack.enter_context(open(own.log, "w", encoding="utf-8")) if own.log else None
        runner = Runner(
            robot, Troubled(maker, troubles, clock), bounds, config, clock, Journal(log)
        )
        if own.status_port is not None:
            server = serve(runner.snapshot, own.status_port)
            stack.callback(server.shutdown)
            print(f"figures at http://127.0.0.1:{server.server_port}", file=sys.stderr)
        stack.enter_context(stops(runner.stop))
        episodes = runner.all_episodes(trial, order, own.home)
    print(metrics.markdown(summary(episodes)))
    print(f"{episodes[-1]['text']}: {episodes[-1]['ending']}")
    if own.json:
        files.write_json(own.json, {"settings": settings, "episodes": episodes})
    if len(episodes) == 1 and episodes[0]["failed"]:
        do = "look at the camera and the policy; the arm holds its place"
        raise UserError(episodes[0]["failed"], "frames and chunks that keep coming", do)


if __name__ == "__main__":
    files.run(main)
