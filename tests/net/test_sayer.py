"""The sayer: what is no thing is not read."""

import torch

from base.policy_config import GrounderConfig
from net.grounder import Grounder


def test_rows_that_are_no_thing_say_nothing():
    torch.manual_seed(0)
    model = Grounder(GrounderConfig(sees="state", sayings=20, width=32)).eval()
    keys, places = torch.rand(1, 8, 2, 32), torch.rand(1, 8, 3)
    real = torch.arange(8)[None] < 3
    before = model.sayer.view(keys, places, real)
    assert (before[:, 3:] == 0).all()
    places[:, 5] += 1
    assert torch.equal(before, model.sayer.view(keys, places, real))


def test_without_sayings_the_weights_are_the_same():
    weights = []
    for words in (0, 20):
        torch.manual_seed(0)
        weights.append(Grounder(GrounderConfig(sees="state", sayings=words)).state_dict())
    plain, talking = weights
    assert all(torch.equal(plain[name], talking[name]) for name in plain)
    assert {name.split(".")[0] for name in set(talking) - set(plain)} == {"sayer"}


def test_cells_of_an_image_are_read_with_their_places():
    model = Grounder(GrounderConfig(sees="pixels", sayings=20, width=32, cameras=2)).eval()
    seen = model.look({"images": torch.zeros(3, 2, 16, 16, 3, dtype=torch.uint8)})
    view = model.sayer.view(seen.features, seen.places, seen.real)
    assert view.shape == (3, 2 * 4 * 4, 32)
    assert model.sayer.writer.length_logits(view).shape[0] == 3
    assert not torch.equal(view[:, 0], view[:, 5])


def test_sentences_train_the_eyes():
    torch.manual_seed(0)
    model = Grounder(GrounderConfig(sees="state", sayings=20, width=32))
    shown = {"kinds": torch.rand(2, 8, 17), "places": torch.rand(2, 8, 3)}
    seen = model.look(shown | {"real": torch.ones(2, 8, dtype=torch.bool)})
    writer = model.sayer.writer
    condition = writer.keys_values(model.sayer.view(seen.keys, seen.places, seen.real))
    tokens = torch.full((2, 5), 19)
    writer(tokens, condition=condition).square().sum().backward()
    assert model.eyes.keys.weight.grad.abs().sum() > 0


def test_the_gates_are_open():
    model = Grounder(GrounderConfig(sees="state", sayings=20, width=32))
    assert [block.cross.gate.item() for block in model.sayer.writer.blocks] == [1.0, 1.0]
