"""A denoiser with given captions: without them the plain denoiser, with them another law."""

import dataclasses

import pytest
import torch

from base.architecture import ModelConfig
from base.files import UserError
from model import Denoiser
from net import soft_masks
from net.retrieval import Given, RetrievingDenoiser, Seen, blind

CONFIG = ModelConfig(
    vocab_size=30,
    output_size=27,
    max_length=12,
    d_model=16,
    heads=2,
    layers=2,
    condition_width=6,
    retrieve=2,
)


def made(**changes) -> RetrievingDenoiser:
    torch.manual_seed(0)
    model = soft_masks.build(dataclasses.replace(CONFIG, **changes))
    for block in model.blocks:
        torch.nn.init.ones_(block.cross.gate)
    return model.eval()


def given(rows: int = 3, seed: int = 1) -> Given:
    """Two captions of each row; the second caption of row 0 is short, row 2 has one caption."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 27, (rows, 2, 4), generator=rng)
    lengths = torch.full((rows, 2), 4)
    lengths[0, 1] = 2
    lengths[-1, 1] = 0
    return Given(ids, lengths)


FEATURES = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(2))
TOKENS = torch.randint(0, 27, (3, 7), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_without_captions_it_is_the_plain_denoiser_to_the_bit():
    """The same seed gives the plain parts the same weights; --retrieve 0 is the class itself."""
    model, plain = made(), made(retrieve=0)
    assert type(plain) is Denoiser
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    nothing = Seen(FEATURES, given().where(torch.zeros(3, dtype=torch.bool)))
    ours = model(TOKENS, condition=model.keys_values(nothing))
    assert torch.equal(ours, plain(TOKENS, condition=plain.keys_values(FEATURES)))
    assert torch.equal(model.length_logits(nothing), plain.length_logits(FEATURES))


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_a_row_reads_its_own_captions_alone(causal):
    """Padding and missing captions change nothing; any id that is there changes the row's logits."""
    model, some = made(causal=causal), given()

    def logits(captions: Given, rows=slice(None)) -> torch.Tensor:
        seen = Seen(FEATURES[rows], captions)
        return model(TOKENS[rows], condition=model.keys_values(seen))

    whole = logits(some)
    padded = Given(some.ids.clone(), some.lengths)
    padded.ids[0, 1, 2:] = 5  # behind the end
    padded.ids[2, 1] = 5  # a caption that is not there
    assert torch.equal(logits(padded), whole)
    for place in range(4):
        other = Given(some.ids.clone(), some.lengths)
        other.ids[1, 0, place] = (other.ids[1, 0, place] + 1) % 27
        changed = (logits(other) - whole).abs().flatten(1).amax(1) > 0
        assert changed.tolist() == [False, True, False]
    alone = logits(Given(some.ids[2:, :, :], some.lengths[2:]), slice(2, 3))
    torch.testing.assert_close(alone, whole[2:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_places_and_numbers_of_captions_count():
    """The same words in another order, or in another caption, are another memory."""
    model, some = made(), given()
    memory, _ = model.memory(Seen(FEATURES, some))
    turned, _ = model.memory(Seen(FEATURES, Given(some.ids.flip(2), some.lengths)))
    swapped, _ = model.memory(Seen(FEATURES, Given(some.ids.flip(1), some.lengths)))
    assert memory.shape == (3, 5 + 2 * 4, 6) and torch.equal(memory[:, :5], FEATURES)
    first, second = memory[1, 5:9], memory[1, 9:13]
    for other in (turned[1, 5:9].flip(0), swapped[1, 9:13]):
        assert not torch.allclose(first, other)
    code = model.given_number.weight[1] - model.given_number.weight[0]
    torch.testing.assert_close(swapped[1, 5:9] + code, second)


@torch.no_grad()
def test_the_blind_model_knows_neither_image_nor_captions():
    model = made()
    nobody = model(TOKENS, condition=model.keys_values(blind(Seen(FEATURES, given()))))
    torch.testing.assert_close(nobody, model(TOKENS), atol=1e-6, rtol=1e-6)
    # In a batch where other rows see, too.
    kept = torch.tensor([True, False, True])
    seen = Seen(FEATURES * kept[:, None, None], given().where(kept))
    mixed = model(TOKENS, condition=model.keys_values(seen))
    torch.testing.assert_close(mixed[1], nobody[1], atol=1e-6, rtol=1e-6)


def test_refusals():
    with pytest.raises(UserError, match="captions of similar images, without such captions"):
        made().keys_values(FEATURES)
    for name, value in {"soft_masks": True, "quality_layers": 1}.items():
        with pytest.raises(UserError, match="--retrieve 2 with|with --retrieve 2"):
            dataclasses.replace(CONFIG, **{name: value})
