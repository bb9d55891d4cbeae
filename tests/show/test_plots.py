"""Plots: curves are read from a run's log, and each kind of result becomes a PNG."""

import json

import numpy as np
import pytest

from base.files import UserError
from show import plots


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Few pixels: what is drawn counts here, not how finely."""
    drawn = plots.canvas
    monkeypatch.setattr(plots, "canvas", lambda width, height: drawn(width / 2, height / 2))


def make_log(folder, rows: list[dict]):
    folder.mkdir()
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_tokens_of_an_evaluation_are_interpolated(tmp_path):
    rows = [
        {"step": 10, "tokens_seen": 1000},
        {"step": 15, "val_bits_per_byte": 2.0},
        {"step": 20, "tokens_seen": 3000},
    ]
    run = make_log(tmp_path / "run", rows)
    tokens, bits = plots.read_curve(run)
    assert tokens.tolist() == [2000] and bits.tolist() == [2.0]
    plots.learning_curves(tmp_path / "curves.png", [run])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "text, message",
    [("{", "no log of train.py"), ('{"step": 1, "tokens_seen": 5}', "without an evaluation")],
)
def test_logs_that_hold_no_curve(tmp_path, text, message):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        plots.read_curve(tmp_path)


@pytest.mark.parametrize("names", [("truthful", "set_exact"), ("cider",)])
@pytest.mark.parametrize("twin", [True, False])
def test_caption_steps_of_scenes_and_photographs(tmp_path, monkeypatch, names, twin):
    rows = []
    for steps in (1, 2, 4):
        figures = {name: 0.5 for name in names} | {f"{name}_ci95": [0.4, 0.6] for name in names}
        rows.append({"steps": steps, **figures})
    result = {"steps": rows, "blind": {name: 0.1 for name in names}}
    if twin:
        result["twin"] = {"val": {name: 0.9 for name in names}}
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    plots.caption_steps(tmp_path / "steps.png", result)
    labels = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    first = "truthful" if len(names) == 2 else "CIDEr"
    assert f"blind, {first}" in labels and (f"twin, {first}" in labels) == twin


def test_sampler_grid_has_a_line_per_sampler(tmp_path, monkeypatch):
    rows = [{"sampler": "human", "steps": 0, "unigram_entropy": 5.0, "judge_nats_per_token": 1.5}]
    for sampler in ("first_hitting", "entropy_bound"):
        for steps in (8, 16):
            figures = {"unigram_entropy": 4 + steps / 20, "judge_nats_per_token": 1.2}
            rows.append({"sampler": sampler, "steps": steps, **figures})
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    plots.sampler_grid(tmp_path / "grid.png", rows)
    first, second, human = drawn[0].axes[0].lines
    assert np.allclose(first.get_xdata(), [4.4, 4.8]) and second.get_label() == "entropy_bound"
    assert human.get_label() == "human text" and human.get_xdata() == [5.0]
