"""Captions far longer than the rest: named when they are read; cut, counted, by every reader alike."""

import numpy as np
import pytest
import torch

import evaluate
from base.files import UserError
from caption import lengths
from caption.data import CaptionData
from loop import checkpoint
from tests.making.captioned import by_hand, make_captioner

WORDS = ["a red ball", "two dogs run on grass", "a cat sleeps", "a boat on a lake"]
RECORDS = [
    {"image": f"{i}.png", "split": "val" if i > 9 else "train", "captions": [WORDS[i % 4], "a hen"]}
    for i in range(12)
]
LONG = {"image": "long.png", "split": "train", "captions": ["a dog", "a hen " * 300]}
LONG_VAL = {"image": "longval.png", "split": "val", "captions": ["a dog " * 300]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return by_hand(tmp_path_factory.mktemp("lengths") / "data", [*RECORDS, LONG, LONG_VAL])


@pytest.mark.parametrize(
    "values, far",
    [
        ([5] * 11 + [9000], [11]),
        ([5] * 10 + [9000, 8000], [10, 11]),
        ([5, 6, 7, 20], []),  # at most 4 times the median
        ([5], []),
        ([5] * 100_000 + [21] * 3 + [20], [100_000, 100_001, 100_002]),
        ([5] * 900 + [30] * 100, list(range(900, 1000))),  # equal lengths are named together
    ],
)
def test_which_captions_are_far_longer(values, far):
    assert lengths.far_longer(np.array(values)).tolist() == far


def test_they_are_named_with_the_length_that_cuts_them(folder, capsys):
    tokenizer = CaptionData(folder, "val").tokenizer
    lengths.name_long([*RECORDS, LONG], tokenizer)
    said = capsys.readouterr().err
    rest = max(len(tokenizer.encode(text)) for text in [*WORDS, "a hen"]) + 2
    assert "note: 1 of 26 captions far longer than the rest: up to " in said
    assert (
        f"--max_length {rest} of train_captioning.py cuts them (the first: long.png, 'a hen a hen"
        in said
    )
    lengths.name_long(RECORDS, tokenizer)
    assert capsys.readouterr().err == ""
    lengths.note_long(CaptionData(folder, "train"))
    assert "1 of 22 captions far longer than the rest: up to 603 tokens" in capsys.readouterr().err


def test_a_cut_caption_is_the_beginning_of_the_whole(folder, capsys):
    whole, data = CaptionData(folder, "train"), CaptionData(folder, "train")
    lengths.cut(data, whole.longest)
    assert capsys.readouterr().err == "" and data.longest == whole.longest
    lengths.cut(data, 12)
    said = capsys.readouterr().err
    assert f"train: 1 of 22 captions are cut to 12 tokens; the longest has {whole.longest}" in said
    assert "the first: long.png" in said
    for before, after in zip(whole.tokens, data.tokens, strict=True):
        for one, other in zip(before, after, strict=True):
            kept = one if len(one) <= 12 else torch.cat([one[:11], one[-1:]])
            assert torch.equal(kept, other)
    # As a folder that is read with a limit.
    limited = CaptionData(folder, "train", max_length=12)
    assert np.array_equal(limited.texts.ids, data.texts.ids)
    with pytest.raises(UserError, match="--max_length 2; expected at least 3"):
        lengths.cut(data, 2)


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_training_and_evaluation_cut_alike(folder, tmp_path, capsys, objective):
    flags = ["--objective", objective]
    run = make_captioner(folder, tmp_path / "run", *flags, "--max_length", "12")
    said = capsys.readouterr().err
    assert "train: 1 of 22 captions are cut to 12 tokens" in said
    assert "val: 1 of 5 captions are cut to 12 tokens" in said
    saved = checkpoint.load(run / "best.pt", kinds=("caption",))
    assert saved["model"]["max_length"] == 12
    make_captioner(folder, run, "--resume", "--max_steps", "5")
    assert "train: 1 of 22 captions are cut to 12 tokens" in capsys.readouterr().err
    words = ["--checkpoint", str(run / "best.pt"), "--data_dir", str(folder), "--splits", "val"]
    evaluate.main([*words, "--device", "cpu", "--threads", "1"])
    assert "val: 1 of 5 captions are cut to 12 tokens" in capsys.readouterr().err
