"""Meta-World: LeRobot's set-up, seeds, experts, what the camera sees, what is refused."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="pip install -r requirements-robot.txt")

from base.errors import UserError
from worlds import metaworld
from worlds.camera import missing_opengl
from worlds.metaworld import MetaWorld


def test_the_groups_have_their_sizes_and_every_task_its_own_words():
    groups = Counter(group for group, _ in metaworld.TASKS.values())
    assert [groups[name] for name in metaworld.GROUPS] == [28, 11, 6, 5]
    assert len({text for _, text in metaworld.TASKS.values()}) == 50
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert set(metaworld.TASKS) == set(ALL_V3_ENVIRONMENTS)


def test_tasks_are_named_one_by_one_or_by_groups():
    assert metaworld.tasks_of("reach-v3,hard,reach-v3")[:2] == ["reach-v3", "assembly-v3"]
    assert len(metaworld.tasks_of("all")) == 50 and len(metaworld.tasks_of("ten")) == 10
    with pytest.raises(UserError, match="reach-v3"):
        metaworld.tasks_of("reach-v2")


def test_it_is_set_up_as_lerobot_does():
    import metaworld as original

    benchmark = original.MT1("push-v3", seed=42)
    theirs = benchmark.train_classes["push-v3"]()
    theirs.set_task(benchmark.train_tasks[0])
    theirs._freeze_rand_vec = False
    theirs.seeded_rand_vec = True
    ours = MetaWorld("push-v3")
    # Meta-World's first episode differs: its hand begins elsewhere before it was ever reset.
    for seed in (3, 4):
        theirs.seed(seed)
        seen, _ = theirs.reset()
        ours.reset(seed=seed)
    assert np.array_equal(seen, ours.full)
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = rng.uniform(-1, 1, 4)
        seen, *_ = theirs.step(action)
        ours.step(action)
        assert np.array_equal(seen, ours.full)


def test_a_seed_decides_the_episode_and_the_goal_is_seen():
    env = MetaWorld("reach-v3")
    goals = []
    for seed in (5, 6, 5):
        seen, info = env.reset(seed=seed)
        goals.append(seen["things"][1])
        assert np.array_equal(seen["things"][1], seen["full"][-3:])
    assert np.array_equal(goals[0], goals[2]) and not np.array_equal(goals[0], goals[1])
    assert np.abs(goals[0]).max() > 0.1
    assert info == {"done": False, "ever": False, "text": "move the hand to the mark"}


def test_the_expert_succeeds_and_its_actions_fit():
    env = MetaWorld("reach-v3")
    rows = metaworld.record(env, np.random.default_rng(0))
    assert rows["done"][-1] and not rows["done"][0]
    assert rows["done"].sum() == metaworld.ENDS
    assert rows["action"].shape == (len(rows["done"]), 4) and np.abs(rows["action"]).max() <= 1
    assert rows["state"].shape[1] == 4 and rows["full"].shape[1] == 39


def test_a_jug_beside_a_stick_is_the_second_thing():
    env = MetaWorld("stick-push-v3")
    seen, _ = env.reset(seed=0)
    assert env.has_second()
    assert np.array_equal(seen["things"][1], seen["full"][11:14])


@pytest.mark.parametrize("action", [[0, 0, 0], [0, 0, 0, np.nan]])
def test_a_wrong_action_is_refused(action):
    env = MetaWorld("reach-v3")
    env.reset(seed=0)
    with pytest.raises(UserError, match="four finite numbers"):
        env.step(action)


def test_images_need_a_size():
    env = MetaWorld("reach-v3")
    env.reset(seed=0)
    with pytest.raises(UserError, match="image size"):
        env.picture()


def test_the_camera_shows_the_goal_where_pixels_says():
    missing = missing_opengl()
    if missing is not None:
        pytest.skip(f"no OpenGL here: {missing}")
    env = MetaWorld("drawer-open-v3", 96)
    env.reset(seed=1)
    seen, *_ = env.step(np.zeros(4))  # Meta-World moves the ball to its place in the first step
    image = env.picture()
    assert image.shape == (96, 96, 3)
    # Meta-World draws this goal as a green ball.
    x, y = (env.pixels(seen["things"][1:].astype(np.float64))[0] * 96).astype(int)
    red, green, blue = image[y, x].astype(int)
    assert green > 2 * red and green > 2 * blue
    env.close()
