"""Settings of demonstrations: each world has its own, and the other world's are refused."""

import pytest

from base.errors import UserError
from robot.demos import Demos


def test_each_world_has_its_cameras_and_tasks():
    table, arm = Demos(), Demos(world="metaworld")
    assert table.camera_names() == ["front"] and arm.camera_names() == ["corner2"]
    assert Demos(cameras="front,wrist").camera_names() == ["front", "wrist"]
    assert Demos(image_side=0).camera_names() == []
    assert len(arm.task_names()) == 10
    assert Demos(world="metaworld", tasks="hard").task_names()[0] == "assembly-v3"


@pytest.mark.parametrize(
    "settings, part",
    [
        ({"tasks": "ten"}, "no --tasks"),
        ({"world": "metaworld", "cameras": "front"}, "no --cameras"),
        ({"world": "metaworld", "tasks": "reach"}, "reach-v3"),
        ({"cameras": "front,side"}, "side"),
        ({"image_side": 8}, "16 to 640"),
    ],
)
def test_what_does_not_fit_is_refused(settings, part):
    with pytest.raises(UserError, match=part):
        Demos(**settings)
