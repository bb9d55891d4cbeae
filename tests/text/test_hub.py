"""Texts from the hub: a data set's rows are documents; other columns, names and networks are refused."""

import json

import datasets
import numpy as np
import pytest

import data_prep
from base.files import UserError
from text import hub, sources

TEXTS = ["Ann had a cat.", "", " Ben had\r\na dog. ", "\ufeffCleo had a hen.", "Dan had an owl."]
CLEAN = ["Ann had a cat.", "Ben had\na dog.", "Cleo had a hen.", "Dan had an owl."]


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """The library reads a folder ann/stories below the working folder as the data set of that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "ann" / "stories").mkdir(parents=True)

    def make(**columns):
        table = datasets.Dataset.from_dict(columns)
        table.to_parquet(tmp_path / "ann" / "stories" / "train.parquet")

    return make


def test_rows_are_documents(data_set):
    data_set(text=TEXTS, number=list(range(5)))
    assert list(hub.documents("hub:ann/stories")) == CLEAN
    assert list(sources.stream([], "|", 2, "hub:ann/stories")) == CLEAN[:2]
    assert sources.find_files("hub:ann/stories") == []
    assert sources.facts_of([], "hub:ann/stories") == "ann/stories"
    assert sources.facts_of([]) == sources.facts_of([], f"hub:{hub.DATASET}") == hub.DATASET


def test_the_only_column_of_texts_is_taken(data_set, capsys):
    data_set(story=["one", None, "two"], number=[1, 2, 3])
    assert list(hub.documents("hub:ann/stories")) == ["one", "two"]
    assert "1 of 3 rows of hub:ann/stories have no text" in capsys.readouterr().err


def test_the_same_texts_give_the_same_folder_as_a_file(data_set, tmp_path):
    texts = [f"{text} And then {number} more." for number in range(9) for text in CLEAN]
    data_set(text=texts)
    (tmp_path / "stories.txt").write_text("<|endoftext|>".join(texts))
    for source, out in (("hub:ann/stories", "hub"), ("stories.txt", "file")):
        data_prep.main(["--input", source, "--out", out, "--vocab_size", "280"])
    for name in ("train.npy", "val.npy"):
        first, second = np.load(tmp_path / "hub" / name), np.load(tmp_path / "file" / name)
        assert np.array_equal(first, second)
    meta = json.loads((tmp_path / "hub" / "meta.json").read_text())
    assert meta["source"] == "ann/stories"


def test_refusals(data_set, monkeypatch):
    data_set(title=["a"], body=["b"])
    with pytest.raises(UserError, match="the columns title, body in hub:ann/stories; expected a c"):
        list(hub.documents("hub:ann/stories"))
    with pytest.raises(UserError, match="no way to hub:ann/stories:test"):
        list(hub.documents("hub:ann/stories:test"))
    with pytest.raises(UserError, match="--input hub:stories; expected hub:OWNER/NAME"):
        sources.find_files("hub:stories")

    def fail(*args, **more):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"no way to hub:ann/x \(ConnectionError: no ne") as error:
        data_prep.main(["--input", "hub:ann/x", "--out", "out", "--vocab_size", "280"])
    assert "\n" not in str(error.value)


def test_configurations_and_splits_are_passed_on(monkeypatch):
    asked = []

    def load(*args, **more):
        asked.append((*args, more["split"], more["streaming"]))
        return [{"text": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("hub:a/b", "hub:a/b/c-1", "hub:a/b/c:test", "hub:a/b:test", hub.DATASET):
        assert list(hub.documents(name)) == ["a"]
    assert asked == [
        ("a/b", None, "train", True),
        ("a/b", "c-1", "train", True),
        ("a/b", "c", "test", True),
        ("a/b", None, "test", True),
        (hub.DATASET, None, "train", True),
    ]
