"""Figures of kernels: what is right has a small error, what is wrong a large one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from net import kernels
from tools import benchmark, kernel_figures

CPU = torch.device("cpu")


def test_errors_tell_right_from_wrong(monkeypatch):
    """Here the operators compute their plain forms. A wrong epsilon and a wrong token are seen."""
    rows = kernel_figures.measure(CPU, seed=0, repeats=1)
    named = {(row["what"], row["how"]): row for row in rows}
    assert len(named) == len(rows) == 8
    assert all(row["error"] < 1e-5 and not row["tokens_differ"] for row in rows)
    assert "| draw, top_p 0.9 | kernel |" in kernel_figures.table(rows)

    right, turn = kernels.draw_rows, kernels.norm_rotary

    def wrong_token(*given):
        token, *rest = right(*given)
        return token + 1, *rest

    monkeypatch.setattr(kernels, "draw_rows", wrong_token)
    monkeypatch.setattr(kernels, "norm_rotary", lambda *given: turn(*given[:-1], 0.1))
    rows = kernel_figures.measure(CPU, seed=0, repeats=1)
    wrong = [row for row in rows if row["error"] > 1e-3 or row["tokens_differ"]]
    assert [(row["what"], row["how"]) for row in wrong] == [
        ("draw, top_p 1", "kernel"),
        ("draw, top_p 0.9", "kernel"),
        ("norm and rotary", "kernel"),
    ]


def test_without_triton_it_is_one_line(monkeypatch):
    monkeypatch.setattr(kernels, "triton_code", lambda: None)
    with pytest.raises(kernels.UserError, match="--kernels without Triton"):
        benchmark.main(["--kernels", "--device", "cpu"])


@pytest.mark.long
def test_the_command_on_a_machine_without_a_gpu():
    pytest.importorskip("triton", reason="pip install -r requirements-extra.txt")
    words = ["-m", "tools.benchmark", "--kernels", "--device", "cpu"]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no GPU here") and "0 tokens differ" in done.stdout
