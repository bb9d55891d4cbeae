"""tools.benchmark runs end to end and its figures hang together. How fast it is, no test says."""

import json

import pytest

from base.files import UserError
from tools import benchmark, speed

SMALL = {
    "model_config": "tiny",
    "length": 16,
    "batch_size": 2,
    "repeats": 2,
    "threads": 1,
    "step_counts": 2,
    "batches": 1,
    "samplers": "first_hitting",
    "device": "cpu",
}


def words(**flags) -> list[str]:
    """The small run's flags, some of them changed."""
    return [word for name, value in (SMALL | flags).items() for word in (f"--{name}", str(value))]


def test_a_small_run(tmp_path, capsys, monkeypatch):
    """All parts; the processes whose memory is measured are started for real elsewhere."""
    peaks = [{"what": f"peak memory, {part}", "peak_mib": 9.0} for part in ("training", "sampling")]
    monkeypatch.setattr(speed, "measure_memory", lambda flags: peaks)
    benchmark.main([*words(json=tmp_path / "out.json"), "--profile"])
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
            assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
            assert row["ratio_to_twin"] > 0
    for name in ("train, twin", "sample, twin, batch 1"):
        assert rows[name]["ratio_to_twin"] == 1
    for name in ("train, denoiser", "train, twin"):
        assert 0 < rows[name]["share_executed"] < 1.5
        assert 0 < rows[name]["share_of_product"] < 1.5
    printed = capsys.readouterr()
    assert "| train, denoiser |" in printed.out and "matrix product:" in printed.out
    assert "attention flash" in printed.out
    assert "aten::" in printed.err


@pytest.mark.long
def test_memory_is_measured_in_processes_of_their_own():
    options = benchmark.flags.resolve(benchmark.Benchmark, benchmark.parse_args(words()))
    rows = speed.measure_memory(benchmark.memory_flags(options))
    assert [row["what"] for row in rows] == ["peak memory, training", "peak memory, sampling"]
    assert all(50 < row["peak_mib"] < 4000 for row in rows)


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"only": "trainin"}, "training"),
        ({"repeats": 0}, "--repeats"),
        ({"batches": "1,x"}, "--batches"),
        ({"step_counts": "0"}, "--step_counts"),
        ({"model_config": "huge"}, "--model_config"),
        ({"length": 1}, "--length"),
        ({"samplers": "fast"}, "--sampler"),
    ],
)
def test_refusals(flags, message):
    with pytest.raises(UserError, match=message):
        benchmark.main(words(**flags))
