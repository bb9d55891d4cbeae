"""A folder of captioned images: what is written is read back, damage is named, batches are functions of the step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data as caption_data
from caption.data import CaptionBatches, CaptionData
from tests.making.captioned import by_hand, rewrite

RECORDS = [
    {
        "image": f"{i}.png",
        "split": "val" if i % 5 == 4 else "train",
        "captions": [f"a red circle {i}", f"{i} blue squares and a star"][: 1 + i % 2],
    }
    for i in range(50)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return by_hand(tmp_path_factory.mktemp("captions") / "data", RECORDS)


def test_round_trip(folder):
    """Rows of a split are its own, with their features and every caption, between [BOS] and [EOS]."""
    assert caption_data.read_records(folder) == RECORDS and caption_data.read_meta(folder)[
        "splits"
    ] == {"train": 40, "val": 10}
    features = np.load(folder / "features.npy")
    for split in ("train", "val"):
        data, rows = (
            CaptionData(folder, split),
            [i for i, record in enumerate(RECORDS) if record["split"] == split],
        )
        assert data.records == [RECORDS[i] for i in rows] and np.array_equal(
            data.features_of(np.arange(len(data))), features[rows].astype(np.float32)
        )
        for record, tokens in zip(data.records, data.tokens, strict=True):
            assert [data.tokenizer.decode(one.tolist()) for one in tokens] == record["captions"]
            assert all(
                one[0] == data.tokenizer.bos and one[-1] == data.tokenizer.eos for one in tokens
            )
        assert len(data.length_histogram()) == data.longest + 1
    padded = data.batch(
        [0, 1], [[0], [0]], pad_multiple=100
    )  # what --compile asks for: few widths, none beyond the longest caption
    assert (
        padded["tokens"].shape[1] == data.longest
        and (padded["tokens"][0, padded["lengths"][0] :] == data.tokenizer.pad).all()
    )
    short = CaptionData(folder, "train", max_length=5)
    assert short.longest == 5 and all(
        one[-1] == short.tokenizer.eos for captions in short.tokens for one in captions
    )


TOKENIZER = Tokenizer.train(["a"], 270)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
        min_size=1,
        max_size=3,
    )
)
def test_any_caption_comes_back(tmp_path_factory, texts):
    """Line separators of Unicode among them: a line of the file ends at a newline only."""
    records = [{"image": f"{texts[0]}.png", "split": "train", "captions": texts}]
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    caption_data.write_folder(folder, records, TOKENIZER, {})
    assert caption_data.read_records(folder) == records


@pytest.mark.parametrize(
    "damage, message",
    [
        ("cut", "captions.jsonl, which is damaged"),
        ("no captions", "captions.jsonl, which is damaged"),
        ("empty", "captions.jsonl, which is damaged"),
        ("lines", "captions.jsonl, which was changed"),
        ("features", "features.npy, which is damaged"),
        ("shape", "features.npy of shape"),
        ("unfinished", "features of 32 of 50"),
        ("others", "features of 50 of 50"),
        ("kind", "kind 'text'"),
        ("missing", "image features"),
        ("split", "no split 'test'"),
    ],
)
def test_damaged_folders(tmp_path, damage, message):
    folder = by_hand(tmp_path / "data", RECORDS)
    lines = (folder / "captions.jsonl").read_text().splitlines(keepends=True)

    if damage in ("cut", "no captions", "empty", "lines"):
        lines = {
            "cut": [*lines[:-1], lines[-1][:20]],
            "no captions": [*lines[:-1], '{"image": "a", "split": "val", "captions": []}'],
            "empty": [],
            "lines": lines[:-1],
        }[damage]
        (folder / "captions.jsonl").write_text("".join(lines))
    elif damage == "features":
        (folder / "features.npy").write_bytes((folder / "features.npy").read_bytes()[:500])
    elif damage == "shape":
        rewrite(folder / "features.json", width=5)
    elif damage == "unfinished":
        rewrite(folder / "features.json", done=32)
    elif damage == "others":
        rewrite(folder / "features.json", fingerprint="of other captions")
    elif damage == "kind":
        rewrite(folder / "meta.json", kind="text")
    elif damage == "missing":
        (folder / "features.json").unlink()
    with pytest.raises(UserError, match=message):
        CaptionData(folder, "test" if damage == "split" else "train")


def test_batches_are_functions_of_the_step(folder):
    data = CaptionData(folder, "train")
    one, other = CaptionBatches(data, 8, seed=1), CaptionBatches(data, 8, seed=1)
    straight = [one(step)[0] for step in range(12)]
    for step in (7, 0, 11, 3):
        again = other(step)[0]
        assert all(
            torch.equal(again[name], straight[step][name])
            for name in ("tokens", "lengths", "features")
        )
    assert not torch.equal(
        straight[0]["features"], CaptionBatches(data, 8, seed=2)(0)[0]["features"]
    )
    assert not torch.equal(
        straight[0]["features"], straight[5]["features"]
    )  # another epoch, another order
    for row, n in zip(straight[0]["tokens"], straight[0]["lengths"], strict=True):
        assert (
            row[0] == data.tokenizer.bos
            and row[n - 1] == data.tokenizer.eos
            and (row[n:] == data.tokenizer.pad).all()
        )
    halves = CaptionBatches(data, 8, accumulate=2, seed=1)(0)
    assert len(halves) == 2 and sum(part["weight"] for part in halves) == straight[0][
        "weight"
    ] == float((straight[0]["lengths"] - 1).sum())
    assert torch.equal(torch.cat([part["features"] for part in halves]), straight[0]["features"])


def test_captions_that_share_an_image(folder):
    """Different captions of one image stand together; micro-batches are the same captions, short ones with short ones."""
    data = CaptionData(folder, "train")
    for each in (2, 5, 7):
        batch = CaptionBatches(data, 4 * each, captions_per_image=each)(0)[0]
        assert batch["features"].shape[0] == 4 and len(batch["tokens"]) == 4 * each
        known = {
            data.features_of([n]).numpy().tobytes(): {tuple(one.tolist()) for one in data.tokens[n]}
            for n in range(len(data))
        }
        for i, image in enumerate(batch["features"]):
            rows = zip(
                batch["tokens"][i * each : (i + 1) * each],
                batch["lengths"][i * each : (i + 1) * each],
                strict=True,
            )
            texts = [tuple(row[:n].tolist()) for row, n in rows]
            mine = known[image[None].numpy().tobytes()]
            assert set(texts) <= mine and len(set(texts)) == min(each, len(mine))
    whole, parts = (
        CaptionBatches(data, 24, captions_per_image=2)(3)[0],
        CaptionBatches(data, 24, 4, captions_per_image=2)(3),
    )
    widths = [part["tokens"].shape[1] for part in parts]
    assert widths == sorted(widths) and widths[0] < widths[-1] == whole["tokens"].shape[1]
    assert sum(part["weight"] for part in parts) == whole["weight"] and torch.equal(
        torch.cat([part["features"] for part in parts]), whole["features"]
    )


@pytest.mark.parametrize("batch_size, shown", [(8, 40), (64, 40), (7, 35)])
def test_an_epoch_shows_every_image_once(folder, batch_size, shown):
    """A remainder that fills no batch waits for another epoch."""
    batches = CaptionBatches(CaptionData(folder, "train"), batch_size)
    for epoch in (0, 2):
        images = torch.cat(
            [
                batches(epoch * batches.epoch_steps + step)[0]["features"]
                for step in range(batches.epoch_steps)
            ]
        )
        assert len(images) == shown == len({row.numpy().tobytes() for row in images})


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=4), min_size=1, max_size=5),
    each=st.integers(1, 4),
    multiple=st.sampled_from([1, 4, 16]),
    seed=st.integers(0, 100),
)
def test_a_batch_cut_from_one_piece_is_its_captions_padded(sizes, each, multiple, seed):
    """As `pad_sequence` has it, as wide as a multiple asks for but no wider than the split's longest."""
    rng = np.random.default_rng(seed)
    tokens = [[torch.from_numpy(rng.integers(0, 50, size)) for size in some] for some in sizes]
    texts = caption_data.Texts(tokens, pad=99)
    numbers = rng.integers(0, len(sizes), 3)
    which = np.array([[rng.integers(len(sizes[n])) for _ in range(each)] for n in numbers])
    batch, chosen = (
        texts.batch(numbers, which, multiple),
        [tokens[n][w] for n, some in zip(numbers, which, strict=True) for w in some],
    )
    expected = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=99)
    width = min(-(-expected.shape[1] // multiple) * multiple, max(map(max, sizes)))
    assert torch.equal(
        batch["tokens"], torch.nn.functional.pad(expected, (0, width - expected.shape[1]), value=99)
    )
    assert batch["lengths"].tolist() == [len(one) for one in chosen]
    assert batch["sources"] == [
        (n, w) for n, some in zip(numbers, which, strict=True) for w in some
    ]
