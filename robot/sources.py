"""What a policy learns from: a folder of prep_robot_demos.py, or anybody's LeRobot dataset."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base import files, flags, words
from base.errors import UserError
from base.flags import setting
from base.policy_config import GrounderConfig
from base.scaling import Offsets, Scaling
from base.tokenizer import Tokenizer
from net.grounder import Grounder
from robot import acting, data, policies
from robot.acting import Watcher
from robot.episodes import Episodes
from worlds import so101


@dataclass
class ActingStart:
    """Data and grounder."""

    data_dir: str = setting("data_robot", "folder from prep_robot_demos.py", metavar="FOLDER")
    grounding: str = setting(
        "checkpoints_grounding/best.pt", "checkpoint of train_grounding.py", metavar="FILE"
    )
    dataset: str | None = setting(
        None, "a LeRobot dataset v3.0 instead; its eyes learn with the actions", metavar="FOLDER"
    )
    cameras: str | None = setting(
        None, "with --dataset: features with images, with commas between them; none: all"
    )
    state_only: bool = setting(
        False, "with --dataset: words and numbers, no images: the state says everything"
    )
    state_name: str = setting(data.STATE, "with --dataset: the feature of the robot's state")
    action_name: str = setting(data.ACTION, "with --dataset: the feature of the actions")
    image_side: int = setting(96, "with --dataset: images become squares of it", at_least=16)

    def __post_init__(self):
        flags.check(self)
        if self.state_only and (self.cameras or not self.dataset):
            found = (
                f"--state_only with --cameras {self.cameras}" if self.cameras else "--state_only"
            )
            raise UserError(
                found, "a --dataset, of which no camera is read", "name --dataset, and no --cameras"
            )

    @property
    def folder(self) -> str:
        return self.dataset or self.data_dir


@dataclass
class Source:
    """Demonstrations as a policy reads them.

    eyes: a grounder that is trained already, or None. grounder: how it is built. cartesian: the
    state has the hand's place, from number `hand` on. absolute: an action says where the joints
    shall be, and the state begins with where they are. side: pixels of the images. sayings: the
    tokenizer of what the grounder says, as JSON; empty if it says nothing.
    """

    watcher: Watcher
    tokenizer: Tokenizer
    meta: dict
    grounder: GrounderConfig
    eyes: Grounder | None
    cartesian: bool
    side: int
    sayings: str = ""
    hand: int = 0
    absolute: bool = False

    def scaled(self) -> tuple[Scaling, Tensor]:
        """The scaling, and all states as a policy reads them: (N, S) float32."""
        episodes = self.watcher.episodes
        states = episodes.states
        if not states.shape[1]:  # a robot without a state: a single number that says nothing
            states = np.zeros((len(episodes), 1), np.float32)
        if self.cartesian and not self.absolute:
            scaling = Scaling.none(episodes.actions.shape[1], states.shape[1])
        else:
            scaling = Scaling.measured(episodes.actions, states)
        if self.absolute:
            # Nothing is cut here: chunks are cut as offsets.
            scaling.low, scaling.high = episodes.actions.min(0), episodes.actions.max(0)
            scaling.mean[self.hand : self.hand + 3] = 0
            scaling.deviation[self.hand : self.hand + 3] = 1
        return scaling, torch.from_numpy(scaling.plain(states).astype(np.float32))

    def offsets(self, length: int) -> Offsets | None:
        """How chunks of this length are scaled; None if the actions are not joints."""
        if not self.absolute:
            return None
        episodes = self.watcher.episodes
        frames = np.arange(len(episodes))
        ends = (episodes.starts + episodes.lengths - 1)[episodes.episode_of]
        wanted = np.minimum(frames[:, None] + np.arange(length), ends[:, None])
        return Offsets.measured(episodes.actions[wanted], episodes.states)


def open_source(start: ActingStart) -> Source:
    """The demonstrations that the flags name. Raises UserError if they cannot be read."""
    return open_dataset(start) if start.dataset else open_ours(start)


def open_ours(start: ActingStart) -> Source:
    eyes, tokenizer, saved = policies.open_grounder(start.grounding)
    robot_data = data.RobotData(start.data_dir)
    sees = eyes.config.sees
    cameras = robot_data.cameras()
    if sees == "pixels":
        robot_data.need_images()
    watcher = acting.open_watcher(robot_data.folder / "demos", sees, cameras)
    side = robot_data.meta["image_side"]
    said = saved.get("sayings", "")
    source = Source(watcher, tokenizer, robot_data.meta, eyes.config, eyes, True, side, said)
    if robot_data.meta.get("world") == "so101":
        source.hand, source.absolute = so101.HAND, True
    return source


def open_dataset(start: ActingStart) -> Source:
    cameras = start.cameras.split(",") if start.cameras else None
    if start.state_only:
        cameras = []
    episodes = Episodes(
        start.dataset, state=start.state_name, action=start.action_name, cameras=cameras
    )
    if not episodes.cameras and not start.state_only:
        raise UserError(
            f"no images in {start.dataset}",
            "a feature of dtype image or video",
            "record with a camera, or add --state_only",
        )
    texts = [text for text in episodes.tasks.values() if words.split(text)]
    if len(texts) < len(episodes.tasks):
        raise UserError(
            f"an episode without an instruction in {start.dataset}",
            "a task in words for every episode",
            "name the tasks in meta/tasks.parquet",
        )
    tokenizer = words.from_texts(texts)
    config = GrounderConfig(
        sees="nothing" if start.state_only else "pixels",
        vocab_size=tokenizer.vocab_size,
        longest=words.LONGEST,
        cameras=max(1, len(episodes.cameras)),
    )
    watcher = Watcher(episodes, cameras=episodes.cameras, side=start.image_side)
    info = files.read_text(episodes.folder / "meta" / "info.json", "a dataset", "name another")
    parts = info.encode() + episodes.actions.tobytes() + episodes.states.tobytes()
    meta = {"fingerprint": files.sha256(parts)}
    return Source(watcher, tokenizer, meta, config, None, False, start.image_side)
