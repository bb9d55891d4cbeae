"""What words name, and where it is: the grounder of a policy.

It reads an order and what a camera (or a simulator) shows, and gives two places in metres: where to
take, and where to put. The policy's head sees these places, and no image.

Words that were never together must work together: "the purple heart", where training only had
purple stars and red hearts. So each attribute has an attention of its own over the words. It reads
a word's plain embedding, which knows nothing of the other words. The score of a thing is a sum over
attributes: no part of it sees a pair of words.

Shapes: B orders, W words, D width, J attributes, N things or cells of the image, R roles.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig
from base.policy_config import GrounderConfig
from model import Denoiser, Norm
from net import eyes
from net.eyes import Seen
from net.sayer import Sayer

ROLES = ("thing", "other")  # what an order names: the thing to move, and where it goes
PLACES = ("take", "put")
ORDER_READERS = 3  # attentions that read what is to be done: the verb, the relation


def order_width(config: GrounderConfig) -> int:
    """The numbers that tell an actor the order."""
    return ORDER_READERS * config.width


@dataclass
class Understood:
    """An order: queries (B, R, J, D) of what it names, and order (B, ORDER_READERS · D)."""

    queries: Tensor
    order: Tensor
    attention: Tensor  # (B, R · J + ORDER_READERS, W): which words were read


@dataclass
class Grounded:
    """places: (B, 2, 3) metres, to take and to put. scores: (B, R, N), log-probabilities."""

    places: Tensor
    scores: Tensor
    order: Tensor


class Words(nn.Module):
    """An order's words, each alone and in its context."""

    def __init__(self, config: GrounderConfig):
        super().__init__()
        width = config.width
        size = ModelConfig(
            vocab_size=config.vocab_size,
            output_size=config.vocab_size,
            max_length=config.longest,
            d_model=width,
            heads=4,
            layers=config.layers,
        )
        self.reader = Denoiser(size)
        nn.init.normal_(self.reader.embedding.weight)
        self.queries = nn.Parameter(torch.randn(self.readers(config), width))
        self.alone = Norm(width)

    @staticmethod
    def readers(config: GrounderConfig) -> int:
        return len(ROLES) * config.attributes + ORDER_READERS

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, W) int64, (B,) -> what each reader reads (B, readers, D), its attention (.., W)."""
        context = self.reader.trunk(words, lengths, None, None, None)  # (B, W, D)
        score = torch.einsum("qd,bwd->bqw", self.queries, context) / math.sqrt(context.shape[-1])
        position = torch.arange(words.shape[1], device=words.device)
        padding = position >= lengths[:, None]
        attention = score.masked_fill(padding[:, None], -torch.inf).softmax(-1)
        # The context decides which word is read. What is read is the word alone.
        alone = self.alone(self.reader.embedding(words))
        return torch.einsum("bqw,bwd->bqd", attention, alone), attention


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


class Grounder(nn.Module):
    """An order and what is seen -> where to take, and where to put."""

    def __init__(self, config: GrounderConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.words = Words(config)
        self.sayer = None
        if config.sees == "nothing":
            return
        self.names = nn.ModuleList(
            nn.Linear(width, width, bias=False) for _ in range(config.attributes)
        )
        self.eyes = eyes.of_config(config)
        # From a cell's place in the image to metres; things of a simulator have metres already.
        self.locate = None
        if config.sees != "state":
            self.locate = mlp(2 + config.cameras + eyes.CHANNELS, 128, 3)
        self.put = mlp(ORDER_READERS * width, 128, 9)
        # Last, so that the weights of all else are the same with and without it.
        if config.sayings:
            self.sayer = Sayer(config, 3 if config.sees == "state" else 2 + config.cameras)

    def understand(self, words: Tensor, lengths: Tensor) -> Understood:
        """Words (B, W) int64 with `lengths` (B,) -> queries and order."""
        read, attention = self.words(words, lengths)
        named = len(ROLES) * self.config.attributes
        pairs = read[:, :named].unflatten(1, (len(ROLES), -1))  # (B, R, J, D)
        queries = [name(pairs[:, :, j]) for j, name in enumerate(self.names)]
        return Understood(torch.stack(queries, 2), read[:, named:].flatten(1), attention)

    def look(self, seen: dict[str, Tensor]) -> Seen:
        return self.eyes(seen)

    def ground(self, understood: Understood, seen: Seen) -> Grounded:
        """Find what is named. `seen` may have B / n rows, which serve n neighbours each."""
        each = len(understood.queries) // len(seen.keys)
        queries = understood.queries.unflatten(0, (-1, each))  # (S, n, R, J, D)
        scores = torch.einsum("snrjd,smjd->snrm", queries, seen.keys)
        if seen.real is not None:
            scores = scores.masked_fill(~seen.real[:, None, None], -torch.inf)
        share = self.shares(scores.flatten(1, 2), seen).view_as(scores)
        found = torch.einsum("snrm,smp->snrp", share, seen.places)
        if self.locate is not None:
            features = torch.einsum("snrm,smc->snrc", share, seen.features)
            found = self.locate(torch.cat([found, features], -1)) * self.config.unit
        found = found.flatten(0, 1)  # (B, R, 3)
        put = self.find_put(found, understood.order)
        places = torch.stack([found[:, 0], put], 1)
        return Grounded(places, scores.flatten(0, 1).log_softmax(-1), understood.order)

    def shares(self, scores: Tensor, seen: Seen) -> Tensor:
        """How much each thing or cell counts for the place: scores (S, Q, N) -> the same."""
        if not self.training:
            scores = eyes.around_best(scores, seen.places, seen.apart)
        return scores.softmax(-1)

    def find_put(self, found: Tensor, order: Tensor) -> Tensor:
        """Where to put: (B, 3) metres, from the places (B, R, 3) of the thing and the other.

        On each axis a · thing + b · other + c, where the order alone decides a, b and c: "left of"
        is the other thing's place and a step to the left, a push keeps one coordinate of the thing.
        """
        a, b, c = self.put(order).unflatten(-1, (3, 3)).unbind(1)
        return a * found[:, 0] + b * found[:, 1] + c * self.config.unit

    def forward(self, words: Tensor, lengths: Tensor, seen: dict[str, Tensor]) -> Grounded:
        if self.config.sees == "nothing":
            return self.hear(words, lengths)
        return self.ground(self.understand(words, lengths), self.look(seen))

    def hear(self, words: Tensor, lengths: Tensor) -> Grounded:
        """The order alone; all places are zero, and there is nothing to choose from."""
        read, _ = self.words(words, lengths)
        rows = len(words)
        order = read[:, len(ROLES) * self.config.attributes :].flatten(1)
        places = torch.zeros(rows, len(PLACES), 3, device=words.device)
        return Grounded(places, torch.zeros(rows, len(ROLES), 1, device=words.device), order)

    @property
    def device(self) -> torch.device:
        return self.words.queries.device

    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())


def place_loss(found: Tensor, target: Tensor, known: Tensor, unit: float) -> Tensor:
    """Mean Huber loss of places (B, 3) in units of `unit` metres, over the rows that are known."""
    error = F.smooth_l1_loss(found / unit, target / unit, reduction="none", beta=0.05).sum(-1)
    return (error * known).sum() / known.sum().clamp(min=1)
