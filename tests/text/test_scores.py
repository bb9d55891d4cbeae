"""Scores of text: every estimator has the same mean, a file scores like its folder."""

import pytest

from base.files import UserError
from tests.making.scored import scored
from text.data import TextData


def test_estimators_agree_and_the_seed_decides(text_runs, tmp_path):
    """Every schedule estimates the same bound."""
    count, again, linear, cosine = (
        scored(
            text_runs.denoiser, text_runs.data, tmp_path, "--draws", 64, "--estimator", estimator
        )["nats_per_token"]
        for estimator in ("count", "count", "linear", "cosine")
    )
    assert count == again
    assert linear == pytest.approx(count, rel=0.03) and cosine == pytest.approx(count, rel=0.03)


def test_a_text_file_scores_like_its_data_folder(text_runs, tmp_path):
    data = TextData(text_runs.data, "val", 48)
    texts = []
    for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        texts.append(data.tokenizer.decode(data.tokens[start:end]))
    path = tmp_path / "text.txt"
    path.write_text("\n===\n".join(texts))
    words = ("--text", path, "--separator", "===")
    folder = scored(text_runs.twin, text_runs.data, tmp_path)
    assert scored(text_runs.twin, text_runs.data, tmp_path, *words) == folder
    path.write_text(" ")
    with pytest.raises(UserError, match="no text in"):
        scored(text_runs.denoiser, text_runs.data, tmp_path, "--text", path)
