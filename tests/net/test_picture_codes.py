"""Picture codes: the rounding by enumeration, its gradient, shapes, and the weights of the loss."""

import dataclasses
import math

import pytest
import torch

from base.files import UserError
from net.picture_codes import (
    OBJECT_WEIGHT,
    PictureCodes,
    PictureCodesConfig,
    Rounding,
    pixel_weights,
    reconstruction_loss,
    usage,
)

SMALL = PictureCodesConfig(side=32, width=16, blocks=1)


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [3, 4, 6], [7]])
def test_every_code_is_a_different_list_of_levels(levels):
    rounding = Rounding(levels)
    codes = torch.arange(math.prod(levels))
    values = rounding.values(codes)
    assert (rounding.code(values) == codes).all() and len(values.unique(dim=0)) == len(codes)
    for index, count in enumerate(levels):
        assert len(values[:, index].unique()) == count


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_the_rounding_reaches_every_level_and_no_other(count):
    z = torch.linspace(-9, 9, 20_001)[:, None]
    rounding = Rounding([count])
    found = rounding(z)
    wanted = rounding.values(torch.arange(count))
    assert (found - wanted.T).abs().min(1).values.max() < 1e-6
    assert (found.diff(dim=0) > -1e-6).all()
    assert rounding.code(found).unique().tolist() == list(range(count))
    # A level in the middle: 0 is a whole number after the shift, also for an even number of levels.
    assert rounding(torch.zeros(1, 1)).abs().item() < 1e-6


def test_the_gradient_passes_the_rounding():
    rounding = Rounding([8, 5])
    z = torch.randn(6, 2, requires_grad=True)
    rounding(z).sum().backward()
    bounded = torch.tanh(z + rounding.shift) * rounding.span / rounding.scale
    (expected,) = torch.autograd.grad(bounded.sum(), z)
    assert torch.allclose(z.grad, expected) and (z.grad > 0).all()


def test_tokens_to_pixels_and_back_have_their_shapes():
    torch.manual_seed(0)
    model = PictureCodes(SMALL).eval()
    pixels = torch.rand(3, 3, 32, 32)
    tokens = model.encode(pixels)
    assert tokens.shape == (3, 16) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < SMALL.codes == 4096
    remade = model.decode(tokens)
    assert remade.shape == pixels.shape and remade.min() >= 0 and remade.max() <= 1
    found, again = model(pixels)
    assert (again == tokens).all()
    assert torch.allclose(found.clamp(0, 1), remade, atol=1e-5)
    # A picture draws alone what it draws in company.
    assert torch.allclose(model.decode(tokens[1:2]), remade[1:2], atol=1e-5)


def test_untrained_codes_are_used_and_untrained_pictures_are_grey():
    torch.manual_seed(0)
    model = PictureCodes(SMALL)
    found, tokens = model(torch.rand(16, 3, 32, 32))
    assert usage(tokens, SMALL.codes)["perplexity"] > 40
    assert (found - found.mean()).abs().max() < 0.2
    with torch.no_grad():
        z = model.encoder(torch.rand(16, 3, 32, 32) - 0.5)
    assert torch.allclose(z.std((0, 2, 3)), torch.ones(6), atol=0.05)


def test_the_default_has_the_size_that_is_documented():
    config = PictureCodesConfig()
    assert 1.2e6 < PictureCodes(config).num_parameters() < 1.4e6
    assert (config.grid, config.codes) == (12, 4096)


def test_each_object_weighs_the_same_and_so_does_the_background():
    places = torch.tensor([[[0.3, 0.3, 0.08], [0.7, 0.6, 0.2], [0.5, 0.5, 0.0]]])
    weights = pixel_weights(places, 96)
    assert weights.shape == (1, 1, 96, 96)
    assert torch.isclose(weights.mean(), torch.tensor(1 + 2 * OBJECT_WEIGHT), atol=1e-5)
    small, large = weights[0, 0, 28, 28], weights[0, 0, 57, 67]
    assert small > large > weights[0, 0, 90, 5] == 1
    assert torch.isclose((small - 1) / (large - 1), torch.tensor(0.2**2 / 0.08**2), rtol=0.1)


def test_the_loss_counts_distances_and_squares():
    weights = torch.ones(1, 1, 8, 8)
    pixels = torch.rand(1, 3, 8, 8)
    same = reconstruction_loss(pixels, pixels, weights)
    lighter = reconstruction_loss(pixels + 0.25, pixels, weights)
    assert same["pixels"] == same["squares"] == 0
    assert torch.isclose(lighter["pixels"], torch.tensor(0.25))
    assert torch.isclose(lighter["squares"], torch.tensor(0.25**2))
    twice = reconstruction_loss(pixels + 0.25, pixels, 2 * weights)
    assert torch.isclose(twice["squares"], 2 * lighter["squares"])


def test_usage_is_the_share_and_the_spread_of_codes():
    found = usage(torch.tensor([[0, 1], [1, 0]]), 8)
    assert found["used_codes"] == 0.25 and math.isclose(found["perplexity"], 2)


@pytest.mark.parametrize(
    "wrong", [{"side": 30}, {"levels": "8,2"}, {"levels": "300,300"}, {"width": 18}]
)
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        PictureCodesConfig(**wrong)


def test_a_token_sees_two_places_on_each_side():
    """So an object changes few tokens, and a plain background has a single token."""
    torch.manual_seed(0)
    model = PictureCodes(PictureCodesConfig()).eval()
    plain = torch.full((1, 3, 96, 96), 0.3)
    assert len(model.encode(plain).unique()) == 1
    with_object = plain.clone()
    with_object[:, :, 48:56, 40:48] = torch.rand(3, 8, 8)  # the place in row 6, column 5
    changed = (model.encode(with_object) != model.encode(plain)).view(12, 12)
    rows, columns = torch.nonzero(changed).unbind(1)
    assert (rows - 6).abs().max() <= 2 and (columns - 5).abs().max() <= 2
    assert changed.sum() > 4


def test_encoder_blocks_can_be_left_out():
    """Before training a block is the identity, so the codes without it are the same codes."""
    torch.manual_seed(0)
    model = PictureCodes(dataclasses.replace(SMALL, encoder_blocks=3)).eval()
    pixels = torch.rand(2, 3, 32, 32)
    tokens, weights = model.encode(pixels), model.num_parameters()
    for kept in (1, 0):
        model.drop_encoder_blocks(kept)
        assert torch.equal(model.encode(pixels), tokens)
        assert model.config == dataclasses.replace(SMALL, encoder_blocks=kept)
    assert model.num_parameters() == PictureCodes(SMALL).num_parameters() < weights
