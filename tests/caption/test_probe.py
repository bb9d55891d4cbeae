"""The probe: it reads every object of every scene, and scores each attribute."""

import pytest

from caption import probe, writer
from caption.data import CaptionData
from tests.making.captioned import make_captions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    flags = ["--levels", "1,2", "--num_train", "12", "--num_val", "4"]
    return make_captions(tmp_path_factory.mktemp("probe") / "data", *flags)


def test_every_object_is_read(folder):
    data = CaptionData(folder, "train")
    statistics = writer.feature_statistics(data.features, data.rows)
    objects = probe.Objects(data, statistics, "cpu")
    scenes = [record["scene"]["objects"] for record in data.records]
    assert len(objects) == sum(len(scene) for scene in scenes)
    assert objects.image.tolist() == [n for n, scene in enumerate(scenes) for _ in scene]
    every = [item for scene in scenes for item in scene]
    for name, values in probe.CLASSES.items():
        assert [values[number] for number in objects.classes[name]] == [
            item[name] for item in every
        ]
    where, features = objects.batch(objects.image[:2] * 0)
    assert where.shape == (2, 2) and features.shape == (2, 64, 192)
    assert where[0].tolist() == pytest.approx([every[0]["x"], every[0]["y"]])


def test_a_share_of_each_attribute_is_right(folder):
    found = probe.ceiling(folder, ["val"], 3, batch_size=8)["val"]
    count = len(CaptionData(folder, "val").records)
    assert found.pop("objects") >= count
    assert set(found) == {f"{name}_accuracy" for name in probe.CLASSES}
    assert all(0 <= share <= 1 for share in found.values())
