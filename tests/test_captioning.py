"""The captioner: what is given stays, nothing stays masked, rows do not meet, blind is blind; its data; its judge."""

import json

import numpy as np
import pytest
import torch
from captioned import make_captioner, make_captions

import caption_data
import captioning
import probe
from caption_data import CaptionBatches, CaptionData
from checkpoint import open_model
from config import SampleConfig
from files import UserError

GREEDY = SampleConfig(sampler="confidence", steps=8, temperature=0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data folder, an untrained-but-real captioner, its twin, and four standardised pictures."""
    root = tmp_path_factory.mktemp("captioning")
    data = make_captions(root / "data", "--levels", "1,2")
    model, tokenizer, saved = open_model(make_captioner(data, root / "run") / "best.pt")
    twin = open_model(make_captioner(data, root / "twin", "--objective", "ar") / "best.pt")
    seen = captioning.standardise(CaptionData(data, "val").images([0, 1, 2, 3]), saved["statistics"], "cpu")
    return data, model, tokenizer, saved, twin, seen


def test_features_are_standardised(world):
    data, _, _, saved, _, _ = world
    train = CaptionData(data, "train")
    seen = captioning.standardise(train.images(np.arange(len(train))), saved["statistics"], "cpu")
    assert seen.mean((0, 1)).abs().max() < 0.02 and seen.std((0, 1)).max() < 1.05


@pytest.mark.parametrize("sampler", ["confidence", "first_hitting", "remask", "threshold"])
def test_captions_are_whole(world, sampler):
    _, model, tokenizer, _, _, seen = world
    template = [tokenizer.bos, tokenizer.mask, *map(int, tokenizer.encode(" red")), tokenizer.mask, tokenizer.mask, tokenizer.eos]
    for given in (None, template):
        for one in captioning.write(model, tokenizer, "diffusion", seen, SampleConfig(sampler=sampler, steps=4), template=given, seed=3):
            assert one.ids[0] == tokenizer.bos and one.ids[-1] == tokenizer.eos and not {tokenizer.mask, tokenizer.pad} & set(one.ids)
            assert all(0 < p <= 1 for p in one.probability) and one.calls <= 4 and len(one.step) == len(one.ids)
            if given:
                assert [id for id, was in zip(one.ids, given, strict=True) if was != tokenizer.mask] == [id for id in given if id != tokenizer.mask]


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_four_together_are_four_alone(world, objective):
    _, model, tokenizer, _, twin, seen = world
    model = twin[0] if objective == "ar" else model
    settings = SampleConfig(sampler="first_hitting", steps=6, temperature=0.9)
    together = captioning.write(model, tokenizer, objective, seen, settings, seed=5)
    alone = [captioning.write(model, tokenizer, objective, seen[i:i + 1], settings, seed=5, first=i)[0] for i in range(4)]
    assert [one.ids for one in together] == [one.ids for one in alone]
    texts = [one.ids for one in together]
    nats = captioning.bounds(model, tokenizer, objective, seen, texts)
    if objective == "ar":  # exact; a bound draws its masks for the whole batch
        single = [captioning.bounds(model, tokenizer, objective, seen[i:i + 1], texts[i:i + 1])[0] for i in range(4)]
        assert np.allclose(nats, single, atol=1e-5)
    assert nats.shape == (4,) and (nats > 0).all()


def test_no_image_is_no_condition(world):
    """All-zero features add nothing, bit for bit, and guidance of 1 changes nothing."""
    _, model, tokenizer, _, _, seen = world
    texts = [[tokenizer.bos, 5, 6, 7, tokenizer.eos]] * 4
    blind = captioning.bounds(model, tokenizer, "diffusion", torch.zeros_like(seen), texts)
    assert np.array_equal(blind, captioning.bounds(model, tokenizer, "diffusion", None, texts))
    assert not np.array_equal(blind, captioning.bounds(model, tokenizer, "diffusion", seen, texts))
    plain = captioning.write(model, tokenizer, "diffusion", seen, GREEDY)
    assert [one.ids for one in captioning.write(model, tokenizer, "diffusion", seen, GREEDY, guidance=1.0)] == [one.ids for one in plain]
    unconditional = captioning.write(model, tokenizer, "diffusion", seen, GREEDY, guidance=0.0, lengths=torch.full((4,), 9))
    assert len({tuple(one.ids) for one in unconditional}) == 1  # guidance 0 sees no picture


def test_the_best_of_several_is_the_likeliest(world):
    _, model, tokenizer, _, _, seen = world
    best = captioning.best_of(model, tokenizer, seen, GREEDY, 3)
    with torch.no_grad():
        length = model.length_logits(seen).topk(3, -1).indices
    for row, one in enumerate(best):
        assert len(one.ids) in length[row].clamp(min=3).tolist() and one.bound > 0
    assert [one.ids for one in captioning.best_of(model, tokenizer, seen, GREEDY, 1)] == \
        [one.ids for one in captioning.write(model, tokenizer, "diffusion", seen, GREEDY)]


def test_truth_counts(world):
    scene = {"noise": 0, "seed": 0, "objects": [
        {"shape": "square", "colour": "blue", "size": "large", "fill": "solid", "x": 0.7, "y": 0.5, "radius": 0.2, "angle": 0.0},
        {"shape": "circle", "colour": "red", "size": "small", "fill": "outlined", "x": 0.2, "y": 0.5, "radius": 0.08, "angle": 0.0}]}
    texts = ["a red circle left of a blue square", "a red circle right of a blue square", "a red circle", "a small green circle", "red red"]
    found = captioning.truth(texts, [{"scene": scene}] * 5)
    assert (found["truthful"], found["set_exact"], found["grammatical"]) == (0.4, 0.2, 0.8)
    assert found["relation_accuracy"] == 0.5 and found["colour_accuracy"] == 5 / 6 and found["shape_accuracy"] == 1.0 and found["size_accuracy"] == 1.0
    assert found["object_recall"] == 5 / 10 and found["hallucination"] == 1 / 6 and found["distinct_captions"] == 1.0
    low, high = found["truthful_ci95"]
    assert low < 0.4 < high


def test_batches_are_functions_of_the_step(world):
    data = CaptionData(world[0], "train")
    one, other = CaptionBatches(data, 8, seed=1), CaptionBatches(data, 8, seed=1)
    for step in (7, 0, 3):
        assert torch.equal(one(step)[0]["tokens"], other(step)[0]["tokens"])
    assert not torch.equal(one(0)[0]["images"], CaptionBatches(data, 8, seed=2)(0)[0]["images"])
    assert one.epoch_steps == 5
    first = torch.cat([one(step)[0]["images"] for step in range(5)])
    assert len(first) == 40 and len({row.numpy().tobytes() for row in first}) == 40  # every picture once an epoch
    batch = one(0)[0]
    assert (batch["tokens"][:, 0] == data.tokenizer.bos).all()
    for row, n in zip(batch["tokens"], batch["lengths"], strict=True):
        assert row[n - 1] == data.tokenizer.eos and (row[n:] == data.tokenizer.pad).all()
    halves = CaptionBatches(data, 8, accumulate=2, seed=1)(0)
    assert len(halves) == 2 and sum(part["weight"] for part in halves) == batch["weight"]


@pytest.mark.parametrize("damage, message", [("records", "captions.jsonl, which is damaged"), ("lines", "lines in"), ("features", "features.npy"),
                                             ("kind", "kind 'text'"), ("missing", "image features"), ("split", "no split 'test'")])
def test_damaged_folders(world, tmp_path, damage, message):
    import shutil
    folder = tmp_path / "data"
    shutil.copytree(world[0], folder, ignore=shutil.ignore_patterns("images"))
    if damage == "records":
        (folder / "captions.jsonl").write_text('{"image": "a.png"\n')
    elif damage == "lines":
        text = (folder / "captions.jsonl").read_text().splitlines(keepends=True)
        (folder / "captions.jsonl").write_text("".join(text[:-1]))
    elif damage == "features":
        (folder / "features.npy").write_bytes((folder / "features.npy").read_bytes()[:5000])
    elif damage == "kind":
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps(meta | {"kind": "text"}))
    elif damage == "missing":
        (folder / "features.json").unlink()
    with pytest.raises(UserError, match=message):
        CaptionData(folder, "test" if damage == "split" else "train")
    assert caption_data.FORMAT == 1


def test_the_probe_reads_scenes(world):
    """It reads every object of every scene, with its own classes, and scores each attribute."""
    folder = world[0]
    data = CaptionData(folder, "train")
    assert set(probe.ceiling(folder, ["val"], 3)["val"]) == {"size_accuracy", "fill_accuracy", "colour_accuracy", "shape_accuracy", "objects"}
    rows, where, classes = probe.objects(data)
    assert len(rows) == sum(len(record["scene"]["objects"]) for record in data.records) and where.shape == (len(rows), 2)
    assert all(probe.CLASSES[name][value] == data.records[rows[i]]["scene"]["objects"][0][name]
               for name, values in classes.items() for i, value in [(0, values[0])])
