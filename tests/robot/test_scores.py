"""Scores: the expert is done, controls take away what they say, figures are counted right."""

import numpy as np
import pytest

from base.errors import UserError
from robot import scores, stills
from robot.scores import Episode, Trial
from worlds import tasks
from worlds.expert import Expert
from worlds.layouts import sample_layout
from worlds.table import TableEnv


class ExpertDriver:
    """Drives as the expert does, who needs the table itself."""

    def __init__(self, env):
        self.env, self.expert = env, None
        self.seconds, self.made = [], []

    def begin(self, text):
        self.text = text
        return []

    def next(self, seen):
        if self.expert is None:
            self.expert = Expert(self.env.task, np.random.default_rng(0))
        return self.expert.act(self.env)


def test_the_expert_does_what_is_said(robot_world):
    env = TableEnv()
    for control in ("none", "swapped"):
        trial = Trial(splits="val,held_pair", episodes=2, control=control)
        found = scores.run(env, lambda number: ExpertDriver(env), trial)
        assert [episode.end for episode in found] == [True] * 4
        assert all(episode.wrong == 0 for episode in found)
        assert not any(episode.old for episode in found)


def test_the_same_trial_has_the_same_tasks():
    texts = []
    for _ in range(2):
        drawn = [scores.draw_task(Trial(), "val", number)[0].text for number in range(5)]
        texts.append(drawn)
    assert texts[0] == texts[1] and len(set(texts[0])) > 1


def test_blind_sees_no_difference():
    layout = sample_layout(np.random.default_rng(0))
    seen = {"state": np.ones(8), "image": np.zeros((4, 4, 3), np.uint8), "things": np.ones((5, 3))}
    shown = scores.blind(seen | {"kinds": stills.kinds_of(layout)})
    kinds = shown["kinds"]
    assert (shown["image"] == scores.GREY).all() and (shown["state"] == 1).all()
    real = kinds.sum(1) > 0
    assert real.sum() == len(layout.everything())
    assert (kinds[real] == kinds[0]).all()


def episode(end, ever, wrong, verb="pick", word="") -> Episode:
    return Episode("val", verb, word, "x", ever, end, False, wrong, 20, [], [0.01])


def test_figures_are_counts_with_intervals():
    some = [episode(True, True, 0), episode(False, True, 2), episode(False, False, 0)]
    found = scores.figures(some)
    assert (found["end"], found["ever"], found["wrong"]) == (1 / 3, 2 / 3, 1 / 3)
    assert found["end_ci95"] == pytest.approx([0.0615, 0.7923], abs=1e-3)
    assert found["ms_per_chunk"] == 10 and found["steps"] == 20
    table = scores.summary(
        [*some, episode(True, True, 0, "put", "on"), episode(True, True, 0, "put", "behind")]
    )
    assert list(table["val"]) == ["pick", "put", "relation", "all"]
    assert scores.rows(table)[1][3] == "33.3% [6.1, 79.2]"


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="held_pair"):
        Trial(splits="val,held_pairs").split_names()


def test_no_trial_shows_a_table_of_the_recordings():
    recorded = set()
    for number in range(40):
        for stream in ([0, 0, number, 0], [0, 1, number], [0, 2, number]):
            layout = tasks.sample_task(np.random.default_rng(stream), "train").layout
            recorded.add(str(layout.to_dict()))
    for number in range(40):
        task, _ = scores.draw_task(Trial(), "val", number)
        assert str(task.layout.to_dict()) not in recorded
