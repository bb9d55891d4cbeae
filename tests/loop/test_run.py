"""A run's log, its stop signals, its averaged weights, and its saved state."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from base.config import ModelConfig, TrainConfig
from base.files import UserError
from loop import checkpoint
from loop.run import Log, Run, StopSignal, averaged_weights
from model import Denoiser

ABOUT = {"kind": "text", "objective": "diffusion", "tokenizer": "", "statistics": {}, "data": {}}


def make_run(folder: Path, resume=None, **settings) -> Run:
    torch.manual_seed(0)
    size = ModelConfig(vocab_size=20, output_size=17, max_length=8, d_model=16, heads=2, layers=1)
    model = Denoiser(size)
    return Run(model, TrainConfig(**settings), folder, ABOUT | {"model": {}}, resume, plain=model)


@pytest.mark.posix
def test_a_signal_is_noted_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    with StopSignal() as stop, pytest.raises(KeyboardInterrupt):
        stop.note(signal.SIGINT, None)
        stop.note(signal.SIGINT, None)  # the second Ctrl-C


def test_a_resumed_log_drops_what_came_after_the_saved_state(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    Log(path, step=2).write(step=3, loss=0.5)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "loss": 0.5},
    ]
    Log(path, step=0)  # a run that begins
    assert path.read_text() == ""


def test_averaged_weights_are_there_only_inside():
    model = torch.nn.Linear(2, 2)
    trained = model.weight.detach().clone()
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    with pytest.raises(ZeroDivisionError), averaged_weights(model, zeros):
        assert not model.weight.any()
        raise ZeroDivisionError
    assert torch.equal(model.weight, trained)


def test_the_first_steps_average_fast(tmp_path):
    run = make_run(tmp_path, ema=0.999)
    with torch.no_grad():
        run.model.embedding.weight.fill_(1.0)
        run.averaged["embedding.weight"].zero_()
    run.average()  # decay (1 + 0) / (10 + 0)
    assert torch.allclose(run.averaged["embedding.weight"], torch.tensor(0.9))
    run.step = 10**6
    run.average()
    assert torch.allclose(run.averaged["embedding.weight"], torch.tensor(1 - 0.1 * 0.999))


def test_a_saved_state_continues(tmp_path):
    run = make_run(tmp_path, optimizer="adamw")
    run.step, run.tokens_seen, run.best, run.metrics = 5, 70, 1.5, {"nats_per_token": 1.5}
    run.save()
    saved = checkpoint.load(tmp_path / "resume.pt")
    again = make_run(tmp_path, resume=saved, optimizer="adamw")
    assert (again.step, again.tokens_seen, again.best) == (5, 70, 1.5)
    assert list(again.steps_left())[0] == 5
    assert "optimizer" not in checkpoint.load(tmp_path / "last.pt")
    with pytest.raises(UserError, match="resume with --optimizer adamw"):
        make_run(tmp_path, resume=saved, optimizer="muon")


def test_skipped_steps_are_counted_until_there_are_too_many(tmp_path):
    run = make_run(tmp_path, skip_nonfinite=1)
    run.skip(3, "a loss of nan", "row 1")
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {
        "step": 4,
        "skipped": 1,
        "reason": "a loss of nan from row 1",
    }
    with pytest.raises(UserError, match="at step 6, after 1 that were left out, from row 2"):
        run.skip(5, "a loss of nan", "row 2")
