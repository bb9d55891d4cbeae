"""What is said of a network: shapes, counts and tables, compared with the modules themselves."""

import pytest
import torch

from base.config import ModelConfig
from model import Denoiser
from net import anatomy

SIZE = dict(vocab_size=300, output_size=297, max_length=20, d_model=48, heads=2, layers=3)


def network(**settings) -> Denoiser:
    with torch.device("meta"):
        return Denoiser(ModelConfig(**SIZE | settings)).eval()


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_sizes_that_follow_the_input_are_letters():
    shapes = anatomy.output_shapes(network(condition_width=36), (50, 36))
    assert shapes["embedding"] == shapes["blocks.2"] == "(B, L, 48)"
    assert shapes["blocks.0.attention.query_norm"] == "(B, 2, L, 24)"
    assert shapes["keys"] == "(B, 2, 50, 24)" and shapes["length"] == "(B, 21)"
    assert shapes["logits"] == "(M, 297)"


def test_no_hook_is_left():
    model = network()
    anatomy.output_shapes(model, None)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("settings", [{}, {"condition_width": 36}, {"mlp": "gelu"}])
def test_all_counts_add_up(settings):
    model = network(**settings)
    condition = (50, 36) if settings.get("condition_width") else None
    shapes = anatomy.output_shapes(model, condition)
    facts, parts = anatomy.describe(model, shapes)
    counts, total = facts["counts"], model.num_parameters()
    assert sum(part["count"] for part in parts) == counts["block"]
    outside = counts["embedding"] + counts["time"] + counts["norm"] + counts["length"]
    assert outside + 3 * counts["block"] == total == facts["parameters"]

    for detailed in (False, True):
        *rows, last = anatomy.screen_table(model, shapes, detailed)[1:]
        assert sum(number(row[-1]) for row in rows) == number(last[-1]) == total
    *rows, last = anatomy.weight_table(model)[1:]
    assert sum(number(values) * times for _, _, values, times in rows) == number(last[2]) == total
    *rows, last = anatomy.layer_table(model)[1:]
    assert sum(number(row[-1]) for row in rows) == number(last[-1]) == 3 * counts["block"]
    assert [row[0] for row in rows] == [0, 1, 2]


def test_keys_and_values_of_all_layers_are_counted():
    counts = anatomy.counts_of(network(condition_width=36))
    assert counts["keys"] == 3 * (2 * 36 * 48 + 24)
    assert "keys" not in anatomy.counts_of(network())


def test_colours_are_bright_and_tell_patches_apart():
    features = torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    colours = anatomy.colours(features)
    assert colours.shape == (4, 4, 3) and colours.min() > 0 and colours.max() < 1
    assert len(colours.view(16, 3).unique(dim=0)) == 16
