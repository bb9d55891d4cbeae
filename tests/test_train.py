"""train.py: stop and resume to the bit, every way to train, settings from a file, refusals."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from base.files import UserError
from loop import checkpoint, fit
from tests.making.corpus import TINY, make_data, make_run
from tests.making.runs import content, log_of, same_run
from text.data import TextData

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("training") / "data")


STEPS = [
    "--max_steps",
    "60",
    "--save_every",
    "7",
    "--eval_every",
    "20",
    "--log_every",
    "1",
    "--dropout",
    "0.1",
]


@pytest.fixture(scope="module")
def straight(data_dir, tmp_path_factory):
    return make_run(data_dir, tmp_path_factory.mktemp("straight") / "run", *STEPS)


def stopped_at(step: int, number: int, words: list[str], run: Path) -> subprocess.CompletedProcess:
    """Run train.py in a process of its own until its log has this step, then send the signal."""
    command = [sys.executable, str(ROOT / "train.py"), *words]
    log = run / "log.jsonl"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=run.parent, text=True)
    while process.poll() is None and not (log.exists() and f'"step": {step}, ' in log.read_text()):
        time.sleep(0.01)
    if process.poll() is None:
        process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    return subprocess.CompletedProcess(command, process.returncode, "", error)


@pytest.mark.posix
def test_stopped_and_resumed_equals_straight(straight, data_dir, tmp_path):
    """Real processes, hit by real signals in mid-run: first SIGTERM, then SIGKILL."""
    run = tmp_path / "run"
    words = ["--data_dir", str(data_dir), "--out", str(run), *TINY, *STEPS]
    done = stopped_at(9, signal.SIGTERM, words, run)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "all saved; continue with --resume" in done.stderr
    done = stopped_at(31, signal.SIGKILL, [*words, "--resume"], run)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert content(run, "resume.pt")["step"] < 60
    train.main([*words, "--resume"])
    same_run(straight, run)


@pytest.mark.parametrize(
    "flags",
    [
        ["--optimizer", "adamw"],
        ["--objective", "ar"],
        ["--estimator", "cosine"],
        ["--weight", "flat", "--complementary"],
        ["--weight", "clipped", "--accumulate", "2", "--time_conditioning", "sinusoidal"],
        ["--precision", "bf16", "--ema", "0"],
        ["--mlp", "gelu", "--clip", "0"],
    ],
)
def test_every_way_to_train_runs_and_reports(flags, data_dir, tmp_path):
    run = make_run(data_dir, tmp_path / "run", *flags, "--log_every", "2")
    rows = log_of(run)
    trained, evaluated = rows[0], rows[-1]
    assert {
        "step",
        "loss",
        "nats_per_token",
        "gradient_norm",
        "tokens_seen",
        "learning_rate",
    } <= trained.keys()
    assert math.isfinite(evaluated["val_nats_per_token"]) and evaluated[
        "val_nats_per_token"
    ] < 1.2 * math.log(300)
    assert list((run / "samples").iterdir())
    model, tokenizer, saved = checkpoint.open_model(run / "best.pt")
    assert (
        saved["objective"] == ("ar" if "ar" in flags else "diffusion")
        and saved["step"] == 4
        and model.config.vocab_size == tokenizer.vocab_size
    )
    assert saved["data"]["tokenizer"] == tokenizer.fingerprint
    assert sum(saved["statistics"]["row_lengths"]) == len(TextData(data_dir, "train", 48).starts)


@pytest.mark.long  # torch.compile takes most of a minute
def test_compiled_blocks_train_alike(data_dir, tmp_path):
    """torch.compile changes the speed, not the model: the same names in the checkpoint, nearly the same loss."""
    plain, compiled = (
        make_run(data_dir, tmp_path / name, "--max_steps", "2", "--log_every", "1", *flags)
        for name, flags in (("plain", []), ("compiled", ["--compile"]))
    )
    a, b = (torch.load(run / "last.pt", weights_only=True) for run in (plain, compiled))
    assert a["weights"].keys() == b["weights"].keys()
    assert log_of(plain)[0]["nats_per_token"] == pytest.approx(
        log_of(compiled)[0]["nats_per_token"], rel=0.05
    )


@pytest.mark.parametrize(
    "flags",
    [
        ["--weight", "flat", "--complementary"],
        ["--estimator", "cosine"],
        ["--objective", "ar"],
        ["--block_sizes", "1,4,48", "--logit_shift", "--accumulate", "2"],
        ["--unique_tokens", "500", "--eval_growth", "2"],
        ["--soft_masks", "--soft_share", "0.5", "--accumulate", "2", "--dropout", "0.1"],
        ["--noise", "uniform", "--time_conditioning", "sinusoidal", "--weight", "flat"],
        ["--noise", "hybrid", "--time_conditioning", "sinusoidal", "--uniform_share", "0.4"],
        ["--noise", "gaussian", "--time_conditioning", "sinusoidal", "--code_width", "4"],
    ],
)
def test_a_resumed_run_keeps_its_objective(flags, data_dir, tmp_path, monkeypatch):
    """Nothing is said again but the folders: the loss, the noise and the evaluations stay what they were."""
    words = [
        *flags,
        "--max_steps",
        "6",
        "--save_every",
        "2",
        "--eval_every",
        "3",
        "--log_every",
        "1",
    ]
    make_run(data_dir, tmp_path / "straight", *words)
    real = fit.optimizer_step
    with monkeypatch.context() as patch:
        patch.setattr(
            fit, "optimizer_step", lambda *given: 1 / 0 if given[2] == 4 else real(*given)
        )
        with pytest.raises(ZeroDivisionError):
            make_run(data_dir, tmp_path / "run", *words)
    train.main(["--data_dir", str(data_dir), "--out", str(tmp_path / "run"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "run")


def test_few_tokens_are_read_many_times(data_dir, tmp_path, capsys):
    run = make_run(data_dir, tmp_path / "run", "--unique_tokens", "500", "--max_steps", "12")
    said = capsys.readouterr().err
    few = TextData(data_dir, "train", 48)
    few.keep_first(500)
    passes = 12 * 4 / len(few.starts)
    assert f"{few.num_tokens} tokens" in said and f"12 steps make {passes:.1f} passes" in said
    # The lengths of the texts that it never reads are unknown to it.
    assert sum(content(run)["statistics"]["row_lengths"]) == len(few.starts)


def test_refusals(straight, data_dir, tmp_path):
    for words, message in (
        ([], "a run in"),
        (["--resume", "--max_length", "32"], "the model that is being resumed"),
        (["--resume", "--objective", "ar"], "the model that is being resumed"),
        (["--resume", "--unique_tokens", "500"], "found --unique_tokens 500; expected the run's"),
        (["--out", str(tmp_path / "a"), "--unique_tokens", "2"], "raise --unique_tokens"),
        (
            ["--resume", "--data_dir", str(make_data(tmp_path / "other", seed=1))],
            "the data of the run",
        ),
        (["--out", str(tmp_path / "none"), "--resume"], "start a run without --resume"),
        (["--out", str(tmp_path / "a"), "--model_config", "tinny"], "did you mean tiny"),
        (["--out", str(tmp_path / "a"), "--objective", "arr"], "did you mean ar"),
        (["--out", str(tmp_path / "a"), "--max_stepz", "3"], "expected --max_steps"),
        (["--out", str(tmp_path / "a"), "--max_steps", "0"], "at least 1"),
        (["--out", str(tmp_path / "a"), "--accumulate", "3"], "micro-batches of equal size"),
        (["--out", str(tmp_path / "a"), "--d_model", "18", "--heads", "4"], "channels per head"),
        (
            ["--out", str(tmp_path / "a"), "--complementary", "--estimator", "linear"],
            "the count estimator",
        ),
        (["--out", str(tmp_path / "a"), "--block_sizes", "1,x"], "--block_sizes 1,x"),
        (["--out", str(tmp_path / "a"), "--block_sizes", "1,64"], "sizes of at most 48 tokens"),
        (
            ["--out", str(tmp_path / "a"), "--block_sizes", "1,4", "--objective", "ar"],
            "--block_sizes 1,4 for a twin",
        ),
        (
            ["--out", str(tmp_path / "a"), "--block_sizes", "4", "--complementary"],
            "--block_sizes 4 with --complementary",
        ),
        (
            [
                *("--out", str(tmp_path / "a"), "--block_sizes", "4"),
                *("--time_conditioning", "sinusoidal"),
            ],
            "is not told the masked share",
        ),
        (
            ["--out", str(tmp_path / "a"), "--soft_masks", "--objective", "ar"],
            "--soft_masks with a twin",
        ),
        (
            ["--out", str(tmp_path / "a"), "--soft_masks", "--block_sizes", "1,4"],
            "--soft_masks with --block_sizes",
        ),
        (["--resume", "--soft_masks"], "the model that is being resumed"),
        (
            ["--out", str(tmp_path / "a"), "--data_dir", str(tmp_path / "nowhere")],
            "run data_prep.py",
        ),
        (["--out", str(tmp_path / "a"), "--device", "tpu"], "auto or one of cpu"),
        (["--out", f"{__file__}/such"], "test_train.py"),
        (["--out", str(tmp_path / "a"), "--max_steps", "many"], "run again with --help"),
    ):
        with pytest.raises(UserError, match=message):
            train.main(["--data_dir", str(data_dir), "--out", str(straight), *TINY, *words])
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").glob("*.pt"))


def test_config_file(data_dir, tmp_path):
    """Default < named size < --config < flag; an unknown key is an error."""
    path = tmp_path / "settings.json"
    path.write_text('{"d_model": 32, "seed": 5, "beta2": 0.9}')
    run = make_run(data_dir, tmp_path / "run", "--config", str(path), "--seed", "6")
    used = json.loads((run / "config.json").read_text())
    assert (used["d_model"], used["seed"], used["beta2"], used["ema"]) == (
        16,
        6,
        0.9,
        0.999,
    )  # 16: TINY's flag
    again = make_run(data_dir, tmp_path / "again", "--config", str(run / "config.json"))
    assert json.loads((again / "config.json").read_text()) == used
    path.write_text('{"d_modell": 32}')
    with pytest.raises(UserError, match="expected d_model"):
        make_run(data_dir, tmp_path / "b", "--config", str(path))
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        make_run(data_dir, tmp_path / "b", "--config", str(path))


def test_a_denoiser_starts_from_its_twin(tmp_path):
    """--init_from takes over every weight; a step at no learning rate to speak of leaves them there."""
    data = make_data(tmp_path / "data")
    twin = torch.load(
        make_run(data, tmp_path / "twin", "--objective", "ar") / "best.pt", weights_only=True
    )["averaged"]
    run = make_run(
        data,
        tmp_path / "run",
        "--init_from",
        str(tmp_path / "twin" / "best.pt"),
        "--max_steps",
        "1",
        "--learning_rate",
        "1e-9",
    )
    mine = torch.load(run / "last.pt", weights_only=True)["weights"]
    assert mine.keys() == twin.keys() and all(
        torch.allclose(mine[name], twin[name], atol=1e-6) for name in mine
    )


def test_a_block_model_starts_from_a_twin(tmp_path):
    """Every weight fits, the checkpoint says which sizes it learnt, the log says each step's size."""
    data = make_data(tmp_path / "data")
    start = make_run(data, tmp_path / "twin", "--objective", "ar") / "best.pt"
    words = ["--init_from", str(start), "--block_sizes", "4,1,48", "--log_every", "1"]
    run = make_run(data, tmp_path / "run", *words, "--max_steps", "8")
    saved = torch.load(run / "best.pt", weights_only=True)
    assert saved["model"]["block_sizes"] == "4,1,48" and not saved["model"]["causal"]
    assert saved["averaged"].keys() == torch.load(start, weights_only=True)["averaged"].keys()
    rows = log_of(run)
    assert {row["block_size"] for row in rows if "block_size" in row} <= {1, 4, 48}
    assert {"val_nats_per_token", "val_block_4_nats_per_token"} <= rows[-1].keys()


def test_one_training_a_folder(data_dir, tmp_path):
    """A second one is refused while the first lives, and goes on when it has been killed."""
    words = [
        sys.executable,
        str(ROOT / "train.py"),
        "--data_dir",
        str(data_dir),
        "--out",
        str(tmp_path / "run"),
        *TINY,
        "--max_steps",
        "100000",
        "--save_every",
        "5",
    ]
    first = subprocess.Popen(words, stderr=subprocess.DEVNULL, cwd=tmp_path)
    while not (tmp_path / "run" / "resume.pt").exists() and first.poll() is None:
        time.sleep(0.05)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(UserError, match="another process that writes into"):
        train.main([*words[2:], "--resume", "--seed", "3"])
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    first.kill()
    first.wait()
    step = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["step"]
    train.main([*words[2:], "--resume", "--max_steps", str(step + 1)])
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] == step + 1


def test_soft_masks_start_from_a_plain_denoiser(straight, data_dir, tmp_path):
    """Only the three scalars are new, they are trained, and every step is soft or plain by its number."""
    start = straight / "best.pt"
    words = ["--init_from", str(start), "--soft_masks", "--max_steps", "8", "--soft_share", "1"]
    run = make_run(data_dir, tmp_path / "run", *words)
    saved = torch.load(run / "best.pt", weights_only=True)
    plain = torch.load(start, weights_only=True)
    assert saved["model"]["soft_masks"] and not plain["model"]["soft_masks"]
    assert saved["weights"].keys() - plain["weights"].keys() == {"w_s", "w_a", "w_b"}
    assert "soft masks" in checkpoint.describe(saved)
    model, _, _ = checkpoint.open_model(run / "best.pt", averaged=False)
    assert model.w_s.item() != pytest.approx(0.1, abs=1e-4)
    # Without a soft step the scalars get no gradient, and stay.
    never = make_run(data_dir, tmp_path / "never", *words[:-1], "0")
    weights = torch.load(never / "last.pt", weights_only=True)["weights"]
    assert weights["w_s"].item() == pytest.approx(0.1)


def test_the_start_names_the_attention_kernel(data_dir, tmp_path, capsys):
    """On a CPU that is torch's flash kernel, with and without padding."""
    make_run(data_dir, tmp_path / "run", "--max_steps", "1")
    assert "attention: flash; rows with padding: flash\n" in capsys.readouterr().err
