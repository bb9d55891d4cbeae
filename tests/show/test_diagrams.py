"""Words of the diagrams; tests/test_visualize_architecture.py draws whole diagrams of real models."""

import pytest

from show import diagrams, sheet


@pytest.mark.parametrize(
    "number, words", [(7, "7"), (1234, "1,234"), (12345, "12.3 k"), (1234567, "1.23 M")]
)
def test_short(number, words):
    assert diagrams.short(number) == words


def test_states():
    assert diagrams.states_of(["a", "", "star"]) == ["known", "mask", "known"]
    assert diagrams.states_of(["a", "", "star"], ["a", "", ""]) == ["known", "mask", "new"]
    assert diagrams.states_of(["a", ""], hidden="later") == ["known", "later"]


def test_the_process_names_every_level(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "DPI", 40)
    rows = [["a", "star"], ["a", ""], ["", ""]]
    _, svg = diagrams.process(tmp_path / "process", ["a", "star"], rows, rows[::-1], False)
    text = svg.read_text(encoding="utf-8")
    for words in ("t = 0", "t = 0.5", "t = 1", "k = 2", "nats of the text"):
        assert f">{words}</text>" in text
