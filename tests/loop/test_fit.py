"""The loop: accumulation, steps without a finite loss, and batches made ahead."""

import json
import math
import time

import pytest
import torch

import diffusion
import train
from base.config import ModelConfig, TrainConfig
from base.files import UserError
from loop import distributed, fit, hardware
from loop.batches import step_generator, to_device, with_noise_levels
from loop.optim import make_optimizers
from model import Denoiser
from net import twin
from tests.making.corpus import make_data, make_run
from text.data import Batches, TextData


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("training") / "data")


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
        loss_fn = lambda model, batch, rng: twin.loss(model, *to_device(batch, "cpu")[::2])
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


def test_evaluations_grow_apart():
    def due(**settings) -> list[int]:
        cfg = TrainConfig(**settings)
        return [step for step in range(1, 41) if fit.evaluation_is_due(step, cfg)]

    assert due(eval_every=10) == [10, 20, 30, 40] and due(eval_every=0, eval_growth=2.0) == []
    assert due(eval_every=2, eval_growth=2.0) == [2, 4, 8, 16, 32]
    assert due(eval_every=1, eval_growth=1.5) == [1, 2, 3, 4, 6, 8, 12, 18, 26, 39]


def test_a_run_without_patience_stops_early_and_stays_stopped(data_dir, tmp_path, monkeypatch):
    """The figures fall twice; then no evaluation is better than the best."""
    figures = {2: 3.0, 4: 2.0, 6: 2.0, 8: 2.5, 10: 1.0}
    real = fit.Run.evaluate

    def evaluate(run, eval_fn, *rest):
        real(run, lambda model: {"nats_per_token": figures[run.step]}, *rest)

    monkeypatch.setattr(fit.Run, "evaluate", evaluate)
    words = ["--max_steps", "10", "--eval_every", "2", "--save_every", "2"]
    run = make_run(data_dir, tmp_path / "run", *words, "--patience", "2")
    saved = torch.load(run / "resume.pt", weights_only=True)
    assert (saved["step"], saved["best"], saved["no_better"]) == (8, 2.0, 2)
    assert torch.load(run / "best.pt", weights_only=True)["step"] == 4
    again = ["--data_dir", str(data_dir), "--out", str(run), "--resume"]
    train.main(again)
    assert torch.load(run / "resume.pt", weights_only=True)["step"] == 8
    train.main([*again, "--patience", "3"])
    assert torch.load(run / "best.pt", weights_only=True)["step"] == 10


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
