"""What a text model is trained on: its flags, its loss in blocks, its score and its preview."""

import dataclasses

import pytest
import torch

from base.files import UserError
from loop import checkpoint
from loop.batches import step_generator, with_noise
from net import twin
from text import objective
from text.data import Batches, TextData
from text.objective import TextRun


def test_flags_that_blocks_do_not_have(text_runs):
    config = checkpoint.open_model(text_runs.denoiser)[0].config
    plain, cut = (dataclasses.replace(config, block_sizes=sizes) for sizes in ("", "1,4"))
    for own, message in (
        (TextRun(estimator="cosine"), "--block_sizes 1,4 with --estimator cosine"),
        (TextRun(complementary=True), "--block_sizes 1,4 with --complementary"),
    ):
        objective.check_blocks(own, plain)
        with pytest.raises(UserError, match=message):
            objective.check_blocks(own, cut)
    objective.check_blocks(TextRun(weight="flat"), cut)


def test_loss_score_and_preview_in_blocks(text_runs):
    """A plain denoiser taken as a block model: a single block is the loss that it had."""
    model, tokenizer, saved = checkpoint.open_model(text_runs.denoiser)
    data = TextData(text_runs.data, "val", 48)
    batch = with_noise(Batches(data, 6), seed=0)(0)[0]
    losses = {}
    for sizes in ("", "1,8,48"):
        model.config = dataclasses.replace(model.config, block_sizes=sizes)
        loss_fn = objective.make_loss(TextRun(), model.config, tokenizer.mask)
        for size in model.config.trained_sizes or [0]:
            rng = step_generator(0, 0)
            losses[size], figures = loss_fn(model, batch | {"block_size": size}, rng)
            assert figures["nats_per_token"] == losses[size].item()
    assert torch.equal(losses[0], losses[48]) and len(set(losses.values())) == 4
    scores = objective.make_eval(TextRun(eval_documents=4), data, saved["statistics"])(model)
    assert list(scores) == [
        "nats_per_token",
        "bits_per_byte",
        *(f"block_{size}_nats_per_token" for size in (1, 8, 48)),
    ]
    model.config = dataclasses.replace(model.config, block_sizes="1,8")
    preview = objective.make_preview(TextRun(), 0, tokenizer, model.config)
    assert preview(model) == preview(model) != ""


def test_the_twins_loss(text_runs):
    model, tokenizer, _ = checkpoint.open_model(text_runs.twin)
    batch = with_noise(Batches(TextData(text_runs.data, "val", 48), 6), seed=0)(0)[0]
    loss_fn = objective.make_loss(TextRun(objective="ar"), model.config, tokenizer.mask)
    loss, figures = loss_fn(model, batch, None)
    free = (torch.arange(batch["tokens"].shape[1]) < batch["lengths"][:, None]).clone()
    free[:, 0] = False
    assert torch.equal(loss, twin.loss(model, batch["tokens"], free)[0])
    assert figures["nats_per_token"] == loss.item()
