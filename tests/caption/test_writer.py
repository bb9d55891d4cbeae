"""The captioner: what is given stays, nothing stays masked, rows do not meet, blind is blind; its judge."""

import numpy as np
import pytest
import torch

from base.config import SampleConfig
from base.files import UserError
from caption import writer
from caption.data import CaptionData
from loop.checkpoint import open_model
from tests.making.captioned import make_captioner

GREEDY = SampleConfig(sampler="confidence", steps=8, temperature=0.0)


@pytest.fixture(scope="module")
def world(scene_folder, captioner, captioner_twin):
    """A data folder, an untrained-but-real captioner, its twin, and four standardised pictures."""
    data = scene_folder
    model, tokenizer, saved = open_model(captioner)
    twin = open_model(captioner_twin)
    seen = writer.standardise(
        CaptionData(data, "val").features_of([0, 1, 2, 3]), saved["statistics"], "cpu"
    )
    return data, model, tokenizer, saved, twin, seen


def test_features_are_standardised(world):
    data, _, _, saved, _, _ = world
    train = CaptionData(data, "train")
    seen = writer.standardise(
        train.features_of(np.arange(len(train))), saved["statistics"], "cpu"
    ) - writer.PLACE_SCALE * writer.place_code(64, 192)
    assert seen.mean((0, 1)).abs().max() < 0.02 and seen.std((0, 1)).max() < 1.05
    before = {
        name: value for name, value in saved["statistics"].items() if name != "place_scale"
    }  # a checkpoint from before the code had a size
    some = train.features_of([0, 1])
    assert torch.allclose(
        writer.standardise(some, before, "cpu") - seen[:2],
        writer.place_code(64, 192),
        atol=1e-5,
    )


def test_every_patch_has_a_place_of_its_own():
    code = writer.place_code(50, 768)  # 7 × 7 and [CLS], as CLIP's ViT-B/32
    assert code.shape == (50, 768) and not code[0].any() and code.abs().max() <= 1
    assert torch.cdist(code[1:], code[1:]).fill_diagonal_(9).min() > 1
    row, column = code[1:, :8].view(7, 7, 8), code[1:, 8:16].view(7, 7, 8)
    assert (
        torch.equal(row[:, 0], row[:, 6])
        and torch.equal(column[0], column[6])
        and torch.equal(row[:, 0], column[0])
    )


@pytest.mark.parametrize("sampler", ["confidence", "first_hitting", "remask", "threshold"])
def test_captions_are_whole(world, sampler):
    _, model, tokenizer, _, _, seen = world
    template = [
        tokenizer.bos,
        tokenizer.mask,
        *map(int, tokenizer.encode(" red")),
        tokenizer.mask,
        tokenizer.mask,
        tokenizer.eos,
    ]
    for given in (None, template):
        for one in writer.write(
            model,
            tokenizer,
            "diffusion",
            seen,
            SampleConfig(sampler=sampler, steps=4),
            template=given,
            seed=3,
        ):
            assert (
                one.ids[0] == tokenizer.bos
                and one.ids[-1] == tokenizer.eos
                and not {tokenizer.mask, tokenizer.pad} & set(one.ids)
            )
            assert (
                all(0 < p <= 1 for p in one.probability)
                and one.calls <= 4
                and len(one.step) == len(one.ids)
            )
            if given:
                assert [
                    id for id, was in zip(one.ids, given, strict=True) if was != tokenizer.mask
                ] == [id for id in given if id != tokenizer.mask]


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_four_together_are_four_alone(world, objective):
    _, model, tokenizer, _, twin, seen = world
    model = twin[0] if objective == "ar" else model
    settings = SampleConfig(sampler="first_hitting", steps=6, temperature=0.9)
    together = writer.write(model, tokenizer, objective, seen, settings, seed=5)
    alone = [
        writer.write(model, tokenizer, objective, seen[i : i + 1], settings, seed=5, first=i)[0]
        for i in range(4)
    ]
    assert [one.ids for one in together] == [one.ids for one in alone]
    texts = [one.ids for one in together]
    nats = writer.bounds(model, tokenizer, objective, seen, texts)
    assert nats.shape == (4,) and (nats > 0).all()
    single = [
        writer.bounds(model, tokenizer, objective, seen[i : i + 1], texts[i : i + 1])[0]
        for i in range(4)
    ]
    assert np.allclose(nats, single, rtol=1e-5)
    twice = writer.bounds(model, tokenizer, objective, seen[:1].expand(2, -1, -1), texts[:1] * 2)
    assert np.allclose(*twice, rtol=1e-6)  # like captions meet like masks


def test_captions_of_one_image_share_its_keys(world):
    """Three captions an image in one batch: those, and those bounds, of every caption with an image of its own."""
    _, model, tokenizer, _, twin, seen = world
    own, lengths = seen.repeat_interleave(3, 0), torch.tensor([6, 8, 9] * 4)
    settings = SampleConfig(sampler="first_hitting", steps=6, temperature=0.9)
    shared = writer.write(model, tokenizer, "diffusion", seen, settings, lengths=lengths, seed=5)
    assert [one.ids for one in shared] == [
        one.ids
        for one in writer.write(
            model, tokenizer, "diffusion", own, settings, lengths=lengths, seed=5
        )
    ]
    texts = [one.ids for one in shared]
    for other, objective in ((model, "diffusion"), (twin[0], "ar")):
        assert np.allclose(
            writer.bounds(other, tokenizer, objective, seen, texts),
            writer.bounds(other, tokenizer, objective, own, texts),
            rtol=1e-5,
        )


def test_guesses_change_no_likeliest_caption(world):
    """--speculate reads neighbours of each row: its image, its length, its blind side."""
    _, model, tokenizer, _, _, seen = world
    for guidance in (1.0, 2.0):
        written = []
        for ahead in (0, 1, 4):
            settings = SampleConfig("confidence", 64, temperature=0.0, speculate=ahead)
            captions = writer.write(
                model, tokenizer, "diffusion", seen, settings, guidance=guidance
            )
            written.append([caption.ids for caption in captions])
        assert written[0] == written[1] == written[2]


def test_no_image_is_no_condition(world):
    """All-zero features add nothing, bit for bit, and guidance of 1 changes nothing."""
    _, model, tokenizer, _, _, seen = world
    texts = [[tokenizer.bos, 5, 6, 7, tokenizer.eos]] * 4
    blind = writer.bounds(model, tokenizer, "diffusion", torch.zeros_like(seen), texts)
    assert np.array_equal(blind, writer.bounds(model, tokenizer, "diffusion", None, texts))
    assert not np.array_equal(blind, writer.bounds(model, tokenizer, "diffusion", seen, texts))
    plain = writer.write(model, tokenizer, "diffusion", seen, GREEDY)
    assert [
        one.ids for one in writer.write(model, tokenizer, "diffusion", seen, GREEDY, guidance=1.0)
    ] == [one.ids for one in plain]
    unconditional = writer.write(
        model, tokenizer, "diffusion", seen, GREEDY, guidance=0.0, lengths=torch.full((4,), 9)
    )
    assert len({tuple(one.ids) for one in unconditional}) == 1  # guidance 0 sees no picture


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_the_best_of_several_has_the_lowest_cost(world, monkeypatch, penalty):
    """Bounds are replaced by figures that make a known candidate the cheapest of each picture's three."""
    _, model, tokenizer, _, _, seen = world
    log_p, length = (
        part.detach() for part in model.length_logits(seen).log_softmax(-1).topk(3, -1)
    )
    wanted = torch.tensor(
        [[5.0, 4.9, 5.1], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.3, 0.1, 0.2]], dtype=torch.float64
    )
    blind = torch.arange(12.0, dtype=torch.float64)
    nats = (wanted + log_p.double()).flatten() + penalty * blind
    monkeypatch.setattr(
        writer,
        "bounds",
        lambda model, tokenizer, objective, images, *rest, **more: (
            blind if images is None else nats
        ).numpy(),
    )
    best = writer.best_of(model, tokenizer, seen, GREEDY, 3, penalty=penalty)
    places = [1, 0, 2, 1]
    assert [len(one.ids) for one in best] == [
        max(3, int(length[row, place])) for row, place in enumerate(places)
    ]
    assert [one.bound for one in best] == [
        pytest.approx(float(nats[3 * row + place]) / (len(best[row].ids) - 1))
        for row, place in enumerate(places)
    ]


def test_reranked_captions_do_not_depend_on_the_batch(world):
    """Nor on how many candidates the length head can give."""
    _, model, tokenizer, _, _, seen = world
    settings = SampleConfig(sampler="first_hitting", steps=6, temperature=0.9)
    together = writer.best_of(model, tokenizer, seen, settings, 2, seed=5)
    assert all(one.bound > 0 for one in together)
    alone = [
        writer.best_of(model, tokenizer, seen[i : i + 1], settings, 2, seed=5, first=i)[0]
        for i in range(4)
    ]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert len(writer.best_of(model, tokenizer, seen[:1], GREEDY, 10_000)) == 1
    assert [one.ids for one in writer.best_of(model, tokenizer, seen, GREEDY, 1)] == [
        one.ids for one in writer.write(model, tokenizer, "diffusion", seen, GREEDY)
    ]


def test_consensus_is_what_most_agree_on():
    texts = ["a red dog runs", "a red dog runs", "a blue cat", "a red dog sits"]
    agreement = writer.consensus(texts)
    assert agreement[0] == agreement[1] == max(agreement) and agreement[2] == min(agreement)
    assert writer.consensus(["same words here now"] * 3) == [1.0] * 3 and writer.consensus(
        ["alone"]
    ) == [0.0]


def test_the_chosen_one_is_most_like_the_others(world, monkeypatch):
    _, model, tokenizer, _, _, seen = world
    monkeypatch.setattr(writer, "consensus", lambda texts: [0.1, 0.7, 0.3])
    _, length = model.length_logits(seen).topk(3, -1)
    best = writer.best_of(model, tokenizer, seen, GREEDY, 3, choose="consensus")
    assert [len(one.ids) for one in best] == [max(3, int(row[1])) for row in length] and all(
        one.bound > 0 for one in best
    )


def test_soft_captions_with_fresh_and_carried_beliefs(scene_folder, world, tmp_path):
    """Alone or together, guided or not: the same caption, its bound that of two passes per call."""
    run = make_captioner(scene_folder, tmp_path / "soft", "--soft_masks")
    model, tokenizer, saved = open_model(run / "best.pt")
    model.w_s.data.fill_(0.8)
    numbers = [0, 1, 2, 3]
    features = CaptionData(scene_folder, "val").features_of(numbers)
    seen = writer.standardise(features, saved["statistics"], "cpu")
    lengths = torch.tensor([5, 9, 7, 6])
    draws = {"sampler": "first_hitting", "steps": 6, "temperature": 1.0}
    for more in ({}, {"carry": True}, {"speculate": 2}):
        settings = SampleConfig(**draws, **more)
        common = {"guidance": 2.0}
        together = writer.write(
            model, tokenizer, "diffusion", seen, settings, lengths=lengths, **common
        )
        for row, caption in enumerate(together):
            (alone,) = writer.write(
                model,
                tokenizer,
                "diffusion",
                seen[row : row + 1],
                settings,
                lengths=lengths[row : row + 1],
                first=row,
                **common,
            )
            assert alone.ids == caption.ids
    ids = [caption.ids for caption in together]
    nats = writer.bounds(model, tokenizer, "diffusion", seen, ids)
    alone = writer.bounds(model, tokenizer, "diffusion", seen[:1], ids[:1])
    assert np.isfinite(nats).all() and alone[0] == pytest.approx(nats[0], rel=1e-4)
    with pytest.raises(UserError, match="--carry with a network without soft masks"):
        writer.write(world[1], tokenizer, "diffusion", seen, SampleConfig(carry=True))


def test_every_frame_has_a_time_of_its_own():
    """As large as the place code, and at right angles to it; images have none."""
    time, place = writer.time_code(8, 192), writer.place_code(16, 192)
    assert time.shape == (8, 192) and time.abs().max() <= 1
    assert torch.cdist(time, time).fill_diagonal_(9).min() > 1
    assert (time @ place.T).abs().max() < 1e-4
    assert 0.8 < time.norm() / 8**0.5 / (place.norm() / 4) < 1.25
    statistics = {"place_scale": 3.0, "frames": 8, "time_scale": 2.0}
    both = writer.codes(128, 192, statistics).unflatten(0, (8, 16))
    assert torch.allclose(both[5, 7], 3 * place[7] + 2 * time[5], atol=1e-6)
    images = writer.codes(16, 192, {"place_scale": 3.0})
    assert torch.equal(images, 3 * place)
    assert torch.equal(writer.codes(16, 192, {"place_scale": 3.0, "frames": 1}), images)


def test_changes_are_what_the_frame_before_has_not():
    """By hand: two patches in three frames. The features stay as they are without changes."""
    statistics = {"feature_mean": [1.0, 0.0], "feature_std": [2.0, 1.0], "frames": 3}
    statistics |= {"place_scale": 1.0, "time_scale": 1.0}
    features = torch.tensor([[[1.0, 0], [3, 0], [1, 0], [7, 5], [5, 0], [7, 4]]])  # (1, 3·2, 2)
    plain = writer.standardise(features, statistics, "cpu")
    both = writer.standardise(features, statistics | {"change_scale": 4.0}, "cpu")
    assert torch.equal(both[..., :2], plain)
    expected = [[0, 0], [0, 0], [0, 0], [8, 20], [8, 0], [0, -4]]  # 4 (x - before) / deviation
    assert torch.equal(both[0, :, 2:], torch.tensor(expected).float())
    still = features[:, :2].repeat(1, 3, 1)
    assert not writer.standardise(still, statistics | {"change_scale": 4.0}, "cpu")[..., 2:].any()


def condition_of(model, features, statistics):
    """Logits and length logits of a captioner that reads these features."""
    seen = writer.standardise(features, statistics, "cpu")
    tokens = torch.arange(7)[None].repeat(len(features), 1) % 5
    with torch.no_grad():
        logits = model(tokens, condition=model.keys_values(seen))
        return logits, model.length_logits(seen)


def test_without_a_time_code_time_does_not_exist(world):
    """A clip that stands still is one image; a clip in another order is the same clip."""
    data, model, _, saved, _, _ = world
    frames = CaptionData(data, "val").features_of([0, 1, 2, 3, 4, 5])[:, ::4]  # (6, 16, 192)
    clip = saved["statistics"] | {"frames": 3, "time_scale": 0.0}
    still = frames[:, None].expand(-1, 3, -1, -1).flatten(1, 2)
    for one, other in zip(
        condition_of(model, still, clip),
        condition_of(model, frames, saved["statistics"]),
        strict=True,
    ):
        assert (one - other).abs().max() < 1e-6 * max(1, float(other.abs().max()))
    moving = frames.unflatten(0, (2, 3)).flatten(1, 2)
    turned = frames.unflatten(0, (2, 3))[:, [2, 0, 1]].flatten(1, 2)
    for one, other in zip(
        condition_of(model, moving, clip), condition_of(model, turned, clip), strict=True
    ):
        assert (one - other).abs().max() < 1e-6 * max(1, float(other.abs().max()))
    told = clip | {"time_scale": writer.TIME_SCALE}  # else the test above could not fail
    pair = condition_of(model, moving, told)[0], condition_of(model, turned, told)[0]
    assert (pair[0] - pair[1]).abs().max() > 1e-4
