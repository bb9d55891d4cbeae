"""A driver: when it thinks, what it does meanwhile, and what stays given."""

import numpy as np
import pytest

from base.driving import MODES, DriveConfig, Driver, Made
from base.errors import UserError
from base.scaling import Scaling

SEEN = {"state": np.zeros(8, np.float32)}


class Counting:
    """Chunks of 8 whose actions say how often a chunk was made, and which step they are for."""

    length, absolute = 8, False

    def __init__(self, frames=1, absolute=False):
        self.frames, self.absolute = frames, absolute
        self.scaling = Scaling.none(4, 8)
        self.told, self.prefixes = [], []

    def begin(self, text, seed):
        return []

    def make(self, seen, earlier, prefix):
        self.told.append([int(each["state"][0]) for each in (seen, *earlier)])
        self.prefixes.append(prefix)
        step = int(seen["state"][0])
        rows = np.zeros((8, 4), np.float32)
        rows[:, 0] = step / 100  # when
        rows[:, 1] = (step + np.arange(8)) / 100  # for which step
        return Made(rows)


def drive(steps=14, **more) -> tuple[np.ndarray, Counting]:
    maker = Counting()
    driver = Driver(maker, DriveConfig(**more))
    driver.begin("pick up the red star")
    rows = [driver.next({"state": np.full(8, step, np.float32)}) for step in range(steps)]
    return np.round(100 * np.stack(rows)[:, :2]).astype(int), maker


def test_without_delay_a_chunk_is_made_every_few_steps():
    rows, _ = drive(execute=4)
    assert rows[:, 1].tolist() == list(range(14))
    assert rows[:, 0].tolist() == [0] * 4 + [4] * 4 + [8] * 4 + [12] * 2


def test_naive_skips_what_is_past():
    rows, _ = drive(execute=4, delay=2, while_waiting="naive")
    assert (rows[:2] == 0).all()  # nothing is there yet
    # The first chunk begins when it is there. The next is made in step 6, and is there in step 8.
    assert rows[2:8, 1].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows[8:, 1].tolist() == [8, 9, 10, 11, 12, 13]
    assert rows[8:, 0].tolist() == [6] * 4 + [10] * 2


def test_waiting_stands_still():
    rows, _ = drive(execute=4, delay=2, while_waiting="wait")
    assert rows[:, 1].tolist() == [0, 0, 0, 1, 2, 3, 0, 0, 6, 7, 8, 9, 0, 0]


def test_an_ensemble_is_the_mean_of_both_chunks():
    rows, _ = drive(execute=4, delay=2, while_waiting="ensemble")
    # Step 8 is in both: the first chunk says 6 for it (it began two steps late), the second 8.
    assert rows[8:10, 1].tolist() == [7, 8]
    assert rows[10, 1] == 10  # only the second chunk reaches so far


def test_what_is_committed_is_given():
    _, maker = drive(execute=4, delay=2, while_waiting="frozen")
    first, *later = maker.prefixes
    assert first is None
    for prefix in later:
        assert prefix.shape == (2, 4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_a_chunk_knows_the_last_steps_and_others_need_no_image(mode, delay, frames):
    maker = Counting(frames)
    driver = Driver(maker, DriveConfig(4, delay, mode))
    driver.begin("pick up the red star")
    looked, due = [], []
    for step in range(30):
        if driver.due():
            due.append(step)
        shown = {"state": np.full(8, step, np.float32)}
        if driver.looks():
            looked.append(step)
        else:
            shown = {}  # there is nothing to read
        driver.next(shown)
    assert len(due) >= 3 and len(maker.told) == len(due)
    for step, told in zip(due, maker.told, strict=True):
        wanted = list(range(step, max(step - frames, -1), -1))
        assert told == wanted + [0] * (frames - len(wanted))  # the first is repeated
    needed = {step - ago for step in due for ago in range(frames)}
    # The last steps may look ahead to a chunk after the episode's end.
    assert [step for step in looked if step <= due[-1]] == sorted(s for s in needed if s >= 0)


def test_an_absolute_robot_rests_where_it_is():
    driver = Driver(Counting(absolute=True), DriveConfig(4, 2, "wait"))
    driver.begin("pick up the red star")
    seen = {"state": np.full(8, 0.25, np.float32)}
    rows = [driver.next(seen) for _ in range(8)]
    assert [float(row[0]) for row in rows[:2]] == [0.25, 0.25]  # no chunk yet: its own place
    assert (rows[6] == rows[5]).all() and (rows[7] == rows[5]).all()  # then the last action


def test_more_than_a_chunk_is_refused():
    with pytest.raises(UserError, match="at most 8 together"):
        Driver(Counting(), DriveConfig(execute=7, delay=2))
