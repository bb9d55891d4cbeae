"""The figures of painted pictures: ceilings first, the twin beside, edits that keep other tokens."""

import json

import pytest

from base.files import UserError
from tools import paint_scores


def flags_of(painted, *more: str) -> list[str]:
    where = ["--checkpoint", str(painted.painter), "--data_dir", str(painted.data)]
    return [*where, "--reader", str(painted.reader), "--device", "cpu", "--threads", "1", *more]


def test_a_table(painted, tmp_path, capsys):
    path = tmp_path / "scores.json"
    more = ["--twin", str(painted.twin), "--splits", "val", "--step_counts", "2,3", "--edits", "2"]
    paint_scores.main(flags_of(painted, *more, "--json", str(path), "--batch_size", "3"))
    result = json.loads(path.read_text())
    names = ["true pictures", "true tokens", "model, 2 calls", "model, 3 calls", "twin, 9 calls"]
    assert list(result["splits"]["val"]) == names
    for row in result["splits"]["val"].values():
        low, high = row["truthful_ci95"]
        assert low <= row["truthful"] <= high and row["captions"] == 4
    assert result["edits"]["edits"] == 2 and result["edits"]["same"] == 1
    printed = capsys.readouterr().out
    assert "| val | twin, 9 calls |" in printed and "2 edits" in printed


def test_a_split_that_is_not_there(painted):
    with pytest.raises(UserError, match="no split 'held'"):
        paint_scores.main(flags_of(painted, "--splits", "held", "--prompts", "0"))
