"""Prints a text while it is written: each finished block at once."""

import torch

CUT = "\ufffd"  # what a decoder writes for a part of a character


class Stream:
    """A `block_writing.Finished` for a single row: prints what is new before the next blank."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.printed = ""

    def __call__(self, tokens: torch.Tensor) -> None:
        """tokens: (1, L), a [MASK] in each place that is not written yet."""
        (row,) = tokens.tolist()
        end = row.index(self.tokenizer.mask) if self.tokenizer.mask in row else len(row)
        text = self.tokenizer.decode(row[:end])
        if end < len(row):
            # The last token may hold a part of a character, whose rest comes with the next block.
            text = text.rstrip(CUT)
        print(text[len(self.printed) :], end="", flush=True)
        self.printed = text
