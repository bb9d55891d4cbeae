"""Painting and saying: given tokens stay, a row alone is a row in a batch, the twin's guidance, what an edit touches."""

from dataclasses import replace

import pytest
import torch

from base.config import CAPTIONS, SampleConfig
from base.files import UserError
from image import writer
from image.guides import Guidance
from image.rows import Pairs
from tests.making.painted import CODES, make_painter, make_pictures

FEW = SampleConfig(**writer.PICTURES | {"steps": 4})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("writer")), "val")


def prompts_of(pairs):
    return [captions[0] for captions in pairs.captions]


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_row_alone_is_a_row_in_a_batch(pairs, objective, guidance):
    model = make_painter(pairs.vocabulary, objective == "ar")
    how = {"guidance": Guidance(guidance), "seed": 3}
    together = writer.paint(model, pairs.vocabulary, objective, prompts_of(pairs), FEW, **how)
    assert together.tokens.shape == (4, 9) and together.tokens.min() >= 0
    assert together.tokens.max() < CODES and (together.step > 0).all()
    for row, prompt in enumerate(prompts_of(pairs)):
        alone = writer.paint(model, pairs.vocabulary, objective, [prompt], FEW, first=row, **how)
        assert torch.equal(alone.tokens[0], together.tokens[row])


def test_guidance_of_1_is_none_and_more_is_another_picture(pairs):
    for causal in (False, True):
        model = make_painter(pairs.vocabulary, causal)
        objective = "ar" if causal else "diffusion"
        drawn = [
            writer.paint(
                model, pairs.vocabulary, objective, prompts_of(pairs), FEW, guidance=Guidance(scale)
            ).tokens
            for scale in (1.0, 1.0 + 1e-6, 3.0)
        ]
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_picture_in_blocks(pairs, guidance):
    """Rows of three tokens, from the top; alone as in a batch; as a whole where it is repainted."""
    model = make_painter(pairs.vocabulary, block_sizes="1,3,9", logit_shift=True)
    how = {"guidance": Guidance(guidance), "seed": 3}

    def painted(size, calls, prompts, **more):
        settings = replace(FEW, steps=calls, block_size=size)
        return writer.paint(model, pairs.vocabulary, "diffusion", prompts, settings, **how | more)

    prompts = prompts_of(pairs)
    drawn = painted(3, 6, prompts)
    assert drawn.calls.tolist() == [6] * 4
    rows = drawn.step.view(4, 3, 3)
    assert (rows.amin(2) == torch.tensor([1, 3, 5])).all()
    assert (rows.amax(2) == torch.tensor([2, 4, 6])).all()
    for row, prompt in enumerate(prompts):
        assert torch.equal(painted(3, 6, [prompt], first=row).tokens[0], drawn.tokens[row])
    assert torch.equal(painted(0, 16, prompts).step, torch.arange(1, 10).expand(4, -1))
    start = pairs.pictures.clone()
    start[:, 4:7] = pairs.vocabulary.mask
    again = painted(0, 1, prompts, start=start)  # as a whole
    assert again.calls.tolist() == [1] * 4
    narrow = make_painter(pairs.vocabulary, block_sizes="3", logit_shift=True)
    more = {"start": start, "guidance": Guidance(guidance)}
    rows = writer.paint(narrow, pairs.vocabulary, "diffusion", prompts, FEW, **more)
    assert (rows.calls >= 2).all()  # two of the rows have masked places
    for repainted in (again, rows):
        assert torch.equal(repainted.tokens[:, :4], pairs.pictures[:, :4])
        assert torch.equal(repainted.tokens[:, 7:], pairs.pictures[:, 7:])
        assert (repainted.probability[:, :4] == 1).all() and (repainted.step[:, 4:7] > 0).all()
    with pytest.raises(UserError, match="--block_size 2"):
        painted(2, 4, prompts)


@pytest.mark.parametrize("spread", [True, False])
def test_given_tokens_never_change(pairs, spread):
    model = make_painter(pairs.vocabulary)
    start = pairs.pictures.clone()
    start[:, 4] = pairs.vocabulary.mask
    painted = writer.paint(
        model, pairs.vocabulary, "diffusion", prompts_of(pairs), FEW, start=start, spread=spread
    )
    kept = torch.ones(9, dtype=torch.bool)
    kept[4] = False
    assert torch.equal(painted.tokens[:, kept], pairs.pictures[:, kept])
    assert (painted.step[:, kept] == 0).all() and (painted.step[:, 4] == 1).all()
    with pytest.raises(UserError, match="repaint"):
        writer.paint(model, pairs.vocabulary, "ar", prompts_of(pairs), FEW, start=start)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_captions(pairs, guidance):
    """The likeliest length wins, and a picture alone gets what it gets in a batch."""
    model, histogram = make_painter(pairs.vocabulary), pairs.histogram()
    greedy = SampleConfig(**CAPTIONS | {"steps": 4})
    how = {"settings": greedy, "lengths": 3, "draws": 2, "guidance": guidance}
    said = writer.describe(model, pairs.vocabulary, pairs.pictures, histogram, **how)
    alone = writer.describe(model, pairs.vocabulary, pairs.pictures[2:3], histogram, **how)
    assert alone[0].text == said[2].text and len(said) == 4
    for size in writer.likely_lengths(histogram, 3):
        only = [0] * size + [1]
        single = writer.describe(model, pairs.vocabulary, pairs.pictures[:1], only, **how)
        assert single[0].words == size


def test_likely_lengths():
    assert writer.likely_lengths([0, 0, 9, 10, 10], 2) == [3, 4]
    assert writer.likely_lengths([0, 0, 0, 0, 5], 8) == [4]


def test_a_prompt_too_long(pairs):
    model = make_painter(pairs.vocabulary)
    assert writer.check_prompt(model, pairs.vocabulary, "a red star")[0] == pairs.vocabulary.bos
    for text in ("", "star " * 99):
        with pytest.raises(UserError, match="a prompt of"):
            writer.check_prompt(model, pairs.vocabulary, text)
