"""The figures of painted pictures: ceilings first, the twin beside, edits that keep other tokens."""

import json

import numpy as np
import pytest
import torch

from base.files import UserError
from image import drawn, studio
from image.data import PictureData
from image.writer import Said
from tests.making.painted import train
from tools import paint_scores
from worlds import changes
from worlds.scenes import Object, Scene


def flags_of(painted, *more: str) -> list[str]:
    where = ["--checkpoint", str(painted.painter), "--data_dir", str(painted.data)]
    return [*where, "--reader", str(painted.reader), "--device", "cpu", "--threads", "1", *more]


def test_a_table(painted, tmp_path, capsys):
    path = tmp_path / "scores.json"
    more = ["--twin", str(painted.twin), "--splits", "val", "--step_counts", "2,3", "--edits", "2"]
    paint_scores.main(flags_of(painted, *more, "--json", str(path), "--batch_size", "3"))
    result = json.loads(path.read_text())
    names = [
        "true pictures",
        "true tokens",
        "model, captions",
        "model, 2 calls",
        "model, 3 calls",
        "twin, 9 calls",
    ]
    assert list(result["splits"]["val"]) == names
    for row in result["splits"]["val"].values():
        low, high = row["truthful_ci95"]
        assert low <= row["truthful"] <= high and row["captions"] == 4
    assert "seen" not in result["splits"]["val"]["model, captions"]  # the true scene judges
    assert result["edits"]["edits"] == 2 and result["edits"]["same"] == 1
    assert 0 <= result["edits"]["ceiling_both"] <= 1
    printed = capsys.readouterr().out
    assert "| val | twin, 9 calls |" in printed and "2 edits" in printed


def test_a_split_that_is_not_there(painted):
    with pytest.raises(UserError, match="no split 'held'"):
        paint_scores.main(flags_of(painted, "--splits", "held", "--prompts", "0"))


def test_captions_are_judged_on_the_true_scene(painted, monkeypatch, capsys):
    """A stand-in that writes the true captions is always right, whatever the reader sees."""
    captions = [record["captions"][0] for record in PictureData(str(painted.data)).records("val")]

    def truth(opened, tokens, lengths=8, seed=0, first=0):
        texts = captions[first : first + len(tokens)]
        return [Said(text, 1.0, 3) for text in texts]

    monkeypatch.setattr(paint_scores.Studio, "describe", truth)
    more = ["--splits", "val", "--step_counts", "1", "--edits", "0", "--batch_size", "3"]
    paint_scores.main(flags_of(painted, *more))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "captions" in line]
    assert row.split("|")[3].strip().startswith("100.0")


@pytest.mark.parametrize(("direction", "rows"), [("to_words", 1), ("to_picture", 1)])
def test_a_network_of_one_direction_is_scored_on_it(painted, monkeypatch, capsys, direction, rows):
    monkeypatch.setattr(paint_scores.Studio, "directions", direction)
    more = ["--splits", "val", "--step_counts", "1", "--edits", "1", "--prompts", "2"]
    paint_scores.main(flags_of(painted, *more))
    printed = capsys.readouterr().out
    assert printed.count("| val | model, ") == rows
    assert ("model, captions" in printed) == (direction == "to_words")
    assert ("1 edits" in printed) == (direction == "to_picture")


def test_an_edit_and_its_ceiling(painted):
    """The ceiling is the true picture after the change, in the places that were drawn again."""
    opened = studio.open_studio(str(painted.painter), str(painted.data), torch.device("cpu"))
    star = Object("star", "red", "small", "solid", 0.3, 0.3)
    circle = Object("circle", "blue", "small", "solid", 0.7, 0.7)
    scene = Scene([star, circle])
    changed = changes.change_caption(
        "a red star above a blue circle", changes.read("the star is green")
    )
    after = changes.change_scene(scene, changed.change)
    shown = []

    class Eyes:
        def read(self, pictures):
            shown.extend(pictures)
            return [scene, scene, after][: len(pictures)]

    side = opened.codes.config.side
    old, true = drawn.picture(scene, side), drawn.picture(after, side)
    tokens = opened.tokens(np.stack([old, true]))
    everywhere = torch.ones(len(tokens[0]), dtype=torch.bool)
    found = paint_scores.judged_edit(opened, scene, changed, everywhere, tokens[0], Eyes())
    assert found == {
        "before": True,
        # No star is green, so none is above the circle either.
        **{"changed": False, "kept": False, "both": False},
        **{"ceiling_changed": True, "ceiling_kept": True, "ceiling_both": True},
    }
    assert (shown[0] == old).all() and (shown[1:] == opened.pixels(tokens)).all()
    shown.clear()
    paint_scores.judged_edit(opened, scene, changed, ~everywhere, tokens[0], Eyes())
    assert (np.stack(shown) == old).all()
    gone = Scene([circle])  # the words fit, but not this scene: there is no ceiling
    assert "ceiling_both" not in paint_scores.judged_edit(
        opened, gone, changed, everywhere, tokens[0], Eyes()
    )


def test_too_few_calls_are_refused_before_all_work(painted, tmp_path, monkeypatch):
    """Also behind a number of calls that is enough."""
    run = train(painted.data, tmp_path / "run", "--block_sizes", "1,3")
    monkeypatch.setattr(paint_scores, "score_split", lambda *_: pytest.fail("work was done"))
    flags = ["--checkpoint", str(run), "--data_dir", str(painted.data), "--block_size", "3"]
    with pytest.raises(UserError, match="2 calls for a picture in blocks of 3"):
        paint_scores.main([*flags, "--step_counts", "3,2", "--device", "cpu"])
