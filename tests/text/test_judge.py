"""The judge's figure is its own likelihood, and its tokens need not be the writer's."""

import numpy as np
import pytest

from base.files import UserError
from loop import checkpoint
from tests.making.corpus import make_data
from text.data import TextData
from text.judge import Judge, open_judge


def test_the_judge_of_held_out_text_is_the_twins_likelihood(text_runs):
    judge = open_judge(text_runs.twin, "cpu")
    texts = list(TextData(text_runs.data, "val", 48).whole_rows())
    alone = [judge.nats_per_token([ids], judge.tokenizer) * (len(ids) - 1) for ids in texts]
    predicted = np.mean([len(ids) - 1 for ids in texts])
    together = judge.nats_per_token(texts, judge.tokenizer) * predicted
    assert np.mean(alone) == pytest.approx(together, rel=1e-5)


def test_a_judge_reads_the_letters_of_another_tokenizers_text(text_runs, tmp_path):
    """The same held-out texts, in tokens of two tokenizers, are the same texts to the judge."""
    judge = open_judge(text_runs.twin, "cpu")
    writer = TextData(make_data(tmp_path / "other", vocab_size=280), "val", 96)
    assert writer.tokenizer.fingerprint != judge.tokenizer.fingerprint
    same, other = TextData(text_runs.data, "val", 96), list(writer.whole_rows())
    read = [judge.read(ids, writer.tokenizer) for ids in other]
    longest = judge.model.config.max_length
    letters = {judge.tokenizer.decode(ids): ids[:longest].tolist() for ids in same.whole_rows()}
    assert len(read) > 2
    for ids, own in zip(other, read, strict=True):
        assert own.tolist() == letters[writer.tokenizer.decode(ids)]
    figure = judge.nats_per_token(other, writer.tokenizer)
    assert figure == judge.nats_per_token(read, judge.tokenizer)
    # An unfinished text stays unfinished.
    assert judge.read(other[0][:-1], writer.tokenizer)[-1] != judge.tokenizer.eos


def test_only_a_twin_judges(text_runs):
    with pytest.raises(UserError, match="an autoregressive twin"):
        open_judge(text_runs.denoiser, "cpu")
    model, tokenizer, _ = checkpoint.open_model(text_runs.twin)
    assert Judge(model, tokenizer).read(np.array([1, 2]), tokenizer).tolist() == [1, 2]
