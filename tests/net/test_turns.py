"""Turns as blocks: one pass equals a pass per turn, nothing leaks, the bound is the stated sum."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import diffusion
from net import turns
from net.twin import token_losses
from tests.test_model import open_gates, toy

BOS, HIDDEN, PAD = 10, 11, 9
# Two rows: turns of 5, 3 and 6 tokens, and of 4 and 7 tokens, then padding.
TURN = torch.tensor([[0] * 5 + [1] * 3 + [2] * 6, [0] * 4 + [1] * 7 + [-1] * 3])
FREE = torch.zeros(2, 14, dtype=torch.bool)
for row, places in enumerate([(3, 4, 6, 7, 11, 12, 13), (3, 8, 9, 10)]):
    FREE[row, list(places)] = True


def rows():
    """Random rows behind [BOS], and the same rows with some of each answer masked."""
    clean = torch.randint(0, 9, TURN.shape, generator=torch.Generator().manual_seed(1))
    clean[:, 0] = BOS
    clean[TURN < 0] = PAD
    hidden = FREE.clone()
    hidden[0, 12] = hidden[1, 9] = False  # partly noised answers
    return clean, clean.masked_fill(hidden, HIDDEN)


def alone(model, clean, noised, row, number, condition=None):
    """The logits of one turn from a plain pass: earlier turns clean, the turn noised, no later."""
    end = int((TURN[row] == number).nonzero().max()) + 1
    turn = TURN[row : row + 1, :end]
    seen = torch.where(turn == number, noised[row : row + 1, :end], clean[row : row + 1, :end])
    sees = (turn[0, :, None] >= turn[0])[None, None]
    logits = model(seen, attend=sees, condition=condition)
    return logits[0, (turn == number)[0]]


@pytest.mark.parametrize("width", [0, 6])
def test_one_pass_equals_a_pass_per_turn(width):
    """With and without an image; row 1 has padding, which is not seen."""
    model, (clean, noised) = toy(condition_width=width), rows()
    features = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    condition = None
    if width:
        open_gates(model)
        condition = model.keys_values(features)
    logits = turns.bind(model, TURN, condition)(noised, clean, torch.ones_like(FREE))
    assert logits.isfinite().all()
    logits = logits.view(*TURN.shape, -1)
    for row, number in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        own = model.keys_values(features[row : row + 1]) if width else None
        expected = alone(model, clean, noised, row, number, own)
        assert torch.allclose(logits[row, TURN[row] == number], expected, atol=1e-5)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_answer_depends_on_its_noised_turn_and_on_clean_turns_before_it(number):
    """By gradients: nothing else has any, and all of that has some."""
    model, (clean, noised) = toy(), rows()
    clean, noised, turn = clean[:1], noised[:1], TURN[:1]
    read = []

    def keep(module, inputs, output):
        output.retain_grad()
        read.append(output)

    model.embedding.register_forward_hook(keep)
    turns.bind(model, turn)(noised, clean, FREE[:1] & (turn == number)).square().sum().backward()
    from_clean, from_noised = (seen.grad[0].abs().sum(-1) > 0 for seen in read)
    assert from_clean.tolist() == (turn[0] < number).tolist()
    assert from_noised.tolist() == (turn[0] == number).tolist()


def test_masks_have_exact_counts():
    """k of an answer's n tokens, weight n / k; no question, no padding, no answer left out."""
    rng, counts = torch.Generator().manual_seed(0), set()
    for _ in range(60):
        uniform = turns.noise_levels(FREE, TURN, rng)
        noise = turns.corrupt(FREE, TURN, uniform, rng)
        assert not (noise.masked & ~FREE).any()
        n, k = (turns.by_turn(which, TURN).sum(1) for which in (FREE, noise.masked))
        assert ((k >= 1) == (n >= 1)).all()
        weight = turns.token_weights(noise.masked, TURN, noise.weight)
        assert weight.sum().item() == pytest.approx(FREE.sum().item())
        counts |= set(zip(n.tolist(), k.tolist(), strict=True))
    assert counts == {(0, 0), *((n, k) for n in (1, 2, 3) for k in range(1, n + 1))}
    levels = turns.noise_levels(FREE, TURN, rng)[turns.by_turn(FREE, TURN).any(1)]
    assert (levels.sort().values * len(levels)).floor().tolist() == list(range(len(levels)))


def test_a_single_turn_is_the_plain_loss():
    """With the same random numbers; so are the estimates of the bound."""
    model, (clean, _) = toy(), rows()
    turn, free = torch.zeros_like(TURN), torch.ones_like(FREE)
    free[:, :3] = free[1, 11:] = False  # row 1 has [PAD] there, which is never written
    denoise = turns.bind(model, turn)
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    plain, _ = diffusion.loss(model.bind(), clean, free, mask_id=HIDDEN, rng=seeds[0])
    ours, _ = turns.loss(denoise, clean, free, turn, mask_id=HIDDEN, rng=seeds[1])
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    given = {"mask_id": HIDDEN, "draws": 2}
    one = diffusion.bound_estimates(model.bind(), clean, free, rng=seeds[0], **given)
    other = turns.bound_estimates(denoise, clean, free, turn, rng=seeds[1], **given)
    for a, b in zip(one, other, strict=True):
        assert all(torch.allclose(a[name].double(), b[name].double()) for name in a)


def enumerated(model, clean, row) -> float:
    """The sum over answers of c_1 + ... + c_n, each the mean over all masks of its size."""
    total = 0.0
    for number in range(int(TURN[row].max()) + 1):
        places = (FREE[row] & (TURN[row] == number)).nonzero()[:, 0].tolist()
        first = int((TURN[row] == number).nonzero().min())
        for k in range(1, len(places) + 1):
            for chosen in itertools.combinations(places, k):
                noised = clean.clone()
                noised[row, list(chosen)] = HIDDEN
                logits = alone(model, clean, noised, row, number)
                here = [place - first for place in chosen]
                nats = F.cross_entropy(logits[here], clean[row, list(chosen)], reduction="sum")
                total += nats.item() / (k * math.comb(len(places), k))
    return total


@torch.no_grad()
def test_estimates_are_unbiased():
    model, (clean, _), count = toy(), rows(), 400
    many = [rows.repeat(count, 1) for rows in (clean, FREE, TURN)]
    draws = turns.bound_estimates(
        turns.bind(model, many[2]), *many, mask_id=HIDDEN, rng=torch.Generator(), draws=4
    )
    nats = torch.stack([draw["nats"] for draw in draws]).mean(0).view(count, 2)
    for row in range(2):
        error = nats[:, row].std().item() / count**0.5
        assert nats[:, row].mean().item() == pytest.approx(
            enumerated(model, clean, row), abs=4 * error
        )


@torch.no_grad()
def test_answers_of_one_token_are_a_distribution():
    """The likelihoods of all pairs of answers to two questions add up to 1, for any weights."""
    model = toy(vocab_size=12, output_size=4)
    pairs = list(itertools.product(range(4), repeat=2))
    tokens = torch.tensor([(BOS, 5, a, 6, 7, b) for a, b in pairs])
    turn = torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(len(pairs), -1)
    free = torch.tensor([[0, 0, 1, 0, 0, 1]]).bool().expand(len(pairs), -1)
    given = {"mask_id": HIDDEN, "rng": torch.Generator(), "draws": 1}
    (exact,) = turns.bound_estimates(turns.bind(model, turn), tokens, free, turn, **given)
    assert exact["nats"].neg().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_the_twin_reads_the_same_rows():
    """Its loss on the answers alone: the chain rule, token by token."""
    model, (clean, _) = toy(causal=True), rows()
    nats, _ = token_losses(model, clean, FREE)
    expected = []
    for row, place in FREE.nonzero().tolist():
        logits = model(clean[row : row + 1, :place])[0, -1]
        expected.append(-logits.log_softmax(-1)[clean[row, place]].item())
    assert nats.tolist() == pytest.approx(expected, abs=1e-5)
