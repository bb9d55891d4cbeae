"""Scores: closed forms where there are some, the same units for both objectives, and clean refusals of bad checkpoints."""

import json
import math
import pickle
import shutil

import pytest
import torch

import evaluate
from base.files import UserError
from loop import checkpoint
from tests.making.corpus import make_data
from tests.making.paired import refusal
from tests.making.scored import scored
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


def test_units_agree(text_runs, tmp_path, capsys):
    """Bits per byte is nats per token in other units; both objectives count the same tokens and bytes."""
    paths = (text_runs.denoiser, text_runs.twin)
    ours, twins = (scored(path, text_runs.data, tmp_path, "--draws", 4) for path in paths)
    for figures in (ours, twins):
        assert figures.keys() >= KEYS
        assert figures["bits_per_byte"] == pytest.approx(
            figures["nats_per_token"] * figures["num_tokens"] / figures["num_bytes"] / math.log(2)
        )
        assert (
            figures["bits_per_byte_ci95"][0]
            < figures["bits_per_byte"]
            < figures["bits_per_byte_ci95"][1]
        )
        assert figures["perplexity_bound"] == pytest.approx(math.exp(figures["nats_per_token"]))
        assert 0 <= figures["masked_accuracy"] <= 1
    assert [ours[key] for key in ("num_documents", "num_tokens", "num_bytes")] == [
        twins[key] for key in ("num_documents", "num_tokens", "num_bytes")
    ]
    sizes = TextData(text_runs.data, "val", 48).meta["splits"]["val"]
    assert ours["num_documents"] == sizes["documents"] and ours["num_bytes"] == sizes["bytes"]
    assert ours["num_tokens"] == sizes["tokens"] - sizes["documents"]  # every token but [BOS]
    assert twins["length_nats_per_token"] == 0 < ours["length_nats_per_token"] < 0.5
    assert twins["nats_per_token"] == pytest.approx(twins["masked_cross_entropy"])
    assert sum(row["accuracy"] > 0 for row in ours["by_masked_share"]) >= 3
    assert "bits per byte" in capsys.readouterr().out


def test_learning_curves(text_runs, tmp_path):
    evaluate.main(
        [
            "--curves",
            str(text_runs.denoiser.parent),
            str(text_runs.twin.parent),
            "--picture",
            str(tmp_path / "curves.png"),
        ]
    )
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    words = ["--curves", str(text_runs.twin.parent), "--picture", str(tmp_path / "one.png")]
    evaluate.main([*words, "--figures", "val_bits_per_byte"])
    with pytest.raises(UserError, match="--figures val_bits; expected figures that.*loss"):
        evaluate.main([*words, "--figures", "val_bits"])
    with pytest.raises(UserError, match="--curves without --picture"):
        evaluate.main(["--curves", str(tmp_path)])
    with pytest.raises(UserError, match="--draws with --curves"):
        evaluate.main(["--curves", str(tmp_path), "--draws", "3"])


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
def test_bad_checkpoints(text_runs, tmp_path, kind, message):
    damage(text_runs.denoiser, tmp_path / "bad.pt", kind)
    with pytest.raises(UserError, match=message):
        evaluate.main(["--checkpoint", str(tmp_path / "bad.pt"), "--data_dir", str(text_runs.data)])


def test_refusals(text_runs, tmp_path, monkeypatch):
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
            [
                "--samples",
                "--judge",
                str(text_runs.denoiser),
                "--num_samples",
                "2",
                "--min_tokens",
                "9",
            ],
            "an autoregressive twin",
        ),
        (["--samples", "--num_samples", "999"], "whole held-out texts"),
        (["--json", f"{__file__}/x.json"], "test_evaluate.py"),
        (["--samples", "--step_counts", "0"], "--step_counts 0"),
        (["--guidance", "2"], "--guidance for a text"),
        (["--samples", "--step_counts", "few"], "--step_counts"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main(
                [
                    "--checkpoint",
                    str(text_runs.denoiser),
                    "--data_dir",
                    str(text_runs.data),
                    "--num_samples",
                    "2",
                    "--min_tokens",
                    "9",
                    *words,
                ]
            )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError,
        match="no text or caption or dialogue or conditional or image checkpoint below this folder",
    ):
        evaluate.main(["--data_dir", str(text_runs.data)])


def test_the_newest_run_is_found(text_runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(text_runs.denoiser, tmp_path / "checkpoints" / "best.pt")
    monkeypatch.chdir(tmp_path)
    evaluate.main(["--data_dir", str(text_runs.data), "--documents", "3", "--draws", "1"])
    assert "checkpoints/best.pt: text diffusion" in capsys.readouterr().err


def test_pairs(conditional_world, tmp_path, capsys):
    """A conditional checkpoint is scored with its twin and a judge; flags of other jobs are refused."""
    root = conditional_world
    few = ("--documents", 4, "--draws", 2, "--num_samples", 4)
    others = ("--twin", root / "ar" / "best.pt", "--judge", root / "twin" / "best.pt")
    figures = scored(root / "context" / "best.pt", root / "pairs", tmp_path, *few, *others)
    printed = capsys.readouterr().out
    assert {
        "bits_per_byte_ci95",
        "shuffled_gap_ci95",
        "minus_twin",
        "left_bits_per_byte",
    } <= figures["kinds"]["middle"].keys()
    assert "| middle |" in printed and "token F1" in printed and "| human |" in printed
    words = ["--checkpoint", root / "context" / "best.pt", "--data_dir", root / "pairs", *few]
    for flags, message in (
        (("--twin", root / "cross" / "best.pt"), "--objective diffusion"),
        (("--judge", root / "denoiser" / "best.pt"), "--objective diffusion"),
        (("--samples",), "--samples for a conditional checkpoint"),
        (("--rerank", "2"), "--rerank for a conditional"),
        (("--estimator", "linear"), "--estimator for a conditional"),
        (("--data_dir", root / "data"), "kind 'text'"),
        (("--unknown_lengths", *others[:2]), "--twin with --unknown_lengths"),
        (("--unknown_lengths", "--revise", "1"), "--revise with --unknown_lengths"),
    ):
        refusal(evaluate.main, [*words, *flags], message)
    few = ("--documents", 2, "--unknown_lengths")
    figures = scored(root / "context" / "best.pt", root / "pairs", tmp_path, *few)
    assert list(figures["unknown_lengths"]) == ["told", "drawn", "reranked"]
    assert "| reranked |" in capsys.readouterr().out


def test_answers_about_images(dialogue_folder, answerer, answerer_twin, tmp_path, capsys):
    """A split with both histories, the twin, the controls; flags of other jobs are refused."""
    words = ["--checkpoint", str(answerer), "--data_dir", str(dialogue_folder), "--splits", "long"]
    out = tmp_path / "scores.json"
    evaluate.main([*words, "--twin", str(answerer_twin), "--json", str(out), "--device", "cpu"])
    result = json.loads(out.read_text())
    for name in ("splits", "twin"):
        for kind, count in (("looks", 15), ("notes", 30)):
            noted = result[name]["long"].pop(kind)
            assert noted["questions"] == count and "all_right_ci95" in noted
        for figures in result[name]["long"].values():
            assert figures["questions"] == 30 and len(figures["rounds"]) == 10
    assert len(result["controls"]) == 5 and result["objective"] == "diffusion"
    printed = capsys.readouterr().out
    assert "| twin, long, own answers | 30 |" in printed and "| no picture | 30 |" in printed
    assert "| twin, long, looks | 15 |" in printed and "| long, notes | 30 |" in printed
    for flags, message in (
        (["--infill"], "--infill"),
        (["--splits", "train"], "--splits train"),
        (["--twin", str(answerer), "--splits", "longer"], "--splits longer"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main([*words, *flags, "--device", "cpu"])
