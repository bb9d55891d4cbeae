"""The report on pairs: every figure lies in its interval, and differences are of the same blanks."""

import json

import pytest

from base.config import SampleConfig
from loop.checkpoint import open_model
from text import fill_scores, fillings


def test_the_report(conditional_world):
    root = conditional_world
    model, tokenizer, saved = open_model(root / "cross" / "best.pt")
    reader_twin, _, about = open_model(root / "ar" / "best.pt")
    judge = open_model(root / "twin" / "best.pt")[0]
    greedy, warm = SampleConfig(sampler="confidence", temperature=0.0), SampleConfig(steps=8)
    options = fill_scores.FillScoring(
        data_dir=str(root / "pairs"), documents=6, num_samples=2 * fillings.EACH, draws=2
    )
    result = fill_scores.report(
        (model, tokenizer, saved),
        options,
        twin=(reader_twin, about),
        judge=judge,
        infill=greedy,
        sample=warm,
    )
    for row in result["kinds"].values():
        for name in (
            "bits_per_byte",
            "shuffled_gap",
            "blind_bits_per_byte",
            "twin_bits_per_byte",
            "minus_twin",
        ):
            low, high = row[f"{name}_ci95"]
            assert low <= row[name] <= high
        assert row["minus_twin"] == pytest.approx(row["bits_per_byte"] - row["twin_bits_per_byte"])
    assert (
        result["model_infilling"].keys() == result["twin_infilling"].keys()
        and 1 in result["model_infilling"]
    )
    assert all(
        0 <= row["exact"] <= row["token_f1"] <= 1 for row in result["model_infilling"].values()
    )
    for length, row in result["model_infilling"].items():  # of the same blanks
        low, high = row["minus_twin_ci95"]
        assert low <= row["minus_twin"] <= high
        assert row["minus_twin"] == pytest.approx(
            row["token_f1"] - result["twin_infilling"][length]["token_f1"]
        )
    json.dumps(result)  # --json writes it
    assert (
        result["copies"]["human"]["longest_copy_max"] > 3
        and result["model_samples"]["samples"] == 2 * fillings.EACH
    )
    text = "\n".join(fill_scores.table(result))
    assert (
        "≤" in text
        and "| continue |" in text
        and "| twin |" in text
        and "token F1 minus twin" in text
    )
    assert len({line.count("|") for line in text.split("\n\n")[1].splitlines()}) == 1
