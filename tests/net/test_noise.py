"""Uniform noise: both bounds and the sampler against enumeration, read-outs, and a run as a user makes it.

Toys: V symbols and [MASK] = V. A network is a table of leave-one-out logits.
"""

import itertools
import json
import math

import numpy as np
import pytest
import torch

import evaluate
import export_onnx
import generate
import train
from base.config import ModelConfig, SampleConfig
from base.files import UserError
from diffusion import stratified
from loop import checkpoint
from net import noise, soft_masks
from net.samplers import row_generators
from tests.making.corpus import TINY, make_data, make_run
from text.document_scores import bound_estimates
from text.objective import TextRun, check_noise

DATA = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)  # V = 4, L = 1
ENTROPY = -(DATA * DATA.log()).sum().item()
UNIFORM = {"noise": "uniform", "time_conditioning": "sinusoidal"}
CONFIG = ModelConfig(
    vocab_size=8, output_size=5, max_length=8, d_model=16, heads=2, layers=1, **UNIFORM
)


def pairs(symbols: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs of a clean and a standing symbol."""
    grid = torch.tensor(list(itertools.product(range(symbols), repeat=2)))
    return grid[:, 0], grid[:, 1]


def q(clean, standing, level: float, symbols: int) -> torch.Tensor:
    """q(z | x), from the formula."""
    return (1 - level) * (clean == standing).double() + level / symbols


def nodes(count: int = 60) -> list[tuple[float, float]]:
    """Levels and weights of a quadrature over [0, 1]; t = u³ tames the logarithm at 0."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return [
        (((x + 1) / 2) ** 3, w / 2 * 3 * ((x + 1) / 2) ** 2)
        for x, w in zip(points, weights, strict=True)
    ]


def perfect(read: str, standing: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """What a perfect network of single tokens says: p(x), or p(x | z)."""
    logits = DATA.log().expand(len(standing), -1)
    return noise.to_posterior(logits, standing, level) if read == "posterior" else logits


def continuous(read: str) -> float:
    clean, standing = pairs(4)
    total = 0.0
    for level, weight in nodes():
        share = torch.full((16,), level, dtype=torch.float64)
        law = DATA[clean] * q(clean, standing, level, 4)
        rate = noise.rates(perfect(read, standing, share), clean, standing, share)
        total += weight * (law * rate).sum().item()
    return total


def in_steps(read: str, steps: int) -> float:
    clean, standing = pairs(4)
    total = 0.0
    for number in range(steps):
        now = torch.full((16,), (number + 1) / steps, dtype=torch.float64)
        before = torch.full((16,), number / steps, dtype=torch.float64)
        law = DATA[clean] * q(clean, standing, (number + 1) / steps, 4)
        prob = perfect(read, standing, now).softmax(-1)
        total += (law * noise.step_losses(prob, clean, standing, before, now)).sum().item()
    return total


# ---- A perfect network of a single token: each bound is the entropy at its own read-out


def test_the_continuous_bound_is_the_entropy_at_the_leave_one_out_read_out():
    assert continuous("leave_one_out") == pytest.approx(ENTROPY, abs=1e-6)
    assert continuous("posterior") > ENTROPY + 0.3


@pytest.mark.parametrize("steps", [2, 4, 16])
def test_the_bound_of_steps_is_the_entropy_at_the_posterior(steps):
    assert in_steps("posterior", steps) == pytest.approx(ENTROPY, abs=1e-12)
    assert in_steps("leave_one_out", steps) > ENTROPY + 0.2


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_sampler_has_the_law_of_the_data(steps):
    """The chain's law, by matrices. Evidence that is counted twice gives another law."""
    ends = []
    standing = torch.arange(4)
    for times in (1, 2):
        law = torch.full((4,), 0.25, dtype=torch.float64)
        for number in range(steps, 0, -1):
            now = torch.full((4,), number / steps, dtype=torch.float64)
            before = torch.full((4,), (number - 1) / steps, dtype=torch.float64)
            read = perfect("posterior", standing, now)
            read = noise.to_posterior(read, standing, now) if times == 2 else read
            rows = noise.reverse_law(read.softmax(-1), standing, before, now)
            assert torch.allclose(rows.sum(-1), torch.ones(4, dtype=torch.float64))
            law = law @ rows
        ends.append(law)
    assert torch.allclose(ends[0], DATA, atol=1e-14)
    # The first call starts from noise alone, where nothing is evidence.
    assert steps == 1 or (ends[1] - DATA).abs().max() > 0.02


def test_drawn_tokens_have_the_law_of_the_data():
    """`sample` itself: independent places, and the chi-square of their counts (3 degrees)."""
    tokens = torch.full((2, 4000), 4)
    drawn = noise.sample(
        lambda text, share, select: DATA.log().expand(int(select.sum()), -1),
        tokens,
        SampleConfig("ancestral", 4, schedule="cosine"),
        mask_id=4,
        writable=4,
        rngs=row_generators(0, 2),
    )
    count = torch.bincount(drawn.tokens.flatten(), minlength=4).double()
    assert ((count - 8000 * DATA) ** 2 / (8000 * DATA)).sum() < 16.3  # p = 0.001


# ---- A random network of two tokens: against definitions, written anew

TABLE = 1.5 * torch.randn(3, 3, 2, 3, generator=torch.Generator().manual_seed(3)).double()
TEXTS = torch.tensor(list(itertools.product(range(3), repeat=2)))  # (9, 2)


def table_network(text, share, select):
    """Leave-one-out logits by the noised text; the level sharpens them."""
    logits = TABLE[text[:, 0], text[:, 1]] * (1.5 - share.double())[:, None, None]
    return logits[select]


def posterior_of(text, level: float) -> torch.Tensor:
    """p(x_i | z) of the network: (n, 2, 3), by Bayes' rule on its leave-one-out read-out."""
    every = torch.ones(len(text), 2, dtype=torch.bool)
    share = torch.full((len(text),), level, dtype=torch.float64)
    loo = table_network(text, share, every).view(-1, 2, 3).softmax(-1)
    weight = loo * q(torch.arange(3), text[..., None], level, 3)
    return weight / weight.sum(-1, keepdim=True)


def naive_rate(text: int, noised: int, level: float) -> float:
    """The integrand from its definition, term by term."""
    x, z = TEXTS[text], TEXTS[noised]
    every = torch.ones(1, 2, dtype=torch.bool)
    share = torch.tensor([level], dtype=torch.float64)
    guess = table_network(z[None], share, every).softmax(-1)
    total = 0.0
    for i, y in itertools.product(range(2), range(3)):
        if y == z[i]:
            continue
        s = float(q(x[i], torch.tensor(y), level, 3) / q(x[i], z[i], level, 3))
        law = (1 - level) * guess[i] + level / 3
        h = float(law[y] / law[z[i]])
        total += h - s * math.log(h) + s * (math.log(s) - 1)
    return total / ((1 - level) * 3)


def enumerated_bounds() -> torch.Tensor:
    """The continuous bound of each text, over all noised texts and a quadrature over levels: (9,)."""
    bounds = torch.zeros(9, dtype=torch.float64)
    every = torch.ones(9, 2, dtype=torch.bool)
    for level, weight in nodes():
        share = torch.full((9,), level, dtype=torch.float64)
        logits = table_network(TEXTS, share, every)
        for number, text in enumerate(TEXTS):
            law = q(text, TEXTS, level, 3).prod(-1)
            clean = text.expand(9, 2).flatten()
            rate = noise.rates(logits, clean, TEXTS.flatten(), share.repeat_interleave(2))
            bounds[number] += weight * (law * rate.view(9, 2).sum(1)).sum()
    return bounds


def test_the_integrand_is_its_definition():
    every = torch.ones(9, 2, dtype=torch.bool)
    for level in (0.02, 0.5, 0.97):
        share = torch.full((9,), level, dtype=torch.float64)
        logits = table_network(TEXTS, share, every)
        for number in (0, 5):
            clean = TEXTS[number].expand(9, 2).flatten()
            rate = noise.rates(logits, clean, TEXTS.flatten(), share.repeat_interleave(2))
            expected = [naive_rate(number, noised, level) for noised in range(9)]
            assert rate.view(9, 2).sum(1).tolist() == pytest.approx(expected, rel=1e-9)


def test_extreme_levels_stay_finite_in_float32():
    clean, standing = pairs(3)
    logits = 20 * torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    for level in (noise.LEAST, 1 - 2**-53):
        share = torch.full((9,), level, dtype=torch.float64)
        logits.requires_grad_()
        rate = noise.rates(logits, clean, standing, share)
        rate.sum().backward()
        assert rate.isfinite().all() and logits.grad.isfinite().all()
        exact = noise.rates(logits.detach().double(), clean, standing, share)
        torch.testing.assert_close(rate.double(), exact, rtol=1e-4, atol=1e-6)


def test_both_bounds_of_a_random_network_are_bounds():
    """exp(-bound) of all texts is no more than a law has. Many steps approach the continuous bound."""
    continuous_bound = enumerated_bounds()
    assert (-continuous_bound).exp().sum() < 1
    for steps in (3, 60):
        bounds = torch.zeros(9, dtype=torch.float64)
        chain = torch.full((9,), 1 / 9, dtype=torch.float64)
        for number in range(steps, 0, -1):
            before, now = ((n / steps) for n in (number - 1, number))
            posterior = posterior_of(TEXTS, now)  # (9, 2, 3)
            # q(z_s | z_t, y) from Bayes' rule, for each place: (9, 2, 3 of y, 3 of z_s).
            stays = (1 - now) / (1 - before)
            ids = torch.arange(3)
            forward = stays * (ids == TEXTS[..., None]).double() + (1 - stays) / 3
            joint = forward[:, :, None] * q(ids[:, None], ids, before, 3)
            back = joint / joint.sum(-1, keepdim=True)
            model = (posterior[..., None] * back).sum(2)  # (9, 2, 3)
            for number_of, text in enumerate(TEXTS):
                law = q(text, TEXTS, now, 3).prod(-1)
                true = torch.stack([back[:, i, text[i]] for i in range(2)], 1)
                divergence = torch.xlogy(true, true) - torch.xlogy(true, model)
                bounds[number_of] += (law * divergence.sum((1, 2))).sum()
            chain = chain @ (model[:, 0, :, None] * model[:, 1, None]).flatten(1)
        if steps == 3:
            # The exact likelihood of what the sampler writes is never below its bound.
            assert (bounds > -chain.log() - 1e-12).all()
            exact = bounds
        else:
            assert (bounds - continuous_bound).abs().max() < 0.1
    estimate = estimated_bounds(
        lambda *rows, **how: noise.step_bounds(table_network, *rows, steps=3, **how)
    )
    assert (estimate - exact).abs().max() < 0.1


def estimated_bounds(work) -> torch.Tensor:
    """Of 2000 rows of each text, the mean: (9,)."""
    tokens = TEXTS.repeat_interleave(2000, 0)
    free = torch.ones_like(tokens, dtype=torch.bool)
    rng = torch.Generator().manual_seed(0)
    return work(tokens, free, writable=3, rng=rng, draws=6).view(9, 2000).mean(1)


def test_estimates_and_the_loss_have_the_mean_of_the_enumeration():
    exact = enumerated_bounds()

    def mean_of_draws(tokens, free, **how):
        rows = noise.bound_estimates(table_network, tokens, free, **how)
        return torch.stack([row["nats"] for row in rows]).mean(0)

    # Standard errors: 0.08 of a text, and 0.03 of all.
    apart = estimated_bounds(mean_of_draws) - exact
    assert apart.abs().max() < 0.3 and apart.mean().abs() < 0.09
    tokens = TEXTS.repeat(3000, 1)
    rng = torch.Generator().manual_seed(1)
    free = torch.ones_like(tokens, dtype=torch.bool)
    value, figures = noise.loss(table_network, tokens, free, writable=3, rng=rng)
    assert value.item() == figures["nats_per_token"]
    assert value.item() == pytest.approx(exact.mean().item() / 2, abs=0.05)
    flat, figures = noise.loss(table_network, tokens, free, writable=3, rng=rng, weight="flat")
    assert flat.item() == figures["posterior_cross_entropy"]


# ---- Read-outs, noise, rows


def test_a_conversion_and_its_inverse():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    standing, share = torch.tensor([0, 1, 2, 3, 4, 0]), stratified(6, rng).clamp(min=0.01)
    read = noise.to_posterior(logits, standing, share)
    back = noise.to_leave_one_out(read, standing, share)
    torch.testing.assert_close(back, logits)
    # By Bayes' rule: p(x | z) is proportional to p(x) q(z | x).
    weight = logits.softmax(-1) * torch.stack(
        [q(torch.arange(5), z, t, 5) for z, t in zip(standing, share, strict=True)]
    )
    torch.testing.assert_close(read.softmax(-1), weight / weight.sum(-1, keepdim=True))


def test_noise_keeps_given_places_and_writes_writable_ids():
    tokens = torch.full((4, 2000), 2)
    tokens[:, 0], tokens[:, 1500:] = 6, 7  # [BOS] and [PAD] of a vocabulary of 5 ids
    free = tokens == 2
    share = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    noised = noise.corrupt(tokens, free, share, torch.Generator().manual_seed(0), 5)
    assert torch.equal(noised[~free], tokens[~free])
    assert noised[free].max() < 5
    # A random id is the old token in a fifth of the cases.
    other = ((noised != tokens).sum(1) / 1499).tolist()
    assert other == pytest.approx([0.0, 0.2, 0.4, 0.8], abs=0.04)
    assert noise.at_places(share, free).tolist() == share.repeat_interleave(1499).tolist()


def network(seed: int = 0):
    torch.manual_seed(seed)
    model = soft_masks.build(CONFIG).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    return model


def test_a_row_draws_alone_what_it_draws_in_a_batch():
    model, settings = network(), SampleConfig("ancestral", 5, temperature=0.9, top_p=0.95)
    tokens = torch.full((3, 8), 7)  # [MASK] is 7
    tokens[:, 0], tokens[1, 3] = 6, 2
    lengths = torch.tensor([8, 6, 7])
    tokens[torch.arange(8) >= lengths[:, None]] = 5
    how = {"mask_id": 7, "writable": 5, "keep_frames": True}
    together = noise.sample(model.bind(lengths), tokens, settings, rngs=row_generators(4, 3), **how)
    assert torch.equal(together.tokens[tokens != 7], tokens[tokens != 7])
    assert together.tokens[tokens == 7].max() < 5 and len(together.frames) == 5
    assert torch.equal((together.step > 0), tokens == 7)
    for row, n in enumerate(lengths.tolist()):
        one = tokens[row : row + 1, :n]
        alone = noise.sample(model.bind(), one, settings, rngs=row_generators(4, 1, row), **how)
        assert torch.equal(alone.tokens[0], together.tokens[row, :n])
        torch.testing.assert_close(alone.log_prob[0], together.log_prob[row, :n])


def test_the_network_is_told_the_share_of_noise():
    model, tokens = network(), torch.tensor([[6, 0, 1, 2, 3, 4, 0, 1]])
    every = torch.ones_like(tokens, dtype=torch.bool)
    low, high = (model.bind()(tokens, torch.tensor([share]), every) for share in (0.1, 0.9))
    assert not torch.allclose(low, high)


# ---- As a user runs it


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uniform")
    data_dir = make_data(folder / "data")
    words = ["--noise", "uniform", "--time_conditioning", "sinusoidal", "--max_steps", "8"]
    return make_run(data_dir, folder / "run", *words), data_dir


def test_train_evaluate_and_generate(made, tmp_path, capsys):
    run, data_dir = made
    assert "uniform noise" in checkpoint.describe(checkpoint.load(run / "best.pt"))
    logged = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert {"val_nats_per_token", "val_bits_per_byte", "val_posterior_accuracy"} <= set(logged)
    scores, out = tmp_path / "scores.json", tmp_path / "out.jsonl"
    words = ["--checkpoint", str(run / "best.pt"), "--device", "cpu"]
    evaluate.main([*words, "--data_dir", str(data_dir), "--json", str(scores), "--draws", "4"])
    result = json.loads(scores.read_text())
    low, high = result["nats_per_token_ci95"]
    assert low < result["nats_per_token"] < high and result["noise"] == "uniform"
    # A network that learnt next to nothing: near the bound of equal chances, ln V, and the lengths.
    learnt_nothing = math.log(297) + result["length_nats_per_token"]
    assert result["nats_per_token"] == pytest.approx(learnt_nothing, rel=0.2)
    assert not any("masked" in name for name in result)
    assert "tokens under noise" in capsys.readouterr().out
    grid = ["--samples", "--num_samples", "2", "--min_tokens", "5", "--step_counts", "2"]
    evaluate.main([*words, "--data_dir", str(data_dir), "--json", str(scores), *grid])
    drawn = json.loads(scores.read_text())["samples"]
    assert [row["sampler"] for row in drawn] == ["human text", "ancestral"]
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


def test_refusals_of_generate_and_evaluate(made):
    run, data_dir = made
    words = ["--checkpoint", str(run / "best.pt"), "--device", "cpu"]
    for more, message in (
        (["--sampler", "confidence"], "expected ancestral: the other samplers reveal masks"),
        (["--block_size", "4"], "--block_size for a network of uniform noise"),
        (["--speculate", "2"], "--speculate for a network of uniform noise"),
        (["--revise", "1"], "--revise for a network of uniform noise"),
    ):
        with pytest.raises(UserError, match=message):
            generate.main([*words, *more])
    for more, message in (
        (["--samples", "--samplers", "confidence"], "--sampler confidence for a network of uni"),
        (["--estimator", "linear"], "--estimator linear for a network of uniform noise"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main([*words, "--data_dir", str(data_dir), *more])


def test_whoever_fills_masks_refuses_the_checkpoint(made, tmp_path):
    run, data_dir = made
    path, words = str(run / "best.pt"), ["--data_dir", str(data_dir), *TINY]
    expected = "a network of uniform noise; expected a network that fills"
    with pytest.raises(UserError, match=expected):
        export_onnx.main(["--checkpoint", path, "--data_dir", str(data_dir)])
    with pytest.raises(UserError, match=expected):
        train.main([*words, "--out", str(tmp_path / "a"), "--init_from", path])
    saved = checkpoint.load(path)
    saved["kind"] = "caption"
    checkpoint.save(tmp_path / "odd.pt", saved)
    with pytest.raises(UserError, match=expected):
        checkpoint.open_model(tmp_path / "odd.pt", noises=("absorbing", "uniform"))


def test_old_checkpoints_know_masks(made, tmp_path):
    saved = checkpoint.load(made[0] / "best.pt")
    del saved["model"]["noise"]
    checkpoint.save(tmp_path / "old.pt", saved)
    model, *_ = checkpoint.open_model(tmp_path / "old.pt")
    assert model.config.noise == "absorbing"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time_conditioning": "none"}, "a network that is told the share of noise; add --time"),
        ({"causal": True}, "--noise uniform with a twin"),
        ({"block_sizes": "1,4", "time_conditioning": "none"}, "--noise uniform with --block_sizes"),
        ({"soft_masks": True, "time_conditioning": "none"}, "--noise uniform with --soft_masks"),
        ({"quality_layers": 1, "time_conditioning": "none"}, "uniform with --quality_layers"),
        ({"retrieve": 2}, "--noise uniform with --retrieve"),
        ({"logit_shift": True}, "--noise uniform with --logit_shift"),
        ({"condition_width": 8}, "--noise uniform with pictures"),
        ({"noise": "gaussian"}, "expected one of absorbing, uniform"),
    ],
)
def test_parts_that_do_not_fit(values, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**{**UNIFORM, **values})


@pytest.mark.parametrize(
    "values", [{"estimator": "linear"}, {"complementary": True}, {"weight": "clipped"}]
)
def test_losses_of_masks_are_refused(values):
    check_noise(TextRun(**values), ModelConfig())
    with pytest.raises(UserError, match="--noise uniform with --"):
        check_noise(TextRun(**values), CONFIG)


def test_scores_take_the_bound_of_the_noise():
    """Of a checkpoint's network the held-out score is the uniform bound, never that of masks."""
    model, tokens = network(), torch.tensor([[6, 0, 1, 2, 3, 4, 0, 1]])
    free = torch.arange(8)[None] >= 1
    both = []
    for _ in range(2):
        both.append({"mask_id": 7, "rng": torch.Generator().manual_seed(0), "draws": 3})
    found = bound_estimates(model, (tokens, None, free), "count", 0, both[0])
    both[1].pop("mask_id")
    expected = noise.bound_estimates(model.bind(), tokens, free, writable=5, **both[1])
    assert [row["nats"].item() for row in found] == [row["nats"].item() for row in expected]
