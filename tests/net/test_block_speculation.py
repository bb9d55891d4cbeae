"""Guesses of larger blocks, checked by blocks of one token: the law of --block_size 1, by enumeration."""

import itertools
from collections import defaultdict

import pytest
import torch

from base.config import SampleConfig
from net import block_speculation, block_writing
from net.draws import distribution
from net.samplers import row_generators
from tests.test_model import BOS, MASK, PAD, toy

EOS = 8
SIZE = 2  # tokens that a text may hold here: the other logits are put out of reach


def small(length: int = 5, shift: bool = False):
    """A random network over two tokens, in double precision."""
    torch.manual_seed(1)
    model = toy(max_length=length, block_sizes="1,4", logit_shift=shift).double()
    torch.nn.init.normal_(model.embedding.weight, std=0.7)
    all_logits = model.logits

    def two(x):
        logits = all_logits(x).double()
        logits[..., SIZE:] = -1e9
        return 3 * logits

    model.logits = two
    return model


def blank(length: int = 5) -> torch.Tensor:
    tokens = torch.full((1, length), MASK)
    tokens[0, 0] = BOS
    return tokens


def law_from_left_to_right(model, config, tokens) -> dict:
    """p of each text at blocks of one token, by brute force: the whole text is read again each time."""
    law = {tuple(tokens[0].tolist()): 1.0}
    for place in range(tokens.shape[1]):
        if tokens[0, place] != MASK:
            continue
        after = defaultdict(float)
        for text, mass in law.items():
            seen = torch.tensor(text)[None, : place + 1]
            triangle = torch.ones(place + 1, place + 1, dtype=torch.bool).tril()
            logits = model(seen, attend=triangle[None, None])[:, -1]
            prob = distribution(logits, config.temperature, config.top_p)[0]
            for token in range(SIZE):
                after[*text[:place], token, *text[place + 1 :]] += mass * prob[token].item()
        law = after
    return law


class Script:
    """Stands in for chance: follows a list of codes, then takes code 0, and counts the weight."""

    def __init__(self, codes: list[int]):
        self.codes, self.taken, self.ways, self.weight = codes, [], [], 1.0

    def choose(self, chances: list[float]) -> int:
        number = len(self.taken)
        code = self.codes[number] if number < len(self.codes) else 0
        self.taken.append(code)
        self.ways.append(len(chances))
        self.weight *= chances[code]
        return code

    def pick(self, weight, uniform):
        share = (weight / weight.sum(-1, keepdim=True))[:, :SIZE]
        return torch.tensor([self.choose(row.tolist()) for row in share])

    def keeps(self, uniform, drawn, checked):
        ratio = torch.where(drawn > 0, checked / drawn, 1.0).clamp(max=1.0)
        return torch.tensor([bool(self.choose([1 - p, p])) for p in ratio.tolist()])


def next_codes(script: Script) -> list[int] | None:
    """The codes that follow in the order of counting; None after the last."""
    codes, ways = list(script.taken), list(script.ways)
    while codes and codes[-1] + 1 == ways[-1]:
        codes.pop()
        ways.pop()
    return [*codes[:-1], codes[-1] + 1] if codes else None


def law_with_guesses(monkeypatch, model, config, tokens) -> dict:
    """p of each text under speculation, over all that chance may do."""
    law, codes = defaultdict(float), []
    while codes is not None:
        script = Script(codes)
        monkeypatch.setattr(block_speculation, "pick", script.pick)
        monkeypatch.setattr(block_speculation, "keeps", script.keeps)
        drawn = block_speculation.sample(
            model, tokens, config, mask_id=MASK, rngs=row_generators(0, 1), eos=EOS, pad=PAD
        )
        law[tuple(drawn.tokens[0].tolist())] += script.weight
        codes = next_codes(script)
    return law


def distance(one: dict, other: dict) -> float:
    return sum(abs(one.get(text, 0) - other.get(text, 0)) for text in {*one, *other}) / 2


@pytest.mark.parametrize("ahead, length", [(1, 5), (2, 4), (3, 4)])
@pytest.mark.parametrize(
    "draws, shift",
    [({}, False), ({}, True), ({"temperature": 0.7, "top_p": 0.8}, False)],
    ids=["plain", "shift", "top_p"],
)
def test_the_law_is_that_of_blocks_of_one_token(monkeypatch, ahead, length, draws, shift):
    model, tokens = small(length, shift), blank(length)
    config = SampleConfig(speculate=ahead, **draws)
    law = law_with_guesses(monkeypatch, model, config, tokens)
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-12)
    assert distance(law, law_from_left_to_right(model, config, tokens)) < 1e-12


@pytest.mark.parametrize("shift", [False, True])
def test_given_words_stay(monkeypatch, shift):
    model, tokens = small(shift=shift), blank(4)
    tokens[0, 2] = 1
    config = SampleConfig(speculate=3)
    law = law_with_guesses(monkeypatch, model, config, tokens)
    assert {text[2] for text in law} == {1}
    assert distance(law, law_from_left_to_right(model, config, tokens)) < 1e-12


@pytest.mark.parametrize("wrong", ["all kept", "drawn from Q"])
def test_the_enumeration_finds_what_is_wrong(monkeypatch, wrong):
    model, tokens, config = small(), blank(4), SampleConfig(speculate=2)
    if wrong == "drawn from Q":
        monkeypatch.setattr(block_speculation, "remainder", lambda checked, drawn: checked)
    else:

        def all_kept(self, uniform, drawn, checked):
            return torch.ones_like(uniform, dtype=torch.bool)

        monkeypatch.setattr(Script, "keeps", all_kept)
    law = law_with_guesses(monkeypatch, model, config, tokens)
    assert distance(law, law_from_left_to_right(model, config, tokens)) > 0.005


@pytest.mark.parametrize("shift", [False, True])
def test_at_temperature_0_the_text_is_the_same_in_fewer_calls(shift):
    """Also beyond the model's length, where old tokens are forgotten, and behind [EOS]."""
    model = toy(max_length=16, block_sizes="1,4", logit_shift=shift)
    for length, eos in itertools.product((16, 40), (EOS, 3)):
        tokens = torch.full((3, length), MASK)
        tokens[:, 0] = BOS
        tokens[1, 1:4] = torch.tensor([2, 5, 6])
        texts = []
        for ahead in (0, 1, 4):
            drawn = block_writing.sample(
                model,
                tokens,
                SampleConfig(temperature=0.0, steps=16, speculate=ahead),
                size=1,
                mask_id=MASK,
                rngs=row_generators(0, 3),
                eos=eos,
                pad=PAD,
            )
            texts.append(drawn.tokens)
            assert (drawn.tokens != MASK).all()
        assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])
        assert drawn.used.max() < length


@pytest.mark.parametrize("shift", [False, True])
def test_frames_and_the_trace(shift):
    model, tokens = toy(max_length=16, block_sizes="1,4", logit_shift=shift), blank(9)
    config, seen = SampleConfig(speculate=3), []
    drawn = block_speculation.sample(
        model,
        tokens,
        config,
        mask_id=MASK,
        rngs=row_generators(0, 1),
        eos=EOS,
        pad=PAD,
        finished=lambda rows: seen.append(int((rows == MASK).sum())),
        keep_frames=True,
    )
    assert torch.equal(drawn.frames[-1], drawn.tokens) and len(drawn.frames) == drawn.calls
    assert seen == sorted(seen, reverse=True) and seen[-1] == 0
    written = drawn.step[0] > 0
    triangle = torch.ones(9, 9, dtype=torch.bool).tril()
    for place in written.nonzero()[:, 0].tolist():
        seen_text = drawn.tokens[:, : place + 1].clone()
        seen_text[0, -1] = MASK
        attend = triangle[None, None, : place + 1, : place + 1]
        log_prob = model(seen_text, attend=attend)[:, -1].double().log_softmax(-1)
        expected = log_prob[0, drawn.tokens[0, place]].item()
        assert drawn.log_prob[0, place].item() == pytest.approx(expected, abs=1e-4)
