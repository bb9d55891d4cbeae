"""Guidance: its formula on small laws, which words each part sees, and where it is refused."""

import pytest
import torch

from base.config import SampleConfig
from base.files import UserError
from image import guides, hidden_words, writer
from image.guides import Guidance
from image.rows import Pairs
from image.studio import Brush, Studio
from net.picture_readers import reader_of
from tests.making.painted import make_painter, make_pictures

MASK = 99
FEW = SampleConfig(**writer.PICTURES | {"steps": 3})


class Law:
    """A reader that knows a law of five tokens. The last token can never be written."""

    def __init__(self, seed: int):
        logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))
        logits[:, 4] = -torch.inf
        self.law, self.begun = logits.double().log_softmax(-1), 0

    def begin(self, picture, left):
        self.begun += 1

    def __call__(self, tokens, share, select):
        return self.law


CALL = (torch.tensor([[MASK]] * 2), torch.ones(2), torch.ones(2, 1, dtype=torch.bool))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("sharpen", [0.0, 1.0, 3.0])
def test_the_formula(guidance, sharpen):
    """N + guidance (H + sharpen (F - H) - N), and what is forbidden stays so."""
    counts = Guidance(guidance, sharpen).counts()
    assert sum(counts) == pytest.approx(1.0)
    laws = [Law(seed) for seed in range(3)]
    mixture = guides.Mixture(list(zip(counts, laws, strict=True)))
    mixture.begin(torch.zeros(2, 9), 3)
    assert [law.begun for law in laws] == [1, 1, 1]
    full, hidden, none = (law.law[:, :4] for law in laws)
    expected = (none + guidance * (hidden + sharpen * (full - hidden) - none)).log_softmax(-1)
    found = mixture(*CALL)
    torch.testing.assert_close(found[:, :4], expected)
    assert (found[:, 4] == -torch.inf).all()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("guides"), planned=2), "val")


def studio_of(pairs, share_hidden: float, objective: str = "diffusion") -> Studio:
    lines = pairs.vocabulary.plan_lines()
    settings = {"plan_lines": lines, "plan_reach": 2, "max_length": 90}
    model = make_painter(pairs.vocabulary, objective == "ar", **settings)
    saved = {"objective": objective, "flags": {"share_hidden": share_hidden}}
    return Studio(model, pairs.vocabulary, saved, codes=None)


@torch.no_grad()
def test_readers_see_the_words_that_they_should(pairs):
    """F sees all words, H none of the attributes, N none at all; what counts nothing is not read."""
    opened = studio_of(pairs, 0.3)
    model, vocabulary = opened.model, opened.vocabulary
    words = [captions[0] for captions in pairs.captions[:2]]
    hidden = [hidden_words.of_row(row, vocabulary.plan, vocabulary.mask) for row in words]
    picture = torch.full((2, 9), vocabulary.mask)
    call = (picture, torch.ones(2), torch.ones(2, 9, dtype=torch.bool))

    def said(rows):
        return reader_of(model, rows, vocabulary.pad, 0)(*call).log_softmax(-1)

    codes = slice(0, model.codes)
    full, less, none = (said(rows)[:, codes] for rows in (words, hidden, [[vocabulary.bos]] * 2))
    for guidance, sharpen in ((1.0, 1.0), (2.0, 1.0), (1.0, 3.0), (2.0, 3.0), (1.0, 0.0)):
        reader = writer.reader_of(model, vocabulary, words, Guidance(guidance, sharpen), 0)
        expected = none + guidance * (less + sharpen * (full - less) - none)
        found = reader(*call).log_softmax(-1)[:, codes]
        torch.testing.assert_close(found, expected.log_softmax(-1), atol=1e-5, rtol=1e-5)
        read = len(reader.parts) if isinstance(reader, guides.Mixture) else 1
        assert read == sum(count != 0 for count in Guidance(guidance, sharpen).counts())


def test_a_studio_sharpens(pairs):
    """Another picture than without; a row alone is a row in a batch."""
    opened, words = studio_of(pairs, 0.3), [captions[0] for captions in pairs.captions]
    brushes = [Brush(FEW, Guidance(1.0, sharpen)) for sharpen in (1.0, 4.0)]
    drawn = [opened.draw(words, brush) for brush in brushes]
    assert not torch.equal(drawn[0].tokens, drawn[1].tokens)
    alone = opened.draw(words[2:3], brushes[1], first=2)
    assert torch.equal(alone.tokens[0], drawn[1].tokens[2])


@pytest.mark.parametrize(("share", "objective"), [(0.0, "diffusion"), (0.3, "ar")])
def test_a_network_that_met_no_hidden_words_is_refused(pairs, share, objective):
    opened = studio_of(pairs, share, objective)
    with pytest.raises(UserError, match="--share_hidden"):
        opened.draw([pairs.captions[0][0]], Brush(FEW, Guidance(sharpen=2.0)))
