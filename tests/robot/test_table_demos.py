"""The table's demonstrations: their words, and what a still's images show."""

import numpy as np

from base import words
from robot import table_demos
from robot.demos import Demos


def test_held_out_wordings_have_unknown_words():
    tokenizer = words.from_texts(table_demos.all_words())
    assert words.unknown(tokenizer, "raise the red star") == ["raise"]
    assert words.unknown(tokenizer, "put the red star to the left of the blue cross") == []


def test_free_choices_are_a_share_of_the_tasks():
    rng = np.random.default_rng(0)
    kinds = [table_demos.kind_of_task(Demos(free_choices=0.5), rng) for _ in range(400)]
    assert 160 < kinds.count("next_to") < 240
    before = rng.bit_generator.state
    assert table_demos.kind_of_task(Demos(), rng) == "train"
    assert rng.bit_generator.state == before
