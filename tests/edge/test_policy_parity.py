"""The gate of a policy: what it compares, and that a refused export leaves nothing."""

import pytest

from base import bundle
from base.files import UserError
from edge import policy_parity
from net.chunks import ChunkConfig
from tests.making.bundles import export, reuse_graphs


def test_the_report_says_what_was_compared(policy_bundled):
    rows = {row["what"]: row for row in bundle.read(policy_bundled.bundle)["parity"]}
    assert set(rows) == {
        "places, in metres",
        "actions, as shipped",
        "actions, with a prefix",
        "actions, step by step",
        "actions, 4 calls, in time",
        "actions, 8 calls, by confidence",
        "actions, single file",
    }
    assert all(row["inputs"] == 12 for row in rows.values())
    assert rows["actions, as shipped"]["identical"] >= 0.999


def test_cases_of_each_head():
    assert len(policy_parity.cases(ChunkConfig(), "l1", 8)) == 2
    assert len(policy_parity.cases(ChunkConfig(), "ar", 8)) == 3
    assert policy_parity.cases(ChunkConfig(2, "confidence"), "l1", 1)["with a prefix"].prefix == 0


def test_a_refused_export_leaves_nothing(policy_bundled, monkeypatch, tmp_path):
    reuse_graphs(monkeypatch, policy_bundled.bundle)
    limits = policy_parity.TOLERANCES["fp32"] | {"places": -1.0}
    monkeypatch.setitem(policy_parity.TOLERANCES, "fp32", limits)
    with pytest.raises(UserError, match="places, in metres"):
        export(policy_bundled.checkpoint, policy_bundled.data, tmp_path / "out", "--inputs", "3")
    assert not list(tmp_path.iterdir())
