"""Filling by conversation: typed lines, edits, mistakes that lose nothing."""

import io
import sys

import pytest

from base.files import UserError
from base.tokenizer import Tokenizer
from text import blanks, conversation
from text.writer import Filled


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a red hen. Dan had a cat and was glad."] * 20, 300)


def test_an_edited_word_is_given(tokenizer):
    segments = [("Ann had", False), (" a cat and", True), (" was glad.", False)]
    count = lambda text: len(tokenizer.encode(text))
    assert (
        conversation.edited(segments, 4, "dog", tokenizer)
        == f"Ann had [MASK*{count(' a')}] dog [MASK*{count(' and')}] was glad."
    )
    assert (
        conversation.edited(segments, 1, "Ben", tokenizer)
        == f"Ben had [MASK*{count(' a cat and')}] was glad."
    )
    with pytest.raises(UserError, match="word 9"):
        conversation.edited(segments, 9, "x", tokenizer)


class Echo:
    """A filler that writes its seed's letter into each blank."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def template(self, text):
        if "[MASK" in text:
            return blanks.read_template(text, self.tokenizer)
        return blanks.read_prompt(text, None, self.tokenizer)

    def fill(self, template, seed):
        word = self.tokenizer.encode(" " + chr(ord("a") + seed)).tolist()
        return [Filled([], [], [], [[1], [2]], 1, [word] * len(template.lengths), 0.5)]


def test_lines_are_answered(tokenizer, monkeypatch, capsys):
    lines = ["", "=1 Ben", "Ann had [MASK] hen.", "", "?", "=1 Ben", "a [MASK", "q", "never read"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    played = []
    conversation.talk(Echo(tokenizer), 0, played.append)
    answers = capsys.readouterr().out.removeprefix(conversation.HELP + "\n").splitlines()
    figures = "  (1 calls, 0.50 nats per token)"
    assert answers[0].startswith("error: found word 1")  # nothing is written yet
    assert answers[1:5] == ["Ann had ‹a› hen.", figures, "Ann had ‹b› hen.", figures]
    assert answers[5] == "1 Ann  2 had  3 b  4 hen."
    assert answers[6:8] == ["Ben had ‹b› hen.", figures]
    assert answers[8].startswith("error: found the blank '[MASK'") and len(answers) == 9
    assert len(played) == 3
