"""From [MASK] to tokens: one step function into which the sampling policies plug (floor 1).

A policy does two things: it ranks a row's masked positions and says how many of them to reveal now. What the
tokens are is then drawn from the denoiser at just these positions. Positions first, tokens second: [MASK] never
competes with a token in one draw, so float32 cannot starve rare tokens (Zheng et al. 2024, arXiv 2409.02908),
and the output matrix is applied only where it is needed.

    ancestral      each masked token is revealed with probability (alpha_s - alpha_t)/(1 - alpha_t)  (MDLM)
    first_hitting  one token a call at a uniformly random position: exact, in at most L calls (arXiv 2409.02908)
    left_to_right  the leftmost
    confidence, margin, entropy   the surest, as many as the schedule says (MaskGIT; Dream; LLaDA)
    threshold      all whose largest probability is at least `threshold`  (Fast-dLLM, arXiv 2505.22618)
    factor         the largest n with (n + 1)(1 - confidence of the n-th surest) < `factor`  (same, section 3.3)
    entropy_bound  the largest set, most certain first, with sum of entropies - largest <= bound  (EB-Sampler, arXiv 2505.24857)
    remask         ancestral, and revealed tokens may be masked again  (ReMDM, arXiv 2503.00307, eq. 8)

Any of them may look back at the end (`revise`): a word drawn early was drawn without most of what it depends on.

Ranks use the model's own distribution, at temperature 1 and before the token is drawn. An order that does not
look at the drawn token leaves the draw unbiased: with one token a call, every order here draws from a proper
distribution whose exact likelihood is the sum of the trace's log-probabilities (DUEL, arXiv 2603.01367).
Ranking by the drawn token's probability, as is common, shifts mass to likely tokens even at temperature 1.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from base.config import GROUPS, SampleConfig
from base.randomness import row_seed
from diffusion import Denoise, Schedule

RANDOM_ORDER = ("ancestral", "first_hitting", "remask")
OWN_PACE = (
    "threshold",
    "factor",
    "entropy_bound",
)  # how many to reveal depends on how sure the model is
REMASK_LOOP = (0.55, 0.05, 0.9)  # ReMDM-loop: t_on, t_off, alpha_on as in the paper's section 5


@dataclass
class Sample:
    """tokens (B, L) int64. step (B, L) int64: the call that revealed each position, 0 if it was given or never filled.
    log_prob (B, L) float32: the model's own log-probability (temperature 1) of each drawn token, else 0.
    calls: denoiser calls made. used (B,) int64: those that drew something in this row. frames: tokens after every call, if asked for.
    """

    tokens: Tensor
    step: Tensor
    log_prob: Tensor
    calls: int
    used: Tensor
    frames: list[Tensor] = dataclasses.field(default_factory=list)


def row_generators(seed: int, rows: int, first: int = 0) -> list[torch.Generator]:
    """One CPU generator a row: row i of a batch draws what it would draw alone."""
    return [torch.Generator().manual_seed(row_seed(seed, first + row)) for row in range(rows)]


def draw_tokens(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Draw one token a row by the inverse of its distribution function, in float64.

    logits: (M, V'); uniform: (M,) float64 in [0, 1). top_p keeps the token that crosses the limit.
    Returns tokens (M,) int64 and their log-probabilities at temperature 1, (M,) float64.
    """
    exact = logits.double()
    model_log_prob = exact.log_softmax(-1)
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        prob = (exact / temperature).softmax(-1)
        if top_p < 1:
            ordered, index = prob.sort(-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= top_p] = 0.0
            prob = torch.zeros_like(prob).scatter_(-1, index, ordered)
        mass = prob.cumsum(-1)
        point = uniform.to(mass.device)[:, None] * mass[:, -1:]
        token = torch.searchsorted(mass, point, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return token, model_log_prob.gather(-1, token[:, None])[:, 0]


def draw_uniforms(where: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """(B, L) float64 with a uniform number at each position of `where`, taken from the row's own generator.

    A row draws as many numbers as it has such positions, so neither neighbours nor padding change its draws.
    """
    result = torch.zeros(where.shape, dtype=torch.float64)
    for row, (here, rng) in enumerate(zip(where.cpu(), rngs, strict=True)):
        count = int(here.sum())
        if count:
            result[row, here] = torch.rand(count, generator=rng, dtype=torch.float64)
    return result.to(where.device)


@dataclass
class Progress:
    """Where each row stands. All (B,) but `masked` and `free`, (B, L) bool: masked now, and masked at the start."""

    masked: Tensor
    free: Tensor
    step: Tensor
    steps: Tensor


def paced(progress: Progress, schedule: Schedule) -> Tensor:
    """How many to reveal so that the masked share after this step is 1 - alpha, to the nearest token: (B,) int64."""
    total, now = progress.free.sum(1), progress.masked.sum(1)
    t = 1 - (progress.step + 1).double() / progress.steps
    target = torch.round(total * (1 - schedule.alpha(t.clamp(min=0)))).long()
    return (now - torch.where(progress.step + 1 >= progress.steps, 0, target)).clamp(min=0)


def reveal_probability(progress: Progress, config: SampleConfig) -> tuple[Tensor, Tensor]:
    """Probabilities of this step, each (B,) float64: a masked token is revealed; a revealed one is masked again.

    Ancestral sampling is the case without re-masking. ReMDM (arXiv 2503.00307) with re-masking probability sigma:
    reveal (alpha_s - (1-sigma) alpha_t)/(1 - alpha_t), sigma <= min(1, (1-alpha_s)/alpha_t), which leaves the
    expected masked share at 1 - alpha_s.
    """
    schedule = Schedule(config.schedule)
    t, s = (
        (1 - (progress.step + shift).double() / progress.steps).clamp(min=0) for shift in (0, 1)
    )
    alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
    sigma = torch.zeros_like(alpha_t)
    if config.sampler == "remask":
        if (
            config.remask == "loop"
        ):  # three acts: up to alpha_on, stay there while re-masking, then finish
            on, off, alpha_on = REMASK_LOOP
            path = lambda t: torch.where(
                t > on,
                alpha_on * (1 - t) / (1 - on),  # noqa: E731
                torch.where(t >= off, alpha_on, 1 - (1 - alpha_on) * t / off),
            )
            alpha_t, alpha_s = path(t), path(s)
        limit = torch.where(alpha_t > 0, (1 - alpha_s) / alpha_t.clamp(min=1e-12), 1.0).clamp(
            max=1.0
        )
        if config.remask == "rescale":
            sigma = config.remask_strength * limit
        else:
            sigma = limit.clamp(max=config.remask_strength)
            if config.remask == "loop":
                sigma = torch.where((t <= on) & (s >= off), sigma, 0.0)
    reveal = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t).clamp(min=1e-12)
    last = progress.step + 1 >= progress.steps
    return torch.where(last, 1.0, reveal), torch.where(last, 0.0, sigma)


def certainty(logits: Tensor, sampler: str) -> Tensor:
    """How sure the model is of each masked position, larger is surer: (M, V') -> (M,) float32."""
    log_prob = logits.log_softmax(-1)
    if sampler == "margin":
        best = log_prob.topk(2, -1).values.exp()
        return best[:, 0] - best[:, 1]
    if sampler in ("entropy", "entropy_bound"):
        return -torch.special.entr(log_prob.exp()).sum(-1)  # minus the entropy in nats
    return log_prob.max(-1).values.exp()


def how_many(score: Tensor, progress: Progress, config: SampleConfig) -> Tensor:
    """How many of the best-ranked positions to reveal: (B,) int64.

    score: (B, L) float64, sorted, largest first, the row's masked positions before all others (-inf).
    Samplers that decide for themselves reveal at least one, and at least what the schedule says: so they end in time.
    """
    least = paced(progress, Schedule(config.schedule))
    if config.sampler not in OWN_PACE:
        return least
    now = progress.masked.sum(1)
    place = torch.arange(1, score.shape[1] + 1, device=score.device)  # 1 for the best
    if config.sampler == "threshold":
        accept = score >= config.threshold
    elif config.sampler == "factor":
        accept = (place + 1) * (1 - score) < config.factor
    else:
        entropy = -score.masked_fill(place > now[:, None], 0.0)
        accept = (
            entropy.cumsum(1) - entropy <= config.entropy_bound
        )  # ascending, so the largest is the newest
    accept &= place <= now[:, None]
    return torch.maximum(least.clamp(min=1), (accept * place).max(1).values)


def choose(
    denoise: Denoise,
    tokens: Tensor,
    share: Tensor,
    progress: Progress,
    config: SampleConfig,
    rngs: list[torch.Generator],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The policy: which masked positions to reveal, which revealed ones to mask again, (B, L) bool each.

    Third, the logits of all masked positions if ranking needed them, so that drawing need not call again.
    """
    none = torch.zeros_like(progress.masked)
    if config.sampler in ("ancestral", "remask"):
        uniform = draw_uniforms(progress.free, rngs)
        reveal, again = reveal_probability(progress, config)
        return (
            progress.masked & (uniform < reveal[:, None]),
            progress.free & ~progress.masked & (uniform < again[:, None]),
            None,
        )
    logits = None
    if config.sampler == "first_hitting":
        score = draw_uniforms(progress.masked, rngs)
    elif config.sampler == "left_to_right":
        score = -torch.arange(tokens.shape[1], device=tokens.device).double().expand(tokens.shape)
    else:
        if config.sampler not in OWN_PACE and not paced(progress, Schedule(config.schedule)).any():
            return none, none, None  # the schedule reveals nothing now, so nothing need be ranked
        logits = denoise(tokens, share, progress.masked)  # (M, V')
        score = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        score[progress.masked] = certainty(logits, config.sampler).double()
    score = score.masked_fill(~progress.masked, -torch.inf)
    best = score.sort(dim=1, descending=True, stable=True)
    count = how_many(best.values, progress, config)
    place = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    rank = torch.empty_like(best.indices).scatter_(1, best.indices, place)
    return progress.masked & (rank < count[:, None]), none, logits


def look_back(
    denoise: Denoise,
    drawn: Sample,
    free: Tensor,
    config: SampleConfig,
    mask_id: int,
    rngs: list[torch.Generator],
    keep_frames: bool,
) -> None:
    """Draw every free token again with all but its own group in sight, `config.revise` times, in place.

    Block Gibbs sampling; at temperature 0, iterated conditional modes (Besag 1986, section 2.5). A token that comes out as it was keeps its
    step and log-probability; one that changes gets the new ones, so the trace's sum is no longer a likelihood.
    """
    group, total = (free.cumsum(1) - 1) % GROUPS, free.sum(1).clamp(min=1)
    for number in range(config.revise * GROUPS):
        again = free & (group == number % GROUPS)
        if not again.any():
            continue
        logits = denoise(drawn.tokens.masked_fill(again, mask_id), again.sum(1) / total, again)
        token, nats = draw_tokens(
            logits, draw_uniforms(again, rngs)[again], config.temperature, config.top_p
        )
        drawn.calls += 1
        drawn.used += again.any(1).cpu()
        changed = again.masked_scatter(again, token != drawn.tokens[again])
        drawn.tokens[again] = token
        drawn.step[changed.cpu()] = drawn.used[:, None].expand_as(drawn.step)[changed.cpu()]
        drawn.log_prob[changed.cpu()] = nats[changed[again]].float().cpu()
        if keep_frames:
            drawn.frames.append(drawn.tokens.clone())


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
) -> Sample:
    """Fill every [MASK] of `tokens` (B, L) int64; all other tokens are given and never change.

    rngs: one CPU generator a row (`row_generators`). config.steps bounds the denoiser calls; with config.block_size
    each block from the left gets its part of them, at least one. eos and pad: after a block that drew [EOS], what
    was free behind it becomes [PAD], in this block and in all later ones. target (B, L): tokens to "draw" instead,
    which turns the trace into the likelihood of `target` under this sampler's order (exact for the orders that draw
    nothing: left_to_right to entropy_bound); nothing is revised then.
    """
    tokens = tokens.clone()
    free = tokens == mask_id
    device, (B, L) = tokens.device, tokens.shape
    step, log_prob = torch.zeros_like(tokens), torch.zeros(B, L, dtype=torch.float64, device=device)
    total = free.sum(1)
    used = torch.zeros(B, dtype=torch.long, device=device)  # calls that each row has used
    calls, frames = 0, []
    size = config.block_size or L
    for left in range(0, L, size):
        block = free.clone()
        block[:, :left] = block[:, left + size :] = False
        before, through = free[:, :left].sum(1), free[:, : left + size].sum(1)
        budget = torch.ceil(config.steps * through / total.clamp(min=1)) - torch.ceil(
            config.steps * before / total.clamp(min=1)
        )
        budget = budget.long().clamp(min=1)
        for step_in_block in range(int(budget.max())):
            masked = (tokens == mask_id) & block
            active = masked.any(1)
            if (
                config.sampler == "remask" and config.remask_strength
            ):  # a revealed row may be re-masked until its last step
                active = block.any(1) & (step_in_block < budget)
            if not active.any():
                break
            now = torch.where(active, step_in_block, budget - 1)
            progress = Progress(masked, block & active[:, None], now, budget)
            share = (tokens == mask_id).sum(1) / total.clamp(min=1)
            reveal, again, logits = choose(denoise, tokens, share, progress, config, rngs)
            used += reveal.any(1)
            if reveal.any():
                if logits is None:
                    logits = denoise(tokens, share, reveal)
                else:
                    logits = logits[reveal[masked]]
                calls += 1
                uniform = draw_uniforms(reveal, rngs)[reveal]
                token, nats = draw_tokens(logits, uniform, config.temperature, config.top_p)
                if target is not None:
                    token = target[reveal]
                    nats = logits.double().log_softmax(-1).gather(-1, token[:, None])[:, 0]
                tokens[reveal] = token
                log_prob[reveal] = nats
                step[reveal] = used[:, None].expand(B, L)[reveal]
            tokens[again] = mask_id
            if keep_frames and (reveal.any() or again.any()):
                frames.append(tokens.clone())
        if eos is not None and pad is not None:
            end = free & (tokens == eos)
            rest = free & (
                end.cumsum(1) > end.long()
            )  # strictly behind the row's first drawn [EOS]
            tokens[rest], step[rest], log_prob[rest] = pad, 0, 0.0
            free = free & ~rest
    drawn = Sample(tokens, step.cpu(), log_prob.float().cpu(), calls, used.cpu(), frames)
    if config.revise and target is None:
        ends = torch.zeros_like(free) if eos is None else tokens == eos
        look_back(denoise, drawn, free & ~ends, config, mask_id, rngs, keep_frames)
    return drawn
