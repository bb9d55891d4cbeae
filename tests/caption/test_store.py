"""A store of training captions: nearest by brute force, nothing of the image itself, controls."""

import numpy as np
import pytest
import torch

from base.config import ModelConfig, SampleConfig
from base.files import UserError
from caption import store, writer
from caption.data import CaptionBatches, CaptionData
from caption.objective import CaptionRun, make_loss
from caption.store import Store, Told
from loop import checkpoint
from loop.batches import with_noise
from net import soft_masks
from tests.making.captioned import by_hand, make_captioner

NOUNS = ("dog", "cat", "star", "boat", "tree", "lamp")


def records(train: int = 30, val: int = 6) -> list[dict]:
    """Captions that name their line. Lines 0 and 1 of train are views of one photograph."""
    result = []
    for number in range(train + val):
        name = "0.png" if number == 1 else f"{number}.png"
        said = [f"a {NOUNS[number % 6]} of line {number} said {way}" for way in ("so", "or so")]
        split = "train" if number < train else "val"
        result.append({"image": name, "split": split, "captions": said})
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return by_hand(tmp_path_factory.mktemp("store") / "data", records(), patches=3, width=4)


@pytest.fixture(scope="module")
def train(folder):
    return CaptionData(folder, "train")


@pytest.fixture(scope="module")
def shelf(train):
    return Store(train)


def brute_force(train: CaptionData, queries: np.ndarray, name: str | None, count: int) -> list[str]:
    """First captions by the definition, with loops. queries: (P, C) of one image."""
    kept, means = [], []
    for number, record in enumerate(train.records):
        if record["image"] not in [train.records[other]["image"] for other in kept]:
            kept.append(number)
            means.append(train.features_of([number])[0].double().mean(0).numpy())
    mean, deviation = np.mean(means, 0), np.std(means, 0) + 1e-4
    query = (queries.mean(0) - mean) / deviation
    found = []
    for number, patch in zip(kept, means, strict=True):
        other = (patch - mean) / deviation
        cosine = query @ other / np.linalg.norm(query) / np.linalg.norm(other)
        if cosine <= 0.97 and train.records[number]["image"] != name:
            found.append((-cosine, number))
    return [train.records[number]["captions"][0] for _, number in sorted(found)[:count]]


def test_nearest_is_brute_force(folder, train, shelf):
    val = CaptionData(folder, "val")
    assert len(shelf) == 29  # two views are one image
    for data in (train, val):
        told = Told(shelf, data)
        together = told(np.arange(len(data)), 5)
        for number, record in enumerate(data.records):
            queries = data.features_of([number])[0].double().numpy()
            name = record["image"] if data is train else None
            assert together[number] == brute_force(train, queries, name, 5)
            assert told(np.array([number]), 5)[0] == together[number]  # alone as in a batch
    assert Told(shelf, val)(np.arange(2), 100)[0] == brute_force(
        train, val.features_of([0])[0].double().numpy(), None, 100
    )  # more than there are


def test_nothing_of_the_image_itself_and_no_near_duplicate_comes_back(train, shelf):
    for number, given in enumerate(Told(shelf, train)(np.arange(len(train)), 29)):
        own = {0, 1} if number < 2 else {number}
        assert not {f" {line} said" for line in own} & {
            text[text.index("line") + 4 :] for text in given
        }
        assert not any(f"line {line} said" in text for line in own for text in given)
        assert 1 < len(given) <= 28
    # A near-duplicate under another name, or of another folder, is recognised by its features.
    copy = train.features_of([7]).float() * 1.0005
    near = shelf.for_features(copy, 29)[0]
    assert len(near) > 1 and not any("line 7 said" in text for text in near)
    # Without the rule for names, a view of different features would come back.
    view = shelf.nearest(train.features_of([1]), 29)[0]
    assert 0 in view and 0 not in shelf.nearest(train.features_of([1]), 29, ["0.png"])[0]


def test_val_is_never_in_the_store(folder, shelf):
    texts = [text for captions in shelf.captions for text in captions]
    val = {text for record in CaptionData(folder, "val").records for text in record["captions"]}
    assert not val & set(texts)


def test_equal_cosines_go_by_line():
    """Two images with the same features: the earlier line first, whatever the batch."""
    shelf = Store.__new__(Store)
    shelf.number, shelf.mean, shelf.deviation = {}, np.zeros(2), np.ones(2)
    shelf.unit = shelf.unit_of(np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 2.0], [1.0, 1.0]]))
    seen = torch.tensor([[[1.0, 0.0]]])
    for rows in (1, 3):
        for near in shelf.nearest(seen.repeat(rows, 1, 1), 3):
            assert near.tolist() == [1, 3, 0]


def test_controls_do_what_they_say(folder, train, shelf):
    val, numbers = CaptionData(folder, "val"), np.arange(6)
    nearest = Told(shelf, val)(numbers, 3)
    assert Told(shelf, val, "empty")(numbers, 3) == [[]] * 6
    for given, record in zip(Told(shelf, val, "oracle")(numbers, 3), val.records, strict=True):
        assert given == record["captions"]
    shuffled = Told(shelf, val, "shuffled", seed=4)(numbers, 3)
    assert shuffled == Told(shelf, val, "shuffled", seed=4)(numbers, 3) != nearest
    dealt = shelf.shuffled(4)
    # Every image has the captions of another image, and no captions are lost.
    assert all(mine != own for mine, own in zip(dealt, shelf.captions, strict=True))
    assert sorted(dealt) == sorted(shelf.captions)


def test_ids_of_what_is_given(train):
    tokenizer = train.tokenizer
    given = store.give([["a dog", "a cat so"], []], tokenizer, 3, max_length=2)
    assert given.ids.shape[:2] == (2, 3) and given.lengths.tolist()[1] == [0, 0, 0]
    assert given.ids[0, 0, : given.lengths[0, 0]].tolist() == tokenizer.encode("a dog")[:2].tolist()
    assert given.lengths.max() == 2
    assert store.give([[]], tokenizer, 2, 9).ids.shape == (1, 2, 0)


def test_training_draws_from_a_longer_list_whatever_the_micro_batch_is(train, shelf):
    """A function of (seed, step, image): other micro-batches give an image the same captions."""
    drawn = {}
    for accumulate in (1, 2):
        batches = CaptionBatches(train, 8, accumulate, seed=3, captions_per_image=2)
        told = store.with_given(batches, shelf, train, 3, count=3, neighbours=7)
        found = {}
        for step in range(12):
            for batch in told(step):
                images = [image for image, _ in batch["sources"][::2]]
                found |= {(step, i): texts for i, texts in zip(images, batch["texts"], strict=True)}
        drawn[accumulate] = found
    assert drawn[1] == drawn[2]
    place = {}
    for line, captions in enumerate(shelf.captions):
        place |= dict.fromkeys(captions, line)
    used, second = set(), 0
    for (_, image), texts in drawn[1].items():
        names = [train.records[image]["image"]]
        near = shelf.nearest(train.features_of([image]), 7, names)[0].tolist()
        order = [near.index(place[text]) for text in texts]
        assert order == sorted(set(order)) and len(order) == 3
        used |= set(order)
        second += sum("or so" in text for text in texts)
    assert used == set(range(7)) and 0 < second < 3 * len(drawn[1])


def test_refusals(folder, train, tmp_path):
    class Model:
        class config:
            retrieve = 2

    saved = {"encoder": train.encoder}
    with pytest.raises(UserError, match="--retrieve 2 without --store"):
        store.open_store(None, (Model, None, saved))
    other = by_hand(tmp_path / "other", records(), key="another", width=5)
    with pytest.raises(UserError, match="features of the encoder embedded with key another"):
        store.open_store(str(other), (Model, None, saved))
    Model.config.retrieve = 0
    with pytest.raises(UserError, match="reads no captions"):
        store.open_store(str(folder), (Model, None, saved))
    assert store.open_store(None, (Model, None, saved)) is None
    with pytest.raises(UserError, match="--neighbours 2 with --retrieve 3"):
        store.for_training(3, 2, train)


def fitted(model, data: CaptionData, shelf: Store, steps: int):
    """A few steps on captions that the store gives: to read them is to know them."""
    own = CaptionRun(captions_per_image=1)
    statistics = writer.feature_statistics(data.features, data.rows)
    loss = make_loss(own, data.tokenizer, statistics)
    plain, told = CaptionBatches(data, 30, seed=0), Told(shelf, data, "oracle")

    def batches(step: int) -> list[dict]:
        result = []
        for batch in plain(step):
            images = np.array([image for image, _ in batch["sources"]])
            result.append(batch | {"texts": told(images, model.config.retrieve)})
        return result

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        for batch in with_noise(batches, 0)(step):
            value, _ = loss(model, batch, torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return model.eval(), statistics


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_the_model_and_its_twin_read_what_they_are_told(folder, train, shelf, objective, tmp_path):
    """Other captions give other nats; a row draws what it would draw alone."""
    out = make_captioner(
        folder,
        tmp_path / "run",
        "--retrieve",
        "2",
        "--objective",
        objective,
        "--max_steps",
        "60",
        "--learning_rate",
        "1e-2",
        "--d_model",
        "32",
        "--neighbours",
        "5",
    )
    model, tokenizer, saved = checkpoint.open_model(out / "last.pt")
    val = CaptionData(folder, "val")
    ids = [captions[0].tolist() for captions in val.tokens]

    def nats(kind: str) -> np.ndarray:
        val.told = Told(shelf, val, kind)
        seen = store.look(model, tokenizer, saved["statistics"], val, np.arange(6))
        return writer.bounds(model, tokenizer, objective, seen, ids)

    assert (nats("nearest") != nats("shuffled")).any()
    assert (nats("nearest") != nats("empty")).any()
    assert saved["model"]["retrieve"] == 2 and "2 retrieved captions" in checkpoint.describe(saved)
    settings = SampleConfig(sampler="confidence", steps=3, temperature=0.0)
    seen = store.look(model, tokenizer, saved["statistics"], val, np.arange(6))
    together = writer.write(model, tokenizer, objective, seen, settings)
    for row in range(6):
        alone = writer.write(model, tokenizer, objective, seen[[row]], settings, first=row)[0]
        assert alone.ids == together[row].ids


def test_the_path_is_alive(tmp_path):
    """A model that was told the truth in training reads it for new images: an oracle helps."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(90):
        said = [f"a {rng.choice(NOUNS)}"]  # no image shows which
        split = "train" if number < 60 else "val"
        lines.append({"image": f"{number}.png", "split": split, "captions": said})
    folder = by_hand(tmp_path / "data", lines, width=16)
    train, val = CaptionData(folder, "train"), CaptionData(folder, "val")
    tokenizer, shelf = train.tokenizer, Store(train)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        output_size=tokenizer.output_size,
        max_length=train.longest,
        d_model=32,
        heads=2,
        layers=2,
        condition_width=16,
        retrieve=1,
    )
    torch.manual_seed(0)
    model = soft_masks.build(config)
    for block in model.blocks:
        torch.nn.init.ones_(block.cross.gate)
    model, statistics = fitted(model, train, shelf, steps=120)
    ids = [captions[0].tolist() for captions in val.tokens]
    nats = {}
    for kind in store.KINDS:
        val.told = Told(shelf, val, kind)
        seen = store.look(model, tokenizer, statistics, val, np.arange(len(val)))
        nats[kind] = writer.bounds(model, tokenizer, "diffusion", seen, ids).mean()
    assert nats["oracle"] < 0.7 * nats["empty"] < nats["shuffled"], nats
