"""A captioner that learns from another's captions: which ones it is given, that a stop changes nothing, what is refused."""

import json

import pytest
import torch

import train_captioning
from base import config
from base.config import SampleConfig
from base.files import UserError
from caption import teach, writer
from caption.data import CaptionData
from loop import checkpoint
from tests.making.captioned import make_captioner, make_captions, save_encoder

GREEDY = SampleConfig(**config.CAPTIONS | {"revise": 1})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_captions(tmp_path_factory.mktemp("taught") / "data")


@pytest.fixture(scope="module", params=["diffusion", "ar"])
def run(data, request):
    return (
        make_captioner(data, data.parent / request.param, "--objective", request.param) / "best.pt"
    )


def test_a_teacher_writes_what_it_would_alone(data, run, monkeypatch):
    """Batches, and their order by length, change no caption."""
    model, tokenizer, saved = checkpoint.open_model(run)
    split = CaptionData(data, "val")
    settings = SampleConfig(**config.CAPTIONS) if saved["objective"] == "ar" else GREEDY
    whole = teach.write_captions(model, tokenizer, saved, split, settings)
    monkeypatch.setattr(teach, "ROWS", {"cpu": 3})
    assert teach.write_captions(model, tokenizer, saved, split, settings) == whole
    for number in range(len(split)):
        seen = writer.standardise(split.features_of([number]), saved["statistics"], "cpu")
        assert (
            writer.write(model, tokenizer, saved["objective"], seen, settings)[0].text
            == whole[number]
        )


def test_it_is_trained_on_those_and_resumed_with_them(data, run, tmp_path, monkeypatch):
    flags = ["--teacher", str(run), "--save_every", "2", "--eval_every", "3"]
    seen = []
    plain = train_captioning.CaptionBatches.__call__
    monkeypatch.setattr(
        train_captioning.CaptionBatches,
        "__call__",
        lambda self, step: seen.append((self.data, plain(self, step))) or seen[-1][1],
    )
    make_captioner(data, tmp_path / "straight", *flags)
    told = json.loads((tmp_path / "straight" / teach.FILE).read_text())
    assert {name: len(texts) for name, texts in told.items()} == {
        "train": len(CaptionData(data, "train")),
        "val": len(CaptionData(data, "val")),
    }
    split, batches = seen[0]
    for part in batches:
        for row, n, (number, _) in zip(
            part["tokens"], part["lengths"], part["sources"], strict=True
        ):
            theirs = split.tokenizer.encode(told["train"][number]).tolist()
            assert row[1 : n - 1].tolist() == theirs[: int(n) - 2] and (
                len(theirs) == n - 2 or n == part["tokens"].shape[1]
            )  # a twin may not end
    with (
        monkeypatch.context() as broken
    ):  # stopped by an evaluation that fails, after the state was saved
        broken.setattr(writer, "bounds", lambda *args, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_captioner(data, tmp_path / "half", *flags)
    with monkeypatch.context() as once:  # it need not be there any more
        once.setattr(checkpoint, "open_model", None)
        train_captioning.main(
            ["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"]
        )
    one, other = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("straight", "half")
    )
    assert (
        all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])
        and one["metrics"] == other["metrics"]
    )
    for content, message in (
        (json.dumps(told | {"val": told["val"][1:]}), "other captions for val"),
        ('{"train": 5}', "other captions for train"),
        ("[]", "no JSON object"),
        ("{", "taught.json"),
    ):
        (tmp_path / "half" / teach.FILE).write_text(content)
        with pytest.raises(UserError, match=message):
            train_captioning.main(
                [
                    "--data_dir",
                    str(data),
                    "--out",
                    str(tmp_path / "half"),
                    "--resume",
                    "--max_steps",
                    "8",
                ]
            )


def test_another_teacher_is_refused_by_name(data, run, tmp_path):
    """One of other words, one of another encoder, none at all: before anything is trained."""
    words = make_captions(tmp_path / "words", "--seed", "5", "--vocab_size", "300")
    encoder = make_captions(
        tmp_path / "encoder", "--encoder", str(save_encoder(tmp_path / "vit", "vit"))
    )
    for folder, name, message in (
        (words, run, "made with tokenizer"),
        (encoder, run, "the encoder of .*: embedded with key"),
        (data, tmp_path / "none.pt", "none.pt"),
    ):
        with pytest.raises(UserError, match=message):
            make_captioner(folder, tmp_path / "out", "--teacher", str(name))
        assert not (tmp_path / "out" / "best.pt").exists()
