"""Whole samples: given tokens stay, a row does not depend on its neighbours, frames end in the text."""

import pytest
import torch

from base.config import ModelConfig, SampleConfig
from base.files import UserError
from base.templates import blank_rows, template_row
from base.tokenizer import Tokenizer
from model import Denoiser
from text import stories


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a red hen. The hen saw a red cat."] * 20, 280)


@pytest.fixture(scope="module")
def models(tokenizer):
    """An untrained network of each objective: what is shown here does not need a good text."""
    torch.manual_seed(0)
    size = {"vocab_size": tokenizer.vocab_size, "output_size": tokenizer.output_size}
    shape = {"d_model": 16, "heads": 2, "layers": 1, "max_length": 32}
    plain = ModelConfig(**size, **shape)
    causal = ModelConfig(**size, **shape, causal=True)
    return {"diffusion": Denoiser(plain).eval(), "ar": Denoiser(causal).eval()}


def rows_of(tokenizer, *lengths) -> list[list[int]]:
    return [blank_rows([length], tokenizer)[0].tolist() for length in lengths]


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_a_row_does_not_depend_on_its_neighbours(models, tokenizer, objective):
    lengths = (9, 9, 9) if objective == "ar" else (5, 9, 12)
    rows, settings = rows_of(tokenizer, *lengths), SampleConfig(steps=6)
    write = lambda rows, first: stories.write(
        models[objective], tokenizer, objective, rows, settings, seed=3, first=first
    )
    together = write(rows, 0)
    for number, row in enumerate(rows):
        assert write([row], number)[0].ids == together[number].ids


@pytest.mark.parametrize("objective", ["diffusion", "ar"])
def test_a_sample_says_how_it_was_written(models, tokenizer, objective):
    row = template_row("Ann had [MASK*5]", tokenizer, 32)
    (drawn,) = stories.write(
        models[objective], tokenizer, objective, [row], SampleConfig(), keep_frames=True
    )
    assert tokenizer.mask not in drawn.ids and drawn.frames[-1] == drawn.ids
    assert len(drawn.ids) == len(drawn.step) == len(drawn.probability)
    assert max(drawn.step) == drawn.calls == len(drawn.frames)
    for id, given, step, probability in zip(
        drawn.ids, row, drawn.step, drawn.probability, strict=False
    ):
        if step == 0:
            assert id == given and probability == 1
        else:
            assert given in (tokenizer.mask, tokenizer.eos) and 0 < probability <= 1


def test_the_twin_writes_at_the_end_only(models, tokenizer):
    row = template_row("a [MASK] b", tokenizer, 32)
    with pytest.raises(UserError, match="blanks at the end only"):
        stories.write(models["ar"], tokenizer, "ar", [row], SampleConfig())
