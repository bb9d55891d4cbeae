"""The best trials, the pass of the overtaking, and the gap between two checkpoints."""

from types import SimpleNamespace

import pytest
import torch

from loop import checkpoint
from text import scores
from text.data import TextData
from tools import few_gap


def run(side: str, bits: list[float], trial: str = "0:0.1", tokens: int = 1000) -> dict:
    best = min(range(len(bits)), key=bits.__getitem__)
    passes = [float(2**number) for number in range(len(bits))]
    return {
        "unique_tokens": tokens,
        "tokens": tokens,
        "side": side,
        "trial": trial,
        "passes": passes,
        "bits_per_byte": bits,
        "best_bits_per_byte": bits[best],
        "passes_at_best": passes[best],
        "passes_run": passes[-1],
    }


def test_the_best_trial_of_each_side_counts():
    rows = [
        run("diffusion", [3, 2.5, 2.1]),
        run("diffusion", [3, 2.0, 2.2], "0.1:0.1"),
        run("ar", [2.4, 2.3, 2.9]),
        run("ar", [2.4, 2.5, 2.9], "0.1:0.1"),
        run("diffusion", [9, 9, 9], tokens=2000),
        run("ar", [8, 8, 8], tokens=2000),
    ]
    few_gap.mark_best(rows)
    assert [row["is_best"] for row in rows] == [False, True, True, False, True, True]
    assert few_gap.best_pairs(rows) == [(rows[1], rows[2]), (rows[4], rows[5])]
    assert few_gap.overtaken_at(rows[1], rows[2]) == 2.0
    assert few_gap.overtaken_at(rows[4], rows[5]) is None


def test_verdicts():
    peaked, rising = run("ar", [2.4, 2.3, 2.9]), run("ar", [2.6, 2.5, 2.4])
    ahead, behind = run("diffusion", [3, 2.2, 2.1]), run("diffusion", [3, 2.8, 2.7])
    assert few_gap.verdict(ahead, peaked, -0.1) == "overtaken at pass 2.0"
    assert few_gap.verdict(ahead, peaked, 0.1) == "overtaken at pass 2.0, but the gap may be 0"
    words = "not overtaken within 4.0 passes"
    assert few_gap.verdict(behind, peaked, 0.5) == f"{words}, and diffusion still improves"
    assert few_gap.verdict(run("diffusion", [3, 2.7, 2.8]), peaked, 0.5) == words
    assert few_gap.verdict(ahead, rising, -0.1) == "too few passes: the twin still improves"


def test_the_gap_is_the_difference_of_what_evaluate_says(text_runs):
    """On all documents, both figures are those behind evaluate.py, and the interval is around the
    difference. Documents that chose are left out if there are others.
    """
    pair = []
    for side, path in (("diffusion", text_runs.denoiser), ("ar", text_runs.twin)):
        pair.append(run(side, [2.0]) | {"run": str(path.parent)})
    options = SimpleNamespace(
        data_dir=str(text_runs.data), documents=0, draws=2, seed=3, eval_documents=99
    )
    gap = few_gap.gap_of(*pair, options, torch.device("cpu"))
    held_out = TextData(text_runs.data, "val", 48)
    for side, path in (("diffusion", text_runs.denoiser), ("ar", text_runs.twin)):
        model, _, saved = checkpoint.open_model(path)
        asked = scores.TextScoring(draws=2)
        figures = scores.likelihood(model, saved, held_out, asked, seed=3)
        assert gap[side] == pytest.approx(figures["bits_per_byte"])
    assert gap["gap"] == pytest.approx(gap["diffusion"] - gap["ar"])
    assert gap["gap_ci95"][0] < gap["gap"] < gap["gap_ci95"][1]
    assert gap["documents"] == held_out.num_documents and not gap["unseen"]
    assert "the same documents chose" in few_gap.note([gap]).lower()
    options.eval_documents = 2
    other = few_gap.gap_of(*pair, options, torch.device("cpu"))
    assert other["documents"] == held_out.num_documents - 2 and other["unseen"]
    assert other["gap"] != gap["gap"] and "chose" not in few_gap.note([other])
