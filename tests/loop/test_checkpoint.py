"""Checkpoints: what is written is read, and every other file is refused in three parts."""

import os

import pytest
import torch

from base import flags
from base.config import ModelConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import checkpoint
from model import Denoiser

SIZE = {"max_length": 8, "d_model": 16, "heads": 2, "layers": 1}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a cat."] * 5, 280)


def content(tokenizer, **changes) -> dict:
    """A checkpoint's content, with a random model."""
    torch.manual_seed(0)
    vocabulary = {"vocab_size": tokenizer.vocab_size, "output_size": tokenizer.output_size}
    size = ModelConfig(**SIZE, **vocabulary)
    values = {
        "kind": "text",
        "objective": "diffusion",
        "model": flags.to_dict(size),
        "weights": Denoiser(size).state_dict(),
        "averaged": None,
        "tokenizer": tokenizer.to_json(),
        "step": 3,
        "metrics": {"nats_per_token": 1.25},
    }
    return values | changes


def test_a_checkpoint_comes_back(tokenizer, tmp_path):
    path = tmp_path / "best.pt"
    saved = content(tokenizer)
    checkpoint.save(path, saved)
    model, read, rest = checkpoint.open_model(path)
    assert read.fingerprint == tokenizer.fingerprint and not model.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, saved["weights"][name])
    assert "weights" not in rest and rest["format"] == checkpoint.FORMAT
    assert (
        checkpoint.describe(rest) == "text diffusion  1 layers × 16  step 3  nats_per_token 1.2500"
    )


def test_averaged_weights_are_preferred(tokenizer, tmp_path):
    saved = content(tokenizer)
    averaged = {name: torch.zeros_like(value) for name, value in saved["weights"].items()}
    checkpoint.save(tmp_path / "best.pt", saved | {"averaged": averaged})
    assert not checkpoint.open_model(tmp_path / "best.pt")[0].embedding.weight.any()
    trained, _, _ = checkpoint.open_model(tmp_path / "best.pt", averaged=False)
    assert trained.embedding.weight.any()


def test_other_files_are_refused(tokenizer, tmp_path):
    path = tmp_path / "best.pt"
    cases = [
        ({"kind": "caption"}, "name a checkpoint of that kind"),
        ({"statistics": 3}, "statistics is int"),
        ({"objective": "gan"}, "do not fit its own description"),
        ({"model": {"d_modell": 3}}, "the key 'd_modell'"),
    ]
    for changes, message in cases:
        checkpoint.save(path, content(tokenizer, **changes))
        with pytest.raises(UserError, match=message):
            checkpoint.open_model(path, kinds=("text",))
    torch.save({"format": 7, "kind": "text"}, path)
    with pytest.raises(UserError, match="format 7; expected format 1, which versions 0.1.0"):
        checkpoint.load(path)
    with pytest.raises(UserError, match="try .*best.pt"):
        checkpoint.load(tmp_path)


def test_the_newest_of_a_kind_is_found(tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run train.py first"):
        checkpoint.newest()
    for age, (folder, kind) in enumerate((("runs/a", "text"), ("runs/b", "caption"))):
        (tmp_path / folder).mkdir(parents=True)
        checkpoint.save(f"{folder}/best.pt", content(tokenizer, kind=kind))
        os.utime(f"{folder}/best.pt", (age, age))
    assert str(checkpoint.newest()) == "runs/a/best.pt"
    assert str(checkpoint.newest(("caption",))) == "runs/b/best.pt"
    (tmp_path / "runs/b/best.pt").write_bytes(b"no checkpoint")
    assert str(checkpoint.newest()) == "runs/a/best.pt"
    assert "skipped: found runs/b/best.pt" in capsys.readouterr().err
