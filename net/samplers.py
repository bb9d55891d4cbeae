"""From [MASK] to tokens: one step function, into which the sampling policies plug.

How many tokens a call reveals: `how_many` decides (`net.remasking` for ancestral and remask).
Which tokens: `rank` puts the masked positions in order, and the best are revealed.
What they are: `net.draws.draw_tokens` draws them from the denoiser's logits at these positions.

    ancestral      each masked token with probability (alpha_s - alpha_t)/(1 - alpha_t)  (MDLM)
    first_hitting  random positions, by the schedule; exact one by one (arXiv 2409.02908)
    left_to_right  the leftmost, or the first in a given order, by the schedule
    confidence, margin, entropy   the surest, by the schedule (MaskGIT; Dream; LLaDA)
    threshold      all of at least this probability (Fast-dLLM, arXiv 2505.22618)
    factor         the largest n with (n + 1)(1 - confidence of the n-th surest) < `factor`
                   (Fast-dLLM, section 3.3)
    entropy_bound  the most, surest first, with sum of entropies - the largest <= `entropy_bound`
                   (EB-Sampler, arXiv 2505.24857)
    remask         ancestral, and tokens may be masked again (ReMDM, arXiv 2503.00307, eq. 8)

With `speculate` the orders that reveal one token after another need fewer calls for the same law
(`net.speculation`).

After any of them, `revise` may look back: an early token was drawn without most of its context.
With `recheck` a quality head says which tokens are doubtful, and only these are drawn again
(`net.quality`).

Positions come first, tokens second. [MASK] never competes with a token in one draw, so float32
cannot starve rare tokens (arXiv 2409.02908). The output matrix is applied only where it is needed.

Ranks use the model's own distribution, at temperature 1, before the token is drawn. An order that
does not depend on the drawn token leaves the draw unbiased: with one token per call, the sum of the
trace's log-probabilities is the exact likelihood of the text (DUEL, arXiv 2603.01367). To rank by
the drawn token's probability, as is common, shifts mass to likely tokens even at temperature 1.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from base.config import GROUPS, SampleConfig
from base.randomness import row_seed
from diffusion import Denoise, Schedule
from net.draws import certainty, draw_tokens, draw_uniforms, log_prob_of
from net.quality import recheck
from net.remasking import reveal_probability
from net.speculation import Speculation

BY_CHANCE = ("ancestral", "remask")  # a probability per position, no rank
OWN_PACE = ("threshold", "factor", "entropy_bound")  # how many depends on how sure the model is


@dataclass
class Sample:
    """Written rows and their trace.

    tokens: (B, L) int64. step: (B, L) int64, the call that revealed each position; 0 if it was
    given or never filled. log_prob: (B, L) float32, the model's log-probability (temperature 1) of
    each drawn token, else 0. calls: denoiser calls made. used: (B,) int64, calls that drew
    something in the row. rows: (B,) int64, the denoiser's rows that the row took: a call with
    guesses takes several. frames: the tokens after every call, if asked for.
    """

    tokens: Tensor
    step: Tensor
    log_prob: Tensor
    calls: int
    used: Tensor
    rows: Tensor
    frames: list[Tensor] = dataclasses.field(default_factory=list)


def row_generators(seed: int, rows: int, first: int = 0) -> list[torch.Generator]:
    """A CPU generator per row: row i of a batch draws what it would draw alone."""
    return [torch.Generator().manual_seed(row_seed(seed, first + row)) for row in range(rows)]


@dataclass
class Progress:
    """Where each row stands in its block.

    masked, free: (B, L) bool, masked now and masked at the start. step, steps: (B,) this call's
    number from 0, and the calls allowed. turn: for left_to_right, as `sample` takes it.
    """

    masked: Tensor
    free: Tensor
    step: Tensor
    steps: Tensor
    turn: Tensor | None = None


class Choice(NamedTuple):
    """reveal: (B, L) bool, masked positions to fill now. again: (B, L) bool, tokens to mask again.

    logits: of all masked positions, if the rank needed them: drawing then needs no second call.
    """

    reveal: Tensor
    again: Tensor
    logits: Tensor | None


def how_many(score: Tensor, progress: Progress, config: SampleConfig) -> Tensor:
    """How many of the best-ranked positions a call reveals: (B,) int64.

    score: (B, L) float64, largest first; the row's masked positions stand before all others (-inf).
    A sampler of its own pace reveals at least one token, and at least what the schedule says, so it
    ends within the calls allowed.
    """
    scheduled = paced(progress, Schedule(config.schedule))
    if config.sampler not in OWN_PACE:
        return scheduled
    masked = progress.masked.sum(1)[:, None]
    number = torch.arange(1, score.shape[1] + 1, device=score.device)  # 1 for the surest
    if config.sampler == "threshold":
        accept = score >= config.threshold
    elif config.sampler == "factor":
        accept = (number + 1) * (1 - score) < config.factor
    else:
        # The score is minus the entropy. Entropies ascend: the n-th is the largest of the first n.
        entropy = -score.masked_fill(number > masked, 0.0)
        accept = entropy.cumsum(1) - entropy <= config.entropy_bound
    accept &= number <= masked
    accepted = (accept * number).max(1).values
    return torch.maximum(scheduled.clamp(min=1), accepted)


def paced(progress: Progress, schedule: Schedule) -> Tensor:
    """How many to reveal so that a share 1 - alpha stays masked, rounded: (B,) int64."""
    total = progress.free.sum(1)
    t = 1 - (progress.step + 1).double() / progress.steps
    target = torch.round(total * (1 - schedule.alpha(t.clamp(min=0)))).long()
    last = progress.step + 1 >= progress.steps
    return (progress.masked.sum(1) - torch.where(last, 0, target)).clamp(min=0)


def rank(
    denoise: Denoise,
    tokens: Tensor,
    share: Tensor,
    masked: Tensor,
    sampler: str,
    rngs: list[torch.Generator],
    turn: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """A score of each masked position, the best is revealed first: (B, L) float64, -inf elsewhere.

    turn: for left_to_right, as `sample` takes it. Also the logits of the masked positions, if the
    score comes from them.
    """
    logits = None
    if sampler == "first_hitting":
        score = draw_uniforms(masked, rngs)
    elif sampler == "left_to_right":
        position = torch.arange(tokens.shape[1], device=tokens.device) if turn is None else turn
        score = -position.double().expand(tokens.shape)
    else:
        logits = denoise(tokens, share, masked)  # (M, V')
        score = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        score[masked] = certainty(logits, sampler).double()
    return score.masked_fill(~masked, -torch.inf), logits


def choose(
    denoise: Denoise,
    tokens: Tensor,
    share: Tensor,
    progress: Progress,
    config: SampleConfig,
    rngs: list[torch.Generator],
) -> Choice:
    """The policy: which positions of this call are revealed, and which are masked again."""
    if config.sampler in BY_CHANCE:
        return choose_by_chance(progress, config, rngs)
    none = torch.zeros_like(progress.masked)
    needs_call = config.sampler in ("confidence", "margin", "entropy")
    if needs_call and not paced(progress, Schedule(config.schedule)).any():
        return Choice(none, none, None)  # the schedule reveals nothing, so nothing is ranked
    masked, turn = progress.masked, progress.turn
    score, logits = rank(denoise, tokens, share, masked, config.sampler, rngs, turn)
    best = score.sort(dim=1, descending=True, stable=True)
    count = how_many(best.values, progress, config)
    number = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    order = torch.empty_like(best.indices).scatter_(1, best.indices, number)  # 0 for the best
    return Choice(progress.masked & (order < count[:, None]), none, logits)


def choose_by_chance(
    progress: Progress, config: SampleConfig, rngs: list[torch.Generator]
) -> Choice:
    """Reveal each masked token, or mask each revealed token again, by a coin of its own."""
    uniform = draw_uniforms(progress.free, rngs)
    reveal, again = reveal_probability(progress.step, progress.steps, config)
    revealed = progress.free & ~progress.masked
    return Choice(
        progress.masked & (uniform < reveal[:, None]), revealed & (uniform < again[:, None]), None
    )


# ---- The loop


class Writing:
    """Rows (B, L) while they are written: the tokens, their trace, and the step that fills them."""

    def __init__(
        self,
        denoise: Denoise,
        tokens: Tensor,
        config: SampleConfig,
        mask_id: int,
        rngs: list[torch.Generator],
        target: Tensor | None,
        keep_frames: bool,
        turn: Tensor | None = None,
    ):
        self.denoise, self.config, self.mask_id = denoise, config, mask_id
        self.rngs, self.target, self.keep_frames = rngs, target, keep_frames
        self.turn = turn
        self.tokens = tokens.clone()
        self.free = tokens == mask_id  # what may be written
        self.total = self.free.sum(1).clamp(min=1)
        self.step = torch.zeros_like(tokens)
        self.log_prob = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        self.used = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        self.rows = torch.zeros_like(self.used)
        self.calls = 0
        self.frames: list[Tensor] = []

    def fill_block(self, left: int, size: int) -> None:
        """Fill the free positions left .. left + size - 1 within the calls that they may use."""
        block = self.free.clone()
        block[:, :left] = False
        block[:, left + size :] = False
        if self.config.speculate:
            Speculation(self, block).fill()
            return
        allowed = self.calls_until(left + size) - self.calls_until(left)
        allowed = allowed.long().clamp(min=1)
        remasks = self.config.sampler == "remask" and self.config.remask_strength
        for step in range(int(allowed.max())):
            masked = (self.tokens == self.mask_id) & block
            active = masked.any(1)
            if remasks:  # a token of a full row may be masked again until the row's last step
                active = block.any(1) & (step < allowed)
            if not active.any():
                break
            now = torch.where(active, step, allowed - 1)
            progress = Progress(masked, block & active[:, None], now, allowed, self.turn)
            self.take_step(progress)

    def calls_until(self, end: int) -> Tensor:
        """The part of config.steps for the free positions before `end`: (B,), rounded up."""
        return torch.ceil(self.config.steps * self.free[:, :end].sum(1) / self.total)

    def take_step(self, progress: Progress) -> None:
        """One denoiser call: the policy chooses positions, then their tokens are drawn."""
        share = (self.tokens == self.mask_id).sum(1) / self.total
        reveal, again, logits = choose(
            self.denoise, self.tokens, share, progress, self.config, self.rngs
        )
        self.used += reveal.any(1)
        self.rows += reveal.any(1)
        if reveal.any():
            if logits is None:
                logits = self.denoise(self.tokens, share, reveal)
            else:
                logits = logits[reveal[progress.masked]]
            token, nats = self.draw(logits, reveal)
            self.calls += 1
            self.put(reveal, token, nats)
        self.tokens[again] = self.mask_id
        if reveal.any() or again.any():
            self.keep_frame()

    def draw(self, logits: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities (M,) for the positions `where`, or those of the target."""
        uniform = draw_uniforms(where, self.rngs)[where]
        if self.target is not None:
            token = self.target[where]
            return token, log_prob_of(logits, token)
        return draw_tokens(logits, uniform, self.config.temperature, self.config.top_p)

    def put(self, where: Tensor, token: Tensor, log_prob: Tensor) -> None:
        """Write tokens (M,) at the positions `where`, and their trace."""
        self.tokens[where] = token
        self.log_prob[where] = log_prob
        self.step[where] = self.used[:, None].expand_as(self.step)[where]

    def keep_frame(self) -> None:
        if self.keep_frames:
            self.frames.append(self.tokens.clone())

    def pad_behind(self, eos: int, pad: int) -> None:
        """Free positions behind a row's first drawn [EOS] become [PAD], and are free no more."""
        end = self.free & (self.tokens == eos)
        behind = self.free & (end.cumsum(1) > end.long())
        self.tokens[behind] = pad
        self.step[behind] = 0
        self.log_prob[behind] = 0.0
        self.free = self.free & ~behind

    def look_back(self, free: Tensor) -> None:
        """Draw every token of `free` again, `config.revise` times, with the other groups in sight.

        Neighbours are in different groups. Block Gibbs sampling; at temperature 0, iterated
        conditional modes (Besag 1986, section 2.5). An unchanged token keeps its step and
        log-probability. A changed one gets new ones: their sum is then no longer a likelihood.
        """
        group = (free.cumsum(1) - 1) % GROUPS
        total = free.sum(1).clamp(min=1)
        for number in range(self.config.revise * GROUPS):
            again = free & (group == number % GROUPS)
            if not again.any():
                continue
            hidden = self.tokens.masked_fill(again, self.mask_id)
            logits = self.denoise(hidden, again.sum(1) / total, again)
            token, nats = self.draw(logits, again)
            self.calls += 1
            self.used += again.any(1)
            self.rows += again.any(1)
            self.change(again, token, nats)

    def change(self, again: Tensor, token: Tensor, nats: Tensor) -> None:
        """Write the tokens (M,) that were drawn again at `again`, where they differ."""
        changed = token != self.tokens[again]  # (M,)
        where = again.masked_scatter(again, changed)
        self.put(where, token[changed], nats[changed])
        self.keep_frame()

    def sample(self) -> Sample:
        """The rows as they stand, with a trace on the CPU."""
        log_prob = self.log_prob.float().cpu()
        return Sample(
            self.tokens,
            self.step.cpu(),
            log_prob,
            self.calls,
            self.used.cpu(),
            self.rows.cpu(),
            self.frames,
        )


@torch.no_grad()
def sample(
    denoise: Denoise,
    tokens: Tensor,
    config: SampleConfig,
    *,
    mask_id: int,
    rngs: list[torch.Generator],
    target: Tensor | None = None,
    eos: int | None = None,
    pad: int | None = None,
    keep_frames: bool = False,
    turn: Tensor | None = None,
) -> Sample:
    """Fill every [MASK] of `tokens` (B, L) int64. All other tokens are given and never change.

    config.steps bounds the denoiser calls. With config.block_size each block, from the left, gets
    its part of them, at least one.
    rngs: a CPU generator per row (`row_generators`).
    target: (B, L) tokens to "draw". The trace is then the likelihood of `target` under this
        sampler's order, exact for orders that draw nothing (left_to_right to entropy_bound).
        Nothing is revised or rechecked.
    turn: (B, L) int64, with left_to_right the order in which positions are revealed, 0 first.
    eos, pad: what is free behind a drawn [EOS] becomes [PAD], after each block.
    """
    writing = Writing(denoise, tokens, config, mask_id, rngs, target, keep_frames, turn)
    length = tokens.shape[1]
    size = config.block_size or length
    for left in range(0, length, size):
        writing.fill_block(left, size)
        if eos is not None and pad is not None:
            writing.pad_behind(eos, pad)
    if target is None:
        free = writing.free
        if eos is not None:
            free = free & (writing.tokens != eos)  # a text's end stays where it is
        if config.revise:
            writing.look_back(free)
        if config.recheck:
            recheck(writing, free)
    return writing.sample()
