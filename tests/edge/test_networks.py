"""The rearranged network computes what model.py computes."""

import pytest
import torch

from edge import graphs, parity
from edge.networks import Network, key_layout, linear
from loop import checkpoint


@pytest.mark.parametrize("shift", [False, True])
def test_it_equals_the_model(bundled, shift):
    """Padding, time and a condition, on random ids."""
    model, _, saved = checkpoint.open_model(bundled.checkpoint)
    model.config.logit_shift = shift
    features, lengths = torch.randn(3, 64, model.config.condition_width), torch.tensor([5, 9, 7])
    tokens, share = torch.randint(0, model.config.output_size, (3, 9)), torch.rand(3)
    with torch.no_grad():
        keys, values, _ = graphs.ConditionGraph(model, saved["statistics"], 64)(features)
        seen = parity.writer.standardise(features, saved["statistics"], "cpu")
        condition = model.keys_values(seen)
        expected = model(tokens, lengths=lengths, share=share, condition=condition)
        found = Network(model)(tokens.int(), lengths.int(), keys, values, share)
    real = torch.arange(9) < lengths[:, None]
    assert parity.error(found[real].numpy(), expected[real].numpy()) < 1e-5
    head = model.config.d_model // model.config.heads
    for layer, (theirs, _) in enumerate(condition):
        assert torch.allclose(keys[:, layer], key_layout(theirs, head), atol=1e-5)


def test_products_of_one_input_are_joined():
    x, first, second = torch.randn(4, 3), torch.randn(2, 3), torch.randn(5, 3)
    assert torch.equal(linear(first, second).weight, torch.cat([first, second]))
    assert torch.allclose(linear(first, second)(x)[:, :2], x @ first.T)
