"""Filling by conversation: texts are typed, filled, edited word by word and filled again."""

import re
import sys
from collections.abc import Callable
from typing import Protocol

import numpy as np

from base.files import UserError
from base.tokenizer import Tokenizer
from show import terminal
from text.blanks import Template
from text.writer import Filled

HELP = """A text with blanks fills them; a text without blanks is continued.
An empty line: fill again.   =N WORD: make word N this word and fill the rest again.
?: number the words.   q: quit."""

Segments = list[tuple[str, bool]]  # pieces of a text, and whether each was written into a blank


class Filler(Protocol):
    """What fills: a model with its settings."""

    tokenizer: Tokenizer

    def template(self, text: str) -> Template:
        """The template in a typed text."""

    def fill(self, template: Template, seed: int) -> list[Filled]:
        """The filled texts."""


def talk(filler: Filler, seed: int, play: Callable[[list[list[int]]], None] | None = None) -> None:
    """Read lines from standard input until it ends; a mistake is answered and nothing is lost.

    seed: of the first filling; an empty line takes the next seed. play: shows the frames of a text.
    """
    # flush: a program that reads our output through a pipe must see each answer at once.
    print(HELP, flush=True)
    text = ""
    segments: Segments = []
    # No prompt is printed, so lines may come from a file or a pipe as well.
    for line in sys.stdin:
        line = line.rstrip("\n")
        if line == "q":
            return
        if line == "?":
            print(numbered(segments), flush=True)
            continue
        try:
            if edit := re.match(r"=(\d+) (\S.*)", line):
                text = edited(segments, int(edit[1]), edit[2].strip(), filler.tokenizer)
            elif line.strip():
                # A line holds no line break, so a typed backslash and an n stand for it.
                text = line.replace("\\n", "\n")
            elif text:
                # Only a repeated filling needs another seed. An edit keeps the seed, so the
                # change comes from the edit alone.
                seed += 1
            else:
                continue
            template = filler.template(text)
            for filled in filler.fill(template, seed):
                segments = filled.segments(template, filler.tokenizer)
                if play:
                    play(filled.frames)
                print(terminal.marked(segments))
                print(f"  ({filled.calls} calls, {filled.nats:.2f} nats per token)", flush=True)
        # Only mistakes of the user are answered here; a fault of the program must still be seen.
        except UserError as error:
            print(f"error: {error}", flush=True)


def numbered(segments: Segments) -> str:
    """The words of a text with their numbers, from 1."""
    # Split at white space, as `edited` does: both must count the same words.
    words = "".join(piece for piece, _ in segments).split()
    return "  ".join(f"{number} {word}" for number, word in enumerate(words, 1))


def edited(segments: Segments, number: int, word: str, tokenizer: Tokenizer) -> str:
    """The template in which word `number` (from 1) is `word` and given.

    Everything else that was written becomes blanks of the same length in tokens. Raises UserError
    if there is no such word.
    """
    text = "".join(piece for piece, _ in segments)
    # A flag per character, not per token: words and tokens have different edges.
    # `or [[]]`: np.concatenate raises on an empty list, which a first `=1 word` would give it.
    blank = np.concatenate([np.full(len(piece), written) for piece, written in segments] or [[]])
    # With the white space before it, as byte-level BPE cuts words.
    words = list(re.finditer(r"\s?\S+", text))
    if not 1 <= number <= len(words):
        raise UserError(f"word {number}", f"1 to {len(words)}", "choose one of these")
    start, end = words[number - 1].span()
    # The new word keeps its white space, so a line break before it stays.
    new = (text[start] if text[start].isspace() else "") + word
    text = text[:start] + new + text[end:]
    blank = np.concatenate([blank[:start], np.zeros(len(new), dtype=bool), blank[end:]])
    edges = np.flatnonzero(np.diff(blank)) + 1  # characters where given and written text meet
    template = ""
    for left, right in zip([0, *edges], [*edges, len(text)], strict=True):
        piece = text[left:right]
        if blank[left]:
            space = " " if piece[0] == " " else ""  # the blank's first token brings its own space
            piece = f"{space}[MASK*{len(tokenizer.encode(piece))}]"
        template += piece
    return template
