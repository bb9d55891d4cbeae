"""Templates: blanks are read the same way everywhere, wrong blanks get the same message, rows have one layout."""

import pytest

from base.files import UserError
from base.templates import FREE, LONGEST, blank_rows, split, template_row
from base.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a red hen. The hen saw a red cat."] * 20, 280)


def test_texts_and_blanks():
    assert split("Ann [MASK] a [MASK*3]hen") == (["Ann", " a", "hen"], [1, 3])
    assert split("[MASK]") == (["", ""], [1])
    assert split("a [MASK*] b", free=True) == (["a", " b"], [FREE])
    assert split("a [MASK*" + "9" * 5000 + "]")[1] == [LONGEST]


@pytest.mark.parametrize("text", ["[MASK", "a [MASK*", "[MASK*x] [MASK]", "[MASK*0]", "[MASK 3]"])
@pytest.mark.parametrize("free", [False, True])
def test_a_wrong_blank_is_named(text, free):
    with pytest.raises(UserError, match=r"found the blank '\[MASK.*expected blanks such as"):
        split(text, free=free)


def test_a_free_blank_needs_a_command_that_chooses_its_length():
    with pytest.raises(UserError, match=r"found the blank '\[MASK\*\]'"):
        split("a [MASK*]")


@pytest.mark.parametrize("text", ["", "no blank", "[mask]", "MASK"])
def test_no_blank(text):
    with pytest.raises(UserError, match="without a blank"):
        split(text)


def test_the_row_of_a_template(tokenizer):
    encode = tokenizer.encode
    masks = [tokenizer.mask]
    row = template_row("Ann had [MASK*2] hen.", tokenizer, 48)
    given = [*encode("Ann had"), *masks * 2, *encode(" hen.")]
    assert row == [tokenizer.bos, *given, tokenizer.eos]
    assert template_row("Ann had [MASK*2] hen.", tokenizer, 48, open_end=True) == row[:-1]
    assert template_row("[MASK]", tokenizer, 3) == [tokenizer.bos, *masks, tokenizer.eos]
    for text in ("[MASK*2]", "[MASK*99999999999]", "Ann [MASK]"):
        with pytest.raises(UserError, match="at most 3, the model's length"):
            template_row(text, tokenizer, 3)


def test_rows_of_blanks(tokenizer):
    bos, mask, eos, pad = tokenizer.bos, tokenizer.mask, tokenizer.eos, tokenizer.pad
    short, long = [bos, mask, eos, pad, pad], [bos, mask, mask, mask, eos]
    assert blank_rows([3, 5], tokenizer).tolist() == [short, long]
    assert blank_rows([3], tokenizer, 5).tolist() == [short]
