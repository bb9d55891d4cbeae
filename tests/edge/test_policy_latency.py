"""Stages, percentiles, roofline of a policy's bundle: each is a number that something measured."""

import pytest

from edge import policy_latency, roofline


def test_times_by_stage(policy_bundled):
    made, path = policy_bundled.bundle, policy_bundled.checkpoint
    rows = policy_latency.compare([made], path, threads=1, calls=2, repeats=2)
    assert [row["what"] for row in rows] == [str(made), f"{made}, step by step", "torch"]
    whole, stepwise, theirs = rows
    assert set(whole["stages_ms"]) == {"words", "grounder", "head"}
    assert set(stepwise["stages_ms"]) == {"words", "grounder", "step"}
    assert not theirs["stages_ms"] and whole["ratio_to_bundle"] == 1
    assert 0 < whole["p50_ms"] <= whole["p99_ms"]


def test_the_roofline(policy_bundled):
    device = roofline.Device("here", 1e9, 1e9, 1e9, 1e9)
    rows = policy_latency.bounds(policy_bundled.bundle, device)
    assert [row["stage"] for row in rows] == ["words", "grounder", "step"]
    assert all(row["roofline_ms"] > 0 and row["gflop"] > 0 for row in rows)
    found = {"rows": [], "memory": [], "roofline": rows}
    assert "predicted" in policy_latency.tables(found)


@pytest.mark.long  # it starts processes that load torch
def test_memory(policy_bundled):
    rows = policy_latency.memory([policy_bundled.bundle], policy_bundled.checkpoint)
    assert all(row["status"] == 0 for row in rows)
    assert rows[0]["peak_mib"] < rows[1]["peak_mib"]
