"""Exact speculation: the law of the one-token sampler, by enumerating every random choice of the real code.

Vocabulary 3, length 4. A round is a chain of choices (which guess, which coin, which last token). The tests run all of them as
rows of a batch, and count what each choice weighs. Rounds follow each other through the states (tokens, row believed).
"""

import itertools
from collections import defaultdict

import pytest
import torch

import diffusion
from base.config import SPECULATIVE, ModelConfig, SampleConfig
from base.files import UserError
from model import Denoiser
from net import speculation
from net.draws import certainty, distribution
from net.samplers import Writing, row_generators, sample
from net.speculation import Speculation
from tests.making.toys import MASK, STRINGS, chi_square, histogram, random_joint

LENGTH, SIZE = 4, 3
PLACES = torch.tensor([64, 16, 4, 1])
BLANK = (MASK,) * LENGTH
CHOICES = 8  # codes of a choice; a number of the patched generator is row · 8 + code


def arbitrary(seed: int = 0):
    """A denoiser with random conditionals that fit no joint distribution, all 256 patterns."""
    rng = torch.Generator().manual_seed(seed)
    table = 1.5 * torch.randn(256, LENGTH, SIZE, generator=rng, dtype=torch.float64)
    return lambda tokens, share, select: table[(tokens * PLACES).sum(-1)][select]


def next_place(tokens: torch.Tensor, logits: torch.Tensor, sampler: str, order) -> int:
    """Which masked place of a row (4,) the one-token sampler reveals, by its definition."""
    masked = (tokens == MASK).nonzero()[:, 0].tolist()
    if order is not None:
        return next(place for place in order if place in masked)
    return max(masked, key=lambda place: certainty(logits[place][None], sampler).item())


def one_token_law(denoise, config: SampleConfig, order) -> dict:
    """p of each of the 81 strings: one token per call, summed over all paths."""
    law = {BLANK: 1.0}
    everywhere = torch.ones(1, LENGTH, dtype=torch.bool)
    for _ in range(LENGTH):
        after = defaultdict(float)
        for string, mass in law.items():
            tokens = torch.tensor(string)
            logits = denoise(tokens[None], torch.ones(1), everywhere)
            place = next_place(tokens, logits, config.sampler, order)
            prob = distribution(logits[place][None], config.temperature, config.top_p)[0]
            for token in range(SIZE):
                text = [*string]
                text[place] = token
                after[tuple(text)] += mass * prob[token].item()
        law = after
    return law


class Choices:
    """Stands in for chance: each row follows its own codes, and its probability is counted."""

    def __init__(self, guesses: torch.Tensor, coins: torch.Tensor, last: torch.Tensor):
        """guesses, coins: (B, k) codes. last: (B, 1)."""
        self.codes = [guesses, coins, last] if guesses.shape[1] else [last]
        self.last = last[:, 0]
        self.weight = torch.ones(len(last), dtype=torch.float64)
        self.drew = torch.zeros(len(last), dtype=torch.bool)

    def draw_uniforms(self, where, rngs):
        codes = self.codes.pop(0)
        self.drawing_last = not self.codes
        row = torch.arange(len(codes))[:, None]
        numbers = torch.zeros(where.shape, dtype=torch.float64)
        numbers[:, : codes.shape[1]] = (CHOICES * row + codes).double()
        return numbers

    def read(self, uniform):
        return (uniform // CHOICES).long(), (uniform % CHOICES).long()

    def pick(self, weight, uniform):
        row, code = self.read(uniform)
        share = weight / weight.sum(-1, keepdim=True)
        for index, token, prob in zip(row.tolist(), code.tolist(), share, strict=True):
            self.weight[index] *= prob[token]
        if self.drawing_last:
            self.drew[row] = True
        return code

    def keeps(self, uniform, drawn, checked):
        row, code = self.read(uniform)
        ratio = torch.where(drawn > 0, checked / drawn, 1.0).clamp(max=1.0)
        chance = torch.where(code == 1, ratio, 1 - ratio)
        for index, value in zip(row.tolist(), chance.tolist(), strict=True):
            self.weight[index] *= value
        return code == 1

    def total(self):
        """The weight of each row. A row that needed no last token counts for a single code."""
        return self.weight * (self.drew | (self.last == 0))


def one_round(monkeypatch, denoise, config, order, states: list) -> dict:
    """All that a round can make of states (tokens, believed row or None, mass), as such states."""
    left = sum(id == MASK for id in states[0][0])
    count = 0 if states[0][1] is None else min(config.speculate, left)
    codes = list(itertools.product(*[range(SIZE)] * count, *[range(2)] * count, range(SIZE)))
    table = torch.tensor(codes).repeat(len(states), 1)
    chance = Choices(table[:, :count], table[:, count : 2 * count], table[:, -1:])
    rows = [state for state in states for _ in codes]
    blank = torch.full((len(rows), LENGTH), MASK)
    writing = Writing(denoise, blank, config, MASK, [], None, False)
    with monkeypatch.context() as patched:
        for name in ("draw_uniforms", "pick", "keeps"):
            patched.setattr(speculation, name, getattr(chance, name))
        patched.setattr(speculation, "random_order", lambda free, rngs: torch.zeros(free.shape))
        round_ = Speculation(writing, blank == MASK)
        if order is not None:
            score = torch.tensor([-float(order.index(place)) for place in range(LENGTH)])
            round_.order = score.double().expand(blank.shape)
        if states[0][1] is not None:
            writing.tokens = torch.tensor([believed for _, believed, _ in rows])
            round_.belief = round_.ask(round_.plan())
        writing.tokens = torch.tensor([tokens for tokens, _, _ in rows])
        plan = round_.plan()
        round_.check(plan, round_.ask(plan))
    neighbour = round_.belief.row - torch.arange(len(rows)) * plan.tokens.shape[1]
    believed = plan.tokens[torch.arange(len(rows)), neighbour].tolist()
    result = defaultdict(float)
    for state, tokens, row, weight in zip(
        rows, writing.tokens.tolist(), believed, chance.total().tolist(), strict=True
    ):
        result[tuple(tokens), tuple(row)] += state[2] * weight
    return result


def speculative_law(monkeypatch, denoise, config, order=None) -> dict:
    """p of each of the 81 strings under speculation, by enumeration."""
    waiting, law = {(BLANK, None): 1.0}, defaultdict(float)
    while waiting:
        most = max(sum(id == MASK for id in tokens) for tokens, _ in waiting)
        now = [(*state, mass) for state, mass in waiting.items() if state[0].count(MASK) == most]
        for tokens, believed, _ in now:
            del waiting[tokens, believed]
        for state, mass in one_round(monkeypatch, denoise, config, order, now).items():
            if MASK in state[0]:
                waiting[state] = waiting.get(state, 0.0) + mass
            else:
                law[state[0]] += mass
    return law


def distance(one: dict, other: dict) -> float:
    """Total variation."""
    strings = itertools.product(range(SIZE), repeat=LENGTH)
    return sum(abs(one.get(string, 0.0) - other.get(string, 0.0)) for string in strings) / 2


FIXED = {"left_to_right": (0, 1, 2, 3), "first_hitting": (2, 0, 3, 1)}


@pytest.mark.parametrize("ahead", [1, 2, 3, 4])
@pytest.mark.parametrize("sampler", SPECULATIVE)
def test_the_law_is_the_one_token_samplers(monkeypatch, sampler, ahead):
    denoise, order = arbitrary(), FIXED.get(sampler)
    for draws in ({}, {"temperature": 0.6, "top_p": 0.8}):
        config = SampleConfig(sampler=sampler, speculate=ahead, **draws)
        law = speculative_law(monkeypatch, denoise, config, order)
        assert sum(law.values()) == pytest.approx(1.0, abs=1e-12)
        assert distance(law, one_token_law(denoise, config, order)) < 1e-12


def test_every_random_order_has_the_law(monkeypatch):
    denoise, config = arbitrary(1), SampleConfig(sampler="first_hitting", speculate=2)
    for order in itertools.permutations(range(LENGTH)):
        law = speculative_law(monkeypatch, denoise, config, order)
        assert distance(law, one_token_law(denoise, config, order)) < 1e-12


@pytest.mark.parametrize("sampler", SPECULATIVE)
@pytest.mark.parametrize("wrong", ["all kept", "drawn from the proposal", "drawn from Q"])
def test_the_enumeration_finds_what_is_wrong(monkeypatch, sampler, wrong):
    """Three faults that text quality would not show."""
    denoise, order = arbitrary(), FIXED.get(sampler)
    config = SampleConfig(sampler=sampler, speculate=2)
    if wrong == "all kept":
        right = Choices.keeps

        def keep(self, uniform, drawn, checked):
            right(self, uniform, drawn, drawn)
            return torch.ones_like(uniform, dtype=torch.bool)

        monkeypatch.setattr(Choices, "keeps", keep)
    else:
        replaced = (lambda checked, drawn: drawn) if "proposal" in wrong else lambda q, p: q
        monkeypatch.setattr(speculation, "remainder", replaced)
    law = speculative_law(monkeypatch, denoise, config, order)
    assert distance(law, one_token_law(denoise, config, order)) > 0.01


def drawn_with(config: SampleConfig, rows: int, seed: int = 0, target=None):
    return sample(
        arbitrary(),
        torch.full((rows, LENGTH), MASK),
        config,
        mask_id=MASK,
        rngs=row_generators(seed, rows),
        target=target,
    )


@pytest.mark.parametrize("sampler", SPECULATIVE)
def test_at_temperature_0_the_text_is_the_same(sampler):
    for seed in range(5):
        texts = []
        for ahead in (0, 1, 2, 3, 4):
            config = SampleConfig(sampler=sampler, steps=LENGTH, temperature=0.0, speculate=ahead)
            texts.append(drawn_with(config, 3, seed).tokens)
        assert all(torch.equal(text, texts[0]) for text in texts)


@pytest.mark.parametrize("sampler", SPECULATIVE)
def test_the_trace_is_the_likelihood_of_the_text(sampler):
    """Of a text that speculation drew, and of any text that is given as its target."""
    config = SampleConfig(sampler=sampler, speculate=2)
    drawn = drawn_with(config, 600)
    again = drawn_with(config, 600, target=drawn.tokens)
    assert torch.equal(again.tokens, drawn.tokens)
    assert torch.allclose(again.log_prob, drawn.log_prob, atol=1e-6)
    assert (again.used <= drawn.used).float().mean() == 1.0  # no true token is rejected
    if sampler != "first_hitting":
        law = one_token_law(arbitrary(), config, FIXED.get(sampler))
        for text, nats in zip(drawn.tokens.tolist(), drawn.log_prob.double().sum(1), strict=True):
            assert nats.exp().item() == pytest.approx(law[tuple(text)], rel=1e-5)


@pytest.mark.parametrize("sampler", SPECULATIVE)
def test_what_is_drawn_has_the_law(sampler):
    """The same through the real random numbers."""
    config = SampleConfig(sampler=sampler, speculate=3)
    drawn = drawn_with(config, 4000)
    orders = [FIXED.get(sampler)]
    if sampler == "first_hitting":
        orders = list(itertools.permutations(range(LENGTH)))
    laws = [one_token_law(arbitrary(), config, order) for order in orders]
    strings = list(itertools.product(range(SIZE), repeat=LENGTH))
    law = torch.tensor([sum(law[text] for law in laws) / len(laws) for text in strings])
    place = (drawn.tokens * torch.tensor([27, 9, 3, 1])).sum(-1)
    assert chi_square(torch.bincount(place, minlength=81), law.double()) > 1e-4
    assert drawn.used.max() <= LENGTH and drawn.used.double().mean() < LENGTH
    assert (drawn.rows >= LENGTH).all() and drawn.calls == drawn.used.max()


@pytest.fixture(scope="module")
def trained():
    """A network that learnt a joint distribution of three symbols: (the network, the joint)."""
    joint, rng = random_joint(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Denoiser(
        ModelConfig(vocab_size=4, output_size=3, max_length=3, d_model=32, heads=2, layers=2)
    )
    torch.nn.init.normal_(model.embedding.weight, std=0.5)  # so that few steps are enough
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    free = torch.ones(128, 3, dtype=torch.bool)
    for _ in range(200):
        tokens = STRINGS[torch.multinomial(joint, 128, True, generator=rng)]
        loss, _ = diffusion.loss(model.bind(), tokens, free, mask_id=MASK, rng=rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), joint


@pytest.mark.parametrize("sampler", [name for name in SPECULATIVE if name != "first_hitting"])
def test_a_trained_network_keeps_its_law(trained, sampler):
    """Its one-token law comes from the trace of all 27 strings, without speculation."""
    model, joint = trained
    masks, config = torch.full_like(STRINGS, MASK), SampleConfig(sampler=sampler, steps=3)
    rngs = row_generators(0, len(STRINGS))
    trace = sample(model.bind(), masks, config, mask_id=MASK, rngs=rngs, target=STRINGS)
    law = trace.log_prob.double().sum(1).exp()
    uniform = torch.full_like(joint, 1 / len(joint))
    assert (law - joint).abs().sum() < (uniform - joint).abs().sum() * 2 / 3  # it has learnt
    drawn = sample(
        model.bind(),
        torch.full((3000, 3), MASK),
        SampleConfig(sampler=sampler, speculate=2),
        mask_id=MASK,
        rngs=row_generators(1, 3000),
    )
    assert drawn.used.double().mean() < 3
    assert chi_square(histogram(drawn.tokens), law) > 1e-4


def test_a_sampler_that_looks_at_the_token_is_refused():
    for sampler in ("remask", "threshold", "ancestral", "factor", "entropy_bound"):
        with pytest.raises(UserError, match=f"--speculate 2 with --sampler {sampler}; expected"):
            SampleConfig(sampler=sampler, speculate=2)
