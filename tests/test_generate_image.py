"""Painting, captioning and editing as a user runs them; each picture is the same in any batch."""

import numpy as np
import pytest
from PIL import Image

import evaluate
import generate_image
from base.files import UserError
from image import candidates
from loop import checkpoint
from tests.making.painted import make_pictures, make_reader, train
from tools import paint_scores


def run(painted, out, *flags: str):
    where = ["--checkpoint", str(painted.painter), "--data_dir", str(painted.data)]
    more = ["--out", str(out), "--device", "cpu", "--threads", "1", "--steps", "3"]
    generate_image.main([*where, *more, *flags])


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pictures_of_a_prompt(painted, tmp_path, capsys):
    prompt = ["--prompt", "a red star above a blue circle"]
    judged = ["--reader", str(painted.reader), "--html", str(tmp_path / "page.html")]
    # Four samples: a network of a few steps may draw two alike.
    run(painted, tmp_path / "two", *prompt, "--num_samples", "4", *judged)
    said = capsys.readouterr().out
    assert said.count("(false)") == 4 and "not so: red star" in said
    assert (tmp_path / "page.html").read_text().count("<article") == 4
    run(painted, tmp_path / "one", *prompt, "--reader", "none")
    first, *others = (pixels(tmp_path / "two" / f"00{n}.png") for n in range(4))
    assert first.shape == (24, 24, 3) and any((first != other).any() for other in others)
    assert (pixels(tmp_path / "one" / "000.png") == first).all()
    assert "(not judged)" in capsys.readouterr().out


def test_words_outside_of_the_grammar(painted, tmp_path, capsys):
    run(painted, tmp_path, "--prompt", "a very red star", "--reader", str(painted.reader))
    assert "outside of the grammar" in capsys.readouterr().out and (tmp_path / "000.png").exists()


def test_an_edit_and_a_caption(painted, tmp_path, capsys):
    picture = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    words = ["--prompt", "a red star above a blue circle", "--change", "the star is green"]
    image = ["--image", str(tmp_path / "x.png")]
    page = ["--html", str(tmp_path / "page.html")]
    run(painted, tmp_path / "out", *image, *words, "--box", "0,0,0.3,0.3", *page)
    after = pixels(tmp_path / "out" / "x_000.png")
    assert (after[8:] == picture[8:]).all() and (after[:8, :8] != picture[:8, :8]).any()
    assert "a green star above a blue circle" in capsys.readouterr().out
    assert "drawn again" in (tmp_path / "page.html").read_text()
    run(painted, tmp_path / "out", "--caption", str(tmp_path / "x.png"))
    assert "nats/token" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, problem",
    [
        ([], "nothing to do"),
        (["--caption", "x.png", "--prompt", "a star"], "one job at a time"),
        (["--caption", "x.png", "--best_of", "2"], "--best_of with --caption"),
        (["--prompt", "a star", "--change", "the star is green"], "add --image"),
        (["--image", "x.png", "--prompt", "a star"], "without a change"),
        (["--image", "x.png", "--change", "x", "--box", "0,0,3,3"], "as shares of the side"),
        (["--caption", "missing.png"], "missing.png"),
        (["--prompt", "star " * 200], "a prompt of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(painted, tmp_path, flags, problem):
    with pytest.raises(UserError, match=problem):
        run(painted, tmp_path / "out", *flags)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_with_plans_from_training_to_scores(tmp_path, capsys, monkeypatch):
    """A twin, a painter of blocks from it, a picture, a caption, a change, bounds and scores."""
    data = tmp_path / "data"
    make_pictures(data, planned=2)
    make_reader(tmp_path / "reader")
    twin = train(data, tmp_path / "twin", "--objective", "ar", "--plan_reach", "2")
    blocks = ["--init_from", str(twin), "--logit_shift", "--block_sizes", "1,3"]
    hiding = ["--plan_reach", "2", "--share_hidden", "0.5"]
    painter = train(data, tmp_path / "painter", *blocks, *hiding)
    choose, chosen = candidates.best, []

    def spy(*given):
        chosen.append(given[-1])
        return choose(*given)

    monkeypatch.setattr(candidates, "best", spy)
    own = ["--data_dir", str(data), "--device", "cpu", "--threads", "1"]
    reader = ["--reader", str(tmp_path / "reader")]
    for path in (twin, painter):
        evaluate.main(["--checkpoint", str(path), *own])
        assert "p(plan given caption)" in capsys.readouterr().out
        where = ["--checkpoint", str(path), *own, *reader, "--out", str(tmp_path / "out")]
        generate_image.main([*where, "--prompt", "a red star", "--steps", "9"])
        assert "plan: " in capsys.readouterr().out
    words = [*own, *reader, "--prompt", "a red star", "--steps", "9", "--sharpen", "3"]
    generate_image.main(["--checkpoint", str(painter), *words, "--out", str(tmp_path / "new")])
    guess = ["--speculate", "2", "--sampler", "left_to_right"]
    generate_image.main(["--checkpoint", str(painter), *words, *guess, "--out", str(tmp_path)])
    with pytest.raises(UserError, match="expected a diffusion network of a folder with plans"):
        generate_image.main(["--checkpoint", str(twin), *words, "--out", str(tmp_path / "no")])
    assert not list((tmp_path / "no").glob("*.png"))
    image = ["--image", str(tmp_path / "out" / "000.png"), "--prompt", "a red star"]
    page = ["--html", str(tmp_path / "page.html"), "--steps", "9"]
    generate_image.main([*where, *image, "--change", "the star is green", *page, "--best_of", "3"])
    assert chosen[-1] == 3
    said = capsys.readouterr().out
    assert "a green star" in said and "plan: " in (tmp_path / "page.html").read_text()
    generate_image.main([*where[:2], *own, "--caption", str(tmp_path / "out" / "000.png")])
    assert "plan: " in capsys.readouterr().out
    best = [*own, *reader, "--prompt", "a red star", "--steps", "9", "--best_of", "2"]
    page = tmp_path / "best.html"
    generate_image.main(
        ["--checkpoint", str(painter), *best, "--out", str(tmp_path / "best"), "--html", str(page)]
    )
    assert len(list((tmp_path / "best").glob("*.png"))) == 1 and "best of" in page.read_text()
    assert chosen[-1] == 2
    with pytest.raises(UserError, match="--best_of 2 with a network that paints no plans"):
        generate_image.main(["--checkpoint", str(twin), *best, "--out", str(tmp_path / "none")])
    # A resumed run keeps its reach; without the flag it is 4. Another order of plans is refused.
    train(data, tmp_path / "painter", "--resume", "--max_steps", "5")
    assert checkpoint.open_model(painter)[0].config.plan_reach == 2
    monkeypatch.setattr("worlds.plans.ORDER", "another")
    for again in (
        lambda: evaluate.main(["--checkpoint", str(painter), *own]),
        lambda: train(data, tmp_path / "painter", "--resume", "--max_steps", "6"),
    ):
        with pytest.raises(UserError, match="expected plans from the top"):
            again()
    monkeypatch.undo()
    chosen.clear()
    monkeypatch.setattr(candidates, "best", spy)
    counts = ["--step_counts", "9", "--edits", "1", "--splits", "val", "--captions", "2"]
    both = ["--checkpoint", str(painter), "--twin", str(twin)]
    with pytest.raises(UserError, match="--sharpen 2"):
        paint_scores.main([*both[2:], "--checkpoint", str(twin), *own, *counts, "--sharpen", "2"])
    paint_scores.main([*both, *own, *reader, *counts, "--sharpen", "2", "--best_of", "2"])
    said = capsys.readouterr().out
    ours = "model, 9 calls, best of 2"
    rows = (f"{ours}, plans", f"{ours} and 13 for the plan", f"{ours}, of its plan")
    assert set(chosen) == {1, 2} and "twin, 9 calls and" in said
    for row in (*rows, "twin, plans", "model, captions"):
        assert f"| val | {row} |" in said
