"""Training a grounder on stills: its loss, and its score on stills that it never saw."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from base import flags
from base.flags import setting
from net.grounder import Grounded, Grounder, Seen, place_loss
from robot import sayings
from robot.data import StillBatches
from robot.stills import NOTHING

BLUR = 0.6  # cells: deviation of a target on the map
NEAR = 0.01  # metres: a place this close can be gripped (an open gripper has 14 mm of room)


@dataclass
class GroundingRun:
    """What is trained."""

    unknown: float = setting(
        0.15,
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
    naming: float = setting(1.0, "weight of the loss that says which thing is meant", at_least=0.0)
    co_train: float = setting(
        0.0, "weight of the loss of sentences about what is seen; 0: none are learned", at_least=0.0
    )
    eval_stills: int = setting(400, "held-out stills per evaluation", at_least=1)

    def __post_init__(self):
        flags.check(self)


def shown_in(model: Grounder, batch: dict) -> dict[str, Tensor]:
    return {name: values.to(model.device) for name, values in batch["seen"].items()}


def run_model(model: Grounder, batch: dict, seen: Seen | None = None) -> Grounded:
    """Ground a batch of `StillBatches` on the model's device. seen: what the eyes saw already."""
    device = model.device
    seen = seen or model.look(shown_in(model, batch))
    understood = model.understand(batch["tokens"].to(device), batch["lengths"].to(device))
    return model.ground(understood, seen)


def named_loss(scores: Tensor, index: Tensor) -> Tensor:
    """-log p of the named thing and the other: scores (B, R, N), index (B, R), NOTHING: none."""
    scores = scores.clamp(min=-1e4)  # a row that is no thing has -inf, whose gradient is NaN
    return F.cross_entropy(
        scores.transpose(1, 2).float(), index.long(), ignore_index=NOTHING, reduction="mean"
    )


def map_targets(pixels: Tensor, cells: int) -> Tensor:
    """Where on the maps a named thing is: (B, R, K, 2) shares -> (B, R, K · cells²), sums to 1.

    A Gaussian around its pixel: the neighbouring cells see the thing too.
    """
    middle = (torch.arange(cells, device=pixels.device) + 0.5) / cells
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    grid = torch.stack([x, y], -1).flatten(0, 1)  # (cells², 2)
    distance = ((pixels[..., None, :] - grid) * cells / BLUR).square().sum(-1)
    return (-0.5 * distance).flatten(-2).softmax(-1)


def map_loss(scores: Tensor, pixels: Tensor, index: Tensor) -> Tensor:
    """The cross-entropy of the maps: scores (B, R, N), pixels (B, R, K, 2), index (B, R)."""
    cells = math.isqrt(scores.shape[-1] // pixels.shape[2])
    nats = -(map_targets(pixels, cells) * scores.float()).sum(-1)  # (B, R)
    known = index != NOTHING
    return (nats * known).sum() / known.sum().clamp(min=1)


def make_loss(own: GroundingRun) -> Callable:
    """The loss: both places in units of the model, and which thing, or cells of a map, is meant."""

    def loss_fn(model: Grounder, batch: dict, rng: torch.Generator):
        shown = shown_in(model, batch)
        seen = model.look(shown)
        found = run_model(model, batch, seen)
        unit = model.config.unit
        known = torch.ones(len(batch["take"]), device=model.device)
        take = place_loss(found.places[:, 0], batch["take"].to(model.device), known, unit)
        put = place_loss(found.places[:, 1], batch["put"].to(model.device), known, unit)
        loss = take + put
        figures = {"take_loss": take.item(), "put_loss": put.item()}
        if own.naming:
            index = batch["index"].to(model.device)
            if model.config.sees == "state":
                naming = named_loss(found.scores, index)
            else:
                naming = map_loss(found.scores, batch["pixels"].to(model.device), index)
            loss = loss + own.naming * naming
            figures["naming"] = naming.item()
        if own.co_train:
            condition = sayings.view(model, seen)
            said, more = sayings.loss(model, condition, batch["sayings"], rng)
            loss = loss + own.co_train * said
            figures |= more
        return loss, figures

    return loss_fn


def errors(model: Grounder, batch: dict) -> tuple[Tensor, Tensor]:
    """Metres between the found and the true places: (B,) to take, (B,) to put."""
    found = run_model(model, batch).places.float().cpu()
    take = (found[:, 0] - batch["take"])[:, :2].norm(dim=1)
    return take, (found[:, 1] - batch["put"])[:, :2].norm(dim=1)


def make_eval(own: GroundingRun, batches: StillBatches) -> Callable[[Grounder], dict]:
    """Scores on held-out stills; the first, the share of missed places, decides best.pt."""

    def eval_fn(model: Grounder) -> dict[str, float]:
        takes, puts = [], []
        for first in range(0, len(batches.numbers[: own.eval_stills]), 64):
            numbers = batches.numbers[: own.eval_stills][first : first + 64]
            take, put = errors(model, batches.batch(numbers))
            takes.append(take)
            puts.append(put)
        take, put = torch.cat(takes), torch.cat(puts)
        missed = 1 - ((take < NEAR) & (put < NEAR)).float().mean().item()
        return {
            "missed": missed,
            "take_cm": 100 * take.median().item(),
            "put_cm": 100 * put.median().item(),
        }

    return eval_fn
