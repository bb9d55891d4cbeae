"""Training on words and pictures: a run resumes to the bit, directions, refusals, evaluation of the result."""

import pytest

import evaluate
import train_image
from base.files import UserError
from image.data import PictureData, write_folder
from image.rows import Pairs
from loop import checkpoint
from net.painter import Painter
from tests.making.painted import make_pictures, train
from tests.making.runs import content


def test_a_resumed_run_is_a_straight_run(painted, tmp_path):
    train(painted.data, tmp_path / "straight", "--max_steps", "6")
    with pytest.MonkeyPatch.context() as patch:
        # Stopped after three steps, with the schedule of six.
        patch.setattr("loop.run.Run.is_over", property(lambda run: run.step >= 3))
        train(painted.data, tmp_path / "two", "--max_steps", "6")
    train(painted.data, tmp_path / "two", "--max_steps", "6", "--resume")
    for part in ("weights", "averaged"):
        one, other = (content(tmp_path / name, "resume.pt")[part] for name in ("straight", "two"))
        assert all((one[name] == other[name]).all() for name in one)


def test_a_network_that_starts_from_its_twin(painted, tmp_path):
    """Its resumed run keeps the logit shift, and a network that starts from it must have it."""
    first = train(
        painted.data, tmp_path / "first", "--init_from", str(painted.twin), "--logit_shift"
    )
    model, _, saved = checkpoint.open_model(first)
    assert model.config.logit_shift and not model.config.causal
    assert saved["objective"] == "diffusion"
    train(painted.data, tmp_path / "first", "--resume", "--max_steps", "5")
    with pytest.raises(UserError, match="with a logit shift"):
        train(painted.data, tmp_path / "again", "--init_from", str(first))
    again = train(painted.data, tmp_path / "again", "--init_from", str(first), "--logit_shift")
    assert checkpoint.open_model(again)[0].config.logit_shift
    assert not checkpoint.open_model(painted.painter)[0].config.logit_shift


def test_the_checkpoint_says_what_it_is(painted):
    model, tokenizer, saved = checkpoint.open_model(painted.painter)
    assert isinstance(model, Painter) and not model.config.causal and saved["kind"] == "image"
    assert model.config.output_size == 9 + tokenizer.output_size
    assert checkpoint.open_model(painted.twin)[0].config.causal


def test_bounds_by_evaluate(painted, tmp_path, capsys):
    words = ["--data_dir", str(painted.data), "--device", "cpu", "--threads", "1"]
    evaluate.main(["--checkpoint", str(painted.painter), *words, "--images", "2", "--draws", "2"])
    assert "p(words given picture)" in capsys.readouterr().out
    with pytest.raises(UserError, match="--samplers for an image checkpoint"):
        evaluate.main(["--checkpoint", str(painted.painter), *words, "--samplers", "margin"])


def test_one_direction_and_a_start(painted, tmp_path, capsys):
    flags = ["--directions", "to_words", "--init_from", str(painted.painter)]
    run = train(painted.data, tmp_path / "words", *flags)
    assert checkpoint.load(run)["flags"]["directions"] == "to_words"
    assert "from" in capsys.readouterr().err


def test_a_caption_of_val_may_be_longer_than_all_of_training(painted, tmp_path):
    data = PictureData(painted.data)
    records = [*data.records("train"), *data.records("val")]
    longer = " and ".join(["a small red star"] * 12)
    records = [*records[:-1], {**records[-1], "captions": [longer]}]
    (tmp_path / "data").mkdir()
    how = {"codes": data.codes, "settings": {}}
    write_folder(
        tmp_path / "data", records, data.every_token, data.codes_file, data.tokenizer, **how
    )
    model, _, _ = checkpoint.open_model(train(tmp_path / "data", tmp_path / "run"))
    longest = Pairs(PictureData(tmp_path / "data"), "val").longest
    assert model.config.max_length == longest + train_image.ROOM + data.places


def test_refusals(painted, tmp_path):
    other = make_pictures(tmp_path / "other", count=6)
    run = tmp_path / "run"
    train(painted.data, run)
    with pytest.raises(UserError, match="other pictures"):
        train(other.folder, run, "--resume", "--max_steps", "8")
    with pytest.raises(UserError, match="another model"):
        train(painted.data, run, "--resume", "--layers", "2")
    with pytest.raises(UserError, match="reads the words first"):
        train(painted.data, tmp_path / "x", "--objective", "ar", "--directions", "to_words")
    with pytest.raises(UserError, match="run prep_image_tokens.py"):
        train_image.main(["--data_dir", str(tmp_path / "nothing"), "--out", str(tmp_path / "y")])
    assert not (tmp_path / "x").exists() and not (tmp_path / "y").exists()
