"""The terminal's player: a dozen plain frames in a pipe, colours and every frame on a terminal."""

import sys

import pytest

from base.tokenizer import Tokenizer
from show import terminal


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a red hen"] * 20, 266)


@pytest.fixture
def frames(tokenizer):
    """A text of 30 tokens that is revealed from left to right."""
    ids = tokenizer.encode("a red hen " * 20).tolist()[:30]
    hidden = lambda count: ids[:count] + [tokenizer.mask] * (30 - count)
    return [[tokenizer.bos, *hidden(count), tokenizer.eos] for count in range(1, 31)]


def test_a_pipe_gets_a_dozen_plain_frames(tokenizer, frames, capsys):
    terminal.play(frames, tokenizer, delay=60)
    printed = capsys.readouterr().out.strip("\n").split("\n\n")
    assert len(printed) == 12 and "\033" not in "".join(printed)
    assert printed[0].startswith("[1/30] a") and printed[0].count("·") == 29
    assert printed[-1] == "[30/30] " + tokenizer.decode(frames[-1])


def test_a_terminal_gets_every_frame_in_colour(tokenizer, frames, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    terminal.play(frames, tokenizer, delay=0)
    printed = capsys.readouterr().out.split(terminal.CLEAR)[1:]
    assert len(printed) == 30
    assert terminal.BRIGHT not in printed[0]  # no frame before it: nothing is new
    assert all(frame.count(terminal.BRIGHT) == 1 for frame in printed[1:])


def test_nothing_to_play(tokenizer, capsys):
    terminal.play([], tokenizer, delay=0)
    assert capsys.readouterr().out == ""


def test_written_pieces_are_marked(monkeypatch):
    segments = [("Ann had", False), (" a cat\n", True), (" ", True), ("was glad.", False)]
    assert terminal.marked(segments) == "Ann had ‹a cat›\n was glad."
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert terminal.marked(segments) == "Ann had \033[1ma cat\033[0m\n was glad."
