"""The loop graph and its counterpart in numpy write the same, token for token."""

import numpy as np
import pytest

from base.config import SampleConfig
from base.runtime import Runner


@pytest.fixture(scope="module")
def runners(bundled):
    """With the loop graph, and with the step graph that numpy drives."""
    return Runner(bundled.bundle), Runner(bundled.bundle, for_tensorrt=True)


@pytest.mark.parametrize(
    "rows, settings",
    [
        (1, SampleConfig("confidence", 3, "cosine", 0.0)),
        (3, SampleConfig("threshold", 9, temperature=0.0, threshold=0.004)),
        (5, SampleConfig("left_to_right", 4, temperature=1.0)),
        (8, SampleConfig("first_hitting", 40, "polynomial", 0.7)),
        (2, SampleConfig("entropy_bound", 9, temperature=0.0, entropy_bound=3.0)),
    ],
    ids=lambda value: getattr(value, "sampler", value),
)
def test_every_sampler(bundled, runners, rows, settings):
    """Tokens, steps, probabilities and the number of calls, at odd batch sizes."""
    loop, step = runners
    images = np.load(bundled.bundle / "golden.npz")["images"][:rows]
    condition, lengths = loop.condition(images)
    tokens, lengths = loop.blanks(lengths, None)
    ours = loop.fill(tokens, lengths, condition, settings, 3)
    theirs = step.fill(tokens, lengths, condition, settings, 3)
    assert (ours[0] == theirs[0]).all()
    assert (ours[1] == theirs[1]).all()
    assert np.allclose(ours[2], theirs[2], atol=1e-5)
    assert (ours[3] == theirs[3]).all()
    assert not (ours[0] == loop.tokenizer.mask).any()
