"""The steps of decoding in numpy, against net/samplers.py where both can run, and by hand elsewhere."""

import numpy as np
import pytest
import torch

from base import decoding
from base.config import SCHEDULES, SampleConfig
from base.decoding import ORDERS, SAMPLERS
from base.randomness import row_uniforms
from net import samplers

MASK, SIZE = 12, 10  # the mask's id, and how many tokens can be written


def logits_of(tokens: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A made-up denoiser: each position looks at its neighbour and at the masked share."""
    table = np.random.default_rng(0).normal(size=(MASK + 1, SIZE)).astype(np.float32) * 3
    return (table[tokens] + table[np.roll(tokens, 1, 1)] * share[:, None, None]).astype(np.float32)


def denoise(tokens, share, select):
    logits = logits_of(tokens.numpy(), share.double().numpy())
    return torch.from_numpy(logits)[select]


def rows() -> np.ndarray:
    tokens = np.full((3, 9), MASK, np.int32)
    tokens[0, :2] = 1
    tokens[1, 4:] = 2
    return tokens


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_every_sampler_is_torchs(sampler, temperature):
    settings = SampleConfig(sampler=sampler, steps=5, temperature=temperature, threshold=0.6)
    tokens = rows()
    inputs = decoding.loop_inputs(settings, tokens, MASK, 9, seed=4, first=0)
    written, step, probability, _ = decoding.unmask(logits_of, tokens, inputs, MASK)
    drawn = samplers.sample(
        denoise,
        torch.from_numpy(tokens).long(),
        settings,
        mask_id=MASK,
        rngs=samplers.row_generators(4, 3),
    )
    assert written.tolist() == drawn.tokens.tolist()
    assert step.tolist() == drawn.step.tolist()
    assert np.allclose(probability, drawn.log_prob.exp().numpy(), atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_ends_with_no_mask(schedule):
    for steps in (1, 3, 32):
        table = decoding.schedule_table(SampleConfig(steps=steps, schedule=schedule), 9)
        assert table.shape == (10, steps)
        assert (np.diff(table, axis=1) <= 0).all() and (table[:, -1] == 0).all()


def test_steps_without_a_token_need_no_call():
    schedule = np.array([[3, 3, 2, 0], [5, 5, 4, 0]])
    assert decoding.empty_steps(schedule, np.array([3, 5]), 0) == 2
    assert decoding.empty_steps(schedule, np.array([3, 6]), 0) == 0
    assert decoding.empty_steps(schedule, np.array([0, 0]), 1) == 0


def test_a_threshold_means_the_same_in_float32():
    for value in (0.1, 0.3, 0.9, 0.5):
        limit = decoding.limit_of(SampleConfig(sampler="threshold", threshold=value))
        assert float(limit) >= value > float(np.nextafter(np.float32(limit), np.float32(0)))
    assert decoding.limit_of(SampleConfig(sampler="confidence")) == decoding.NEVER


def test_a_draw_inverts_the_distribution():
    logits = np.log(np.array([[0.2, 0.3, 0.5]] * 4, np.float32))
    uniform = np.array([0.1, 0.25, 0.6, 0.999])
    assert decoding.draw(logits, uniform, 1.0).tolist() == [0, 1, 2, 2]
    assert decoding.draw(logits, uniform, 0).tolist() == [2, 2, 2, 2]


def test_looking_back_changes_written_tokens_only():
    tokens = rows()
    free = tokens == MASK
    settings = SampleConfig(sampler="confidence", steps=3, revise=2)
    inputs = decoding.loop_inputs(settings, tokens, MASK, 9, seed=1, first=0)
    written, step, probability, _ = decoding.unmask(logits_of, tokens, inputs, MASK)
    noise = row_uniforms(1, 3, 0, 3 * int(free.sum(1).max()))
    used = decoding.look_back(logits_of, written, step, probability, free, settings, noise, MASK)
    assert (written[~free] == tokens[~free]).all() and (written < SIZE).all()
    assert (used >= step.max(1)).all() and (probability[~free] == 1).all()


def test_the_twin_stops_at_its_end():
    end, pad = 3, 11

    def call(token: np.ndarray, position: int) -> np.ndarray:
        likeliest = end if position == 4 else 5
        return np.eye(SIZE, dtype=np.float32)[[likeliest] * len(token)]

    tokens, probability = decoding.left_to_right(call, [1, 2], np.zeros((2, 9)), 0.0, end, pad)
    assert tokens.tolist() == [[1, 2, 5, 5, 5, end, pad, pad, pad]] * 2
    assert (probability[:, :2] == 1).all() and (probability[:, 6:] == 1).all()


def test_the_orders_keep_their_places():
    """Exported graphs hold the numbers."""
    assert ORDERS == ("confidence", "left_to_right", "first_hitting", "entropy_bound")
