"""The conditional scripts as a user runs them: both stages killed and resumed, every way to write, every refusal."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import evaluate
import generate_conditional
import prep_conditional_data
import train_conditional
from base.files import UserError
from loop import checkpoint
from tests.making.corpus import make_data, make_run, write_corpus
from tests.making.paired import FLAGS, SMALL, make_conditional, make_world
from text.forms import FORMS
from text.pairs import PairData

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = make_world(tmp_path_factory.mktemp("scripts"))
    for form in FORMS:
        make_conditional(root, form, root / form)
    return root


def write(world, form: str, *flags: str, capsys) -> str:
    generate_conditional.main(
        ["--checkpoint", str(world / form / "best.pt"), "--threads", "1", "--device", "cpu", *flags]
    )
    return capsys.readouterr().out


def refusal(main, words, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        main([str(word) for word in words])
    assert all(error.value.parts) and "\n" not in str(error.value)


def test_pairs_keep_the_split_of_the_text(world, tmp_path, capsys):
    """From the tokens of a data folder and from the text itself: the same pairs if seed and share are the same."""
    words = ["--denoiser", world / "denoiser" / "best.pt"]
    prep_conditional_data.main(
        [str(word) for word in (*words, "--data_dir", world / "data", "--out", world / "pairs")]
    )
    assert "already done" in capsys.readouterr().out
    text = [
        *words,
        "--input",
        write_corpus(tmp_path / "stories.txt"),
        "--val_fraction",
        "0.15",
        "--out",
        tmp_path / "pairs",
    ]
    prep_conditional_data.main([str(word) for word in text])
    for split in ("train", "val"):
        one, other = (
            PairData(folder, split, "context") for folder in (world / "pairs", tmp_path / "pairs")
        )
        assert one.tokens.tolist() == other.tokens.tolist()
    refusal(prep_conditional_data.main, [*text, "--blanks", "3"], "other settings")
    prep_conditional_data.main([str(word) for word in (*text, "--blanks", "0", "--force")])
    assert PairData(tmp_path / "pairs", "val", "ar").meta["splits"]["val"]["pairs"]["blanks"] == 0


def same(one, other) -> None:
    one, other = (torch.load(run / "resume.pt", weights_only=True) for run in (one, other))
    assert (
        one["step"] == other["step"]
        and one["metrics"] == other["metrics"]
        and one["tokens_seen"] == other["tokens_seen"]
    )
    for key in ("weights", "averaged"):
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])


def test_killed_in_both_stages_equals_a_straight_run(world, tmp_path):
    """SIGKILL in each stage, in a process of its own; then nothing but --resume and the data."""
    words = [
        "--denoiser",
        str(world / "denoiser" / "best.pt"),
        "--data_dir",
        str(world / "pairs"),
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
        (tmp_path / "half", ["--data_dir", str(world / "pairs"), "--resume"]),
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
        ["--data_dir", str(world / "pairs"), "--out", str(tmp_path / "half"), "--resume"]
    )
    same(tmp_path / "straight", tmp_path / "half")
    same(tmp_path / "straight" / "stage_1", tmp_path / "half" / "stage_1")


def test_a_checkpoint_knows_its_form(world):
    for form in FORMS:
        _, _, saved = checkpoint.open_model(world / form / "best.pt")
        assert (saved["kind"], saved["form"]) == ("conditional", form) and len(
            saved["statistics"]["blank_lengths"]
        ) == 3
        assert (world / form / "samples").exists()


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_write(world, form, tmp_path, capsys):
    prompt = "Ann had a cat."
    out = ["--html", str(tmp_path / "a.html"), "--json", str(tmp_path / "a.json")]
    said = write(world, form, "--prompt", prompt, "--num_samples", "3", *out, capsys=capsys)
    rows = [json.loads(line) for line in (tmp_path / "a.json").read_text().splitlines()]
    assert (
        said.count(prompt) == 3
        and len(rows) == 3
        and all(row["text"].startswith(prompt) and row["kind"] == "continue" for row in rows)
    )
    assert "Unmasking" in (tmp_path / "a.html").read_text()
    assert all(
        row["nats_per_token"] > 0
        and len(row["tokens"]) == len(row["step"]) == len(row["probability"])
        for row in rows
    )
    alone = write(
        world, form, "--prompt", prompt, "--num_samples", "3", "--batch_size", "1", capsys=capsys
    )
    assert alone == said  # the batch does not change a text
    said = write(
        world,
        form,
        "--prompt",
        prompt,
        "--ending",
        "They were glad.",
        "--length",
        "5",
        "--show",
        capsys=capsys,
    )
    assert said.rstrip().endswith("They were glad.") and "·" in said
    flags = (
        []
        if form == "ar"
        else ["--rerank", "2", "--guidance", "1.5", "--sampler", "confidence", "--steps", "5"]
    )
    assert "was glad" in write(
        world, form, "--template", "Ann had [MASK*2] and [MASK*] was glad.", *flags, capsys=capsys
    )


def test_a_conversation(world, monkeypatch, capsys):
    """Typed lines: fill, fill again, number, edit, a mistake, and the end of the input."""
    lines = [
        "",
        "Ann had a [MASK*4] and was glad.",
        "",
        "?",
        "=1 Ben",
        "=99 x",
        "a [MASK",
        "Dan had a dog.",
        "q",
        "never read",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    said = write(world, "context", "--interactive", capsys=capsys).splitlines()
    assert (
        sum("nats per token" in line for line in said) == 4
        and sum(line.startswith("error: found") for line in said) == 2
    )
    assert any(line.startswith("1 Ann  2 had") for line in said) and any(
        line.startswith("Ben had a") for line in said
    )
    assert any(line.startswith("Dan had a dog.") for line in said)


def test_as_a_user_runs_them(world, tmp_path):
    """In shells of their own, the newest run found by itself; a mistake is one line and status 2."""
    (tmp_path / "checkpoints").symlink_to(world / "denoiser")
    run = lambda script, *words, **more: subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        **more,
    )
    (tmp_path / "data_full").symlink_to(world / "data")
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


def test_refusals_of_generation(world, tmp_path, capsys):
    cases = {
        (): "nothing to write",
        ("--prompt", " "): "an empty --prompt",
        ("--ending", "x"): "an ending without a prompt",
        ("--prompt", "x", "--ending", ""): "empty --ending",
        ("--prompt", "Ann had a cat. " * 60): "at most 96 together",
        ("--prompt", "x", "--length", "200"): "at most 96 together",
        ("--prompt", "x", "--length", "-1"): "--length -1",
        ("--template", "no blank"): "the template 'no blank'",
        ("--template", "a [MASK*0]"): "the blank",
        ("--template", "[MASK]", "--prompt", "x"): "--template with",
        ("--interactive", "--prompt", "x"): "--interactive with",
        ("--prompt", "x", "--num_samples", "0"): "--num_samples 0",
        ("--prompt", "x", "--rerank", "0"): "--rerank 0",
        ("--prompt", "x", "--sampler", "confidance"): "--sampler",
    }
    for flags, message in cases.items():
        refusal(
            generate_conditional.main,
            ["--checkpoint", world / "context" / "best.pt", *flags],
            message,
        )
    refusal(
        generate_conditional.main,
        ["--checkpoint", world / "ar" / "best.pt", "--prompt", "x", "--guidance", "2"],
        "--guidance for an autoreg",
    )
    refusal(
        generate_conditional.main,
        ["--checkpoint", world / "denoiser" / "best.pt", "--prompt", "x"],
        "kind 'text'",
    )


def test_refusals_of_training_and_preparing(world, tmp_path):
    other = (
        make_run(
            make_data(tmp_path / "data", vocab_size=290, val_fraction=0.15),
            tmp_path / "other",
            "--max_length",
            "96",
        )
        / "best.pt"
    )
    short = make_run(world / "data", tmp_path / "short", "--max_length", "40") / "best.pt"
    start = [
        "--denoiser",
        world / "denoiser" / "best.pt",
        "--data_dir",
        world / "pairs",
        "--out",
        tmp_path / "x",
        *SMALL,
    ]
    cases = [
        (("--denoiser", other), "tokenizer"),
        (("--denoiser", short), "pairs made for a denoiser of 96 tokens"),
        (("--denoiser", world / "twin" / "best.pt"), "--objective ar"),
        (("--objective", "ar"), "--objective diffusion"),
        (("--denoiser", world / "cross" / "best.pt"), "kind 'conditional'"),
        (("--conditioning", "crosss"), "--conditioning crosss"),
        (("--conditioning", "cross", "--objective", "ar"), "--conditioning cross with"),
        (("--encoder_layers", "0"), "--encoder_layers 0"),
        (
            ("--conditioning", "cross", "--max_steps", "5", "--stage_1_steps", "5"),
            "--stage_1_steps 5",
        ),
        (("--condition_dropout", "1"), "dropout 1"),
        (("--data_dir", world / "data"), "kind 'text'"),
        (("--data_dir", tmp_path / "no"), "meta.json"),
        (("--out", world / "cross"), "a run in"),
        (("--resume",), "resume.pt"),
        (("--out", world / "cross", "--resume", "--data_dir", tmp_path / "few"), "another run"),
    ]
    few = [
        "--denoiser",
        world / "denoiser" / "best.pt",
        "--data_dir",
        world / "data",
        "--out",
        tmp_path / "few",
        "--blanks",
        "1",
    ]
    prep_conditional_data.main([str(word) for word in few])
    for flags, message in cases:
        refusal(train_conditional.main, [*start, *flags], message)
    made = ["--data_dir", world / "data", "--out", tmp_path / "p"]
    cases = [
        (("--denoiser", other), "tokenizer"),
        (("--denoiser", tmp_path / "no.pt"), "no.pt"),
        (("--input", tmp_path / "no*.txt"), "no file"),
        (("--val_fraction", "1"), "--val_fraction 1"),
        (("--denoiser", short, "--max_documents", "1"), "none with a pair"),
    ]
    for flags, message in cases:
        refusal(
            prep_conditional_data.main,
            ["--denoiser", world / "denoiser" / "best.pt", *made, *flags],
            message,
        )


def test_evaluate_scores_pairs(world, tmp_path, capsys):
    words = [
        "--checkpoint",
        world / "context" / "best.pt",
        "--data_dir",
        world / "pairs",
        "--documents",
        "4",
        "--draws",
        "2",
        "--num_samples",
        "4",
    ]
    out = [
        "--twin",
        world / "ar" / "best.pt",
        "--judge",
        world / "twin" / "best.pt",
        "--json",
        tmp_path / "a.json",
    ]
    evaluate.main([str(word) for word in (*words, *out)])
    figures, said = json.loads((tmp_path / "a.json").read_text()), capsys.readouterr().out
    assert {
        "bits_per_byte_ci95",
        "shuffled_gap_ci95",
        "minus_twin",
        "left_bits_per_byte",
    } <= figures["kinds"]["middle"].keys()
    assert "| middle |" in said and "token F1" in said and "| human |" in said
    for flags, message in (
        (("--twin", world / "cross" / "best.pt"), "--objective diffusion"),
        (("--judge", world / "denoiser" / "best.pt"), "--objective diffusion"),
        (("--samples",), "--samples for a conditional checkpoint"),
        (("--rerank", "2"), "--rerank for a conditional"),
        (("--estimator", "linear"), "--estimator for a conditional"),
        (("--data_dir", world / "data"), "kind 'text'"),
    ):
        refusal(evaluate.main, [*words, *flags], message)
