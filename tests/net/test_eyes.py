"""Eyes: a frozen encoder is no part of the weights, never changes, and another is refused."""

import pytest
import torch

from base.errors import UserError
from base.policy_config import GrounderConfig
from net import eyes
from net.grounder import Grounder


def config(**more) -> GrounderConfig:
    return GrounderConfig(vocab_size=12, longest=6, cameras=2, encoder="embedded", **more)


@pytest.fixture(scope="module")
def frozen() -> Grounder:
    torch.manual_seed(0)
    return Grounder(config()).eval()


def look(model: Grounder, side: int = 40) -> eyes.Seen:
    torch.manual_seed(1)
    return model.look({"images": torch.randint(0, 256, (2, 2, side, side, 3), dtype=torch.uint8)})


def test_every_patch_of_every_camera_can_be_named(frozen):
    seen = look(frozen)
    patches = frozen.eyes.side**2
    assert seen.keys.shape == (2, 2 * patches, 2, 64)
    assert seen.places.shape == (2, 2 * patches, 4)
    # The image's corners are cells of the first and the last patch.
    assert seen.places[0, 0, :2].tolist() == [-1, -1]
    assert seen.places[0, patches - 1, :2].tolist() == [1, 1]


def test_the_encoder_is_no_part_of_the_weights_and_learns_nothing(frozen):
    learnt = sum(weight.numel() for weight in frozen.eyes.parameters())
    assert learnt < 50_000 < sum(w.numel() for w in frozen.eyes.encoder[0].model.parameters())
    frozen.train()
    look(frozen).keys.sum().backward()
    assert frozen.eyes.enter.weight.grad.abs().max() > 0
    assert all(w.grad is None for w in frozen.eyes.encoder[0].model.parameters())
    assert not frozen.eyes.encoder[0].model.training
    frozen.eval()


def test_a_checkpoint_keeps_the_encoder_by_its_key(frozen):
    torch.manual_seed(5)
    again = Grounder(config(encoder_key=frozen.eyes.encoder_key)).eval()
    again.load_state_dict(frozen.state_dict())
    assert torch.equal(look(again).keys, look(frozen).keys)
    with pytest.raises(UserError, match="which the grounder was trained with"):
        Grounder(config(encoder_key="0" * 64))


def test_lists_have_no_encoder():
    with pytest.raises(UserError, match="leave out --encoder"):
        config(sees="state")


def test_the_best_cell_and_its_neighbours_count():
    """Of two far peaks the mean is no place; a neighbour's share moves the place within a cell."""
    places = eyes.cell_places(1, 4, 4, None)
    scores = torch.full((1, 2, 16), -20.0)
    scores[0, 0, [0, 1, 15]] = torch.tensor([1.0, 0.5, 0.9])
    share = eyes.around_best(scores, places, eyes.cell_width(4)).softmax(-1)
    assert share[0, 0, 15] == 0 and 0.6 < share[0, 0, 0] < 0.7
    assert share[0, 0].sum() == pytest.approx(1)
    # Equal scores: the first cell is the best.
    assert share[0, 1, 0] > 0.2 and share[0, 1, 15] == 0


def test_a_list_without_things_gives_numbers():
    nothing = torch.full((1, 1, 8), -torch.inf)
    share = eyes.around_best(nothing, torch.zeros(1, 8, 3), 0.0).softmax(-1)
    assert share.isfinite().all()
