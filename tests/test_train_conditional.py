"""The conditional scripts as a user runs them: both stages killed and resumed, every refusal."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import prep_conditional_data
import train_conditional
from loop import checkpoint, fit
from tests.making.corpus import make_data, make_run
from tests.making.paired import FLAGS, SMALL, refusal
from tests.making.runs import as_soft_model
from text.forms import FORMS

ROOT = Path(__file__).parent.parent


def same(one, other) -> None:
    one, other = (torch.load(run / "resume.pt", weights_only=True) for run in (one, other))
    assert (
        one["step"] == other["step"]
        and one["metrics"] == other["metrics"]
        and one["tokens_seen"] == other["tokens_seen"]
    )
    for key in ("weights", "averaged"):
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])


@pytest.mark.long  # test_train.py holds the same for one stage
@pytest.mark.posix
def test_killed_in_both_stages_equals_a_straight_run(conditional_world, tmp_path):
    """SIGKILL in each stage, in a process of its own; then nothing but --resume and the data."""
    words = [
        "--denoiser",
        str(conditional_world / "denoiser" / "best.pt"),
        "--data_dir",
        str(conditional_world / "pairs"),
        *SMALL,
        *FLAGS["cross"],
        "--max_steps",
        "60",
        "--stage_1_steps",
        "30",
        "--save_every",
        "4",
        "--log_every",
        "1",
        "--ema",
        "0.9",
        "--condition_dropout",
        "0.3",
        "--weight",
        "flat",
    ]
    train_conditional.main([*words, "--out", str(tmp_path / "straight")])
    for folder, more in (
        (tmp_path / "half" / "stage_1", words),
        (tmp_path / "half", ["--data_dir", str(conditional_world / "pairs"), "--resume"]),
    ):
        half = subprocess.Popen(
            [sys.executable, "train_conditional.py", *more, "--out", str(tmp_path / "half")],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        while half.poll() is None and not (folder / "resume.pt").exists():
            time.sleep(0.01)
        half.send_signal(signal.SIGKILL)
        error = half.communicate(timeout=60)[1]
        assert half.returncode == -signal.SIGKILL, error
    train_conditional.main(
        [
            "--data_dir",
            str(conditional_world / "pairs"),
            "--out",
            str(tmp_path / "half"),
            "--resume",
        ]
    )
    same(tmp_path / "straight", tmp_path / "half")
    same(tmp_path / "straight" / "stage_1", tmp_path / "half" / "stage_1")


def test_a_checkpoint_knows_its_form(conditional_world):
    for form in FORMS:
        _, _, saved = checkpoint.open_model(conditional_world / form / "best.pt")
        assert (saved["kind"], saved["form"]) == ("conditional", form) and len(
            saved["statistics"]["blank_lengths"]
        ) == 3
        assert (conditional_world / form / "samples").exists()


def test_blanks_that_grow(conditional_world, free_run, tmp_path, monkeypatch):
    """A resumed run equals a straight one; without the flag a checkpoint has no new weights."""
    pairs = ["--data_dir", str(conditional_world / "pairs")]
    words = ["--denoiser", str(conditional_world / "denoiser" / "best.pt"), *pairs, *SMALL]
    words += ["--max_steps", "8", "--free_lengths", "0.7", "--log_every", "1", "--accumulate", "2"]
    words += ["--save_every", "2"]
    train_conditional.main([*words, "--out", str(tmp_path / "straight")])
    real = fit.optimizer_step

    def fails_at_5(*given):
        return 1 / 0 if given[2] == 5 else real(*given)

    half = ["--out", str(tmp_path / "half")]
    with monkeypatch.context() as patch:
        patch.setattr(fit, "optimizer_step", fails_at_5)
        with pytest.raises(ZeroDivisionError):
            train_conditional.main([*words, *half])
    train_conditional.main([*pairs, *half, "--resume"])
    same(tmp_path / "straight", tmp_path / "half")
    model, _, saved = checkpoint.open_model(free_run)
    assert saved["free_lengths"] and model.edits.abs().sum() > 0 and model.states.abs().sum() > 0
    plain, _, saved = checkpoint.open_model(conditional_world / "context" / "best.pt")
    assert not saved["free_lengths"] and not hasattr(plain, "edits")
    # A checkpoint from before the key opens as before.
    old = checkpoint.load(conditional_world / "context" / "best.pt")
    del old["free_lengths"]
    checkpoint.save(tmp_path / "old.pt", old)
    again, _, _ = checkpoint.open_model(tmp_path / "old.pt")
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


@pytest.mark.long  # four commands in shells of their own
def test_as_a_user_runs_them(conditional_world, tmp_path):
    """In shells of their own, the newest run found by itself; a mistake is one line and status 2."""
    (tmp_path / "checkpoints").symlink_to(conditional_world / "denoiser")
    run = lambda script, *words, **more: subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        **more,
    )
    (tmp_path / "data_full").symlink_to(conditional_world / "data")
    done = run("prep_conditional_data.py")
    assert done.returncode == 0 and "next: python train_conditional.py" in done.stdout, done.stderr
    done = run("train_conditional.py", *SMALL, "--max_steps", "3")
    assert done.returncode == 0 and "next: python generate_conditional.py" in done.stdout, (
        done.stderr
    )
    done = run("generate_conditional.py", "--interactive", input="Ann had a [MASK*2].\n=1 Dan\nq\n")
    assert (
        done.returncode == 0
        and done.stdout.count("nats per token") == 2
        and "Dan had a" in done.stdout
    ), done.stderr
    done = run("generate_conditional.py", "--ending", "The end.")
    assert (
        done.returncode == 2
        and not done.stdout
        and done.stderr.splitlines()[-1].startswith(
            "error: found an ending without a prompt; expected "
        )
    )


def test_refusals(conditional_world, tmp_path):
    other = (
        make_run(
            make_data(tmp_path / "data", vocab_size=290, val_fraction=0.15),
            tmp_path / "other",
            "--max_length",
            "96",
        )
        / "best.pt"
    )
    short = (
        make_run(conditional_world / "data", tmp_path / "short", "--max_length", "40") / "best.pt"
    )
    trained = conditional_world / "denoiser" / "best.pt"
    start = [
        "--denoiser",
        trained,
        "--data_dir",
        conditional_world / "pairs",
        "--out",
        tmp_path / "x",
        *SMALL,
    ]
    cases = [
        (("--denoiser", other), "tokenizer"),
        (("--denoiser", short), "pairs made for a denoiser of 96 tokens"),
        (("--denoiser", conditional_world / "twin" / "best.pt"), "--objective ar"),
        (("--denoiser", as_soft_model(trained, tmp_path / "soft.pt")), "with soft masks"),
        (("--objective", "ar"), "--objective diffusion"),
        (("--denoiser", conditional_world / "cross" / "best.pt"), "kind 'conditional'"),
        (("--conditioning", "crosss"), "--conditioning 'crosss'"),
        (("--conditioning", "cross", "--objective", "ar"), "--conditioning cross with"),
        (("--encoder_layers", "0"), "--encoder_layers 0"),
        (("--free_lengths", "1.5"), "--free_lengths 1.5"),
        (("--free_lengths", "0.5", "--objective", "ar"), "--free_lengths for the form ar"),
        (("--free_lengths", "0.5", "--conditioning", "cross"), "--free_lengths for the form cross"),
        (
            ("--conditioning", "cross", "--max_steps", "5", "--stage_1_steps", "5"),
            "--stage_1_steps 5",
        ),
        (("--condition_dropout", "1"), "dropout 1"),
        (("--data_dir", conditional_world / "data"), "kind 'text'"),
        (("--data_dir", tmp_path / "no"), "meta.json"),
        (("--out", conditional_world / "cross"), "a run in"),
        (("--resume",), "resume.pt"),
        (
            ("--out", conditional_world / "cross", "--resume", "--data_dir", tmp_path / "few"),
            "other pairs or form",
        ),
    ]
    few = [
        "--denoiser",
        conditional_world / "denoiser" / "best.pt",
        "--data_dir",
        conditional_world / "data",
        "--out",
        tmp_path / "few",
        "--blanks",
        "1",
    ]
    prep_conditional_data.main([str(word) for word in few])
    for flags, message in cases:
        refusal(train_conditional.main, [*start, *flags], message)
