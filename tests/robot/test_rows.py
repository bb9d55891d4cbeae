"""Rows of data files: runs of episodes, and the first wrong frame of each."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robot import layout, reading
from robot.rows import Fault, Rows
from tests.making.demonstrations import FILE_MB, FRONT, LENGTHS, record


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return record(tmp_path_factory.mktemp("robot") / "data", data_file_mb=FILE_MB)


def rows_of(folder) -> Rows:
    rows = Rows(folder, reading.read_info(folder), reading.read_tasks(folder))
    rows.read()
    return rows


def test_the_runs_are_the_episodes(clean):
    rows = rows_of(clean)
    assert rows.whole and not rows.faults and rows.total == 16
    assert [run.length for run in rows.runs] == list(LENGTHS)
    assert [run.start for run in rows.runs] == [0, 5, 6, 13]
    assert rows.counts[FRONT, 2].sum() == 7 * 6 * 8 * 3


def test_a_fault_is_one_line():
    assert str(Fault("a", "b\nc", "d", 3, 0)) == "a, episode 3, frame 0: found b c; expected d"


def test_the_first_wrong_frame_of_each_episode():
    rows = Rows(None, {}, None)
    mask = np.array([False, True, True, False, True])
    found = rows.first_wrong(mask, np.array([4, 4, 4, 5, 5]))
    assert found == [(1, " (and 1 more frames are wrong)"), (4, "")]


def test_a_missing_episode_is_named(clean, tmp_path):
    table = pq.read_table(clean / layout.data_name(0))
    place = table.schema.get_field_index("episode_index")
    changed = table.set_column(place, "episode_index", pa.array([0] * 5 + [2]))
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    pq.write_table(changed, tmp_path / layout.data_name(0))
    rows = Rows(tmp_path, reading.read_info(clean), None)
    rows.read()
    assert [str(fault) for fault in rows.faults] == [
        f"{layout.data_name(0)}: found episode_index 2 at row 5; expected 1, the next episode"
    ]
