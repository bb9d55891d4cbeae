"""Hypothesis over every reader, a few inputs each (the long run is in LOG.md), and the inputs that once ended in a traceback."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train
from base import (
    files,
    runtime,
)
from base.files import UserError
from base.templates import template_row
from base.tokenizer import Tokenizer
from caption import (
    data,
    results,
)
from loop import checkpoint
from tests.hostile.fuzz.readers import COCO, READERS, World, once
from text import (
    blanks,
    pairs,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", READERS)
def test_only_success_or_a_clean_error(world, tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "one"

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def feed(rng):
        once(world, name, rng, folder)

    feed()


def test_the_harness_can_fail(world, tmp_path):
    """A reader that raises anything else is not taken for one that refused."""
    READERS["broken"] = lambda *rest: {}["x"]
    try:
        with pytest.raises(KeyError):
            once(world, "broken", None, tmp_path / "one")
    finally:
        del READERS["broken"]


@pytest.mark.parametrize("count", ["99999999999", "9" * 5000])
def test_kept_blanks_of_any_length(world, count):
    text = f"a [MASK*{count}] b"
    for read in (
        lambda: template_row(text, world.tokenizer, 48),
        lambda: blanks.room(
            blanks.read_template(text, world.tokenizer), "context", world.tokenizer, 48
        ),
    ):
        with pytest.raises(UserError):
            read()


def test_kept_a_tokenizer_that_is_no_text(world, tmp_path):
    shutil.copytree(world.root / "captions", tmp_path / "captions")
    (tmp_path / "captions" / "tokenizer.json").write_bytes(b'{"\xff')
    with pytest.raises(UserError, match="captions/tokenizer.json"):
        data.CaptionData(tmp_path / "captions", "train")


@pytest.mark.parametrize(
    "name, value",
    [
        ("metrics", "good"),
        ("step", [1]),
        ("weights", None),
        ("model", []),
        ("tokenizer", 3),
        ("averaged", "x"),
    ],
)
def test_kept_a_checkpoint_whose_values_are_others(world, tmp_path, name, value):
    saved = torch.load(world.root / "run" / "best.pt", weights_only=True) | {name: value}
    checkpoint.save(tmp_path / "x.pt", saved)
    with pytest.raises(UserError, match="x.pt"):
        checkpoint.describe(checkpoint.open_model(tmp_path / "x.pt")[2])


@pytest.mark.parametrize(
    "column, value", [(1, -30_000), (2, 7), (3, 0), (3, -1), (4, 30_000), (0, -5)]
)
def test_kept_blanks_outside_their_documents(world, tmp_path, column, value):
    folder = shutil.copytree(world.root / "pairs", tmp_path / "pairs")
    meta, path = files.read_sealed(folder / "meta.json", "", ""), folder / "train_blanks.npy"
    blanks = np.array(np.load(path, allow_pickle=False)).reshape(-1, 5)
    blanks[3, column] = value
    np.save(path, blanks.ravel())
    files.write_sealed(folder / "meta.json", {**meta, "files": files.listed(folder, meta["files"])})
    with pytest.raises(UserError, match="train_blanks.npy, which does not fit"):
        pairs.PairData(folder, "train", "context")


def test_kept_an_empty_flag_and_a_name_that_is_a_number(tmp_path):
    with pytest.raises(UserError):
        train.parse_args(["", " "])
    for name in (0.5, {}, 0):
        files.write_json(
            tmp_path / "c.json",
            {**COCO, "images": [{"id": 1, "file_name": name}, {"id": 2, "file_name": "b"}]},
        )
        with pytest.raises(UserError, match="no text"):
            results.read_references(tmp_path / "c.json")


def test_kept_a_tokenizer_at_which_the_library_panics():
    """Its Rust takes a merge for longer than its parts and panics, which is no Exception in Python."""
    model = {
        "type": "BPE",
        "continuing_subword_prefix": "longer than any token",
        "vocab": {"a": 0, "b": 1, "ab": 2},
        "merges": [["a", "b"]],
    }
    for added in (
        {},
        {
            "dropout": None,
            "unk_token": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
        },
    ):
        with pytest.raises(UserError, match="no tokenizer"):
            Tokenizer.from_json(
                json.dumps(
                    {
                        "version": "1.0",
                        "truncation": None,
                        "padding": None,
                        "added_tokens": [],
                        "normalizer": None,
                        "pre_tokenizer": None,
                        "post_processor": None,
                        "decoder": None,
                        "model": model | added,
                    }
                )
            )


def test_kept_a_bundle_whose_sizes_are_words_and_graphs_are_lists(world, tmp_path):
    folder = shutil.copytree(world.root / "bundle", tmp_path / "bundle")
    facts = files.read_sealed(folder / "bundle.json", "", "")
    facts["files"]["loop.onnx"]["bytes"] = "many"
    files.write_sealed(folder / "bundle.json", facts)
    with pytest.raises(UserError, match="loop.onnx, which is damaged"):
        runtime.Runner(folder)
    facts["graphs"]["cpu"]["loop"] = ["loop.onnx"]
    files.write_sealed(folder / "bundle.json", facts)
    with pytest.raises(UserError, match="of another shape .graphs"):
        runtime.Runner(folder)


def test_the_guided_fuzzer_runs_where_atheris_is(monkeypatch):
    """It finds nothing in a moment's inputs; where atheris is not, it says so."""
    words = [
        sys.executable,
        str(Path(__file__).parent / "guided.py"),
        "--reader",
        "templates",
        "--inputs",
        "20",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if importlib.util.find_spec("atheris"):
        assert done.returncode == 0 and "Done 20 runs" in done.stderr
    else:
        assert done.returncode == 1 and done.stderr.startswith("error: found no atheris; expected")
