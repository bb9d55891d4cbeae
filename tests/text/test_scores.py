"""Scores of text: every estimator has the same mean, a file scores like its folder."""

import pytest

from base.files import UserError
from tests.making.runs import as_block_model
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


def test_a_block_model_is_scored_at_every_size(text_runs, tmp_path, capsys):
    """From one checkpoint. A single block scores as the plain denoiser does, figure for figure."""
    path = as_block_model(text_runs.denoiser, "1,8,48", tmp_path / "blocks.pt")
    plain = scored(text_runs.denoiser, text_runs.data, tmp_path)
    capsys.readouterr()
    result = scored(path, text_runs.data, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    one, eight, whole = result["by_block_size"]
    assert [row["block_size"] for row in (one, eight, whole)] == [1, 8, 48]
    for name in ("nats_per_token", "bits_per_byte", "bits_per_byte_ci95", "masked_accuracy"):
        assert whole[name] == pytest.approx(plain[name], rel=1e-9)
    lengths = [row["length_nats_per_token"] for row in (one, eight, whole)]
    assert lengths[0] == 0 < lengths[1] < lengths[2]
    assert any(line.startswith(f"| 8 | {eight['bits_per_byte']:.4f} [") for line in lines)
    again = scored(path, text_runs.data, tmp_path, "--draws", 2, "--seed", 5)["by_block_size"]
    assert again[0] == one and again[1] != eight  # block size 1 draws nothing
    with pytest.raises(UserError, match="--estimator cosine for a block model"):
        scored(path, text_runs.data, tmp_path, "--estimator", "cosine")


def test_samples_of_a_block_model(text_runs, tmp_path):
    path = as_block_model(text_runs.denoiser, "1,8", tmp_path / "blocks.pt")
    words = ["--samples", "--num_samples", 2, "--min_tokens", 10, "--step_counts", 48]
    rows = scored(path, text_runs.data, tmp_path, *words, "--samplers", "first_hitting")["samples"]
    assert len(rows) == 2 and rows[1]["calls"] > 8
    with pytest.raises(UserError, match="--block_size 4 .* one of 1, 8"):
        scored(path, text_runs.data, tmp_path, *words, "--block_size", 4)
