"""Runs of a robot: from home to the end, one or several, and their figures."""

import sys
from collections import Counter

from base import control, homing, metrics, virtual
from base.control import ControlConfig, Loop
from base.driving import ChunkMaker
from base.errors import UserError
from base.faults import Rehearsal
from base.limits import Limits
from base.robots import Replay, Robot
from base.status import Journal

MEDIANS = ("rate_hz", "jitter_ms", "frame_age_ms", "latency_ms")


class Runner:
    """Runs a robot. clock: real or virtual; `Rehearsal.virtual` says which."""

    def __init__(
        self,
        robot: Robot,
        maker: ChunkMaker,
        limits: Limits,
        config: ControlConfig,
        clock,
        journal: Journal,
    ):
        self.robot, self.maker, self.limits, self.config = robot, maker, limits, config
        self.clock, self.journal = clock, journal
        self.loop: Loop | None = None
        self.stopped = ""

    def stop(self, why: str) -> None:
        """Stop the arm at its next control step, and all further runs."""
        self.stopped = why
        if self.loop is not None:
            self.loop.stopped = why

    def was_stopped(self) -> bool:
        return bool(self.stopped)

    def snapshot(self) -> dict:
        return self.loop.snapshot(self.clock.now()) if self.loop else {"stage": "start"}

    def start_at_home(self, move: bool) -> None:
        """Move home, or raise UserError if the arm is elsewhere."""
        if move:
            hz = self.config.hz or self.limits.hz
            homing.go_home(self.robot, self.limits, self.clock, hz, self.was_stopped)
        homing.check_home(self.limits, self.robot.observe())

    def episode(self, text: str, seed: int, trial: Rehearsal) -> dict:
        """One run: its order, how it ended, and its figures."""
        unknown = self.maker.begin(text, seed)
        if unknown:
            print(f"words that the policy does not know: {', '.join(unknown)}", file=sys.stderr)
        loop = self.loop = Loop(self.robot, self.maker, self.limits, self.config)
        loop.stopped = self.stopped
        if trial.virtual:
            virtual.run(loop, self.clock, trial.think / 1000, self.each)
        else:
            control.run(loop, self.clock, self.each)
        self.journal.note(float("inf"), "over", self.snapshot)
        kept = {"text": text, "ending": loop.ending, "failed": loop.failed, **self.snapshot()}
        judged = getattr(self.robot, "judged", dict)
        return kept | judged()

    def all_episodes(self, trial: Rehearsal, text: str | None, home: bool) -> list[dict]:
        """One run, or several at a simulated robot, until somebody stops it.

        text: the order; None: a simulated robot draws it. home: move home first.
        """
        episodes = []
        begin = getattr(self.robot, "begin", None)  # only a simulated robot begins an episode
        moves = not self.config.dry_run and not isinstance(self.robot, Replay)
        for number in range(trial.episodes if begin else 1):
            order = text
            if begin:
                order = begin(trial.split, trial.seed, number, text)
            if order is None:
                do = "say what to do"
                raise UserError("no order", 'an --instruction such as "lift the star"', do)
            if moves:
                self.start_at_home(home)
            episodes.append(self.episode(order, trial.seed + number, trial))
            if self.stopped:
                break
        return episodes

    def each(self, now: float) -> None:
        """After each control step."""
        assert self.loop is not None
        self.journal.note(now, self.loop.stage, self.snapshot)
        if self.config.dry_run and self.loop.command is not None:
            print(" ".join(f"{value:+.4f}" for value in self.loop.command))


def summary(episodes: list[dict]) -> list[list[str]]:
    """The figures of some runs, as rows of a Markdown table."""
    counts: Counter = Counter()
    for each in episodes:
        counts.update(each["counts"])
    rows = [["figure", "value"], ["episodes", str(len(episodes))]]
    if "done" in episodes[0]:
        done = sum(bool(each["done"]) for each in episodes)
        low, high = (100 * bound for bound in metrics.share_interval(done, len(episodes)))
        share = 100 * done / len(episodes)
        rows.append(["done at the end", f"{share:.1f}% [{low:.1f}, {high:.1f}]"])
    for name in MEDIANS:
        values = sorted(each[name] for each in episodes)
        rows.append([name, f"{values[len(values) // 2]:g}"])
    return rows + [[name, str(count)] for name, count in sorted(counts.items())]
