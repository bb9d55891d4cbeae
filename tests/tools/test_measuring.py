"""Measurements are numbers of this machine; kept bytes are arithmetic on what autograd saves."""

import pytest
import torch

from base.config import ModelConfig
from tools import measuring
from tools.scaling import Job

TINY = ModelConfig(vocab_size=40, output_size=37, max_length=16, d_model=16, heads=2, layers=2)


def test_each_side_is_called_four_times():
    calls = []
    sides = [lambda: calls.append("a"), lambda: calls.append("b")]
    seconds = measuring.median_seconds(sides, torch.device("cpu"))
    assert calls == ["a", "b"] * 4 and all(time >= 0 for time in seconds)


def test_kept_bytes_predict_another_model():
    """From one and two layers, the bytes of a row of three layers."""
    job = Job("tiny", TINY, 2, 16, 1, "")
    outside, block = measuring.kept_bytes(job, 0)
    assert outside > 0 and block > 0
    three = measuring.kept_bytes_at(job, 3, 2, 0) - measuring.kept_bytes_at(job, 3, 1, 0)
    assert three == pytest.approx(outside + 3 * block, rel=0.02)


def test_saving_and_decoding_take_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert measuring.measure_save(parameters=1000) > 0
    assert 0 < measuring.measure_decode(0) < 5
    assert not list(tmp_path.iterdir())


def test_words():
    assert measuring.size(1_234_567) == "1.23 MB"
    assert measuring.size(12) == "0.012 kB"
    assert measuring.duration(90) == "1.5 min"
    assert measuring.duration(2e-7) == "0.2 µs"
