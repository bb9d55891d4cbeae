"""Unmasking on a terminal: the text after each call of the denoiser, one frame after another."""

import functools
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from base import system
from base.tokenizer import Tokenizer

FRAMES_IN_A_FILE = 12  # where nothing moves, a dozen frames tell the story
MASK = "·"
BRIGHT = "\033[1;33m"
BOLD = "\033[1m"
DIM = "\033[2m"
PLAIN = "\033[0m"
CLEAR = "\033[2J\033[H"  # the screen, and the cursor to its corner


def play(frames: Sequence[Sequence[int]], tokenizer: Tokenizer, delay: float) -> None:
    """Print the frames of one text. frames: the ids (n,) after each call. delay: seconds per frame.

    A terminal shows all of them in one place, new tokens bright and masks dim. A pipe or a file
    gets a dozen frames below each other, without colours.
    """
    live = sys.stdout.isatty()
    system.understand_colours()
    before: Sequence[int] = ()
    for number in shown(len(frames), live):
        frame = frames[number]
        if live:
            print(CLEAR, end="")
        print(f"[{number + 1}/{len(frames)}] {line(frame, before, tokenizer, live)}\n", flush=True)
        if live:
            before = frame
            time.sleep(delay)


def player(tokenizer: Tokenizer, delay: float) -> Callable[[Sequence[Sequence[int]]], None]:
    """`play` with its tokenizer and its delay, for frames that come later."""
    return functools.partial(play, tokenizer=tokenizer, delay=delay)


def shown(count: int, live: bool) -> list[int]:
    """The numbers of the frames to print: all on a terminal, else a dozen from the first to the
    last.
    """
    if live or not count:
        return list(range(count))
    # unique: a text of fewer frames than a dozen would show some of them twice.
    return np.unique(np.linspace(0, count - 1, FRAMES_IN_A_FILE).astype(int)).tolist()


def line(frame, before, tokenizer: Tokenizer, live: bool) -> str:
    """One frame as text. before: the last frame, from which the new tokens are told.

    Without a frame of the same length before it, as in a text that grows, no token is told as new.
    """
    # These tokens frame a text and have no letters.
    hidden = (tokenizer.bos, tokenizer.eos, tokenizer.pad)
    text = ""
    for place, id in enumerate(frame):
        if id in hidden:
            continue
        if id == tokenizer.mask:
            text += DIM + MASK + PLAIN if live else MASK
        elif live and len(before) == len(frame) and before[place] == tokenizer.mask:
            text += BRIGHT + tokenizer.piece(id) + PLAIN
        else:
            text += tokenizer.piece(id)
    return text


def marked(segments: list[tuple[str, bool]]) -> str:
    """A text whose written pieces are bold on a terminal, and between ‹ › elsewhere.

    segments: pieces of the text, and whether each was written. Spaces around a piece stay outside.
    """
    system.understand_colours()
    left, right = (BOLD, PLAIN) if sys.stdout.isatty() else ("‹", "›")
    text = ""
    for piece, written in segments:
        core = piece.strip()
        if written and core:
            before, after = piece.split(core, 1)
            piece = before + left + core + right + after
        text += piece
    return text
