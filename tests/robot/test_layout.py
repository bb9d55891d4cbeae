"""The layout: schemas that others decode, and statistics that are numpy's."""

import json

import numpy as np
import pytest

from base.files import UserError
from robot import layout
from tests.making.demonstrations import FEATURES


def test_the_schema_says_what_the_module_datasets_needs():
    schema = layout.data_schema(layout.complete(FEATURES))
    about = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert about["observation.images.front"] == {"_type": "Image"}
    value = {"dtype": "float32", "_type": "Value"}
    assert about["action"] == {"feature": value, "length": 2, "_type": "Sequence"}
    assert about["timestamp"] == value and about["index"]["dtype"] == "int64"
    assert str(schema.field("action").type).startswith("fixed_size_list<") and schema.names == [
        *FEATURES,
        *layout.COUNTERS,
    ]


def test_pandas_finds_the_tasks_as_the_index():
    frame = layout.tasks_table(["pick", "push"]).to_pandas()
    assert frame.index.tolist() == ["pick", "push"] and frame.index.name == "task"
    assert frame["task_index"].tolist() == [0, 1]


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_pixel_statistics_are_numpys(frames):
    pixels = np.random.default_rng(0).integers(0, 200, (frames, 5, 4, 3), dtype=np.uint8)
    ours = layout.pixel_statistics(layout.pixel_counts(pixels), frames)
    numpys = layout.vector_statistics(pixels.reshape(-1, 3) / 255)
    for name in layout.TEN[:4] + layout.TEN[5:]:
        assert ours[name].shape == (3, 1, 1)
        np.testing.assert_allclose(ours[name][:, 0, 0], numpys[name], atol=1e-12)
    assert ours["count"].tolist() == [frames]


def test_statistics_of_one_frame():
    ours = layout.vector_statistics(np.array([[2.0, 3.0]], np.float32))
    assert ours["std"].tolist() == [0, 0] and ours["q01"].tolist() == [2, 3]


def test_file_numbers_run_through_the_chunks():
    assert layout.data_name(999) == "data/chunk-000/file-999.parquet"
    assert layout.data_name(1000) == "data/chunk-001/file-000.parquet"


@pytest.mark.parametrize(
    "feature, size",
    [
        ({"shape": [48, 64, 3], "names": ["height", "width", "channels"]}, (48, 64)),
        ({"shape": [3, 48, 64], "names": ["channels", "height", "width"]}, (48, 64)),
        ({"shape": [3, 48, 64], "names": None}, (48, 64)),
        ({"shape": [3, 48, 3], "names": ["height", "width", "channels"]}, (3, 48)),
    ],
)
def test_channels_may_stand_first(feature, size):
    assert layout.picture_size(feature) == size


@pytest.mark.parametrize(
    "name, feature",
    [
        ("a/b", layout.vector(["x"])),
        ("index", layout.vector(["x"])),
        ("a", {"dtype": "video", "shape": [4, 4, 3]}),
        ("a", {"dtype": "float32", "shape": [2, 2]}),
        ("a", {"dtype": "float32", "shape": []}),
    ],
)
def test_what_cannot_be_recorded_is_refused(name, feature):
    with pytest.raises(UserError):
        layout.complete({name: feature})
