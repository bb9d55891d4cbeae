"""Soft masks: fresh beliefs are an ordinary denoiser, carried beliefs a sampler with an exact trace.

Toys: 3 symbols, [MASK] = 3, so the network's vocabulary is 4. Rows of 3 can be enumerated.
"""

import dataclasses

import pytest
import torch

import diffusion
from base.config import ModelConfig, SampleConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from diffusion import guide
from loop import checkpoint
from model import Denoiser
from net import soft_masks
from net.samplers import row_generators, sample
from net.soft_masks import Carried, SoftDenoiser, belief_of
from tests.making.toys import (
    MASK,
    STRINGS,
    chi_square,
    enumerated_bound,
    histogram,
)

CONFIG = ModelConfig(
    vocab_size=4, output_size=3, max_length=8, d_model=16, heads=2, layers=2, soft_masks=True
)


def soft_model(seed: int = 0, config: ModelConfig = CONFIG) -> SoftDenoiser:
    """A random network whose beliefs matter: larger weights than at the start, and lam near 0.8."""
    torch.manual_seed(seed)
    model = soft_masks.build(config).eval()
    assert isinstance(model, SoftDenoiser)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
        model.w_s.fill_(0.9)
        model.w_b.fill_(-3.0)
    return model


def some_rows(rows: int = 5, length: int = 8) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 3, (rows, length), generator=rng)
    return tokens.masked_fill(torch.rand(rows, length, generator=rng) < 0.5, MASK)


def ask(denoise, tokens, select=None) -> torch.Tensor:
    return denoise(tokens, torch.ones(len(tokens)), tokens == MASK if select is None else select)


# ---- The mixture


def test_a_mixture_by_hand():
    """An input of a masked place, from the formula alone; all other inputs are embeddings."""
    model, tokens = soft_model(), torch.tensor([[0, MASK, MASK]])
    logits = torch.tensor([[1.0, 0.0, -2.0], [3.0, -1.0, 0.5]])
    x = model.soften(tokens, belief_of(logits, tokens == MASK))[0]
    weight = model.embedding.weight
    for place, row in ((1, logits[0]), (2, logits[1])):
        pi = row.softmax(-1)
        entropy = -(pi * pi.log()).sum()
        lam = 0.9 * torch.sigmoid(-entropy + 3.0)
        torch.testing.assert_close(x[place], (1 - lam) * weight[MASK] + lam * (pi @ weight[:3]))
    assert torch.equal(x[0], weight[0])


def test_a_belief_holds_the_three_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0]])
    belief = belief_of(logits, torch.tensor([[False, True]]))
    assert belief.ids[0, 1].tolist() == [1, 3, 2]
    three = logits[0, [1, 3, 2]].softmax(-1)
    torch.testing.assert_close(belief.weight[0, 1], three)
    prob = logits[0].softmax(-1)
    torch.testing.assert_close(belief.entropy[0, 1], -(prob * prob.log()).sum())


def test_without_strength_it_is_the_plain_denoiser():
    """w_s = 0: equal bit for bit, fresh and carried, and the weights are those of the plain class."""
    model, tokens = soft_model(), some_rows()
    torch.manual_seed(3)
    plain = Denoiser(dataclasses.replace(CONFIG, soft_masks=False)).eval()
    torch.manual_seed(3)
    fresh = soft_masks.build(CONFIG)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, fresh.state_dict()[name])
    plain.load_state_dict(model.state_dict(), strict=False)
    expected = ask(plain.bind(), tokens)
    assert torch.equal(ask(model.plain(), tokens), expected)
    assert not torch.equal(ask(model.bind(), tokens), expected)
    model.w_s.data.zero_()
    assert torch.equal(ask(model.bind(), tokens), expected)
    carried = Carried(model)
    assert torch.equal(ask(carried, tokens), expected)
    tokens[:, 0] = 1
    assert torch.equal(ask(carried, tokens), ask(plain.bind(), tokens))


# ---- Fresh beliefs


def test_the_bound_is_the_enumerated_bound():
    model = soft_model()
    denoise, free = model.bind(), torch.ones(27, 3, dtype=torch.bool)
    draws = {"mask_id": MASK, "rng": torch.Generator().manual_seed(0), "draws": 100}
    estimates = diffusion.bound_estimates(denoise, STRINGS, free, **draws)
    mean = torch.stack([estimate["nats"] for estimate in estimates]).mean(0)
    exact = torch.tensor([enumerated_bound(denoise, row, free[0]) for row in STRINGS])
    assert (mean - exact).abs().max() < 0.25
    # A true bound: exp(-bound) of all strings is no more than a distribution has.
    assert (-exact).exp().sum() < 1
    # And it is another network's bound than that of the first pass alone.
    plain = torch.tensor([enumerated_bound(model.plain(), row, free[0]) for row in STRINGS])
    assert (plain - exact).abs().max() > 0.02


def test_a_row_does_not_see_its_neighbours_or_padding():
    model, tokens = soft_model(), some_rows()
    lengths = torch.tensor([8, 5, 6, 3, 7])
    select = (tokens == MASK) & (torch.arange(8) < lengths[:, None])
    together = ask(model.bind(lengths), tokens, select).split(select.sum(1).tolist())
    for row, n in enumerate(lengths.tolist()):
        alone = ask(model.bind(), tokens[row : row + 1, :n])
        torch.testing.assert_close(together[row], alone)
    # Neighbours of a row share its length, as speculation asks.
    twice = ask(model.bind(lengths), tokens.repeat_interleave(2, 0), select.repeat_interleave(2, 0))
    torch.testing.assert_close(twice, torch.cat([part.repeat(2, 1) for part in together]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_takes_the_second_pass_alone(dtype):
    """It equals the gradient with beliefs that are constants, also under autocast."""
    model, tokens = soft_model(), some_rows()
    masked = tokens == MASK
    autocast = {"dtype": dtype, "enabled": dtype != torch.float32}

    with torch.autocast("cpu", **autocast):
        ask(model.bind(), tokens).square().sum().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    with torch.no_grad(), torch.autocast("cpu", **autocast):
        belief = belief_of(ask(model.plain(), tokens), masked)
    with torch.autocast("cpu", **autocast):
        inputs = model.soften(tokens, belief)
        model(tokens, select=masked, inputs=inputs).square().sum().backward()
    for name, weight in model.named_parameters():
        assert found[name].abs().max() > 0, name
        torch.testing.assert_close(found[name], weight.grad, msg=name)


def test_guesses_are_checked_with_fresh_beliefs():
    """Speculation asks about neighbours of a row. At temperature 0 it writes the same text."""
    model, blank = soft_model(), torch.full((3, 8), MASK)
    exact = SampleConfig(sampler="entropy", steps=8, temperature=0.0)
    ahead = dataclasses.replace(exact, speculate=3)
    one, other = (
        sample(model.bind(), blank, config, mask_id=MASK, rngs=row_generators(0, 3))
        for config in (exact, ahead)
    )
    assert torch.equal(one.tokens, other.tokens) and other.calls < one.calls


# ---- Carried beliefs


def test_the_first_call_is_plain_and_the_second_is_not():
    model, tokens = soft_model(), some_rows()
    carried = Carried(model)
    assert torch.equal(ask(carried, tokens), ask(model.plain(), tokens))
    assert torch.equal(ask(carried, tokens), ask(model.plain(), tokens))  # the same text again
    later = tokens.clone()
    later[torch.arange(5), (tokens == MASK).long().argmax(1)] = 1  # a place of each row is revealed
    first = belief_of(ask(model.plain(), tokens), tokens == MASK)
    inputs = model.soften(later, first)
    expected = model(later, select=later == MASK, inputs=inputs)
    assert torch.equal(ask(carried, later), expected)
    assert not torch.equal(expected, ask(model.plain(), later))
    with pytest.raises(ValueError, match="same rows"):
        ask(carried, tokens.repeat(2, 1))


def test_a_place_masked_again_has_no_belief():
    model = soft_model()
    carried = Carried(model)
    ask(carried, torch.tensor([[0, 1, MASK, 2]]))
    again = torch.tensor([[0, MASK, 1, 2]])
    assert torch.equal(ask(carried, again), ask(model.plain(), again))


@pytest.mark.parametrize("sampler", ["left_to_right", "entropy", "margin"])
def test_the_trace_is_the_probability_with_memory(sampler):
    """Over all 27 strings the traces sum to 1, and the sampler draws them so often."""
    model = soft_model()
    config = SampleConfig(sampler=sampler, steps=3)
    blank = torch.full((27, 3), MASK)
    read = sample(
        Carried(model), blank, config, mask_id=MASK, rngs=row_generators(0, 27), target=STRINGS
    )
    law = read.log_prob.sum(1).double().exp()
    assert abs(law.sum().item() - 1) < 1e-5
    rows = 3000
    drawn = sample(
        Carried(model),
        blank[:1].repeat(rows, 1),
        config,
        mask_id=MASK,
        rngs=row_generators(5, rows),
    )
    assert chi_square(histogram(drawn.tokens), law) > 1e-3
    # The memory matters: the law with fresh beliefs is another.
    fresh = sample(
        model.bind(), blank, config, mask_id=MASK, rngs=row_generators(0, 27), target=STRINGS
    )
    assert (fresh.log_prob - read.log_prob).abs().max() > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "first_hitting", "steps": 3},
        {"sampler": "first_hitting", "steps": 8, "schedule": "cosine", "revise": 1},
        {"sampler": "entropy_bound", "entropy_bound": 0.7},
        {"sampler": "confidence", "steps": 5, "block_size": 3},
        {"sampler": "remask", "steps": 8, "remask_strength": 0.5},
        {"sampler": "ancestral", "steps": 6},
    ],
    ids=lambda settings: settings["sampler"],
)
def test_a_row_carries_what_it_would_carry_alone(settings):
    """Rows of other lengths and paces, and padding, change neither its tokens nor its trace."""
    model, config = soft_model(), SampleConfig(**settings)
    lengths = torch.tensor([8, 3, 6, 4])
    tokens = torch.full((4, 8), MASK)
    tokens[:, 0] = 1
    tokens[torch.arange(8) >= lengths[:, None]] = 0
    together = sample(
        Carried(model, lengths), tokens, config, mask_id=MASK, rngs=row_generators(3, 4)
    )
    for row, n in enumerate(lengths.tolist()):
        rngs = row_generators(3, 1, row)
        alone = sample(Carried(model), tokens[row : row + 1, :n], config, mask_id=MASK, rngs=rngs)
        assert torch.equal(together.tokens[row, :n], alone.tokens[0])
        torch.testing.assert_close(together.log_prob[row, :n], alone.log_prob[0])


def test_guidance_carries_two_beliefs():
    model, tokens = soft_model(), some_rows()
    both = guide(Carried(model), Carried(model), 2.0)
    torch.testing.assert_close(ask(both, tokens), ask(model.plain(), tokens).log_softmax(-1))


# ---- Training, checkpoints, refusals


def test_a_plain_step_is_plain():
    model, tokens = soft_model(), some_rows()
    plain = soft_masks.trainer_of(model, {"soft": False}, None)
    assert torch.equal(ask(plain, tokens), ask(model.plain(), tokens))
    for batch in ({"soft": True}, {}):
        fresh = soft_masks.trainer_of(model, batch, None)
        assert torch.equal(ask(fresh, tokens), ask(model.bind(), tokens))


def test_the_checkpoint_decides(text_runs):
    """The scalars come back, an old checkpoint without the field is plain, and [MASK] is the last id."""
    saved = checkpoint.load(text_runs.denoiser)
    assert Tokenizer.from_json(saved["tokenizer"]).mask == saved["model"]["vocab_size"] - 1
    del saved["model"]["soft_masks"]
    assert type(checkpoint.build_denoiser(saved)) is Denoiser
    saved["model"]["soft_masks"] = True
    model = checkpoint.build_denoiser(saved)
    assert isinstance(model, SoftDenoiser)
    assert {"w_s", "w_a", "w_b"} <= set(model.state_dict())


def test_refusals():
    for more in ({"causal": True}, {"block_sizes": "1,4"}, {"time_conditioning": "sinusoidal"}):
        with pytest.raises(UserError, match="--soft_masks with"):
            dataclasses.replace(CONFIG, **more)
    with pytest.raises(UserError, match="--speculate 2 with --carry"):
        SampleConfig(speculate=2, carry=True)
    settings = SampleConfig(carry=True)
    with pytest.raises(UserError, match="--carry with a network without soft masks"):
        soft_masks.writer_of(Denoiser(dataclasses.replace(CONFIG, soft_masks=False)), settings)
    assert isinstance(soft_masks.writer_of(soft_model(), settings), Carried)
