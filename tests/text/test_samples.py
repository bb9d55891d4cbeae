"""Samples over a grid: each cell is judged as human text is, and the twin has one cell."""

from base.config import SampleConfig
from tests.making.scored import scored
from text import samples

FEW = ("--num_samples", 3, "--min_tokens", 10)


def test_sample_grid(text_runs, tmp_path, capsys):
    picture = tmp_path / "grid.png"
    words = ["--samples", "--judge", text_runs.twin, *FEW]
    grid = ["--samplers", "first_hitting,threshold", "--step_counts", "4,8", "--picture", picture]
    rows = scored(text_runs.denoiser, text_runs.data, tmp_path, *words, *grid)["samples"]
    assert [(row["sampler"], row["steps"]) for row in rows] == [
        ("human text", 0),
        ("first_hitting", 4),
        ("first_hitting", 8),
        ("threshold", 4),
        ("threshold", 8),
    ]
    figures = {"judge_nats_per_token", "unigram_entropy", "distinct_1", "distinct_2"}
    figures |= {"distinct_3", "repetition_4"}
    assert all(figures <= row.keys() for row in rows)
    assert all(1 <= row["calls"] <= row["steps"] for row in rows[1:])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| human text | 0 |" in capsys.readouterr().out
    own = scored(text_runs.twin, text_runs.data, tmp_path, *words)["samples"]
    assert [row["sampler"] for row in own] == ["human text", "left_to_right"]


def test_cells_are_samplers_times_steps():
    settings = SampleConfig(temperature=0.7)
    cells = samples.cells("diffusion", settings, "remask,confidence", [2, 4])
    pairs = [(cell.sampler, cell.steps) for cell in cells]
    assert pairs == [("remask", 2), ("remask", 4), ("confidence", 2), ("confidence", 4)]
    assert {cell.temperature for cell in cells} == {0.7}
    (only,) = samples.cells("ar", settings, "remask,confidence", [2, 4])
    assert only.sampler == "left_to_right"
