"""The reward is CIDEr-D, the gradient is REINFORCE's, and training on it raises it."""

import numpy as np
import pytest
import torch

import diffusion
from base.tokenizer import Tokenizer
from caption import coco, teach

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
