"""The diagram of a block shows its weights; tests/test_visualize_architecture.py draws real models."""

import pytest

from show import block_diagram, sheet

MODEL = {
    "layers": 3,
    "width": 8,
    "heads": 2,
    "counts": {"block": 1234},
    "shapes": {"blocks.0": "(B, L, 8)"},
}
PLAIN = {"norm": (8,), "up.weight": (16, 8), "down.weight": (8, 16)}


@pytest.mark.parametrize("gated", [True, False])
def test_a_gate_is_drawn_where_there_is_one(gated, tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "DPI", 40)
    weights = {**PLAIN, "gate.weight": (16, 8)} if gated else PLAIN
    part = {"kind": "mlp", "title": "MLP", "note": "", "count": 264, "weights": weights}
    table = ((120, 200), [("weight", "shape", "values"), ("total", "", "264")])
    _, svg = block_diagram.block(tmp_path / "block", MODEL, [part], [table])
    text = svg.read_text(encoding="utf-8")
    assert (">gate</text>" in text) == (">SiLU</text>" in text) == gated
    assert "One block of 3" in text and "1,234 parameters" in text and ">total</text>" in text
