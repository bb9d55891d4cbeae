"""The graphs of a policy's bundle.

    WordsGraph     an order -> queries and what the actor is told of it: once per order
    GrounderGraph  queries and what is seen -> places, and log-probabilities of what is named
    StepGraph      one call of the head: tokens -> logits (of heads that write tokens)
    HeadGraph      places, state, order, prefix -> the chunk: all calls, an ONNX Loop. The head
                   `ar` has one with a key-value cache (edge/policy_twin.py)
    policy.onnx    all of it in one file: words and what is seen in, a chunk out (`join`)

Several observations enter `GrounderGraph` as rows. Ids are int32 at the boundary, because TensorRT
takes no int64 there.

Shapes: B rows, W words, O numbers of an order, S of the state, T time steps, A numbers per action.
"""

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from base.observations import MOST
from base.policy_config import ActorConfig, GrounderConfig
from edge.graphs import BATCH, Input, Inputs, Sizes, integers
from edge.policy_networks import ActorNetwork, GrounderNetwork, WordsNetwork
from net.grounder import ROLES

HEADS = ("diffusion", "ar", "l1")  # heads that have graphs
MADE = ("actions", "revealed", "nats", "entropy")  # outputs of a head that writes tokens


def rows(*shape: int, kind=torch.float32) -> Input:
    """An input with a free number of rows of this shape."""
    return Input(torch.zeros(BATCH, *shape, dtype=kind), {0: "batch"})


def seen_inputs(config: GrounderConfig, side: int) -> Inputs:
    """What a grounder of this kind sees."""
    if config.sees == "pixels":
        return {"images": rows(config.cameras, side, side, 3, kind=torch.uint8)}
    return {
        "kinds": rows(MOST, config.kinds),
        "things": rows(MOST, 3),
        "real": rows(MOST, kind=torch.bool),
    }


def told_inputs(config: ActorConfig) -> Inputs:
    """What an actor is told of now."""
    return {"places": rows(2, 3), "state": rows(config.state), "order": rows(config.order)}


def past_inputs(config: ActorConfig) -> Inputs:
    """What an actor is told of before, the newest first."""
    earlier = config.frames - 1
    if not earlier:
        return {}
    return {"past_places": rows(earlier, 2, 3), "past_states": rows(earlier, config.state)}


def prefix_inputs(config: ActorConfig) -> Inputs:
    """The prefix (B, T, A) of which `given` actions count."""
    return {"prefix": rows(config.chunk, config.actions), "given": Input(integers(1))}


def made_inputs(config: ActorConfig) -> Inputs:
    """The prefix; calls; whether the surest come first."""
    prefix = prefix_inputs(config)
    if config.head == "l1":
        return prefix
    return {**prefix, "calls": Input(integers(1)), "by_confidence": Input(integers(1))}


class WordsGraph(nn.Module):
    """words (B, W) int32, lengths (B,) int32 -> queries (B, R, J, D), order (B, O)."""

    def __init__(self, network: WordsNetwork, longest: int):
        super().__init__()
        self.network, self.longest = network, longest
        self.outputs = ("order",) if network.names is None else ("queries", "order")

    def example(self, sizes: Sizes) -> Inputs:
        words = rows(self.longest, kind=torch.int32)
        return {"words": words, "lengths": Input(integers(BATCH) + 3, {0: "batch"})}

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return self.network(words, lengths)


class GrounderGraph(nn.Module):
    """queries, order and what is seen -> places (B, 2, 3) metres, scores (B, R, N)."""

    outputs = ("places", "scores")

    def __init__(self, network: GrounderNetwork, config: GrounderConfig, order: int, side: int):
        super().__init__()
        self.network, self.config, self.order, self.side = network, config, order, side

    def example(self, sizes: Sizes) -> Inputs:
        width, attributes = self.config.width, self.config.attributes
        told = {"queries": rows(len(ROLES), attributes, width), "order": rows(self.order)}
        return {**told, **seen_inputs(self.config, self.side)}

    # torch.export takes no ** arguments with free axes.
    def forward(
        self, queries, order, images=None, kinds=None, things=None, real=None
    ) -> tuple[Tensor, Tensor]:
        seen = {"images": images, "kinds": kinds, "things": things, "real": real}
        return self.network(queries, order, seen)


class StepGraph(nn.Module):
    """One call of a head that writes tokens, for runtimes that drive the loop themselves."""

    outputs = ("logits",)

    def __init__(self, network: ActorNetwork):
        super().__init__()
        self.network = network

    def example(self, sizes: Sizes) -> Inputs:
        config = self.network.config
        tokens = rows(config.chunk, config.actions, kind=torch.int32)
        own = {"tokens": tokens, "moved": rows(config.actions)}
        return {**own, **told_inputs(config), **past_inputs(config)}

    def forward(
        self, tokens, moved, places, state, order, past_places=None, past_states=None
    ) -> Tensor:
        """tokens (B, T, A), K where masked -> logits (B, T, A, K)."""
        return self.network(tokens, moved, places, state, order, past_places, past_states)


class HeadGraph(nn.Module):
    """`net.chunks.make` with medians, in one graph.

    prefix (B, T, A): of which the first `given`, (1,) int32, stay as they are. calls (1,) int32.
    by_confidence (1,) int32: 1 reveals the surest time steps first, 0 goes along the time.

    Returns actions (B, T, A) and, of a head that writes tokens, the call that revealed each number
    (0: given), and the chunk's nats and entropy per number, (B,): see `net.chunks.Trace`.
    """

    def __init__(self, network: ActorNetwork):
        super().__init__()
        self.network = network
        self.outputs = MADE[:1] if network.config.head == "l1" else MADE

    def example(self, sizes: Sizes) -> Inputs:
        config = self.network.config
        return {**told_inputs(config), **made_inputs(config), **past_inputs(config)}

    def forward(
        self,
        places: Tensor,
        state: Tensor,
        order: Tensor,
        prefix: Tensor,
        given: Tensor,
        calls: Tensor | None = None,
        by_confidence: Tensor | None = None,
        past_places: Tensor | None = None,
        past_states: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        told = (places, state, order, past_places, past_states)
        position = torch.arange(prefix.shape[1], dtype=torch.int32)
        kept = (position < given)[:, None]  # (T, 1)
        committed = torch.where(kept, prefix, 0.0)
        if calls is None:
            # A head that writes numbers does not look at the prefix.
            numbers = self.network.l1(self.network.told(0 * committed[:, 0], *told))
            return (torch.where(kept, prefix, numbers),)
        condition = self.network.told(committed.sum(1), *told)
        return self.unmask(condition, committed, kept, given, calls, by_confidence)

    def unmask(self, condition, committed, kept, given, calls, by_confidence):
        """The loop over calls. committed (B, T, A): the prefix, and zeros. kept (T, 1) bool."""
        config = self.network.config
        bins, chunk = config.bins, config.chunk
        tokens = ((committed.clamp(-1, 1) + 1) * (bins - 1) / 2).round().int()
        left = chunk - given
        calls = torch.minimum(calls, left)
        state = (
            torch.zeros(1, dtype=torch.int32),  # the call
            torch.where(kept, tokens, bins),
            committed + 0,
            torch.zeros_like(tokens),  # the call that revealed each number
            committed.new_zeros(committed.shape[0]),  # nats of each row
            committed.new_zeros(committed.shape[0]),  # entropy of each row
        )
        fixed = (condition, left, calls, by_confidence)
        count = len(state)

        def unfinished(*carried):
            return (carried[0] < carried[count + 2]).all()

        def body(*carried):
            state, fixed = carried[:count], carried[count:]
            # while_loop wants every input back, and none of them as the same tensor.
            return (*self.advance(state, *fixed), *(tensor.clone() for tensor in fixed))

        _, _, actions, revealed, nats, entropy = while_loop(unfinished, body, (*state, *fixed))[
            :count
        ]
        numbers = (left * config.actions).clamp(min=1)
        return actions, revealed, nats / numbers, entropy / numbers

    def advance(self, state, condition, left, calls, by_confidence):
        """One call of the network, and the state after it."""
        call, tokens, actions, revealed, nats, entropy = state
        log_p = self.network.logits(condition, tokens).log_softmax(-1)  # (B, T, A, K)
        hidden = (tokens == self.network.config.bins).any(-1)  # (B, T)
        unsure = -(log_p.exp() * log_p).sum((-1, -2)) * hidden  # (B, T) nats
        chosen, found = median(log_p, self.network.centres)
        chance = log_p.gather(-1, chosen[..., None])[..., 0].sum(-1)  # (B, T)

        due = left * (call + 1) // calls - left * call // calls
        reveal = steps_to_reveal(hidden, chance, due, by_confidence)
        entropy = entropy + torch.where(call == 0, unsure.sum(1), 0.0)
        now = reveal[..., None]
        return (
            call + 1,
            torch.where(now, chosen.int(), tokens),
            torch.where(now, found, actions),
            torch.where(now, call + 1, revealed),
            nats - (chance * reveal).sum(1),
            entropy,
        )


def median(log_p: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """`net.actor.median`: log_p (.., K) -> the bin and the action, (..)."""
    below = (log_p.exp().cumsum(-1) < 0.5).sum(-1)
    chosen = below.clamp(max=log_p.shape[-1] - 1)
    return chosen, centres.index_select(0, chosen.flatten()).view(chosen.shape)


def steps_to_reveal(hidden: Tensor, chance: Tensor, due: Tensor, by_confidence: Tensor) -> Tensor:
    """Which of the hidden time steps (B, T) are revealed: the first `due` in the order."""
    position = torch.arange(hidden.shape[1])
    score = torch.where(by_confidence == 1, chance, -position.float())
    score = torch.where(hidden, score, -torch.inf)
    mine, other = score[:, :, None], score[:, None]
    # before[b, i, j]: j comes before i in a stable descending sort.
    before = (other > mine) | ((other == mine) & (position < position[:, None]))
    return hidden & (before.sum(2) < due)
