"""Training an actor on demonstrations: conditions, batches, loss, and its score on held-out ones.

A frozen grounder sees each frame once, before the first step: the head then trains on places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base import flags, observations, words
from base.config import TrainConfig
from base.flags import setting
from base.policy_config import ActorConfig
from base.scaling import Offsets, Scaling
from base.tokenizer import Tokenizer
from loop import distributed, progress
from net import actor, chunks
from net.actor import Condition
from net.chunks import ChunkConfig
from net.policy import Policy
from robot import data
from robot.episodes import Episodes
from robot.hearing import Hearing

AT_ONCE = 256  # frames that the grounder sees together
VERSIONS = 16  # of an instruction, each heard in another way


@dataclass
class ActingRun:
    """What is trained."""

    eval_frames: int = setting(1000, "held-out frames per evaluation", at_least=1)
    state_dropout: float = setting(
        0.1,
        "share of the rows without the robot's own state, which invites to copy oneself",
        at_least=0.0,
        below=1.0,
    )
    unknown: float = setting(
        0.3,
        "share of the words, colours and shapes excepted, that are hidden in training; 1: all "
        "words, a control that hears nothing",
        at_least=0.0,
        at_most=1.0,
    )
    stray: float = setting(
        0.3,
        "share of the orders in which a small word slips in, such as of; not with --unknown 1",
        at_least=0.0,
        at_most=1.0,
    )
    committed: float = setting(
        0.5,
        "share of the rows whose first actions are given, as under a delay; heads with tokens",
        at_least=0.0,
        at_most=1.0,
    )

    def __post_init__(self):
        flags.check(self)


class Watcher:
    """Gives what the grounder sees at frames of a dataset, by their indices.

    things: numbers of `data.THINGS`, for a grounder of lists. Else cameras: names of features, and
    side: pixels to which their images are resized, 0 for none.
    """

    def __init__(
        self,
        episodes: Episodes,
        things: np.ndarray | None = None,
        cameras: Sequence[str] = (),
        side: int = 0,
    ):
        self.episodes, self.things, self.cameras, self.side = episodes, things, cameras, side

    def seen(self, indices) -> dict[str, Tensor]:
        if self.things is not None:
            kinds, places, real = data.split_things(self.things[indices])
            parts = {"kinds": kinds, "places": places, "real": real}
            return {name: torch.from_numpy(np.array(values)) for name, values in parts.items()}
        if not self.cameras:
            return {}
        images = [self.episodes.images(indices, name) for name in self.cameras]
        return {"images": torch.from_numpy(observations.stacked(images, self.side))}


def open_watcher(folder, sees: str, cameras: list[str]) -> Watcher:
    """The demonstrations in `folder`, as a grounder of this kind sees them."""
    if sees == "state":
        episodes = Episodes(folder, state=data.STATE, action=data.ACTION, cameras=[])
        things = Episodes(folder, state=data.THINGS, action=data.ACTION, cameras=[]).states
        return Watcher(episodes, things)
    episodes = Episodes(folder, state=data.STATE, action=data.ACTION, cameras=cameras)
    return Watcher(episodes, cameras=cameras)


@dataclass
class Told:
    """What a grounder that is trained already tells an actor at N frames of T instructions.

    places (N, 2, 3), states (N, S), orders (T, versions, O) on the CPU; task_of (N,): which
    instruction a frame has.
    """

    places: Tensor
    states: Tensor
    orders: Tensor
    task_of: np.ndarray


def executed_of(episodes: Episodes) -> np.ndarray:
    """What was done at each frame, (N, A): the actions, if the dataset has no more to say."""
    if data.EXECUTED not in episodes.features:
        return episodes.actions
    return Episodes(episodes.folder, state=data.EXECUTED, action=data.ACTION, cameras=[]).states


def reach_of(episodes: Episodes, executed: np.ndarray) -> np.ndarray:
    """Metres that the hand moves per unit of the executed action on its axis: (3,) float32.

    By least squares over all frames; the first three numbers of states and actions are x, y, z.
    """
    frames = np.flatnonzero(np.diff(episodes.episode_of) == 0)  # the next frame is of the episode
    done = executed[frames, :3]
    moved = episodes.states[frames + 1, :3] - episodes.states[frames, :3]
    squares = (done**2).sum(0)
    return ((done * moved).sum(0) / np.maximum(squares, 1e-9)).astype(np.float32)


def told_of(
    policy: Policy, watcher: Watcher, tokenizer: Tokenizer, states: Tensor, hearing: Hearing
) -> Told:
    """What the actor is told at every frame.

    states: (N, S), already scaled. hearing: what happens to the words of later `versions`.

    Places are found with all words, as when the policy acts; the order is also read as training
    hears it.
    """
    policy.eval()
    ids, task_of = task_words(watcher.episodes, tokenizer, hearing)
    lengths = words.lengths(tokenizer, ids)
    device = policy.device
    places = []
    for first in progress.bar(range(0, len(task_of), AT_ONCE), "looking", "batch"):
        frames = np.arange(first, min(first + AT_ONCE, len(task_of)))
        seen = {name: part.to(device) for name, part in watcher.seen(frames).items()}
        with torch.no_grad():
            found = policy.told(
                torch.from_numpy(ids[task_of[frames], 0]).to(device),
                torch.from_numpy(lengths[task_of[frames], 0]).to(device),
                seen,
                states[frames].to(device),
            )
        places.append(found.places.cpu())
    orders = []
    for rows, row_lengths in zip(ids, lengths, strict=True):
        with torch.no_grad():
            understood = policy.grounder.understand(
                torch.from_numpy(rows).to(device), torch.from_numpy(row_lengths).to(device)
            )
        orders.append(understood.order.cpu())
    return Told(torch.cat(places), states, torch.stack(orders), task_of)


def task_words(episodes: Episodes, tokenizer: Tokenizer, hearing: Hearing) -> tuple:
    """The instructions in all their versions, (tasks, versions, W) int64; each frame's row (N,)."""
    numbers = sorted(episodes.tasks)
    ids = words.encode(tokenizer, [episodes.tasks[n] for n in numbers]).astype(np.int64)
    return versions(tokenizer, ids, hearing), np.searchsorted(numbers, episodes.task_of)


def versions(tokenizer: Tokenizer, ids: np.ndarray, hearing: Hearing) -> np.ndarray:
    """Instructions (n, W) -> (n, versions, W): first whole, then as training hears them.

    Of the deaf there is one version, and all its words are hidden. An actor that was told whole
    instructions only does not obey an order with an unknown verb, even if its places are right
    (docs/log/robot.md).
    """
    if hearing.deaf:
        return hearing.heard(tokenizer, ids, None)[:, None]
    count = VERSIONS if hearing.unknown or hearing.stray else 1
    many = np.repeat(ids[:, None], count, axis=1)
    rng = np.random.default_rng([len(ids), 1])
    many[:, 1:] = hearing.heard(tokenizer, many[:, 1:], rng)
    return many


def earlier(episodes: Episodes, frames: np.ndarray, count: int) -> np.ndarray:
    """The `count` frames before each of the frames (n,), the newest first: (n, count).

    Before an episode's first frame that frame is repeated.
    """
    starts = episodes.starts[episodes.episode_of[frames]]
    return np.maximum(frames[:, None] - np.arange(1, count + 1), starts[:, None])


def known(told: Told, episodes: Episodes, observations: int = 1) -> Callable[..., dict]:
    """Conditions that were computed once, by a grounder that does not change any more.

    observations: how many an actor is told, the newest included.
    """

    def condition(frames: np.ndarray, version: np.ndarray) -> dict:
        rows = torch.from_numpy(frames)
        order = told.orders[told.task_of[frames], version % told.orders.shape[1]]
        batch = {"places": told.places[rows], "state": told.states[rows], "order": order}
        if observations > 1:
            before = torch.from_numpy(earlier(episodes, frames, observations - 1))
            batch |= {"past_places": told.places[before], "past_states": told.states[before]}
        return batch

    return condition


def looked_at(
    watcher: Watcher,
    tokenizer: Tokenizer,
    states: Tensor,
    hearing: Hearing,
    observations: int = 1,
) -> Callable[..., dict]:
    """Images and words, for a grounder that learns along with its actor."""
    ids, task_of = task_words(watcher.episodes, tokenizer, hearing)

    def condition(frames: np.ndarray, version: np.ndarray) -> dict:
        rows = ids[task_of[frames], version % ids.shape[1]]
        return {
            "tokens": torch.from_numpy(rows),
            "lengths": torch.from_numpy(words.lengths(tokenizer, rows)),
            "seen": watcher.seen(frames),
            "state": states[torch.from_numpy(frames)],
            "before": [
                (watcher.seen(each), states[torch.from_numpy(each)])
                for each in earlier(watcher.episodes, frames, observations - 1).T
            ],
        }

    return condition


class ActingBatches:
    """batches(step): frames with their chunks, a pure function of (seed, step).

    condition: gives what a policy is told at frames (n,), as entries of a batch; its second
    argument (n,) chooses the version of each instruction. executed: (N, A), what was done. offsets:
    chunks are seen from the joints where they begin, for an arm whose actions are joints.
    """

    def __init__(
        self,
        condition: Callable[..., dict],
        episodes: Episodes,
        executed: np.ndarray,
        scaling: Scaling,
        frames: np.ndarray,
        cfg: TrainConfig,
        length: int,
        offsets: Offsets | None = None,
    ):
        self.condition, self.episodes = condition, episodes
        self.frames, self.length = np.asarray(frames), length
        self.batch_size, self.accumulate, self.seed = cfg.batch_size, cfg.accumulate, cfg.seed
        self.scaling, self.offsets = scaling, offsets
        self.actions, self.executed = episodes.actions, executed
        # The last frame of each frame's episode: behind it the last action is repeated.
        ends = episodes.starts + episodes.lengths - 1
        self.last = ends[episodes.episode_of]

    def __call__(self, step: int) -> list[dict]:
        rng = np.random.default_rng([self.seed, 1, step])
        chosen = rng.choice(self.frames, min(self.batch_size, len(self.frames)), replace=False)
        version = rng.integers(VERSIONS, size=len(chosen))
        rows = np.stack([np.sort(chosen), version], 1)
        parts = np.array_split(rows, self.accumulate)
        return [self.batch(*part.T) | where for part, where in distributed.deal(parts)]

    def batch(self, frames: np.ndarray, version: np.ndarray | None = None) -> dict:
        """Frames (n,); version (n,): of their instructions; None: whole instructions."""
        wanted = frames[:, None] + np.arange(self.length)
        wanted = np.minimum(wanted, self.last[frames][:, None])
        parts = {
            "actions": self.scaled(self.actions[wanted], frames),
            "executed": self.scaled(self.executed[wanted], frames),
        }
        version = np.zeros_like(frames) if version is None else version
        told = self.condition(frames, version)
        return {**told, **parts, "weight": float(len(frames))}

    def scaled(self, actions: np.ndarray, frames: np.ndarray) -> Tensor:
        """Chunks (n, T, A) in the robot's units, which begin at frames (n,) -> [-1, 1]."""
        if self.offsets is None:
            shrunk = self.scaling.shrink(actions)
        else:
            shrunk = self.offsets.shrink(actions, self.episodes.states[frames])
        return torch.from_numpy(shrunk.astype(np.float32))


def condition_of(policy: Policy, batch: dict) -> Condition:
    """What the actor is told: as it was computed once, or from images and words, with gradients."""
    device = policy.device
    if "seen" in batch:
        seen = {name: part.to(device) for name, part in batch["seen"].items()}
        words_of = batch["tokens"].to(device), batch["lengths"].to(device)
        before = []
        for shown, state in batch["before"]:
            parts = {name: part.to(device) for name, part in shown.items()}
            before.append((parts, state.to(device)))
        return policy.told(*words_of, seen, batch["state"].to(device), before)
    places, state, order = (batch[name].to(device) for name in ("places", "state", "order"))
    past = None
    if "past_places" in batch:
        past = batch["past_places"].to(device), batch["past_states"].to(device)
    return Condition(places, state, order, past=past)


def kept_of(config: ActorConfig) -> Tensor:
    """Which numbers of the state a row keeps that goes without: (S,) bool.

    Places are seen from the hand, so its place stays; all else goes.
    """
    kept = torch.zeros(config.state, dtype=torch.bool)
    if config.cartesian:
        kept[config.hand : config.hand + 3] = True
    return kept


def make_loss(own: ActingRun) -> Callable:
    def loss_fn(model: Policy, batch: dict, rng: torch.Generator):
        told = condition_of(model, batch)
        if own.state_dropout:
            gone = torch.rand(len(told.state), generator=rng) < own.state_dropout
            kept = kept_of(model.actor.config).to(model.device)
            lost = gone.to(model.device)[:, None] & ~kept
            told.state = told.state.masked_fill(lost, 0)
            if told.past is not None:
                states = told.past[1].masked_fill(lost[:, None], 0)
                told.past = told.past[0], states
        actions, executed = (batch[name].to(model.device) for name in ("actions", "executed"))
        return actor.loss(model.actor, told, actions, rng, executed, own.committed)

    return loss_fn


def make_eval(own: ActingRun, batches: "ActingBatches") -> Callable[[Policy], dict]:
    """The mean distance from held-out actions, of chunks made in a single call."""

    def eval_fn(model: Policy) -> dict[str, float]:
        frames = batches.frames
        spread = np.linspace(0, len(frames) - 1, min(own.eval_frames, len(frames))).astype(int)
        errors = []
        for first in range(0, len(spread), AT_ONCE):
            batch = batches.batch(frames[spread[first : first + AT_ONCE]])
            told = condition_of(model, batch)
            made = chunks.make(model.actor, told, ChunkConfig()).cpu()
            errors.append((made - batch["actions"]).abs().mean((1, 2)))
        return {"action_error": torch.cat(errors).mean().item()}

    return eval_fn
