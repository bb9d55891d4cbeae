"""The painter: vocabularies apart, padding unseen, three chains that sum to 1, places far apart early."""

import itertools

import pytest
import torch

from base.config import ModelConfig
from base.files import UserError
from image.rows import Vocabulary
from net import painter, samplers, soft_masks
from net.painter import levels_of, spread_order
from net.picture_codes import Rounding
from tests.making.painted import make_painter


class TinyTokenizer:
    """Two words and the special tokens."""

    vocab_size, output_size = 7, 4
    eos, unk, pad, bos, mask = range(2, 7)


TINY = Vocabulary(TinyTokenizer(), codes=2)  # codes 0, 1; words 2, 3; eos 4, unk 5, pad, bos, mask


def tiny(causal: bool = False):
    return make_painter(TINY, causal, picture_side=2, max_length=8)


def test_each_place_has_its_own_vocabulary():
    tokens = torch.tensor([[TINY.bos, 2, TINY.eos, 0, 1, TINY.mask, 0]])
    words = torch.tensor([3])
    logits = tiny()(tokens, words=words)[0]
    assert logits.shape[1] == TINY.output_size  # no [PAD], [BOS] or [MASK] at all
    assert torch.isfinite(logits[3:, :2]).all() and (logits[3:, 2:] == -torch.inf).all()
    assert torch.isfinite(logits[:3, 2:]).all() and (logits[:3, :2] == -torch.inf).all()
    ahead = tiny(causal=True)(tokens, words=words)[0]  # the twin's logits are of the next place
    assert (ahead[2:, 2:] == -torch.inf).all() and (ahead[:2, :2] == -torch.inf).all()


def test_a_row_alone_is_a_row_in_a_batch():
    short, long = [TINY.bos, 2, TINY.eos, 0, 1, 1, 0], [TINY.bos, 2, 3, TINY.eos, 1, 0, 0, 1]
    batch = torch.tensor([[*short, TINY.pad], long])
    lengths, words = torch.tensor([7, 8]), torch.tensor([3, 4])
    for causal in (False, True):
        model = tiny(causal)
        together = model(batch, lengths=lengths, words=words)[0, :7]
        alone = model(torch.tensor([short]), words=words[:1])[0]
        assert torch.allclose(together, alone, atol=1e-5)


def test_a_place_is_seen():
    """The same tokens at other places are another picture, and rows differ from columns."""
    model, words = tiny(), torch.tensor([3])
    select = torch.zeros(1, 7, dtype=torch.bool)
    select[0, 1] = True
    seen = []
    for picture in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]):
        tokens = torch.tensor([[TINY.bos, TINY.mask, TINY.eos, *picture]])
        seen.append(model(tokens, words=words, select=select))
    for one, other in itertools.combinations(seen, 2):
        assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("free", [[1, 3, 4, 5, 6], [3, 4, 5, 6], [1]], ids=["both", "paint", "say"])
def test_a_chain_sums_to_one(free):
    """Every filling of the free places, by the likelihood of one order: their sum is 1."""
    choices = [range(2, 6) if place < 3 else range(2) for place in free]
    rows = torch.tensor([[TINY.bos, 2, TINY.eos, 0, 1, 1, 0]]).repeat(
        4 ** (1 in free) * 2 ** sum(p > 2 for p in free), 1
    )
    rows[:, free] = torch.tensor(list(itertools.product(*choices)))
    start = rows.clone()
    start[:, free] = TINY.mask
    denoise = tiny().bind_rows(None, torch.full((len(rows),), 3))
    drawn = samplers.sample(
        denoise,
        start,
        samplers.SampleConfig(sampler="left_to_right", steps=len(free)),
        mask_id=TINY.mask,
        rngs=samplers.row_generators(0, len(rows)),
        target=rows,
    )
    total = drawn.log_prob[:, free].double().sum(1).exp().sum()
    assert abs(total.item() - 1) < 1e-4


def test_spread_order():
    turn = spread_order(12)
    assert sorted(turn.tolist()) == list(range(144))
    first = turn.argsort()[:8]
    places = torch.stack([first // 12, first % 12], 1).double()
    apart = torch.cdist(places, places) + 99 * torch.eye(8)
    assert apart.min() > 2  # eight places in raster order would be neighbours


def test_the_turn_decides_the_order():
    row = torch.full((1, 9), 9)
    turn = torch.tensor([[4, 3, 0, 8, 7, 1, 2, 6, 5]])
    drawn = samplers.sample(
        lambda tokens, share, select: torch.zeros(int(select.sum()), 9),
        row,
        samplers.SampleConfig(sampler="left_to_right", steps=9),
        mask_id=9,
        rngs=samplers.row_generators(0, 1),
        turn=turn,
    )
    assert torch.equal(drawn.step, turn + 1)


def test_the_checkpoint_decides():
    config = make_painter(TINY, picture_side=2).config
    assert isinstance(soft_masks.build(config), painter.Painter)
    with pytest.raises(UserError, match="room for words"):
        ModelConfig(max_length=9, picture_side=3, picture_codes=5)


def test_a_code_is_its_levels():
    """`levels_of` lists the same levels as the picture codes' rounding."""
    sizes = [3, 4, 2]
    rounding = Rounding(sizes)
    digits = (rounding.values(torch.arange(24)) * rounding.scale).long() + rounding.scale
    parts = [torch.nn.functional.one_hot(digits[:, i], size) for i, size in enumerate(sizes)]
    assert torch.equal(levels_of(sizes), torch.cat(parts, 1).float())


@pytest.mark.parametrize("causal", [False, True])
def test_levels_fold_into_the_codes_vectors(causal):
    """Folded, a painter says the same, and has no more work than without levels."""
    vocabulary = Vocabulary(TinyTokenizer(), codes=16)
    model = make_painter(vocabulary, causal, picture_side=2, max_length=8, picture_levels="4,4")
    tokens = torch.tensor([[vocabulary.bos, 16, vocabulary.eos, 3, 9, vocabulary.mask, 15]])
    words = torch.tensor([3])
    before = model(tokens, words=words)
    assert not torch.equal(model.vectors(), model.embedding.weight)
    model.fold()
    assert model.level_vectors is None
    assert torch.equal(model(tokens, words=words), before)


@pytest.mark.parametrize("levels", ["4,5", "1,16", "17", "x", "4,,4"])
def test_levels_that_are_not_of_the_codes_are_refused(levels):
    with pytest.raises(UserError):
        make_painter(Vocabulary(TinyTokenizer(), codes=16), picture_side=2, picture_levels=levels)


def test_a_shifted_painter_predicts_from_the_position_before():
    shifted = make_painter(TINY, picture_side=2, max_length=8, logit_shift=True)
    plain = make_painter(TINY, picture_side=2, max_length=8)
    tokens = torch.tensor([[TINY.bos, 2, TINY.eos, 0, 1, TINY.mask, 0]])
    words = torch.tensor([3])
    inputs = shifted.inputs_of(tokens, shifted.places(7, words), shifted.vectors())
    inside = shifted.trunk(tokens, None, None, None, None, None, inputs)
    logits = shifted(tokens, words=words)
    for position in (3, 5):
        expected = inside[0, position - 1] @ shifted.embedding.weight[: TINY.codes].T
        assert torch.allclose(logits[0, position, : TINY.codes], expected, atol=1e-5)
    assert torch.equal(torch.isfinite(logits), torch.isfinite(plain(tokens, words=words)))
    select = tokens == TINY.mask
    assert torch.allclose(shifted(tokens, words=words, select=select), logits[select], atol=1e-5)


@pytest.mark.parametrize("lines", ["16,17,18", "16,17", "3,4,5,6", "16,17,18,99"])
def test_lines_that_name_no_words_are_refused(lines):
    vocabulary = Vocabulary(TinyTokenizer(), codes=16)
    with pytest.raises(UserError, match="plan_lines"):
        make_painter(vocabulary, picture_side=2, plan_lines=lines)
