"""Plots: each kind of result becomes a PNG."""

import numpy as np
import pytest

from show import plots


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Few pixels: what is drawn counts here, not how finely."""
    drawn = plots.canvas
    monkeypatch.setattr(
        plots, "canvas", lambda width, height, *grid: drawn(width / 2, height / 2, *grid)
    )


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


def test_few_data_has_a_panel_per_number_of_tokens(tmp_path, monkeypatch):
    runs = []
    for wanted in (1000, 3000):
        for side, best in (("diffusion", 1.1), ("ar", 1.2)):
            for trial, bits in (("0:0.1", [2.0, best, 4.0]), ("0.1:0.1", [2.0, 1.5, 1.3])):
                run = {"unique_tokens": wanted, "tokens": wanted - 5, "side": side, "trial": trial}
                run |= {"passes": [0.5, 1.0, 2.0], "bits_per_byte": bits}
                runs.append(run | {"is_best": trial == "0:0.1"})
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    plots.few_data(tmp_path / "few.png", runs)
    first, second = drawn[0].axes
    assert (first.get_title(), second.get_title()) == ("995 tokens", "2,995 tokens")
    assert first.get_xscale() == "log" and first.get_ylim()[1] < 2.2  # 4.0 is cut off
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert labels == ["diffusion 0:0.1: 1.100 at pass 1.0", "twin 0:0.1: 1.200 at pass 1.0"]
    thin = [line for line in first.lines if line.get_linewidth() < 1]
    assert len(first.lines) == 6 and len(thin) == 2  # two thin, two bold, two dots
    assert len({line.get_color() for line in first.lines}) == 2


def test_kept_by_doubt_has_a_line_per_signal(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    shares, success = np.array([0.5, 1.0]), np.array([1.0, 0.5])
    plots.kept_by_doubt(tmp_path / "doubt.png", {"nats": (shares, success)})
    (line,) = drawn[0].axes[0].lines
    assert line.get_label() == "nats"
    assert np.allclose(line.get_xdata(), [50, 100]) and np.allclose(line.get_ydata(), [100, 50])
