"""The sides of a comparison alternate, and the figures are of what was measured."""

import pytest
import torch

from base.files import UserError
from tools import speed

CASE = speed.Case(
    model_config="tiny",
    checkpoint=None,
    length=8,
    batch_size=2,
    repeats=1,
    seed=0,
    device=torch.device("cpu"),
    precision=torch.float32,
)


def test_sides_alternate_after_a_warm_up():
    calls = []
    sides = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = speed.alternate(sides, 2, CASE.device)
    assert calls == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_the_ratio_is_of_pairs():
    assert speed.ratio([2.0, 6.0, 20.0], [1.0, 2.0, 4.0]) == 3.0
    spread = speed.spread([3.0, 1.0, 2.0])
    assert spread == {"seconds": 2.0, "seconds_min": 1.0, "seconds_max": 3.0}


def test_the_twin_has_the_same_shapes():
    models = speed.make_models(CASE)
    denoiser, twin = (
        {name: weight.shape for name, weight in model.named_parameters()}
        for model in (models["denoiser"], models["twin"])
    )
    assert denoiser == twin and models["twin"].config.causal


def test_a_row_longer_than_the_model_is_refused(tmp_path, monkeypatch):
    values = {"max_length": 4, "d_model": 16, "heads": 2, "layers": 1}
    monkeypatch.setattr(speed.checkpoint, "load", lambda path: {"model": values})
    case = speed.Case(**{**vars(CASE), "checkpoint": "some.pt"})
    with pytest.raises(UserError, match="--length 8"):
        speed.make_models(case)
