"""Meta-World's demonstrations: a whole folder in the table's form, held-out episodes of all tasks."""

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="pip install -r requirements-robot.txt")

from base import observations
from robot import data, metaworld_demos, stills
from robot.checking import check
from robot.episodes import Episodes
from worlds import metaworld


def test_the_last_episodes_have_all_tasks_again():
    tasks = ["a", "b", "c", "d"]
    names = metaworld_demos.schedule(tasks, 400)
    assert len(names) == 400 and {names.count(task) for task in tasks} == {100}
    assert set(names[-data.held_out(400) :]) == set(tasks)
    changes = sum(one != other for one, other in zip(names, names[1:], strict=False))
    assert changes == 2 * len(tasks) - 1


def test_the_demonstrations_are_a_sound_dataset(metaworld_robot):
    folder = metaworld_robot / "data" / "demos"
    assert check(folder) == []
    episodes = Episodes(folder, state=metaworld_demos.FULL, cameras=[])
    assert episodes.fps == 80 and episodes.states.shape[1] == 39
    texts = {metaworld.TASKS[name][1] for name in ("reach-v3", "drawer-close-v3")}
    assert set(episodes.tasks.values()) == texts


def test_a_still_names_its_two_things(metaworld_robot):
    robot_data = data.RobotData(metaworld_robot / "data")
    arrays = robot_data.stills
    assert len(robot_data) == 10 and arrays["words"].shape[:2] == (10, 1)
    assert np.array_equal(arrays["take"][:, 0], arrays["places"][:, 0])
    assert np.array_equal(arrays["put"][:, 0], arrays["places"][:, 1])
    assert (arrays["real"].sum(1) == 2).all() and (arrays["index"] == [0, 1]).all()
    assert arrays["kinds"].shape == (10, observations.MOST, len(stills.KINDS))
    # Moments of an episode differ, and so do episodes.
    assert len(np.unique(arrays["take"][:, 0].round(4), axis=0)) > 2
