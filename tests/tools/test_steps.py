"""A step of the denoiser and of its twin changes the weights and returns a loss that is a number."""

import pytest
import torch

from base.config import ModelConfig
from model import Denoiser
from tools.steps import optimizer_step


@pytest.mark.parametrize("is_twin", [False, True])
def test_a_step_changes_the_weights(is_twin):
    torch.manual_seed(0)
    model_config = ModelConfig(
        vocab_size=20, output_size=17, max_length=8, d_model=16, heads=2, layers=1, causal=is_twin
    )
    model = Denoiser(model_config)
    tokens = torch.randint(0, 17, (2, 8))
    before = [weight.clone() for weight in model.parameters()]
    optimizer_step(model, tokens, torch.float32, is_twin=is_twin)()
    assert all(weight.isfinite().all() for weight in model.parameters())
    after = model.parameters()
    changed = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert any(changed)
