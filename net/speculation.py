"""Exact speculative sampling: one token after another, in fewer calls.

A denoiser that reveals one token per call is exact, and slow. Here its own older distributions
guess the next k tokens, one call checks all guesses in k + 1 rows, and a rejection rule keeps the
law of the one-token sampler (arXiv 2211.17192, theorem 1; 2302.01318). No other network is needed,
and nothing is trained. One round, for a row with the revealed tokens S:

    1. The last call's distributions P name the next places i_1 .. i_k and draw d_j from P[i_j].
    2. One call reads the rows S, S + d_1, ..., S + d_1 .. d_k and gives Q_0 .. Q_k.
    3. For j = 1 .. k: Q_(j-1) names the place that is really next.
       Is it i_j? Keep d_j with probability min(1, Q_(j-1)[i_j](d_j) / P[i_j](d_j)).
       Otherwise draw from max(0, Q_(j-1)[i_j] - P[i_j]) at i_j, and end the round.
       Another place: draw its token from Q_(j-1), and end the round.
    4. All are kept: draw one more token from Q_k.

The row from which the last token was drawn becomes P. It has not seen this token, so the guesses
are independent of all that is checked. An order that looked at the drawn token would break this
proof: the guess would choose its own place. Each round writes at least one token.

At temperature 0 all distributions are certain, and the text is the one-token sampler's.

Shapes: B rows; n = k + 1 neighbours of each, the last round has fewer; L positions; V' ids.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from net.draws import certainty, distribution, draw_uniforms, log_prob_of, pick

if TYPE_CHECKING:
    from net.samplers import Writing

FIXED_ORDERS = ("first_hitting", "left_to_right")


def random_order(free: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """Scores (B, L) float64: the free position with the largest comes first.

    The order, and the random numbers that it takes, are those of `first_hitting` at one token per
    call: a number for each masked position, the largest is next, and a number for its token.
    """
    score = torch.zeros(free.shape, dtype=torch.float64)
    for row, (positions, rng) in enumerate(zip(free.cpu(), rngs, strict=True)):
        left = positions.nonzero()[:, 0]
        for turn in range(len(left), 0, -1):
            best = torch.rand(turn, generator=rng, dtype=torch.float64).argmax()
            torch.rand(1, generator=rng, dtype=torch.float64)  # what the token's draw would take
            score[row, left[best]] = turn
            left = torch.cat([left[:best], left[best + 1 :]])
    return score.to(free.device)


@dataclass
class Belief:
    """What the last call said.

    logits: (M, V') of the places that were asked for. slot: (B·n, L) int64, where a place of a row
    stands in `logits`. score: (B·n, L) float64 or None, how sure each place is. row: (B,) int64,
    the row from which the last token of a text was drawn.
    """

    logits: Tensor
    slot: Tensor
    score: Tensor | None
    row: Tensor

    def at(self, row: Tensor, place: Tensor) -> Tensor:
        """The logits (K, V') of the places (K,) in the rows (K,)."""
        return self.logits[self.slot[row, place]]


@dataclass
class Round:
    """The guesses of a round, and the rows that check them.

    masked: (B, L) bool, what is left. planned: (B, n) int64, the places in the order that is
    believed. guessed: (B, n) bool, which of them have a guess. guess: (B, n) int64, the tokens.
    weight: (K, V') float64, the distributions that the K guesses were drawn from. tokens: (B, n, L)
    int64, row j with the first j guesses. real: (B, n) bool, rows with something left to write.
    """

    masked: Tensor
    planned: Tensor
    guessed: Tensor
    guess: Tensor
    weight: Tensor
    tokens: Tensor
    real: Tensor


class Speculation:
    """Fills one block of `Writing`. After `fill` no position of the block is masked."""

    def __init__(self, writing: "Writing", block: Tensor):
        """block: (B, L) bool, the free positions to fill."""
        self.writing, self.block = writing, block
        self.ahead = writing.config.speculate
        self.sampler = writing.config.sampler
        self.belief: Belief | None = None
        self.order = None  # (B, L) float64, the largest comes first; None: the surest comes first
        if self.sampler == "first_hitting":
            self.order = random_order(block & (writing.tokens == writing.mask_id), writing.rngs)
        elif self.sampler == "left_to_right":
            position = torch.arange(block.shape[1], device=block.device)
            position = position if writing.turn is None else writing.turn
            self.order = -position.double().expand(block.shape)

    def fill(self) -> None:
        while self.masked().any():
            plan = self.plan()
            self.check(plan, self.ask(plan))
            self.writing.keep_frame()

    def masked(self) -> Tensor:
        return (self.writing.tokens == self.writing.mask_id) & self.block

    def plan(self) -> Round:
        """Guess the next tokens by the last call, and lay out the rows that check the guesses."""
        masked = self.masked()
        left = masked.sum(1)  # (B,)
        count = left.clamp(max=self.ahead if self.belief else 0)
        rows = torch.minimum(count + 1, left)  # no row for a text that would be complete
        n = int(rows.max())
        number = torch.arange(n, device=left.device)
        guessed = number < count[:, None]  # (B, n)
        planned = self.sequence(masked)[:, :n]
        guess, weight = self.draw_guesses(planned, guessed)
        tokens = self.writing.tokens[:, None].repeat(1, n, 1)  # (B, n, L)
        for behind in range(1, n):
            text = guessed[:, behind - 1].nonzero()[:, 0]
            place = planned[text, behind - 1]
            tokens[text, behind:, place] = guess[text, behind - 1, None]
        return Round(masked, planned, guessed, guess, weight, tokens, number < rows[:, None])

    def sequence(self, masked: Tensor) -> Tensor:
        """All places in the order that is believed, the masked ones first: (B, L) int64."""
        score = self.order
        if score is None:
            score = torch.zeros(masked.shape, dtype=torch.float64, device=masked.device)
            if self.belief is not None and self.belief.score is not None:
                score = self.belief.score[self.belief.row]
        score = score.masked_fill(~masked, -torch.inf)
        return score.sort(dim=1, descending=True, stable=True).indices

    def draw_guesses(self, planned: Tensor, guessed: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, n) at the planned places, and the distributions (K, V') of the K guesses."""
        guess = torch.zeros_like(planned)
        if self.belief is None or not guessed.any():
            return guess, torch.zeros(0)
        row = self.belief.row[:, None].expand_as(planned)[guessed]
        config = self.writing.config
        logits = self.belief.at(row, planned[guessed])
        weight = distribution(logits, config.temperature, config.top_p)
        uniform = draw_uniforms(guessed, self.writing.rngs)[guessed]
        if self.writing.target is None:
            guess[guessed] = pick(weight, uniform)
        else:
            guess = self.writing.target.gather(1, planned)
        return guess, weight

    def ask(self, plan: Round) -> Belief:
        """One call of the denoiser on all rows of the round."""
        B, n, L = plan.tokens.shape
        masked = (plan.tokens == self.writing.mask_id) & self.block[:, None]
        select = masked & plan.real[..., None]
        if self.order is not None:
            # Row j checks place j and may believe the next ones, so no other logits are needed.
            turn = self.sequence(plan.masked).argsort(1)  # (B, L), 0 for the next place
            last = torch.arange(n, device=turn.device) + self.ahead  # (n,)
            select &= turn[:, None] <= last[:, None]
        select = select.view(B * n, L)
        share = (plan.tokens == self.writing.mask_id).sum(2) / self.writing.total[:, None]
        logits = self.writing.denoise(plan.tokens.view(B * n, L), share.view(-1), select)
        slot = (select.flatten().cumsum(0) - 1).view(B * n, L)
        score = None
        if self.order is None:
            score = torch.full((B * n, L), -torch.inf, dtype=torch.float64, device=logits.device)
            score[select] = certainty(logits, self.sampler).double()
        first = torch.arange(B, device=logits.device) * n
        return Belief(logits, slot, score, first)

    def check(self, plan: Round, said: Belief) -> None:
        """Keep guesses up to the first that fails, draw the token that follows, write them all."""
        writing = self.writing
        B, n = plan.planned.shape
        row = said.row[:, None] + torch.arange(n, device=said.row.device)  # (B, n)
        # Where the order is fixed, what was planned is what is next.
        place = plan.planned if said.score is None else said.score[row].argmax(-1)  # (B, n)
        logits = said.at(row[plan.real], place[plan.real])  # (R, V')
        weight = distribution(logits, writing.config.temperature, writing.config.top_p)
        agreed = plan.guessed & plan.real & (place == plan.planned)
        kept = agreed & self.accepted(plan, weight)
        count = kept.long().cumprod(1).sum(1)  # (B,) guesses that stay
        number = torch.arange(n, device=count.device)
        stays = number < count[:, None]
        draws = plan.real & (number == count[:, None])  # the row that draws the next token
        here = draws[plan.real]
        rest = weight[here]
        failed = agreed[draws]  # the guess was at the right place, and was rejected
        if failed.any():
            rest[failed] = remainder(rest[failed], guess_weight(plan, draws)[failed])
        uniform = draw_uniforms(plan.real[:, :1], writing.rngs)  # (B, 1), also where all are kept
        token = plan.guess.clone()
        last = uniform.expand(B, n)[draws]
        if writing.target is None:
            token[draws] = pick(rest, last)
        else:
            token[draws] = writing.target.gather(1, place)[draws]
        self.write(place, token, stays | draws, logits, plan.real)
        writing.rows += plan.real.sum(1)
        self.belief = said
        said.row = said.row + torch.minimum(count, (plan.real.sum(1) - 1).clamp(min=0))

    def accepted(self, plan: Round, weight: Tensor) -> Tensor:
        """The coin of each guess: (B, n) bool. weight: (R, V') of the real rows, at its place."""
        coin = torch.zeros_like(plan.guessed)
        if not plan.guessed.any():
            return coin
        uniform = draw_uniforms(plan.guessed, self.writing.rngs)[plan.guessed]
        if self.writing.target is not None:
            return plan.guessed
        guess = plan.guess[plan.guessed][:, None]
        # Every guess has a row that checks it, in the same order: guessed is a part of real.
        checked = weight[plan.guessed[plan.real]].gather(1, guess)[:, 0]
        drawn = plan.weight.gather(1, guess)[:, 0]
        coin[plan.guessed] = keeps(uniform, drawn, checked)
        return coin

    def write(
        self, place: Tensor, token: Tensor, where: Tensor, logits: Tensor, real: Tensor
    ) -> None:
        """Write token (B, n) at place (B, n) for each True of `where` (B, n), with the trace.

        logits: (R, V') of the real rows, from which the log-probabilities come.
        """
        writing = self.writing
        writing.calls += 1
        writing.used += real.any(1)
        text = where.nonzero()[:, 0]
        here = place[where]
        writing.tokens[text, here] = token[where]
        writing.log_prob[text, here] = log_prob_of(logits[where[real]], token[where])
        writing.step[text, here] = writing.used[text]


def guess_weight(plan: Round, where: Tensor) -> Tensor:
    """The guesses' distributions in the rows `where` (B, n), zeros where nothing was guessed."""
    index = (plan.guessed.flatten().cumsum(0) - 1).view_as(plan.guessed)
    weight = plan.weight[index[where].clamp(min=0)]
    return weight * plan.guessed[where][:, None]


def keeps(uniform: Tensor, drawn: Tensor, checked: Tensor) -> Tensor:
    """True with probability min(1, Q / P): all (K,) float64, P `drawn` and Q `checked`.

    Without a division, so that a token that Q forbids is never kept.
    """
    return uniform * drawn < checked


def remainder(checked: Tensor, drawn: Tensor) -> Tensor:
    """max(0, Q - P), from which a rejected guess is drawn again: (M, V') float64.

    arXiv 2211.17192, section 2.3. Where rounding leaves nothing, Q itself.
    """
    rest = (checked - drawn).clamp(min=0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, checked)
