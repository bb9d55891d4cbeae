"""Samplers: what they draw, compared with enumeration; what they promise, for any settings at all."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from base.config import SAMPLERS, SCHEDULES, SPECULATIVE, ModelConfig, SampleConfig
from diffusion import Schedule
from model import Denoiser
from net import samplers
from net.draws import certainty
from net.samplers import row_generators, sample
from tests.making.toys import (
    MASK,
    STRINGS,
    arbitrary,
    chi_square,
    histogram,
    oracle,
    random_joint,
    tiled,
)

DETERMINISTIC = (
    "left_to_right",
    "confidence",
    "margin",
    "entropy",
    "threshold",
    "factor",
    "entropy_bound",
)


def draw(denoise, rows, length, seed=0, **settings):
    """`rows` samples from nothing but masks."""
    return sample(
        denoise,
        torch.full((rows, length), MASK),
        SampleConfig(**settings),
        mask_id=MASK,
        rngs=row_generators(seed, rows),
    )


# What is drawn


@pytest.mark.parametrize(
    "sampler", ["first_hitting", "left_to_right", "confidence", "margin", "entropy", "threshold"]
)
def test_one_token_a_call_draws_from_the_joint(sampler):
    joint = random_joint()
    drawn = draw(oracle(joint), 3000, 3, sampler=sampler, steps=3, threshold=1.0)
    assert drawn.calls == 3 and drawn.step.sort(1).values.tolist() == [[1, 2, 3]] * 3000
    assert chi_square(histogram(drawn.tokens), joint) > 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        dict(sampler="ancestral"),
        dict(sampler="ancestral", schedule="cosine"),
        dict(sampler="remask", remask="cap"),
        dict(sampler="remask", remask="rescale"),
        dict(sampler="remask", remask="loop"),
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_many_steps_draw_from_the_joint(settings):
    joint = random_joint()
    drawn = draw(tiled(oracle(joint)), 4, 3000, steps=300, **settings)  # 4 rows of 1000 strings
    assert chi_square(histogram(drawn.tokens), joint) > 1e-4


@pytest.mark.parametrize(
    "schedule, steps",
    [("linear", 1), ("linear", 4), ("linear", 16), ("cosine", 4), ("polynomial", 4)],
)
def test_tokens_revealed_together_disagree_by_the_closed_form(schedule, steps):
    """A pair x1 = x2 is torn only if both are revealed at once: P(x1 != x2) = 1/2 sum (Δalpha)², linear 1/(2 steps)."""

    def tied(tokens, share, select):
        other = tokens.flip(-1)[..., None]
        return torch.where(
            other == MASK, 0.0, torch.where(other == torch.arange(2), 0.0, -100.0)
        ).double()[select]

    alpha = Schedule(schedule).alpha(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    expected = 0.5 * alpha.diff().square().sum().item()
    if schedule == "linear":
        assert expected == pytest.approx(1 / (2 * steps))
    pairs = draw(
        tiled(tied, 2), 4, 10_000, sampler="ancestral", schedule=schedule, steps=steps
    ).tokens.view(-1, 2)
    torn = (pairs[:, 0] != pairs[:, 1]).double().mean().item()
    assert abs(torn - expected) < 4 * math.sqrt(expected * (1 - expected) / len(pairs))


@pytest.mark.parametrize("sampler", DETERMINISTIC)
@pytest.mark.parametrize(
    "settings",
    [
        dict(steps=3, threshold=1.0, factor=1e-9, entropy_bound=0.0),
        dict(steps=2),
        dict(steps=3, block_size=2, threshold=0.6),
    ],
    ids=["one_a_call", "parallel", "blocks"],
)
def test_the_trace_is_the_exact_likelihood_of_a_deterministic_order(sampler, settings):
    """DUEL: for any denoiser, exp(sum of log-probabilities with x as target) is the sampler's distribution over x."""
    denoise, config = arbitrary(), SampleConfig(sampler=sampler, **settings)
    masks = torch.full_like(STRINGS, MASK)
    trace = sample(denoise, masks, config, mask_id=MASK, rngs=row_generators(0, 27), target=STRINGS)
    assert torch.equal(trace.tokens, STRINGS)
    probability = trace.log_prob.double().sum(1).exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-6)
    drawn = draw(denoise, 1500, 3, sampler=sampler, **settings)
    assert chi_square(histogram(drawn.tokens), probability) > 1e-4
    assert torch.allclose(
        drawn.log_prob.double().sum(1).exp(),
        probability[(drawn.tokens * torch.tensor([9, 3, 1])).sum(1)],
        atol=1e-6,
    )


def test_looking_back_leaves_the_joint_as_it_is():
    """Of three free tokens each is a group of its own: Gibbs sampling, whose fixed point is the joint. From a start that is not the
    joint (all at once, independently) it comes nearer with every sweep."""
    joint = random_joint()
    exact = draw(oracle(joint), 3000, 3, sampler="left_to_right", steps=3, revise=2)
    assert exact.calls == 9 and chi_square(histogram(exact.tokens), joint) > 1e-4
    apart = [
        (
            histogram(
                draw(oracle(joint), 6000, 3, sampler="left_to_right", steps=1, revise=sweeps).tokens
            )
            / 6000
            - joint
        )
        .abs()
        .sum()
        .item()
        for sweeps in (0, 1, 20)
    ]
    assert apart[0] > apart[1] > apart[2] and apart[2] < 0.06


@pytest.mark.parametrize("seed", range(8))
def test_looking_back_at_the_likeliest_never_loses(seed):
    """At temperature 0 it climbs: the joint's probability of a text never falls; what did not change keeps its trace."""
    joint = random_joint(seed)
    place = lambda tokens: (tokens * torch.tensor([9, 3, 1])).sum(1)
    before, after = (
        draw(
            oracle(joint),
            1,
            3,
            seed=seed,
            sampler="first_hitting",
            steps=2,
            temperature=0.0,
            revise=sweeps,
        )
        for sweeps in (0, 3)
    )
    assert joint[place(after.tokens)] >= joint[place(before.tokens)]
    same = before.tokens == after.tokens
    assert torch.equal(before.step[same], after.step[same]) and torch.equal(
        before.log_prob[same], after.log_prob[same]
    )
    assert (after.step[~same] > before.calls).all() and after.used.tolist() == [after.calls] == [
        before.calls + 9
    ]


# Promises, for any settings

WORDS, PAD, EOS = 5, 6, 4  # tokens 0..4 can be emitted, 5 is [MASK] here
LONG_MASK = 5


def hashed(tokens, share, select):
    """A denoiser for any length: every visible token moves the logits of every position. Padding moves nothing."""
    position = torch.arange(tokens.shape[1], dtype=torch.float64)
    voice = (
        torch.sin(1.7 * tokens.double() + 2.3 * position + 1)
        .masked_fill(tokens >= LONG_MASK, 0.0)
        .sum(1)
    )
    phase = position[:, None] * 0.9 + torch.arange(WORDS) * 2.1
    return (2 * torch.sin(3 * voice[:, None, None] + phase))[select]


configs = st.builds(
    SampleConfig,
    sampler=st.sampled_from(SAMPLERS),
    steps=st.integers(1, 12),
    schedule=st.sampled_from(SCHEDULES),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    top_p=st.sampled_from([0.6, 1.0]),
    block_size=st.integers(0, 7),
    remask=st.sampled_from(["cap", "rescale", "loop"]),
    remask_strength=st.sampled_from([0.0, 0.3, 1.0]),
    revise=st.sampled_from([0, 0, 1, 2]),
)
speculating = st.builds(
    SampleConfig,
    sampler=st.sampled_from(SPECULATIVE),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    top_p=st.sampled_from([0.6, 1.0]),
    block_size=st.integers(0, 7),
    speculate=st.integers(1, 4),
    revise=st.sampled_from([0, 0, 1]),
)
templates = st.lists(
    st.lists(st.integers(0, LONG_MASK), min_size=1, max_size=9).map(
        lambda row: [LONG_MASK if x == 3 else x for x in row]
    ),
    min_size=1,
    max_size=4,
)


def calls_allowed(row, config) -> int:
    """Each block with masks gets ceil(steps · share of masks up to its end) less those before it, at least one."""
    masked, size = np.array(row) == LONG_MASK, config.block_size or len(row)
    if config.speculate:
        return masked.sum()
    ends = [masked[: left + size].sum() for left in range(0, len(row), size)]
    total, before, allowed = max(1, masked.sum()), 0, 0
    for end in ends:
        if end > before:
            allowed += max(
                1, math.ceil(config.steps * end / total) - math.ceil(config.steps * before / total)
            )
        before = end
    return allowed


@settings(max_examples=160, deadline=None, derandomize=True)
@given(config=st.one_of(configs, speculating), rows=templates, padding=st.integers(0, 3))
def test_promises(config, rows, padding):
    made = 0

    def counted(tokens, share, select):
        nonlocal made
        made += 1
        neighbours = len(tokens) // len(template)
        masks, total = (tokens == LONG_MASK).sum(1), (template == LONG_MASK).sum(1).clamp(min=1)
        total = total.repeat_interleave(neighbours)
        assert torch.allclose(share.double(), masks.double() / total, atol=1e-6)
        assert select.any() and not (select & (tokens != LONG_MASK)).any()
        return hashed(tokens, share, select)

    width = max(map(len, rows)) + padding
    template = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    free = template == LONG_MASK
    batch = sample(
        counted,
        template,
        config,
        mask_id=LONG_MASK,
        rngs=row_generators(1, len(rows)),
        keep_frames=True,
    )
    assert torch.equal(batch.tokens[~free], template[~free])  # given tokens never change
    assert (batch.tokens[free] < WORDS).all()  # no [MASK] survives
    assert (
        torch.equal(batch.step > 0, free)
        and (batch.log_prob <= 0).all()
        and (batch.log_prob[~free] == 0).all()
    )
    assert batch.calls == made and batch.step.max() <= batch.calls
    assert all(torch.equal(frame[~free], template[~free]) for frame in batch.frames)
    assert not batch.frames or torch.equal(batch.frames[-1], batch.tokens)
    for number, row in enumerate(
        rows
    ):  # a batch of several equals as many singles, whatever the padding
        made, template = 0, torch.tensor([row])
        single = sample(
            counted, template, config, mask_id=LONG_MASK, rngs=row_generators(1, 1, first=number)
        )
        assert torch.equal(single.tokens[0], batch.tokens[number, : len(row)])
        assert torch.equal(single.step[0], batch.step[number, : len(row)])
        assert torch.allclose(single.log_prob[0], batch.log_prob[number, : len(row)], atol=1e-5)
        assert (
            single.calls == made
            and single.used[0]
            == batch.used[number]
            <= calls_allowed(row, config) + samplers.GROUPS * config.revise
        )
        if config.revise:
            continue
        assert made <= calls_allowed(row, config)
        blocks = [
            part[part > 0].tolist() for part in single.step[0].split(config.block_size or len(row))
        ]
        assert all(
            max(left) < min(right) for left, right in itertools.pairwise(filter(None, blocks))
        )  # blocks from left to right


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_of_four_equals_four_singles_of_a_real_network(sampler):
    torch.manual_seed(0)
    model = Denoiser(
        ModelConfig(vocab_size=12, output_size=9, max_length=16, d_model=16, heads=2, layers=2)
    ).double()
    torch.nn.init.normal_(model.embedding.weight, std=0.6)
    lengths, pad, mask = torch.tensor([16, 9, 12, 5]), 9, 11
    tokens = torch.full((4, 16), pad)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = mask
        row[0], row[length // 2] = 10, 3
    config = SampleConfig(sampler=sampler, steps=5, threshold=0.3, entropy_bound=2.0, factor=3.0)
    batch = sample(model.bind(lengths), tokens, config, mask_id=mask, rngs=row_generators(3, 4))
    assert batch.tokens.max() < mask
    for row, length in enumerate(lengths.tolist()):
        single = sample(
            model.bind(),
            tokens[row : row + 1, :length],
            config,
            mask_id=mask,
            rngs=row_generators(3, 1, first=row),
        )
        assert torch.equal(single.tokens[0], batch.tokens[row, :length]) and torch.equal(
            single.step[0], batch.step[row, :length]
        )


# Time: the masked share after each step is 1 - alpha(t)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "sampler", ["first_hitting", "left_to_right", "confidence", "margin", "entropy"]
)
def test_masked_share_is_rounded_exactly(sampler, schedule):
    frames = sample(
        hashed,
        torch.full((2, 64), LONG_MASK),
        SampleConfig(sampler=sampler, schedule=schedule, steps=8),
        mask_id=LONG_MASK,
        rngs=row_generators(0, 2),
        keep_frames=True,
    ).frames
    alpha = Schedule(schedule).alpha(torch.linspace(1, 0, 9, dtype=torch.float64))[1:]
    expected = torch.round(64 * (1 - alpha)).long()
    assert [(frame == LONG_MASK).sum(1).tolist() for frame in frames] == [
        [k, k] for k in expected.tolist()
    ]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "settings",
    [
        dict(sampler="ancestral"),
        dict(sampler="remask", remask="cap", remask_strength=0.3),
        dict(sampler="remask", remask="rescale", remask_strength=0.5),
    ],
    ids=["ancestral", "cap", "rescale"],
)
def test_masked_share_is_right_in_expectation(settings, schedule):
    guess = lambda tokens, share, select: torch.zeros(int(select.sum()), 3)
    frames = sample(
        guess,
        torch.full((2, 5000), MASK),
        SampleConfig(schedule=schedule, steps=8, **settings),
        mask_id=MASK,
        rngs=row_generators(0, 2),
        keep_frames=True,
    ).frames
    alpha = Schedule(schedule).alpha(torch.linspace(1, 0, 9, dtype=torch.float64))[1:].tolist()
    for frame, a in zip(frames, alpha, strict=True):
        assert (
            abs((frame == MASK).double().mean().item() - (1 - a))
            <= 4 * math.sqrt(max(0.0, a * (1 - a)) / 10_000) + 1e-12
        )


@pytest.mark.parametrize("remask", ["cap", "rescale"])
@pytest.mark.parametrize("block_size", [0, 5])
def test_remasking_of_strength_zero_is_ancestral_to_the_bit(remask, block_size):
    ancestral, remasked = (
        sample(
            hashed,
            torch.full((3, 20), LONG_MASK),
            mask_id=LONG_MASK,
            rngs=row_generators(0, 3),
            config=SampleConfig(
                sampler=sampler, steps=16, remask=remask, remask_strength=0.0, block_size=block_size
            ),
        )
        for sampler in ("ancestral", "remask")
    )
    assert torch.equal(ancestral.tokens, remasked.tokens) and torch.equal(
        ancestral.step, remasked.step
    )
    assert torch.equal(ancestral.log_prob, remasked.log_prob) and ancestral.calls == remasked.calls


# Several tokens at once, if the model is sure


@pytest.mark.parametrize("sampler", ["threshold", "factor", "entropy_bound"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.5, 2.0, 5.0]),
    limit=st.sampled_from([0.1, 0.5, 0.9]),
    given_tokens=st.integers(0, 3),
    step=st.integers(0, 5),
    schedule=st.sampled_from(["linear", "cosine"]),
)
def test_accepted_sets_meet_their_definition(
    sampler, seed, spread, limit, given_tokens, step, schedule
):
    """By brute force over the number accepted; at least as many as the schedule says, at least one."""
    logits = spread * torch.randn(
        1, 8, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    masked = torch.arange(8)[None] >= given_tokens
    config = SampleConfig(
        sampler=sampler,
        threshold=limit,
        factor=limit,
        entropy_bound=limit,
        steps=6,
        schedule=schedule,
    )
    progress = samplers.Progress(masked, masked, torch.tensor([step]), torch.tensor([6]))
    reveal, again, _ = samplers.choose(
        lambda tokens, share, select: logits[select],
        torch.full((1, 8), MASK),
        torch.ones(1),
        progress,
        config,
        row_generators(0, 1),
    )
    prob = logits[0].softmax(-1).numpy()
    confidence, entropy = prob.max(1), -(prob * np.log(prob)).sum(1)
    order = sorted(
        range(given_tokens, 8),
        key=lambda i: entropy[i] if sampler == "entropy_bound" else -confidence[i],
    )
    holds = {
        "threshold": lambda n: all(confidence[i] >= limit for i in order[:n]),
        "factor": lambda n: (n + 1) * (1 - confidence[order[n - 1]]) < limit,
        "entropy_bound": lambda n: (
            sum(entropy[i] for i in order[:n]) - max(entropy[i] for i in order[:n]) <= limit
        ),
    }[sampler]
    accepted = max((n for n in range(1, len(order) + 1) if holds(n)), default=0)
    remain = {"linear": 1 - (step + 1) / 6, "cosine": math.cos(math.pi / 2 * (step + 1) / 6)}[
        schedule
    ]
    count = max(accepted, 1, len(order) - round(len(order) * remain))
    assert reveal[0].nonzero()[:, 0].tolist() == sorted(order[:count]) and not again.any()


def test_certainty_of_a_sure_model_is_a_number():
    """Exact zeros among the probabilities: entropy 0, not NaN."""
    logits = torch.tensor([[0.0, -math.inf, -math.inf], [0.0, 0.0, -math.inf]])
    for sampler, expected in (
        ("confidence", [1.0, 0.5]),
        ("margin", [1.0, 0.0]),
        ("entropy", [0.0, -math.log(2)]),
    ):
        assert certainty(logits, sampler).tolist() == pytest.approx(expected)


# [EOS]


@pytest.mark.parametrize("block_size", [0, 1, 3, 4, 8, 20])
def test_behind_eos_comes_padding(block_size):
    """Position 4 is always [EOS]: what was free behind it becomes [PAD], in its own block and in later ones."""

    def denoise(tokens, share, select):
        at = torch.where(torch.arange(tokens.shape[1]) == 4, EOS, 1).expand(tokens.shape)
        return (50.0 * torch.nn.functional.one_hot(at, WORDS))[select]

    template = torch.full((2, 10), LONG_MASK)
    template[:, 0], template[1, 2], template[1, 8] = EOS, 2, 3  # a given [EOS] ends nothing
    drawn = sample(
        denoise,
        template,
        SampleConfig(steps=10, block_size=block_size),
        mask_id=LONG_MASK,
        rngs=row_generators(0, 2),
        eos=EOS,
        pad=PAD,
    )
    assert drawn.tokens.tolist() == [
        [EOS, 1, 1, 1, EOS, PAD, PAD, PAD, PAD, PAD],
        [EOS, 1, 2, 1, EOS, PAD, PAD, PAD, 3, PAD],
    ]
    filled = (template == LONG_MASK) & (drawn.tokens != PAD)
    assert torch.equal(drawn.step > 0, filled) and (drawn.log_prob[~filled] == 0).all()
    if block_size == 1:
        assert drawn.calls == 4
