"""The sampler of Gaussian noise: its law against quadrature, its step, its rows."""

import pytest
import torch

from base.config import ModelConfig, SampleConfig
from net import soft_masks
from net.gaussian_noise import scales
from net.gaussian_writing import levels, sample, step
from net.samplers import row_generators
from tests.making.coded import CODES, LAW, law_in_steps, perfect

SIZE = {"vocab_size": 8, "output_size": 5, "max_length": 8, "d_model": 16, "heads": 2, "layers": 1}


@pytest.mark.parametrize("calls", [1, 3, 9])
def test_drawn_tokens_have_the_law_of_the_chain(calls):
    """The chain has a law of its own with few calls; 8,000 places tell it from the data's."""
    tokens = torch.full((2, 4000), 2)
    settings = SampleConfig("ancestral", calls)
    drawn = sample(perfect, CODES, tokens, settings, mask_id=2, rngs=row_generators(0, 2))
    # A single call reads from noise, whose evidence is next to nothing.
    law = law_in_steps(calls - 1) if calls > 1 else LAW
    error = (law[0] * law[1] / 8000) ** 0.5
    assert abs((drawn.tokens == 0).double().mean() - law[0]) < 3.3 * error  # p = 0.001
    assert calls != 3 or abs(law[0] - LAW[0]) > 4 * error


def test_a_step_has_the_mean_and_the_variance_of_its_law():
    """From z at t of a known code, a step has the law of z at s: all moments of one Gaussian."""
    rng = torch.Generator().manual_seed(0)
    code, noise, more = (
        torch.randn(shape, generator=rng).double() for shape in ((1, 2), (40000, 2), (40000, 2))
    )
    before, now = 0.3, 0.6
    (alpha_s, alpha_t), (sigma_s, sigma_t) = scales(torch.tensor([before, now]))
    z = alpha_t * code + sigma_t * noise
    moved = step(z, code.expand_as(z), before, now, more)
    assert torch.allclose(moved.mean(0), alpha_s * code[0], atol=0.02)
    assert torch.allclose(moved.std(0), sigma_s.expand(2), atol=0.01)


def test_levels_fall_from_noise_to_text():
    assert levels(SampleConfig("ancestral", 1)) == [1.0]
    for schedule in ("linear", "cosine"):
        times = levels(SampleConfig("ancestral", 5, schedule=schedule))
        assert len(times) == 5 and times[0] == 1 and times[-1] == 0
        assert times == sorted(times, reverse=True)


def test_a_row_draws_alone_what_it_draws_in_a_batch():
    torch.manual_seed(0)
    config = ModelConfig(**SIZE, noise="gaussian", time_conditioning="sinusoidal", code_width=4)
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

    def write(rows, first, denoise):
        rngs = row_generators(4, len(rows), first)
        how = {"mask_id": 7, "rngs": rngs, "keep_frames": True}
        return sample(denoise, model.codes(), rows, settings, **how)

    together = write(tokens, 0, model.reading(lengths))
    assert torch.equal(together.tokens[tokens != 7], tokens[tokens != 7])
    assert together.tokens[tokens == 7].max() < 5 and len(together.frames) == 5
    assert torch.equal((together.step > 0), tokens == 7)
    for row, n in enumerate(lengths.tolist()):
        alone = write(tokens[row : row + 1, :n], row, model.reading())
        assert torch.equal(alone.tokens[0], together.tokens[row, :n])
        torch.testing.assert_close(alone.log_prob[0], together.log_prob[row, :n])
