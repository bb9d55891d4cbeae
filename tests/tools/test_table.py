"""The gate of the table: a small run of each policy, and speeds that are numbers."""

import json

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from base.files import UserError
from tools import table
from tools.table import KINDS, POLICIES


@pytest.fixture
def quick(monkeypatch):
    """Short measurements, and speeds without images: tests/worlds/test_camera.py draws."""
    found = {"steps per CPU second": table.steps_per_second(0.05)}
    monkeypatch.setattr(table, "speeds", lambda: found)


def test_a_small_run(tmp_path, capsys, quick):
    table.main(["--episodes", "1", "--json", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["speeds"]["steps per CPU second"] > 10
    assert [(row["policy"], row["kind"]) for row in found["rows"]] == [
        (policy, kind) for policy in POLICIES for kind in KINDS
    ]
    for row in found["rows"]:
        assert row["at_the_end"] <= row["ever"] <= 1
        if row["policy"] == "expert":
            assert row["ever"] == 1 and row["wrong"] == 0
        if row["policy"] in ("random", "without words"):
            assert row["mean_steps"] == 60
    assert capsys.readouterr().out.count("\n| ") == len(found["rows"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_of_its_kind(kind):
    for seed in range(5):
        task = table.draw(np.random.default_rng(seed), kind, "val")
        zone = task.order.word in ("on", "in")
        assert zone == (kind == "put to a zone")
        assert (task.order.word == "next to") == (kind == "next_to")


def test_a_split_without_such_orders_is_refused():
    with pytest.raises(UserError, match="pick in the split held_relation"):
        table.draw(np.random.default_rng(0), "pick", "held_relation")
