"""Seeds: each random stream of the project follows from the user's --seed through a function here.

A stream belongs to a place: a row of a batch, or a step of a training run. The same place gets the
same numbers on every machine, whatever the batch size and whatever ran before. So a row draws alone
what it draws in company, and a run that was stopped continues as if it had never stopped.

The multipliers are odd, in fact prime: two places get equal seeds only if their differences cancel
exactly. Two rows of neighbouring seeds cannot meet before row 1,000,003. Changing a multiplier
changes every sample and every training run, so the numbers stay.
"""

import numpy as np

PER_SEED = 1_000_003
PER_STEP = 10_007
PER_STREAM = 7_919
PLANS = (
    15_485_863  # added to a seed for the plans of pictures, whose rows have the pictures' numbers
)

# torch.Generator.manual_seed takes 64 bits with a sign.
TORCH_SEEDS = 2**63
# Both torch's generator and numpy's RandomState are MT19937, which is seeded by 32 bits.
MT19937_SEEDS = 2**32


def row_seed(seed: int, row: int) -> int:
    """The seed of one row (a sample, a caption, a batch of an evaluation), counted from 0."""
    return seed * PER_SEED + row


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """The seed of one training step for the noise: stream 0 for its first micro-batch, 1 for the
    noise levels, then a stream per further micro-batch."""
    return (seed * PER_SEED + step * PER_STEP + stream * PER_STREAM + 1) % TORCH_SEEDS


def dropout_seed(seed: int, step: int, stream: int = 0) -> int:
    """The seed of one training step for dropout, which draws from torch's global generator."""
    return seed * PER_SEED + step + stream * PER_STREAM


def row_uniforms(seed: int, rows: int, first: int, count: int) -> np.ndarray:
    """`count` uniform numbers for each row, from row number `first` on: (rows, count) float64.

    They are the numbers that torch.rand(dtype=float64) draws from a generator with `row_seed`, so a
    bundle without torch writes the same texts. torch keeps the low 53 bits of two 32-bit words.
    """
    result = np.empty((rows, count))
    for row in range(rows):
        generator = np.random.RandomState(row_seed(seed, first + row) % MT19937_SEEDS)
        # With this range and type numpy gives the generator's 32-bit words unchanged.
        words = generator.randint(0, 2**32, 2 * count, np.uint32).astype(np.uint64)
        whole = words[0::2] << np.uint64(32) | words[1::2]
        # A float64 holds 53 bits exactly, so the quotient is not rounded.
        result[row] = (whole & np.uint64(2**53 - 1)) / 2.0**53
    return result
