"""An episode of a LeRobot dataset as the replay of a robot: base/robots.py plays its arrays."""

from pathlib import Path

import numpy as np

from base.errors import UserError
from base.facts import image_keys
from base.limits import FOLDER
from robot import data
from robot.episodes import Episodes


def read(folder: Path | str, number: int, cameras: list[str]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of an episode, as `base.robots.recorded` names them, and its order.

    cameras: features with the images that a policy sees, the first gives "image". Raises UserError
    if the folder is no dataset, has no such episode or camera, or is of an unknown robot.
    """
    episodes = Episodes(folder, cameras=cameras)
    if not 0 <= number < len(episodes.starts):
        raise UserError(
            f"--episode {number} of {folder}",
            f"0 to {len(episodes.starts) - 1}",
            "name an episode of the dataset",
        )
    frames = episodes.frames_in(number)
    arrays = {
        "robot": np.array(robot_of(episodes)),
        "rate": np.array(float(episodes.fps)),
        "state": episodes.states[frames],
        "action": episodes.actions[frames],
    }
    for key, camera in zip(image_keys(cameras), cameras, strict=True):
        arrays[key] = episodes.images(frames, camera)
    if data.THINGS in episodes.features:
        listed = Episodes(folder, state=data.THINGS, cameras=[]).states[frames]
        kinds, places, _ = data.split_things(listed)
        arrays |= {"kinds": kinds, "things": places}
    return arrays, episodes.task(int(frames[0]))


def robot_of(episodes: Episodes) -> str:
    """The robot whose limits hold: LeRobot calls the arm so101_follower, and we so101."""
    found = str(episodes.info.get("robot_type"))
    known = sorted(path.stem for path in FOLDER.glob("*.json"))
    for name in known:
        if found.split("_")[0] == name:
            return name
    raise UserError(
        f"{episodes.folder}, recorded with the robot {found!r}",
        "a robot with a file of limits: " + ", ".join(known),
        "write base/limits/ROBOT.json for it, as docs/robot.md says",
    )
