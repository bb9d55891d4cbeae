"""Training on dialogues: stop and resume to the bit, a start from other weights, refusals."""

import shutil

import pytest
import torch

import train_captioning
import train_dialogue
from base.files import UserError
from caption import dialogue_writer
from loop import checkpoint
from tests.making.captioned import SMALL as SMALL_CAPTIONER
from tests.making.captioned import by_hand
from tests.making.talked import make_answerer


def same_run(one, other) -> None:
    """Weights, averages and figures are equal to the bit."""
    one, other = (torch.load(run / "last.pt", weights_only=True) for run in (one, other))
    assert one["step"] == other["step"] and one["metrics"] == other["metrics"]
    for key in ("weights", "averaged"):
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])


@pytest.mark.parametrize("kept", [["--weight", "clipped"], ["--objective", "ar"]])
def test_stopped_training_equals_a_straight_run(dialogue_folder, tmp_path, monkeypatch, kept):
    """The stop is made by a preview that fails, after the state was saved; then --resume alone."""
    flags = [*kept, "--image_dropout", "0.4", "--accumulate", "2", "--save_every", "2"]
    flags += ["--eval_every", "3"]
    make_answerer(dialogue_folder, tmp_path / "straight", *flags)
    monkeypatch.setattr(dialogue_writer, "answer_all", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_answerer(dialogue_folder, tmp_path / "half", *flags)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "half" / "resume.pt")["step"] == 2
    words = ["--data_dir", str(dialogue_folder), "--out", str(tmp_path / "half"), "--resume"]
    train_dialogue.main(words)
    same_run(tmp_path / "straight", tmp_path / "half")


def test_a_checkpoint_says_what_a_reader_needs(answerer, answerer_twin):
    model, tokenizer, saved = checkpoint.open_model(answerer, kinds=("dialogue",))
    assert saved["statistics"]["slot"] >= 4 and saved["encoder"]["key"]
    assert model.length_head is None and not model.config.causal
    assert checkpoint.open_model(answerer_twin)[0].config.causal


@pytest.mark.parametrize("layers", ["0", "1"])
def test_training_may_start_from_a_captioner_of_the_same_folder(dialogue_folder, tmp_path, layers):
    words = ["--data_dir", str(dialogue_folder), *SMALL_CAPTIONER, "--max_steps", "1"]
    words += ["--d_model", "32", "--patch_layers", layers]
    train_captioning.main([*words, "--out", str(tmp_path / "captioner")])
    start = tmp_path / "captioner" / "best.pt"
    flags = ["--init_from", str(start), "--max_steps", "1", "--learning_rate", "1e-9"]
    flags += ["--patch_layers", layers]
    make_answerer(dialogue_folder, tmp_path / "run", *flags)
    before = checkpoint.open_model(start)[0].state_dict()
    after = checkpoint.open_model(tmp_path / "run" / "best.pt")[0].state_dict()
    assert {name for name in before if name not in after} == {
        name for name in before if name.startswith("length_head")
    }
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in after)
    assert any(name.startswith("reader") for name in after) == (layers != "0")


def test_refusals(dialogue_folder, answerer, tmp_path):
    def refused(message, *flags, out=tmp_path / "x"):
        with pytest.raises(UserError, match=message):
            make_answerer(dialogue_folder, out, *flags)
        assert not (tmp_path / "x").exists()

    refused("a run in", out=answerer.parent)
    refused("the model's max_length", "--max_length", "50")
    refused("--image_dropout 1.0", "--image_dropout", "1.0")
    run = tmp_path / "run"
    shutil.copytree(answerer.parent, run)
    refused("another model or objective", "--resume", "--objective", "ar", out=run)
    record = {"image": "a.png", "split": "train", "captions": ["a red star"]}
    plain = by_hand(tmp_path / "plain", [record, record | {"split": "val"}])
    with pytest.raises(UserError, match="without dialogues"):
        train_dialogue.main(["--data_dir", str(plain), "--out", str(tmp_path / "x")])
