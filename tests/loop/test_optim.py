"""The learning rate over a run, Muon compared with torch's, and which weights each optimizer gets."""

import pytest
import torch

from base.config import ModelConfig, TrainConfig
from loop.optim import Muon, learning_rate, make_optimizers, orthogonalize
from model import Denoiser


def test_learning_rate():
    cfg = TrainConfig(max_steps=110, warmup_steps=10, final_learning_rate=0.1)
    rates = [learning_rate(step, cfg) for step in range(111)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)


def test_muon_is_torchs_muon():
    """The same update as torch.optim.Muon up to its bfloat16, for tall, wide and square matrices, over several steps."""
    torch.manual_seed(0)
    mine = [
        torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 24), (24, 24), (64, 24), (24, 64))
    ]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in mine]
    ours, reference = (
        Muon(mine, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        ours.step()
        reference.step()
    for one, other in zip(mine, theirs, strict=True):
        assert (
            one - other
        ).norm() < 0.02 * 3 * 0.02 * 0.2 * 64**0.5 * 24**0.5  # 2% of three updates
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 40, 24)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_takes_the_blocks_matrices_and_nothing_else():
    model = Denoiser(ModelConfig(vocab_size=50, output_size=47, d_model=16, heads=2, layers=2))
    adamw, muon = make_optimizers(model, TrainConfig(optimizer="muon"))
    mine = {id(w) for group in muon.param_groups for w in group["params"]}
    assert mine == {
        id(w) for name, w in model.named_parameters() if name.startswith("blocks.") and w.ndim == 2
    }
    assert sum(len(group["params"]) for opt in (adamw, muon) for group in opt.param_groups) == len(
        list(model.parameters())
    )
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]  # never on norms
    assert len(make_optimizers(model, TrainConfig(optimizer="adamw"))) == 1
