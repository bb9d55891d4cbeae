"""The sampler of uniform and hybrid noise: its law against enumeration, its rows, its given tokens."""

import pytest
import torch

from base.config import ModelConfig, SampleConfig
from net import soft_masks, token_writing
from net.channels import channel_of as channel_of_config
from net.samplers import row_generators
from net.token_noise import reverse_law, to_posterior
from tests.making.noised import (
    DATA,
    KINDS,
    channel_of,
    full,
    of_one,
    q,
    states,
    table,
    texts,
)


def kernel(channel, denoise, length: int, before: float, now: float, times: int = 1):
    """The law of the next text, for each noised text, from `reverse_law`: (texts, texts)."""
    noised = texts(states(channel), length)
    logits = denoise(noised, full(now, len(noised)), torch.ones_like(noised, dtype=torch.bool))
    standing, levels = noised.flatten(), full(now, noised.numel())
    for _ in range(times):
        logits = to_posterior(channel, logits, standing, levels)
    earlier = full(before, noised.numel())
    rows = reverse_law(channel, logits.softmax(-1), standing, earlier, levels)
    rows = rows[:, : states(channel)].view(len(noised), length, -1)
    if length == 1:
        return rows[:, 0]
    return (rows[:, 0, :, None] * rows[:, 1, None]).flatten(1)


def end(channel, denoise, length: int, steps: int, times: int = 1) -> torch.Tensor:
    """The law of the sampler's last text, by matrices. times: how often evidence is counted."""
    start = q(channel, 1.0)[0]
    law = start if length == 1 else (start[:, None] * start).flatten()
    for number in range(steps, 0, -1):
        rows = kernel(channel, denoise, length, (number - 1) / steps, number / steps, times)
        possible = law > 0  # at t = 1 of hybrid noise, masks alone
        assert torch.allclose(rows.sum(-1)[possible], torch.ones(int(possible.sum())).double())
        law = law[possible] @ rows[possible]
    return law


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_law_of_a_single_place_is_the_data_whatever_the_steps(kind, steps):
    channel = channel_of(kind, 4)
    denoise = of_one("leave_one_out", channel)
    assert torch.allclose(end(channel, denoise, 1, steps)[:4], DATA, atol=1e-14)
    # Evidence that is counted twice gives another law. The first call has no evidence.
    twice = end(channel, denoise, 1, steps, times=2)[:4]
    assert steps == 1 or (twice - DATA).abs().max() > 0.004


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_texts_have_the_law_of_the_chain(kind):
    """`sample` itself, three calls of a random network: the chi-square of 9 texts, 8 degrees."""
    channel = channel_of(kind, 3)
    law = end(channel, table, 2, 3)
    law = law.view(states(channel), -1)[:3, :3].flatten()
    assert law.sum().item() == pytest.approx(1)
    rows, settings = 3000, SampleConfig("ancestral", 3)
    drawn = token_writing.sample(
        channel, table, torch.full((rows, 2), 3), settings, rngs=row_generators(0, rows)
    )
    count = torch.bincount(drawn.tokens[:, 0] * 3 + drawn.tokens[:, 1], minlength=9).double()
    assert ((count - rows * law) ** 2 / (rows * law)).sum() < 26.1  # p = 0.001


def test_levels_fall_from_noise_to_text():
    for schedule in ("linear", "cosine"):
        levels = token_writing.levels(SampleConfig("ancestral", 4, schedule=schedule))
        assert levels[0] == 1 and levels[-1] == 0 and levels == sorted(levels, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_draws_alone_what_it_draws_in_a_batch(kind):
    size = {"vocab_size": 8, "output_size": 5, "max_length": 8, "d_model": 16, "heads": 2}
    config = ModelConfig(**size, layers=1, noise=kind, time_conditioning="sinusoidal")
    torch.manual_seed(0)
    model = soft_masks.build(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    settings = SampleConfig("ancestral", 5, temperature=0.9, top_p=0.95)
    tokens = torch.full((3, 8), 7)  # [MASK] is 7
    tokens[:, 0], tokens[1, 3] = 6, 2
    lengths = torch.tensor([8, 6, 7])
    tokens[torch.arange(8) >= lengths[:, None]] = 5
    channel = channel_of_config(config, 7)

    def write(rows, first, denoise):
        rngs = row_generators(4, len(rows), first)
        return token_writing.sample(channel, denoise, rows, settings, rngs=rngs, keep_frames=True)

    together = write(tokens, 0, model.bind(lengths))
    assert torch.equal(together.tokens[tokens != 7], tokens[tokens != 7])
    assert together.tokens[tokens == 7].max() < 5 and len(together.frames) == 5
    assert torch.equal((together.step > 0), tokens == 7)
    for row, n in enumerate(lengths.tolist()):
        alone = write(tokens[row : row + 1, :n], row, model.bind())
        assert torch.equal(alone.tokens[0], together.tokens[row, :n])
        torch.testing.assert_close(alone.log_prob[0], together.log_prob[row, :n])
    # The network is told the level.
    every = torch.ones_like(tokens[:1], dtype=torch.bool)
    low, high = (model.bind()(tokens[:1], torch.tensor([t]), every) for t in (0.1, 0.9))
    assert not torch.allclose(low, high)
