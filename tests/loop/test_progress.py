"""Progress bars: they go to stderr, they name a rate and the time left, and quick work shows none."""

import re
import time

import pytest

from loop import distributed, progress
from tests.making.sources import ROOT, SOURCES


@pytest.fixture
def at_once(monkeypatch):
    """Bars appear soon, and are drawn at each step."""
    monkeypatch.setattr(progress, "QUICK", 0.01)
    monkeypatch.setattr(progress, "PAUSE_IN_FILE", 0.0)


def test_a_bar_names_count_rate_and_time_left(at_once, capsys):
    for _ in progress.bar(range(4), "gate", unit="case", miniters=1):
        time.sleep(0.02)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "gate" in shown.err and "3/4 [00:00<00:00" in shown.err and "case/s" in shown.err


def test_every_bar_over_work_is_made_here():
    """The bar of training always shows. The table's gate runs without torch, which loop/ needs.
    Lines above a bar are no bars.
    """
    allowed = {"loop/progress.py", "loop/fit.py", "tools/table.py"}
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        makes = re.search(r"\btqdm\(", path.read_text(encoding="utf-8"))
        assert not makes or name in allowed, name


def test_quick_work_shows_none(capsys):
    assert list(progress.bar(range(4), "gate")) == [0, 1, 2, 3]
    with progress.Tokens([[1, 9, 9]], 9) as bar:
        bar.batch([[1, 9, 9]])(0)
    assert capsys.readouterr().err == ""


def test_one_process_shows_it(at_once, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "leads", lambda: False)
    for _ in progress.bar(range(3), miniters=1):
        time.sleep(0.02)
    assert capsys.readouterr().err == ""


def test_tokens_are_counted_over_batches():
    rows = [[1, 9, 9], [9, 9, 9], [2, 2, 9]]
    with progress.Tokens(rows, 9) as bar:
        note = bar.batch(rows[:2])
        seen = []
        for left in (5, 3, 4):  # a mask may come back
            note(left)
            seen.append(bar.bar.n)
        bar.batch(rows[2:])
        seen.append(bar.bar.n)
    assert seen == [0, 2, 2, 5] and bar.bar.n == bar.bar.total == 6
