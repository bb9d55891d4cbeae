"""What a run will take: operations counted by hand, and a clock that the test moves."""

import dataclasses

import numpy as np
import pytest
import torch

from base.config import ModelConfig, TrainConfig
from base.files import UserError
from loop import distributed, estimate
from model import Denoiser


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it: clock[0], in seconds."""
    now = [100.0]
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    return now


def test_operations_are_counted_by_the_convention():
    sizes = {"vocab_size": 30, "output_size": 27, "d_model": 8, "heads": 2, "layers": 3}
    text = Denoiser(ModelConfig(**sizes, max_length=12))
    batch = {"tokens": torch.zeros(4, 10, dtype=torch.int64)}
    per_token = 6 * text.num_parameters() + 12 * 3 * 8 * 10
    assert estimate.operations(text, batch) == 40 * per_token

    for size, passes in ((1, 2), (4, 2), (12, 1)):  # a clean copy beside the noised copy
        in_blocks = {**batch, "block_size": size}
        assert estimate.operations(text, in_blocks) == passes * 40 * per_token
    shifted = Denoiser(ModelConfig(**sizes, max_length=12, logit_shift=True))
    assert estimate.operations(shifted, {**batch, "block_size": 1}) == 40 * per_token

    captioner = Denoiser(ModelConfig(**sizes, max_length=12, condition_width=5))
    batch["features"] = torch.zeros(2, 7, 5)
    crosses = [block.cross for block in captioner.blocks]
    once = sum(cross.key.weight.numel() + cross.value.weight.numel() for cross in crosses)
    per_token = 6 * (captioner.num_parameters() - once) + 12 * 3 * 8 * (10 + 7)
    expected = 40 * per_token + 2 * 7 * 6 * once
    assert estimate.operations(captioner, batch) == pytest.approx(expected, rel=1e-12)
    assert estimate.operations(object(), batch) == 0


def test_the_forecast_is_the_median_of_the_first_steps(clock, monkeypatch):
    said = []
    monkeypatch.setattr(estimate, "announce", lambda step, text: said.append((step, text)))
    forecast = estimate.Forecast(object(), steps_left=600)
    for number, seconds in enumerate([9.0, *[0.5] * 9, 7.0]):  # the first step fills caches
        clock[0] += seconds
        forecast.note(number + 1, [])
    assert said == [(10, "600 steps take about 5.0 minutes")]


def test_the_work_is_that_of_all_processes(clock, monkeypatch):
    said = []
    monkeypatch.setattr(estimate, "announce", lambda step, text: said.append(text))
    monkeypatch.setattr(estimate, "operations", lambda model, batch: batch["work"])
    monkeypatch.setattr(distributed, "total", lambda value: np.array(value) + 3e12)  # another one
    forecast = estimate.Forecast(object(), steps_left=100)
    for number in range(10):
        clock[0] += 2.0
        forecast.note(number + 1, [{"work": 4e11}, {"work": 6e11}])
    assert said[0].endswith(": 4000.0 GFLOP per step, 400.0 TFLOP in all, 2,000 GFLOP/s")


def test_minutes_become_steps(clock, capsys):
    cfg = TrainConfig(minutes=2.0)
    asked = []

    def step(number: int) -> None:
        asked.append(number)
        clock[0] += 30.0 if number == 50 else 0.5

    fitted = estimate.fit_to_minutes(cfg, 50, step)
    assert fitted == dataclasses.replace(cfg, max_steps=50 + 240, minutes=0.0)
    assert asked == list(range(50, 60))
    assert "240 steps in 2 minutes" in capsys.readouterr().err


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(UserError, match="--minutes 2 with 2 processes"):
        estimate.fit_to_minutes(TrainConfig(minutes=2.0), 0, print)
