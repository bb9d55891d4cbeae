"""The learning rate over a run, Muon compared with torch's, and which weights each optimizer gets."""

import pytest
import torch

from base.config import ModelConfig, TrainConfig
from loop import optim
from loop.optim import MINIMAX, ROUNDS, Muon, learning_rate, make_optimizers, orthogonalize
from model import Denoiser
from net.picture_codes import PictureCodes, PictureCodesConfig


def test_learning_rate():
    cfg = TrainConfig(max_steps=110, warmup_steps=10, final_learning_rate=0.1)
    rates = [learning_rate(step, cfg) for step in range(111)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)


def test_updates_become_orthogonal(monkeypatch):
    """Singular vectors stay; each singular value goes where the polynomials send it."""
    monkeypatch.setattr(optim, "fast_bfloat16", lambda device: False)
    torch.manual_seed(0)
    for shape in ((24, 24), (64, 24), (24, 64)):
        matrix = torch.randn(shape, dtype=torch.float64)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        expected = values / values.pow(4).sum() ** 0.25
        for a, b, c in ROUNDS:
            expected = a * expected + b * expected**3 + c * expected**5
        result = orthogonalize(matrix[None])[0]
        assert torch.allclose(left.T @ result @ right.T, expected.diag(), atol=1e-9)


def test_the_polynomials_bring_all_values_near_one():
    """From 0.002 of the scale to the scale: within 1 ± 0.32, reached on both sides.

    With the margin the least value is 0.627.
    """
    for rounds, least in ((MINIMAX, 0.679), (ROUNDS, 0.627)):
        values = torch.linspace(0.002, 1.0, 100_000, dtype=torch.float64)
        for a, b, c in rounds:
            values = a * values + b * values**3 + c * values**5
        assert values.min().item() == pytest.approx(least, abs=0.003)
        assert values.max().item() == pytest.approx(1.321, abs=0.003)


@pytest.mark.parametrize("fast", [True, False], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("rank", [1, 8, 64])
def test_rounding_throws_no_value_out(monkeypatch, fast, rank):
    """Without a margin, bfloat16 made singular values of a million, whatever the machine trains in.

    Gradients are close to a matrix of low rank, whose largest value is the whole scale.
    """
    monkeypatch.setattr(optim, "fast_bfloat16", lambda device: fast)
    rng = torch.Generator().manual_seed(0)
    for rows, columns in ((64, 64), (192, 192), (192, 64), (64, 192)):
        matrices = torch.randn(8, rows, rank, generator=rng) @ torch.randn(
            8, rank, columns, generator=rng
        )
        matrices += 0.05 * matrices.std() * torch.randn(8, rows, columns, generator=rng)
        values = torch.linalg.svdvals(orthogonalize(matrices))
        assert values.max() < 1.4


@pytest.mark.parametrize("fast", [True, False], ids=["bfloat16", "float32"])
def test_muon_is_torchs_muon(monkeypatch, fast):
    """Momentum, decay and size are those of torch.optim.Muon; its five rounds round differently.

    The update of a matrix of torch's is its own polar factor within 30%, and so is ours.
    """
    monkeypatch.setattr(optim, "fast_bfloat16", lambda device: fast)
    torch.manual_seed(0)
    shapes = ((24, 24), (24, 24), (64, 24), (24, 64))
    start = [torch.randn(shape) for shape in shapes]
    mine, theirs = ([torch.nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    ours = Muon(mine, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for weight, other in zip(mine, theirs, strict=True):
            weight.grad = torch.randn_like(weight)
            other.grad = weight.grad.clone()
        ours.step()
        reference.step()
    for weight, other, before in zip(mine, theirs, start, strict=True):
        moved, expected = weight.detach() - before, other.detach() - before
        cosine = torch.nn.functional.cosine_similarity(moved.flatten(), expected.flatten(), 0)
        assert cosine > 0.95
        # The five rounds leave a mean under 1.
        assert moved.norm() / expected.norm() == pytest.approx(1.13, abs=0.1)


def test_a_kernel_is_the_matrix_of_its_outputs_by_all_else():
    torch.manual_seed(0)
    start = torch.randn(6, 4, 3, 3)
    kernel, matrix = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.flatten(1))
    optimizers = [Muon([weight], lr=0.02) for weight in (kernel, matrix)]
    for _ in range(2):
        kernel.grad = torch.randn_like(kernel)
        matrix.grad = kernel.grad.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(kernel.flatten(1), matrix, atol=1e-6)
    model = PictureCodes(PictureCodesConfig(side=16, width=16, blocks=1))
    adamw, muon = make_optimizers(model, TrainConfig(optimizer="muon"))
    shapes = {weight.ndim for group in muon.param_groups for weight in group["params"]}
    others = {weight.ndim for group in adamw.param_groups for weight in group["params"]}
    assert shapes == {4} and others == {1}


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
