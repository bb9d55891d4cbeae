"""From raw text to batches: nothing lost, nothing twice, nothing half-written."""

import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import data_prep
from base.files import UserError
from base.tokenizer import SPECIAL, Tokenizer
from loop import batches
from tests.making.corpus import SEPARATOR, make_data, write_corpus
from text import data, parts, splits
from text.data import Batches, TextData

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return TextData(folder, "train", 48).tokenizer


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_any_text_survives(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert (ids < tokenizer.eos).all()


def test_special_tokens(tokenizer):
    """They are the last ids, [EOS] is the only one worth emitting, and their names in a text are letters."""
    ids = [tokenizer.eos, tokenizer.unk, tokenizer.pad, tokenizer.bos, tokenizer.mask]
    assert (
        ids == list(range(tokenizer.vocab_size - 5, tokenizer.vocab_size))
        and tokenizer.output_size == tokenizer.pad
    )
    text = "".join(SPECIAL) + SEPARATOR
    assert tokenizer.decode(tokenizer.encode(text)) == text and not set(ids) & set(
        tokenizer.encode(text).tolist()
    )
    assert [tokenizer.piece(id) for id in ids] == list(SPECIAL)
    assert tokenizer.decode([-1, *ids, 60_000]) == ""
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.fingerprint == tokenizer.fingerprint
    with pytest.raises(UserError, match="no tokenizer"):
        Tokenizer.from_json("{}")
    with pytest.raises(UserError, match="without"):
        Tokenizer.from_json(tokenizer.to_json().replace("[MASK]", "[MAKS]"))
    assert Tokenizer.train(["añ"] * 3, 260).vocab_size <= 260


def fake(sizes: list[int], max_length: int, folder) -> TextData:
    """A data folder of documents with these numbers of tokens, [BOS] and [EOS] included; ids count up."""
    tokenizer = Tokenizer.train(["abc"], 300)
    writer = splits.SplitWriter(folder, "train", tokenizer)
    for size in sizes:
        writer.add(np.arange(size - 2) % 100, size - 2)
    splits.write_meta(folder, tokenizer, {"train": writer.finish()}, {})
    return TextData(folder, "train", max_length)


@given(sizes=st.lists(st.integers(2, 70), min_size=1, max_size=12), max_length=st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_rows_predict_every_token_once(tmp_path_factory, sizes, max_length):
    rows = fake(sizes, max_length, tmp_path_factory.mktemp("rows"))
    predicted = np.concatenate(
        [
            np.arange(start + 1, start + length)
            for start, length in zip(rows.starts, rows.lengths, strict=True)
        ]
    )
    everything = np.concatenate([np.arange(a + 1, b) for a, b in itertools.pairwise(rows.offsets)])
    assert np.array_equal(predicted, everything)  # all but each document's [BOS], once, in order
    assert rows.lengths.max() <= max_length and rows.lengths.min() >= 2
    assert (rows.starts >= rows.offsets[rows.documents]).all() and (
        rows.starts + rows.lengths <= rows.offsets[rows.documents + 1]
    ).all()
    assert rows.length_histogram().sum() == len(rows.lengths)
    tokens, lengths = rows.rows(np.arange(len(rows.starts)), pad_multiple=8)
    assert all(
        (row[n:] == rows.tokenizer.pad).all() and (row[:n] != rows.tokenizer.pad).all()
        for row, n in zip(tokens, lengths, strict=True)
    )


def test_an_epoch_holds_every_row_once_and_the_step_decides_everything(folder):
    rows = TextData(folder, "train", 32)
    batches = Batches(rows, 4, accumulate=2, seed=1)
    order = [
        np.concatenate([part["rows"] for part in batches(step)])
        for step in range(2 * batches.epoch_steps)
    ]
    for epoch in (order[: batches.epoch_steps], order[batches.epoch_steps :]):
        seen = np.concatenate(epoch)
        assert len(set(seen)) == len(seen) > len(rows.starts) - 4
    assert not np.array_equal(order[0], order[batches.epoch_steps])
    assert not np.array_equal(order[0], Batches(rows, 4, 2, seed=2)(0)[0]["rows"])
    fresh = Batches(rows, 4, accumulate=1, seed=1)
    for step in (
        7,
        2,
        batches.epoch_steps + 1,
        0,
    ):  # any order of asking, any accumulation: the same batch
        assert np.array_equal(fresh(step)[0]["rows"], order[step])
    one = batches(3)[0]
    assert one["weight"] == float((one["lengths"] - 1).sum()) and one["tokens"].dtype == torch.int64
    padding = 1 - sum(
        part["lengths"].sum().item() for step in range(10) for part in batches(step)
    ) / sum(part["tokens"].numel() for step in range(10) for part in batches(step))
    assert padding < 0.2
    assert (
        len(Batches(rows, 1000, seed=0)(0)[0]["rows"]) == 1000
    )  # fewer rows than a batch: repeated


def test_place_frees_what_is_predicted(folder):
    rows = TextData(folder, "val", 32)
    batch = next(data.evaluation_batches(rows, 8))
    tokens, lengths, free = batches.to_device(batch, "cpu")
    assert (
        free.sum() == batch["weight"]
        if "weight" in batch
        else free.sum() == (batch["lengths"] - 1).sum()
    )
    assert not free[:, 0].any() and not free[tokens == rows.tokenizer.pad].any()
    every = list(data.evaluation_batches(rows, 3, documents=5))
    assert (
        sorted(np.concatenate([part["rows"] for part in every]).tolist())
        == np.flatnonzero(rows.documents < 5).tolist()
    )


def test_what_is_written_is_what_was_read(folder):
    """Both splits together are the corpus; copies of one text stay on one side; bytes are the raw text's."""
    texts = sorted(
        text.strip() for text in (folder.parent / "stories.txt").read_text().split(SEPARATOR)
    )
    sides = {}
    for split in ("train", "val"):
        rows = TextData(folder, split, 10_000)
        sides[split] = [rows.tokenizer.decode(document) for document in rows.whole_rows()]
        assert rows.meta["splits"][split]["bytes"] == sum(
            len(text.encode()) for text in sides[split]
        )
        first, last = rows.tokens[rows.offsets[:-1]], rows.tokens[rows.offsets[1:] - 1]
        assert (first == rows.tokenizer.bos).all() and (last == rows.tokenizer.eos).all()
    assert sorted(sides["train"] + sides["val"]) == texts
    assert not set(sides["train"]) & set(sides["val"]) and sides["val"]


def test_rerun_says_done_and_another_run_is_refused(folder, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    words = [
        "--input",
        str(folder.parent / "stories.txt"),
        "--out",
        str(folder),
        "--vocab_size",
        "300",
        "--val_fraction",
        "0.1",
    ]
    data_prep.main(words)
    assert "already done" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(UserError, match="other settings"):
        data_prep.main([*words, "--seed", "5"])


def test_same_seed_same_bytes_and_a_tokenizer_can_be_kept(folder, tmp_path):
    again = make_data(tmp_path / "again")
    assert all(
        (again / name).read_bytes() == (folder / name).read_bytes()
        for name in ("train.npy", "val_offsets.npy", "tokenizer.json")
    )
    kept = make_data(tmp_path / "kept", tokenizer=folder / "tokenizer.json", seed=4)
    assert (kept / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert (kept / "val.npy").read_bytes() != (folder / "val.npy").read_bytes()


def test_folders_globs_and_tiny_corpora(tmp_path):
    (tmp_path / "in").mkdir()
    write_corpus(tmp_path / "in" / "a.txt", 10)
    write_corpus(tmp_path / "in" / "b.txt", 12, seed=1)
    for number, source in enumerate((tmp_path / "in", tmp_path / "in" / "*.txt")):
        data_prep.main(
            [
                "--input",
                str(source),
                "--out",
                str(tmp_path / f"out{number}"),
                "--vocab_size",
                "260",
                "--max_documents",
                "20",
            ]
        )
        sizes = json.loads((tmp_path / f"out{number}" / "meta.json").read_text())["splits"]
        assert sizes["train"]["documents"] + sizes["val"]["documents"] == 20
    (tmp_path / "two.txt").write_text(f"one story{SEPARATOR}another story")
    data_prep.main(
        [
            "--input",
            str(tmp_path / "two.txt"),
            "--out",
            str(tmp_path / "two"),
            "--vocab_size",
            "300",
        ]
    )
    assert all(
        TextData(tmp_path / "two", split, 20).num_documents == 1 for split in ("train", "val")
    )


@pytest.mark.parametrize(
    "texts, share",
    [([f"story {i}", f"tale {i}"], "0.02") for i in range(8)]
    + [([f"story {i}" for i in range(1500)], share) for share in ("0.00001", "0.99999")],
)
def test_each_side_gets_a_document(tmp_path, texts, share):
    (tmp_path / "in.txt").write_text(SEPARATOR.join(texts))
    data_prep.main(
        [
            "--input",
            str(tmp_path / "in.txt"),
            "--out",
            str(tmp_path / "out"),
            "--vocab_size",
            "260",
            "--val_fraction",
            share,
        ]
    )
    assert all(TextData(tmp_path / "out", split, 20).num_documents for split in ("train", "val"))


def test_a_tokenizer_that_changed_in_place_is_noticed(tmp_path):
    write_corpus(tmp_path / "in.txt", 20)
    words = [
        "--input",
        str(tmp_path / "in.txt"),
        "--out",
        str(tmp_path / "out"),
        "--tokenizer",
        str(tmp_path / "tokenizer.json"),
    ]
    (tmp_path / "tokenizer.json").write_text(Tokenizer.train(["aaaa bbbb"] * 9, 280).to_json())
    data_prep.main(words)
    (tmp_path / "tokenizer.json").write_text(Tokenizer.train(["the cat sat"] * 9, 280).to_json())
    with pytest.raises(UserError, match="other settings"):
        data_prep.main(words)


@pytest.mark.parametrize(
    "content, words, message",
    [
        (None, [], "no file for --input"),
        (b"", [], "no text in"),
        (f" \n{SEPARATOR}\n ".encode(), [], "no text in"),
        (b"only one story", [], "one document in"),
        (f"copy{SEPARATOR}copy".encode(), [], "one document in .* 2 times"),
        (f"good{SEPARATOR}".encode() + b"b\xffd", [], "invalid UTF-8 in .* at byte 18"),
        (b"a<|endoftext|>b", ["--vocab_size", "259"], "at least 260"),
        (b"a<|endoftext|>b", ["--vocab_size", "65536"], "at most 65535"),
        (b"a<|endoftext|>b", ["--val_fraction", "1"], "a value below 1"),
        (b"a<|endoftext|>b", ["--separator", ""], "an empty --separator"),
        (b"a<|endoftext|>b", ["--tokenizer", "none.json"], "no none.json"),
        (b"a<|endoftext|>b", ["--vocabsize", "300"], "expected --vocab_size"),
    ],
)
def test_bad_input(tmp_path, content, words, message):
    if content is not None:
        (tmp_path / "in.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        data_prep.main(
            ["--input", str(tmp_path / "in.txt"), "--out", str(tmp_path / "out"), *words]
        )
    assert not list((tmp_path / "out").glob("[!.]*")) and not list((tmp_path / "out").glob(".*raw"))


def test_a_full_disk_leaves_nothing(tmp_path):
    """A limit on file size stands in for the disk's end."""
    write_corpus(tmp_path / "in.txt", 400)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "data_prep.py"),
            "--input",
            str(tmp_path / "in.txt"),
            "--out",
            str(tmp_path / "out"),
            "--vocab_size",
            "300",
        ],
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no room left to write" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("meta.json", lambda raw: raw[:20], "not JSON"),
        (
            "meta.json",
            lambda raw: raw.replace(b'"format": 1', b'"format": 9'),
            "meta.json, which was changed",
        ),
        ("train.npy", lambda raw: raw[:200], "damaged or truncated"),
        ("train.npy", lambda raw: b"x" + raw, "damaged or truncated"),
        (
            "train_offsets.npy",
            lambda raw: raw[:-8] + b"\0" * 8,
            "train_offsets.npy, which was changed",
        ),
        (
            "tokenizer.json",
            lambda raw: raw.replace(b'"add_prefix_space":false', b'"add_prefix_space":true'),
            "tokenizer.json, which is damaged",
        ),
        ("tokenizer.json", lambda raw: None, "no .*tokenizer.json"),
    ],
)
def test_damaged_folders_are_named(folder, tmp_path, name, damage, message):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        raw = damage(path.read_bytes()) if path.name == name else path.read_bytes()
        if raw is not None:
            (copy / path.name).write_bytes(raw)
    with pytest.raises(UserError, match=message):
        TextData(copy, "train", 32)


def test_parts_are_one_folder(tmp_path, monkeypatch):
    """Three parts in any order, joined by the last, are what one process writes, to the bit; each can be made again alone."""
    monkeypatch.setattr(parts, "BLOCK", 7)
    corpus = write_corpus(tmp_path / "stories.txt")
    words = ["--input", str(corpus), "--vocab_size", "300", "--val_fraction", "0.1"]
    data_prep.main([*words, "--out", str(tmp_path / "one")])
    out = tmp_path / "parts"
    for number in (2, 0):
        data_prep.main([*words, "--out", str(out), "--shard", f"{number}/3"])
        assert not (out / "meta.json").exists()
    before = (out / "part_0_of_3" / "train.npy").stat().st_mtime_ns
    data_prep.main([*words, "--out", str(out), "--shard", "0/3"])
    assert (out / "part_0_of_3" / "train.npy").stat().st_mtime_ns == before  # it was there
    damaged = out / "part_2_of_3" / "val.npy"
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match=r"part_2_of_3/val.npy.*make that part again"):
        data_prep.main([*words, "--out", str(out), "--shard", "1/3"])
    damaged.write_bytes(good)
    with pytest.raises(UserError, match="part_1_of_3 made with other settings"):
        data_prep.main([*words, "--out", str(out), "--shard", "1/3", "--seed", "1"])
    data_prep.main([*words, "--out", str(out), "--shard", "1/3"])
    one, joined = (
        json.loads((folder / "meta.json").read_text()) for folder in (tmp_path / "one", out)
    )
    assert {**one, "command": 0, "checksum": 0} == {**joined, "command": 0, "checksum": 0}
    assert one["files"] and {path.name for path in out.iterdir()} == {
        path.name for path in (tmp_path / "one").iterdir()
    }
    data_prep.main([*words, "--out", str(out), "--shard", "1/3"])  # already done
    for text in ("3/3", "1", "0/0"):
        with pytest.raises(UserError, match=f"--shard {text}"):
            data_prep.main([*words, "--out", str(out), "--shard", text])
