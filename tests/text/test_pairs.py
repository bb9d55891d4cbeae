"""Pairs: the three forms by hand, what the kinds mean, the folder and its batches."""

import json
import shutil

import numpy as np
import pytest
import torch

from base.files import UserError
from tests.making.paired import make_world
from text import pairs, sources
from text.forms import FORMS, arrange
from text.pairs import KINDS, PairBatches, PairData


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("pairs")) / "pairs"


def test_the_kinds_are_what_they_say(folder):
    data = PairData(folder, "train", "context")
    counts = dict.fromkeys(KINDS, 0)
    for number in range(len(data)):
        pair = data.pair(number)
        counts[pair.kind] += 1
        whole = data.tokens[data.offsets[pair.document] : data.offsets[pair.document + 1]]
        assert (
            pair.whole().tolist() == whole.tolist()
            and all(map(len, pair.blanks))
            and pair.given[0][0] == data.tokenizer.bos
        )
        cut = sources.sentences(data.tokenizer.decode(whole))
        text = [data.tokenizer.decode(piece).strip() for piece in pair.given]
        if pair.kind == "continue":
            assert text == [cut[0], ""]
        elif pair.kind == "middle":
            assert text == [cut[0], cut[-1]] and len(cut) >= 3
        else:
            assert (
                1 <= len(pair.blanks) <= pairs.MOST_BLANKS
                and all(map(len, pair.given))
                and sum(map(len, pair.given)) > 2
            )
            lengths = {len(data.tokenizer.encode(" " * bool(i) + one)) for i, one in enumerate(cut)}
            assert all(len(blank) in set(pairs.SPANS) | lengths for blank in pair.blanks)
    assert counts == data.meta["splits"]["train"]["pairs"] and all(counts.values())


def test_edges_inside_a_token_are_left_out():
    assert pairs.sentence_edges("One. Two.", np.array([4, 5])) == [0, 1, 2]
    assert pairs.sentence_edges("One. Two.", np.array([2, 3, 4])) == [
        0,
        3,
    ]  # the second token holds the edge
    assert pairs.sentence_edges("É. Two.", np.array([3, 5])) == [0, 1, 2]  # bytes, not letters


@pytest.mark.parametrize("form", FORMS)
def test_rows_have_their_lengths_and_batches_their_step(form, folder):
    data = PairData(folder, "train", form)
    assert [
        len(arrange(data.pair(n), form, data.tokenizer).ids) for n in range(len(data))
    ] == data.lengths.tolist()
    batches, again = PairBatches(data, 8, 2, seed=3), PairBatches(data, 8, 2, seed=3)
    batches(0)
    one, other = batches(40), again(40)  # another epoch, reached directly
    for mine, theirs in zip(one, other, strict=True):
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[name]))
            for name, value in mine.items()
        )
        assert (
            mine["weight"] == mine["free"].sum()
            and not (mine["free"] & (mine["tokens"] == data.tokenizer.pad)).any()
        )
        assert (mine["free"].any(1)).all()
    wide = data.batch(np.argsort(data.lengths)[-8:], pad_multiple=64)  # what --compile asks for
    assert wide["tokens"].shape[1] == min(96, -(-int(data.lengths.max()) // 64) * 64)


def test_a_damaged_folder_is_refused(folder, tmp_path):
    def broken(change):
        copy = shutil.copytree(folder, tmp_path / str(len(list(tmp_path.iterdir()))))
        change(copy)
        return copy

    cases = [
        (lambda f: (f / "train_blanks.npy").unlink(), "no .*train_blanks.npy"),
        (
            lambda f: np.save(f / "train_blanks.npy", np.array([0, 0, 0, 1], dtype=np.int32)),
            "train_blanks.npy, which is damaged or truncated",
        ),
        (
            lambda f: np.save(f / "train_blanks.npy", np.array([0, 0, 0, 1, 9999], dtype=np.int32)),
            "train_blanks.npy, which is damaged or truncated",
        ),
        (
            lambda f: (f / "meta.json").write_text(json.dumps({"format": 1, "kind": "text"})),
            "kind 'text'",
        ),
        (
            lambda f: (f / "meta.json").write_text(
                json.dumps(
                    json.loads((f / "meta.json").read_text().replace("checksum", "-"))
                    | {"tokenizer": "x"}
                )
            ),
            "tokenizer x",
        ),
    ]
    for change, message in cases:
        with pytest.raises(UserError, match=message):
            PairData(broken(change), "train", "context")
