"""Every way to fill blanks of unknown length fills the same blanks; figures are what they say."""

import pytest

from base.config import SampleConfig
from base.files import UserError
from loop.checkpoint import open_model
from text import length_scores
from text.pairs import PairData

GREEDY = SampleConfig("confidence", 20, temperature=0.0)


def test_figures_by_hand():
    answers = [([1, 2], [1, 2], 4), ([1, 2], [1, 2, 3, 4], 6), ([5], [6], 2), ([7, 8, 9], [7], 4)]
    row = length_scores.figures_of(answers)
    assert row["exact"] == 0.25 and row["blanks"] == 4 and row["calls"] == 4
    assert row["length_error"] == 1.0 and row["too_long"] == 0.0


def test_the_report(free_run, conditional_world):
    opened = open_model(free_run)
    held_out = PairData(conditional_world / "pairs", "val", "context")
    result = length_scores.report(opened, held_out, [0, 1, 2], GREEDY, 0, iter)
    assert list(result) == ["told", "drawn", "reranked", "edited", "edited from 1", "edited from 8"]
    for rows in result.values():
        assert [row["blanks"] for row in rows.values()] == [
            row["blanks"] for row in result["told"].values()
        ]
        for row in rows.values():
            assert 0 <= row["exact"] <= row["token_f1"] <= 1
            assert abs(row["too_long"]) <= row["length_error"]
        total = sum(row["length_error"] * row["blanks"] for row in list(rows.values())[:-1])
        assert total / rows["all"]["blanks"] == pytest.approx(rows["all"]["length_error"])
    assert all(row["length_error"] == 0 for row in result["told"].values())
    assert all(row["length_error"] > 0 for row in result["drawn"].values())
    lines = length_scores.table(result)
    assert len({line.count("|") for line in lines}) == 1 and "edited from 8" in "\n".join(lines)


def test_a_plain_model_and_refusals(conditional_world):
    opened = open_model(conditional_world / "context" / "best.pt")
    held_out = PairData(conditional_world / "pairs", "val", "context")
    result = length_scores.report(opened, held_out, [0, 1], GREEDY, 0, iter)
    assert list(result) == ["told", "drawn", "reranked"]
    with pytest.raises(UserError, match="--samplers threshold with --unknown_lengths"):
        length_scores.report(opened, held_out, [0], SampleConfig("threshold"), 0, iter)
    twin = open_model(conditional_world / "ar" / "best.pt")
    with pytest.raises(UserError, match="--unknown_lengths for a model of the form ar"):
        length_scores.report(twin, held_out, [0], GREEDY, 0, iter)
