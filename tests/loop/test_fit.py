"""The loop: stop and resume to the bit, accumulation, precision, optimisers, what it writes and what it refuses."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import diffusion
import train
from base import config, flags
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from loop import checkpoint, distributed, fit, hardware
from loop.batches import step_generator, to_device, with_noise_levels
from loop.optim import Muon, learning_rate, make_optimizers, orthogonalize
from model import Denoiser
from tests.making.corpus import TINY, make_data, make_run
from text.data import Batches, TextData

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("training") / "data")


def log_of(run) -> list[dict]:
    """log.jsonl without the one key that is a clock's."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows
    ]


def same_run(one, two) -> None:
    """Weights, averages, optimizer state and every logged figure are equal to the bit."""
    a, b = (torch.load(run / "resume.pt", weights_only=True) for run in (one, two))
    for part in ("weights", "averaged"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    assert log_of(one) == log_of(two)
    assert (a["step"], a["tokens_seen"], a["best"]) == (b["step"], b["tokens_seen"], b["best"])
    for mine, other in zip(a["optimizer"], b["optimizer"], strict=True):
        for key, state in mine["state"].items():
            assert all(
                torch.equal(torch.as_tensor(value), torch.as_tensor(other["state"][key][name]))
                for name, value in state.items()
            )


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_resumed_equals_straight(number, straight, data_dir, tmp_path):
    """A real process, hit by a real signal in mid-run, twice."""
    words = [
        sys.executable,
        str(ROOT / "train.py"),
        "--data_dir",
        str(data_dir),
        "--out",
        str(tmp_path / "run"),
        *TINY,
        *STEPS,
    ]
    log = tmp_path / "run" / "log.jsonl"
    for stop_after in (9, 31):
        going_on = (tmp_path / "run" / "resume.pt").exists()
        process = subprocess.Popen(
            words + ["--resume"] * going_on, stderr=subprocess.PIPE, cwd=tmp_path, text=True
        )
        while process.poll() is None and not (
            log.exists() and f'"step": {stop_after}, ' in log.read_text()
        ):
            time.sleep(0.01)
        os.kill(process.pid, number) if process.poll() is None else None
        error = process.communicate(timeout=60)[1]
        if number == signal.SIGTERM:
            assert process.returncode == 128 + signal.SIGTERM, error
            assert "all saved; go on with --resume" in error
        else:
            assert process.returncode == -signal.SIGKILL
        assert torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["step"] < 60
    train.main([*words[2:], "--resume"])
    same_run(straight, tmp_path / "run")


def test_accumulation_does_not_change_the_batch(data_dir):
    """Four micro-batches: the same rows and noise levels as one batch; with the twin (no noise) the same gradient."""
    data = TextData(data_dir, "train", 48)
    one, four = (Batches(data, 8, accumulate, seed=3) for accumulate in (1, 4))
    levels = [
        with_noise_levels(batches(5), step_generator(3, 5, stream=1)) for batches in (one, four)
    ]
    assert torch.equal(levels[0][0]["uniform"], torch.cat([part["uniform"] for part in levels[1]]))
    strata = (levels[0][0]["uniform"] * 8).floor().sort().values
    assert torch.equal(strata, torch.arange(8, dtype=torch.float64))
    gradients = []
    for batches in (one, four):
        torch.manual_seed(0)
        model = Denoiser(
            ModelConfig(
                vocab_size=data.tokenizer.vocab_size,
                output_size=data.tokenizer.output_size,
                d_model=16,
                heads=2,
                layers=1,
                max_length=48,
                causal=True,
            )
        )
        cfg = TrainConfig(optimizer="adamw", clip=0.0, learning_rate=1e-12)
        loss_fn = lambda model, batch, rng: train.twin.loss(model, *to_device(batch, "cpu")[::2])
        result = fit.optimizer_step(
            distributed.Objective(model, loss_fn),
            batches(5),
            5,
            cfg,
            make_optimizers(model, cfg),
            hardware.Arithmetic(torch.device("cpu"), torch.float32),
        )
        gradients.append(
            (result.loss, result.gradient_norm, result.tokens, result.figures["nats_per_token"])
        )
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


def test_learning_rate():
    cfg = TrainConfig(max_steps=110, warmup_steps=10, final_learning_rate=0.1)
    rates = [learning_rate(step, cfg) for step in range(111)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)


def test_muon_is_torchs_muon():
    """The same update as torch.optim.Muon up to its bfloat16, for tall, wide and square matrices, over several steps."""
    torch.manual_seed(0)
    mine = [
        torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 24), (24, 24), (64, 24), (24, 64))
    ]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in mine]
    ours, reference = (
        Muon(mine, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        ours.step()
        reference.step()
    for one, other in zip(mine, theirs, strict=True):
        assert (
            one - other
        ).norm() < 0.02 * 3 * 0.02 * 0.2 * 64**0.5 * 24**0.5  # 2% of three updates
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 40, 24)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_takes_the_blocks_matrices_and_nothing_else():
    model = Denoiser(ModelConfig(vocab_size=50, output_size=47, d_model=16, heads=2, layers=2))
    adamw, muon = make_optimizers(model, TrainConfig(optimizer="muon"))
    mine = {id(w) for group in muon.param_groups for w in group["params"]}
    assert mine == {
        id(w) for name, w in model.named_parameters() if name.startswith("blocks.") and w.ndim == 2
    }
    assert sum(len(group["params"]) for opt in (adamw, muon) for group in opt.param_groups) == len(
        list(model.parameters())
    )
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]  # never on norms
    assert len(make_optimizers(model, TrainConfig(optimizer="adamw"))) == 1


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


def test_nonfinite_loss_stops_and_keeps_the_last_good_state(data_dir, tmp_path, monkeypatch):
    real = diffusion.loss
    monkeypatch.setattr(
        diffusion,
        "loss",
        lambda *args, rng, **words: (
            lambda value, stats: (value * (math.nan if count() > 3 else 1.0), stats)
        )(*real(*args, rng=rng, **words)),
    )
    calls = iter(range(1, 100))
    count = lambda: next(calls)
    with pytest.raises(UserError, match="a loss of nan at step 4"):
        make_run(data_dir, tmp_path / "run", "--max_steps", "8", "--save_every", "1")
    saved = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert saved["step"] == 3 and all(value.isfinite().all() for value in saved["weights"].values())


@pytest.mark.parametrize(
    "flags",
    [["--weight", "flat", "--complementary"], ["--estimator", "cosine"], ["--objective", "ar"]],
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


def test_refusals(straight, data_dir, tmp_path):
    for words, message in (
        ([], "a run in"),
        (["--resume", "--max_length", "32"], "the model that is being resumed"),
        (["--resume", "--objective", "ar"], "the model that is being resumed"),
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
        (
            ["--out", str(tmp_path / "a"), "--data_dir", str(tmp_path / "nowhere")],
            "run data_prep.py",
        ),
        (["--out", str(tmp_path / "a"), "--device", "tpu"], "auto or one of cpu"),
        (["--out", "/proc/no/such"], "/proc/no/such"),
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


def test_named_sizes_and_checks():
    with pytest.raises(UserError, match="expected medium"):
        config.named_size("mediun")
    for values in (
        {"dropout": 1.0},
        {"d_model": "16"},
        {"causal": 1},
        {"mlp": "relu"},
        {"dropout": math.nan},
        {"layers": True},
    ):
        with pytest.raises(UserError):
            ModelConfig(**values)
    with pytest.raises(UserError, match="the key 'width'"):
        flags.from_dict(ModelConfig, {"width": 3})


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


class Spoilt:
    """diffusion.loss, but in some steps without a finite loss, or a finite gradient, wherever row 1 of the last micro-batch takes part."""

    def __init__(self, monkeypatch, steps, how):
        self.real, self.steps, self.how = diffusion.loss, steps, how
        real_step = fit.optimizer_step

        def step_of(objective, micro_batches, step, *rest):
            self.at = step
            self.marked = {
                tuple(row.tolist()) for batch in micro_batches[-1:] for row in batch["tokens"][1:2]
            }
            return real_step(objective, micro_batches, step, *rest)

        monkeypatch.setattr(fit, "optimizer_step", step_of)
        monkeypatch.setattr(diffusion, "loss", self.loss)

    def loss(self, denoise, tokens, free, **words):
        value, stats = self.real(denoise, tokens, free, **words)
        if self.at in self.steps and any(tuple(row.tolist()) in self.marked for row in tokens):
            return (value * math.nan if self.how == "loss" else HugeGradient.apply(value)), stats
        return value, stats


class HugeGradient(torch.autograd.Function):
    """The identity, whose gradient is not finite: what an overflow in the backward pass looks like."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


MANY = [
    "--max_steps",
    "12",
    "--save_every",
    "1",
    "--log_every",
    "1",
    "--accumulate",
    "2",
    "--precision",
    "fp32",
]


def test_the_rows_of_a_nonfinite_loss_are_named(data_dir, tmp_path, monkeypatch):
    """The second of two micro-batches, its second row, by its place and by its number in the data."""
    Spoilt(monkeypatch, {4}, "loss")
    with pytest.raises(
        UserError,
        match=r"a loss of nan at step 5 from micro-batch 1, row 1 \(rows (\d+) of the data\)",
    ) as stop:
        make_run(data_dir, tmp_path / "run", *MANY)
    batch = Batches(TextData(data_dir, "train", 48), 4, 2)(4)[1]
    assert f"rows {batch['rows'][1]} of" in str(stop.value)
    assert torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["step"] == 4


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_steps_left_out_change_nothing_and_are_counted(how, data_dir, tmp_path, monkeypatch):
    """Two of two may be left out; the weights, averages and tokens stay as they were; a third stops the run, before and after resuming."""
    Spoilt(monkeypatch, {4, 7, 10}, how)
    what = "a loss of nan" if how == "loss" else "a gradient of norm"
    with pytest.raises(UserError, match=f"{what}.* at step 11, after 2 that were left out,"):
        make_run(data_dir, tmp_path / "run", *MANY, "--skip_nonfinite", "2")
    saved = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert (
        saved["step"] == 10
        and saved["skipped"] == 2
        and all(value.isfinite().all() for value in saved["weights"].values())
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["skipped"]) for row in rows if "skipped" in row] == [(5, 1), (8, 2)]
    seen = {row["step"]: row["tokens_seen"] for row in rows if "tokens_seen" in row}
    assert 5 not in seen and seen[6] - seen[4] == sum(
        part["weight"] for part in Batches(TextData(data_dir, "train", 48), 4, 2)(5)
    )
    with pytest.raises(UserError, match="at step 11, after 2 that were left out"):
        make_run(data_dir, tmp_path / "run", *MANY, "--resume")
    make_run(data_dir, tmp_path / "run", *MANY, "--resume", "--skip_nonfinite", "3")
    straight = make_run(data_dir, tmp_path / "straight", *MANY, "--skip_nonfinite", "3")
    a, b = (
        torch.load(run / "resume.pt", weights_only=True) for run in (tmp_path / "run", straight)
    )
    assert a["skipped"] == b["skipped"] == 3 and all(
        torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"]
    )


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


def test_batches_beside_a_gpu_are_made_one_ahead_and_in_order():
    """The same steps and batches as on a CPU, the next begun before the last is used; what fails there fails here."""
    made = []

    def batches(step):
        made.append(step)
        if step == 7:
            raise UserError("a batch", "none", "stop")
        return [{"weight": float(step)}]

    for kind in ("cpu", "cuda"):
        assert list(fit.prefetched(batches, range(3, 6), torch.device(kind))) == [
            (step, [{"weight": float(step)}]) for step in (3, 4, 5)
        ]
    assert made == [3, 4, 5] * 2 and not list(
        fit.prefetched(batches, range(2, 2), torch.device("cpu"))
    )
    coming = fit.prefetched(batches, range(5, 9), torch.device("cuda"))
    assert next(coming)[0] == 5
    for _ in range(500):  # 6 is made now, unasked, and 7 is not
        if made[-1] == 6:
            break
        time.sleep(0.01)
    assert made[-2:] == [5, 6] and next(coming)[0] == 6
    with pytest.raises(UserError, match="a batch"):
        next(coming)
