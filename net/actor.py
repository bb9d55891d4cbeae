"""The head of a policy: from places, words and the robot's own state to a chunk of actions.

Four heads share the blocks of `model.py` and their conditions, and differ in what goes in and out:

    diffusion  a chunk is T tokens, each of A binned numbers; masked diffusion, any order of calls
    ar         the twin: the same tokens, from left to right
    l1         numbers, in a single call; L1 loss
    flow       numbers, from noise in several calls (flow matching, arXiv 2210.02747)

A row is a few tokens of condition, then a token per time step of the chunk.

Shapes: B rows, T time steps, A numbers per action, K bins, D width, C tokens of condition.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig
from base.policy_config import ActorConfig
from diffusion import mask_exactly
from model import Block, Norm, Rotary, TimeEmbedding

CONDITION = 4  # tokens: take, put, the robot's state, the order
EARLIER = 3  # tokens of an earlier observation: take, put, the robot's state
FINE = 0.02  # metres: a second, finer scale of places as seen from the hand


@dataclass
class Condition:
    """What an actor is told.

    places: (B, 2, 3) metres. state: (B, S) of the robot; three numbers from `config.hand` on are
    the hand's place if `config.cartesian`. order: (B, O) of the grounder. moved: (B, A), the sum
    of the actions that are committed, or None.

    past: places (B, F - 1, 2, 3) and states (B, F - 1, S) of the observations before, the newest
    first; None if the actor is told a single observation.
    """

    places: Tensor
    state: Tensor
    order: Tensor
    moved: Tensor | None = None
    past: tuple[Tensor, Tensor] | None = None

    def rows(self, index: Tensor) -> "Condition":
        moved = None if self.moved is None else self.moved[index]
        past = None if self.past is None else (self.past[0][index], self.past[1][index])
        return Condition(self.places[index], self.state[index], self.order[index], moved, past)


# --- actions as bins ---------------------------------------------------------------------------


def to_bins(actions: Tensor, bins: int) -> Tensor:
    """Numbers in [-1, 1] -> the nearest of an odd number of bins, so that -1, 0 and 1 are exact."""
    return ((actions.clamp(-1, 1) + 1) * (bins - 1) / 2).round().long()


def centres(bins: int, device=None) -> Tensor:
    return torch.linspace(-1, 1, bins, device=device)


def soft_targets(actions: Tensor, bins: int, sigma: float) -> Tensor:
    """A Gaussian over the bins around each number, `sigma` bins wide: (.., K), each sums to 1.

    Neighbouring bins mean nearly the same action (HL-Gauss, arXiv 2403.03950).
    """
    place = (actions.clamp(-1, 1) + 1) * (bins - 1) / 2
    distance = torch.arange(bins, device=actions.device) - place[..., None]
    return (-0.5 * (distance / sigma) ** 2).softmax(-1)


def median(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The median of each number's distribution: log_p (.., K) -> its bin (..), its action (..).

    Of all single actions the median has the smallest expected distance from the expert's. The
    likeliest bin does worse in a single call (docs/log/robot.md): it may be a thin peak.
    """
    total = log_p.exp().cumsum(-1)
    chosen = (total < 0.5).sum(-1).clamp(max=log_p.shape[-1] - 1)
    return chosen, centres(log_p.shape[-1], log_p.device)[chosen]


# --- the network -------------------------------------------------------------------------------


class Actor(nn.Module):
    """Blocks over a condition and a chunk."""

    def __init__(self, config: ActorConfig):
        super().__init__()
        self.config = config
        width, A, K = config.d_model, config.actions, config.bins
        self.told_tokens = CONDITION + EARLIER * (config.frames - 1)
        size = ModelConfig(
            vocab_size=K + 1,
            output_size=K,
            max_length=self.told_tokens + config.chunk,
            d_model=width,
            heads=config.heads,
            layers=config.layers,
            causal=config.head == "ar",
        )
        self.size = size
        seen = 9 if config.cartesian else 3
        self.take = nn.Linear(seen, width)
        self.put = nn.Linear(seen, width)
        self.state = nn.Linear(config.state, width)
        self.order = nn.Linear(config.order, width)
        self.kind = nn.Parameter(torch.randn(CONDITION, width) * 0.02)
        # Metres by which the largest action moves the hand: training begins with what the
        # demonstrations show (robot/acting.py).
        self.reach = nn.Parameter(torch.zeros(3))
        if config.head in ("diffusion", "ar"):
            # The last row of each table is the mask: a token may hide some of its numbers.
            self.numbers = nn.Parameter(torch.randn(A, K + 1, width) / math.sqrt(A))
            self.out = nn.Linear(width, A * K)
        else:
            self.enter = nn.Linear(A, width)
            self.out = nn.Linear(width, A)
            self.time = TimeEmbedding(width) if config.head == "flow" else None
        self.rotary = Rotary(width // config.heads, size.max_length)
        self.blocks = nn.ModuleList(Block(size) for _ in range(config.layers))
        self.norm = Norm(width)
        # Last: with a single observation, all other weights begin as they always did.
        self.ago = None
        if config.frames > 1:
            self.ago = nn.Parameter(torch.randn(config.frames - 1, 1, width) * 0.02)

    def conditions(self, told: Condition) -> Tensor:
        """(B, C, D): the newest observation, the order, and the observations before."""
        newest = self.observation(told.places, told.state, told.moved)
        tokens = torch.cat([newest, self.order(told.order)[:, None]], 1) + self.kind
        if self.ago is None:
            return tokens
        assert told.past is not None
        parts = [tokens]
        for frame, ago in enumerate(self.ago):
            places, state = (part[:, frame] for part in told.past)
            parts.append(self.observation(places, state, None) + self.kind[:EARLIER] + ago)
        return torch.cat(parts, 1)

    def observation(self, places: Tensor, state: Tensor, moved: Tensor | None) -> Tensor:
        """Places (B, 2, 3) and the robot's state (B, S) as tokens (B, 3, D)."""
        unit = self.config.unit
        seen = places / unit  # (B, 2, 3)
        if self.config.cartesian:
            first, last = self.config.hand, self.config.hand + 3
            hand = place = state[:, first:last]
            if moved is not None:
                # The committed actions will have moved the hand. Blocks that see their tokens alone
                # hardly learn it: 83% in place of 87 to 89% at a step of delay (docs/log/robot.md).
                hand = hand + self.reach * moved[:, :3]
            way = places - hand[:, None]  # from the hand
            seen = torch.cat([seen, way / unit, torch.tanh(way / FINE)], -1)
            state = torch.cat([state[:, :first], place / unit, state[:, last:]], 1)
        return torch.stack([self.take(seen[:, 0]), self.put(seen[:, 1]), self.state(state)], 1)

    def trunk(self, told: Condition, chunk: Tensor) -> Tensor:
        """chunk (B, T', D) -> (B, C + T', D), the condition included."""
        x = torch.cat([self.conditions(told), chunk], 1)
        for layer, block in enumerate(self.blocks):
            x = block(x, self.rotary, None, None, None, layer)
        return self.norm(x)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, A) int64, K where masked -> (B, T, D)."""
        parts = [self.numbers[a][tokens[..., a]] for a in range(tokens.shape[-1])]
        return torch.stack(parts).sum(0)

    def logits(self, told: Condition, tokens: Tensor) -> Tensor:
        """Of every number of every time step: (B, T, A, K). tokens: (B, T, A), K where masked."""
        if self.config.head == "ar":
            # Position C - 1 + t has read t tokens, and says the next.
            x = self.trunk(told, self.embed(tokens[:, :-1]))[:, self.told_tokens - 1 :]
        else:
            x = self.trunk(told, self.embed(tokens))[:, self.told_tokens :]
        return self.out(x).unflatten(-1, (self.config.actions, -1))

    def numbers_out(self, told: Condition, chunk: Tensor, time: Tensor | None) -> Tensor:
        """For l1 and flow: numbers (B, T, A) -> numbers (B, T, A)."""
        x = self.enter(chunk)
        if self.time is not None and time is not None:
            x = x + self.time(time)
        return self.out(self.trunk(told, x)[:, self.told_tokens :])

    @property
    def device(self) -> torch.device:
        return self.kind.device

    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())


# --- losses ------------------------------------------------------------------------------------


def hide(actor: Actor, tokens: Tensor, rng: torch.Generator) -> Tensor:
    """Which numbers (B, T, A) to mask. A share of the rows is masked whole: one call must work."""
    B = len(tokens)
    free = torch.ones(B, tokens[0].numel(), dtype=torch.bool)
    n = free.shape[1]
    share = torch.rand(B, generator=rng, dtype=torch.float64)
    # Cosine: mostly masked rows, as in one or a few calls.
    counts = (torch.cos(share * math.pi / 2) * n).ceil().long().clamp(1, n)
    whole = torch.rand(B, generator=rng) < actor.config.whole
    counts = torch.where(whole, n, counts)
    return mask_exactly(free, counts, rng).view(tokens.shape).to(tokens.device)


def draw_committed(rows: int, chunk: int, share: float, rng: torch.Generator) -> Tensor:
    """Which time steps (B, T) are committed: a share of the rows begins with 1 to T / 2 of them."""
    counts = torch.randint(1, chunk // 2 + 1, (rows,), generator=rng)
    counts = counts * (torch.rand(rows, generator=rng) < share)
    return torch.arange(chunk) < counts[:, None]


def loss(
    actor: Actor,
    told: Condition,
    actions: Tensor,
    rng: torch.Generator,
    executed: Tensor | None = None,
    committed: float = 0.0,
):
    """The mean loss per number of a chunk, and figures to log. actions: (B, T, A) in [-1, 1].

    executed: (B, T, A), what was done in place of `actions`. committed: the share of rows of the
    heads with tokens that begin with executed actions, as a chunk does under a delay. What the
    expert wanted says nothing of what it wants next: it would have been done. What was done does.
    """
    config = actor.config
    if config.head == "l1":
        found = actor.numbers_out(told, torch.zeros_like(actions), None)
        value = (found - actions).abs().mean()
        return value, {"l1": value.item()}
    if config.head == "flow":
        noise = torch.randn(actions.shape, generator=rng).to(actions.device)
        time = torch.rand(len(actions), generator=rng).to(actions.device)
        mixed = torch.lerp(noise, actions, time[:, None, None])
        value = F.mse_loss(actor.numbers_out(told, mixed, time), actions - noise)
        return value, {"flow": value.item()}
    tokens = to_bins(actions, config.bins)
    targets = soft_targets(actions, config.bins, config.sigma)
    given = torch.zeros_like(tokens, dtype=torch.bool)
    if committed and executed is not None and config.chunk > 1:
        given |= draw_committed(len(tokens), config.chunk, committed, rng).to(given.device)[
            ..., None
        ]
        tokens = torch.where(given, to_bins(executed, config.bins), tokens)
        told = dataclasses.replace(told, moved=(executed * given).sum(1))
    if config.head == "ar":
        log_p = actor.logits(told, tokens).log_softmax(-1)
        nats = -(targets * log_p).sum(-1)[~given]
        return nats.mean(), {"nats_per_number": nats.mean().item()}
    masked = hide(actor, tokens, rng) & ~given
    log_p = actor.logits(told, tokens.masked_fill(masked, config.bins)).log_softmax(-1)
    nats = -(targets * log_p).sum(-1)[masked]
    return nats.mean(), {"nats_per_number": nats.mean().item()}
