"""Which arithmetic is chosen, and that a norm is the same in each."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from base.files import UserError
from loop import hardware
from model import Norm
from tests.test_model import toy

CPU = torch.device("cpu")


@pytest.mark.parametrize("fast, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bf16_only_where_that_is_faster(monkeypatch, fast, dtype):
    monkeypatch.setattr(hardware, "fast_bfloat16", lambda device: fast)
    assert hardware.choose_precision("auto", CPU)[0] == dtype
    assert hardware.choose_precision("fp32", CPU) == (torch.float32, "asked for")


def test_a_norm_is_the_same_in_every_precision():
    """Quiet input shows the epsilon: bfloat16's own, 0.008, would halve it."""
    x, norm = 0.05 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), Norm(64)
    assert torch.allclose(norm(x.bfloat16()).float(), norm(x), atol=0.03)
    assert not torch.allclose(
        torch.nn.functional.rms_norm(x, (64,), eps=torch.finfo(torch.bfloat16).eps),
        norm(x),
        atol=0.03,
    )


def test_only_float16_scales_its_loss():
    for dtype, scales in ((torch.float32, False), (torch.bfloat16, False), (torch.float16, True)):
        arithmetic = hardware.Arithmetic(CPU, dtype)
        assert arithmetic.scaler.is_enabled() == scales
        with arithmetic.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_device_that_is_not_here_is_refused():
    assert hardware.choose_device("cpu") == CPU
    with pytest.raises(UserError, match="--device tpu; expected auto or one of cpu"):
        hardware.choose_device("tpu")


def test_the_attention_kernel_is_looked_at():
    """What torch did, also where a context leaves it one choice, and where gradients are off."""
    model, flash = toy(), "flash; rows with padding: flash"
    assert hardware.describe_attention(model, torch.float32) == flash
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        assert hardware.attention_backend(CPU, torch.bfloat16, 2, 16, padded=False) == "math"
        assert hardware.describe_attention(model, torch.float32).startswith("math; ")
    assert hardware.describe_attention(torch.nn.Linear(2, 2), torch.float32) == "none"


def test_attention_in_training_is_plain_only_where_the_fused_kernel_is_slow():
    """On a CPU, in bfloat16, in rows that are not long: and nothing stays switched."""
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed
    cases = {(torch.bfloat16, 512): "math", (torch.bfloat16, 513): "flash"}
    cases |= {(torch.float32, 20): "flash"}
    before = allowed()
    for (dtype, length), kernel in cases.items():
        with hardware.Arithmetic(CPU, dtype).training(length):
            assert hardware.attention_backend(CPU, dtype, 2, 16, padded=True) == kernel
            assert allowed() == (True if kernel == "math" else before)
        assert allowed() == before
    assert hardware.attention_backend(CPU, torch.bfloat16, 2, 16, padded=True) == "flash"
    told = hardware.Arithmetic(CPU, torch.bfloat16).describe_attention(toy())
    assert told.startswith("math; ") and "(rows of more than 512 tokens: flash; " in told


@pytest.mark.parametrize("causal", [False, True])
def test_plain_attention_of_bfloat16_is_close_to_float32(causal):
    """Gradients, with padding and a row of one token: as close as the fused kernel comes."""
    model = toy(causal=causal)
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 8, (3, 8), generator=rng)
    lengths = torch.tensor([8, 5, 1])

    def gradients(context):
        model.zero_grad()
        with context:
            logits = model(tokens, lengths=lengths)
        real = torch.arange(8) < lengths[:, None]
        logits[real].float().logsumexp(-1).square().sum().backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    arithmetic = hardware.Arithmetic(CPU, torch.bfloat16)
    exact = gradients(hardware.Arithmetic(CPU, torch.float32).training(8))
    plain = (gradients(arithmetic.training(8)) - exact).norm() / exact.norm()
    fused = (gradients(arithmetic.autocast()) - exact).norm() / exact.norm()
    assert plain < max(0.02, 2 * fused)
