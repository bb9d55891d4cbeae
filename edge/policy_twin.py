"""The head of the autoregressive twin as a graph: step by step, with a key-value cache.

The condition is read once. Then each time step is one position of the network, which attends to
the kept keys and values of the positions before it. `HeadGraph` would read the whole row again for
each step: with 4 tokens of condition and 8 steps that is 88 positions in place of 12.

Shapes: B rows, N layers, C tokens of condition, T time steps, H heads, A numbers per action,
K bins.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from edge.graphs import Inputs, Sizes
from edge.networks import HIDDEN, turned
from edge.policy_graphs import HeadGraph, median, past_inputs, prefix_inputs, told_inputs


class TwinGraph(HeadGraph):
    """As `HeadGraph`, of the head `ar`: there is one order, and a call per time step."""

    def example(self, sizes: Sizes) -> Inputs:
        config = self.network.config
        return {**told_inputs(config), **prefix_inputs(config), **past_inputs(config)}

    # torch.export wants the inputs of `example`, and no others.
    def forward(
        self, places, state, order, prefix, given, past_places=None, past_states=None
    ) -> tuple[Tensor, ...]:
        told = (places, state, order, past_places, past_states)
        position = torch.arange(prefix.shape[1], dtype=torch.int32)
        committed = torch.where((position < given)[:, None], prefix, 0.0)
        return self.write(self.network.told(committed.sum(1), *told), committed, given)

    def write(self, condition: Tensor, committed: Tensor, given: Tensor) -> tuple[Tensor, ...]:
        """The loop over time steps. committed (B, T, A): the prefix, and zeros."""
        bins, T = self.network.config.bins, self.network.config.chunk
        tokens = ((committed.clamp(-1, 1) + 1) * (bins - 1) / 2).round().int()
        logits, keys, values = self.begin(condition)
        state = (
            torch.zeros(1, dtype=torch.int32),  # the time step
            logits,  # (B, A, K) of this step
            keys,
            values,
            committed + 0,
            torch.zeros_like(tokens),  # the call that wrote each number
            committed.new_zeros(committed.shape[0]),  # nats of each row
            committed.new_zeros(committed.shape[0]),  # entropy of each row
        )
        fixed = (tokens, given.clone())
        count = len(state)

        def unfinished(*carried):
            return (carried[0] < T).all()

        def body(*carried):
            state, fixed = carried[:count], carried[count:]
            # while_loop wants every input back, and none of them as the same tensor.
            return (*self.advance(state, *fixed), *(tensor.clone() for tensor in fixed))

        *_, actions, revealed, nats, entropy = while_loop(unfinished, body, (*state, *fixed))[
            :count
        ]
        numbers = ((T - given) * self.network.config.actions).clamp(min=1)
        return actions, revealed, nats / numbers, entropy / numbers

    def begin(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read the condition (B, C, D): the logits of the first step, (B, A, K), and the cache.

        keys, values: (B, N, H, C + T, head), filled up to C.
        """
        net = self.network
        C = condition.shape[1]
        bias = net.ahead[:C, :C]
        cos, sin = net.cos[:C], net.sin[:C]
        x, all_keys, all_values = condition, [], []
        for block in net.blocks:
            q, k, v = block.heads_of(x)
            q, k = turned(q, cos, sin), turned(k, cos, sin)
            x = block.mix(x, q, k, v, bias, None, None)
            room = (0, 0, 0, net.config.chunk)  # behind the last position
            all_keys.append(F.pad(k, room))
            all_values.append(F.pad(v, room))
        logits = self.logits_of(x[:, -1:])
        return logits, torch.stack(all_keys, 1), torch.stack(all_values, 1)

    def logits_of(self, x: Tensor) -> Tensor:
        """(B, 1, D) -> (B, A, K)."""
        net = self.network
        return net.head(net.norm(x))[:, 0].unflatten(-1, (net.config.actions, -1))

    def next(self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor):
        """A written action (B, A) at a position, (1,) -> the next step's logits, and the cache."""
        net = self.network
        positions = torch.arange(keys.shape[3], dtype=torch.int32)
        here = (positions == position)[:, None]
        bias = torch.where(positions <= position, 0.0, HIDDEN)
        cos, sin = net.cos.index_select(0, position), net.sin.index_select(0, position)
        parts = [F.embedding(token[:, a], net.numbers[a]) for a in range(net.config.actions)]
        x = torch.stack(parts).sum(0)[:, None]  # (B, 1, D)
        all_keys, all_values = [], []
        for layer, block in enumerate(net.blocks):
            q, k, v = block.heads_of(x)
            q, k = turned(q, cos, sin), turned(k, cos, sin)
            k = torch.where(here, k, keys[:, layer])
            v = torch.where(here, v, values[:, layer])
            x = block.mix(x, q, k, v, bias, None, None)
            all_keys.append(k)
            all_values.append(v)
        return self.logits_of(x), torch.stack(all_keys, 1), torch.stack(all_values, 1)

    def advance(self, state, tokens, given):
        """Write one time step, or keep it if it is given."""
        step, logits, keys, values, actions, revealed, nats, entropy = state
        net = self.network
        log_p = logits.log_softmax(-1)  # (B, A, K)
        chosen, found = median(log_p, net.centres)
        free = (step >= given).float()
        chance = log_p.gather(-1, chosen[..., None])[..., 0].sum(-1)  # (B,)
        unsure = -(log_p.exp() * log_p).sum((-1, -2))
        here = (torch.arange(net.config.chunk, dtype=torch.int32) == step)[:, None]  # (T, 1)
        new = here & (step >= given)
        kept = (tokens * here).sum(1)  # (B, A): what is given at this step
        token = torch.where(step >= given, chosen.int(), kept.int())
        logits, keys, values = self.next(token, net.told_tokens + step, keys, values)
        return (
            step + 1,
            logits,
            keys,
            values,
            torch.where(new, found[:, None], actions),
            torch.where(new, step - given + 1, revealed),
            nats - free * chance,
            entropy + free * unsure,
        )
