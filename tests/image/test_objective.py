"""The loss: its parts, its weights, its refusals, and an evaluation of each kind of network."""

import json

import pytest
import torch

import evaluate
import generate_image
import train_image
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
from image.rows import PairBatches, Pairs, to_device
from loop.batches import with_noise
from net import picture_blocks, turns
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
    mask_id, statistics = pairs.vocabulary.mask, {"row_lengths": pairs.histogram()}
    model = make_painter(pairs.vocabulary, block_sizes="1,3,9")
    ways = ["picture", "words", "both", "picture_alone"]
    rows = pairs.rows([0, 1, 2, 3], [0] * 4, ways) | {"uniform": torch.full((4,), 0.999)}

    def parts_of(rows):
        return masked_parts(model, rows, mask_id, CODES, torch.Generator().manual_seed(0))

    parts = parts_of(rows | {"block_size": size})
    if size == 9:
        (whole,), (plain,) = parts, parts_of(rows)
        assert all(torch.equal(one, other) for one, other in zip(whole, plain, strict=True))
        return
    (nats, _, weight, is_word), plain = parts
    assert not is_word.any() and plain[3].any() and not plain[3].all()
    # The same rows by the loss of turns, and the same noise.
    chosen = torch.tensor([0, 3])
    alone = {name: rows[name][chosen] for name in ("tokens", "lengths", "words", "free")}
    tokens, lengths, words, free = to_device(alone, torch.device("cpu"))
    number = picture_blocks.numbers(words, lengths, tokens.shape[1], size)
    both = picture_blocks.bind(model, words, lengths, size)
    rng = torch.Generator().manual_seed(0)
    expected, _ = turns.loss(both, tokens, free, number, mask_id=mask_id, rng=rng)
    assert (nats * weight).sum().item() / 18 == pytest.approx(expected.item(), rel=1e-5)
    if size == 1:  # every token is masked, with its exact -log p
        exact = row_bounds(model, "diffusion", alone, mask_id, 1, rng, 1)
        assert len(nats) == 18 and nats.sum().item() == pytest.approx(exact.sum().item(), rel=1e-5)
        own = ImageRun(eval_images=2)
        found = make_eval(own, pairs, statistics)(model)
        assert [name for name in found if name.startswith("picture")] == [
            "picture_in_1_nats_per_token",
            "picture_in_3_nats_per_token",
            "picture_nats_per_token",
        ]
        assert make_preview(own, 0, pairs, statistics)(model).count("\n") == 3


def test_a_run_in_blocks(tmp_path, capsys):
    """Trained from a twin, scored at each size, painted; what a step needs is counted."""
    data = make_pictures(tmp_path / "data")
    common = ["--data_dir", str(data.folder), "--d_model", "32", "--heads", "2", "--layers", "2"]
    common += ["--batch_size", "4", "--eval_images", "2", "--max_steps", "3", "--device", "cpu"]
    train_image.main([*common, "--objective", "ar", "--out", str(tmp_path / "twin")])
    words = ["--init_from", str(tmp_path / "twin" / "best.pt"), "--logit_shift"]
    words += ["--out", str(tmp_path / "blocks"), "--log_every", "1", "--block_sizes"]
    train_image.main([*common, *words, "1,3,9"])
    lines = (tmp_path / "blocks" / "log.jsonl").read_text().splitlines()
    sizes = [json.loads(line).get("block_size") for line in lines]
    assert set(sizes) <= {None, 1.0, 3.0, 9.0} and any(sizes)
    best = str(tmp_path / "blocks" / "best.pt")
    evaluate.main(["--checkpoint", best, "--data_dir", str(data.folder), "--images", "2"])
    printed = capsys.readouterr().out
    assert "p(picture given words), blocks of 3 " in printed
    paint = ["--checkpoint", best, "--data_dir", str(data.folder), "--reader", "none"]
    paint += ["--prompt", "a red star", "--out", str(tmp_path / "pictures"), "--block_size"]
    generate_image.main([*paint, "3", "--steps", "3", "--num_samples", "1"])
    with pytest.raises(UserError, match="2 calls for a picture in blocks of 3"):
        generate_image.main([*paint, "3", "--steps", "2"])
    with pytest.raises(UserError, match="to_words"):
        words[words.index("--out") + 1] = str(tmp_path / "words")
        train_image.main([*common, *words, "3", "--directions", "to_words"])


def test_refusals():
    with pytest.raises(UserError, match="at most 1 together"):
        ImageRun(share_words=0.9, share_both=0.2)
    with pytest.raises(UserError, match="reads the words first"):
        ImageRun(objective="ar", directions="to_words").check_twin()


def test_shares_and_ways_with_plans():
    own = ImageRun(share_plan=0.3)
    plain, planned = own.shares(), own.shares(plan=13)
    assert "plan" not in plain and sum(planned.values()) == pytest.approx(1)
    assert planned["plan"] == pytest.approx(0.3 * plain["picture"])
    assert planned["picture"] == pytest.approx(0.7 * plain["picture"])
    assert {name: planned[name] for name in ("words", "both")} == {
        name: plain[name] for name in ("words", "both")
    }
    twin, one = ImageRun(objective="ar"), ImageRun(directions="to_picture")
    assert twin.shares(plan=13) == twin.shares() and "plan" in one.shares(plan=13)
    assert "plan" not in ImageRun(directions="to_words").shares(plan=13)
    assert own.ways() == ["picture", "words"] and own.ways(plan=13) == ["picture", "words", "plan"]
    assert twin.ways(plan=13) == ["picture", "plan"]
    assert ImageRun(directions="to_words").ways(plan=13) == ["words"]
