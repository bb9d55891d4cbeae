"""Adapters: nothing changes at the start, merging changes nothing, and peft agrees."""

import dataclasses

import pytest
import torch
from torch import nn

from base.config import ModelConfig
from base.files import UserError
from loop import optim
from net import adapters, soft_masks

SIZE = ModelConfig(
    vocab_size=13, output_size=10, max_length=8, d_model=16, heads=2, layers=2, condition_width=6
)
KINDS = ({}, {"lora_root": True}, {"lora_norm": True}, {"lora_root": True, "lora_norm": True})


def pair(**settings) -> tuple[nn.Module, nn.Module]:
    """A network, and the same network with adapters."""
    torch.manual_seed(0)
    base = soft_masks.build(SIZE).eval()
    settings = {"lora_rank": 3, **settings}
    adapted = soft_masks.build(dataclasses.replace(SIZE, **settings)).eval()
    adapted.load_state_dict(base.state_dict(), strict=False)
    adapters.begin(adapted)
    for block in [*base.blocks, *adapted.blocks]:
        nn.init.ones_(block.cross.gate)  # closed gates would hide the cross-attention
    return base, adapted


def logits(model: nn.Module, dtype=torch.float32) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    tokens = torch.randint(13, (3, 8), generator=rng)
    condition = torch.randn(3, 4, 6, generator=rng).to(dtype)
    return model(tokens, condition=model.keys_values(condition))


def shake(model: nn.Module) -> None:
    """Weights as if the adapters had been trained."""
    rng = torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        if name.endswith((adapters.DOWN, adapters.UP)):
            weight.data = 0.3 * torch.randn(weight.shape, generator=rng).to(weight.dtype)


@pytest.mark.parametrize("settings", KINDS)
def test_it_starts_as_the_trained_network_bit_for_bit(settings):
    base, adapted = pair(**settings)
    assert torch.equal(logits(base), logits(adapted))
    shake(adapted)
    assert not torch.allclose(logits(base), logits(adapted), atol=1e-3)


@pytest.mark.parametrize("settings", KINDS)
def test_merging_changes_nothing(settings):
    """To rounding in float32, and much nearer in float64: there is no other difference."""
    for dtype, limit in ((torch.float32, 2e-6), (torch.float64, 1e-13)):
        _, adapted = pair(**settings)
        adapted.to(dtype)
        shake(adapted)
        before = logits(adapted, dtype)
        adapters.merge(adapted)
        assert not adapters.is_adapted(adapted)
        assert (logits(adapted, dtype) - before).abs().max() < limit


@pytest.mark.parametrize("settings", KINDS)
def test_factors_are_the_matrix_as_inputs(settings):
    """gain (W x + x down up) in float64 is what the merged matrix does."""
    _, adapted = pair(**settings)
    adapted.double()
    shake(adapted)
    module = adapted.blocks[0].attention.query
    down, up, gain = module.factors()
    x = torch.randn(5, 16, dtype=torch.float64)
    found = x @ module.weight.T + x @ down @ up
    found = found if gain is None else gain * found
    torch.testing.assert_close(found, module.merged()(x), atol=1e-13, rtol=1e-13)
    assert (gain is None) is not settings.get("lora_norm", False)


def test_only_adapters_and_the_length_head_are_trained():
    _, adapted = pair()
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained == {name for name in adapted.state_dict() if adapters.is_own(name)}
    assert any(name.startswith("length_head") for name in trained)
    assert not any("embedding" in name for name in trained)
    (adamw,) = optim.make_optimizers(adapted, optim.TrainConfig(optimizer="muon"))[:1]
    logits(adapted).sum().backward()
    adamw.step()
    held = sum(len(group["params"]) for group in adamw.param_groups)
    assert held == len(trained)
    assert all(weight.grad is None for weight in adapted.parameters() if not weight.requires_grad)


def test_words_are_trained_whole_if_asked_for():
    """Nothing taught the vectors of words that the base never met; no thin matrix can."""
    base, adapted = pair(lora_embedding=True)
    assert torch.equal(logits(base), logits(adapted))
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert "embedding.weight" in trained
    assert trained == {name for name in adapted.state_dict() if adapters.is_own(name, True)}


def test_the_codes_of_gaussian_noise_are_words_too():
    """They are what the noise hides, so a new word needs a code as well."""
    noise = {"noise": "gaussian", "time_conditioning": "sinusoidal", "condition_width": 0}
    for words in (False, True):
        settings = {"lora_rank": 3, "lora_embedding": words}
        model = soft_masks.build(dataclasses.replace(SIZE, **noise, **settings))
        assert model.code.weight.requires_grad is words


@pytest.mark.parametrize("name, value", [("lora_norm", True), ("lora_embedding", True)])
def test_settings_without_a_rank_are_refused(name, value):
    config = dataclasses.replace(SIZE, **{name: value})
    with pytest.raises(UserError, match=f"--{name} without --lora_rank"):
        adapters.check_start(config, "best.pt")
    adapters.check_start(config, "", resumed=True)  # an older run may have begun with it


def test_targets():
    base, adapted = pair(lora_targets="query,value")
    names = {path for path, it in adapted.named_modules() if isinstance(it, adapters.AdaptedLinear)}
    # Two blocks, each with self-attention and cross-attention.
    assert len(names) == 8 and all(name.endswith(("query", "value")) for name in names)
    assert adapters.matrix_names(base) == {"query", "key", "value", "out", "gate", "up", "down"}
    with pytest.raises(UserError, match="embedding"):
        pair(lora_targets="query,embedding")


def test_a_network_that_was_never_trained_gets_none():
    with pytest.raises(UserError, match="--init_from"):
        adapters.check_start(dataclasses.replace(SIZE, lora_rank=2), "")
    adapters.check_start(SIZE, "")


@pytest.mark.parametrize("settings", KINDS)
def test_peft_agrees(settings):
    """The same matrix with the same adapter: outputs and gradients."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = nn.Sequential()
    plain.add_module("query", nn.Linear(6, 5, bias=False))
    ours = adapters.AdaptedLinear(
        nn.Linear(6, 5, bias=False), dataclasses.replace(SIZE, lora_rank=3, **settings)
    )
    ours.weight.data = plain.query.weight.data.clone()
    theirs = peft.get_peft_model(
        plain,
        peft.LoraConfig(
            r=3,
            lora_alpha=16,
            target_modules=["query"],
            use_rslora=settings.get("lora_root", False),
            use_dora=settings.get("lora_norm", False),
        ),
    )
    layer = theirs.base_model.model.query
    shake(ours)
    if ours.lora_length is not None:
        ours.lora_length.data = ours.weight.norm(dim=1) * 1.1
        layer.lora_magnitude_vector["default"].weight.data = ours.lora_length.data.clone()
    layer.lora_A["default"].weight.data = ours.lora_down.data.clone()
    layer.lora_B["default"].weight.data = ours.lora_up.data.clone()
    x = torch.randn(7, 6)
    torch.testing.assert_close(ours(x), layer(x))
    ours(x).square().sum().backward()
    layer(x).square().sum().backward()
    torch.testing.assert_close(ours.lora_down.grad, layer.lora_A["default"].weight.grad)
    torch.testing.assert_close(ours.lora_up.grad, layer.lora_B["default"].weight.grad)
