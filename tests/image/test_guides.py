"""Guidance by hidden words: closed forms on a small law, and where it is refused."""

import pytest
import torch

from base.config import SampleConfig
from base.files import UserError
from image import guides, writer
from image.guides import Guidance
from image.hidden_words import LOOKS
from image.rows import Pairs
from image.studio import Brush, Studio
from tests.making.painted import make_painter, make_pictures

MASK = 99
FEW = SampleConfig(**writer.PICTURES | {"steps": 3})


class Law:
    """p(token) of five tokens, and what each token says of three looks, independently.

    A reader of rows whose looks are ROWS, some of them hidden: p(token | looks in sight).
    """

    def __init__(self, hidden=()):
        rng = torch.Generator().manual_seed(0)
        self.hidden = hidden
        self.prior = torch.rand(5, generator=rng, dtype=torch.float64) + 0.1
        self.looks = torch.rand(3, 4, 5, generator=rng, dtype=torch.float64) + 0.1
        self.looks /= self.looks.sum(1, keepdim=True)  # p(look | token)
        self.begun = 0

    def begin(self, picture, left):
        self.begun += 1

    def __call__(self, tokens, share, select):
        result = []
        for row in ROWS:
            p = self.prior.clone()
            for kind, look in enumerate(row):
                if LOOKS[kind] not in self.hidden:
                    p *= self.looks[kind, look]
            p[4] = 0.0  # can never be written
            result.append((p / p.sum()).log())
        return torch.stack(result)


ROWS = ((0, 1, 2), (3, 3, 0))
CALL = (torch.tensor([[MASK]] * 2), torch.ones(2), torch.ones(2, 1, dtype=torch.bool))


def guided(parts) -> torch.Tensor:
    """The mixture of `Law` on ROWS."""
    return guides.Mixture([(count, Law(hidden)) for count, hidden in parts])(*CALL)


def test_independent_looks_compose_to_the_law_of_all_of_them():
    """Bayes: p(token | looks) is proportional to the product of p(token | look) / p(token)."""
    whole = Law()(*CALL)
    torch.testing.assert_close(guided(guides.composed(1.0)), whole)
    assert not torch.allclose(guided([(1.0, LOOKS)]).exp(), whole.exp(), atol=0.05)


def test_sharpening_is_a_power_of_what_the_looks_say():
    whole, nothing = Law()(*CALL), guided([(1.0, LOOKS)])
    torch.testing.assert_close(guided(guides.sharpened(1.0)), whole)
    expected = (nothing + 2.5 * (whole - nothing).nan_to_num(neginf=0.0)).log_softmax(-1)
    torch.testing.assert_close(guided(guides.sharpened(2.5)), expected)
    torch.testing.assert_close(guided(guides.composed(2.5)), expected)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_counts_add_up_to_one_and_nothing_forbidden_is_written(scale):
    for parts in (guides.sharpened(scale), guides.composed(scale)):
        assert sum(count for count, _ in parts) == pytest.approx(1.0)
        law = guided(parts)
        assert (law[:, 4] == -torch.inf).all()
        torch.testing.assert_close(law.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_all_parts_begin_a_block():
    laws = [Law(), Law(LOOKS)]
    guides.Mixture([(2.0, laws[0]), (-1.0, laws[1])]).begin(torch.zeros(2, 9), 3)
    assert [law.begun for law in laws] == [1, 1]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("guides"), planned=2), "val")


def studio_of(pairs, share_hidden: float, objective: str = "diffusion") -> Studio:
    lines = pairs.vocabulary.plan_lines()
    settings = {"plan_lines": lines, "plan_reach": 2, "max_length": 90}
    model = make_painter(pairs.vocabulary, objective == "ar", **settings)
    saved = {"objective": objective, "flags": {"share_hidden": share_hidden}}
    return Studio(model, pairs.vocabulary, saved, codes=None)


def test_a_studio_sharpens_and_composes(pairs):
    """Each kind of guidance paints another picture; a row alone is a row in a batch."""
    studio, words = studio_of(pairs, 0.3), [captions[0] for captions in pairs.captions]
    guides = [Guidance(1.0), Guidance(1.0, sharpen=4.0), Guidance(1.0, compose=True)]
    brushes = [Brush(FEW, guidance) for guidance in guides]
    drawn = [studio.draw(words, brush) for brush in brushes]
    for number, brush in enumerate(brushes):
        alone = studio.draw(words[2:3], brush, first=2)
        assert torch.equal(alone.tokens[0], drawn[number].tokens[2])
        assert not torch.equal(drawn[number].tokens, drawn[number - 1].tokens)


@pytest.mark.parametrize(("share", "objective"), [(0.0, "diffusion"), (0.3, "ar")])
@pytest.mark.parametrize("how", [{"sharpen": 2.0}, {"compose": True}])
def test_a_network_that_met_no_hidden_words_is_refused(pairs, share, objective, how):
    studio = studio_of(pairs, share, objective)
    with pytest.raises(UserError, match="--share_hidden"):
        studio.draw([pairs.captions[0][0]], Brush(FEW, Guidance(**how)))
