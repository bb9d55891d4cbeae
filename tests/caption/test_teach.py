"""A teacher's captions and a reward: what is learnt from, that a stop changes nothing, what is refused."""

import json

import numpy as np
import pytest
import torch

import diffusion
import train_captioning
from base import config
from base.config import SampleConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import coco, teach, writer
from caption import data as caption_data
from caption.data import CaptionData
from loop import checkpoint
from tests.making.captioned import by_hand, make_captioner

GREEDY = SampleConfig(**config.CAPTIONS | {"revise": 1})


@pytest.fixture
def data(scene_folder):
    return scene_folder


@pytest.fixture(params=["captioner", "captioner_twin"])
def run(request):
    return request.getfixturevalue(request.param)


def test_a_teacher_writes_what_it_would_alone(data, run, monkeypatch):
    """Batches, and their order by length, change no caption."""
    model, tokenizer, saved = checkpoint.open_model(run)
    split = CaptionData(data, "val")
    settings = SampleConfig(**config.CAPTIONS) if saved["objective"] == "ar" else GREEDY
    whole = teach.write_captions(model, tokenizer, saved, split, settings)
    monkeypatch.setattr(teach, "ROWS", {"cpu": 3})
    assert teach.write_captions(model, tokenizer, saved, split, settings) == whole
    for number in range(len(split)):
        seen = writer.standardise(split.features_of([number]), saved["statistics"], "cpu")
        assert (
            writer.write(model, tokenizer, saved["objective"], seen, settings)[0].text
            == whole[number]
        )


def test_it_is_trained_on_those_and_resumed_with_them(data, run, tmp_path, monkeypatch):
    flags = ["--teacher", str(run), "--save_every", "2", "--eval_every", "3"]
    seen = []
    plain = train_captioning.CaptionBatches.__call__
    monkeypatch.setattr(
        train_captioning.CaptionBatches,
        "__call__",
        lambda self, step: seen.append((self.data, plain(self, step))) or seen[-1][1],
    )
    make_captioner(data, tmp_path / "straight", *flags)
    told = json.loads((tmp_path / "straight" / teach.FILE).read_text())
    assert {name: len(texts) for name, texts in told.items()} == {
        "train": len(CaptionData(data, "train")),
        "val": len(CaptionData(data, "val")),
    }
    split, batches = seen[0]
    for part in batches:
        for row, n, (number, _) in zip(
            part["tokens"], part["lengths"], part["sources"], strict=True
        ):
            theirs = split.tokenizer.encode(told["train"][number]).tolist()
            assert row[1 : n - 1].tolist() == theirs[: int(n) - 2] and (
                len(theirs) == n - 2 or n == part["tokens"].shape[1]
            )  # a twin may not end
    with (
        monkeypatch.context() as broken
    ):  # stopped by an evaluation that fails, after the state was saved
        broken.setattr(writer, "bounds", lambda *args, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_captioner(data, tmp_path / "half", *flags)
    with monkeypatch.context() as once:  # it need not be there any more
        once.setattr(checkpoint, "open_model", None)
        train_captioning.main(
            ["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"]
        )
    one, other = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("straight", "half")
    )
    assert (
        all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])
        and one["metrics"] == other["metrics"]
    )
    for content, message in (
        (json.dumps(told | {"val": told["val"][1:]}), "other captions for val"),
        ('{"train": 5}', "other captions for train"),
        ("[]", "no JSON object"),
        ("{", "taught.json"),
    ):
        (tmp_path / "half" / teach.FILE).write_text(content)
        with pytest.raises(UserError, match=message):
            train_captioning.main(
                [
                    "--data_dir",
                    str(data),
                    "--out",
                    str(tmp_path / "half"),
                    "--resume",
                    "--max_steps",
                    "8",
                ]
            )


def test_another_teacher_is_refused_by_name(data, run, tmp_path):
    """Other words, another encoder, no teacher at all: refused before anything is trained."""
    records = caption_data.read_records(data)
    tokenizer = Tokenizer.load(data / "tokenizer.json")
    sizes = {"patches": 64, "width": 192}
    words = by_hand(tmp_path / "words", records, Tokenizer.train(["a heart"], 270), **sizes)
    encoder = by_hand(tmp_path / "encoder", records, tokenizer, key="0" * 16, **sizes)
    for folder, name, message in (
        (words, run, "made with tokenizer"),
        (encoder, run, "key 0000000000000000; expected the encoder of .*: embedded with key"),
        (data, tmp_path / "none.pt", "none.pt"),
    ):
        with pytest.raises(UserError, match=message):
            make_captioner(folder, tmp_path / "out", "--teacher", str(name))
        assert not (tmp_path / "out" / "best.pt").exists()


# ---- the score as a reward

CAPTIONS = [
    ["a dog runs on grass", "the dog is running", "a brown dog runs"],
    ["two men sit on a bench", "men sitting", "two men on a bench"],
    ["a girl in red", "the girl jumps", "a girl jumps up"],
]


def test_the_reward_is_cider_against_the_other_captions():
    reward = teach.Reward(CAPTIONS)
    words = [[coco.tokenize(text) for text in texts] for texts in CAPTIONS]
    others = coco.CiderD(words)
    got = reward("a dog runs on grass", 0, without=0)
    assert (
        got
        == pytest.approx(others.score(words[0][0], [others.vectors(ref) for ref in words[0][1:]]))
        and got > 0
    )
    assert reward("a dog runs on grass", 0, without=1) > got  # its own text is a reference now
    assert teach.Reward([["one caption"], ["another"]])(
        "one caption", 0, without=0
    ) == pytest.approx(5.0)  # the only one stays; it has no 3-grams


def setting(seed=0):
    tokenizer = Tokenizer.train([text for texts in CAPTIONS for text in texts], 300)
    rows = [
        torch.tensor([tokenizer.bos, *tokenizer.encode(texts[0]).tolist(), tokenizer.eos])
        for texts in CAPTIONS
    ]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad)
    free = torch.zeros_like(tokens, dtype=torch.bool)
    for row, one in enumerate(rows):
        free[row, 1 : len(one) - 1] = True
    return tokenizer, tokens, free, [(n, 0) for n in range(3)], teach.Reward(CAPTIONS)


def test_the_gradient_is_the_gain_times_that_of_log_p():
    """Against the formula written out, row by row, from the very tokens that were drawn."""
    tokenizer, tokens, free, sources, reward = setting()
    table = torch.randn(
        tokens.numel(), tokenizer.output_size, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()
    denoise = lambda x, share, select: table[select.flatten()]
    uniform, seen = torch.tensor([0.9, 0.5, 0.3], dtype=torch.float64), []
    spy = lambda text, image, without: (
        seen.append((image, reward(text, image, without) + len(seen))) or seen[-1][1]
    )  # every score differs
    total, stats = teach.self_critical_loss(
        denoise,
        tokens,
        free,
        sources,
        spy,
        tokenizer,
        uniform=uniform,
        rng=torch.Generator().manual_seed(3),
        share=1.0,
    )
    bound, plain = teach.self_critical_loss(
        denoise,
        tokens,
        free,
        sources,
        spy,
        tokenizer,
        uniform=uniform,
        rng=torch.Generator().manual_seed(3),
        share=0.0,
    )
    assert stats["nats_per_token"] == plain["nats_per_token"] == pytest.approx(bound.item())
    assert stats["reward"] == pytest.approx(np.mean([score for _, score in seen[:3]]))
    (got,) = torch.autograd.grad(total - bound, table)
    rng = torch.Generator().manual_seed(3)
    masked = diffusion.corrupt(free, uniform, rng).masked
    noise = (
        -torch.empty(int(masked.sum()), tokenizer.output_size, dtype=torch.float64)
        .exponential_(generator=rng)
        .log()
    )
    drawn = (table[masked.flatten()].log_softmax(-1).double() + noise).argmax(-1)
    gain = torch.tensor([seen[row][1] - seen[3 + row][1] for row in range(3)])
    log_p = table[masked.flatten()].log_softmax(-1).gather(1, drawn[:, None])[:, 0]
    (wanted,) = torch.autograd.grad(
        -(gain[masked.nonzero()[:, 0]] * log_p).sum() / free.sum(), table
    )
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_training_on_the_reward_raises_it():
    """A table of logits, everything masked: in 60 steps the greedy caption scores better than at the start."""
    tokenizer, tokens, free, sources, reward = setting()
    table = torch.zeros(tokens.numel(), tokenizer.output_size).requires_grad_()
    optimizer, rng, scores = torch.optim.Adam([table], lr=0.3), torch.Generator().manual_seed(0), []
    for _ in range(60):
        loss, stats = teach.self_critical_loss(
            lambda x, share, select: table[select.flatten()],
            tokens,
            free,
            sources,
            reward,
            tokenizer,
            uniform=torch.full((3,), 0.999, dtype=torch.float64),
            rng=rng,
            share=1.0,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scores.append(stats["greedy_reward"])
    assert scores[-1] > scores[0] + 1
