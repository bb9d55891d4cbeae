"""The rows that generate.py fills: [MASK] in each place that is to be written."""

import numpy as np

from base.files import UserError
from base.templates import LONGEST, blank_rows, template_row

SHORTEST = 3  # [BOS], a token, [EOS]


def make_rows(story, tokenizer, saved: dict, max_length: int, size: int) -> list[list[int]]:
    """The ids of each sample before writing.

    story: the flags num_samples, length, template, open_end and seed. saved: the checkpoint.
    size: tokens of a block, or 0 if texts are written as a whole.
    """
    if story.template is not None:
        row = template_row(story.template, tokenizer, max_length, open_end=story.open_end)
        return [row] * story.num_samples
    rows = [
        blank_rows([length], tokenizer)[0].tolist()
        for length in sample_lengths(story, saved, max_length, size)
    ]
    if story.open_end or size == 1:
        for row in rows:
            # The last place holds [EOS], which would end the text.
            row[-1] = tokenizer.mask
    return rows


def sample_lengths(story, saved: dict, max_length: int, size: int) -> list[int]:
    """The length of each sample: --length, or a draw of its own from the lengths of training rows.

    The twin ends its texts itself, so it gets the model's whole length. So do blocks of one token.
    Texts in blocks may be longer than the model's length.
    """
    longest = LONGEST if size else max_length
    if story.length and not SHORTEST <= story.length <= longest:
        of = "" if size else ", the model's length"
        raise UserError(
            f"--length {story.length}", f"{SHORTEST} to {longest}{of}", "choose such a length"
        )
    if story.length or saved["objective"] == "ar" or size == 1:
        return [story.length or max_length] * story.num_samples
    counts = np.asarray(saved["statistics"]["row_lengths"], dtype=float)[: max_length + 1]
    # Shorter rows hold no token that could be written.
    counts[:SHORTEST] = 0
    lengths = []
    for number in range(story.num_samples):
        # A generator per sample: --num_samples does not change the first lengths.
        rng = np.random.default_rng((story.seed, number))
        lengths.append(int(rng.choice(len(counts), p=counts / counts.sum())))
    return lengths
