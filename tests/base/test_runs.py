"""Runs: where they begin, what a stop ends, what they add up to."""

import io
import json

import pytest

from base import limits
from base.control import ControlConfig
from base.errors import UserError
from base.faults import Rehearsal
from base.runs import Runner, summary
from base.status import Journal
from base.virtual import VirtualClock
from tests.making.driven import Point, Waves

TABLE = limits.read("table")
VIRTUAL = Rehearsal(virtual=True)


class Simulated(Point):
    """A robot that begins episodes and judges them."""

    def begin(self, split, seed, number, text):
        self.frame_at = self.clock.now()
        self.number = number
        return text or f"order {number}"

    def judged(self):
        return {"done": self.number == 0, "ever": True}


def make_runner(kind=Simulated, file=None, **more):
    clock = VirtualClock()
    config = ControlConfig(**({"seconds": 2.0} | more))
    return Runner(kind(clock), Waves(), TABLE, config, clock, Journal(file))


def test_several_episodes_and_their_figures():
    file = io.StringIO()
    runner = make_runner(file=file)
    episodes = runner.all_episodes(Rehearsal(virtual=True, episodes=2), None, home=True)
    assert [each["text"] for each in episodes] == ["order 0", "order 1"]
    rows = dict(summary(episodes))
    assert rows["done at the end"].startswith("50.0%") and rows["rate_hz"] == "10"
    assert int(rows["chunks"]) == sum(each["counts"]["chunks"] for each in episodes)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert lines[-1]["event"] == "over" and len(lines) >= 4


def test_an_arm_that_is_not_at_home_does_not_begin():
    runner = make_runner(Point)
    runner.robot.place = TABLE.pose + 0.1
    with pytest.raises(UserError, match="not at home"):
        runner.all_episodes(VIRTUAL, "go", home=False)
    assert runner.robot.commands == []
    assert runner.all_episodes(VIRTUAL, "go", home=True)[0]["ending"] == "the time is over"


def test_a_robot_needs_an_order():
    runner = make_runner(Point)
    with pytest.raises(UserError, match="--instruction"):
        runner.all_episodes(VIRTUAL, None, home=False)
    assert runner.robot.commands == []


def test_a_stop_ends_this_run_and_all_others():
    runner = make_runner()
    runner.stop("SIGINT")
    episodes = runner.all_episodes(Rehearsal(virtual=True, episodes=5), None, home=False)
    assert len(episodes) == 1 and episodes[0]["ending"] == "stopped: SIGINT"


def test_a_dry_run_prints_commands_wherever_the_arm_is(capsys):
    runner = make_runner(Point, dry_run=True)
    runner.robot.place = TABLE.pose + 0.1
    runner.all_episodes(VIRTUAL, "say xyzzy", home=False)
    written = capsys.readouterr()
    assert len(written.out.splitlines()) >= 19 and "does not know: xyzzy" in written.err
    assert runner.robot.commands == []
