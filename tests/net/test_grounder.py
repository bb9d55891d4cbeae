"""The grounder: words alone are read, things are scored by sums, and an order decides the goal."""

import pytest
import torch

from base.policy_config import GrounderConfig
from net.grounder import Grounder, order_width, place_loss

WORDS = 12


def make(sees="state", **more) -> Grounder:
    torch.manual_seed(0)
    return Grounder(GrounderConfig(sees=sees, vocab_size=WORDS, kinds=5, longest=6, **more)).eval()


def table(rows=3):
    torch.manual_seed(1)
    kinds = torch.randint(0, 2, (rows, 4, 5)).float()
    real = torch.tensor([[True, True, True, False]] * rows)
    return {"kinds": kinds, "places": torch.randn(rows, 4, 3), "real": real}


def order(rows=3):
    torch.manual_seed(2)
    return torch.randint(0, WORDS, (rows, 6)), torch.tensor([6, 3, 1, 5, 2, 4][:rows])


def test_what_is_read_is_the_word_alone():
    """Another word elsewhere may move the attention, but never what a word says."""
    model = make()
    words, lengths = order()
    read, attention = model.words(words, lengths)
    alone = model.words.alone(model.words.reader.embedding(words))
    assert torch.allclose(read, attention @ alone, atol=1e-6)


def test_padding_is_never_read():
    model = make()
    words, lengths = order()
    found = model(words, lengths, table())
    words[1, 3:] = 7
    again = model(words, lengths, table())
    assert torch.allclose(found.places, again.places, atol=1e-5)
    _, attention = model.words(words, lengths)
    assert attention[2, :, 1:].abs().max() == 0


def test_the_score_of_a_thing_is_the_sum_over_its_attributes():
    model = make()
    words, lengths = order()
    seen = table()
    understood, looked = model.understand(words, lengths), model.look(seen)
    by_hand = torch.zeros(3, 2, 4)
    for b in range(3):
        for role in range(2):
            for thing in range(4):
                for attribute in range(2):
                    query = understood.queries[b, role, attribute]
                    by_hand[b, role, thing] += query @ looked.keys[b, thing, attribute]
    by_hand = by_hand.masked_fill(~seen["real"][:, None], -torch.inf)
    model.train()  # in evaluation the likeliest thing alone is left
    found = model(words, lengths, seen)
    assert torch.allclose(found.scores, by_hand.log_softmax(-1), atol=1e-5)


def test_in_evaluation_a_place_is_the_place_of_one_thing():
    model = make()
    words, lengths = order()
    seen = table()
    found = model(words, lengths, seen)
    for b in range(3):
        distances = (seen["places"][b] - found.places[b, 0]).norm(dim=1)
        assert distances.min() < 1e-6
        assert seen["real"][b, distances.argmin()]


def test_of_twins_one_is_taken():
    """Equal things have equal scores. The place between them would be a place of nothing."""
    model = make()
    words, lengths = order()
    seen = table()
    seen["kinds"][:] = seen["kinds"][:, :1]
    found = model(words, lengths, seen)
    assert torch.equal(found.places[:, 0], seen["places"][:, 0])


def test_neighbours_share_a_table():
    """One table with two orders gives what two equal tables give."""
    model = make()
    words, lengths = order(6)
    seen = table(3)
    twice = {name: values.repeat_interleave(2, 0) for name, values in seen.items()}
    shared, apart = model(words, lengths, seen), model(words, lengths, twice)
    assert torch.allclose(shared.places, apart.places, atol=1e-6)


def test_the_goal_is_affine_in_the_places():
    model = make()
    order_vector = torch.randn(1, order_width(model.config)).repeat(3, 1)
    found = torch.randn(3, 2, 3)
    found[2] = (found[0] + found[1]) / 2
    put = model.find_put(found, order_vector)
    assert torch.allclose(put[2], (put[0] + put[1]) / 2, atol=1e-5)


def test_cameras_give_a_map_each():
    model = make("pixels", cameras=2)
    words, lengths = order(4)
    images = torch.randint(0, 256, (2, 2, 32, 32, 3), dtype=torch.uint8)
    found = model(words, lengths, {"images": images})
    assert found.scores.shape == (4, 2, 2 * 8 * 8)
    assert found.places.shape == (4, 2, 3)
    assert torch.allclose(found.scores.exp().sum(-1), torch.ones(4, 2), atol=1e-5)


def test_unknown_places_have_no_loss():
    found, target = torch.zeros(2, 3), torch.tensor([[0.1, 0.0, 0.0], [9.0, 9.0, 9.0]])
    loss = place_loss(found, target, torch.tensor([1.0, 0.0]), unit=0.1)
    assert loss.item() == pytest.approx(1 - 0.05 / 2)  # Huber's line, 1 unit away
