"""Lines of an earlier run: continued if they are of this checkpoint and these settings, else refused."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from base.config import SampleConfig
from base.files import UserError
from caption import resumed

SAVED = {"objective": "diffusion", "model": {"d_model": 16}, "tokenizer": "{}", "statistics": {}}
MORE = {"seed": 0, "guidance": 1.0}


def made_by(weight: float = 1.0, more: dict | None = None, **settings) -> dict:
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.weight, weight)
    torch.nn.init.zeros_(model.bias)
    return resumed.made_by(model, SAVED, SampleConfig(**settings), more or MORE)


def lines_of(made: dict, *names: str) -> list[dict]:
    unmasking = {"pieces": ["a dog"], "step": [1], "probability": [0.5]}
    fixed = {"caption": "a dög", "bound": 1.5, "calls": 2, "references": [], "unmasking": unmasking}
    return [{"image": name, **fixed, **made} for name in names]


@pytest.fixture
def written(tmp_path):
    """Write lines to a file; returns its path."""

    def write(rows: list, end: str = "\n") -> str:
        path = tmp_path / "c.jsonl"
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text(text + end, encoding="utf-8")
        return str(path)

    return write


def test_lines_come_back_up_to_the_line_that_was_cut(tmp_path, written):
    made = made_by()
    rows = lines_of(made, "0.png", "1.png", "2.png")
    path = written(rows)
    assert resumed.read_rows(path, made) == rows
    (tmp_path / "c.jsonl").write_text((tmp_path / "c.jsonl").read_text()[:-20])
    assert resumed.read_rows(path, made) == rows[:2]
    assert resumed.read_rows(None, made) == resumed.read_rows(str(tmp_path / "none"), made) == []
    assert resumed.read_rows(written([], ""), made) == []


def test_the_fingerprint_is_of_the_weights_not_of_the_file():
    assert made_by() == made_by()
    assert made_by()["checkpoint"] != made_by(weight=1.1)["checkpoint"]
    assert made_by()["checkpoint"] == made_by(steps=3)["checkpoint"]


@pytest.mark.parametrize(
    "other, message",
    [
        (
            {"weight": 2.0},
            "line 1 of .*c.jsonl by the checkpoint [0-9a-f]{16}; .* remove it, or name",
        ),
        ({"steps": 3}, "line 1 of .*c.jsonl with --steps 3; expected captions with --steps 64"),
        ({"temperature": 0.5}, "with --temperature 0.5"),
        ({"more": {"seed": 4, "guidance": 1.0}}, "with --seed 4; expected captions with --seed 0"),
    ],
)
def test_lines_of_another_run_are_refused(written, other, message):
    path = written(lines_of(made_by(**other), "0.png"))
    with pytest.raises(UserError, match=message):
        resumed.read_rows(path, made_by())


def test_files_that_are_no_such_lines_are_kept(written):
    """A file that somebody else wrote is refused and not replaced."""
    made = made_by()
    old = [{"image": "0.png", "caption": "a dog", "bound": 1.0}]  # of a version without origins
    good = lines_of(made, "0.png", "1.png")
    nameless = [{key: value for key, value in good[0].items() if key != "checkpoint"}]
    for rows, end, message in (
        (old, "\n", "line 1 of .* without image, caption, bound, unmasking"),
        (nameless, "\n", "line 1 of .* by the checkpoint None"),
        ([[{"image_id": 1, "caption": "a dog"}]], "\n", "line 1 of .* without image"),
        ([], "[\n", "line 1 of .* not JSON"),
        ([*good, 3], "\n", "line 3 of .* without image"),
        (good, "\n{\n" + json.dumps(good[0]), "line 3 of .* not JSON"),
    ):
        path = written(rows, end)
        before = Path(path).read_bytes()
        with pytest.raises(UserError, match=message):
            resumed.read_rows(path, made)
        assert Path(path).read_bytes() == before


def test_earlier_lines_are_shown_again(tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "0.png")
    rows = lines_of(made_by(), str(tmp_path / "0.png"), str(tmp_path / "gone.png"))
    (item,) = resumed.shown_again(rows)
    assert item["caption"] == "a dög" and item["pieces"] == ["a dog"] and item["score"] == -1.5
    assert "skipped: " in capsys.readouterr().err
