"""What a conditional model is trained on: its flags, its loss in each form, its score and its preview."""

import pytest
import torch

from base.files import UserError
from loop import checkpoint
from loop.batches import step_generator, with_noise
from text import fill_objective
from text.fill_objective import PairRun
from text.pairs import PairBatches, PairData

FLAGS = {"context": {}, "cross": {"conditioning": "cross"}, "ar": {"objective": "ar"}}


def test_numbers_are_spread_over_the_pairs():
    assert fill_objective.spread_over(10, 3) == [0, 4, 9]
    assert fill_objective.spread_over(2, 3) == [0, 1]


def test_flags():
    assert [PairRun(**settings).form for settings in FLAGS.values()] == list(FLAGS)
    with pytest.raises(UserError, match="--conditioning cross with --objective ar"):
        PairRun(conditioning="cross", objective="ar")
    with pytest.raises(UserError, match="--condition_dropout 1.0"):
        PairRun(condition_dropout=1.0)


@pytest.mark.parametrize("form", FLAGS)
def test_loss_score_and_preview(form, conditional_world):
    model, tokenizer, _ = checkpoint.open_model(conditional_world / form / "best.pt")
    own = PairRun(eval_pairs=4, condition_dropout=0.5, **FLAGS[form])
    train, held_out = (
        PairData(conditional_world / "pairs", split, form) for split in ("train", "val")
    )
    batch = with_noise(PairBatches(train, 8), seed=0)(0)[0]
    loss_fn = fill_objective.make_loss(own, tokenizer)
    with torch.no_grad():
        loss, _ = loss_fn(model, batch, step_generator(0, 0))
        again, _ = loss_fn(model, batch, step_generator(0, 0))
    assert loss.isfinite() and loss == again
    scores = fill_objective.make_eval(own, held_out)(model)
    assert list(scores) == ["nats_per_token", "bits_per_byte"] and scores["nats_per_token"] > 0
    preview = fill_objective.make_preview(own, 0, held_out)(model)
    assert preview.count("\n\n") >= 2 and "[MASK]" not in preview
