"""Learning curves: read from the log of any run, a panel per figure, or refused in one line."""

import json

import pytest

from base.files import UserError
from show import curves, plots

ROWS = [
    {"step": 10, "loss": 3.0, "tokens_seen": 1000, "learning_rate": 0.1, "tokens_per_second": 9},
    {"step": 12, "skipped": 1, "reason": "a loss of nan"},
    {"step": 15, "val_nats_per_token": 2.0, "val_bits_per_byte": 1.0},
    {"step": 20, "loss": 2.0, "tokens_seen": 3000, "learning_rate": 0.2, "tokens_per_second": 8},
]
PNG = b"\x89PNG"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "run" / "log.jsonl").write_text(text)
    return tmp_path / "run"


def test_tokens_of_an_evaluation_are_interpolated(run):
    log = curves.read(str(run))
    tokens, bits = log.curve("val_bits_per_byte")
    assert tokens.tolist() == [2000] and bits.tolist() == [1.0]
    assert log.curve("loss")[1].tolist() == [3.0, 2.0]
    assert "reason" not in log.names() and "skipped" in log.names()


def test_the_figures_of_any_task_are_found(run, tmp_path):
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "log.jsonl").write_text('{"step": 5, "val_nats_per_length": 1.5}\n')
    logs = [curves.read(str(run)), curves.read(str(tmp_path / "captions"))]
    assert curves.chosen(logs, []) == [
        "loss",
        "val_nats_per_token",
        "val_nats_per_length",
        "learning_rate",
        "tokens_per_second",
    ]
    assert curves.chosen(logs, ["skipped"]) == ["skipped"]
    with pytest.raises(UserError, match="--figures los; expected figures that these runs have"):
        curves.chosen(logs, ["los"])


def test_runs_of_the_same_name_are_told_apart(run, tmp_path):
    other = tmp_path / "deep" / "run"
    other.mkdir(parents=True)
    (other / "log.jsonl").write_text((run / "log.jsonl").read_text())
    logs = [curves.read(str(run)), curves.read(str(other))]
    assert curves.label(logs[0], logs[:1]) == "run"
    assert {curves.label(log, logs) for log in logs} == {str(run), str(other)}


def test_a_picture_has_a_panel_per_figure(run, tmp_path, monkeypatch, capsys):
    shapes = []
    drawn = plots.canvas

    def coarse(width, height, *shape):
        shapes.append(shape)
        return drawn(width / 2, height / 2, *shape)

    monkeypatch.setattr(plots, "canvas", coarse)
    for names in ([], ["loss"], ["loss", "skipped", "learning_rate"]):
        curves.learning_curves(tmp_path / "curves.png", [str(run)], names)
        assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    assert shapes == [(2, 2), (1, 1), (2, 2)]
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "log.jsonl").write_text('{"step": 1, "loss": 3.0, "tokens_seen": 5}\n')
    curves.learning_curves(tmp_path / "curves.png", [str(run), str(tmp_path / "young")], [])
    assert f"note: {tmp_path / 'young'} has no val_nats_per_token" in capsys.readouterr().err


def test_a_run_that_is_still_writing_is_drawn(run):
    with open(run / "log.jsonl", "a") as file:
        file.write('{"step": 30, "lo')
    assert len(curves.read(str(run)).rows) == len(ROWS)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "whose line 1 is no log"),
        ("[]\n", "whose line 1 is no log"),
        ('{"loss": 1}\n', "whose line 1 is no log"),
        ('{"step": "1"}\n', "step and tokens_seen are whole numbers"),
        ('{"step": 1}\n{\n{"step": 2}\n', "whose line 2 is no log"),
        ("", "without a line"),
    ],
)
def test_logs_that_hold_no_curve(tmp_path, text, message):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        curves.read(str(tmp_path))
