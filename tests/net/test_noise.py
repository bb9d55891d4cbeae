"""Networks of other noise as a user runs them: train, score, write; and what each refuses."""

import json
import math

import pytest
import torch

import evaluate
import export_onnx
import generate
import train
from base.config import ModelConfig, SampleConfig
from base.files import UserError
from loop import checkpoint
from net import gaussian_noise, noise, soft_masks, token_noise
from net.channels import channel_of
from net.samplers import row_generators
from tests.making.corpus import TINY, make_data, make_run
from text.document_scores import bound_estimates
from text.objective import TextRun, check_noise

OTHER = ("uniform", "hybrid", "gaussian")
UNIFORM = {"noise": "uniform", "time_conditioning": "sinusoidal"}
SIZE = {"vocab_size": 8, "output_size": 5, "max_length": 8, "d_model": 16, "heads": 2, "layers": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("noise") / "data")


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """A run of each noise, trained when it is asked for."""
    made = {}

    def run_of(kind: str):
        words = ["--noise", kind, "--time_conditioning", "sinusoidal", "--max_steps", "8"]
        if kind not in made:
            made[kind] = make_run(data_dir, tmp_path_factory.mktemp("runs") / kind, *words)
        return made[kind]

    return run_of


@pytest.mark.parametrize("kind", OTHER)
def test_train_evaluate_and_generate(kind, runs, data_dir, tmp_path, capsys):
    run = runs(kind)
    assert f"{kind} noise" in checkpoint.describe(checkpoint.load(run / "best.pt"))
    logged = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert {"val_nats_per_token", "val_bits_per_byte", "val_posterior_accuracy"} <= set(logged)
    scores, out = tmp_path / "scores.json", tmp_path / "out.jsonl"
    words = ["--checkpoint", str(run / "best.pt"), "--device", "cpu"]
    evaluate.main([*words, "--data_dir", str(data_dir), "--json", str(scores), "--draws", "8"])
    result = json.loads(scores.read_text())
    low, high = result["nats_per_token_ci95"]
    assert low < result["nats_per_token"] < high and result["noise"] == kind
    # A network that learnt next to nothing: near the bound of equal chances, ln V, and the lengths.
    learnt_nothing = math.log(297) + result["length_nats_per_token"]
    assert result["nats_per_token"] == pytest.approx(learnt_nothing, rel=0.2)
    assert not any("masked" in name for name in result)
    assert "tokens under noise" in capsys.readouterr().out
    texts = []
    for size in ("1", "3"):
        more = ["--batch_size", size, "--steps", "4", "--num_samples", "3", "--json", str(out)]
        generate.main([*words, *more])
        texts.append([json.loads(line)["tokens"] for line in out.read_text().splitlines()])
    assert texts[0] == texts[1]
    page = tmp_path / "page.html"
    template = ["--template", "Ann had a [MASK*3] cat.", "--steps", "3", "--show", "--delay", "0"]
    generate.main([*words, *template, "--num_samples", "1", "--html", str(page)])
    assert "Ann had a" in capsys.readouterr().out and page.stat().st_size


def test_a_grid_of_samples_has_the_one_sampler(runs, data_dir, tmp_path):
    words = ["--checkpoint", str(runs("hybrid") / "best.pt"), "--data_dir", str(data_dir)]
    grid = ["--samples", "--num_samples", "2", "--min_tokens", "5", "--step_counts", "2"]
    evaluate.main([*words, "--json", str(tmp_path / "scores.json"), *grid, "--device", "cpu"])
    drawn = json.loads((tmp_path / "scores.json").read_text())["samples"]
    assert [row["sampler"] for row in drawn] == ["human text", "ancestral"]


def test_refusals_of_generate_and_evaluate(runs, data_dir):
    words = ["--checkpoint", str(runs("hybrid") / "best.pt"), "--device", "cpu"]
    for more, message in (
        (["--sampler", "confidence"], "expected ancestral: the other samplers reveal masks"),
        (["--block_size", "4"], "--block_size for a network of hybrid noise"),
        (["--speculate", "2"], "--speculate for a network of hybrid noise"),
        (["--revise", "1"], "--revise for a network of hybrid noise"),
    ):
        with pytest.raises(UserError, match=message):
            generate.main([*words, *more])
    for more, message in (
        (["--samples", "--samplers", "confidence"], "--sampler confidence for a network of hyb"),
        (["--estimator", "linear"], "--estimator linear for a network of hybrid noise"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main([*words, "--data_dir", str(data_dir), *more])


@pytest.mark.parametrize("kind", OTHER)
def test_whoever_fills_masks_refuses_the_checkpoint(kind, runs, data_dir, tmp_path):
    path, words = str(runs(kind) / "best.pt"), ["--data_dir", str(data_dir), *TINY]
    expected = f"a network of {kind} noise; expected a network that fills"
    with pytest.raises(UserError, match=expected):
        export_onnx.main(["--checkpoint", path, "--data_dir", str(data_dir)])
    with pytest.raises(UserError, match=expected):
        train.main([*words, "--out", str(tmp_path / "a"), "--init_from", path])
    saved = checkpoint.load(path)
    saved["kind"] = "caption"
    checkpoint.save(tmp_path / "odd.pt", saved)
    with pytest.raises(UserError, match=expected):
        checkpoint.open_model(tmp_path / "odd.pt", noises=("absorbing", kind))


def test_old_checkpoints_know_masks(runs, tmp_path):
    saved = checkpoint.load(runs("uniform") / "best.pt")
    for name in ("noise", "uniform_share", "code_width"):
        del saved["model"][name]
    checkpoint.save(tmp_path / "old.pt", saved)
    model, *_ = checkpoint.open_model(tmp_path / "old.pt")
    assert model.config.noise == "absorbing"


def test_a_small_file_asks_for_no_huge_codes(runs, tmp_path):
    saved = checkpoint.load(runs("gaussian") / "best.pt")
    saved["model"]["code_width"] = 10**9
    checkpoint.save(tmp_path / "huge.pt", saved)
    with pytest.raises(UserError, match="from fewer weights"):
        checkpoint.open_model(tmp_path / "huge.pt", noises=("gaussian",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time_conditioning": "none"}, "a network that is told the level of noise; add --time"),
        ({"causal": True}, "--noise uniform with a twin"),
        ({"block_sizes": "1,4", "time_conditioning": "none"}, "--noise uniform with --block_sizes"),
        ({"soft_masks": True, "time_conditioning": "none"}, "--noise uniform with --soft_masks"),
        ({"quality_layers": 1, "time_conditioning": "none"}, "uniform with --quality_layers"),
        ({"retrieve": 2}, "--noise uniform with --retrieve"),
        ({"logit_shift": True}, "--noise uniform with --logit_shift"),
        ({"condition_width": 8}, "--noise uniform with pictures"),
        ({"noise": "pink"}, "expected one of absorbing, uniform, hybrid, gaussian"),
        ({"uniform_share": 0.3}, "--uniform_share 0.3 with --noise uniform; expected hybrid"),
        ({"code_width": 8}, "--code_width 8 with --noise uniform; expected gaussian"),
        ({"noise": "hybrid", "uniform_share": 0.0}, "uniform_share"),
    ],
)
def test_parts_that_do_not_fit(values, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**{**SIZE, **UNIFORM, **values})


@pytest.mark.parametrize(
    "values", [{"estimator": "linear"}, {"complementary": True}, {"weight": "clipped"}]
)
def test_losses_of_masks_are_refused(values):
    check_noise(TextRun(**values), ModelConfig())
    with pytest.raises(UserError, match="--noise uniform with --"):
        check_noise(TextRun(**values), ModelConfig(**SIZE, **UNIFORM))


@pytest.mark.parametrize("kind", OTHER)
def test_scores_take_the_bound_of_the_noise(kind):
    """Of a checkpoint's network the held-out score is the bound of its noise, never that of masks."""
    model = soft_masks.build(ModelConfig(**SIZE, **{**UNIFORM, "noise": kind})).eval()
    tokens = torch.tensor([[6, 0, 1, 2, 3, 4, 0, 1]])
    free = torch.arange(8)[None] >= 1
    both = [{"rng": torch.Generator().manual_seed(0), "draws": 3} for _ in range(2)]
    found = bound_estimates(model, (tokens, None, free), "count", 0, both[0] | {"mask_id": 7})
    if kind == "gaussian":
        reading, codes = model.reading(), model.codes()
        expected = gaussian_noise.bound_estimates(
            reading, codes, tokens, free, mask_id=7, **both[1]
        )
    else:
        channel = channel_of(model.config, 7)
        expected = token_noise.bound_estimates(channel, model.bind(), tokens, free, **both[1])
    assert [row["nats"].item() for row in found] == [row["nats"].item() for row in expected]
    with pytest.raises(UserError, match="the other samplers reveal masks"):
        settings, rngs = SampleConfig("remask", 2), row_generators(0, 1)
        noise.sample(model, tokens, settings, mask_id=7, rngs=rngs)
