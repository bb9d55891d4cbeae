"""Templates: texts with blanks, and the rows of tokens that a denoiser fills.

    "a [MASK] red [MASK*3]"    a blank of one token, and a blank of three
    "She went to the [MASK*]"  a blank of free length, where the command can choose the length

A row is [BOS], given tokens and [MASK]s, [EOS], and [PAD] up to the length of its batch. The
letters "[MASK]" mean a blank in a template only; in any other text they are ordinary text.
"""

import re

import numpy as np

from base.files import UserError
from base.tokenizer import Tokenizer

# The space before a blank belongs to the blank's first token, as in the training texts.
BLANK = re.compile(r" ?\[MASK(?:\*(\d*))?\]")
BEGINNING = re.compile(r"\[MASK[^\]\s]*\]?")  # whatever looks like a blank, for the error
FREE = None  # the length of "[MASK*]"
LONGEST = 1 << 20  # tokens of a blank: more than any model holds


def split(text: str, *, free: bool = False) -> tuple[list[str], list[int | None]]:
    """The k + 1 texts around the k blanks of a template, and the blanks' lengths in tokens.

    free: whether "[MASK*]", whose length is FREE, is allowed. Raises UserError if there is no
    blank, or a wrong blank such as "[MASK*".
    """
    texts, lengths, end = [], [], 0
    for blank in BLANK.finditer(text):
        texts.append(text[end : blank.start()])
        lengths.append(blank_length(blank, free))
        end = blank.end()
    texts.append(text[end:])
    for piece in texts:
        if wrong := BEGINNING.search(piece):
            raise wrong_blank(wrong[0], free)
    if not lengths:
        raise UserError(f"the template {text!r} without a blank", *remedy(free))
    return texts, lengths


def blank_length(blank: re.Match, free: bool) -> int | None:
    """The tokens of a blank. Raises UserError for 0, and for a free length unless `free`."""
    digits = blank[1]
    if digits is None:
        return 1
    if digits == "" and free:
        return FREE
    # Python refuses to read thousands of digits. Nine digits are more than LONGEST already.
    length = min(int(digits[:9] or 0), LONGEST)
    if length == 0:
        raise wrong_blank(blank[0].strip(), free)
    return length


def wrong_blank(blank: str, free: bool) -> UserError:
    """The error for a blank that cannot be read."""
    return UserError(f"the blank {blank!r}", *remedy(free))


def remedy(free: bool) -> tuple[str, str]:
    """The second and the third part of an error about blanks: what is expected, what to do."""
    expected = "blanks such as [MASK], or [MASK*20] for twenty tokens"
    if free:
        expected += ", or [MASK*] for a free length"
    return expected, "mark what is to be filled"


def template_row(
    text: str, tokenizer: Tokenizer, max_length: int, *, open_end: bool = False
) -> list[int]:
    """The row of a template: [BOS], the given tokens with [MASK]s in the blanks, [EOS].

    open_end: no [EOS], so that the text may continue. Raises UserError for a wrong blank, or if the
    row has more than `max_length` tokens.
    """
    texts, blanks = split(text)
    lengths = [length for length in blanks if length is not FREE]  # all: none may be free here
    given = [tokenizer.encode(piece).tolist() for piece in texts]
    total = 1 + sum(map(len, given)) + sum(lengths) + (not open_end)
    if total > max_length:
        raise UserError(
            f"a template of {total} tokens",
            f"at most {max_length}, the model's length",
            "shorten it or its blanks",
        )
    ids = [tokenizer.bos]
    for tokens, length in zip(given, [*lengths, 0], strict=True):
        ids += tokens + [tokenizer.mask] * length
    return ids if open_end else [*ids, tokenizer.eos]


def blank_rows(lengths, tokenizer: Tokenizer, width: int = 0) -> np.ndarray:
    """Rows of [BOS], [MASK]s, [EOS] and then [PAD]: (B, L) int64.

    lengths: (B,) tokens per row, [BOS] and [EOS] included. width: L, if it is not the longest
    row's.
    """
    lengths = np.asarray(lengths)[:, None]  # (B, 1)
    position = np.arange(width or int(lengths.max()))  # (L,)
    rows: np.ndarray = np.where(position < lengths, tokenizer.mask, tokenizer.pad)
    rows[position == lengths - 1] = tokenizer.eos
    rows[:, 0] = tokenizer.bos
    return rows
