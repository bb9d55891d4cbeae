"""Patches that read each other: the identity at first, no order of their own, work that is counted."""

import dataclasses

import pytest
import torch

from base.architecture import ModelConfig
from base.files import UserError
from model import Denoiser
from net import anatomy, soft_masks
from net.patch_reader import PatchDenoiser, PatchReader

CONFIG = ModelConfig(
    vocab_size=30,
    output_size=27,
    max_length=12,
    d_model=16,
    heads=2,
    layers=2,
    condition_width=6,
    patch_layers=2,
)
PATCHES = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(2))
TOKENS = torch.randint(0, 27, (3, 7), generator=torch.Generator().manual_seed(3))


def made(**changes) -> Denoiser:
    torch.manual_seed(0)
    model = soft_masks.build(dataclasses.replace(CONFIG, **changes))
    for block in model.blocks:
        torch.nn.init.ones_(block.cross.gate)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_it_starts_as_the_network_without_it_to_the_bit(causal):
    ours, plain = made(causal=causal), made(causal=causal, patch_layers=0)
    assert type(plain) is Denoiser and type(ours) is PatchDenoiser
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), name
    logits = [model(TOKENS, condition=model.keys_values(PATCHES)) for model in (ours, plain)]
    assert torch.equal(*logits)


def trained() -> PatchReader:
    """A reader whose patches change."""
    reader = made().reader
    torch.nn.init.normal_(reader.leave.weight, generator=torch.Generator().manual_seed(4))
    return reader


@torch.no_grad()
def test_each_patch_reads_all_patches_of_its_clip_and_no_other_clip():
    reader = trained()
    read = reader(PATCHES)
    for patch in range(8):
        other = PATCHES.clone()
        other[0, patch] += 1.0
        changed = (reader(other) - read).abs().amax(-1) > 1e-7
        assert changed[0].all() and not changed[1:].any()


@torch.no_grad()
def test_patches_have_no_order_but_what_their_features_say():
    reader, order = trained(), torch.randperm(8, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(reader(PATCHES[:, order]), reader(PATCHES)[:, order])


def test_every_weight_learns():
    model = made()
    torch.nn.init.normal_(model.reader.leave.weight)
    model(TOKENS, condition=model.keys_values(PATCHES)).sum().backward()
    still = [name for name, weight in model.reader.named_parameters() if not weight.grad.any()]
    assert not still


def test_the_length_head_reads_what_the_blocks_read():
    """Its own weights learn from lengths, the blocks do not."""
    model = made(length_hidden=4)
    torch.nn.init.normal_(model.reader.leave.weight)
    found = model.length_logits(PATCHES)
    assert torch.equal(found, model.length_head(model.reader(PATCHES)))
    found.sum().backward()
    assert model.length_head.out.weight.grad.any()
    assert all(weight.grad is None for weight in model.reader.parameters())


def test_its_work_is_counted_once_per_clip():
    """6 operations per weight and patch, 2 for the lengths, and attention; rows share a clip."""
    reader = anatomy.count(made().reader)
    for length, rows in ((7, 1), (7, 4), (12, 2)):
        with_it, without = (
            anatomy.training_flops(made(patch_layers=layers), length, 8, rows) * length * rows
            for layers in (2, 0)
        )
        assert with_it - without == pytest.approx(8 * (8 * reader + 16 * 2 * 16 * 8))


@pytest.mark.parametrize("other", [{"soft_masks": True}, {"quality_layers": 1}, {"retrieve": 2}])
def test_parts_that_do_not_fit_are_refused(other):
    with pytest.raises(UserError, match="--patch_layers 2 with"):
        dataclasses.replace(CONFIG, **other)
