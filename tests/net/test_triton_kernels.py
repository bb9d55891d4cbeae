"""The Triton kernels against their plain forms, on a GPU or in Triton's interpreter.

Without a GPU these tests need TRITON_INTERPRET=1 before Triton is imported. tests/net/test_kernels.py
runs them so, in a process of their own.
"""

import json

import pytest
import torch

pytest.importorskip("triton", reason="pip install -r requirements-extra.txt")

from net import draws, kernels, triton_kernels  # noqa: E402

DEVICE = "cpu" if triton_kernels.INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not triton_kernels.INTERPRETED and not torch.cuda.is_available(),
    reason="no GPU, and TRITON_INTERPRET=1 was not set; test_kernels.py runs these tests with it",
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 16 logits, so that a few dozen ids are several blocks and the last is not full."""
    monkeypatch.setattr(triton_kernels, "DRAW_BLOCK", 16)


def random(*shape, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64).to(DEVICE, dtype)


def uniforms(rows):
    rng = torch.Generator().manual_seed(9)
    return torch.rand(rows, generator=rng, dtype=torch.float64).to(DEVICE)


def agree(logits, uniform, temperature, top_p):
    """The kernel draws the plain form's tokens; all other figures agree to rounding."""
    mine = draws.Drawn(*kernels.draw_rows(logits, uniform, temperature, top_p))
    plain = draws.Drawn(*kernels.draw_rows_plainly(logits, uniform, temperature, top_p))
    assert torch.equal(mine.token, plain.token)
    assert torch.allclose(mine.log_prob, plain.log_prob, rtol=0, atol=1e-13)
    exact = logits.double()
    for name, sampler in (("largest", "confidence"), ("margin", "margin"), ("entropy", "entropy")):
        expected = draws.certainty_plainly(exact, sampler)
        expected = -expected if sampler == "entropy" else expected
        assert torch.allclose(getattr(mine, name).double(), expected, rtol=1e-7, atol=1e-7), name
    return mine


# One id, less than a block, a whole block, several blocks and a part; one row alone.
@pytest.mark.parametrize("rows, ids", [(3, 7), (2, 16), (1, 41)])
@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.7, 0.8), (0.0, 1.0)])
def test_a_draw_is_the_plain_draw(rows, ids, temperature, top_p):
    agree(2 * random(rows, ids), uniforms(rows), temperature, top_p)


@pytest.mark.long
def test_the_nucleus_is_the_plain_nucleus_among_equal_logits():
    """As in bfloat16. The limit falls between equal tokens: the first stay. Zeros of both signs are equal."""
    logits = torch.tensor([[0.0, 1.0, -0.0, 1.0, -2.0, 1.0, 0.0, -torch.inf, 1.0]], device=DEVICE)
    logits = torch.nn.functional.pad(logits, (12, 0), value=-3.0)  # two blocks
    count = 7  # a point in the share of each token
    uniform = (torch.arange(count, dtype=torch.float64, device=DEVICE) + 0.5) / count
    # The sum is 14.6 and the limit 12.4: all four tokens of 2.7, and two of the three of 1.
    drawn = agree(logits.expand(count, -1), uniform, 1.0, 0.85)
    assert set(drawn.token.tolist()) == {12, 13, 14, 15, 17, 20}


def test_the_ends_of_the_unit_interval():
    """0 and 1 - 2^-53 never draw what has no probability; a token of 2^-40 has its place."""
    never, ends = -torch.inf, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64, device=DEVICE)
    logits = torch.full((2, 20), never, device=DEVICE)
    logits[:, 3], logits[:, 17] = 0.3, 1.2
    assert agree(logits, ends, 1.0, 1.0).token.tolist() == [3, 17]
    rare = torch.tensor([[0.0, -40 * 0.6931471805599453]], device=DEVICE).expand(2, -1)
    ends = torch.tensor([1 - 2**-39, 1 - 2**-42], dtype=torch.float64, device=DEVICE)
    assert agree(rare, ends, 1.0, 1.0).token.tolist() == [0, 1]


def test_rows_of_a_wider_table():
    """The logits of net/growing.py are a slice, whose rows do not touch."""
    agree(random(2, 23)[:, :-2], uniforms(2), 1.0, 1.0)
    assert kernels.draw_rows(random(0, 5), uniforms(0), 1.0, 1.0)[0].shape == (0,)
    with pytest.raises(TypeError, match="float64"):
        kernels.draw_rows(random(1, 5, dtype=torch.float64), uniforms(1), 1.0, 1.0)


def norm_inputs(B, H, L, head, dtype):
    """x in the network's layout, where the heads of a token stand side by side."""
    x = random(B, L, H, head, dtype=dtype).transpose(1, 2).requires_grad_()
    weight = (random(head, seed=1, dtype=dtype) + 1).detach().requires_grad_()
    cos, sin = random(2, L, head, seed=2, dtype=dtype)  # any tables, not only of turns
    return x, weight, cos, sin


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 3, 5, 12), (1, 2, 9, 16)])
def test_norm_and_rotary_are_the_plain_form(shape):
    """In float64, forward and backward, also for rows that fill no block and heads of no power of 2."""
    x, weight, cos, sin = norm_inputs(*shape, torch.float64)
    grad = random(*shape, seed=3, dtype=torch.float64)
    found, expected = [], []
    for function, into in ((kernels.norm_rotary, found), (kernels.norm_rotary_plainly, expected)):
        y = function(x, weight, cos, sin, 1e-6)
        into += [y, *torch.autograd.grad(y, (x, weight), grad)]
    assert found[0].stride() == x.stride()
    for mine, plain in zip(found, expected, strict=True):
        assert torch.allclose(mine, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 2e-6), (torch.bfloat16, 4e-2)])
def test_norm_and_rotary_in_other_types(dtype, atol):
    """Against float64. The weight stays float32 under autocast."""
    x, weight, cos, sin = norm_inputs(2, 2, 5, 8, torch.float64)
    exact = kernels.norm_rotary_plainly(x, weight, cos, sin, 1e-6)
    y = kernels.norm_rotary(x.to(dtype), weight.float(), cos.float(), sin.float(), 1e-6)
    assert y.dtype == dtype and torch.allclose(y.double(), exact, rtol=0, atol=atol)


@pytest.mark.long
def test_torch_accepts_the_operators():
    """Shapes, strides and gradients as torch.compile and autograd expect them."""
    given = random(2, 7), uniforms(2)
    torch.library.opcheck(kernels.draw_rows, (*given, 1.0, 1.0))
    inputs = norm_inputs(1, 1, 2, 4, torch.float64)
    torch.library.opcheck(kernels.norm_rotary, (*inputs, 1e-6))
    assert torch.autograd.gradcheck(kernels.norm_rotary, (*inputs, 1e-6))


def counted(monkeypatch) -> dict[str, int]:
    """How often each kernel was launched, from now on."""
    calls = dict.fromkeys(("draw_rows", "norm_rotary", "norm_rotary_backward"), 0)
    for name in calls:
        launch = getattr(triton_kernels, name)

        def count(*inputs, name=name, launch=launch):
            calls[name] += 1
            return launch(*inputs)

        monkeypatch.setattr(triton_kernels, name, count)
    return calls


def test_the_scripts_run_the_kernels(tmp_path, monkeypatch, capsys):
    """Training: the losses of a run without kernels, to rounding. Writing: the same text."""
    import generate
    from tests.making.corpus import make_data, make_run
    from tests.making.runs import log_of
    from text import objective

    # The interpreter takes a time per program: few programs, and short texts to look at.
    monkeypatch.setattr(triton_kernels, "DRAW_BLOCK", 512)
    monkeypatch.setattr(triton_kernels, "ROTARY_ROWS", 512)
    monkeypatch.setattr(objective, "PREVIEW_LENGTH", 3)
    data, calls = make_data(tmp_path / "data"), counted(monkeypatch)
    short = ["--log_every", "1", "--max_steps", "2", "--eval_documents", "1", "--batch_size", "2"]
    short += ["--precision", "fp32"]  # in bfloat16 sums in another order differ by 0.4%
    plain = make_run(data, tmp_path / "plain", *short)
    assert set(calls.values()) == {0}
    fused = make_run(data, tmp_path / "fused", *short, "--kernels")
    # A query and a key per step, backward too; the evaluation and the preview only forward.
    assert calls["norm_rotary"] > calls["norm_rotary_backward"] == 2 * 2
    assert calls["draw_rows"] > 0  # by the preview
    assert "kernels: draws, QK-norm with rotary; linear cross-entropy" in capsys.readouterr().err
    for mine, other in zip(log_of(fused), log_of(plain), strict=True):
        assert mine == pytest.approx(other, rel=1e-4)

    texts = []
    for more in ([], ["--kernels"]):
        before, out = dict(calls), tmp_path / "out.jsonl"
        words = ["--checkpoint", str(plain / "best.pt"), "--json", str(out), "--num_samples", "1"]
        words += ["--length", "12", "--steps", "3", "--sampler", "confidence", "--device", "cpu"]
        generate.main([*words, *more])
        texts.append(json.loads(out.read_text())["tokens"])
        used = {name: calls[name] - before[name] for name in calls}
        # Three calls: the rank of all masked places, then the draw at the chosen ones.
        expected = (6, 6, 0) if more else (0, 0, 0)
        assert tuple(used.values()) == expected
    assert texts[0] == texts[1]
