"""Exact speculative sampling in numpy: net/speculation.py again without torch, for bundles.

Guesses from the last call's distributions, one call of the step graph that checks them all, and a
rejection rule that keeps the law of the one-token sampler. The proof stands in net/speculation.py.

Sizes: B rows; n = k + 1 neighbours of each; L tokens of a row; V' tokens that can be written.
"""

from dataclasses import dataclass

import numpy as np

from base.config import SampleConfig
from base.decoding import Call, Stream, log_softmax
from base.randomness import row_uniforms


def numbers_for(settings: SampleConfig, total: int) -> int:
    """How many uniform numbers a row of `total` blanks takes at most."""
    # A round writes a token at least, and takes a number for each guess, each coin, and the last.
    rounds = total * (2 * settings.speculate + 1)
    order = 0
    if settings.sampler == "first_hitting":
        # The one-token sampler's own: an order for all that is masked, and a number for the token.
        order = total * (total + 1) // 2 + total
    return max(1, rounds + order)


def random_order(free: np.ndarray, stream: Stream) -> np.ndarray:
    """Scores (B, L), the free position with the largest comes first: the order of first_hitting."""
    score = np.zeros(free.shape)
    left = free.copy()
    rows = np.arange(len(free))
    while left.any():
        turn = left.sum(1)
        numbers = np.where(left, stream.take(left), -np.inf)
        best = numbers.argmax(1)
        some = turn > 0
        stream.skip(some.astype(int))  # what the token's draw would take
        score[rows[some], best[some]] = turn[some]
        left[rows[some], best[some]] = False
    return score


def distribution(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (K, V') float64 of logits (K, V'); at temperature 0 the likeliest has all."""
    if temperature == 0:
        return np.eye(logits.shape[-1])[logits.argmax(-1)]
    return np.exp(log_softmax(logits.astype(np.float64) / temperature))


def pick(weight: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """A token per row in proportion to weight (K, V'): uniform (K,) -> (K,)."""
    mass = weight.cumsum(-1)
    below = (mass <= uniform[:, None] * mass[:, -1:]).sum(-1)
    return np.minimum(below, weight.shape[-1] - 1)


@dataclass
class Round:
    """The guesses of a round, and the rows that check them.

    planned, guess: (B, n), the places in the order that is believed, and their tokens. guessed,
    real: (B, n) bool, which places have a guess, and which rows have something left to write.
    weight: (B, n, V') what the guesses were drawn from. tokens: (B, n, L), row j with j guesses.
    """

    planned: np.ndarray
    guess: np.ndarray
    guessed: np.ndarray
    real: np.ndarray
    weight: np.ndarray
    tokens: np.ndarray


@dataclass
class Speculation:
    """Rows (B, L) while they are written.

    call: the step graph, which takes n·B rows, n neighbours of each. order: (B, L) float64, the
    largest comes first; None: the surest comes first. believed: (B, L, V') logits of the rows from
    which the last tokens were drawn; None before the first call.
    """

    call: Call
    tokens: np.ndarray
    settings: SampleConfig
    mask: int
    stream: Stream
    order: np.ndarray | None
    believed: np.ndarray | None = None

    def __post_init__(self):
        self.total = np.maximum(1, (self.tokens == self.mask).sum(1))  # (B,)
        self.step = np.zeros_like(self.tokens)
        self.probability = np.ones(self.tokens.shape, np.float32)
        self.used = np.zeros(len(self.tokens), int)
        self.rows = np.arange(len(self.tokens))

    def sequence(self, masked: np.ndarray) -> np.ndarray:
        """All places in the order that is believed, the masked ones first: (B, L)."""
        score = self.order
        if score is None:
            score = np.zeros(masked.shape)
            if self.believed is not None:
                score = sureness(self.believed)
        return np.argsort(np.where(masked, -score, np.inf), 1, kind="stable")

    def plan(self) -> Round:
        """Guess the next tokens by the last call, and lay out the rows that check the guesses."""
        masked = self.tokens == self.mask
        left = masked.sum(1)
        ahead = 0 if self.believed is None else self.settings.speculate
        count = np.minimum(left, ahead)
        rows = np.minimum(count + 1, left)  # no row for a text that would be complete
        n = int(rows.max())
        guessed = np.arange(n) < count[:, None]
        planned = self.sequence(masked)[:, :n]
        guess = np.zeros(planned.shape, self.tokens.dtype)
        weight = np.zeros((*planned.shape, 0))
        if guessed.any() and self.believed is not None:
            logits = self.believed[self.rows[:, None], planned]  # (B, n, V')
            flat = distribution(logits.reshape(-1, logits.shape[-1]), self.settings.temperature)
            weight = flat.reshape(logits.shape)
            guess[guessed] = pick(weight[guessed], self.stream.take(guessed)[guessed])
        tokens = np.repeat(self.tokens[:, None], n, 1)
        for behind in range(1, n):
            text = np.flatnonzero(guessed[:, behind - 1])
            place = planned[text, behind - 1]
            tokens[text, behind:, place] = guess[text, behind - 1, None]
        return Round(planned, guess, guessed, np.arange(n) < rows[:, None], weight, tokens)

    def check(self, plan: Round) -> None:
        """One call of all rows: keep guesses up to the first that fails, draw the next token."""
        B, n, L = plan.tokens.shape
        share = (plan.tokens == self.mask).sum(2) / self.total[:, None]
        said = self.call(plan.tokens.reshape(B * n, L), share.reshape(-1)).reshape(B, n, L, -1)
        place = plan.planned
        if self.order is None:
            sure = sureness(said.reshape(B * n, L, -1)).reshape(B, n, L)
            place = np.where(plan.tokens == self.mask, sure, -np.inf).argmax(2)
        logits = said[self.rows[:, None], np.arange(n), place]  # (B, n, V')
        weight = distribution(logits.reshape(B * n, -1), self.settings.temperature)
        weight = weight.reshape(logits.shape)
        agreed = plan.guessed & plan.real & (place == plan.planned)
        kept = agreed & self.coins(plan, weight)
        count = np.cumprod(kept, 1).sum(1)  # (B,) guesses that stay
        last = np.arange(n) == count[:, None]
        draws = plan.real & last
        if plan.weight.shape[-1]:
            rest = np.maximum(0, weight - plan.weight)
            failed = agreed & last & (rest.sum(-1) > 0)
            weight = np.where(failed[..., None], rest, weight)
        uniform = self.stream.take(plan.real[:, :1])
        token = plan.guess.copy()
        token[draws] = pick(weight[draws], np.repeat(uniform, n, 1)[draws])
        self.write(place, token, (np.arange(n) < count[:, None]) | draws, logits, plan.real)
        row = np.minimum(count, np.maximum(0, plan.real.sum(1) - 1))
        self.believed = said[self.rows, row]

    def coins(self, plan: Round, weight: np.ndarray) -> np.ndarray:
        """True with probability min(1, Q / P) for each guess: (B, n) bool."""
        if not plan.guessed.any():
            return np.zeros(plan.guessed.shape, bool)
        uniform = self.stream.take(plan.guessed)
        guess = plan.guess[..., None]
        drawn = np.take_along_axis(plan.weight, guess, 2)[..., 0]
        checked = np.take_along_axis(weight, guess, 2)[..., 0]
        return uniform * drawn < checked

    def write(
        self,
        place: np.ndarray,
        token: np.ndarray,
        where: np.ndarray,
        logits: np.ndarray,
        real: np.ndarray,
    ) -> None:
        """Write token (B, n) at place (B, n) for each True of `where` (B, n), with its trace."""
        self.used = self.used + real.any(1)
        text = np.nonzero(where)[0]
        here = place[where]
        self.tokens[text, here] = token[where]
        self.step[text, here] = self.used[text]
        log_prob = np.take_along_axis(log_softmax(logits[where]), token[where][:, None], 1)
        self.probability[text, here] = np.exp(log_prob[:, 0])


def sureness(logits: np.ndarray) -> np.ndarray:
    """The largest probability of each place: (B, L, V') -> (B, L) float64."""
    return np.exp(log_softmax(logits).max(-1)).astype(np.float64)


def speculate(
    call: Call, tokens: np.ndarray, settings: SampleConfig, mask: int, seed: int, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Fill the blanks of tokens (B, L): tokens, step and probability (B, L), and the calls.

    seed, first: the seed and the number of the first row decide the rows' random numbers.
    """
    free = tokens == mask
    count = numbers_for(settings, int(free.sum(1).max()))
    stream = Stream(row_uniforms(seed, len(tokens), first, count))
    order = None
    if settings.sampler == "first_hitting":
        order = random_order(free, stream)
    elif settings.sampler == "left_to_right":
        order = np.broadcast_to(-np.arange(tokens.shape[1], dtype=np.float64), tokens.shape)
    text = Speculation(call, tokens.copy(), settings, mask, stream, order)
    calls = 0
    while (text.tokens == mask).any():
        text.check(text.plan())
        calls += 1
    return text.tokens, text.step, text.probability, calls
