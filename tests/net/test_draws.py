"""Draws of tokens: the temperature, the limit of top_p, and the ends of the unit interval."""

import math

import pytest
import torch

from diffusion import stratified
from net.draws import draw_tokens, draw_uniforms


def test_a_row_draws_the_numbers_that_it_needs():
    """Neither the positions of its neighbours nor the padding behind it change a row's numbers."""
    where = torch.tensor([[True, False, True], [False, True, True]])
    generators = [torch.Generator().manual_seed(row) for row in (0, 1)]
    both = draw_uniforms(where, generators)
    padded = torch.nn.functional.pad(where[1:], (0, 4))
    alone = draw_uniforms(padded, [torch.Generator().manual_seed(1)])
    assert torch.equal(both[1], alone[0, :3])
    assert (both[~where] == 0).all() and (alone[0, 3:] == 0).all()
    expected = torch.rand(2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(both[0, where[0]], expected)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draws_have_the_temperature_that_was_asked_for(temperature):
    """Maximum likelihood of 1/T from 8192 stratified draws among 8192 tokens: where the mean logit is the expected one."""
    logits = 2 * torch.randn(8192, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    uniform = stratified(8192, torch.Generator().manual_seed(1)).split(1024)
    tokens = torch.cat(
        [draw_tokens(logits.expand(1024, -1), part, temperature)[0] for part in uniform]
    )
    mean, low, high = logits[tokens].mean(), 0.1, 10.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (logits * middle).softmax(0) @ logits < mean else (low, middle)
        )
    assert 1 / low == pytest.approx(temperature, abs=0.01)


def test_top_p_keeps_the_token_that_crosses_the_limit():
    """(.2, .5, .3) at .7 leaves the mass .8, shared as 5 : 3; at .5 it leaves one token."""
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    uniform = (torch.arange(800, dtype=torch.float64) + 0.5) / 800
    tokens, log_prob = draw_tokens(logits.expand(800, -1), uniform, top_p=0.7)
    assert torch.bincount(tokens, minlength=3).tolist() == [0, 500, 300]
    assert torch.allclose(
        log_prob.exp(), torch.tensor([0.2, 0.5, 0.3]).double()[tokens]
    )  # of the model, untruncated
    assert draw_tokens(logits.expand(800, -1), uniform, top_p=0.499)[0].eq(1).all()


def test_temperature_zero_is_the_likeliest_token():
    logits = torch.randn(50, 20)
    tokens, log_prob = draw_tokens(logits, torch.rand(50, dtype=torch.float64), temperature=0)
    assert torch.equal(tokens, logits.argmax(1))
    assert torch.allclose(log_prob, logits.double().log_softmax(1).max(1).values)


def test_the_ends_of_the_unit_interval():
    """0 and 1 - 2^-53 never draw what has no probability, and a token of probability 2^-40 still has its place."""
    never = -math.inf
    uniform = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    for logits, first, last in (
        ([never, 0.3, 1.2, never], 1, 2),
        ([never, never, 0.0, never], 2, 2),
        ([0.1, never, never, 0.7], 0, 3),
    ):
        for options in (dict(), dict(temperature=0.3), dict(top_p=0.999)):
            assert draw_tokens(torch.tensor([logits] * 2), uniform, **options)[0].tolist() == [
                first,
                last,
            ]
    rare = torch.tensor([[0.0, -40 * math.log(2)]]).expand(2, -1)
    assert draw_tokens(rare, torch.tensor([1 - 2**-39, 1 - 2**-42], dtype=torch.float64))[
        0
    ].tolist() == [0, 1]
