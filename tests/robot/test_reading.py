"""The low-level reader: columns of any writer become matrices, or an error of one line."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from base.files import UserError
from robot import layout, reading


@pytest.mark.parametrize(
    "values, kind, width",
    [
        ([1.0, 2.0], pa.float32(), 1),
        ([[1.0, 2.0]], pa.list_(pa.float64()), 2),
        ([[1.0, 2.0]], pa.list_(pa.float32(), 2), 2),
        ([[[1, 2], [3, 4]]], pa.list_(pa.list_(pa.int64())), 4),
        ([True, False], pa.bool_(), 1),
    ],
)
def test_columns_become_matrices(values, kind, width):
    rows = reading.matrix(pa.chunked_array([pa.array(values, kind)]), width, "here")
    assert np.array_equal(rows, np.array(values).reshape(-1, width))


def test_a_sliced_column_keeps_its_own_rows():
    column = pa.chunked_array([pa.array([[1.0], [2.0], [3.0]], pa.list_(pa.float32(), 1))])
    assert reading.matrix(column[1:], 1, "here").tolist() == [[2], [3]]


@pytest.mark.parametrize(
    "values, kind",
    [
        ([[1.0, 2.0], [1.0]], pa.list_(pa.float32())),
        ([[1.0, None]], pa.list_(pa.float32())),
        ([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        ([[1.0, 2.0, 3.0]], pa.list_(pa.float32())),
        ([["a", "b"]], pa.list_(pa.string())),
    ],
)
def test_columns_of_another_kind_are_refused(values, kind):
    with pytest.raises(UserError) as error:
        reading.matrix(pa.chunked_array([pa.array(values, kind)]), 2, "here")
    assert str(error.value).startswith("found here ")


def test_tasks_under_either_name(tmp_path):
    for name in ("task", "__index_level_0__"):
        path = tmp_path / name / layout.TASKS
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({name: ["b", "a"], "task_index": [1, 0]}), path)
        assert reading.read_tasks(tmp_path / name) == {1: "b", 0: "a"}


def test_files_are_in_the_order_of_their_numbers(tmp_path):
    names = ["chunk-000/file-999", "chunk-000/file-1000", "chunk-001/file-000"]
    for name in reversed(names):
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    paths = reading.data_paths(tmp_path, {})
    assert [f"{path.parent.name}/{path.stem}" for path in paths] == names


def test_patterns_of_other_people():
    assert reading.filled("v/{video_key}/{file_index:03d}", 0, 7, video_key="a") == "v/a/007"
    with pytest.raises(UserError):
        reading.filled("{episode}", 0, 0)
    with pytest.raises(UserError):
        reading.data_paths(".", {"data_path": "../x/{chunk_index}"})
