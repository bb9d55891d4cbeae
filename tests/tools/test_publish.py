"""A published folder writes the same texts and captions as its checkpoint, token for token."""

import json

import numpy as np
import pytest
import yaml

import evaluate
import generate
import generate_caption
import generate_conditional
import train
import train_captioning
from base import bundle
from base.files import UserError
from loop import checkpoint
from tests.making.bundles import export
from tests.making.captioned import SMALL
from tests.making.corpus import TINY
from tools import publish


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """published(checkpoint, *flags) -> the folder that it is published in."""

    def make(path, *flags):
        out = tmp_path_factory.mktemp("published") / "model"
        publish.main(["--checkpoint", str(path), "--out", str(out), *flags])
        return out

    return make


def written(main, path, folder, *words) -> list:
    """What a script writes with this checkpoint, with --json; not the checkpoint's name."""
    out = folder / "written.json"
    out.unlink(missing_ok=True)
    words = [str(word) for word in (*words, "--device", "cpu", "--threads", 1)]
    main(["--checkpoint", str(path), "--json", str(out), *words])
    return [json.loads(line) | {"checkpoint": None} for line in out.read_text().splitlines()]


@pytest.mark.parametrize("name", ["denoiser", "twin"])
def test_texts_are_the_same(text_runs, published, name, tmp_path):
    path = getattr(text_runs, name)
    folder = published(path)
    words = ("--num_samples", 3, "--steps", 8, "--seed", 5)
    first = written(generate.main, path, tmp_path, *words)
    assert first == written(generate.main, folder, tmp_path, *words)


@pytest.mark.parametrize("name", ["captioner", "captioner_twin"])
def test_captions_are_the_same(request, scene_folder, published, name, tmp_path):
    path = request.getfixturevalue(name)
    folder = published(path)
    words = ("--use_val_set", "--data_dir", scene_folder, "--num_samples", 5)
    first = written(generate_caption.main, path, tmp_path, *words)
    assert first == written(generate_caption.main, folder, tmp_path, *words) and len(first) == 5


@pytest.mark.parametrize("form", ["context", "cross", "ar"])
def test_filled_blanks_are_the_same(conditional_world, published, form, tmp_path):
    path = conditional_world / form / "best.pt"
    folder = published(path)
    words = ("--template", "Ann had a [MASK*3]. The cat was glad.", "--num_samples", 2)
    first = written(generate_conditional.main, path, tmp_path, *words)
    assert first == written(generate_conditional.main, folder, tmp_path, *words)


def test_figures_are_the_same(text_runs, published, tmp_path):
    folder = published(text_runs.denoiser)
    figures = []
    for path in (text_runs.denoiser, folder):
        out = tmp_path / "scores.json"
        words = ["--data_dir", str(text_runs.data), "--documents", "4", "--json", str(out)]
        evaluate.main(["--checkpoint", str(path), *words, "--device", "cpu"])
        figures.append(json.loads(out.read_text()) | {"checkpoint": None})
    assert figures[0] == figures[1]


@pytest.mark.long
def test_an_export_of_a_folder_writes_the_same(texts_bundled, published, tmp_path):
    """The golden outputs of both bundles are the same; each bundle names what it was made from."""
    (denoiser, _) = texts_bundled
    folder = published(denoiser.checkpoint)
    made = export(folder, denoiser.data, tmp_path / "bundle", "--opset", "20", "--inputs", "6")
    first, second = (np.load(path / "golden.npz") for path in (denoiser.bundle, made))
    assert first.files == second.files
    assert all(np.array_equal(first[name], second[name]) for name in first.files)
    sums = [bundle.read(path)["checkpoint"]["sha256"] for path in (denoiser.bundle, made)]
    assert sums[0] != sums[1] and sums[1] == checkpoint.digest(folder, checkpoint.load(folder))


def test_trainers_start_from_a_folder(text_runs, scene_folder, captioner, published, tmp_path):
    """--init_from: the same start, so the same run."""
    cases = [
        (train, text_runs.data, text_runs.denoiser, TINY),
        (train_captioning, scene_folder, captioner, SMALL),
    ]
    for module, data, path, small in cases:
        weights = []
        for number, start in enumerate((path, published(path))):
            out = tmp_path / f"{module.__name__}_{number}"
            words = ["--data_dir", data, "--out", out, "--init_from", start, "--max_steps", 2]
            module.main([*map(str, words), *small])
            weights.append(checkpoint.load(out / "last.pt")["weights"])
        assert all(weights[0][name].equal(value) for name, value in weights[1].items())


def test_the_card_says_what_the_model_is(text_runs, published):
    folder = published(text_runs.twin, "--name", "ann/stories", "--license", "apache-2.0")
    text = (folder / "README.md").read_text()
    saved = checkpoint.load(text_runs.twin)
    about = yaml.safe_load(text.split("---\n")[1])
    assert about["license"] == "apache-2.0" and about["language"] == "en"
    assert about["pipeline_tag"] == "text-generation" and "autoregressive" in about["tags"]
    assert f"| `val_nats_per_token` | {saved['metrics']['nats_per_token']:.4f} |" in text
    assert saved["data"]["fingerprint"] in text and saved["data"]["tokenizer"] in text
    assert "python generate.py --num_samples 5 --checkpoint hub:ann/stories\n" in text
    assert str(folder.parent) not in text + (folder / "config.json").read_text()


def test_every_command_of_a_card_is_real(captioner, answerer, conditional_world, published):
    for path in (captioner, answerer, conditional_world / "context" / "best.pt"):
        text = (published(path) / "README.md").read_text()
        commands = [line for line in text.splitlines() if line.startswith("python ")]
        assert len(commands) == 2 and all("--checkpoint model" in line for line in commands)


def test_refusals(text_runs, captioner, published, tmp_path):
    folder = published(text_runs.denoiser)
    path = ["--checkpoint", str(text_runs.denoiser)]
    for words, message in (
        ([*path, "--out", str(folder)], "a folder without it.*--force"),
        ([], "no --checkpoint"),
        ([*path, "--name", "stories"], "--name stories; expected OWNER/NAME"),
        ([*path, "--license", "mit\nx: 1"], "--license"),
        ([*path, "--encoder", "a/b"], "--encoder for a text checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            publish.main(words)
    publish.main([*path, "--out", str(folder), "--force"])
    saved = checkpoint.load(captioner)
    encoder = saved["encoder"] | {"encoder": str(tmp_path)}
    checkpoint.save(tmp_path / "other.pt", saved | {"encoder": encoder})
    words = ["--checkpoint", str(tmp_path / "other.pt"), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="a folder of this machine"):
        publish.main(words)
    publish.main([*words, "--encoder", "ann/encoder"])
    assert checkpoint.load(tmp_path / "out")["encoder"]["encoder"] == "ann/encoder"
