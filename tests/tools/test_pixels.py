"""Training images of the encoder: what is known of a patch, and what a change of the image keeps."""

import numpy as np
import pytest
import torch

from tools import pixels
from worlds import scenes


def test_every_object_weighs_the_same():
    """A small one inside a large one owns its patches, and counts as much; background patches count 0.2 each."""
    shape = {
        "shape": "circle",
        "colour": "red",
        "size": "large",
        "fill": "solid",
        "x": 0.5,
        "y": 0.5,
        "radius": 0.22,
    }
    inner = {
        **shape,
        "shape": "star",
        "colour": "blue",
        "size": "small",
        "radius": 0.08,
        "x": 0.56,
        "y": 0.56,
    }
    classes, weights = pixels.patch_classes({"objects": [shape, inner]}, 8)
    blue = classes[:, 2] == scenes.CLASSES["colour"].index("blue")
    red = classes[:, 2] == scenes.CLASSES["colour"].index("red")
    assert 1 <= blue.sum() < red.sum() and blue[4 * 8 + 4] and classes[0].tolist() == [-1] * 4
    assert (
        weights[blue].sum() == pytest.approx(5)
        and weights[red].sum() == pytest.approx(5)
        and (weights[classes[:, 0] < 0] == np.float32(0.2)).all()
    )


def test_recolouring_keeps_the_shapes():
    """The channels come back in another order, or inverted, or both; over some draws something always changes."""
    picture = torch.randint(
        0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    rng, before, changed = torch.Generator().manual_seed(1), picture.sort(-1).values, 0
    for _ in range(8):
        other = pixels.recolour(picture, rng)
        assert torch.equal(other.sort(-1).values, before) or torch.equal(
            (255 - other).sort(-1).values, before
        )
        changed += not torch.equal(other, picture)
    assert changed >= 4


def test_what_is_known_of_a_patch_turns_with_it():
    """Each patch's pixels say which patch it is: eight symmetries, all of them met, and every patch still named rightly."""
    names = torch.arange(16).view(1, 4, 4)
    picture = (
        names.repeat_interleave(16, 1).repeat_interleave(16, 2)[..., None].expand(-1, -1, -1, 3)
    )
    rng, seen = torch.Generator().manual_seed(0), set()
    for _ in range(80):
        turned, known = pixels.turn(rng, picture, names)
        assert torch.equal(turned[:, 8::16, 8::16, 0], known)
        seen.add(tuple(known.flatten().tolist()))
    assert len(seen) == 8
