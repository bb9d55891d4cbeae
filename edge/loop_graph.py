"""The whole denoising as one graph: net.samplers.sample as an ONNX Loop around the network.

Shapes: B batch, L length, N steps of the schedule, M uniform numbers, V' emittable tokens.
"""

import torch
from torch import nn
from torch._higher_order_ops.while_loop import while_loop

from base.decoding import ENTROPY_BOUND, FIRST_HITTING, LEFT_TO_RIGHT
from edge.graphs import (
    BATCH,
    Input,
    Inputs,
    Sizes,
    condition_inputs,
    factor_inputs,
    integers,
    row_inputs,
)
from edge.networks import Network


class LoopGraph(nn.Module):
    """net.samplers.sample in one graph, for the orders of base.decoding.ORDERS.

    schedule (L + 1, N) int32: row n says how many of n blanks are masked after each of N steps.
    order (1,) int32: an index of base.decoding.ORDERS.
    threshold (1,): reveal all tokens that are at least this sure. Above 1 the schedule decides
        alone. In the order entropy_bound it is that bound, in nats.
    temperature (1,): 0 takes the likeliest token.
    noise (B, M) float64: the row's uniform numbers, in the order in which `sample` takes them.

    Returns the tokens, the call that revealed each (0: given), its probability (1: given), and the
    number of calls (1,).
    """

    outputs = ("filled", "step", "probability", "calls")

    def __init__(self, network: Network, mask_id: int):
        super().__init__()
        self.network, self.mask_id = network, mask_id

    def example(self, sizes: Sizes) -> Inputs:
        noise = torch.zeros(BATCH, 40, dtype=torch.float64)
        return {
            **row_inputs(sizes),
            "schedule": Input(integers(sizes.model.max_length + 1, 5), {1: "steps"}),
            "order": Input(integers(1)),
            "threshold": Input(torch.zeros(1)),
            "temperature": Input(torch.zeros(1)),
            "noise": Input(noise, {0: "batch", 1: "numbers"}),
            **condition_inputs(sizes),
            **factor_inputs(sizes.network),
        }

    def forward(
        self,
        tokens,
        lengths,
        schedule,
        order,
        threshold,
        temperature,
        noise,
        keys=None,
        values=None,
        factors=None,
    ):
        tokens = tokens + 0  # the loop may not change a graph's input
        total = (tokens == self.mask_id).sum(1).int()
        state = (
            torch.zeros(1, dtype=torch.int32),  # at: the schedule's step
            tokens,
            torch.zeros_like(tokens),  # step: the call that revealed each token
            torch.ones_like(tokens).float(),  # probability
            torch.zeros_like(total),  # used: each row's calls
            torch.zeros_like(total),  # cursor: each row's place in the noise
            torch.zeros(1, dtype=torch.int32),  # calls
        )
        fixed = (total, lengths, schedule, order, threshold, temperature, noise)
        if keys is not None:
            fixed += (keys, values)
        count = len(state)

        def unfinished(*carried):
            return (carried[1] == self.mask_id).any()

        def body(*carried):
            state, fixed = carried[:count], carried[count:]
            # while_loop wants every input back, and none of them as the same tensor.
            # The factors are no part of the state, so no call copies them.
            after = self.advance(state, *fixed, factors=factors)
            return (*after, *(tensor.clone() for tensor in fixed))

        out = while_loop(unfinished, body, (*state, *fixed))
        return out[1], out[2], out[3], out[6]

    def advance(
        self,
        state,
        total,
        lengths,
        schedule,
        order,
        threshold,
        temperature,
        noise,
        keys=None,
        values=None,
        factors=None,
    ):
        """One call of the network, and the state after it."""
        at, tokens, step, probability, used, cursor, calls = state
        masked = tokens == self.mask_id
        now = masked.sum(1).int()  # (B,) masked tokens
        own_pace = (order == ENTROPY_BOUND) | (threshold <= 1)
        at, skipped, least = pace(now, total, schedule, at, own_pace)

        share = now / total.clamp(min=1)
        logits = self.network(tokens, lengths, keys, values, share, factors)
        log_prob = logits.log_softmax(-1)  # (B, L, V')
        confidence = log_prob.amax(-1).exp()  # (B, L)
        entropy = -(log_prob * log_prob.exp()).sum(-1).double()  # (B, L) nats

        random = order == FIRST_HITTING
        cursor = cursor + torch.where(random, now * skipped, 0)  # skipped steps drew an order too
        score = scores(order, masked, confidence, entropy, from_noise(noise, cursor, masked))
        cursor = cursor + torch.where(random, now, 0)
        reveal = chosen(order, threshold, score, masked, confidence, entropy, least)

        token = draw(logits, temperature, from_noise(noise, cursor, reveal))
        likely = log_prob.gather(2, token[:, :, None])[:, :, 0].exp()
        used = used + reveal.any(1).int()
        return (
            at + 1,
            torch.where(reveal, token.int(), tokens),
            torch.where(reveal, used[:, None], step),
            torch.where(reveal, likely, probability),
            used,
            cursor + reveal.sum(1).int(),
            calls + 1,
        )


def pace(now, total, schedule, at, own_pace):
    """The next step, the number of steps skipped, and the tokens that each row must reveal.

    Steps at which no row reveals a token cost no call. A sampler with its own pace skips none.
    """
    left = schedule.index_select(0, total)  # (B, N) still masked after each step
    steps = torch.arange(schedule.shape[1], dtype=torch.int32)
    due = (left < now[:, None]).any(0) & (steps >= at)
    next_due = torch.where(due, steps, schedule.shape[1] - 1).amin(0, keepdim=True)
    skipped = torch.where(own_pace, 0, next_due - at)
    at = at + skipped
    paced = (now - left.index_select(1, at)[:, 0]).clamp(min=0)
    return at, skipped, torch.where(own_pace, paced.clamp(min=1), paced)


def from_noise(noise, cursor, where):
    """The next uniform number of its row for each position in `where` (B, L): (B, L) float64."""
    number = cursor[:, None] + where.int().cumsum(1) - 1
    return noise.gather(1, number.clamp(0, noise.shape[1] - 1))


def scores(order, masked, confidence, entropy, uniform):
    """What is revealed first: the largest scores (B, L) float64; -inf where nothing is masked."""
    position = torch.arange(masked.shape[1])
    greedy = torch.where(order == LEFT_TO_RIGHT, -position.double(), confidence.double())
    score = torch.where(order == ENTROPY_BOUND, -entropy, greedy)
    score = torch.where(order == FIRST_HITTING, uniform, score)
    return torch.where(masked, score, -torch.inf)


def chosen(order, threshold, score, masked, confidence, entropy, least):
    """Which tokens this call reveals (B, L): the `least` best, or more if they are sure enough."""
    position = torch.arange(masked.shape[1])
    mine, other = score[:, :, None], score[:, None]
    # before[b, i, j]: j comes before i in a stable descending sort.
    before = (other > mine) | ((other == mine) & (position < position[:, None]))
    rank = before.sum(2)
    # Nats of all tokens that are surer than this one (EB-Sampler, arXiv 2505.24857).
    uncertain = torch.where(before & masked[:, None], entropy[:, None], 0.0).sum(2)
    by_entropy = order == ENTROPY_BOUND
    sure = (by_entropy & (uncertain <= threshold)) | (~by_entropy & (confidence >= threshold))
    accepted = (masked & sure).sum(1).int()
    return masked & (rank < torch.maximum(least, accepted)[:, None])


def draw(logits, temperature, uniform):
    """A token for each position by the inverse of its distribution function, in float64: (B, L)."""
    greedy = temperature == 0
    scaled = logits.double() / torch.where(greedy, 1.0, temperature)
    mass = scaled.softmax(-1).cumsum(-1)
    point = uniform[:, :, None] * mass[:, :, -1:]
    drawn = (mass <= point).sum(-1).clamp(max=mass.shape[2] - 1)
    return torch.where(greedy, logits.argmax(-1), drawn)
