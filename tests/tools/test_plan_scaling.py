"""The page has a table per job and says where its figures come from."""

import pytest

from base.files import UserError
from tools import measuring, plan_scaling
from tools.scaling import GPUS, JOBS

STEP = {"rate": 1e11, "tokens_per_second": 5000.0, "share": 0.4, "on": "2 CPU threads"}


@pytest.fixture
def measured(monkeypatch):
    """Figures in place of measurements: these are tested in test_measuring.py."""
    monkeypatch.setattr(measuring, "measure_step", lambda *rest: STEP)
    monkeypatch.setattr(measuring, "measure_save", lambda: 3e8)
    monkeypatch.setattr(measuring, "kept_bytes", lambda job, seed: (5e6, 7e6))


def test_the_page(measured, tmp_path):
    plan_scaling.main(["--out", str(tmp_path / "plan.md")])
    page = (tmp_path / "plan.md").read_text()
    assert page.count("\n## ") == len(JOBS)
    assert page.count("| first bottleneck |") == len(JOBS)
    for gpus in GPUS:
        assert page.count(f"\n| {gpus:,} | ") == len(JOBS)
    assert "do 3.96e+14 operations per second (**not measured**" in page
    assert "cannot run: 64 rows per step for 1024 GPUs: the batch" in page


def test_a_measured_rate_is_named(measured, tmp_path):
    flags = ["--rate", "3e14", "--rate_from", "an H200", "--out", str(tmp_path / "plan.md")]
    plan_scaling.main(flags)
    page = (tmp_path / "plan.md").read_text()
    assert "do 3e+14 operations per second (measured: an H200;" in page
    assert "python -m tools.plan_scaling --rate 3e+14 --rate_from 'an H200'" in page


@pytest.mark.parametrize("flag", ["rate", "peak", "memory", "link", "network"])
def test_a_rate_of_zero_is_refused(flag):
    with pytest.raises(UserError, match=f"--{flag} 0"):
        plan_scaling.main([f"--{flag}", "0"])
