"""The loss: its parts, its weights, its refusals, and an evaluation of each kind of network."""

import pytest
import torch

from base.files import UserError
from image.bounds import row_bounds
from image.objective import (
    ImageRun,
    by_segment,
    make_eval,
    make_loss,
    make_preview,
    masked_parts,
)
from image.rows import PairBatches, Pairs
from loop.batches import with_noise
from tests.making.painted import CODES, make_painter, make_pictures


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("objective")), "val")


def loss_of(own, pairs, causal=False):
    batch = with_noise(PairBatches(pairs, own.shares(), 4, 1, 0), 0)(0)[0]
    loss_fn = make_loss(own, pairs.vocabulary.mask, CODES)
    return loss_fn(make_painter(pairs.vocabulary, causal), batch, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_the_weight_of_words(pairs, objective):
    """The loss is linear in the weight of words, and the reported bound does not know it."""
    losses, bounds = [], []
    for weight in (1.0, 2.0, 3.0):
        own = ImageRun(objective=objective, word_weight=weight, weight="bound")
        value, figures = loss_of(own, pairs, objective == "ar")
        losses.append(value.item())
        bounds.append(figures["nats_per_token"])
    assert (
        losses[1] - losses[0] == pytest.approx(losses[2] - losses[1], rel=1e-3)
        and losses[1] > losses[0]
    )
    assert len(set(bounds)) == 1 and losses[0] == pytest.approx(bounds[0], rel=1e-5)


def test_figures_of_each_segment():
    nats = torch.tensor([1.0, 2.0, 6.0])
    hits, is_word = torch.tensor([True, False, True]), torch.tensor([True, False, False])
    figures = by_segment(nats, hits, is_word)
    assert figures["word_cross_entropy"] == 1 and figures["picture_cross_entropy"] == 4
    assert figures["word_accuracy"] == 1 and figures["picture_accuracy"] == 0.5


@pytest.mark.parametrize(
    "flags",
    [{}, {"directions": "to_picture"}, {"directions": "to_words"}, {"objective": "ar"}],
    ids=["both", "to_picture", "to_words", "twin"],
)
def test_shares_and_scores(pairs, flags):
    own = ImageRun(eval_images=2, **flags)
    assert sum(own.shares().values()) == pytest.approx(1)
    statistics = {"row_lengths": pairs.histogram()}
    model = make_painter(pairs.vocabulary, own.objective == "ar")
    figures = make_eval(own, pairs, statistics)(model)
    assert list(figures)[0] == "nats_per_token" and all(value > 0 for value in figures.values())
    assert make_preview(own, 0, pairs, statistics)(model).count("\n") == 3


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_step_in_blocks(pairs, size):
    """Rows that learn a picture alone are in blocks, the others are plain; whole is plain."""
    model = make_painter(pairs.vocabulary, block_sizes="1,3,9")
    mask_id = pairs.vocabulary.mask
    ways = ["picture", "words", "both", "picture_alone"]
    rows = pairs.rows([0, 1, 2, 3], [0] * 4, ways)
    rows |= {"uniform": torch.full((4,), 0.999), "block_size": size}
    rng = torch.Generator().manual_seed(0)
    parts = masked_parts(model, rows, mask_id, CODES, rng)
    if size == 9:
        assert len(parts) == 1
        return
    blocked, plain = parts
    assert not blocked[3].any() and plain[3].any() and not plain[3].all()
    if size == 1:  # every token is masked, with its exact -log p
        assert len(blocked[0]) == 2 * 9 and (blocked[2] == 1).all()
        expected = row_bounds(
            model, "diffusion", pairs.rows([0, 3], [0] * 2, [ways[0], ways[3]]), mask_id, 1, rng, 1
        )
        assert blocked[0].sum().item() == pytest.approx(expected.sum().item(), rel=1e-5)
    every = {}
    own = ImageRun(eval_images=2)
    every |= make_eval(own, pairs, {"row_lengths": pairs.histogram()})(model)
    assert [name for name in every if name.startswith("picture")] == [
        "picture_in_1_nats_per_token",
        "picture_in_3_nats_per_token",
        "picture_nats_per_token",
    ]


def test_refusals():
    with pytest.raises(UserError, match="at most 1 together"):
        ImageRun(share_words=0.9, share_both=0.2)
    with pytest.raises(UserError, match="reads the words first"):
        ImageRun(objective="ar", directions="to_words").check_twin()
