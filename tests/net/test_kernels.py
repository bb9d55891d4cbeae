"""The plain forms of the kernels, the losses in chunks, the switch; the Triton code in its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import diffusion
from base.files import UserError
from net import draws, kernels, soft_masks, twin
from tests.test_model import MASK, random_tokens, toy

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")


@pytest.mark.parametrize("which", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_the_triton_kernels_in_the_interpreter(which):
    """Triton reads the variable when it is imported, so these tests have a process of their own."""
    pytest.importorskip("triton", reason="pip install -r requirements-extra.txt")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which]
    words.append("tests/net/test_triton_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)  # its folders are not this process's
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout and "passed" in done.stdout


@pytest.mark.long
def test_the_kernels_compile_for_a_gpu_that_is_not_here():
    """Triton brings NVIDIA's assembler along. Whether the result is fast, or right, no test here says."""
    pytest.importorskip("triton", reason="pip install -r requirements-extra.txt")
    import triton.language as tl
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from net import triton_kernels as code

    if code.INTERPRETED:
        pytest.skip("the interpreter compiles nothing")
    constants = {"EPSILON": 1e-6, "WIDE": tl.float32, "ROWS": 16, "HALF": 32}
    draw = {"LIKELIEST": False, "NUCLEUS": True, "BLOCK": code.DRAW_BLOCK}
    types = {"uniform": "*fp64", "law": "*fp64", "token": "*i64", "log_prob": "*fp64"}
    types |= dict.fromkeys(("logits", "largest", "margin", "entropy", "weight", "cos"), "*fp32")
    types |= {"sin": "*fp32", "grad_weight": "*fp32"}
    types |= dict.fromkeys(("x", "out", "grad", "grad_x"), "*bf16")
    for kernel, fixed in (
        (code.draw_kernel, draw),
        (code.norm_rotary_kernel, constants),
        (code.norm_rotary_backward_kernel, constants),
    ):
        names = kernel.arg_names
        signature = {
            name: "constexpr" if name in fixed else types.get(name, "i32") for name in names
        }
        source = ASTSource(kernel, signature=signature, constexprs=fixed)
        assert compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


# Without Triton, and on CPUs


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_the_plain_backward_is_autograds(dtype, atol):
    rng = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, 2, 3, 5, 8, generator=rng, dtype=torch.float64)
    weight, cos, sin = (torch.randn(n, 8, generator=rng, dtype=torch.float64) for n in (1, 5, 5))
    inputs = x.requires_grad_(), weight[0].requires_grad_()
    y = kernels.norm_rotary_plainly(*inputs, cos, sin, 1e-6)
    expected = torch.autograd.grad(y, inputs, grad)
    given = [value.detach().to(dtype) for value in (grad, *inputs, cos, sin)]
    found = kernels.norm_rotary_backward_plainly(*given, 1e-6)
    for mine, exact in zip(found, expected, strict=True):
        assert mine.dtype == dtype and torch.allclose(mine.double(), exact, rtol=atol, atol=atol)


def test_operators_on_a_cpu_are_their_plain_forms():
    """To the bit, with gradients, and torch accepts them."""
    rng = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(3, 7, generator=rng), torch.rand(3, dtype=torch.float64)
    found = kernels.draw_rows(logits, uniform, 0.8, 0.9)
    plain = kernels.draw_rows_plainly(logits, uniform, 0.8, 0.9)
    if kernels.code_for(CPU) is None:
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    torch.library.opcheck(kernels.draw_rows, (logits, uniform, 0.8, 0.9))
    x = torch.randn(1, 3, 2, 6, generator=rng, dtype=torch.float64).transpose(1, 2)
    weight, cos, sin = torch.randn(3, 3, 6, generator=rng, dtype=torch.float64)
    inputs = x.requires_grad_(), weight[0].clone().requires_grad_(), cos, sin, 1e-6
    torch.library.opcheck(kernels.norm_rotary, inputs)
    assert torch.autograd.gradcheck(kernels.norm_rotary, inputs)


def test_certainty_of_one_pass_is_the_plain_certainty():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    token = draws.one_pass.set(lambda *given: draws.Drawn(*kernels.draw_rows_plainly(*given)))
    found = {
        name: draws.certainty(logits, name) for name in ("confidence", "margin", "entropy_bound")
    }
    draws.one_pass.reset(token)
    for name, value in found.items():
        assert torch.equal(value, draws.certainty(logits, name))


# Losses in chunks


def run_losses(function, rows=9, ids=13, width=4, taken=11):
    """Losses and hits of the first `taken` ids, and the gradients of states and of all ids' vectors."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=rng).requires_grad_()
    table = torch.randn(ids, width, generator=rng).requires_grad_()
    target = torch.randint(taken, (rows,), generator=rng)
    nats, hits = function(x, table[:taken], target)
    (nats * torch.rand(rows, generator=rng)).sum().backward()
    return nats.detach(), hits, x.grad, table.grad


@pytest.mark.parametrize("rows", [1, 9, 0])
def test_chunked_losses_are_the_plain_losses(rows, monkeypatch):
    """Gradients too, each token with its own weight; a schedule may mask nothing at all."""
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 4)
    found, plain = (
        run_losses(function, rows)
        for function in (kernels.linear_losses, kernels.linear_losses_plainly)
    )
    assert torch.equal(found[1], plain[1]) and found[0].dtype == torch.float32
    for mine, other in zip(found, plain, strict=True):
        assert torch.allclose(mine.double(), other.double(), rtol=0, atol=2e-6)


def test_an_older_torch_takes_the_plain_losses(monkeypatch):
    monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    found, plain = map(run_losses, (kernels.linear_losses, kernels.linear_losses_plainly))
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


@pytest.fixture
def pretended(monkeypatch):
    """A machine that has what the kernels need: the operators then compute their plain forms."""
    monkeypatch.setattr(kernels, "check", lambda device: None)


@pytest.mark.parametrize("causal", [False, True])
def test_the_loss_of_a_network_and_its_gradients(causal, pretended, monkeypatch):
    """The denoiser's bound and the twin's likelihood, with every kernel in use."""
    seen = []
    chunked = kernels.linear_losses
    monkeypatch.setattr(
        kernels, "linear_losses", lambda *given: seen.append(len(given[2])) or chunked(*given)
    )
    tokens, lengths = random_tokens(), torch.tensor([10, 6, 8])
    free = (torch.arange(10) >= 1) & (torch.arange(10) < lengths[:, None])
    results = []
    for wanted in (False, True):
        model = toy(causal=causal)
        with kernels.use(model, wanted, say=seen.append):
            if causal:
                value, figures = twin.loss(model, tokens, free)
            else:
                denoise = soft_masks.trainer_of(model, {}, lengths)
                rng = torch.Generator().manual_seed(1)
                value, figures = diffusion.loss(denoise, tokens, free, mask_id=MASK, rng=rng)
            value.backward()
        results.append((value, figures, [weight.grad for weight in model.parameters()]))
    assert len(seen) == 2 and seen[1] > 0  # the line, and one call for all masked tokens
    plain, fused = results
    assert fused[0].item() == pytest.approx(plain[0].item(), rel=1e-5)
    assert fused[1] == pytest.approx(plain[1], rel=1e-5)
    for mine, other in zip(fused[2], plain[2], strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-5)


# The switch


def test_the_switch_leaves_no_trace(pretended):
    model = toy()
    state, rotary = set(model.state_dict()), model.rotary
    with pytest.raises(RuntimeError), kernels.use(model, True, say=str):
        assert kernels.are_used(model) and set(model.state_dict()) == state
        assert not kernels.are_used(object())
        raise RuntimeError
    assert model.rotary is rotary and not kernels.are_used(model)
    with kernels.use(model, False, say=str):
        assert model.rotary is rotary and not kernels.are_used(model)


def test_refusals(monkeypatch, tmp_path):
    """In one line, before a run folder is begun."""
    import generate
    import train
    from tests.making.corpus import TINY, make_data, make_run

    data = make_data(tmp_path / "data")
    run = make_run(data, tmp_path / "run")
    monkeypatch.setattr(kernels, "code_for", lambda device: None)  # also with TRITON_INTERPRET=1
    monkeypatch.setattr(kernels, "triton_code", lambda: sys)
    words = ["--data_dir", str(data), "--out", str(tmp_path / "new"), *TINY, "--kernels"]
    with pytest.raises(UserError, match="--kernels on the device cpu; expected a GPU"):
        train.main(words)
    assert not (tmp_path / "new" / "config.json").exists()
    written = ["--checkpoint", str(run / "best.pt"), "--device", "cpu", "--kernels"]
    with pytest.raises(UserError, match="TRITON_INTERPRET=1"):
        generate.main(written)
    monkeypatch.setattr(kernels, "triton_code", lambda: None)
    with pytest.raises(UserError, match="without Triton; .*requirements-extra.txt"):
        generate.main(written)
