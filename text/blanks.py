"""Templates of conditional models: given tokens, blanks between them, and the blanks' lengths."""

from dataclasses import dataclass

import numpy as np

from base import templates
from base.files import UserError
from base.tokenizer import Tokenizer
from text.forms import Pair, arrange


@dataclass
class Template:
    """A text with k blanks.

    given: k + 1 arrays of ids, as in forms.Pair. lengths: tokens of each blank, None if free. kind:
    the kind of training pairs whose lengths a free blank gets.
    """

    given: list[np.ndarray]
    lengths: list[int | None]
    kind: str

    def pair(self, lengths: list[int], tokenizer: Tokenizer) -> Pair:
        """The pair with [MASK]s in its blanks, as many as `lengths` says."""
        return Pair(self.given, [np.full(n, tokenizer.mask) for n in lengths], self.kind)


def read_template(text: str, tokenizer: Tokenizer) -> Template:
    """A text with blanks: [MASK] is one token, [MASK*20] twenty, [MASK*] a free number.

    Raises UserError if it has no blank, a wrong blank, or blanks side by side.
    """
    texts, lengths = templates.split(text, free=True)
    given = [tokenizer.encode(piece).tolist() for piece in texts]
    if not all(given[1:-1]) and len(given) > 2:
        raise UserError(
            f"the template {text!r}, with blanks side by side",
            "a word between them",
            "make them one blank",
        )
    given[0].insert(0, tokenizer.bos)
    given[-1].append(tokenizer.eos)
    kind = "continue" if len(lengths) == 1 and len(given[1]) == 1 else "blanks"
    return Template([np.array(piece, dtype=np.int64) for piece in given], lengths, kind)


def read_prompt(
    prompt: str | None, ending: str | None, tokenizer: Tokenizer, length: int = 0
) -> Template:
    """A beginning, a blank, and perhaps an ending. length: the blank's tokens, 0: free.

    Raises UserError if the beginning is missing, or a text is empty.
    """
    if prompt is None:
        raise UserError("an ending without a prompt", "a beginning", "give it with --prompt")
    if not prompt.strip():
        raise UserError("an empty --prompt", "a beginning", "give it with --prompt")
    if ending is not None and not ending.strip():
        raise UserError("an empty --ending", "a last sentence", "give it, or drop --ending")
    last = [tokenizer.eos]
    if ending:
        # Byte-level BPE keeps a space at the front of a word, as in the training text.
        spaced = ending if ending[0].isspace() else " " + ending
        last = [*tokenizer.encode(spaced), tokenizer.eos]
    # rstrip: the space belongs to the next word's token, which the model writes.
    first = [tokenizer.bos, *tokenizer.encode(prompt.rstrip())]
    given = [np.array(first, dtype=np.int64), np.array(last, dtype=np.int64)]
    return Template(given, [length or None], "middle" if ending else "continue")


def room(template: Template, form: str, tokenizer: Tokenizer, max_length: int) -> int:
    """How many tokens the free blanks may hold together.

    Raises UserError if the template is longer than the model's rows, `max_length` tokens.
    """
    row = arrange(template.pair([n or 0 for n in template.lengths], tokenizer), form, tokenizer)
    free = sum(n is None for n in template.lengths)
    left = max_length - len(row.ids)
    if left < free or len(row.condition) > max_length:
        given = sum(map(len, template.given))
        to_fill = sum(n or 1 for n in template.lengths)
        raise UserError(
            f"a template of {given} given tokens and {to_fill} to fill",
            f"at most {max_length} together, the model's length",
            "shorten the prompt, or the blanks",
        )
    return left


def draw_lengths(
    template: Template, histograms: dict, left: int, rng: np.random.Generator
) -> list[int]:
    """A length for every blank: its own, or a draw from the training pairs' lengths that fits.

    histograms: for each kind of pair, how many blanks had each length. left: tokens for the free
    blanks together, from `room`.
    """
    lengths = []
    later = sum(n is None for n in template.lengths)  # free blanks that still need a token each
    for n in template.lengths:
        if n is None:
            # Each later blank keeps room for one token at least.
            later -= 1
            count = np.array(histograms[template.kind], dtype=float)[: left - later + 1]
            count[0] = 0
            if not count.sum():  # less is left than any blank in training has
                count = np.arange(left - later + 1, dtype=float) > 0
            n = int(rng.choice(len(count), p=count / count.sum()))
            left -= n
        lengths.append(n)
    return lengths
