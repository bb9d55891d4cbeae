"""Scores: closed forms where there are some, the same units for both objectives, and clean refusals of bad checkpoints."""

import json
import math
import pickle
import shutil

import numpy as np
import pytest
import torch

import evaluate
from base import metrics
from base.files import UserError
from loop import checkpoint
from show import plots
from tests.making.corpus import make_data, make_run
from text import samples
from text import scores as text_scores
from text.data import TextData

KEYS = {
    "nats_per_token",
    "bits_per_byte",
    "bits_per_byte_ci95",
    "perplexity_bound",
    "masked_cross_entropy",
    "masked_accuracy",
    "num_documents",
    "num_tokens",
    "num_bytes",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A data folder, a denoiser and its twin, both trained for a moment."""
    folder = tmp_path_factory.mktemp("evaluate")
    data_dir = make_data(folder / "data")
    more = ["--max_steps", "80", "--learning_rate", "0.02"]
    return (
        data_dir,
        make_run(data_dir, folder / "diffusion", *more) / "best.pt",
        make_run(data_dir, folder / "ar", "--objective", "ar", *more) / "best.pt",
    )


def scores(runs, path, tmp_path, *words) -> dict:
    evaluate.main(
        [
            "--checkpoint",
            str(path),
            "--data_dir",
            str(runs[0]),
            "--json",
            str(tmp_path / "out.json"),
            "--device",
            "cpu",
            *words,
        ]
    )
    return json.loads((tmp_path / "out.json").read_text())


def test_units_agree(runs, tmp_path, capsys):
    """Bits per byte is nats per token in other units; both objectives count the same tokens and bytes."""
    ours, twins = (scores(runs, path, tmp_path, "--draws", "4") for path in runs[1:])
    for one in (ours, twins):
        assert one.keys() >= KEYS
        assert one["bits_per_byte"] == pytest.approx(
            one["nats_per_token"] * one["num_tokens"] / one["num_bytes"] / math.log(2)
        )
        assert one["bits_per_byte_ci95"][0] < one["bits_per_byte"] < one["bits_per_byte_ci95"][1]
        assert one["perplexity_bound"] == pytest.approx(math.exp(one["nats_per_token"]))
        assert 0 <= one["masked_accuracy"] <= 1
    assert [ours[key] for key in ("num_documents", "num_tokens", "num_bytes")] == [
        twins[key] for key in ("num_documents", "num_tokens", "num_bytes")
    ]
    sizes = TextData(runs[0], "val", 48).meta["splits"]["val"]
    assert ours["num_documents"] == sizes["documents"] and ours["num_bytes"] == sizes["bytes"]
    assert ours["num_tokens"] == sizes["tokens"] - sizes["documents"]  # every token but [BOS]
    assert twins["length_nats_per_token"] == 0 < ours["length_nats_per_token"] < 0.5
    assert twins["nats_per_token"] == pytest.approx(twins["masked_cross_entropy"])
    assert sum(row["accuracy"] > 0 for row in ours["by_masked_share"]) >= 3
    assert "bits per byte" in capsys.readouterr().out


def test_estimators_agree_and_the_seed_decides(runs, tmp_path):
    """Every schedule estimates the same bound."""
    count, again, linear, cosine = (
        scores(runs, runs[1], tmp_path, "--draws", "64", "--estimator", name)["nats_per_token"]
        for name in ("count", "count", "linear", "cosine")
    )
    assert count == again
    assert linear == pytest.approx(count, rel=0.03) and cosine == pytest.approx(count, rel=0.03)


def test_a_text_file_scores_like_its_data_folder(runs, tmp_path):
    data = TextData(runs[0], "val", 48)
    texts = [
        data.tokenizer.decode(data.tokens[a:b])
        for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True)
    ]
    (tmp_path / "text.txt").write_text("\n===\n".join(texts))
    folder = scores(runs, runs[2], tmp_path)
    text = scores(
        runs, runs[2], tmp_path, "--text", str(tmp_path / "text.txt"), "--separator", "==="
    )
    assert {key: folder[key] for key in KEYS} == {key: text[key] for key in KEYS}
    (tmp_path / "text.txt").write_text(" ")
    with pytest.raises(UserError, match="no text in"):
        scores(runs, runs[1], tmp_path, "--text", str(tmp_path / "text.txt"))


def test_length_costs_are_a_distribution():
    costs = text_scores.length_costs([0, 0, 5, 0, 3], 6, 2)
    assert np.exp(-costs[2:]).sum() == pytest.approx(1) and np.isinf(costs[:2]).all()
    assert np.exp(-costs[2]) == pytest.approx(6 / 13)


def test_sample_grid(runs, tmp_path, capsys):
    result = scores(
        runs,
        runs[1],
        tmp_path,
        "--samples",
        "--judge",
        str(runs[2]),
        "--samplers",
        "first_hitting,threshold",
        "--step_counts",
        "4,8",
        "--num_samples",
        "3",
        "--min_tokens",
        "10",
        "--picture",
        str(tmp_path / "grid.png"),
    )
    human, *cells = result["samples"]
    assert human["sampler"] == "human text" and [
        (cell["sampler"], cell["steps"]) for cell in cells
    ] == [(name, steps) for name in ("first_hitting", "threshold") for steps in (4, 8)]
    for row in result["samples"]:
        assert {
            "judge_nats_per_token",
            "unigram_entropy",
            "distinct_1",
            "distinct_2",
            "distinct_3",
            "repetition_4",
        } <= row.keys()
    assert all(1 <= cell["calls"] <= cell["steps"] for cell in cells)
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert "| human text | 0 |" in capsys.readouterr().out
    own = scores(
        runs,
        runs[2],
        tmp_path,
        "--samples",
        "--judge",
        str(runs[2]),
        "--num_samples",
        "3",
        "--min_tokens",
        "10",
    )["samples"]
    assert [row["sampler"] for row in own] == ["human text", "left_to_right"]


def test_learning_curves(runs, tmp_path):
    evaluate.main(
        [
            "--curves",
            str(runs[1].parent),
            str(runs[2].parent),
            "--picture",
            str(tmp_path / "curves.png"),
        ]
    )
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    tokens, bits = plots.read_curve(runs[1].parent)
    assert (
        len(tokens) == len(bits) == 1
        and tokens[0]
        == json.loads((runs[1].parent / "log.jsonl").read_text().splitlines()[-2])["tokens_seen"]
    )
    for text, message in (("{", "no log of train.py"), ('{"step": 1}', "without an evaluation")):
        (tmp_path / "log.jsonl").write_text(text)
        with pytest.raises(UserError, match=message):
            plots.read_curve(tmp_path)
    with pytest.raises(UserError, match="--curves without --picture"):
        evaluate.main(["--curves", str(tmp_path)])
    with pytest.raises(UserError, match="--draws with --curves"):
        evaluate.main(["--curves", str(tmp_path), "--draws", "3"])


def test_the_judge_of_held_out_text_is_the_twins_likelihood(runs):
    model, tokenizer, saved = checkpoint.open_model(runs[2])
    data = TextData(runs[0], "val", 48)
    texts = list(data.whole_rows())
    alone = np.mean(
        [samples.judge_texts(model, [text], tokenizer.pad) * (len(text) - 1) for text in texts]
    )
    together = samples.judge_texts(model, texts, tokenizer.pad) * np.mean(
        [len(text) - 1 for text in texts]
    )
    assert alone == pytest.approx(together, rel=1e-5)


def test_metrics_closed_forms():
    ids = [np.array([1, 1, 2, 2]), np.array([3, 3, 3, 3])]
    assert metrics.unigram_entropy(ids) == pytest.approx(math.log(2) / 2)
    assert (
        metrics.distinct(ids, 1) == 3 / 8
        and metrics.distinct(ids, 2) == 4 / 6
        and metrics.distinct([np.array([1])], 2) == 0
    )
    assert metrics.repetition([np.array([1, 2, 1, 2, 1])], 2) == pytest.approx(0.5)
    low, high = metrics.ratio_interval(np.arange(1.0, 401), np.full(400, 2.0))
    mean, error = 100.25, np.arange(1.0, 401).std() / 2 / 20
    assert low == pytest.approx(mean - 1.96 * error, abs=0.6) and high == pytest.approx(
        mean + 1.96 * error, abs=0.6
    )


def damage(source, target, kind):
    """Copies of a good checkpoint, each spoilt in one way."""
    saved = torch.load(source, weights_only=True)
    if kind == "truncated":
        target.write_bytes(source.read_bytes()[:-1000])
    elif kind == "empty":
        target.write_bytes(b"")
    elif kind == "text":
        target.write_text("not a checkpoint")
    elif kind == "pickle":
        target.write_bytes(pickle.dumps(print))
    elif kind == "object":
        torch.save({"format": 1, "kind": "text", "model": pytest.approx}, target)
    elif kind == "foreign":
        torch.save({"state_dict": {}}, target)
    else:
        saved |= {
            "format": {"format": 2},
            "kind": {"kind": "robot"},
            "unknown key": {"model": {**saved["model"], "width": 3}},
            "other size": {"model": {**saved["model"], "layers": 2}},
            "tokenizer": {"tokenizer": "{}"},
        }[kind]
        checkpoint.save(target, saved) if kind != "format" else torch.save(saved, target)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("truncated", "damaged or truncated"),
        ("empty", "damaged or truncated"),
        ("text", "no checkpoint|damaged"),
        ("pickle", "more than tensors"),
        ("object", "more than tensors"),
        ("foreign", "no checkpoint of this project"),
        ("format", "of format 2; expected format 1"),
        ("kind", "of kind 'robot'"),
        ("unknown key", "the key 'width'"),
        ("other size", "do not fit its own description"),
        ("tokenizer", "no tokenizer"),
    ],
)
def test_bad_checkpoints(runs, tmp_path, kind, message):
    damage(runs[1], tmp_path / "bad.pt", kind)
    with pytest.raises(UserError, match=message):
        evaluate.main(["--checkpoint", str(tmp_path / "bad.pt"), "--data_dir", str(runs[0])])


def test_refusals(runs, tmp_path, monkeypatch):
    other = make_data(tmp_path / "other", vocab_size=280)
    for words, message in (
        (["--data_dir", str(other)], "made with tokenizer"),
        (["--draws", "0"], "--draws 0"),
        (["--estimator", "cosin"], "did you mean cosine"),
        (["--picture", "a.png"], "--picture alone"),
        (["--curves", "."], "--checkpoint with --curves"),
        (["--checkpoint", str(tmp_path)], "the folder"),
        (["--checkpoint", str(tmp_path / "none.pt")], "none.pt"),
        (["--samples", "--samplers", "fist"], "--sampler"),
        (
            ["--samples", "--judge", str(runs[1]), "--num_samples", "2", "--min_tokens", "9"],
            "an autoregressive twin",
        ),
        (["--samples", "--num_samples", "999"], "whole held-out texts"),
        (["--json", "/proc/no/x.json"], "/proc"),
        (["--samples", "--step_counts", "0"], "--step_counts 0"),
        (["--guidance", "2"], "--guidance for a text"),
        (["--samples", "--step_counts", "few"], "--step_counts"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main(
                [
                    "--checkpoint",
                    str(runs[1]),
                    "--data_dir",
                    str(runs[0]),
                    "--num_samples",
                    "2",
                    "--min_tokens",
                    "9",
                    *words,
                ]
            )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match="no text or caption or conditional checkpoint below this folder"
    ):
        evaluate.main(["--data_dir", str(runs[0])])


def test_the_newest_run_is_found(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(runs[1], tmp_path / "checkpoints" / "best.pt")
    monkeypatch.chdir(tmp_path)
    evaluate.main(["--data_dir", str(runs[0]), "--documents", "3", "--draws", "1"])
    assert "checkpoints/best.pt: text diffusion" in capsys.readouterr().err
