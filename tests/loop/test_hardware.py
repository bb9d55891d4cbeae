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
