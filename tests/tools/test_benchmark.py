"""benchmark.py runs end to end and its figures hang together. How fast it is, no test says."""

import json

import pytest

from base.config import ModelConfig
from base.files import UserError
from edge import roofline
from model import Denoiser
from tools import benchmark

SMALL = [
    "--model_config",
    "tiny",
    "--length",
    "16",
    "--batch_size",
    "2",
    "--repeats",
    "2",
    "--threads",
    "1",
    "--step_counts",
    "2",
    "--batches",
    "1",
    "--samplers",
    "first_hitting",
    "--device",
    "cpu",
]


def test_a_small_run(tmp_path, capsys):
    benchmark.main([*SMALL, "--json", str(tmp_path / "out.json"), "--profile"])
    rows = {row["what"]: row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert set(rows) == {
        "train, denoiser",
        "train, twin",
        "sample, twin, batch 1",
        "sample, first_hitting, 2 steps, batch 1",
        "peak memory, training",
        "peak memory, sampling",
    }
    for row in rows.values():
        if "seconds" in row:
            assert (
                0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
                and row["ratio_to_twin"] > 0
            )
    assert (
        rows["train, twin"]["ratio_to_twin"] == rows["sample, twin, batch 1"]["ratio_to_twin"] == 1
    )
    assert all(
        0 < rows[name]["share_executed"] < 1.5 and 0 < rows[name]["share_of_product"] < 1.5
        for name in ("train, denoiser", "train, twin")
    )
    assert 50 < rows["peak memory, sampling"]["peak_mib"] < 4000
    printed = capsys.readouterr()
    assert (
        "| train, denoiser |" in printed.out
        and "matrix product:" in printed.out
        and "aten::" in printed.err
    )


def test_executed_operations_are_fewer_than_the_convention_counts():
    model = Denoiser(ModelConfig())
    executed, convention = roofline.executed_flops(model, 256), model.training_flops(256)
    D, rows = 256, model.config.output_size
    assert convention - executed == pytest.approx(
        6
        * (
            model.num_parameters()
            - sum(
                w.numel()
                for n, w in model.named_parameters()
                if n.startswith("blocks.") and w.ndim == 2
            )
            - rows * D * 257 / 512
        )
    )
    assert 0.6 < executed / convention < 1


def test_refusals():
    for words, message in (
        (["--only", "trainin"], "expected training"),
        (["--repeats", "0"], "--repeats"),
        (["--batches", "1,x"], "--batches"),
        (["--step_counts", "0"], "--step_counts"),
        (["--model_config", "huge"], "--model_config huge"),
        (["--length", "1"], "--length"),
        (["--samplers", "fast"], "--sampler"),
    ):
        with pytest.raises(UserError, match=message):
            benchmark.main([*SMALL, *words])
