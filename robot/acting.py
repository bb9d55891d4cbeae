"""Training an actor on demonstrations: conditions, batches, loss, and its score on held-out ones.

A frozen grounder sees each frame once, before the first step: the head then trains on places.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base import flags
from base.flags import setting
from base.tokenizer import Tokenizer
from loop import distributed, progress
from net import actor, chunks
from net.actor import Condition
from net.chunks import ChunkConfig
from net.policy import Policy
from robot import data, words
from robot.episodes import Episodes
from robot.scaling import Scaling

AT_ONCE = 256  # frames that the grounder sees together


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

    def __post_init__(self):
        flags.check(self)


class Watcher:
    """Gives what the grounder sees at frames of a dataset, by their indices.

    things: numbers of `data.THINGS`, for a grounder of lists. Else cameras: names of features.
    """

    def __init__(self, episodes: Episodes, things: np.ndarray | None, cameras: list[str]):
        self.episodes, self.things, self.cameras = episodes, things, cameras

    def seen(self, indices) -> dict[str, Tensor]:
        if self.things is not None:
            kinds, places, real = data.split_things(self.things[indices])
            parts = {"kinds": kinds, "places": places, "real": real}
            return {name: torch.from_numpy(np.array(values)) for name, values in parts.items()}
        images = [self.episodes.images(indices, name) for name in self.cameras]
        return {"images": torch.from_numpy(np.stack(images, 1))}


def open_watcher(folder, sees: str, cameras: list[str]) -> Watcher:
    """The demonstrations in `folder`, as a grounder of this kind sees them."""
    if sees == "state":
        episodes = Episodes(folder, state=data.STATE, action=data.ACTION, cameras=[])
        things = Episodes(folder, state=data.THINGS, action=data.ACTION, cameras=[]).states
        return Watcher(episodes, things, [])
    episodes = Episodes(folder, state=data.STATE, action=data.ACTION, cameras=cameras)
    return Watcher(episodes, None, cameras)


def told_of(policy: Policy, watcher: Watcher, tokenizer: Tokenizer, states: Tensor) -> Condition:
    """What the actor is told at every frame, on the CPU. states: (N, S), already scaled."""
    episodes, device = watcher.episodes, policy.device
    numbers = sorted(episodes.tasks)
    ids = words.encode(tokenizer, [episodes.tasks[n] for n in numbers]).astype(np.int64)
    lengths = words.lengths(tokenizer, ids)
    places, orders = [], []
    for first in progress.bar(range(0, len(episodes), AT_ONCE), "looking", "batch"):
        frames = np.arange(first, min(first + AT_ONCE, len(episodes)))
        tasks = np.searchsorted(numbers, episodes.task_of[frames])
        seen = {name: part.to(device) for name, part in watcher.seen(frames).items()}
        found = policy.told(
            torch.from_numpy(ids[tasks]).to(device),
            torch.from_numpy(lengths[tasks]).to(device),
            seen,
            states[frames].to(device),
        )
        places.append(found.places.cpu())
        orders.append(found.order.cpu())
    return Condition(torch.cat(places), states, torch.cat(orders))


class ActingBatches:
    """batches(step): frames with their chunks, a pure function of (seed, step)."""

    def __init__(self, told: Condition, episodes: Episodes, scaling: Scaling, frames, cfg, T: int):
        self.told, self.episodes, self.scaling = told, episodes, scaling
        self.frames, self.length = np.asarray(frames), T
        self.batch_size, self.accumulate, self.seed = cfg.batch_size, cfg.accumulate, cfg.seed
        self.actions = torch.from_numpy(scaling.shrink(episodes.actions).astype(np.float32))
        # The last frame of each frame's episode: behind it the last action is repeated.
        ends = episodes.starts + episodes.lengths - 1
        self.last = ends[episodes.episode_of]

    def __call__(self, step: int) -> list[dict]:
        rng = np.random.default_rng([self.seed, 1, step])
        chosen = rng.choice(self.frames, min(self.batch_size, len(self.frames)), replace=False)
        parts = np.array_split(np.sort(chosen), self.accumulate)
        return [self.batch(part) | where for part, where in distributed.deal(parts)]

    def batch(self, frames: np.ndarray) -> dict:
        wanted = frames[:, None] + np.arange(self.length)
        actions = self.actions[np.minimum(wanted, self.last[frames][:, None])]
        index = torch.from_numpy(frames)
        told = self.told.rows(index)
        return {
            "places": told.places,
            "state": told.state,
            "order": told.order,
            "actions": actions,
            "weight": float(len(frames)),
        }


def condition_of(batch: dict, device: torch.device) -> Condition:
    parts = [batch[name].to(device) for name in ("places", "state", "order")]
    return Condition(*parts)


def make_loss(own: ActingRun) -> Callable:
    def loss_fn(model: actor.Actor, batch: dict, rng: torch.Generator):
        told = condition_of(batch, model.device)
        if own.state_dropout:
            # Places are seen from the hand, so its place stays; all else goes.
            gone = torch.rand(len(told.state), generator=rng) < own.state_dropout
            first = 3 if model.config.cartesian else 0
            told.state = told.state.clone()
            told.state[gone.to(model.device), first:] = 0
        return actor.loss(model, told, batch["actions"].to(model.device), rng)

    return loss_fn


def make_eval(own: ActingRun, batches: ActingBatches) -> Callable[[actor.Actor], dict]:
    """The mean distance from held-out actions, of chunks made in a single call."""

    def eval_fn(model: actor.Actor) -> dict[str, float]:
        frames = batches.frames
        spread = np.linspace(0, len(frames) - 1, min(own.eval_frames, len(frames))).astype(int)
        errors = []
        for first in range(0, len(spread), AT_ONCE):
            batch = batches.batch(frames[spread[first : first + AT_ONCE]])
            told = condition_of(batch, model.device)
            made = chunks.make(model, told, ChunkConfig()).cpu()
            errors.append((made - batch["actions"]).abs().mean((1, 2)))
        return {"action_error": torch.cat(errors).mean().item()}

    return eval_fn
