"""The tool that measures a block model at every block size."""

import json

import pytest

from base.files import UserError
from tests.making.runs import as_block_model
from tools import block_line


def test_a_line_with_two_models_beside_it(text_runs, tmp_path, capsys):
    blocks = as_block_model(text_runs.denoiser, "1,8,48", tmp_path / "blocks.pt")
    out, picture = tmp_path / "line.json", tmp_path / "line.png"
    flags = ["--checkpoint", str(blocks), "--data_dir", str(text_runs.data), "--threads", "1"]
    flags += ["--denoiser", str(text_runs.denoiser), "--twin", str(text_runs.twin)]
    flags += ["--judge", str(text_runs.twin), "--json", str(out), "--picture", str(picture)]
    few = ["--documents", "4", "--draws", "8", "--texts", "2", "--min_tokens", "8"]
    block_line.main([*flags, *few, "--steps", "4,16", "--repeats", "1"])
    figures = json.loads(out.read_text())
    rows = {row["side"]: row for row in figures["rows"]}
    assert list(rows) == ["blocks of 1", "blocks of 8", "blocks of 48", "plain denoiser", "twin"]
    # It is the plain denoiser's network: a block of all tokens has the plain bound.
    whole, plain = rows["blocks of 48"], rows["plain denoiser"]
    assert whole["bits_per_byte"] == pytest.approx(plain["bits_per_byte"], rel=0.05)
    assert [row["steps"] for row in whole["samples"]] == [4, 16]
    assert len(rows["blocks of 1"]["samples"]) == len(rows["twin"]["samples"]) == 1
    for row in rows.values():
        assert row["tokens_per_second"] > 0 and row["samples"][0]["judge_nats_per_token"] > 0
    assert rows["blocks of 1"]["first_block_seconds"] < whole["first_block_seconds"]
    assert picture.stat().st_size > 5000
    assert "| blocks of 8 |" in capsys.readouterr().out


def test_what_it_refuses(text_runs, tmp_path):
    blocks = as_block_model(text_runs.denoiser, "1,8", tmp_path / "blocks.pt")
    flags = ["--data_dir", str(text_runs.data), "--threads", "1"]
    plain, twin = str(text_runs.denoiser), str(text_runs.twin)
    with pytest.raises(UserError, match="without block sizes"):
        block_line.main(["--checkpoint", plain, *flags])
    with pytest.raises(UserError, match="no plain denoiser"):
        block_line.main(["--checkpoint", str(blocks), "--denoiser", twin, *flags])
    with pytest.raises(UserError, match="no twin"):
        block_line.main(["--checkpoint", str(blocks), "--twin", plain, *flags])
    with pytest.raises(UserError, match="lower --num_samples or --min_tokens"):
        block_line.main(["--checkpoint", str(blocks), *flags, "--texts", "9999"])
