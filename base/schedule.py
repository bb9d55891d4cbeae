"""When a new chunk is made, what it is given, and which action is next.

A new chunk begins when half of the old one is left. It needs time, and the arm goes on: the actions
that will be done meanwhile are given to it as a prefix that stays. How many they are follows from
the latency, which is measured. The look begins as late as the latency allows, so that it is fresh.

Time is counted in actions that were done (`done`), and not in seconds: while the arm holds, no
action is done and none is lost. At a speed of 0.2 a control step does a fifth of an action.

`Plan` is a plain class. Whoever calls it says what time it is, in seconds of any clock that only
goes forward. Three threads may call it: its lock is held for microseconds.
"""

import math
import threading
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from base.driving import Made

EPSILON = 1e-6
KEPT = 20  # latencies that are remembered; the longest counts
MARGIN = 0.01  # seconds between the arrival of a chunk and its first control step
FIRST = 0.05  # seconds: the latency that is assumed before there is a measurement


@dataclass
class Ask:
    """What a new chunk is made for. prefix: (n, A) in [-1, 1], or None.

    begun: the count of actions at its first action. stamp: when its frame was taken. asked: when
    the policy began. due: the control step's time for which the chunk was planned.
    """

    prefix: np.ndarray | None
    begun: float
    stamp: float
    asked: float
    due: float


@dataclass
class Done:
    """A control step that did an action: its time, the count before it, and the action (A,)."""

    time: float
    before: float
    action: np.ndarray


class Plan:
    """The chunk that is followed, and the chunk that is coming.

    length, width: of a chunk (T, A). hz: control steps per second. speed: actions per control
    step. frozen: whether the prefix is given. stale: seconds from a frame to a chunk that is too
    old to be followed.
    """

    def __init__(
        self, length: int, width: int, hz: float, speed: float, frozen: bool, stale: float
    ):
        self.length, self.width, self.period, self.speed = length, width, 1 / hz, speed
        self.frozen, self.stale = frozen, stale
        self.lock = threading.Lock()
        self.counts: Counter = Counter()
        self.latencies: deque[float] = deque(maxlen=KEPT)
        self.history: deque[Done] = deque(maxlen=math.ceil(2 * length / speed))
        self.arrived: tuple[Ask, Made | Exception] | None = None
        self.error = ""  # the last error of the policy
        self.done = 0.0
        self.chunk: np.ndarray | None = None
        self.start = 0.0
        self.step_time: float | None = None  # of the last control step

    # --- the policy ----------------------------------------------------------------------------

    def latency(self) -> float:
        """Seconds that a chunk is expected to need, at most the time of all its actions but one."""
        longest = max(self.latencies, default=FIRST)
        return min(longest, (self.length - 1) * self.period / self.speed)

    def begin_at(self, now: float) -> float | None:
        """When the policy should look for its next chunk; None: not before another control step."""
        with self.lock:
            if self.step_time is None or self.arrived is not None:
                return None
            if self.chunk is None or self.index() >= self.length:
                return now  # the arm stands still
            wait = self.latency() + MARGIN
            meanwhile = math.ceil(wait / self.period) * self.speed
            # Half of the chunk, or earlier if the latency is longer than what would be left.
            execute = min(self.length - self.length // 2, self.length - meanwhile)
            if self.index() + EPSILON < execute:
                return None
            return max(now, self.target(now) - wait)

    def target(self, now: float) -> float:
        """The time of the first control step that a chunk can reach if it begins now."""
        assert self.step_time is not None
        ready = now + self.latency() + MARGIN
        steps = math.ceil((ready - self.step_time) / self.period - EPSILON)
        return self.step_time + max(1, steps) * self.period

    def ask(self, now: float, stamp: float) -> Ask:
        """The policy begins. stamp: when the frame that it looks at was taken."""
        with self.lock:
            begun = self.count_at(stamp)
            due = self.target(now)
            prefix = self.committed(begun, due) if self.frozen else None
            return Ask(prefix, begun, stamp, now, due)

    def count_at(self, stamp: float) -> float:
        """The count of actions at a moment, at the nearest border between two control steps."""
        for step in reversed(self.history):
            if stamp >= step.time:
                over = stamp - step.time >= self.period / 2
                return step.before + (self.speed if over else 0.0)
        return self.history[0].before if self.history else self.done

    def committed(self, begun: float, due: float) -> np.ndarray | None:
        """The actions from the count `begun` that are done, or will be before `due`: (n, A)."""
        if self.chunk is None or self.step_time is None:
            return None
        more = max(0, round((due - self.step_time) / self.period) - 1) * self.speed
        end = min(self.done + more, max(self.done, self.start + self.length))
        rows: list[np.ndarray] = []
        for number in range(min(math.ceil(end - begun - EPSILON), self.length - 1)):
            row = self.action_at(begun + number)
            if row is None:
                break
            rows.append(row)
        return np.stack(rows).astype(np.float32) if rows else None

    def action_at(self, count: float) -> np.ndarray | None:
        """The action that was done, or will be done, at this count: (A,), or None."""
        if count < self.done - EPSILON:
            past = [each for each in self.history if each.before <= count + EPSILON]
            return past[-1].action if past else None
        assert self.chunk is not None
        index = math.floor(count - self.start + EPSILON)
        return self.chunk[index] if 0 <= index < self.length else None

    def deliver(self, ask: Ask, made: Made | Exception, now: float) -> None:
        """The policy is done, with a chunk or with an error."""
        with self.lock:
            self.arrived = ask, made
            if now - ask.asked <= self.stale:  # longer is a policy that hung, and no latency
                self.latencies.append(now - ask.asked)

    # --- the control loop ----------------------------------------------------------------------

    def index(self) -> int:
        """Of the next action in the chunk that is followed."""
        return math.floor(self.done - self.start + EPSILON)

    def next(self, now: float) -> tuple[np.ndarray, float] | None:
        """The action of this control step, (A,) in [-1, 1]; None: there is none.

        The second value is the share of the way from the last action that a robot of absolute
        places goes in this step. It is 1 at full speed.
        """
        with self.lock:
            self.step_time = now
            self.take(now)
            index = self.index()
            if self.chunk is None or index >= self.length:
                return None
            left = self.start + index + 1 - self.done
            return self.chunk[index], min(1.0, self.speed / max(left, EPSILON))

    def pause(self, now: float) -> None:
        """A control step that does no action, although there may be one."""
        with self.lock:
            self.step_time = now
            self.take(now)

    def did(self, now: float, action: np.ndarray) -> None:
        """An action was done in this control step: (A,) in [-1, 1], as it was sent."""
        with self.lock:
            self.history.append(Done(now, self.done, np.array(action, np.float32)))
            self.done += self.speed

    def take(self, now: float) -> None:
        """Follow the chunk that has arrived, if it is sound and not too old."""
        if self.arrived is None:
            return
        (ask, made), self.arrived = self.arrived, None
        problem = self.problem(ask, made, now)
        if problem:
            self.counts[problem] += 1
            return
        assert isinstance(made, Made)
        self.counts["chunks"] += 1
        if self.chunk is not None and now > ask.due + self.period / 2:
            self.counts["late"] += 1
        self.chunk, self.start = np.asarray(made.actions, np.float32), ask.begun

    def problem(self, ask: Ask, made: Made | Exception, now: float) -> str:
        """What is wrong with a chunk, in a word; nothing if it can be followed."""
        if isinstance(made, Exception):
            self.error = f"{type(made).__name__}: {made}"
            return "error"
        actions = np.asarray(made.actions)
        if actions.shape != (self.length, self.width) or actions.dtype.kind not in "fiu":
            return "shape"
        if not np.isfinite(actions).all():
            return "nan"
        past = math.floor(self.done - ask.begun + EPSILON) >= self.length
        return "stale" if past or now - ask.stamp > self.stale else ""
