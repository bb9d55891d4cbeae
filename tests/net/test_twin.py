"""The autoregressive twin: a proper distribution, a cache that changes nothing, no look ahead."""

import itertools

import pytest
import torch

from base.config import ModelConfig
from model import Denoiser
from net import twin as net_twin
from net.draws import draw_tokens
from net.samplers import row_generators
from tests.making.toys import chi_square

EOS, PAD, BOS = 4, 5, 6


def twin() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(
        ModelConfig(
            vocab_size=8, output_size=5, max_length=12, d_model=32, heads=2, layers=2, causal=True
        )
    )
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def test_likelihoods_are_a_distribution():
    """Over all strings of length 3 behind the given first token, whatever stands in the padding."""
    strings = torch.tensor([(BOS, *rest) for rest in itertools.product(range(5), repeat=2)])
    free = torch.tensor([False, True, True]).expand(25, 3)
    nats = net_twin.likelihoods(twin(), strings, free)
    assert nats.neg().exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    padded = torch.cat([strings, torch.full((25, 4), PAD)], 1)
    assert torch.allclose(
        net_twin.likelihoods(twin(), padded, torch.nn.functional.pad(free, (0, 4))),
        nats,
        atol=1e-5,
    )
    loss, stats = net_twin.loss(twin(), strings, free)
    assert loss.item() == pytest.approx(nats.sum().item() / 50, rel=1e-5) == stats["nats_per_token"]


def test_no_token_looks_ahead():
    model, tokens = twin(), torch.randint(0, 5, (3, 10), generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    for place in range(10):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % 5
        after = model(other)
        assert torch.allclose(after[:, :place], before[:, :place], atol=1e-6)
        assert ((after - before)[:, place].abs().amax(-1) > 1e-3).all()


def without_cache(model, prompt, length, rngs, temperature, top_p):
    """The same by reading everything anew at every step."""
    tokens, log_prob = prompt, torch.zeros(prompt.shape, dtype=torch.float64)
    done = torch.zeros(len(prompt), dtype=torch.bool)
    while tokens.shape[1] < length:
        uniform = torch.cat([torch.rand(1, generator=rng, dtype=torch.float64) for rng in rngs])
        token, nats = draw_tokens(model(tokens)[:, -1], uniform, temperature, top_p)
        tokens = torch.cat([tokens, torch.where(done, PAD, token)[:, None]], 1)
        log_prob = torch.cat([log_prob, torch.where(done, 0.0, nats)[:, None]], 1)
        done |= token == EOS
    return tokens, log_prob


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0)])
@pytest.mark.parametrize("prompt_length", [1, 4])
def test_the_cache_changes_nothing(prompt_length, temperature, top_p):
    model = twin()
    prompt = torch.randint(0, 4, (6, prompt_length), generator=torch.Generator().manual_seed(1))
    prompt[:, 0] = BOS
    settings = dict(temperature=temperature, top_p=top_p)
    cached = net_twin.sample(
        model, prompt, 12, eos=EOS, pad=PAD, rngs=row_generators(0, 6), **settings
    )
    tokens, log_prob = without_cache(model, prompt, 12, row_generators(0, 6), **settings)
    assert torch.equal(cached.tokens, tokens)
    assert torch.allclose(cached.log_prob.double(), log_prob, atol=1e-5)
    for row in range(6):  # and no row depends on its neighbours
        alone = net_twin.sample(
            model,
            prompt[row : row + 1],
            12,
            eos=EOS,
            pad=PAD,
            rngs=row_generators(0, 1, first=row),
            **settings,
        )
        assert torch.equal(alone.tokens[0], tokens[row])


def test_what_is_sampled():
    """The prompt stays, behind [EOS] comes [PAD], and the trace is the likelihood of what was drawn."""
    model, prompt = twin(), torch.full((40, 1), BOS)
    drawn = net_twin.sample(model, prompt, 12, eos=EOS, pad=PAD, rngs=row_generators(0, 40))
    free = torch.zeros_like(drawn.tokens, dtype=torch.bool)
    for number, row in enumerate(drawn.tokens.tolist()):
        end = row.index(EOS) + 1 if EOS in row else 12
        assert row[0] == BOS and row[end:] == [PAD] * (12 - end) and max(row[1:end]) <= EOS
        assert drawn.step[number].tolist() == [*range(end), *[0] * (12 - end)]
        free[number, 1:end] = True
    assert 0 < free.sum() < 40 * 11 and drawn.calls == drawn.step.max()
    assert torch.allclose(
        drawn.log_prob.double().sum(1),
        -net_twin.likelihoods(model, drawn.tokens, free),
        atol=1e-4,
    )


def test_samples_follow_the_model():
    drawn = net_twin.sample(
        twin(), torch.full((1000, 1), BOS), 2, eos=EOS, pad=PAD, rngs=row_generators(1, 1000)
    )
    expected = twin()(torch.tensor([[BOS]]))[0, 0].detach().softmax(-1)
    assert chi_square(torch.bincount(drawn.tokens[:, 1], minlength=5), expected) > 1e-4
