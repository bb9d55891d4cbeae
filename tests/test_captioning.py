"""The captioning scripts one after another: scenes, a captioner, captions, and their scores."""

import json

import pytest

import evaluate
import generate_caption
from base.files import UserError


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
