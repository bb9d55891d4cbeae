"""Training a captioner: stop and resume to the bit, the second phases, refusals."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import export_onnx
import generate_caption
import train
import train_captioning
from base.config import SampleConfig
from base.files import UserError
from caption import writer
from caption.data import CaptionData
from loop import checkpoint, estimate
from tests.making.captioned import (
    SMALL,
    by_hand,
    make_captioner,
    rewrite,
)
from tests.making.corpus import TINY

ROOT = Path(__file__).parent.parent


@pytest.fixture
def data(scene_folder):
    return scene_folder


@pytest.fixture
def run(captioner):
    return captioner


def same_run(one, other) -> None:
    """Weights, averages and figures are equal to the bit."""
    one, other = (torch.load(run / "last.pt", weights_only=True) for run in (one, other))
    assert one["step"] == other["step"]
    for key in ("weights", "averaged"):
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])
    assert one["metrics"] == other["metrics"]


@pytest.mark.posix
def test_stopped_training_equals_a_straight_run(data, tmp_path):
    """SIGTERM in a process of its own, then nothing but --resume: the flags of the loss are kept too."""
    flags = [
        "--data_dir",
        str(data),
        *SMALL,
        "--max_steps",
        "30",
        "--save_every",
        "5",
        "--eval_every",
        "10",
        "--log_every",
        "1",
        "--ema",
        "0.9",
        "--weight",
        "clipped",
        "--image_dropout",
        "0.4",
        "--patch_dropout",
        "0.2",
        "--label_smoothing",
        "0.1",
        "--complementary",
        "--dropout",
        "0.1",
    ]
    train_captioning.main([*flags, "--out", str(tmp_path / "straight")])
    half = subprocess.Popen(
        [sys.executable, "train_captioning.py", *flags, "--out", str(tmp_path / "half")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "half" / "log.jsonl"
    while half.poll() is None and (not log.exists() or log.read_text().count("\n") < 4):
        time.sleep(0.01)
    half.send_signal(signal.SIGTERM)
    error = half.communicate(timeout=60)[1]
    assert half.returncode == 128 + signal.SIGTERM and "continue with --resume" in error
    assert checkpoint.load(tmp_path / "half" / "resume.pt")["step"] < 30
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")


def resumed_equals_straight(data, tmp_path, monkeypatch, flags) -> None:
    """`half`, whose evaluation fails after the state was saved, goes on with --resume alone and equals `straight`."""
    monkeypatch.setattr(writer, "write", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_captioner(data, tmp_path / "half", *flags)
    monkeypatch.undo()
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")


@pytest.mark.parametrize(
    "kept",
    [["--objective", "ar"], ["--weight", "flat", "--estimator", "cosine"], ["--soft_masks"]],
)
def test_what_is_trained_is_kept_by_a_resumed_run(kept, data, tmp_path, monkeypatch):
    """The stop is made by an evaluation that fails, after the state was saved."""
    flags = [*kept, "--save_every", "2", "--eval_every", "3"]
    make_captioner(data, tmp_path / "straight", *flags)
    resumed_equals_straight(data, tmp_path, monkeypatch, flags)


def test_the_second_phase_is_resumed_as_such(data, run, tmp_path, monkeypatch):
    """It starts from a trained captioner, logs its reward, and after a stop goes on rewarding."""
    flags = [
        "--init_from",
        str(run),
        "--self_critical",
        "2",
        "--save_every",
        "2",
        "--eval_every",
        "3",
        "--log_every",
        "1",
        "--learning_rate",
        "1e-3",
    ]
    make_captioner(data, tmp_path / "straight", *flags)
    lines = [
        json.loads(line) for line in (tmp_path / "straight" / "log.jsonl").read_text().splitlines()
    ]
    assert all(
        0 <= line["reward"] <= 10 and 0 <= line["greedy_reward"] <= 10
        for line in lines
        if "loss" in line
    )
    resumed_equals_straight(data, tmp_path, monkeypatch, flags)
    for wrong, message in (
        (["--self_critical", "1"], "--init_from"),
        ([*flags, "--objective", "ar"], "a trained diffusion captioner"),
        ([*flags, "--label_smoothing", "0.1"], "--complementary or --label_smoothing"),
        (["--patch_dropout", "1"], "--patch_dropout 1"),
        (["--estimator", "sine"], "--estimator 'sine'"),
        (["--complementary", "--estimator", "linear"], "the count estimator"),
    ):
        with pytest.raises(UserError, match=message):
            make_captioner(data, tmp_path / "wrong", *wrong)
    assert not (tmp_path / "wrong").exists()


def test_lengths_alone(data, run, tmp_path, monkeypatch):
    """Everything but the head stays as it was to the bit, the head says val's lengths better, and a stop changes nothing."""
    flags = [
        "--length_only",
        "--length_dropout",
        "0.2",
        "--init_from",
        str(run),
        "--optimizer",
        "adamw",
        "--max_steps",
        "12",
        "--save_every",
        "6",
        "--eval_every",
        "7",
        "--ema",
        "0.5",
        "--learning_rate",
        "1e-2",
    ]
    make_captioner(data, tmp_path / "straight", *flags)
    before, after = (
        torch.load(run, weights_only=True),
        torch.load(tmp_path / "straight" / "last.pt", weights_only=True),
    )
    start = before["averaged"]
    assert {name for name in start if not torch.equal(start[name], after["averaged"][name])} == {
        name for name in start if "length_head" in name
    }
    split, lengths = CaptionData(data, "val"), []
    for path in (run, tmp_path / "straight" / "last.pt"):
        model, _, saved = checkpoint.open_model(path)
        log_p = model.length_logits(
            writer.standardise(split.features_of(range(6)), saved["statistics"], "cpu")
        ).log_softmax(-1)
        lengths.append(
            -np.mean(
                [log_p[n, [len(one) for one in split.tokens[n]]].mean().item() for n in range(6)]
            )
        )
    assert lengths[1] < lengths[0] and after["metrics"]["nats_per_length"] == pytest.approx(
        lengths[1], abs=1e-2
    )
    with monkeypatch.context() as broken:
        broken.setattr(writer, "write", lambda *args, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_captioner(data, tmp_path / "half", *flags)
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")
    for wrong in ([], ["--objective", "ar", "--init_from", str(run)]):
        with pytest.raises(UserError, match="a trained diffusion captioner"):
            make_captioner(data, tmp_path / "wrong", "--length_only", *wrong)
    assert not (tmp_path / "wrong").exists()
    twin = (
        make_captioner(
            data, tmp_path / "twin", "--objective", "ar", "--max_steps", "2", "--warmup_steps", "1"
        )
        / "best.pt"
    )
    for wrong in (
        ["--init_from", str(twin)],
        ["--init_from", str(run), "--layers", "3"],
    ):  # the rest would stay random, or a twin's
        with pytest.raises(UserError, match="a diffusion captioner of this --model_config"):
            make_captioner(data, tmp_path / "other", "--length_only", *wrong)


def test_a_run_from_before_keeps_its_length_head(data, tmp_path, monkeypatch):
    """It is resumed as it was begun: its checkpoint does not say how wide the head is, which means linear."""
    flags = ["--length_hidden", "0", "--save_every", "2", "--eval_every", "3"]
    make_captioner(data, tmp_path / "straight", *flags)
    monkeypatch.setattr(writer, "write", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_captioner(data, tmp_path / "half", *flags)
    monkeypatch.undo()
    saved = torch.load(tmp_path / "half" / "resume.pt", weights_only=True)
    del saved["model"]["length_hidden"]
    checkpoint.save(tmp_path / "half" / "resume.pt", saved)
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")


def test_the_place_code_keeps_its_size(data, tmp_path, monkeypatch):
    """What goes on from a captioner whose place code was smaller, resumed or as a start, sees it at that size."""
    size = lambda path: torch.load(path, weights_only=True)["statistics"]["place_scale"]
    with monkeypatch.context() as small:
        small.setattr(writer, "PLACE_SCALE", 1.0)
        before = make_captioner(
            data, tmp_path / "before", "--max_steps", "2", "--warmup_steps", "1"
        )
    make_captioner(data, tmp_path / "before", "--resume", "--max_steps", "3")
    make_captioner(data, tmp_path / "started", "--init_from", str(before / "best.pt"))
    make_captioner(data, tmp_path / "new")
    assert [size(tmp_path / name / "last.pt") for name in ("before", "started", "new")] == [
        1.0,
        1.0,
        writer.PLACE_SCALE,
    ]


def test_a_text_denoiser_is_the_start(data, tmp_path, monkeypatch, capsys):
    """The new parts are the identity: before the first step the captioner says what the text denoiser says, whatever the picture."""
    import data_prep

    (tmp_path / "stories.txt").write_text(
        "<|endoftext|>".join(["a red circle and a blue square."] * 60 + ["there is a star."] * 60)
    )
    (tmp_path / "tokenizer.json").write_text(CaptionData(data, "train").tokenizer.to_json())
    started = {}
    for name, tokenizer in (
        ("same", ["--tokenizer", str(data / "tokenizer.json")]),
        ("other", ["--vocab_size", "300"]),
    ):
        data_prep.main(
            [
                "--input",
                str(tmp_path / "stories.txt"),
                "--out",
                str(tmp_path / name),
                "--val_fraction",
                "0.1",
                *tokenizer,
            ]
        )
        train.main(
            [
                "--data_dir",
                str(tmp_path / name),
                "--out",
                str(tmp_path / f"{name}_run"),
                *TINY,
                "--max_steps",
                "3",
                "--max_length",
                "64",
            ]
        )
    with pytest.raises(UserError, match="tokenizer"):
        make_captioner(
            data,
            tmp_path / "refused",
            "--init_from",
            str(tmp_path / "other_run" / "best.pt"),
            "--layers",
            "1",
        )
    monkeypatch.setattr(
        train_captioning.fit,
        "fit",
        lambda model, *args, **more: started.update(model=model) or {},
    )
    make_captioner(
        data,
        tmp_path / "run",
        "--init_from",
        str(tmp_path / "same_run" / "best.pt"),
        "--layers",
        "1",
    )
    text, tokenizer, _ = checkpoint.open_model(tmp_path / "same_run" / "best.pt")
    tokens = torch.randint(0, tokenizer.eos, (2, 12), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, 3:7] = tokenizer.bos, tokenizer.mask
    select, model = tokens == tokenizer.mask, started["model"].eval()
    with torch.no_grad():
        said = model(
            tokens,
            select=select,
            condition=model.keys_values(CaptionData(data, "val").features_of([0, 1]).float()),
        )
        assert torch.equal(said, text(tokens, select=select))
    assert "tensors; new:" in capsys.readouterr().err


def test_training_refusals(data, run, tmp_path):
    start = lambda *flags: make_captioner(data, run.parent, *flags)
    other = by_hand(
        tmp_path / "other",
        [
            {"image": "a.png", "split": split, "captions": ["a red circle"]}
            for split in ("train", "val")
        ],
        width=192,
    )
    shutil.copytree(data, tmp_path / "features", ignore=shutil.ignore_patterns("images"))
    rewrite(tmp_path / "features" / "features.json", key="0" * 16)
    new = ["--out", str(tmp_path / "x")]
    for flags, message in (
        (("--resume", "--data_dir", str(other)), "other captions or features"),
        ((), "a run in"),
        (("--resume", "--data_dir", str(tmp_path / "features")), "other captions or features"),
        (("--resume", "--d_model", "32"), "another model"),
        ((*new, "--objective", "art"), "--objective 'art'"),
        ((*new, "--objective", "ar", "--soft_masks"), "--soft_masks with a twin"),
        ((*new, "--soft_share", "1.5"), "--soft_share 1.5"),
        ((*new, "--image_dropout", "1"), "--image_dropout 1"),
        ((*new, "--max_steps", "0"), "max_steps"),
        ((*new, "--max_length", "2"), "--max_length 2"),
        ((*new, "--init_from", "no.pt"), "no.pt"),
        ((*new, "--resume"), "resume.pt"),
        ((*new, "--data_dir", str(tmp_path)), "meta.json"),
    ):
        with pytest.raises(UserError, match=message):
            start(*flags)


def test_minutes_choose_the_number_of_steps(scene_folder, tmp_path, monkeypatch, capsys):
    """The measured steps leave no trace: the run equals a run with --max_steps."""
    flags = ["--data_dir", str(scene_folder), *SMALL]
    straight, fitted = tmp_path / "straight", tmp_path / "fitted"
    train_captioning.main([*flags, "--out", str(straight), "--max_steps", "12"])
    monkeypatch.setattr(estimate.statistics, "median", lambda seconds: 0.5)
    train_captioning.main([*flags, "--out", str(fitted), "--minutes", "0.1"])
    runs = [torch.load(folder / "last.pt", weights_only=True) for folder in (straight, fitted)]
    for name, weight in runs[0]["weights"].items():
        assert torch.equal(weight, runs[1]["weights"][name]), name
    assert [run["train"]["max_steps"] for run in runs] == [12, 12]
    assert "12 steps in 0.1 minutes" in capsys.readouterr().err


def test_a_quality_head_alone(data, run, tmp_path, monkeypatch, capsys):
    """All else stays to the bit, a stop changes nothing, and the scripts recheck with it."""
    head = ["--quality_layers", "1", "--init_from", str(run), "--max_steps", "12"]
    flags = [*head, "--save_every", "6", "--eval_every", "7", "--learning_rate", "1e-2"]
    made = make_captioner(data, tmp_path / "straight", *flags) / "last.pt"
    before, after = (torch.load(path, weights_only=True) for path in (run, made))
    for name, weight in before["averaged"].items():
        assert torch.equal(weight, after["averaged"][name]), name
    new = set(after["averaged"]) - set(before["averaged"])
    assert new and all(name.startswith("quality.") for name in new)
    assert before["statistics"] == after["statistics"]
    assert 0 < after["metrics"]["quality_nats"] < 2
    resumed_equals_straight(data, tmp_path, monkeypatch, flags)

    plain, tokenizer, saved = checkpoint.open_model(run)
    checked = checkpoint.open_model(made)[0]
    seen = CaptionData(data, "val").features_of([0, 1, 2])
    seen = writer.standardise(seen, saved["statistics"], "cpu")
    written, settings = [], SampleConfig(sampler="first_hitting", steps=9)
    for model in (plain, checked):
        captions = writer.write(model, tokenizer, "diffusion", seen, settings)
        ids = [caption.ids for caption in captions]
        nats = writer.bounds(model, tokenizer, "diffusion", seen, ids)
        written.append((captions, nats.tolist()))
    assert written[0] == written[1]

    ask = ["--use_val_set", "--data_dir", str(data), "--num_samples", "2", "--threads", "1"]
    doubts = ["--recheck", "2", "--doubt", "1", "--doubtful", "3"]
    capsys.readouterr()
    generate_caption.main(["--checkpoint", str(made), *ask, *doubts])
    assert capsys.readouterr().out.count("nats/token") == 2
    for path, more, message in (
        (run, doubts, "--recheck 2 with a network without a quality head"),
        (made, [*doubts, "--guidance", "2"], "--recheck 2 with --guidance 2"),
        (made, [*doubts, "--sampler", "entropy", "--speculate", "2"], "--speculate 2 with --rech"),
    ):
        with pytest.raises(UserError, match=message):
            generate_caption.main(["--checkpoint", str(path), *ask, *more])
    for wrong, message in (
        (["--quality_layers", "1"], "--quality_layers without --init_from"),
        ([*head, "--length_only"], "--quality_layers with --length_only"),
        ([*head, "--weight", "flat"], "--quality_layers with --weight flat"),
        ([*head, "--d_model", "32"], "of width 16|of other sizes"),
        ([*head, "--objective", "ar"], "--quality_layers 1 with a twin"),
    ):
        with pytest.raises(UserError, match=message):
            make_captioner(data, tmp_path / "wrong", *wrong)
    reading = make_captioner(data, tmp_path / "reading", "--patch_layers", "1") / "best.pt"
    for path, message in (
        (made, "with a quality head; expected a plain denoiser"),
        (reading, "patches read each other; expected a captioner without such blocks"),
    ):
        words = ["--data_dir", str(data), "--out", str(tmp_path / "out")]
        with pytest.raises(UserError, match=message):
            export_onnx.main(["--checkpoint", str(path), *words])
    assert not (tmp_path / "out").exists()
