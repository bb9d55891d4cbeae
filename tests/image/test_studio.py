"""Edits: other tokens and pixels stay, boxes and changes are read or refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from base.config import SampleConfig
from base.files import UserError
from image import studio, writer
from image.studio import Brush, Finding

BRUSH = Brush(SampleConfig(**writer.PICTURES | {"steps": 3}))
OLD, NEW = "a red star above a blue circle", "a green star above a blue circle"


@pytest.fixture(scope="module")
def opened(painted):
    return studio.open_studio(painted.painter, str(painted.data), "cpu")


def test_untouched_tokens_and_pixels_are_identical(opened):
    original = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8))
    tokens = opened.tokens(np.asarray(original.resize((24, 24)))[None])[0]
    words = opened.wordings(tokens, OLD, NEW, None, seed=0)
    where = opened.fallen(tokens, words, Finding(top_share=0.2, grow=0), seed=0)
    assert 0 < where.sum() < 9
    drawing = opened.edit(tokens, where, words.new, BRUSH, first=0)
    assert torch.equal(drawing.tokens[0][~where], tokens[~where])
    assert torch.equal(drawing.step[0] > 0, where)
    after = studio.paste(original, opened.pixels(drawing.tokens)[0], where, 3)
    kept = ~np.kron(where.view(3, 3).numpy(), np.ones((16, 16), bool))
    changed = np.asarray(after) != np.asarray(original)
    assert not changed[kept].any() and changed[~kept].any()


def test_places_of_a_box():
    assert studio.places_of((0, 0, 1, 1), 3).all()
    corner = studio.places_of((0.5, 0, 1, 0.3), 4).view(4, 4)
    assert corner[:2, 2:].all() and corner.sum() == 4
    assert studio.places_of((0.1, 0.1, 0.11, 0.11), 3).nonzero().tolist() == [[0]]


@pytest.mark.parametrize(
    "text", ["0,0,2,1", "-0.1,0,1,1", "0.5,0,0.5,1", "0,0,1", "a,b,c,d", "nan,0,1,1", "0,0,inf,1"]
)
def test_a_box_outside_of_the_picture(text):
    with pytest.raises(UserError, match="as shares of the side"):
        studio.read_box(text)


def test_changes_are_read_or_refused():
    assert studio.read_change(OLD, "the star is green").new == NEW
    for caption, change in ((OLD, "paint it green"), ("words", "the star is green")):
        with pytest.raises(UserError, match="write it in this grammar"):
            studio.read_change(caption, change)
    with pytest.raises(UserError, match="names once"):
        studio.read_change(OLD, "the heart is green")


def test_who_writes_no_captions(painted):
    twin = studio.open_studio(painted.twin, str(painted.data), "cpu")
    with pytest.raises(UserError, match="writes none"):
        twin.describe(torch.zeros(1, 9, dtype=torch.long))


def test_who_paints_nothing(opened):
    saved = opened.saved | {"flags": {"directions": "to_words"}}
    writes = studio.Studio(opened.model, opened.vocabulary, saved, opened.codes)
    with pytest.raises(UserError, match="only writes words"):
        writes.paint([OLD], BRUSH)
