"""The recorder: what was added comes back, a stopped recording continues, bad input is refused."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from base import files
from base.files import UserError
from robot import layout
from robot.episodes import Episodes
from tests.making.demonstrations import (
    FILE_MB,
    FRONT,
    LENGTHS,
    STATE,
    TASKS,
    episode,
    record,
    recorder,
)


def contents(folder) -> dict:
    """The bytes of every file of a dataset."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_arrays_come_back_equal(tmp_path):
    read = Episodes(record(tmp_path / "data"))
    assert read.lengths.tolist() == list(LENGTHS)
    for number in range(4):
        back, given = read.episode(number), episode(number)
        assert np.array_equal(back[FRONT], given[FRONT])
        assert np.array_equal(back["state"], given[STATE])
        assert np.array_equal(back["action"], given["action"])
    # Of several instructions, frame i carries number i modulo their count.
    assert [read.task(index) for index in range(6)] == [*TASKS[0], *TASKS[0], TASKS[0][0], "wait"]


def test_a_resumed_recording_equals_a_straight_one(tmp_path):
    """Stopped before the first episode, in the middle, and while it finished."""
    straight = contents(record(tmp_path / "straight", data_file_mb=FILE_MB))
    for stop in range(5):
        folder = tmp_path / f"stopped{stop}"
        writer = recorder(folder, data_file_mb=FILE_MB)
        for number in range(stop):
            writer.add(episode(number), TASKS[number])
        if stop == 4:  # as if killed in `finish`: files are there, their checksums are not
            writer.write_data()
        again = recorder(folder, data_file_mb=FILE_MB)
        assert again.count == stop
        assert contents(record(folder, data_file_mb=FILE_MB)) == straight
        assert recorder(folder, data_file_mb=FILE_MB).count == 4  # finished: nothing to do


def test_a_killed_write_leaves_no_half_episode(tmp_path, monkeypatch):
    writer = recorder(tmp_path / "data")
    writer.add(episode(0), "wait")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.add(episode(1), "wait")
    monkeypatch.undo()
    assert writer.count == 1 and recorder(tmp_path / "data").count == 1


def test_a_row_group_per_episode_and_the_next_file_at_the_limit(tmp_path):
    folder = record(tmp_path / "data", data_file_mb=FILE_MB)
    groups = [pq.ParquetFile(path).num_row_groups for path in sorted(folder.glob("data/*/*"))]
    assert groups == [2, 2]
    one = record(tmp_path / "one")
    assert pq.ParquetFile(one / layout.data_name(0)).num_row_groups == 4


@pytest.mark.parametrize(
    "change, words",
    [
        ({"action": np.full((5, 2), np.nan, np.float32)}, "action [nan, nan] in frame 0"),
        ({"action": np.full((5, 2), 1.5, np.float32)}, "give the recorder their action_range"),
        ({"action": np.zeros((5, 3), np.float32)}, "float32 of shape (5, 3); expected"),
        ({"action": np.zeros((4, 2), np.float32)}, "the same number from 1 for each"),
        ({STATE: np.full((5, 3), 1e300)}, "observation.state [inf, inf, inf]"),
        ({STATE: np.zeros((5, 3), int)}, "observation.state of episode 0: int64"),
        ({FRONT: np.zeros((5, 6, 8, 3))}, "observation.images.front of episode 0: float64"),
        ({"more": np.zeros(5)}, "give every feature, and no other"),
    ],
)
def test_bad_episodes_are_refused(tmp_path, change, words):
    writer = recorder(tmp_path / "data")
    with pytest.raises(UserError) as error:
        writer.add({**episode(0), **change}, "wait")
    assert words in str(error.value) and writer.count == 0


@pytest.mark.parametrize("task", ["", [], ["wait", " "], ["a", "b", "c", "d", "e", "f"]])
def test_bad_instructions_are_refused(tmp_path, task):
    with pytest.raises(UserError):
        recorder(tmp_path / "data").add(episode(0), task)


def test_an_empty_episode_is_refused(tmp_path):
    empty = {name: values[:0] for name, values in episode(0).items()}
    with pytest.raises(UserError):
        recorder(tmp_path / "data").add(empty, "wait")


def test_a_given_range_is_kept(tmp_path):
    writer = recorder(tmp_path / "data", action_range=(-2, 2))
    writer.add({**episode(0), "action": np.full((5, 2), 1.5, np.float32)}, "wait")
    writer.finish()
    assert Episodes(tmp_path / "data").actions.max() == 1.5


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "data.txt").write_text("mine")
    with pytest.raises(UserError) as error:
        recorder(tmp_path)
    assert "holds data.txt" in str(error.value)


def test_other_settings_and_finished_datasets_are_refused(tmp_path):
    folder = tmp_path / "data"
    recorder(folder).add(episode(0), "wait")
    with pytest.raises(UserError) as error:
        recorder(folder, about={"seed": 1})
    assert "with about {}; expected about {'seed': 1}" in str(error.value)
    record(folder)
    with pytest.raises(UserError) as error:
        recorder(folder).add(episode(4), "wait")
    assert "a finished dataset of 4 episodes" in str(error.value)
    with pytest.raises(UserError):
        recorder(tmp_path / "none").finish()
