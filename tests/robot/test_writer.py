"""A driver: when it thinks, what it does meanwhile, and what stays given."""

import numpy as np
import pytest
import torch

from base.errors import UserError
from net.chunks import ChunkConfig
from robot import policies, stills
from robot.writer import MODES, DriveConfig, Driver
from worlds.layouts import sample_layout

LAYOUT = sample_layout(np.random.default_rng(0))
KINDS = stills.kinds_of(LAYOUT)
SEEN = {"state": np.zeros(8, np.float32), "things": stills.places_of(LAYOUT)[:5]}


@pytest.fixture
def opened(robot_world):
    return policies.open_policy(robot_world / "policy" / "best.pt", torch.device("cpu"))


class Counting(Driver):
    """Chunks whose actions say when they were made and which step they are for."""

    def think(self, seen, kinds):
        self.made.append(self.committed(torch.device("cpu")))
        rows = np.zeros((8, 4), np.float32)
        rows[:, 0] = self.step / 100  # when
        rows[:, 1] = (self.step + np.arange(8)) / 100  # for which step
        return rows


def drive(opened, steps=14, **more) -> np.ndarray:
    driver = Counting(opened, ChunkConfig(), DriveConfig(**more))
    driver.begin("pick up the red star")
    rows = np.stack([driver.next(SEEN, KINDS) for _ in range(steps)])
    drive.made = driver.made
    return np.round(100 * rows[:, :2]).astype(int)


def test_without_delay_a_chunk_is_made_every_few_steps(opened):
    rows = drive(opened, execute=4)
    assert rows[:, 1].tolist() == list(range(14))
    assert rows[:, 0].tolist() == [0] * 4 + [4] * 4 + [8] * 4 + [12] * 2


def test_naive_skips_what_is_past(opened):
    rows = drive(opened, execute=4, delay=2, while_waiting="naive")
    assert (rows[:2] == 0).all()  # nothing is there yet
    # The first chunk begins when it is there. The next is made in step 6, and is there in step 8.
    assert rows[2:8, 1].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows[8:, 1].tolist() == [8, 9, 10, 11, 12, 13]
    assert rows[8:, 0].tolist() == [6] * 4 + [10] * 2


def test_waiting_stands_still(opened):
    rows = drive(opened, execute=4, delay=2, while_waiting="wait")
    assert rows[:, 1].tolist() == [0, 0, 0, 1, 2, 3, 0, 0, 6, 7, 8, 9, 0, 0]


def test_an_ensemble_is_the_mean_of_both_chunks(opened):
    rows = drive(opened, execute=4, delay=2, while_waiting="ensemble")
    # Step 8 is in both: the first chunk says 6 for it (it began two steps late), the second 8.
    assert rows[8:10, 1].tolist() == [7, 8]
    assert rows[10, 1] == 10  # only the second chunk reaches so far


def test_what_is_committed_is_given(opened):
    drive(opened, execute=4, delay=2, while_waiting="frozen")
    first, *later = drive.made
    assert first is None
    for prefix in later:
        assert prefix.shape == (1, 2, 4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_every_mode_gives_an_action_in_every_step(opened, mode, delay):
    driver = Driver(opened, ChunkConfig(), DriveConfig(delay=delay, while_waiting=mode))
    assert driver.begin("please grab the purple dinosaur") == ["dinosaur"]
    for _ in range(10):
        action = driver.next(SEEN, KINDS)
        assert action.shape == (4,) and np.abs(action).max() <= 1
    assert len(driver.seconds) == len(driver.made) >= 2


class Remembering(Driver):
    """Keeps the states that each chunk was made from, as control steps, the newest first."""

    def begin(self, text):
        self.told = []
        return super().begin(text)

    def think(self, parts, state):
        self.told.append([int(state[0, 0]), *(int(each[0, 0]) for _, each in self.before)])
        return np.zeros((8, 4), np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_a_chunk_knows_the_last_steps_and_others_need_no_image(opened, mode, delay, frames):
    opened.policy.actor.config.frames = frames
    driver = Remembering(opened, ChunkConfig(), DriveConfig(4, delay, mode))
    driver.begin("pick up the red star")
    looked, due = [], []
    for step in range(30):
        if driver.due():
            due.append(step)
        shown = {"state": np.full(8, step, np.float32), "things": SEEN["things"]}
        if driver.looks():
            looked.append(step)
        else:
            shown = {}  # there is nothing to read
        driver.next(shown, KINDS)
    assert len(due) >= 3 and len(driver.told) == len(due)
    for step, told in zip(due, driver.told, strict=True):
        assert told == list(range(step, max(step - frames, -1), -1))
    needed = {step - ago for step in due for ago in range(frames)}
    # The last steps may look ahead to a chunk after the episode's end.
    assert [step for step in looked if step <= due[-1]] == sorted(s for s in needed if s >= 0)


def test_more_than_a_chunk_is_refused(opened):
    with pytest.raises(UserError, match="at most 8 together"):
        Driver(opened, ChunkConfig(), DriveConfig(execute=7, delay=2))
