"""Plans and places: words get the vectors of their place, places are told of the nearest objects."""

import torch

from image.rows import Vocabulary
from loop import starts
from net.plan_places import NEAREST, Objects
from tests.making.painted import make_painter

LINES = "16,17,18,19,20,21"  # ids 16 to 18 name columns 0 to 2, and 19 to 21 rows 0 to 2
REACH = 2
# Two objects: column 1 and row 1, then column 2 and row 0. 22 is any other word.
TWO = [17, 20, 22, 22, 22, 22, 18, 19, 22, 22, 22, 22]


class SevenWords:
    """Six words for lines, a word for all else, and the special tokens."""

    vocab_size, output_size = 12, 9
    eos, unk, pad, bos, mask = range(7, 12)


SEVEN = Vocabulary(SevenWords(), codes=16)
WORDS = [SEVEN.bos, 22, *TWO, 22]


def painter(reach: int = REACH, **sizes):
    """A painter of a grid of 4 by 4 places. Line 1 is the middle, line 2 the last place."""
    return make_painter(SEVEN, picture_side=4, plan_lines=LINES, plan_reach=reach, **sizes)


def objects_of(model, words: list[int]) -> Objects:
    found = model.objects_of(torch.tensor([words]))
    assert found is not None
    return found


def test_the_words_of_an_object_stand_at_its_place():
    model = painter(reach=0)
    stands = model.plan.stand(objects_of(model, WORDS), model.row.weight, model.column.weight)[0]
    expected = torch.zeros_like(stands)
    expected[3:8] = model.column.weight[2] + model.row.weight[2]
    expected[9:14] = model.column.weight[3] + model.row.weight[0]
    assert torch.equal(stands, expected)
    # A column alone, or a row alone, is no place yet: the other word is masked.
    for hidden in (2, 3):
        masked = list(WORDS)
        masked[hidden] = SEVEN.mask
        objects = objects_of(model, masked)
        assert objects.known.nonzero().tolist() == [[0, 9]]
        assert not model.plan.stand(objects, model.row.weight, model.column.weight)[0, :8].any()


def told_by_hand(model, things: list[tuple[int, int, torch.Tensor]], row: int, column: int):
    """What one place is told. things: row, column and words of each object, in the plan's order."""
    near = []
    for number, (its_row, its_column, words) in enumerate(things):
        down, across = row - its_row, column - its_column
        if max(abs(down), abs(across)) <= REACH:
            near.append((down**2 + across**2, number, down, across, words))
    total = torch.zeros(model.config.d_model)
    for rank, (_, _, down, across, words) in enumerate(sorted(near, key=lambda each: each[:2])):
        if rank == NEAREST:
            break
        offset = (down + REACH) * (2 * REACH + 1) + across + REACH
        table = model.plan.offset.weight.view(NEAREST, -1, model.config.d_model)
        total = total + model.plan.told[rank](words) + table[rank, offset]
    return total


def test_a_place_is_told_the_two_nearest_objects():
    """By hand, for three objects: places near none, near one, equally near two, near three."""
    model = painter()
    vector = torch.randn(3, model.config.d_model, generator=torch.Generator().manual_seed(1))
    things = [(3, 2, vector[0]), (0, 3, vector[1]), (0, 0, vector[2])]
    known = torch.tensor([[False, True, True, False, True]])
    row, column = torch.tensor([[0, 3, 0, 0, 0]]), torch.tensor([[0, 2, 3, 0, 0]])
    words = torch.zeros(1, 5, model.config.d_model)
    words[0, [1, 2, 4]] = vector
    places = torch.arange(-2, 18)[None]
    told = model.plan.tell(Objects(known, row, column, words), places)[0]
    assert not told[:2].any() and not told[-2:].any()
    for place in range(16):
        expected = told_by_hand(model, things, place // 4, place % 4)
        assert torch.allclose(told[place + 2], expected, atol=1e-5), place


def test_a_place_is_told_what_four_words_say():
    model = painter()
    objects = objects_of(model, [SEVEN.bos, 17, 21, 22, 20, 22, SEVEN.mask, 22])
    vectors = model.vectors()
    four = vectors[22] + vectors[20] + vectors[22] + vectors[SEVEN.mask]
    assert torch.allclose(objects.words[0, 2], four, atol=1e-5)


def test_a_position_is_told_of_the_place_that_it_predicts():
    """With a shift, the last word is told of the first place, and no other word of any place."""
    tokens = torch.tensor([[*WORDS, *range(16)]])
    count = torch.arange(tokens.shape[1])[None] - len(WORDS)
    for ahead, sizes in ((0, {}), (1, {"logit_shift": True}), (1, {"causal": True})):
        model = painter(**sizes)
        plain = painter(reach=0, **sizes)
        plain.load_state_dict(model.state_dict(), strict=False)
        extra = model.inputs_of(tokens, count, model.vectors())
        extra = extra - plain.inputs_of(tokens, count, plain.vectors())
        told = model.plan.tell(objects_of(model, WORDS), count + ahead)
        assert torch.allclose(extra, told, atol=1e-5)
        assert not told[0, : len(WORDS) - ahead].any() and told[0, len(WORDS) - ahead].any()


def test_at_its_start_a_painter_is_the_painter_that_it_starts_from(tmp_path, monkeypatch):
    """A new part is zeros: places are told nothing until it has learnt."""
    model, before = painter(), painter(reach=0)
    for weight in (*model.plan.told.parameters(), model.plan.offset.weight):
        torch.nn.init.zeros_(weight)
    opened = before, SEVEN.tokenizer, {}
    monkeypatch.setattr(starts.checkpoint, "open_model", lambda path, noises: opened)
    monkeypatch.setattr(SevenWords, "fingerprint", "same", raising=False)
    starts.start_from(model, tmp_path / "best.pt", "same")
    tokens, words = torch.tensor([[*WORDS, *range(16)]]), torch.tensor([len(WORDS)])
    assert torch.equal(model(tokens, words=words), before(tokens, words=words))
