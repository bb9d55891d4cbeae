"""The captioning scripts one after another: scenes, a captioner, captions, and their scores."""

import json

import pytest
import torch

import evaluate
import export_onnx
import generate_caption
import train_captioning
from base.files import UserError
from caption import store, writer
from caption.data import CaptionData
from tests.making.captioned import make_captioner


@pytest.fixture
def data(scene_folder):
    return scene_folder


@pytest.fixture
def run(captioner):
    return captioner


def picture_of(data) -> str:
    return str(data / "images" / "val" / "000001.png")


def test_evaluate(data, run, captioner_twin, tmp_path, capsys):
    twin = captioner_twin
    flags = ["--checkpoint", str(run), "--data_dir", str(data), "--threads", "1", "--device", "cpu"]
    evaluate.main(
        [
            *flags,
            "--twin",
            str(twin),
            "--step_counts",
            "1,3",
            "--probe_steps",
            "2",
            "--json",
            str(tmp_path / "r.json"),
            "--picture",
            str(tmp_path / "p.png"),
        ]
    )
    found = json.loads((tmp_path / "r.json").read_text())
    assert (
        set(found["splits"])
        == {"val", "held_pair", "held_relation", "held_count", "long", "noise3", "swap"}
        == set(found["twin"])
        == set(found["probe"])
    )
    assert (
        all(0 <= one["truthful"] <= 1 and one["images"] == 8 for one in found["splits"].values())
        and found["swap"]["pairs"] == 4
    )
    assert [row["steps"] for row in found["steps"]] == [1, 3] and all(
        row["calls"] <= row["steps"] for row in found["steps"]
    )
    assert (
        sum(one["images"] for one in found["objects"]["val"].values()) == 8
        and "truthful" in found["blind"]
    )
    assert (tmp_path / "p.png").read_bytes()[
        :4
    ] == b"\x89PNG" and "| held_pair | 8 |" in capsys.readouterr().out
    for words, message in (
        (["--splits", "valid"], "--splits valid"),
        (["--samples"], "--samples for a caption"),
        (["--text", "a.txt"], "--text for a caption"),
        (["--splits", "train"], "--splits train"),
        (["--judge", str(twin)], "--judge for a caption"),
        (["--twin", str(tmp_path / "no.pt")], "no.pt"),
        (["--samplers", "fist"], "fist"),
        (["--data_dir", str(tmp_path)], "meta.json"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main([*flags, *words])
    generate_caption.main(
        [
            "--checkpoint",
            str(twin),
            "--image",
            picture_of(data),
            "--html",
            str(tmp_path / "twin.html"),
            "--num_samples",
            "2",
        ]
    )
    assert (tmp_path / "twin.html").exists() and capsys.readouterr().out.count("nats/token)") == 2
    for script, words in (
        (evaluate, ["--data_dir", str(data), "--guidance", "2"]),
        (generate_caption, ["--image", picture_of(data), "--guidance", "2"]),
        (generate_caption, ["--image", picture_of(data), "--template", "a [MASK] circle"]),
        (generate_caption, ["--image", picture_of(data), "--rerank", "2"]),
    ):
        with pytest.raises(UserError, match="for a twin"):
            script.main(["--checkpoint", str(twin), *words])


@pytest.fixture(scope="module")
def retriever(scene_folder, tmp_path_factory):
    """best.pt of a very small captioner that reads two captions of similar images."""
    out = tmp_path_factory.mktemp("retriever") / "run"
    return make_captioner(scene_folder, out, "--retrieve", "2") / "best.pt"


def test_retrieval_as_a_user_runs_it(data, run, retriever, tmp_path, capsys):
    cpu = ["--threads", "1", "--device", "cpu"]
    flags = ["--checkpoint", str(retriever), "--data_dir", str(data), "--splits", "val", *cpu]
    few = ["--step_counts", "1", "--infill", "--twin", str(run)]
    with_store = ["--store", str(data)]
    evaluate.main([*flags, *few, *with_store, "--json", str(tmp_path / "r.json")])
    found = json.loads((tmp_path / "r.json").read_text())
    assert list(found["stores"]) == [f"{kind} store" for kind in store.KINDS]
    evaluate.main([*flags, *few, *with_store, "--store_kind", "empty"])
    assert "shuffled store, val" in capsys.readouterr().out
    words = ["--checkpoint", str(retriever), "--image", picture_of(data), "--steps", "4", *cpu]
    generate_caption.main([*words, *with_store, "--guidance", "1.5", "--json", str(tmp_path / "c")])
    line = json.loads((tmp_path / "c").read_text())
    assert line["settings"]["store"] == CaptionData(data, "val").meta["fingerprint"]
    captioner = ["--checkpoint", str(run), *words[2:]]
    for main, wrong, message in (
        (generate_caption.main, words, "--retrieve 2 without --store"),
        (evaluate.main, flags, "--retrieve 2 without --store"),
        (generate_caption.main, [*captioner, *with_store], "reads no captions"),
        (evaluate.main, [*flags[2:], "--checkpoint", str(run), *with_store], "reads no captions"),
        (
            evaluate.main,
            [*flags[2:], "--checkpoint", str(run), "--store_kind", "empty"],
            "--store_kind empty without --store",
        ),
        (
            export_onnx.main,
            ["--checkpoint", str(retriever), "--out", str(tmp_path / "b")],
            "a captioner of --retrieve; expected a captioner that reads the image alone",
        ),
    ):
        with pytest.raises(UserError, match=message):
            main(wrong)
    assert not (tmp_path / "b").exists()


def test_retrieval_is_resumed_as_such(data, retriever, tmp_path, monkeypatch):
    """After a stop it draws the same captions: the weights are those of a straight run."""
    flags = ["--retrieve", "2", "--save_every", "2", "--eval_every", "3"]
    with monkeypatch.context() as broken:
        broken.setattr(writer, "write", lambda *args, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_captioner(data, tmp_path / "half", *flags)
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    straight, half = (
        torch.load(path, weights_only=True)["weights"]
        for path in (retriever.parent / "last.pt", tmp_path / "half" / "last.pt")
    )
    assert all(torch.equal(weight, half[name]) for name, weight in straight.items())
    assert "given.weight" in straight
