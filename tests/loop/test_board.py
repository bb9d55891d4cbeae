"""--tensorboard: the figures of log.jsonl, no others; resumed runs; one line where it is missing."""

import json
import sys

import pytest

import train
import train_captioning
import train_conditional
from base.files import UserError
from loop import board
from loop.run import Log
from tests.making.corpus import make_run
from tools import train_encoder


class Writer:
    """In place of torch's SummaryWriter: it notes what it is given."""

    def __init__(self, folder: str, purge_step: int):
        self.folder, self.purge_step, self.scalars = folder, purge_step, []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        pass


@pytest.fixture
def installed(monkeypatch):
    """TensorBoard is there, and writes nothing."""
    monkeypatch.setitem(sys.modules, "tensorboard", sys)
    module = type(sys)("writer")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def test_the_figures_are_those_of_the_log(installed, tmp_path):
    log = Log(tmp_path / "log.jsonl", 0, tensorboard=True)
    log.write(step=2, loss=0.5, tokens_seen=7)
    log.write(step=3, skipped=1, reason="a loss of nan from row 3")
    assert log.board.writer.folder == str(tmp_path / "tensorboard")
    assert log.board.writer.scalars == [("loss", 0.5, 2), ("tokens_seen", 7, 2), ("skipped", 1, 3)]


def test_a_resumed_run_goes_on_in_the_folder(installed, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 1.0}\n'
    )
    late = Log(path, 2, tensorboard=True).board.writer  # the flag came with --resume
    assert late.purge_step == 3
    assert late.scalars == [("loss", 3.0, 1), ("loss", 2.0, 2)]
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1").touch()
    assert Log(path, 2, tensorboard=True).board.writer.scalars == []  # they are there


@pytest.mark.parametrize("module", [train, train_conditional, train_captioning, train_encoder])
def test_without_tensorboard_every_trainer_says_so_first(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # an import fails
    out = tmp_path / "run"
    with pytest.raises(UserError, match="run pip install -r requirements-extra.txt"):
        module.main(["--tensorboard", "--out", str(out), "--data_dir", str(tmp_path / "none")])
    assert not out.exists()


def test_tensorboard_reads_a_run_and_its_continuation(text_runs, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(text_runs.data, tmp_path / "run", "--tensorboard", "--log_every", "2")
    make_run(text_runs.data, run, "--resume", "--log_every", "2", "--max_steps", "8")
    events = EventAccumulator(str(run / board.FOLDER)).Reload()
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "learning_rate", "tokens_per_second", "val_nats_per_token"):
        logged = [(row["step"], pytest.approx(row[name])) for row in rows if name in row]
        assert [(event.step, event.value) for event in events.Scalars(name)] == logged, name
    assert len(list((run / board.FOLDER).iterdir())) == 2
