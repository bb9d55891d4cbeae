"""The network: what it may see, what it may say, that all of it learns."""

import pytest
import torch

import diffusion
from base.config import NAMED_SIZES, ModelConfig
from base.files import UserError
from model import Denoiser, Rotary

PAD, BOS, MASK = 9, 10, 11  # of the toy vocabulary: ids below 9 can be emitted


def toy(**changes) -> Denoiser:
    """A small network in evaluation mode, its weights large enough that everything matters."""
    torch.manual_seed(0)
    model = Denoiser(
        ModelConfig(
            **(
                dict(vocab_size=12, output_size=9, max_length=16, d_model=32, heads=2, layers=2)
                | changes
            )
        )
    )
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def open_gates(model):
    for block in model.blocks:
        torch.nn.init.constant_(block.cross.gate, 0.5)


def random_tokens(rows=3, length=10):
    return torch.randint(0, 9, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize(
    "extra",
    [
        dict(),
        dict(time_conditioning="sinusoidal", condition_width=6),
        dict(condition_width=6, length_hidden=8),
        dict(causal=True),
    ],
    ids=["plain", "conditioned", "lengths", "causal"],
)
def test_every_parameter_learns(mlp, extra):
    model, condition = toy(mlp=mlp, **extra), None
    if model.config.condition_width:
        open_gates(model)
        condition = model.keys_values(torch.randn(3, 5, 6))
    loss = model(random_tokens(), share=torch.rand(3), condition=condition).square().mean()
    if model.length_head is not None:
        loss = loss + model.length_logits(torch.randn(3, 5, 6)).square().mean()
    loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_a_closed_gate_is_the_identity():
    """Cross-attention added to a trained denoiser changes not one bit until it learns; an open gate changes all."""
    plain, conditioned = toy(), toy(condition_width=6)
    missing = conditioned.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and all(
        "cross" in name or "length_head" in name for name in missing.missing_keys
    )
    condition = conditioned.keys_values(torch.randn(3, 5, 6))
    tokens = random_tokens()
    assert torch.equal(conditioned(tokens, condition=condition), plain(tokens))
    open_gates(conditioned)
    assert not torch.allclose(conditioned(tokens, condition=condition), plain(tokens), atol=1e-2)


def test_the_condition_may_be_read_once():
    """Keys and values from an earlier call, or of one row for a whole batch, give the logits of fresh ones."""
    model, image, tokens = toy(condition_width=6), torch.randn(1, 5, 6), random_tokens()
    open_gates(model)
    kept = model.keys_values(image)
    model(tokens, condition=kept)
    shared = [(k.expand(3, -1, -1, -1), v.expand(3, -1, -1, -1)) for k, v in kept]
    assert torch.allclose(
        model(tokens, condition=shared),
        model(tokens, condition=model.keys_values(image.expand(3, -1, -1))),
        atol=1e-5,
    )
    assert torch.equal(
        model(tokens[:1], condition=kept), model(tokens[:1], condition=model.keys_values(image))
    )


def test_padding_is_not_seen():
    """Logits and loss of the real tokens move neither with the amount of padding nor with what stands there."""
    model, lengths, tokens = toy(), torch.tensor([10, 4, 7]), random_tokens()
    real = torch.arange(10) < lengths[:, None]
    expected = model(tokens, lengths=lengths)
    wide = torch.cat([tokens, torch.full((3, 6), PAD)], 1)
    assert torch.allclose(model(wide, lengths=lengths)[:, :10][real], expected[real], atol=1e-5)
    assert torch.allclose(
        model(torch.where(real, tokens, MASK), lengths=lengths)[real], expected[real], atol=1e-5
    )
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(
            model(tokens[row : row + 1, :length])[0], expected[row, :length], atol=1e-5
        )
    masked, share = real & (torch.arange(10) % 2 == 1), torch.ones(3)
    losses, _ = diffusion.masked_losses(model.bind(lengths), tokens, masked, share, MASK)
    padded, _ = diffusion.masked_losses(
        model.bind(lengths), wide, torch.nn.functional.pad(masked, (0, 6)), share, MASK
    )
    assert torch.allclose(losses, padded, atol=1e-5)


def test_selected_rows_are_those_of_all_logits():
    model, tokens = toy(), random_tokens()
    select = torch.rand(3, 10) < 0.4
    assert torch.allclose(model(tokens, select=select), model(tokens)[select], atol=1e-5)


def test_special_tokens_cannot_be_emitted():
    """No output row for [PAD], [BOS], [MASK], though their embeddings matter as input."""
    model, tokens = toy(), random_tokens()
    assert model(tokens).shape == (3, 10, 9) and model(tokens).dtype == torch.float32
    assert not torch.allclose(
        model(tokens.masked_fill(tokens == 3, MASK)), model(tokens), atol=1e-2
    )


def test_attention_goes_both_ways():
    model, tokens = toy(), random_tokens()
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % 9
    assert ((model(other) - model(tokens))[:, 0].abs().amax(1) > 1e-3).all()


def test_order_matters():
    model, tokens = toy(), random_tokens(1)
    assert not torch.allclose(model(tokens.flip(1)).flip(1), model(tokens), atol=1e-2)


def test_rotary_products_depend_on_the_distance_alone():
    rotary, q, k = (
        Rotary(8, 32),
        *torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)),
    )
    product = lambda a, b: (rotary(q, slice(a, a + 1)) * rotary(k, slice(b, b + 1))).sum().item()
    assert product(0, 0) == pytest.approx((q * k).sum().item(), abs=1e-5)
    assert (
        product(5, 2)
        == pytest.approx(product(30, 27), abs=1e-4)
        != pytest.approx(product(2, 5), abs=1e-2)
    )


def test_time_conditioning_is_heard():
    model, tokens = toy(time_conditioning="sinusoidal"), random_tokens()
    assert not torch.allclose(
        model(tokens, share=torch.full((3,), 0.1)),
        model(tokens, share=torch.full((3,), 0.9)),
        atol=1e-2,
    )
    deaf = toy()
    assert torch.equal(
        deaf(tokens, share=torch.full((3,), 0.1)), deaf(tokens, share=torch.full((3,), 0.9))
    )


@pytest.mark.parametrize(
    "name, count",
    [
        ("tiny", 5_212_928),
        ("small", 13_768_320),
        ("medium", 29_500_928),
        ("large", 54_204_800),
        ("xlarge", 91_246_848),
        ("xxlarge", 209_226_752),
    ],
)
def test_sizes(name, count):
    width, heads, layers = NAMED_SIZES[name]
    with torch.device("meta"):
        assert (
            Denoiser(ModelConfig(d_model=width, heads=heads, layers=layers)).num_parameters()
            == count
        )


def test_a_batch_can_be_learnt_by_heart():
    """Four rows told apart by their given first token: the bound falls below 0.05 nats per token."""
    torch.manual_seed(0)
    model = Denoiser(
        ModelConfig(vocab_size=12, output_size=9, max_length=16, d_model=64, heads=4, layers=2)
    )
    tokens = random_tokens(4, 16)
    tokens[:, 0] = torch.arange(4)
    free = torch.ones_like(tokens, dtype=torch.bool)
    free[:, 0] = False
    optimizer, rng = (
        torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95)),
        torch.Generator().manual_seed(0),
    )
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 300)
        loss, _ = diffusion.loss(
            model.bind(), tokens.repeat(8, 1), free.repeat(8, 1), mask_id=MASK, rng=rng
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    draws = diffusion.bound_estimates(
        model.eval().bind(), tokens, free, mask_id=MASK, rng=rng, draws=30
    )
    assert sum(draw["nats"].sum().item() for draw in draws) / len(draws) / free.sum().item() < 0.05


def test_a_logit_shift_moves_the_outputs_by_a_position():
    """The output of each position predicts the token behind it, in selected rows too."""
    plain, shifted = toy(), toy(logit_shift=True)
    tokens = torch.randint(0, 12, (2, 8))
    select = torch.rand(2, 8) < 0.5
    found = shifted(tokens)
    assert torch.equal(found[:, 1:], plain(tokens)[:, :-1])
    assert torch.allclose(shifted(tokens, select=select), found[select], atol=1e-6)


@pytest.mark.parametrize("other", ["causal", "soft_masks", "quality_layers"])
def test_a_logit_shift_is_for_plain_denoisers(other):
    values = {"causal": True, "soft_masks": True, "quality_layers": 1}
    with pytest.raises(UserError, match="logit_shift"):
        ModelConfig(logit_shift=True, **{other: values[other]})
