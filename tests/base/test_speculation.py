"""Speculation in numpy, token for token against net/speculation.py."""

import numpy as np
import pytest
import torch

from base import speculation
from base.config import SampleConfig
from net import samplers
from tests.base.test_decoding import MASK, denoise, logits_of, rows


@pytest.mark.parametrize("sampler", ["confidence", "left_to_right", "first_hitting"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("ahead", [1, 2, 4, 20])
def test_every_order_is_torchs(sampler, temperature, ahead):
    settings = SampleConfig(sampler=sampler, temperature=temperature, speculate=ahead)
    tokens = rows()
    for seed in range(4):
        found = speculation.speculate(logits_of, tokens, settings, MASK, seed, first=2)
        drawn = samplers.sample(
            denoise,
            torch.from_numpy(tokens).long(),
            settings,
            mask_id=MASK,
            rngs=samplers.row_generators(seed, 3, 2),
        )
        written, step, probability, calls = found
        assert written.tolist() == drawn.tokens.tolist()
        assert step.tolist() == drawn.step.tolist() and calls == drawn.calls
        assert np.allclose(probability, drawn.log_prob.exp().numpy(), atol=1e-5)


def test_fewer_calls_than_tokens():
    """A denoiser that never changes its mind: every guess is kept."""
    stubborn = lambda tokens, share: np.tile(np.eye(10, dtype=np.float32) * 30, (len(tokens), 1, 1))
    tokens = np.full((2, 10), MASK, np.int32)
    settings = SampleConfig(sampler="left_to_right", speculate=4)
    written, _, _, calls = speculation.speculate(stubborn, tokens, settings, MASK, 0, 0)
    assert written.tolist() == [list(range(10))] * 2
    assert calls == 3  # 1 token, then twice 4 guesses and the last row's own


def test_a_row_without_blanks_stays_as_it_is():
    tokens = rows()
    tokens[2] = 7
    settings = SampleConfig(sampler="confidence", speculate=2)
    written, step, _, _ = speculation.speculate(logits_of, tokens, settings, MASK, 0, 0)
    assert (written[2] == 7).all() and (step[2] == 0).all()
