"""What a captioner is trained on: flags that go together, its losses, its score and its preview."""

import pytest
import torch

from base.config import TrainConfig
from base.files import UserError
from caption import objective
from caption.data import CaptionBatches, CaptionData
from caption.objective import CaptionRun
from loop import checkpoint
from loop.batches import step_generator, with_noise


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"self_critical": 1, "complementary": True}, "--complementary or --label_smoothing"),
        ({"complementary": True, "estimator": "linear"}, "add --estimator count"),
        ({"image_dropout": 1.0}, "--image_dropout 1.0"),
    ],
)
def test_flags_that_do_not_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        CaptionRun(**settings)


def test_a_second_phase_needs_a_trained_denoiser():
    for flag in ("self_critical", "length_only"):
        CaptionRun(**{flag: 1 if flag == "self_critical" else True}).check_start(True)
        for settings, has_start, problem in (
            ({}, False, "without --init_from"),
            ({"objective": "ar"}, True, "with --objective ar"),
        ):
            own = CaptionRun(**{flag: 1 if flag == "self_critical" else True}, **settings)
            with pytest.raises(UserError, match=f"--{flag}.* {problem}"):
                own.check_start(has_start)
    with pytest.raises(UserError, match="whole images"):
        CaptionRun(captions_per_image=3).check_batch(TrainConfig(batch_size=8))


def test_losses_score_and_preview(scene_folder, captioner):
    """The length head's loss is added to the caption's at a tenth; alone it is the whole loss."""
    model, tokenizer, saved = checkpoint.open_model(captioner)
    train, held_out = (CaptionData(scene_folder, split) for split in ("train", "val"))
    batch = with_noise(CaptionBatches(train, 8, captions_per_image=4), seed=0)(0)[0]
    losses = {}
    for name, settings in (
        ("both", {}),
        ("length", {"length_only": True}),
        ("twin", {"objective": "ar"}),
    ):
        own = CaptionRun(image_dropout=0.0, eval_images=3, **settings)
        loss_fn = objective.make_loss(own, tokenizer, saved["statistics"])
        with torch.no_grad():
            losses[name], figures = loss_fn(model, batch, step_generator(0, 0))
        if name == "both":
            length = losses["both"] - figures["nats_per_token"]
            assert figures["length_cross_entropy"] == pytest.approx(length.item() * 10, rel=1e-3)
        with torch.no_grad():
            scores = objective.make_eval(own, held_out, saved["statistics"])(model)
        assert list(scores) == ["nats_per_length" if name == "length" else "nats_per_token"]
    assert losses["length"].item() == pytest.approx(length.item() * 10, rel=1e-3)
    assert losses["twin"].isfinite()
    own = CaptionRun(eval_images=3)
    text = objective.make_preview(own, 0, held_out, saved["statistics"])(model)
    assert len(text.splitlines()) == 3
    assert text.splitlines()[0].endswith(held_out.records[0]["captions"][0])


def test_statistics_of_a_start_are_kept(scene_folder, captioner):
    data, saved = CaptionData(scene_folder, "train"), checkpoint.load(captioner)
    new = objective.statistics_of(data, None, False)
    assert len(new["row_lengths"]) and new["place_scale"] == saved["statistics"]["place_scale"]
    older = saved | {"statistics": {"place_scale": 0.5}}
    assert objective.statistics_of(data, older, False)["place_scale"] == 0.5
    alone = objective.statistics_of(data, older, True)
    assert alone == {"place_scale": 0.5}
