"""Controls of time: the frames of each clip in another order, judged against the right program."""

import numpy as np
import torch

from caption import moving
from worlds import motion, motion_language, motion_sampling

T, P = 4, 3


def test_frames_are_reordered():
    features = torch.arange(2.0 * T * P).view(2, T * P, 1)
    turned = moving.reorder(features, moving.backwards(T)(np.arange(2)))
    assert turned[1, :P, 0].tolist() == [21, 22, 23] and turned[0, -P:, 0].tolist() == [0, 1, 2]
    middle = moving.reorder(features, moving.one_frame(T)(np.arange(2)))
    assert middle[0, :, 0].tolist() == [6, 7, 8] * T
    as_they_are = np.tile(np.arange(T), (2, 1))
    assert torch.equal(moving.reorder(features, as_they_are), features)


def test_a_shuffled_clip_does_not_depend_on_its_batch():
    orders = moving.shuffled(8, seed=3)
    together = orders(np.arange(5))
    assert np.array_equal(together[3:4], orders(np.array([3])))
    assert (np.sort(together) == np.arange(8)).all() and len({tuple(row) for row in together}) > 1


def test_controls_are_judged_by_what_is_shown():
    """Captions of the reversed clips are true in the row `reversed`, and nowhere else."""
    programs = [motion_sampling.sample(2, "swap_time", number) for number in range(0, 12, 2)]
    records = [{"program": program.to_dict()} for program in programs]
    backwards = [
        motion_language.describe(motion.reverse(program), np.random.default_rng(0))
        for program in programs
    ]
    figures = moving.controls(lambda orders, name: backwards, records, 8, seed=0)
    assert set(figures) == {"one frame", "shuffled", "reversed"}
    assert figures["reversed"]["set_exact"] == figures["reversed"]["event_recall"] == 1
    assert figures["shuffled"]["truthful"] == figures["one frame"]["truthful"] == 0
