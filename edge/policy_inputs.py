"""What the export of a policy starts from: the opened policy, and real observations.

Observations are frames of demonstrations: held-out episodes for the gate, the others to calibrate
INT8 on. They come as `base.driving` has them, so the gate compares the whole way from the camera.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from base.errors import UserError
from base.facts import image_keys
from base.folders import check_tokenizer
from edge.inputs import evenly
from edge.policy_graphs import HEADS
from robot import acting, data, policies
from robot.episodes import Episodes
from robot.policies import Opened


@dataclass
class Observations:
    """Frames of demonstrations.

    orders: an order, and its observations with the newest first, for each frame. executed: (n, T,
    A) what the robot did from each frame on, in [-1, 1]. rate: control steps per second.
    """

    orders: list[tuple[str, list[dict]]]
    executed: np.ndarray
    rate: float

    def __len__(self) -> int:
        return len(self.orders)


def part(given: Observations, count: int) -> Observations:
    """The first `count` of them."""
    return Observations(given.orders[:count], given.executed[:count], given.rate)


def open_exportable(path) -> Opened:
    """A policy that has graphs. Raises UserError for another head, and for frozen eyes."""
    opened = policies.open_policy(path, torch.device("cpu"))
    if opened.policy.grounder.config.encoder:
        raise UserError(
            f"{path}, a policy that sees by the encoder {opened.policy.grounder.config.encoder}",
            "eyes that learned with their grounder",
            "train a grounder without --encoder",
        )
    head = opened.policy.actor.config.head
    if head not in HEADS:
        raise UserError(
            f"{path}, a policy with the head {head!r}",
            "a head that has graphs: " + ", ".join(HEADS),
            "train one of these with train_policy.py --head",
        )
    return opened


def open_demos(opened: Opened, folder) -> acting.Watcher:
    """The demonstrations in a folder of prep_robot_demos.py, or a LeRobot dataset.

    Raises UserError if they are of another robot, or have other words or cameras than the policy.
    """
    folder, sees = Path(folder), opened.policy.grounder.config.sees
    if (folder / "meta" / "info.json").exists():
        watcher = open_dataset(opened, folder)
    else:
        robot_data = data.RobotData(folder)
        if sees == "pixels":
            robot_data.need_images()
        check_tokenizer(robot_data.tokenizer.fingerprint, opened.tokenizer.fingerprint, folder)
        watcher = acting.open_watcher(folder / "demos", sees, opened.cameras)
    episodes = watcher.episodes
    opened.scaling.check(episodes.actions.shape[1], max(1, episodes.states.shape[1]))
    return watcher


def open_dataset(opened: Opened, folder: Path) -> acting.Watcher:
    """A LeRobot dataset, read as the policy was trained on it."""
    episodes = Episodes(folder, state=data.STATE, action=data.ACTION, cameras=opened.cameras)
    return acting.Watcher(episodes, cameras=opened.cameras, side=opened.saved["image_side"])


def observations(
    opened: Opened, watcher: acting.Watcher, count: int, held_out: bool
) -> Observations:
    """At most `count` frames, spread evenly over the held-out episodes or over the others."""
    episodes = watcher.episodes
    few = data.held_out(len(episodes.starts))
    border = int(episodes.starts[-few])
    frames = np.arange(border, len(episodes)) if held_out else np.arange(max(1, border))
    frames = frames[evenly(len(frames), count)]
    config = opened.policy.actor.config
    orders = []
    for frame in frames.tolist():
        text = episodes.tasks[int(episodes.task_of[frame])]
        before = acting.earlier(episodes, np.array([frame]), config.frames - 1)[0]
        orders.append((text, [observation(opened, watcher, each) for each in [frame, *before]]))
    ends = (episodes.starts + episodes.lengths - 1)[episodes.episode_of[frames]]
    wanted = np.minimum(frames[:, None] + np.arange(config.chunk), ends[:, None])
    executed = opened.scaling.shrink(acting.executed_of(episodes)[wanted]).astype(np.float32)
    return Observations(orders, executed, float(episodes.fps))


def observation(opened: Opened, watcher: acting.Watcher, frame: int) -> dict:
    """A frame of demonstrations, as `base.driving` names what is seen."""
    episodes = watcher.episodes
    state = episodes.states[frame]
    seen = {"state": state if len(state) else np.zeros(1, np.float32)}
    if watcher.things is not None:
        kinds, places, _ = data.split_things(watcher.things[frame])
        return seen | {"kinds": kinds, "things": places}
    for key, camera in zip(image_keys(opened.cameras), opened.cameras, strict=True):
        seen[key] = episodes.images([frame], camera)[0]
    return seen
