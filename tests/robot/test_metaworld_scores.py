"""Closed loop at Meta-World: groups, controls, words that are said, what is refused."""

import json

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="pip install -r requirements-robot.txt")

import run_policy
from base.errors import UserError
from robot import film, metaworld_scores
from robot.scores import Episode, Trial, summary
from worlds import metaworld

TRAINED = ["reach-v3", "drawer-close-v3"]


def test_what_a_policy_hears():
    rng = np.random.default_rng(0)
    texts = {name: metaworld.TASKS[name][1] for name in TRAINED}
    hear = metaworld_scores.said_at
    assert hear(Trial(), "reach-v3", TRAINED, rng) == texts["reach-v3"]
    assert hear(Trial(control="swapped"), "reach-v3", TRAINED, rng) == texts["drawer-close-v3"]
    assert hear(Trial(control="no_words"), "drawer-close-v3", TRAINED, rng) == "xxx xxx xxx"
    assert hear(Trial(instruction="wave"), "reach-v3", TRAINED, rng) == "wave"
    with pytest.raises(UserError, match="single task"):
        hear(Trial(control="swapped"), "reach-v3", TRAINED[:1], rng)


def episode(group: str, task: str, ever: bool) -> Episode:
    return Episode(group, task, "", "", ever, ever, False, 0, 9, [], [0.001])


def test_the_average_is_of_groups_and_not_of_tasks():
    episodes = [episode("easy", "reach-v3", True)] * 9
    episodes += [episode("hard", "push-v3", False)]
    table = summary(episodes)
    assert table["easy"]["reach-v3"]["ever"] == 1
    assert metaworld_scores.mean_of_groups(table) == 0.5


@pytest.mark.parametrize("control", ["none", "no_image"])
def test_a_policy_is_run_on_the_tasks_that_it_learned(metaworld_robot, tmp_path, capsys, control):
    path = tmp_path / "figures.json"
    policy = str(metaworld_robot / "policy" / "best.pt")
    arguments = ["--checkpoint", policy, "--episodes", "1", "--json", str(path)]
    run_policy.main([*arguments, "--control", control, "--splits", "reach-v3"])
    found = json.loads(path.read_text())["splits"]
    assert found["easy"]["all"]["episodes"] == 1 and list(found["easy"]) == ["reach-v3", "all"]
    assert "mean of the groups" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--splits", "val"], "the tasks val"),
        (["--verb", "pick"], "--splits"),
    ],
)
def test_what_belongs_to_the_table_is_refused(metaworld_robot, flags, part):
    with pytest.raises(UserError, match=part):
        run_policy.main(["--checkpoint", str(metaworld_robot / "policy" / "best.pt"), *flags])


def test_a_page_keeps_every_eighth_image(metaworld_robot, tmp_path):
    try:
        film.require()
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    page = tmp_path / "page.html"
    policy = str(metaworld_robot / "policy" / "best.pt")
    arguments = ["--checkpoint", policy, "--episodes", "2", "--splits", "reach-v3"]
    run_policy.main([*arguments, "--html", str(page), "--clips", "1"])
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 1 and "A policy at Meta-World" in text
    (clip,) = json.loads(text.split('id="data"')[1].split(">", 1)[1].split("</script>")[0])
    assert clip["stride"] == 8
    # A policy of a few steps reaches nothing: 500 steps, the first image apart.
    assert len(clip["frames"]) == 500 // 8 + 1
    assert 0 <= clip["chunks"][0]["take"][0] <= 1
