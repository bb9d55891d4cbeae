"""Canvases as rows, the edits that are possible in them, and a network that begins as the plain one."""

import dataclasses

import numpy as np
import pytest
import torch

from base.config import ModelConfig
from model import Denoiser
from net.free_lengths import (
    FRESH,
    GREW,
    KNOWN,
    SHRANK,
    Canvas,
    FreeDenoiser,
    bar,
    lay_out,
    with_edits,
)

MASK, PAD, BOS = 11, 9, 10
CONFIG = ModelConfig(vocab_size=12, output_size=9, max_length=24, d_model=16, heads=2, layers=2)


def canvas(blank, state, second=(MASK,), second_state=KNOWN) -> Canvas:
    given = [np.array([BOS, 1]), np.array([2]), np.array([3])]
    return Canvas(given, [np.array(blank), np.array(second)], [state, second_state])


def random_model() -> FreeDenoiser:
    torch.manual_seed(0)
    model = FreeDenoiser(CONFIG).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
        model.edits.normal_(std=0.5)
        model.states.normal_(std=0.5)
    return model


@pytest.mark.parametrize(
    ("blank", "state", "expand", "delete"),
    [
        ([MASK] * 3, KNOWN, [0, 0, 0], [0, 0, 0]),
        ([MASK] * 3, FRESH, [0, 0, 1], [0, 1, 1]),
        ([MASK] * 3, GREW, [0, 0, 1], [0, 0, 0]),
        ([MASK] * 3, SHRANK, [0, 0, 0], [0, 1, 1]),
        ([MASK, 5, MASK], FRESH, [0, 0, 1], [0, 0, 1]),
        ([MASK, MASK, 5], FRESH, [0, 0, 0], [0, 0, 0]),
        ([MASK], FRESH, [1], [0]),
    ],
)
def test_possible_edits(blank, state, expand, delete):
    """Only the last place expands, nothing before a word is cut, and the first place stays."""
    places = lay_out([canvas(blank, state), canvas([MASK] * 6, FRESH)], MASK, PAD, 24)
    where = slice(2, 2 + len(blank))
    assert places.expand[0, where].tolist() == [bool(value) for value in expand]
    assert places.delete[0, where].tolist() == [bool(value) for value in delete]
    assert places.expand[0].sum() == sum(expand) and places.delete[0].sum() == sum(delete)
    assert places.tokens[0, : int(places.lengths[0])].tolist() == [BOS, 1, *blank, 2, MASK, 3]
    assert places.share[0] == pytest.approx((blank.count(MASK) + 1) / (len(blank) + 1))
    full = lay_out([canvas(blank, state)], MASK, PAD, len(blank) + 5)
    assert not full.expand.any()


def test_places_are_found_again():
    row = canvas([MASK, 5], FRESH, [MASK, MASK])
    ids = row.ids()
    found = list(row.places())
    assert [(number, index) for _, number, index in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(ids[place] == row.blanks[number][index] for place, number, index in found)


def test_known_blanks_have_the_plain_logits():
    """Bit for bit, also next to a free blank's parts; both edits are impossible."""
    model = random_model()
    row = canvas([MASK, 5, MASK], KNOWN, [MASK, MASK])
    places = lay_out([row], MASK, PAD, 24)
    logits = bar(model.labels(places, places.masked), places, places.masked)
    plain = model(places.tokens, select=places.masked)
    assert torch.equal(logits[:, :-2], plain)
    assert (logits[:, -2:] == -torch.inf).all()


def test_states_are_told():
    model = random_model()
    said = []
    for state in (KNOWN, FRESH, GREW, SHRANK):
        places = lay_out([canvas([MASK] * 3, state)], MASK, PAD, 24)
        said.append(model.labels(places, places.masked))
    for one, other in zip(said, said[1:], strict=False):
        assert not torch.allclose(one, other, atol=1e-3)


def test_it_begins_as_the_plain_denoiser():
    """Equal weights; before training both edits have the logit 0, and all states look alike."""
    torch.manual_seed(3)
    plain = Denoiser(CONFIG).eval()
    model = with_edits(plain).eval()
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    places = lay_out([canvas([MASK] * 3, FRESH)], MASK, PAD, 24)
    labels = model.labels(places, places.masked)
    assert torch.equal(labels[:, :-2], plain(places.tokens, select=places.masked))
    assert (labels[:, -2:] == 0).all()
    labels[:, -2:].sum().backward()
    assert model.edits.grad.abs().sum() > 0


def test_padding_and_neighbours_are_invisible():
    model = random_model()
    rows = [canvas([MASK] * width, FRESH) for width in (1, 4, 7)]
    places = lay_out(rows, MASK, PAD, 24)
    together = model.labels(places, places.masked).split(places.masked.sum(1).tolist())
    for row, logits in zip(rows, together, strict=True):
        alone = lay_out([row], MASK, PAD, 24)
        torch.testing.assert_close(model.labels(alone, alone.masked), logits)


def test_it_is_told_the_masked_share():
    config = dataclasses.replace(CONFIG, time_conditioning="sinusoidal")
    torch.manual_seed(0)
    model = FreeDenoiser(config).eval()
    places = lay_out([canvas([MASK] * 3, FRESH)], MASK, PAD, 24)
    before = model.labels(places, places.masked)
    places.share = places.share / 2
    assert not torch.equal(model.labels(places, places.masked), before)
