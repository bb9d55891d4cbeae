"""Templates of conditional models: blanks are read, and free blanks get lengths that fit."""

import numpy as np
import pytest

from base.files import UserError
from base.tokenizer import Tokenizer
from text import blanks


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a red hen. Dan had a cat and was glad."] * 20, 300)


def test_templates(tokenizer):
    read = lambda text: blanks.read_template(text, tokenizer)
    one = read("Ann had a [MASK*3] and [MASK] was[MASK*].")
    assert (
        one.lengths == [3, 1, None]
        and one.kind == "blanks"
        and read("Ann had [MASK*]").kind == "continue"
    )
    assert [tokenizer.decode(piece) for piece in one.given] == ["Ann had a", " and", " was", "."]
    assert one.given[0][0] == tokenizer.bos and one.given[-1][-1] == tokenizer.eos
    for text in ("no blank", "[MASK*0]", "[MASK*2", "a [MASK*x]", "", "a [MASK][MASK*2] b"):
        with pytest.raises(UserError):
            read(text)
    two = blanks.read_prompt("Ann had a cat. ", "They were glad.", tokenizer)
    assert (two.kind, two.lengths) == ("middle", [None]) and tokenizer.decode(
        two.given[1]
    ) == " They were glad."
    for prompt, ending, message in (
        (" ", None, "empty --prompt"),
        (None, "x", "ending without a prompt"),
        ("x", " ", "empty --ending"),
    ):
        with pytest.raises(UserError, match=message):
            blanks.read_prompt(prompt, ending, tokenizer)


def test_drawn_lengths_fit_what_is_left(tokenizer):
    """Each blank gets a length that training blanks had, and leaves a token for each blank after it."""
    template = blanks.read_template("Ann [MASK*] a [MASK*2] hen [MASK*].", tokenizer)
    left = blanks.room(template, "context", tokenizer, 40)
    histogram = [0] * 5 + [3, 1] + [0] * 20 + [9]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first, second, third = blanks.draw_lengths(template, {"blanks": histogram}, left, rng)
        assert second == 2 and {first, third} <= {5, 6, 27} and first + third <= left
    rng = np.random.default_rng(0)
    tight = blanks.draw_lengths(template, {"blanks": histogram}, 4, rng)
    assert min(tight) >= 1 and tight[0] + tight[2] <= 4


def test_a_template_must_fit_the_model(tokenizer):
    template = blanks.read_prompt("Ann had a cat. " * 20, None, tokenizer)
    with pytest.raises(UserError, match="at most 40 together"):
        blanks.room(template, "context", tokenizer, 40)
