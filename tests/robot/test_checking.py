"""The check: a clean folder passes, and each damage is a line that says where it is."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base import files
from base.files import UserError
from robot import checking, layout
from tests.making.demonstrations import FILE_MB, FRONT, record, recorder

EPISODES = layout.data_name(0, layout.EPISODES_PATH)
DATA = layout.data_name(0)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return record(tmp_path_factory.mktemp("robot") / "data", data_file_mb=FILE_MB)


@pytest.fixture
def copy(clean, tmp_path):
    """A folder without our checksums, as other people write it: only its content can tell."""
    folder = shutil.copytree(clean, tmp_path / "copy")
    (folder / layout.CHECKSUMS).unlink()
    return folder


def change_json(path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_column(path, name: str, change) -> None:
    """Replace a column by `change` of its values."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(place, table.schema.field(name), values), path)


def nan_action(folder):
    change_column(folder / DATA, "action", lambda rows: [*rows[:3], [0, np.nan], *rows[4:]])


def five_more_frames(folder):
    change_json(folder / layout.INFO, lambda info: info.update(total_frames=21))


def unknown_task(folder):
    change_column(folder / DATA, "task_index", lambda rows: [*rows[:2], 7, *rows[3:]])


def shifted_offset(folder):
    change_column(
        folder / EPISODES, "dataset_from_index", lambda rows: [rows[0], rows[1] + 1, *rows[2:]]
    )


def doubled_times(folder):
    change_column(folder / DATA, "timestamp", lambda rows: [2 * time for time in rows])


def no_spread(folder):
    change_json(folder / layout.STATISTICS, lambda whole: whole["action"].update(std=[0, 0]))


def no_spread_in_an_episode(folder):
    change_column(folder / EPISODES, "stats/action/std", lambda rows: [*rows[:2], [0, 0], rows[3]])


def stale_file(folder):
    change_column(folder / EPISODES, "data/file_index", lambda rows: [0] * len(rows))


def truncated(folder):
    path = folder / DATA
    path.write_bytes(path.read_bytes()[:-20])


def wider_action(folder):
    path = folder / DATA
    table = pq.read_table(path)
    wide = pa.array([[0.0, 0.1, 0.2]] * len(table))
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", wide), path)


def broken_image(folder):
    def cut(rows):
        return [*rows[:1], {**rows[1], "bytes": rows[1]["bytes"][:40]}, *rows[2:]]

    change_column(folder / DATA, FRONT, cut)


def other_size(folder):
    change_json(folder / layout.INFO, lambda info: info["features"][FRONT].update(shape=[8, 8, 3]))


def brighter_mean(folder):
    change_json(
        folder / layout.STATISTICS,
        lambda whole: whole[FRONT].update(mean=[[[0.9]], [[0.9]], [[0.9]]]),
    )


def wrong_split(folder):
    change_json(folder / layout.INFO, lambda info: info.update(splits={"train": "0:9"}))


def lost_file(folder):
    (folder / layout.data_name(1)).unlink()


def nameless_task(folder):
    change_column(folder / layout.TASKS, "task", lambda rows: ["", *rows[1:]])


DAMAGES = {
    # the six of docs/log/robot.md
    nan_action: f"{DATA}, episode 0, frame 3: found action [0.0, nan]; expected finite numbers",
    five_more_frames: "meta/info.json: found total_frames 21; expected 16, as the files have",
    unknown_task: f"{DATA}, episode 0, frame 2: found task_index 7; expected one of the 4 in",
    shifted_offset: "meta/episodes, episode 1: found dataset_from_index 6; expected 5",
    doubled_times: "frame 1: found timestamp 0.2 (and 3 more frames are wrong); expected 0.1",
    no_spread: "meta/stats.json: found std of action [0, 0]; expected [0.",
    # more
    no_spread_in_an_episode: "meta/episodes, episode 2: found std of action [0, 0]; expected",
    stale_file: "episode 2: found its data file data/chunk-000/file-000.parquet; expected data/",
    truncated: "file-000.parquet, which is truncated or damaged",
    wider_action: f"{DATA}: found action with 3 numbers per row; expected 2",
    broken_image: f"{DATA}, episode 0, frame 1: found {FRONT} that does not decode; expected an",
    other_size: f"found {FRONT} of 6 × 8 pixels; expected an image of 8 × 8 pixels",
    brighter_mean: f"meta/stats.json: found mean of {FRONT} [0.9, 0.9, 0.9]; expected [0.",
    wrong_split: "meta/info.json: found the split train '0:9'; expected 0:4, or a part of it",
    lost_file: "meta/episodes, episode 2: found length 7; expected 0",
    nameless_task: "meta/tasks.parquet: found task 0 ''; expected a text with words",
}


def test_a_clean_folder_has_no_fault(clean, copy):
    assert checking.check(clean) == [] and checking.check(copy) == []
    report = checking.inspect(copy)
    assert report.notes == ["quantiles were held to their order only: other writers estimate"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_is_a_line(copy, damage):
    damage(copy)
    lines = [str(fault) for fault in checking.check(copy)]
    assert [line for line in lines if DAMAGES[damage] in line], lines
    assert len(lines) < 8 and not [line for line in lines if "\n" in line]


def test_the_checksums_name_each_changed_file(clean, tmp_path):
    folder = shutil.copytree(clean, tmp_path / "copy")
    five_more_frames(folder)
    (folder / layout.data_name(1)).unlink()
    (folder / "data/chunk-000/file-009.parquet").touch()
    lines = [str(fault) for fault in checking.checksum_faults(folder)]
    assert any(line.startswith("meta/info.json: found ") for line in lines)
    assert any(line.startswith("data/chunk-000/file-001.parquet: found no file") for line in lines)
    assert any("file-009.parquet: found a file that was not recorded" in line for line in lines)
    (folder / layout.CHECKSUMS).write_text("{}")
    assert len(checking.checksum_faults(folder)) == 1


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 1 << 20), change=st.integers(1, 255), number=st.integers(0, 5))
def test_any_damaged_byte_is_found(clean, place, change, number):
    """Whatever byte of whatever file changes, the checksums name that file."""
    table = files.read_json(clean / layout.CHECKSUMS, "", "")["files"]
    name = sorted(table)[number % len(table)]
    path = clean / name
    before = path.read_bytes()
    after = bytearray(before)
    after[place % len(before)] ^= change
    try:
        path.write_bytes(after)
        assert [fault.file for fault in checking.checksum_faults(clean)] == [name]
    finally:
        path.write_bytes(before)


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(UserError):
        checking.check(tmp_path)
    recorder(tmp_path / "half")
    with pytest.raises(UserError):
        checking.check(tmp_path / "half")


def test_estimated_statistics_of_images_are_left_out(copy):
    """LeRobot takes some frames of a long episode: `count` says so."""

    def some(whole):
        whole[FRONT].update(mean=[[[0.9]], [[0.9]], [[0.9]]], count=[12])

    change_json(copy / layout.STATISTICS, some)
    report = checking.inspect(copy)
    assert not report.faults and "were not compared" in " ".join(report.notes)


def test_missing_videos_are_faults(copy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    change_json(copy / layout.INFO, lambda info: info["features"][FRONT].update(dtype="video"))
    report = checking.inspect(copy)
    assert len(report.faults) == 4 and "no videos/" in str(report.faults[0])
    assert "pip install av" in " ".join(report.notes)
