"""The steps of decoding in numpy: which blanks to fill in each call, and with which tokens.

This is net/samplers.py and net/twin.py again without torch, for the work that a bundle does outside
its graphs. edge/parity.py compares both, token for token.

Sizes: B rows, L tokens of a row, N steps, V' tokens that can be written.
"""

from collections.abc import Callable

import numpy as np

from base.config import GROUPS, SampleConfig
from base.randomness import row_uniforms

# The loop graph's input `order` is an index of this tuple, so the order of the names stays.
ORDERS = ("confidence", "left_to_right", "first_hitting", "entropy_bound")
CONFIDENCE, LEFT_TO_RIGHT, FIRST_HITTING, ENTROPY_BOUND = range(len(ORDERS))
# `threshold` reveals in the order of confidence, at its own pace.
SAMPLERS = (*ORDERS, "threshold")
NEVER = 2.0  # a threshold that no probability reaches: the schedule alone decides

# call(tokens (B, L), share of each row that is masked (B,)) -> logits (B, L, V')
Call = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Stream:
    """The uniform numbers of each row, taken in the order in which torch's generator gives them."""

    def __init__(self, noise: np.ndarray, used: np.ndarray | int = 0):
        """noise: (B, M) float64 from `row_uniforms`. used: (B,) numbers that are taken already."""
        self.noise = noise
        self.used = np.zeros(len(noise), int) + used

    def take(self, where: np.ndarray) -> np.ndarray:
        """The row's next number at each True of `where` (B, L), any number elsewhere: (B, L)."""
        index = self.used[:, None] + where.cumsum(1) - 1
        rows = np.arange(len(self.noise))[:, None]
        # Where nothing is taken the index may lie outside. These numbers are never used.
        numbers = self.noise[rows, np.clip(index, 0, self.noise.shape[1] - 1)]
        self.used = self.used + where.sum(1)
        return numbers

    def skip(self, counts: np.ndarray) -> None:
        """Leave out counts[b] numbers of row b: counts (B,)."""
        self.used = self.used + counts


def schedule_table(settings: SampleConfig, length: int) -> np.ndarray:
    """How many of n blanks are still masked after each step: row n of (length + 1, N) int32.

    The schedules are those of diffusion.Schedule. net/samplers.py paces its steps by these numbers.
    """
    t = 1 - (np.arange(settings.steps) + 1) / settings.steps
    alpha = {
        "linear": 1 - t,
        "cosine": 1 - np.cos(np.pi / 2 * (1 - t)),
        "polynomial": 1 - t**2,
    }[settings.schedule]
    table = np.round(np.arange(length + 1)[:, None] * (1 - alpha)).astype(np.int32)
    # The last step reveals everything: no text may keep a mask.
    table[:, -1] = 0
    return table


def numbers_needed(settings: SampleConfig, schedule: np.ndarray, total: int) -> int:
    """How many uniform numbers a row of `total` blanks takes at most."""
    if settings.sampler != "first_hitting":
        # A row without blanks needs a column too: `take` clips its index to the last column.
        return max(1, total)
    # Each step draws an order for all that is still masked, and then a number for each new token.
    return int(2 * total + schedule[total].sum())


def limit_of(settings: SampleConfig) -> float:
    """The loop graph's input `threshold`: nats for entropy_bound, else a probability to reach."""
    if settings.sampler == "entropy_bound":
        return settings.entropy_bound
    if settings.sampler != "threshold":
        return NEVER
    # The graph compares in float32. Rounding up keeps `>=` true for exactly the same probabilities.
    threshold = np.float32(settings.threshold)
    if float(threshold) < settings.threshold:
        threshold = np.nextafter(threshold, np.float32(2))
    return float(threshold)


def loop_inputs(
    settings: SampleConfig, tokens: np.ndarray, mask: int, length: int, seed: int, first: int
) -> dict[str, np.ndarray]:
    """The inputs of the loop graph other than tokens, lengths and the condition.

    tokens: (B, L) int32 with `mask` in the blanks. length: the model's longest row. seed, first:
    the seed and the number of the first row decide the rows' random numbers.
    """
    schedule = schedule_table(settings, length)
    total = int((tokens == mask).sum(1).max())
    sampler = "confidence" if settings.sampler == "threshold" else settings.sampler
    count = numbers_needed(settings, schedule, total)
    return {
        "schedule": schedule,
        "order": np.array([ORDERS.index(sampler)], np.int32),
        "threshold": np.array([limit_of(settings)], np.float32),
        "temperature": np.array([settings.temperature], np.float32),
        "noise": row_uniforms(seed, len(tokens), first, count),
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis, in the arithmetic of the input."""
    # Without the shift exp of a large logit overflows.
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def draw(logits: np.ndarray, uniform: np.ndarray, temperature: float) -> np.ndarray:
    """A token per row by inverting its distribution function: logits (M, V'), uniform (M,) -> (M,).

    It computes in float64, so that a bundle and torch cut the interval at the same numbers.
    Temperature 0 takes the likeliest token and does not use the uniform numbers.
    """
    if temperature == 0:
        return logits.argmax(-1)
    mass = np.exp(log_softmax(logits.astype(np.float64) / temperature)).cumsum(-1)
    # Rounded probabilities do not sum to exactly 1, so the number is scaled by their sum.
    below = (mass <= uniform[:, None] * mass[:, -1:]).sum(-1)
    # A number near 1 times the sum may round to the sum: no token would lie above it.
    return np.minimum(below, logits.shape[-1] - 1)


def probability_of(log_prob: np.ndarray, token: np.ndarray) -> np.ndarray:
    """The probability of a token per row: log_prob (M, V'), token (M,) -> (M,)."""
    return np.exp(np.take_along_axis(log_prob, token[:, None], 1)[:, 0])


def empty_steps(schedule: np.ndarray, left: np.ndarray, step: int) -> int:
    """How many steps from `step` on reveal nothing in any row; they need no call.

    schedule: (B, N) masks that remain after each step. left: (B,) masks now.
    """
    reveals = np.any(schedule < left[:, None], axis=0)
    reveals[:step] = False
    due = np.flatnonzero(reveals)
    return int(due[0]) - step if len(due) else 0


def order_scores(
    order: int, masked: np.ndarray, confidence: np.ndarray, entropy: np.ndarray, stream: Stream
) -> np.ndarray:
    """The score by which positions are revealed, highest first: (B, L) float64.

    No order looks at the token that is drawn, so the steps of a text give its exact likelihood.
    """
    if order == CONFIDENCE:
        return confidence.astype(np.float64)
    if order == LEFT_TO_RIGHT:
        position = np.arange(masked.shape[1], dtype=np.float64)
        return np.broadcast_to(-position, masked.shape)
    if order == FIRST_HITTING:
        return stream.take(masked)
    return -entropy


def accepted_counts(
    order: int,
    limit: float,
    masked: np.ndarray,
    best: np.ndarray,
    confidence: np.ndarray,
    entropy: np.ndarray,
) -> np.ndarray:
    """How many masks each row may reveal by its own certainty: (B,).

    best: (B, L) positions in the order of revealing. The order entropy_bound accepts a mask if the
    entropies of all masks before it sum to at most `limit` nats (EB-Sampler, arXiv 2505.24857). The
    other orders accept a mask if its largest probability is at least `limit`.
    """
    if order != ENTROPY_BOUND:
        return (masked & (confidence >= limit)).sum(1)
    in_order = np.take_along_axis(np.where(masked, entropy, 0), best, 1)
    before = in_order.cumsum(1) - in_order
    return (np.take_along_axis(masked, best, 1) & (before <= limit)).sum(1)


def choose(
    order: int,
    limit: float,
    masked: np.ndarray,
    least: np.ndarray,
    log_prob: np.ndarray,
    stream: Stream,
) -> np.ndarray:
    """The positions that one call reveals, (B, L) bool: the first of each row, in the given order.

    least: (B,) positions that a row reveals at least. log_prob: (B, L, V').
    """
    confidence = np.exp(log_prob.max(-1))
    entropy = -(log_prob * np.exp(log_prob)).sum(-1).astype(np.float64)
    score = order_scores(order, masked, confidence, entropy, stream)
    # A stable sort breaks ties by position, as torch and the loop graph do.
    best = np.argsort(np.where(masked, -score, np.inf), 1, kind="stable")
    # The argsort of a permutation is its inverse: the place of each position in the order.
    rank = np.argsort(best, 1)
    accepted = accepted_counts(order, limit, masked, best, confidence, entropy)
    return masked & (rank < np.maximum(least, accepted)[:, None])


def unmask(
    call: Call, tokens: np.ndarray, inputs: dict[str, np.ndarray], mask: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The loop graph in numpy: tokens, step and probability (B, L) of each position, and the calls.

    inputs: from `loop_inputs`. step: the call that revealed a position, 0 for a given token, whose
    probability is 1.
    """
    tokens = tokens.copy()
    schedule = inputs["schedule"]
    order = int(inputs["order"][0])
    limit = inputs["threshold"][0]
    temperature = float(inputs["temperature"][0])
    own_pace = order == ENTROPY_BOUND or limit <= 1
    stream = Stream(inputs["noise"])
    total = (tokens == mask).sum(1)  # (B,)
    step = np.zeros_like(tokens)
    probability = np.ones(tokens.shape, np.float32)
    used = np.zeros(len(tokens), int)
    at = calls = 0
    while (tokens == mask).any():
        masked = tokens == mask
        left = masked.sum(1)
        if not own_pace:
            skipped = empty_steps(schedule[total], left, at)
            at += skipped
            if order == FIRST_HITTING:  # a skipped step has drawn its order all the same
                stream.skip(left * skipped)
        # A row at its own pace reveals at least one token per call, so it ends in time.
        least = np.maximum(1 if own_pace else 0, left - schedule[total, at])
        logits = call(tokens, left / np.maximum(1, total))
        log_prob = log_softmax(logits)
        reveal = choose(order, limit, masked, least, log_prob, stream)
        token = draw(logits[reveal], stream.take(reveal)[reveal], temperature)
        used = used + reveal.any(1)
        tokens[reveal] = token
        step[reveal] = np.broadcast_to(used[:, None], step.shape)[reveal]
        probability[reveal] = probability_of(log_prob[reveal], token)
        calls += 1
        at += 1
    return tokens, step, probability, calls


def look_back(
    call: Call,
    tokens: np.ndarray,
    step: np.ndarray,
    probability: np.ndarray,
    free: np.ndarray,
    settings: SampleConfig,
    noise: np.ndarray,
    mask: int,
) -> np.ndarray:
    """samplers.look_back in numpy, in place: each group of tokens is masked and drawn again.

    free: (B, L) bool, what was written. noise: (B, M); the sampler has taken a number for each free
    token. Returns the calls that drew something in each row (B,).
    """
    # A row without blanks would divide by zero.
    total = np.maximum(1, free.sum(1))
    # Every fourth token is in one group, so neighbours are never drawn together.
    group = (free.cumsum(1) - 1) % GROUPS
    stream = Stream(noise, used=free.sum(1))
    used = step.max(1)
    for number in range(settings.revise * GROUPS):
        again = free & (group == number % GROUPS)
        if not again.any():
            continue
        share = again.sum(1) / total
        logits = call(np.where(again, np.int32(mask), tokens), share)[again]
        token = draw(logits, stream.take(again)[again], settings.temperature)
        used = used + again.any(1)
        differs = token != tokens[again]
        changed = again.copy()
        changed[again] = differs
        tokens[again] = token
        step[changed] = np.broadcast_to(used[:, None], step.shape)[changed]
        log_prob = log_softmax(logits[differs])
        probability[changed] = probability_of(log_prob, token[differs])
    return used


def left_to_right(
    call: Callable[[np.ndarray, int], np.ndarray],
    prompt: list[int],
    noise: np.ndarray,
    temperature: float,
    end: int,
    pad: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The autoregressive twin's texts, as twin.sample writes them: tokens and probability (B, L).

    call(tokens (B, 1), position) -> logits (B, V') of the next token; it keeps the past. noise: (B,
    L) float64, its shape is the number of rows and their length at most. end: the id that ends a
    text.
    """
    rows, longest = noise.shape
    tokens = np.full((rows, longest), pad, np.int32)
    probability = np.ones((rows, longest), np.float32)
    tokens[:, : len(prompt)] = prompt
    done = np.zeros(rows, bool)
    for position in range(longest - 1):
        logits = call(tokens[:, position : position + 1], position)
        behind = position + 1
        # A given token is run as well, because its call fills the key-value cache.
        if behind < len(prompt):
            continue
        token = draw(logits, noise[:, behind - len(prompt)], temperature)
        tokens[:, behind] = np.where(done, pad, token)
        certainty = probability_of(log_softmax(logits), token)
        probability[:, behind] = np.where(done, 1, certainty)
        done |= token == end
        if done.all():
            break
    return tokens, probability
