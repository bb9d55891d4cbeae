"""Stages, percentiles, start and memory, roofline: each is a number that something measured."""

import shutil

import pytest

from edge import latency


@pytest.mark.long  # it starts processes that load torch
def test_measurements_of_bundles(bundled, tmp_path):
    made, again = bundled.bundle, shutil.copytree(bundled.bundle, tmp_path / "again")
    flags = {"repeats": 1, "thread_counts": (1,), "batches": (2,)}
    found = latency.measure([made, again], None, bundled.checkpoint, **flags)
    assert [row["what"] for row in found["rows"]] == [str(made), str(again), "torch"]
    ours, other, _ = found["rows"]
    assert ours["p50_ms"] <= ours["p99_ms"]
    assert ours["ratio_to_bundle"] == 1
    for row in (ours, other):
        stages = {"decode", "resize", "encoder", "condition", "loop"}
        assert set(row["stages_ms"]) == stages and row["calls"] >= 1
    starts = found["starts"]
    assert all(row["status"] == 0 and row["peak_mib"] > 10 for row in starts)
    assert starts[0]["peak_mib"] < starts[2]["peak_mib"]  # torch needs more than a bundle
    assert {row["stage"] for row in found["roofline"]} == {"encoder", "condition", "step"}
    printed = latency.tables(found)
    assert "predicted" in printed and printed.count("|---|") >= 3
