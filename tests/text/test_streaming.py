"""A stream prints every letter once, and no half of a character."""

import torch

from base.tokenizer import Tokenizer
from text.streaming import Stream


def test_what_is_printed_adds_up_to_the_text(capsys):
    text = "Ann saw a r\u00e9d h\u00e4n \u6f22 and a cat."
    tokenizer = Tokenizer.train(["Ann saw a red hen and a cat."] * 20, 280)
    ids = [tokenizer.bos, *tokenizer.encode(text).tolist(), tokenizer.eos]
    stream, printed = Stream(tokenizer), []
    for end in [*range(3, len(ids), 2), len(ids)]:
        row = ids[:end] + [tokenizer.mask] * (len(ids) - end)
        stream(torch.tensor([row]))
        printed.append(capsys.readouterr().out)
        assert "\ufffd" not in printed[-1]
    assert "".join(printed) == text and sum(map(bool, printed)) > 8
