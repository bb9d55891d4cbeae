"""Scores of pairs: intervals around their figures, another condition, and what the twin sees."""

import json

import numpy as np
import pytest
import torch

from base import metrics
from base.config import SampleConfig
from loop.checkpoint import open_model
from net import twin
from tests.making.paired import make_conditional, make_world
from text import fill_scores, fillings, pair_bounds
from text.forms import arrange
from text.pairs import PairData


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A conditional model with cross-attention, its twin, held-out pairs."""
    root = make_world(tmp_path_factory.mktemp("fill_scores"))
    forms = ("cross", "ar")
    models = {form: open_model(make_conditional(root, form, root / form)) for form in forms}
    data = PairData(root / "pairs", "val", "context")
    return root, models, [data.pair(number) for number in range(len(data))]


def test_another_condition_is_another_documents(world):
    _, models, some = world
    tokenizer = models["cross"][1]
    swapped = pair_bounds.with_another_condition(some)
    assert sum(one is not None for one in swapped) > len(some) / 2
    for one, pair in zip(swapped, some, strict=True):
        if one is not None:
            assert (
                one.blanks is pair.blanks
                and one.kind == pair.kind
                and sum(map(len, one.given)) <= sum(map(len, pair.given))
            )
            source = next(other for other in some if other.given is one.given)
            assert source.document != pair.document and len(arrange(one, "ar", tokenizer).ids) <= 96


def test_the_report(world):
    root, models, _ = world
    model, tokenizer, saved = models["cross"]
    judge = open_model(root / "twin" / "best.pt")[0]
    greedy, warm = SampleConfig(sampler="confidence", temperature=0.0), SampleConfig(steps=8)
    options = fill_scores.FillScoring(
        data_dir=str(root / "pairs"), documents=6, num_samples=2 * fillings.EACH, draws=2
    )
    result = fill_scores.report(
        (model, tokenizer, saved),
        options,
        twin=(models["ar"][0], models["ar"][2]),
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
    costs = pair_bounds.blank_costs(saved["statistics"], 96)
    assert all(np.exp(-cost).sum() == pytest.approx(1.0) for cost in costs.values())
    left = pair_bounds.LeftReader(judge)
    pair = next(one for one in world[2] if one.kind == "continue")
    plain = torch.from_numpy(pair.whole())[None]
    free = torch.arange(plain.shape[1])[None] >= len(pair.given[0])

    assert left.nats(tokenizer, pair) == pytest.approx(
        float(twin.likelihoods(judge, plain, free)[0])
    )
    assert metrics.overlap([1, 2, 2], [2, 2, 3]) == pytest.approx(2 / 3)
