"""Chunks of actions from a trained head: how many calls, in which order, around which prefix.

The actions that are already committed stay given: their tokens are never masked, and the rest of
the chunk is filled around them, as a template's blanks are (DiscreteRTC, arXiv 2604.25050).
"""

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from base import flags
from base.flags import setting
from net.actor import Actor, Condition, centres, median, to_bins

ORDERS = ("confidence", "time", "random")


@dataclass
class ChunkConfig:
    """How a chunk is made."""

    calls: int = setting(1, "calls of the head per chunk; the twin needs one per step", at_least=1)
    order: str = setting("time", "which tokens a call reveals first", choices=ORDERS)
    draw: bool = setting(False, "draw the actions; else take the median of each number")
    temperature: float = setting(1.0, "of drawn actions", above=0.0)

    def __post_init__(self):
        flags.check(self)


@dataclass
class Trace:
    """How a chunk was made, by a head that writes tokens.

    stages  the tokens (B, T, A) after each call, K where masked
    nats    (B,): -log p per number, of the chunk that was made under the law that made it. Call c
            reveals the numbers R_c, independently of each other given the earlier calls, so
            -log p = - sum over c and i in R_c of log p(x_i | R_1 .. R_{c-1}). Exact for the twin
            and in the order of time. In a random order it is given the order. By confidence,
            the choice of what to reveal depends on the numbers, and is not counted.
    entropy (B,): the mean entropy of a number, in nats, before the first choice. Of the twin it is
            before each number's own choice: its later steps are not defined earlier.
    """

    stages: list[Tensor] = field(default_factory=list)
    nats: Tensor | None = None
    entropy: Tensor | None = None


@torch.no_grad()
def make(
    actor: Actor,
    told: Condition,
    cfg: ChunkConfig,
    rng: torch.Generator | None = None,
    prefix: Tensor | None = None,
    trace: Trace | None = None,
) -> Tensor:
    """A chunk of actions for each row: (B, T, A) in [-1, 1].

    rng: for what is drawn at random. prefix: (B, n, A), the first n actions, which stay as they
    are. trace: is told how the chunk was made, by heads that write tokens.
    """
    rng = rng or torch.Generator().manual_seed(0)
    if actor.config.head in ("l1", "flow"):
        actions = numbers(actor, told, cfg, rng)
        if prefix is not None:
            actions[:, : prefix.shape[1]] = prefix
        return actions
    return binned(actor, told, cfg, rng, prefix, trace or Trace())


def numbers(actor: Actor, told: Condition, cfg: ChunkConfig, rng: torch.Generator) -> Tensor:
    """Chunks of the heads that make numbers: one call of l1, Euler steps of flow."""
    shape = (len(told.state), actor.config.chunk, actor.config.actions)
    if actor.config.head == "l1":
        return actor.numbers_out(told, torch.zeros(shape, device=actor.device), None).clamp(-1, 1)
    x = torch.randn(shape, generator=rng).to(actor.device)
    for call in range(cfg.calls):
        time = torch.full((shape[0],), call / cfg.calls, device=actor.device)
        x = x + actor.numbers_out(told, x, time) / cfg.calls
    return x.clamp(-1, 1)


def binned(
    actor: Actor,
    told: Condition,
    cfg: ChunkConfig,
    rng: torch.Generator,
    prefix: Tensor | None,
    trace: Trace,
) -> Tensor:
    """Chunks of the heads that write tokens."""
    B, T, A = len(told.state), actor.config.chunk, actor.config.actions
    mask = actor.config.bins
    tokens = torch.full((B, T, A), mask, device=actor.device)
    actions = torch.zeros(B, T, A, device=actor.device)
    given = 0
    if prefix is not None:
        given = prefix.shape[1]
        tokens[:, :given] = to_bins(prefix, mask)
        actions[:, :given] = prefix
        told = dataclasses.replace(told, moved=prefix.sum(1))
    left = T - given
    calls = left if actor.config.head == "ar" else min(cfg.calls, left)
    nats = total = torch.zeros(B, device=actor.device)
    for call in range(calls):
        log_p = (actor.logits(told, tokens) / temperature_of(cfg)).log_softmax(-1)
        entropy = entropy_of(log_p)
        if actor.config.head == "ar":
            total = total + (entropy * reveal_of_twin(tokens, mask)).sum((1, 2))
        elif call == 0:
            total = entropy[:, given:].sum((1, 2))
        chosen, found = choose(log_p, cfg, rng)
        count = left * (call + 1) // calls - left * call // calls
        reveal = steps_to_reveal(actor, tokens, log_p, chosen, count, cfg, rng, mask)
        tokens = torch.where(reveal, chosen, tokens)
        actions = torch.where(reveal, found, actions)
        chances = log_p.gather(-1, chosen[..., None])[..., 0]
        nats -= (chances * reveal).sum((1, 2))
        trace.stages.append(tokens.clone())
    trace.nats, trace.entropy = nats / (left * A), total / (left * A)
    return actions


def entropy_of(log_p: Tensor) -> Tensor:
    """The entropy of each number in nats: log_p (B, T, A, K) -> (B, T, A)."""
    return -(log_p.exp() * log_p).sum(-1)


def reveal_of_twin(tokens: Tensor, mask: int) -> Tensor:
    """The step that the twin writes next, the first masked step: tokens (B, T, A) -> (B, T, 1)."""
    hidden = (tokens == mask).any(-1)  # (B, T)
    return (hidden & (hidden.cumsum(1) == 1))[..., None]


def calls_of(stages: list[Tensor], bins: int, given: int) -> Tensor:
    """The call that revealed each number, from the stages of `make`: (B, T, A) int64.

    0 stands for the first `given` actions, which no call revealed.
    """
    calls = 1 + torch.stack([stage == bins for stage in stages]).sum(0)
    calls[:, :given] = 0
    return calls


def temperature_of(cfg: ChunkConfig) -> float:
    return cfg.temperature if cfg.draw else 1.0


def choose(log_p: Tensor, cfg: ChunkConfig, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A bin for every number, and the action that it stands for: (B, T, A) each."""
    if cfg.draw:
        flat = log_p.exp().flatten(0, -2).cpu()
        chosen = torch.multinomial(flat, 1, generator=rng).view(log_p.shape[:-1])
        chosen = chosen.to(log_p.device)
        return chosen, centres(log_p.shape[-1], log_p.device)[chosen]
    return median(log_p)


def steps_to_reveal(
    actor: Actor,
    tokens: Tensor,
    log_p: Tensor,
    chosen: Tensor,
    count: int,
    cfg: ChunkConfig,
    rng: torch.Generator,
    mask: int,
) -> Tensor:
    """Which numbers this call reveals: (B, T, A) bool, `count` whole time steps of each row."""
    hidden = (tokens == mask).any(-1)  # (B, T)
    B, T = hidden.shape
    if cfg.order == "time" or actor.config.head == "ar":
        score = -torch.arange(T, device=tokens.device).float().expand(B, T)
    elif cfg.order == "random":
        score = torch.rand(B, T, generator=rng).to(tokens.device)
    else:
        score = log_p.gather(-1, chosen[..., None])[..., 0].sum(-1)
    score = score.masked_fill(~hidden, -torch.inf)
    first = score.topk(min(count, T), dim=1).indices
    reveal = torch.zeros_like(hidden).scatter(1, first, True) & hidden
    return reveal[..., None].expand(tokens.shape)
