"""A quality head: its labels have the mean p(x_i = y_i | all others), by tally over a known joint.

Toys: 3 symbols, [MASK] = 3, strings of length 3, so the 64 texts with masks can be counted.
"""

import dataclasses
import itertools

import pytest
import torch

from base.config import ModelConfig, SampleConfig
from base.files import UserError
from loop import checkpoint
from model import Denoiser
from net import quality, soft_masks
from net.quality import QualityDenoiser, doubted
from net.samplers import row_generators, sample
from tests.making.toys import MASK, STRINGS, arbitrary, oracle, random_joint

CONFIG = ModelConfig(
    vocab_size=4, output_size=3, max_length=8, d_model=16, heads=2, layers=2, quality_layers=1
)
PLACES = torch.tensor([16, 4, 1])


def quality_model(bias: float = 0.0, config: ModelConfig = CONFIG) -> QualityDenoiser:
    """A random network with larger weights, so that its tokens and verdicts differ."""
    torch.manual_seed(0)
    model = soft_masks.build(config).eval()
    assert isinstance(model, QualityDenoiser)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
        model.quality.verdict.bias.fill_(bias)
    return model


def right_given_others(joint: torch.Tensor) -> torch.Tensor:
    """p(x_i = y_i | the tokens of y but i) for all 64 texts y and places i: (64, 3) float64."""
    found = torch.full((64, 3), torch.nan, dtype=torch.float64)
    for row, text in enumerate(itertools.product(range(4), repeat=3)):
        for place in range(3):
            seen = torch.tensor(text)
            seen[place] = MASK
            fits = ((seen == STRINGS) | (seen == MASK)).all(1)
            if text[place] != MASK:
                same = STRINGS[:, place] == text[place]
                found[row, place] = joint[fits & same].sum() / joint[fits].sum()
    return found


def rows_of(joint: torch.Tensor, count: int, seed: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return STRINGS[torch.multinomial(joint, count, replacement=True, generator=rng)]


def drawn_from(denoise, tokens: torch.Tensor, reveals: int = 1, seed: int = 2) -> quality.Drawn:
    rng = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(tokens), generator=rng, dtype=torch.float64)
    free = torch.ones_like(tokens, dtype=torch.bool)
    how = {"mask_id": MASK, "rng": rng, "uniform": uniform, "reveals": reveals}
    return quality.draw(denoise, tokens, free, **how)


def distance(tokens, where, right, expected) -> float:
    """Mean of z² over the cells (text, place) with at least 50 labels; 1 if `expected` is true."""
    text = (tokens * PLACES).sum(1)[:, None].expand_as(tokens)[where]
    cell = text * 3 + where.nonzero()[:, 1]
    count = torch.bincount(cell, minlength=192).double()
    hits = torch.bincount(cell, weights=right.double(), minlength=192)
    wanted = expected.flatten()
    enough = count >= 50
    spread = (count * wanted * (1 - wanted))[enough]
    return ((hits - count * wanted)[enough] ** 2 / spread).mean().item()


# ---- The labels


def test_labels_have_the_mean_of_quality():
    """Whatever the denoiser draws: here its conditionals fit no joint distribution."""
    joint = random_joint()
    tokens, expected = rows_of(joint, 200_000), right_given_others(joint)
    made = drawn_from(arbitrary(), tokens)
    assert made.where.sum() == len(tokens) and not (made.tokens == MASK)[made.where].any()
    whole = ~(made.tokens == MASK).any(1)
    # Of one, two or three masks 1, 3/4 and 2/3 of the rows are shown whole.
    assert abs(whole.double().mean().item() - 29 / 36) < 0.01
    assert distance(made.tokens, made.where, made.right, expected) < 1.4

    # Wrong: given tokens are labelled too.
    shown = made.tokens != MASK
    assert distance(made.tokens, shown, (made.tokens == tokens)[shown], expected) > 50
    # Wrong: a draw that has seen the true token.
    peek = torch.nn.functional.one_hot(tokens, 3).double()
    seen = drawn_from(lambda text, share, select: peek[select], tokens)
    assert distance(seen.tokens, seen.where, seen.right, expected) > 50


def test_several_draws_are_judged_without_each_other():
    """Two draws per row: the label's mean is p(x_i = y_i | y without both)."""
    joint = random_joint()
    tokens, expected = rows_of(joint, 300_000), right_given_others(joint)
    made = drawn_from(arbitrary(), tokens, reveals=2)
    both = made.where.sum(1) == 2
    distances = []
    for place, other in itertools.permutations(range(3), 2):
        pair = both & made.where[:, place] & made.where[:, other]
        alone = torch.zeros_like(made.where)
        alone[pair, place] = True
        right = made.tokens[pair, place] == tokens[pair, place]
        without = made.tokens.clone()
        without[:, other] = MASK
        distances.append(distance(without, alone, right, expected))
    assert sum(distances) / 6 < 1.5
    # With both in sight it is another number.
    where = made.where & both[:, None]
    right = made.tokens[where] == tokens[where]
    assert distance(made.tokens, where, right, expected) > 5


class Table:
    """A denoiser and a head that have a number per text and place."""

    def __init__(self, denoise):
        self.denoise = denoise
        self.odds = torch.zeros(64, 3, requires_grad=True)

    def __call__(self, tokens, share, select):
        return self.denoise(tokens, share, select)

    def check(self, tokens, select):
        return None, self.odds[(tokens * PLACES).sum(1)]


def test_a_trained_head_says_the_quality():
    joint = random_joint()
    table, tokens = Table(oracle(joint)), rows_of(joint, 20_000)
    optimizer = torch.optim.Adam([table.odds], lr=0.1)
    free = torch.ones_like(tokens, dtype=torch.bool)
    for step in range(150):
        rng = torch.Generator().manual_seed(step)
        uniform = torch.rand(len(tokens), generator=rng, dtype=torch.float64)
        value, figures = quality.loss(table, tokens, free, mask_id=MASK, rng=rng, uniform=uniform)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.98
    expected = right_given_others(joint)[: 3 * 16 + 3 * 4 + 3]
    error = (table.odds.detach().sigmoid()[: len(expected)] - expected).abs()
    assert error.nan_to_num().max() < 0.08 and error.nanmean() < 0.02
    assert 0 < figures["drawn_right"] < 1


# ---- The network


def test_without_its_head_it_is_the_plain_denoiser():
    torch.manual_seed(3)
    plain = Denoiser(dataclasses.replace(CONFIG, quality_layers=0)).eval()
    torch.manual_seed(3)
    model = soft_masks.build(CONFIG).eval()
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    tokens = torch.tensor([[0, MASK, 2, MASK], [MASK, 1, 1, 0]])
    share, select = torch.full((2,), 0.5), tokens == MASK
    said = model.bind()(tokens, share, select)
    assert torch.equal(said, plain.bind()(tokens, share, select))
    logits, odds = model.bind().check(tokens, select)
    assert torch.equal(logits, said) and odds.shape == (2, 4)


def test_a_verdict_depends_on_its_row_alone():
    """With a condition, padding, and two neighbours for each length and condition."""
    model = quality_model(config=dataclasses.replace(CONFIG, condition_width=6))
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 4, (3, 8), generator=rng)
    seen, lengths = torch.randn(3, 5, 6, generator=rng), torch.tensor([8, 5, 3])
    for block in [*model.blocks, *model.quality.blocks]:
        torch.nn.init.ones_(block.cross.gate)
    nothing = torch.zeros_like(tokens, dtype=torch.bool)
    together = model.bind(lengths, model.keys_values(seen))
    odds = together.check(tokens, nothing)[1]
    twice = together.check(tokens.repeat_interleave(2, 0), nothing.repeat_interleave(2, 0))[1]
    for row, n in enumerate(lengths.tolist()):
        alone = model.bind(None, model.keys_values(seen[row : row + 1]))
        expected = alone.check(tokens[row : row + 1, :n], nothing[:1, :n])[1][0]
        torch.testing.assert_close(odds[row, :n], expected)
        torch.testing.assert_close(twice[2 * row + 1, :n], expected)
    blind = model.bind(lengths, model.keys_values(torch.zeros_like(seen))).check(tokens, nothing)[1]
    assert (blind - odds).abs().max() > 1e-3  # the head reads the condition


def test_only_the_head_is_trained():
    model = quality_model()
    quality.freeze(model)
    tokens = torch.tensor([[0, 1, 2, 1, 0]] * 4)
    how = {"mask_id": MASK, "rng": torch.Generator().manual_seed(0)}
    how["uniform"] = torch.rand(4, generator=how["rng"], dtype=torch.float64)
    quality.loss(model.bind(), tokens, torch.ones_like(tokens, dtype=torch.bool), **how)[
        0
    ].backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == name.startswith("quality."), name


# ---- Writing


def test_the_least_likely_below_the_doubt():
    right = torch.tensor([[0.9, 0.1, 0.3, 0.2], [0.4, 0.7, 0.8, 0.0]])
    among = torch.tensor([[True, True, True, True], [True, True, True, False]])
    settings = SampleConfig(recheck=1, doubt=0.5, doubtful=2)
    assert doubted(right, among, settings).nonzero().tolist() == [[0, 1], [0, 3], [1, 0]]


RECHECK = SampleConfig(steps=4, recheck=3, doubt=0.5, doubtful=2)


def write(model, tokens, settings, rows=None, lengths=None):
    rngs = row_generators(0, len(tokens)) if rows is None else row_generators(0, 1, rows)
    return sample(model.bind(lengths), tokens, settings, mask_id=MASK, rngs=rngs)


@pytest.mark.parametrize("sampler", ["first_hitting", "entropy_bound", "remask"])
def test_a_row_is_rechecked_as_it_would_be_alone(sampler):
    model, settings = quality_model(0.3), dataclasses.replace(RECHECK, sampler=sampler)
    lengths = torch.tensor([8, 3, 6, 4])
    tokens = torch.full((4, 8), MASK)
    tokens[:, 0] = 1
    tokens[torch.arange(8) >= lengths[:, None]] = 0
    together = write(model, tokens, settings, lengths=lengths)
    assert torch.equal(together.tokens[:, 0], tokens[:, 0]) and not (together.tokens == MASK).any()
    changed = write(model, tokens, dataclasses.replace(settings, recheck=0), lengths=lengths)
    assert not torch.equal(together.tokens, changed.tokens)
    for row, n in enumerate(lengths.tolist()):
        alone = write(model, tokens[row : row + 1, :n], settings, rows=row)
        assert torch.equal(together.tokens[row, :n], alone.tokens[0])
        assert together.used[row] == alone.used[0] == alone.calls
        torch.testing.assert_close(together.log_prob[row, :n], alone.log_prob[0])


def test_calls_are_counted():
    """No doubt: one call more, which looks. Doubt for ever: one look, and a call per round."""
    blank = torch.full((2, 6), MASK)
    plain = write(quality_model(), blank, dataclasses.replace(RECHECK, recheck=0))
    for bias, calls in ((99.0, 1), (-99.0, 4)):
        model = quality_model(bias)
        asked = []
        model.quality.register_forward_hook(lambda *_, asked=asked: asked.append(1))
        drawn = write(model, blank, RECHECK)
        assert (drawn.used - plain.used).tolist() == [calls, calls] == [len(asked)] * 2
        assert torch.equal(drawn.used, drawn.rows)
        assert torch.equal(drawn.tokens, plain.tokens) == (bias > 0)
    # The likelihood of a given text is that of its order: nothing is rechecked.
    target = torch.zeros_like(blank)
    read = sample(
        model.bind(),
        blank,
        RECHECK,
        mask_id=MASK,
        rngs=row_generators(0, 2),
        target=target,
    )
    assert torch.equal(read.tokens, target) and read.calls == plain.calls


def test_a_recheck_with_true_numbers_mends_what_parallel_draws_break():
    """Only two strings exist, 000 and 111; a single call mixes them; g and the denoiser are exact."""
    joint = torch.zeros(27, dtype=torch.float64)
    joint[0] = joint[13] = 0.5
    # A little of all strings, so that each text has a quality.
    joint = 0.999 * joint + 0.001 / 27
    odds = right_given_others(joint).logit()

    class Exact(Table, quality.Checked):
        def check(self, tokens, select):
            text = (tokens * PLACES).sum(1)
            return self(tokens, None, select), odds[text]

    settings = SampleConfig(sampler="first_hitting", steps=1)
    broken = []
    for rounds in (0, 1, 2):
        how = dataclasses.replace(settings, recheck=rounds, doubt=0.2, doubtful=1)
        blank, rngs = torch.full((600, 3), MASK), row_generators(0, 600)
        drawn = sample(Exact(oracle(joint)), blank, how, mask_id=MASK, rngs=rngs).tokens
        broken.append((drawn != drawn[:, :1]).any(1).double().mean().item())
    assert broken[0] > 0.7 and broken[1] < 0.05 and broken[2] < 0.05


# ---- Checkpoints and refusals


def test_the_checkpoint_decides(text_runs):
    """An old checkpoint has no such field, and gives the plain class."""
    saved = checkpoint.load(text_runs.denoiser)
    assert saved["model"].pop("quality_layers") == 0
    assert type(checkpoint.build_denoiser(saved)) is Denoiser
    saved["model"]["quality_layers"] = 2
    assert len(checkpoint.build_denoiser(saved).quality.blocks) == 2
    assert "quality head" in checkpoint.describe(saved)


def test_refusals():
    for more in (
        {"causal": True},
        {"block_sizes": "1,4"},
        {"time_conditioning": "sinusoidal"},
        {"soft_masks": True},
        {"dropout": 0.1},
    ):
        with pytest.raises(UserError, match="--quality_layers 1 with"):
            dataclasses.replace(CONFIG, **more)
    with pytest.raises(UserError, match="--speculate 2 with --recheck 1"):
        SampleConfig(speculate=2, recheck=1)
    plain = Denoiser(dataclasses.replace(CONFIG, quality_layers=0))
    with pytest.raises(UserError, match="without a quality head"):
        soft_masks.check(plain, SampleConfig(recheck=1))
    with pytest.raises(UserError, match="without --init_from"):
        quality.check_training({}, has_start=False)
    with pytest.raises(UserError, match="--quality_layers with --complementary"):
        quality.check_training({"--complementary": True}, has_start=True)


def test_exact_tables_agree():
    """The toy's conditionals and its qualities are of one joint: a check of the test itself."""
    joint = random_joint()
    table = right_given_others(joint)
    text = torch.tensor([[1, MASK, 2]])
    logits = oracle(joint)(text, None, text == MASK)
    for symbol in range(3):
        whole = torch.tensor([1, symbol, 2])
        found = table[(whole * PLACES).sum(), 1]
        torch.testing.assert_close(found, logits.softmax(-1)[0, symbol])
