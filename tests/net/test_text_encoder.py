"""A text as the condition: it starts as the denoiser, and neither padding nor a dropped text is seen."""

import pytest
import torch

from base.config import ModelConfig
from model import Denoiser
from net.text_encoder import TextConditioned

CONFIG = ModelConfig(vocab_size=12, output_size=9, max_length=16, d_model=32, heads=2, layers=3)
PAD = 9


@pytest.fixture(scope="module")
def models():
    """A denoiser with weights large enough to matter, and the conditioned model made from it."""
    torch.manual_seed(0)
    denoiser = Denoiser(CONFIG).eval()
    for weight in denoiser.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    model = TextConditioned(CONFIG, encoder_layers=2).eval()
    model.start_from(denoiser)
    return denoiser, model


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 9, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def open_gates(models):
    """Let the cross-attention be heard, for one test."""
    gates = [block.cross.gate for block in models[1].blocks]
    for gate in gates:
        torch.nn.init.constant_(gate, 0.5)
    yield
    for gate in gates:
        torch.nn.init.zeros_(gate)


def test_it_starts_as_the_denoiser(models):
    denoiser, model = models
    rows = tokens(3, 10)
    condition = model.read(tokens(3, 6, seed=1))
    assert torch.equal(model(rows, condition=condition), denoiser(rows))
    assert torch.equal(model(rows), denoiser(rows))
    for block, trained in zip(model.encoder_blocks(), denoiser.blocks, strict=False):
        for name, weight in block.state_dict().items():
            assert torch.equal(weight, trained.state_dict()[name])


def test_new_and_old_parts_are_all_parts(models):
    denoiser, model = models
    old = sum(weight.numel() for weight in denoiser.parameters())
    new = sum(weight.numel() for weight in model.new_parts())
    assert old + new == model.num_parameters()


def test_padding_is_not_read(models, open_gates):
    _, model = models
    rows, text = tokens(2, 10), tokens(2, 6, seed=1)
    lengths = torch.tensor([6, 4])
    expected = model(rows, condition=model.read(text, lengths))
    other = text.clone()
    other[1, 4:] = (other[1, 4:] + 1) % 9
    wide = torch.cat([other, torch.full((2, 3), PAD)], 1)
    assert torch.allclose(model(rows, condition=model.read(wide, lengths)), expected, atol=1e-5)
    short = model(rows[1:], condition=model.read(text[1:, :4]))
    assert torch.allclose(short, expected[1:], atol=1e-5)


def test_a_dropped_text_says_nothing(models, open_gates):
    denoiser, model = models
    rows, text = tokens(2, 10), tokens(2, 6, seed=1)
    condition = model.read(text, kept=torch.tensor([True, False]))
    logits = model(rows, condition=condition)
    assert not torch.allclose(logits[0], denoiser(rows)[0], atol=1e-2)
    assert torch.allclose(logits[1], denoiser(rows)[1], atol=1e-5)
