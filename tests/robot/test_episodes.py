"""The reader: our folders, folders as other people write them, chunks, and errors of one line."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from base.files import UserError
from robot import layout, reading
from robot.episodes import Episodes
from tests.making.demonstrations import FILE_MB, FRONT, LENGTHS, episode, record, recorder


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return record(tmp_path_factory.mktemp("robot") / "data", data_file_mb=FILE_MB)


@pytest.fixture
def copy(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "copy")


def refused(folder, *words, **more) -> None:
    with pytest.raises(UserError) as error:
        Episodes(folder, **more)
    for word in words:
        assert word in str(error.value)


def test_chunks_repeat_the_last_action(clean):
    read = Episodes(clean)
    actions, is_pad = read.chunk(3, 4)
    own = episode(0)["action"]
    assert np.array_equal(actions, own[[3, 4, 4, 4]]) and actions.dtype == np.float32
    assert is_pad.tolist() == [False, False, True, True]
    actions, is_pad = read.chunk(5, 3)  # the episode of one frame
    assert np.array_equal(actions, episode(1)["action"][[0, 0, 0]]) and is_pad.tolist()[0] is False
    assert not read.chunk(0, 5)[1].any()


def test_images_come_in_the_order_asked_for(clean):
    every = np.concatenate([episode(number)[FRONT] for number in range(4)])
    for read in (Episodes(clean), Episodes(clean, decoded=True)):
        for indices in ([15, 0, 7, 7], range(16), [5]):
            assert np.array_equal(read.images(indices, FRONT), every[list(indices)])


def test_encoded_images_do_not_pile_up(clean, monkeypatch):
    monkeypatch.setattr("robot.episodes.ROW_GROUPS", 2)
    read = Episodes(clean)
    read.images(range(16), FRONT)
    assert len([key for key in read.groups if len(key) == 3]) == 2 and not read.pixels


def as_others_write(folder) -> None:
    """Other names, float64 in plain lists, a row group for all, JPEG, and a stale file number."""
    tables = [pq.read_table(path) for path in reading.data_paths(folder, {})]
    table = pa.concat_tables(tables)
    actions = pa.array([[float(v) for v in row] for row in table["action"].to_pylist()])
    table = table.drop_columns(["action"]).append_column("action.joints", actions)
    shutil.rmtree(folder / "data")
    (folder / "data/chunk-000").mkdir(parents=True)
    pq.write_table(table, folder / "data/chunk-000/file-007.parquet")
    info = json.loads((folder / layout.INFO).read_text())
    info["features"]["action.joints"] = {**info["features"].pop("action"), "dtype": "float64"}
    info["fps"], info["strange"] = 10.0, {"key": 1}
    (folder / layout.INFO).write_text(json.dumps(info))
    (folder / layout.CHECKSUMS).unlink()


def test_folders_of_other_people(copy, clean):
    as_others_write(copy)
    theirs, ours = Episodes(copy, action="action.joints"), Episodes(clean)
    assert np.array_equal(theirs.actions, ours.actions) and theirs.actions.dtype == np.float32
    assert np.array_equal(theirs.images([9, 2], FRONT), ours.images([9, 2], FRONT))
    assert Episodes(copy, state=None, action="action.joints", cameras=[]).states.shape == (16, 0)
    refused(copy, "no feature action with numbers", "did you mean action.joints?")
    refused(copy, "no feature front with an image", action="action.joints", cameras=["front"])


def change_info(folder, **entries) -> None:
    path = folder / layout.INFO
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_version_2_1_is_refused_with_the_converter(copy):
    change_info(copy, codebase_version="v2.1")
    refused(copy, "codebase_version 'v2.1'; expected v3.0", "convert_dataset_v21_to_v30")


def test_videos_need_pyav(copy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    features = json.loads((copy / layout.INFO).read_text())["features"]
    features[FRONT]["dtype"] = "video"
    change_info(copy, features=features)
    refused(copy, "found videos, and no PyAV; expected the module av; pip install av")
    assert len(Episodes(copy, cameras=[])) == 16


def test_not_a_dataset(tmp_path, copy):
    refused(tmp_path, "meta/info.json", "a folder with a LeRobot dataset v3.0")
    writer = recorder(tmp_path / "half")
    writer.add(episode(0), "wait")
    refused(tmp_path / "half", "an unfinished recording")
    change_info(copy, fps="ten")
    refused(copy, "with fps 'ten'; expected a value of type int")


def test_a_truncated_file_is_named(copy):
    path = copy / layout.data_name(1)
    path.write_bytes(path.read_bytes()[:-9])
    refused(copy, "file-001.parquet, which is truncated or damaged")


def rewrite(folder, name: str, values: list) -> None:
    """Replace a column of the first data file."""
    path = folder / layout.data_name(0)
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, name, pa.array(values)), path)


def test_rows_that_do_not_fit_are_refused(copy, clean):
    rows = len(pq.read_table(clean / layout.data_name(0)))
    rewrite(copy, "action", [[0.1, 0.2, 0.3]] * rows)
    refused(copy, "action with 3 numbers per row; expected 2")
    rewrite(copy, "action", [[0.1, float("nan")]] * rows)
    refused(copy, "action [0.1", "nan] in episode 0 (index 0)")
    rewrite(copy, "action", [[0.1, 0.1]] * rows)
    rewrite(copy, "task_index", [9] * rows)
    refused(copy, "rows with task_index 9")
    rewrite(copy, "index", [1] * rows)
    refused(copy, "whose rows are not numbered")


def test_offsets_that_do_not_fit_are_refused(copy):
    path = copy / layout.data_name(0, layout.EPISODES_PATH)
    table = pq.read_table(path)
    place = table.schema.get_field_index("dataset_from_index")
    shifted = pa.array([0, LENGTHS[0] + 1, 6, 13])
    pq.write_table(table.set_column(place, "dataset_from_index", shifted), path)
    refused(copy, "whose episodes do not fit its 16 rows")


def test_an_image_that_does_not_decode_is_named(copy):
    rows = pq.read_table(copy / layout.data_name(0))[FRONT].to_pylist()
    rows[2]["bytes"] = rows[2]["bytes"][:50]
    rewrite(copy, FRONT, rows)
    with pytest.raises(UserError) as error:
        Episodes(copy).images([0, 2], FRONT)
    assert "at index 2" in str(error.value) and "does not decode" in str(error.value)
