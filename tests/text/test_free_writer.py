"""Free blanks that grow: given tokens stay, the trace is that of the text, and what is refused."""

import dataclasses

import numpy as np
import pytest

from base.config import SampleConfig
from base.files import UserError
from loop.checkpoint import open_model
from text import blanks, free_writer, writer
from text.free_writer import FreeLengths


@pytest.fixture(scope="module")
def opened(free_run):
    """A model of --free_lengths whose edits are likely, its tokenizer, and the rest."""
    model, tokenizer, saved = open_model(free_run)
    plain = model.labels

    def eager(places, select):
        logits = plain(places, select)
        logits[:, -2:] += 5  # so few steps of training make edits rare
        return logits

    model.labels = eager
    return model, tokenizer, saved


def fill(opened, settings, rerank=1, options=None, **more):
    model, tokenizer, saved = opened
    options = options or FreeLengths(edit_lengths=True)
    template = blanks.read_template("Ann had a [MASK*] and [MASK*2] was [MASK*].", tokenizer)
    histograms = options.starts(saved["statistics"]["blank_lengths"], template, tokenizer, 96)
    return template, writer.fill_template(
        model,
        tokenizer,
        "context",
        template,
        histograms,
        settings,
        6,
        rerank=rerank,
        seed=1,
        keep_frames=True,
        write=free_writer.fill,
        **more,
    )


def test_a_template_is_filled(opened):
    """The known blank keeps its length, the given text stays, the trace belongs to the text."""
    tokenizer = opened[1]
    template, texts = fill(opened, SampleConfig(steps=40))
    assert sum(text.edits["expansions"] + text.edits["cut"] for text in texts) > 3
    for text in texts:
        whole = [template.given[0]]
        for blank, given in zip(text.blanks, template.given[1:], strict=True):
            whole += [blank, given]
        assert np.concatenate(whole).tolist() == text.ids and len(text.ids) <= 96
        assert len(text.blanks[1]) == 2 and all(text.blanks)
        assert len(text.ids) == len(text.step) == len(text.probability)
        assert sum(step > 0 for step in text.step) == sum(map(len, text.blanks))
        assert text.calls == max(text.step) <= 40 and len(text.frames) == text.calls
        assert text.frames[-1] == text.ids and all(0 < p <= 1 for p in text.probability)
        grown = sum(map(len, text.blanks)) - sum(text.edits["canvas"])
        assert grown == text.edits["expansions"] - text.edits["cut"]
        record = text.record(tokenizer, "blanks")
        assert record["canvas"] == text.edits["canvas"] and record["nats_per_token"] > 0
        assert tokenizer.eos not in text.ids[:-1] and tokenizer.mask not in text.ids


def test_the_batch_changes_no_text_and_the_best_is_kept(opened):
    settings = SampleConfig(steps=40)
    _, many = fill(opened, settings, batch_size=16)
    _, alone = fill(opened, settings, batch_size=1)
    assert [text.ids for text in many] == [text.ids for text in alone]
    _, best = fill(opened, settings, rerank=2)
    assert best[0].nats <= many[0].nats


def test_a_canvas_is_where_they_begin(opened):
    options = FreeLengths(edit_lengths=True, canvas=3)
    _, texts = fill(opened, SampleConfig(steps=40), options=options)
    assert all(text.edits["canvas"] == [3, 2, 3] for text in texts)
    with pytest.raises(UserError, match="--canvas 60; expected at most"):
        fill(opened, SampleConfig(), options=FreeLengths(edit_lengths=True, canvas=60))


def test_refusals(opened, conditional_world):
    model, settings = opened[0], SampleConfig()
    options = FreeLengths(edit_lengths=True)
    options.check(model, settings, ["sampler", "steps", "temperature", "top_p"], {"html": False})
    FreeLengths().check(None, settings, ["revise"], {"html": True})  # not asked for, not looked at
    cases = [
        ({}, ["revise"], {}, "--revise with --edit_lengths"),
        ({}, [], {"html": True}, "--html with --edit_lengths"),
        ({}, [], {"guidance": True}, "--guidance with --edit_lengths"),
        ({"sampler": "threshold"}, ["sampler"], {}, "--sampler threshold with --edit_lengths"),
    ]
    for changes, given, refused, message in cases:
        with pytest.raises(UserError, match=message):
            options.check(model, dataclasses.replace(settings, **changes), given, refused)
    for form in ("context", "cross", "ar"):
        plain, _, _ = open_model(conditional_world / form / "best.pt")
        with pytest.raises(UserError, match="not trained to edit"):
            options.check(plain, settings, [], {})
    with pytest.raises(UserError, match="--canvas 3 without --edit_lengths"):
        FreeLengths(canvas=3)
