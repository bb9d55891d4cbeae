"""Batches on their device, and noise that depends on the step alone."""

import torch

from loop.batches import (
    step_generator,
    stream_of,
    to_device,
    with_block_sizes,
    with_noise,
    with_noise_levels,
    with_soft_steps,
)

CPU = torch.device("cpu")


def micro_batches(*sizes: int) -> list[dict]:
    return [{"tokens": torch.zeros(size, 4, dtype=torch.int64)} for size in sizes]


def test_the_first_token_and_the_padding_are_not_predicted():
    batch = {"tokens": torch.arange(8).view(2, 4), "lengths": torch.tensor([4, 2])}
    tokens, lengths, free = to_device(batch, CPU)
    assert torch.equal(tokens, batch["tokens"]) and lengths.tolist() == [4, 2]
    assert free.tolist() == [[False, True, True, True], [False, True, False, False]]
    batch["lengths"] = torch.tensor([4, 4])
    assert to_device(batch, CPU)[1] is None  # no padding: nothing to leave out of the attention


def test_streams_of_a_step_are_apart():
    """Stream 1 draws the noise levels, so no micro-batch has it."""
    assert [stream_of(number) for number in range(3)] == [0, 2, 3]
    drawn = {
        torch.rand(1, generator=step_generator(seed, step, stream)).item()
        for seed in range(3)
        for step in range(3)
        for stream in range(3)
    }
    assert len(drawn) == 27


def test_accumulation_keeps_the_noise_levels():
    """One stratified draw over the step: a level in each eighth, however the rows are divided."""
    whole = with_noise_levels(micro_batches(8), step_generator(3, 5, stream=1))[0]["uniform"]
    parts = with_noise_levels(micro_batches(2, 2, 4), step_generator(3, 5, stream=1))
    assert torch.equal(whole, torch.cat([part["uniform"] for part in parts]))
    assert (whole * 8).floor().sort().values.tolist() == list(range(8))


def test_a_later_stage_continues_the_steps():
    made = []

    def batches(step):
        made.append(step)
        return micro_batches(2)

    levels = with_noise(batches, seed=1)(7)[0]["uniform"]
    assert torch.equal(with_noise(batches, seed=1, first_step=5)(2)[0]["uniform"], levels)
    assert made == [7, 7]


def test_a_step_has_a_block_size_of_its_own():
    """The same for all its micro-batches, drawn from (seed, step); all sizes are about as frequent."""
    batches = with_block_sizes(lambda step: micro_batches(2, 2), 3, [1, 4, 16])
    sizes = [{batch["block_size"] for batch in batches(step)} for step in range(300)]
    assert all(len(size) == 1 for size in sizes) and batches(7) is not batches(7)
    assert [sizes.count({size}) > 70 for size in (1, 4, 16)] == [True] * 3
    assert sizes[5] == {batch["block_size"] for batch in batches(5)}


def test_soft_steps_are_a_function_of_seed_and_step():
    """All micro-batches of a step agree, and the noise levels are those without soft masks."""
    batches = with_soft_steps(lambda step: micro_batches(2, 2), 3, 0.8)
    chosen = [[batch["soft"] for batch in batches(step)] for step in range(400)]
    assert all(len(set(step)) == 1 for step in chosen)
    assert chosen == [[batch["soft"] for batch in batches(step)] for step in range(400)]
    assert 0.74 < sum(step[0] for step in chosen) / 400 < 0.86
    always = with_soft_steps(lambda step: micro_batches(2, 2), 3, 1.0)
    assert all(batch["soft"] for step in range(50) for batch in always(step))
