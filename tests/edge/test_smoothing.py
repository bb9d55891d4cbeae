"""Smoothing keeps the function and makes a loud channel quiet."""

import numpy as np
import pytest
import torch

from edge import graphs, inputs, parity, smoothing
from edge.networks import Network
from net import image_encoders
from tests.making.captioned import save_encoder


def test_a_loud_channel_of_the_network(bundled):
    """Two channels made 100 times louder, as CLIP's are: INT8 alone ruins the logits, smoothed it
    does not."""
    trained = inputs.open_trained(bundled.checkpoint)
    material = inputs.real_inputs(trained, bundled.data, "train", 8)
    network, feeds = Network(trained.model).eval(), list(inputs.states(trained, material))
    block = network.blocks[0]
    block.mlp_norm.weight.data[:2] *= 100
    block.up.weight.data[:, :2] /= 100
    exact = smoothing.call(network, feeds[0]).detach()

    def cost() -> float:
        products = smoothing.named_products(network)
        logits = lambda: [smoothing.call(network, state) for state in feeds]
        return smoothing.costs(products, logits)["blocks.0.up"]

    before = cost()
    smoothing.smooth(network, feeds)
    found = smoothing.call(network, feeds[0]).detach()
    assert parity.error(found.numpy(), exact.numpy()) < 1e-4
    assert cost() < before / 4


def test_what_costs_too_much():
    assert smoothing.too_costly({"a": 1.0, "b": 1.1, "c": 9.0}) == ["c"]


@pytest.mark.parametrize("kind", ["clip", "vit", "siglip", "dinov2"])
def test_an_encoders_norms_are_smoothed(kind, tmp_path):
    """A channel that is loud as training makes it: a large gain of the norm, small weights of its
    readers."""
    encoder = image_encoders.load(str(save_encoder(tmp_path / kind, kind, num_hidden_layers=1)))
    encoder.model.set_attn_implementation("eager")
    graph = graphs.EncoderGraph(encoder)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    images = torch.from_numpy(images)
    products = smoothing.named_products(graph)
    up = next(name for name in products if name.endswith("fc1"))
    endings = ("layer_norm2", "layernorm_after", "norm2")
    norm = next(
        module
        for name, module in graph.named_modules()
        if isinstance(module, torch.nn.LayerNorm) and name.endswith(endings)
    )

    def cost() -> float:
        return smoothing.costs({up: products[up]}, lambda: [graph(images)])[up]

    with torch.no_grad():
        norm.weight[:2] *= 300
        norm.bias[:2] *= 300
        products[up].weight[:, :2] /= 300
        exact, before = graph(images), cost()
        assert smoothing.smooth_encoder(graph, images) >= 2
        assert parity.error(graph(images).numpy(), exact.numpy()) < 2e-3
        assert cost() < before / 4


class Twice(torch.nn.Module):
    """A norm whose output a product reads, and a sum reads too."""

    def __init__(self):
        super().__init__()
        self.norm, self.product = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)

    def forward(self, x):
        x = self.norm(x)
        return x + self.product(x)


def test_a_norm_with_another_reader_is_left_alone():
    twice, x = Twice(), torch.randn(2, 3, 8)
    exact = twice(x)
    assert smoothing.smooth_encoder(twice, x) == 0
    assert torch.equal(twice(x), exact)
