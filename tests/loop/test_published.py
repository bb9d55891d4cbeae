"""Published folders: what is written is read, damage is one line, and hub names are downloaded."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from base.files import UserError
from base.tokenizer import Tokenizer
from loop import checkpoint, published
from tests.loop.test_checkpoint import content


@pytest.fixture(scope="module")
def saved() -> dict:
    tokenizer = Tokenizer.train(["Ann had a cat."] * 5, 280)
    return content(tokenizer, format=checkpoint.FORMAT, statistics={"row_lengths": [0, 2]})


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    (tmp_path / "published").mkdir()
    published.write(tmp_path / "published", saved, "# A card\n")
    return tmp_path / "published"


def test_a_folder_opens_as_its_checkpoint(saved, folder, tmp_path):
    checkpoint.save(tmp_path / "best.pt", saved)
    model, tokenizer, rest = checkpoint.open_model(folder)
    expected, _, facts = checkpoint.open_model(tmp_path / "best.pt")
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert tokenizer.fingerprint == checkpoint.read_tokenizer(str(folder)).fingerprint
    for key in facts.keys() - {"checksums", "averaged"}:
        assert rest[key] == facts[key], key


def test_the_kind_of_a_folder_is_known_without_its_weights(saved, folder):
    assert checkpoint.kind_of(folder) == saved["kind"]


def test_the_averaged_weights_are_published(saved, tmp_path):
    averaged = {name: torch.zeros_like(value) for name, value in saved["weights"].items()}
    published.write(tmp_path, saved | {"averaged": averaged, "best": 1.0, "optimizer": []}, "")
    assert not load_file(tmp_path / "model.safetensors")["embedding.weight"].any()
    assert (
        not {"best", "optimizer", "averaged"}
        & json.loads((tmp_path / "config.json").read_text()).keys()
    )


def test_line_ends_of_windows_change_nothing(folder):
    for name in ("config.json", "tokenizer.json"):
        text = (folder / name).read_bytes().replace(b"\n", b"\r\n")
        (folder / name).write_bytes(text)
    checkpoint.open_model(folder)


def change_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def one_less(weights: dict) -> None:
    weights.pop("embedding.weight")


def one_more(weights: dict) -> None:
    weights["extra"] = torch.zeros(3)


def another_shape(weights: dict) -> None:
    weights["embedding.weight"] = weights["embedding.weight"][:-1].clone()


def another_value(weights: dict) -> None:
    weights["embedding.weight"][0, 0] += 1


def another_type(weights: dict) -> None:
    weights["embedding.weight"] = weights["embedding.weight"].half()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 17\n"
    (folder / "model.safetensors").write_text(text)


DAMAGE = [
    (cut, "damaged or truncated"),
    (pointer, "a pointer of git-lfs.*run git lfs pull"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "damaged or truncated"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no .*model.safetensors"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "no .*tokenizer.json"),
    (lambda folder: (folder / "config.json").unlink(), "no .*config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"changed \(tokenizer"),
    (lambda folder: change_weights(folder, one_less), "without the tensor embedding.weight"),
    (lambda folder: change_weights(folder, one_more), "with the unknown tensor extra"),
    (lambda folder: change_weights(folder, another_shape), r"changed \(weights/embedding.weight\)"),
    (lambda folder: change_weights(folder, another_value), r"changed \(weights/embedding.weight\)"),
    (lambda folder: change_weights(folder, another_type), r"changed \(weights/embedding.weight\)"),
    (lambda folder: change_config(folder, step=9), r"changed \(step"),
    (lambda folder: change_config(folder, statistics={"row_lengths": [2]}), r"changed \(statist"),
    (lambda folder: change_config(folder, model_type="clip"), "of model_type 'clip'"),
    (lambda folder: change_config(folder, checksums=None), "without checksums"),
    (lambda folder: change_config(folder, checksums={}), "with the unknown tensor"),
    (lambda folder: change_config(folder, format=2), "format 2; expected format 1"),
    (lambda folder: change_config(folder, kind="caption"), "kind 'caption'"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        checkpoint.open_model(folder, kinds=("text",))
    assert all(error.value.parts) and "\n" not in str(error.value)


def test_values_that_json_has_no_word_for_are_refused(saved, tmp_path):
    with pytest.raises(UserError, match="checkpoint/metrics/nats_per_token = nan"):
        published.write(tmp_path, saved | {"metrics": {"nats_per_token": float("nan")}}, "")


def test_a_run_folder_is_no_published_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="or a folder that tools.publish wrote; try .*best.pt"):
        checkpoint.load(tmp_path)


def test_a_hub_name_is_downloaded(folder, monkeypatch):
    asked = []

    def download(repository, revision=None, allow_patterns=None):
        asked.append((repository, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for path in ("hub:ann/stories", Path("hub:ann/stories"), "hub:ann/stories@v1.0"):
        assert checkpoint.load(path)["kind"] == "text"
    assert [revision for _, revision, _ in asked] == [None, None, "v1.0"]
    assert asked[0] == ("ann/stories", None, list(published.NAMES))
    assert checkpoint.read_tokenizer("hub:ann/stories").vocab_size
    with pytest.raises(UserError, match="hub:stories; expected hub:OWNER/NAME"):
        checkpoint.load("hub:stories")


def test_a_hub_that_is_out_of_reach_is_one_line(monkeypatch):
    def download(*args, **more):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match=r"no way to hub:ann/stories \(ConnectionError\)") as error:
        checkpoint.load("hub:ann/stories")
    assert "\n" not in str(error.value)


def test_a_digest_tells_checkpoints_apart(saved, folder, tmp_path):
    checkpoint.save(tmp_path / "best.pt", saved)
    file = checkpoint.digest(tmp_path / "best.pt", checkpoint.load(tmp_path / "best.pt"))
    first = checkpoint.digest(folder, checkpoint.load(folder))
    shutil.rmtree(folder)
    folder.mkdir()
    published.write(folder, saved | {"step": 4}, "")
    second = checkpoint.digest(folder, checkpoint.load(folder))
    assert len(first) == len(file) == 64 and len({file, first, second}) == 3
