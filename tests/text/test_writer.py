"""Filling: new parts start as the identity, what is given stays, rows do not meet, figures are what they say."""

import dataclasses

import numpy as np
import pytest
import torch

from base.config import SampleConfig
from base.files import UserError
from loop.checkpoint import open_model
from net.text_encoder import TextConditioned
from text import blanks, writer
from text.forms import FORMS, Pair, arrange
from text.pairs import PairData, batch_of


@pytest.fixture(scope="module")
def world(conditional_world):
    """The denoiser, a conditional model of each form, held-out pairs."""
    root = conditional_world
    models = {form: open_model(root / form / "best.pt") for form in FORMS}
    data = PairData(root / "pairs", "val", "context")
    return root, models, [data.pair(number) for number in range(len(data))]


def emptied(pair: Pair, mask: int) -> Pair:
    return dataclasses.replace(pair, blanks=[np.full(len(blank), mask) for blank in pair.blanks])


def fresh(root) -> tuple[torch.nn.Module, TextConditioned]:
    """The trained denoiser, and the same with new parts."""
    denoiser, _, _ = open_model(root / "denoiser" / "best.pt")
    model = TextConditioned(denoiser.config, 1).eval()
    model.start_from(denoiser)
    return denoiser, model


def test_before_the_first_step_it_is_the_denoiser(world):
    """Bit for bit, under any condition; with open gates only the null condition is, and a dropped one counts as none."""
    root, models, some = world
    tokenizer = models["cross"][1]
    denoiser, model = fresh(root)
    batch = batch_of(some[:8], "cross", tokenizer)
    select = batch["free"]
    tokens, lengths = batch["tokens"].masked_fill(select, tokenizer.mask), batch["lengths"]
    with torch.no_grad():
        plain = denoiser(tokens, lengths=lengths, select=select)
        say = lambda kept=None: model(
            tokens,
            lengths=lengths,
            select=select,  # noqa: E731
            condition=model.read(batch["condition"], batch["condition_lengths"], kept),
        )
        assert torch.equal(say(), plain)
        for block in model.blocks:
            block.cross.gate.fill_(1.0)
        assert not torch.allclose(say(), plain, atol=1e-3)
        assert torch.equal(model(tokens, lengths=lengths, select=select), plain)
        assert torch.equal(say(torch.zeros(8, dtype=torch.bool)), plain)


def test_the_first_stage_leaves_the_denoiser_alone(world):
    """The null condition of stage 1's result is the denoiser, bit for bit; stage 2 moves it, and every new part learns."""
    root, _, _ = world
    denoiser = open_model(root / "denoiser" / "best.pt")[0].state_dict()
    first = open_model(root / "cross" / "stage_1" / "last.pt")[0]
    last = open_model(root / "cross" / "last.pt")[0].state_dict()
    assert all(torch.equal(weight, first.state_dict()[name]) for name, weight in denoiser.items())
    assert all(not torch.equal(weight, last[name]) for name, weight in denoiser.items())
    begun = fresh(root)[1].state_dict()
    new = {id(weight) for weight in first.new_parts()}
    assert all(
        not torch.equal(weight, begun[name])
        for name, weight in first.named_parameters()
        if id(weight) in new
    )


def test_padding_of_the_condition_is_invisible(world):
    _, models, some = world
    model, tokenizer, _ = models["cross"]
    one = batch_of(some[:1], "cross", tokenizer)
    tokens, free = one["tokens"].masked_fill(one["free"], tokenizer.mask), one["free"]
    more = torch.cat(
        [one["condition"], torch.full((1, 17), 7)], 1
    )  # anything at all behind its end
    with torch.no_grad():
        says = [
            model(tokens, select=free, condition=model.read(condition, one["condition_lengths"]))
            for condition in (one["condition"], more)
        ]
        bare = model(tokens, select=free, condition=model.read(more))
        three = model(
            tokens.expand(3, -1),
            select=free.expand(3, -1),
            condition=model.read(more, one["condition_lengths"]),
        )
    assert torch.allclose(*says, atol=1e-5) and not torch.allclose(says[0], bare, atol=1e-5)
    assert torch.allclose(
        three, says[0].repeat(3, 1), atol=1e-5
    )  # one condition serves several rows


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sampler", ["first_hitting", "confidence", "remask"])
def test_given_tokens_stay_and_blanks_hold_text(world, form, sampler):
    _, models, some = world
    model, tokenizer, _ = models[form]
    settings = SampleConfig(sampler=sampler, steps=6)
    filled = writer.fill(
        model,
        tokenizer,
        form,
        [emptied(pair, tokenizer.mask) for pair in some],
        settings,
        keep_frames=True,
    )
    for pair, one in zip(some, filled, strict=True):
        assert [len(blank) for blank in one.blanks] == [len(blank) for blank in pair.blanks]
        assert (
            one.ids
            == dataclasses.replace(pair, blanks=[np.array(blank) for blank in one.blanks])
            .whole()
            .tolist()
        )
        given = np.array(one.step) == 0
        assert (~given).sum() == sum(map(len, pair.blanks)) and all(
            id < tokenizer.eos for id in np.array(one.ids)[~given]
        )
        assert (
            all((np.array(frame)[given] == np.array(one.ids)[given]).all() for frame in one.frames)
            and one.frames[-1] == one.ids
        )
        assert all(0 < p <= 1 for p in one.probability)


@pytest.mark.parametrize("form", FORMS)
def test_four_together_are_four_alone(world, form):
    _, models, some = world
    model, tokenizer, _ = models[form]
    four, settings = (
        [emptied(pair, tokenizer.mask) for pair in some[:4]],
        SampleConfig(steps=8, temperature=0.9),
    )
    guidance = 1.0 if form == "ar" else 1.5
    together = writer.fill(model, tokenizer, form, four, settings, seed=5, guidance=guidance)
    alone = [
        writer.fill(model, tokenizer, form, [pair], settings, seed=5, first=row, guidance=guidance)[
            0
        ]
        for row, pair in enumerate(four)
    ]
    assert [one.ids for one in together] == [one.ids for one in alone]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "ar"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_guesses_change_no_likeliest_text(world, form, guidance):
    """--speculate reads neighbours of each pair: its condition, its length, its blind side."""
    _, models, some = world
    model, tokenizer, _ = models[form]
    four = [emptied(pair, tokenizer.mask) for pair in some[:4]]
    written = []
    for ahead in (0, 1, 3):
        settings = SampleConfig("confidence", 96, temperature=0.0, speculate=ahead)
        filled = writer.fill(model, tokenizer, form, four, settings, guidance=guidance)
        written.append([text.ids for text in filled])
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("form", FORMS)
def test_the_figures_of_one_token(world, form):
    """One blank of one token: the bound is that token's -log p, in any number of draws; the twin's is it and its [EOS]'s."""
    _, models, some = world
    model, tokenizer, _ = models[form]
    whole = some[0].whole()
    pair = Pair([whole[:4], whole[5:]], [whole[4:5]])
    row = arrange(pair, form, tokenizer)
    tokens, free = torch.from_numpy(row.ids)[None], torch.from_numpy(row.free)[None]
    with torch.no_grad():
        if form == "ar":
            logits = model(tokens[:, :-1])[0][free[0, 1:]]
        else:
            condition = (
                model.read(torch.from_numpy(row.condition)[None]) if form == "cross" else None
            )
            logits = model(tokens.masked_fill(free, tokenizer.mask), condition=condition)[0][
                free[0]
            ]
        want = -logits.double().log_softmax(-1).gather(1, tokens[free][:, None]).sum().item()
        assert writer.nats(model, tokenizer, form, pair, draws=3) == pytest.approx(want, rel=1e-4)


def test_without_a_condition(world):
    """`cross` without one is the plain model; `context` without one sees a row of masks: neither knows the prompt."""
    _, models, some = world
    pair = next(one for one in some if one.kind == "continue")
    other = dataclasses.replace(
        pair, given=[np.array([pair.given[0][0], *reversed(pair.given[0][1:])]), pair.given[1]]
    )
    for form in ("context", "cross"):
        model, tokenizer, _ = models[form]
        blind = [writer.nats(model, tokenizer, form, one, blind=True) for one in (pair, other)]
        assert blind[0] == pytest.approx(blind[1], rel=1e-6)
        assert writer.nats(model, tokenizer, form, pair) != writer.nats(
            model, tokenizer, form, other
        )
        written = []
        for prompted in (pair, other):
            empty = [emptied(prompted, tokenizer.mask)]
            (filled,) = writer.fill(model, tokenizer, form, empty, SampleConfig(), guidance=0.0)
            written.append(filled.blanks)
        assert written[0] == written[1]


@pytest.mark.parametrize("form", FORMS)
def test_free_blanks_find_a_length_that_fits(world, form):
    _, models, _ = world
    model, tokenizer, saved = models[form]
    histograms = saved["statistics"]["blank_lengths"]
    template = blanks.read_template(
        "Ann had a [MASK*] and a [MASK*2] and [MASK*] was sad.", tokenizer
    )
    left = blanks.room(template, form, tokenizer, 96)
    write = lambda rerank, number: writer.fill_template(
        model,
        tokenizer,
        form,
        template,
        histograms,
        SampleConfig(steps=4),
        number,
        rerank=rerank,
        seed=1,
    )
    many = write(1, 6)
    assert all(
        len(one.blanks[0]) + len(one.blanks[2]) <= left
        and len(one.blanks[1]) == 2
        and len(one.ids) <= 96
        for one in many
    )
    if form != "ar":
        assert (
            all(map(len, many[0].blanks)) and len({tuple(map(len, one.blanks)) for one in many}) > 1
        )
        best = write(3, 2)
        assert [one.nats for one in best] == [
            min(one.nats for one in many[first : first + 3]) for first in (0, 3)
        ]
    long = blanks.read_prompt("Ann had a cat. " * 40, None, tokenizer)
    with pytest.raises(UserError, match="at most 96 together"):
        blanks.room(long, form, tokenizer, 96)
