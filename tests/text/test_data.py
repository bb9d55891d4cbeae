"""Rows and batches: every token once, every row once, and the step decides everything."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from base.files import UserError
from base.tokenizer import Tokenizer
from loop import batches
from tests.making.corpus import make_data
from text import data, splits
from text.data import Batches, TextData


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return TextData(folder, "train", 48).tokenizer


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


@pytest.mark.parametrize("limit", [40, 300, 1000, 10**6])
def test_the_first_whole_documents_within_a_limit(folder, limit):
    """As many as the limit holds, uncut; the step decides the batch here too."""
    every, few = TextData(folder, "train", 32), TextData(folder, "train", 32)
    few.keep_first(limit)
    count = few.num_documents
    assert few.num_tokens == every.offsets[count] - count <= limit  # all tokens but each [BOS]
    if count < every.num_documents:
        assert every.offsets[count + 1] - (count + 1) > limit
    assert np.array_equal(few.offsets, every.offsets[: count + 1])
    first = every.documents < count
    assert np.array_equal(few.starts, every.starts[first])
    assert few.length_histogram().sum() == first.sum()
    again = TextData(folder, "train", 32)
    again.keep_first(limit)
    one, two = Batches(few, 4, seed=3), Batches(again, 4, seed=3)
    for step in (9, 0, 25):
        assert np.array_equal(one(step)[0]["rows"], two(step)[0]["rows"])
        assert one(step)[0]["rows"].max() < len(few.starts)
    assert one.passes(len(few.starts)) == 4


def test_a_limit_below_the_first_document_is_refused(folder):
    few = TextData(folder, "train", 32)
    with pytest.raises(UserError, match="found --unique_tokens 3 and a first document of"):
        few.keep_first(3)


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
