"""The control loop of a robot: a step at a fixed rate that never waits for a policy or a camera.

`Loop.step` is a control step: measure, decide, guard, act. It takes the time as an argument, so
the same code runs in real time (`run`, three threads) and on a virtual clock (base/virtual.py).

    start   before the first chunk
    run     the actions of a chunk are done
    hold    no action, or no fresh frame: the arm slows down and stands still
    ramp    the arm has held for a while: its force goes down, as far as its limits file says
    over    the order is done, the time is over, somebody stopped it, or nothing came for too long

A chunk or a frame that comes again ends `hold` and `ramp`.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from base import flags
from base.driving import ChunkMaker, Made
from base.errors import UserError
from base.flags import setting
from base.guard import Guard, Safe
from base.limits import Limits
from base.robots import Clock, Frame, Robot
from base.schedule import Ask, Plan

POLL = 0.002  # seconds between two looks of the policy's thread at the plan
RETRY = 0.1  # seconds until a camera that failed is asked again
JOIN = 0.5  # seconds that the threads have to end
FRAMES = 64  # that are remembered, for policies of several frames


@dataclass
class ControlConfig:
    """How a robot is driven."""

    hz: float = setting(
        0.0, "control steps per second; 0: the robot's own", at_least=0, at_most=1000
    )
    speed: float = setting(1.0, "share of the speed; 0.2 for a first run", above=0, at_most=1)
    prefix: bool = setting(True, "fill a chunk around the actions that are done meanwhile")
    dry_run: bool = setting(False, "print the commands and move nothing")
    seconds: float = setting(30.0, "seconds of a run at most", above=0)
    patience: float = setting(10.0, "seconds without a chunk or a frame, then it ends", above=0)

    def __post_init__(self):
        flags.check(self)


@dataclass
class Figures:
    """What is measured. late: seconds by which control steps began too late. ages: of frames."""

    counts: Counter = field(default_factory=Counter)
    steps: int = 0
    first: float = 0.0
    last: float = 0.0
    late: deque = field(default_factory=lambda: deque(maxlen=1000))
    ages: deque = field(default_factory=lambda: deque(maxlen=1000))


class Loop:
    """Drives a robot with a policy. Raises UserError if the two do not fit each other."""

    def __init__(self, robot: Robot, maker: ChunkMaker, limits: Limits, config: ControlConfig):
        check_fit(robot, maker, limits)
        self.robot, self.maker, self.limits, self.config = robot, maker, limits, config
        self.hz = config.hz or limits.hz
        self.guard = Guard(limits, robot.rate, config.speed, robot.kinematics)
        stale = limits.watchdog.stale_s
        self.plan = Plan(maker.length, limits.width, self.hz, config.speed, config.prefix, stale)
        self.figures = Figures()
        self.frames: deque[Frame] = deque(maxlen=FRAMES)
        self.stage, self.reason, self.ending = "start", "", ""
        self.failed = ""  # why it ended, if it should not have
        self.stopped = ""  # why somebody stopped it
        self.ended = threading.Event()  # ends the threads of this run
        self.last_run: float | None = None  # the last control step with an action, or the start
        self.held_since = 0.0
        self.state: np.ndarray | None = None
        self.command: np.ndarray | None = None

    # --- the camera and the policy -------------------------------------------------------------

    def see(self, frame: Frame | None) -> None:
        """A new frame, or None for a frame that was lost."""
        self.figures.counts["frames" if frame else "frames_lost"] += 1
        if frame is not None:
            self.frames.append(frame)

    def frame_age(self, now: float) -> float:
        return now - self.frames[-1].stamp if self.frames else float("inf")

    def may_look(self, now: float) -> bool:
        """Whether the newest frame is fresh enough for a chunk."""
        return self.frame_age(now) <= self.limits.watchdog.frame_s

    def make(self, ask: Ask, frame: Frame) -> Made | Exception:
        """A chunk from a frame; an error of the policy is returned."""
        try:
            frames = list(self.frames)
            spacing = 1 / self.hz / self.config.speed
            earlier = []
            for ago in range(1, self.maker.frames):
                moment = frame.stamp - (ago - 0.5) * spacing
                older = [each for each in frames if each.stamp <= moment]
                earlier.append(self.seen(older[-1] if older else frames[0]))
            return self.maker.make(self.seen(frame), earlier, ask.prefix)
        except Exception as error:  # whatever a policy raises, the arm must hold
            return error

    def seen(self, frame: Frame) -> dict:
        """What a frame shows; a robot whose camera knows no state gets the last one measured."""
        return {"state": self.state} | frame.seen

    # --- a control step ------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """One control step. It never waits."""
        self.note_time(now)
        if self.stopped:  # before anything that could fail
            self.emergency()
            return
        self.state = self.measured()
        action, share = self.decide(now)
        safe = self.guard.check(self.state, self.units(action, share))
        self.figures.counts.update(safe.counts)
        self.send(safe)
        if action is not None:
            self.plan.did(now, self.sent(safe, action))
            self.ending = self.ending or self.robot.over()

    def note_time(self, now: float) -> None:
        figures = self.figures
        if figures.steps == 0:
            figures.first, self.last_run = now, now
        else:
            figures.late.append(now - figures.last - 1 / self.hz)
        figures.steps, figures.last = figures.steps + 1, now
        figures.ages.append(self.frame_age(now))

    def measured(self) -> np.ndarray | None:
        try:
            return self.robot.observe()
        except Exception as error:  # a bus fails in many ways
            self.figures.counts["robot_error"] += 1
            self.reason = f"the robot does not answer ({error})"
            return None

    def decide(self, now: float) -> tuple[np.ndarray | None, float]:
        """The action of this control step, (A,) in [-1, 1], or None; and `Plan.next`'s share."""
        found = None
        if self.state is None:
            self.plan.pause(now)
            self.watch(now, "answer")
        elif self.frame_age(now) > self.limits.watchdog.frame_s:
            self.plan.pause(now)
            self.watch(now, "frame")
        else:
            found = self.plan.next(now)
            self.watch(now, "" if found else "chunk")
        return found if found and self.stage == "run" else (None, 1.0)

    def watch(self, now: float, missing: str) -> None:
        """The watchdog. missing: a frame, a chunk, an answer of the robot; or nothing is."""
        dog = self.limits.watchdog
        if not missing:
            self.recover(now)
            return
        assert self.last_run is not None
        idle = now - self.last_run
        if idle > self.config.patience:
            cause = self.plan.error if missing == "chunk" else self.reason
            self.failed = f"no {missing} for {self.config.patience:g} s"
            self.failed += f" ({cause})" if cause else ""
            self.ending = self.failed
        if self.stage == "run" and (missing != "chunk" or idle > dog.chunk_s):
            self.stage, self.held_since = "hold", now
            self.figures.counts[f"hold_no_{missing}"] += 1
        if self.stage == "hold" and now - self.held_since > dog.hold_s:
            self.stage = "ramp"
            self.figures.counts["ramp"] += 1
        if self.stage == "ramp" and not self.config.dry_run:
            passed = (now - self.held_since - dog.hold_s) / dog.ramp_s
            self.robot.relax(1 - (1 - dog.ramp_to) * min(1.0, passed))

    def recover(self, now: float) -> None:
        """There is an action again."""
        if self.stage == "ramp" and self.state is not None:
            self.guard.anchor(self.state)  # an arm without force may have moved
            if not self.config.dry_run:
                self.robot.relax(1.0)
        if self.stage in ("hold", "ramp"):
            self.figures.counts["recovered"] += 1
        self.stage, self.last_run = "run", now

    def units(self, action: np.ndarray | None, share: float) -> np.ndarray | None:
        """An action in the robot's units, at the speed that was asked for."""
        if action is None:
            return None
        values = np.array(self.maker.scaling.restore(action), np.float64)
        if self.limits.kind == "hand":
            values[: self.limits.places] *= self.config.speed
        elif self.guard.reference is not None:
            values = self.guard.reference + share * (values - self.guard.reference)
        return values

    def sent(self, safe: Safe, action: np.ndarray) -> np.ndarray:
        """What was sent, as an action of the policy: (A,) in [-1, 1]."""
        if safe.command is None:
            return action
        values = safe.command.astype(np.float64)
        if self.limits.kind == "hand":
            values[: self.limits.places] /= self.config.speed
        return self.maker.scaling.shrink(values)

    def send(self, safe: Safe) -> None:
        self.command = safe.command
        if safe.command is None or self.config.dry_run:
            return
        try:
            self.robot.act(safe.command)
        except Exception as error:
            self.figures.counts["robot_error"] += 1
            self.reason = f"the robot takes no command ({error})"

    def emergency(self) -> None:
        """No way at all from now on."""
        self.send(Safe(self.guard.stop()))
        self.stage, self.ending = "over", f"stopped: {self.stopped}"

    def snapshot(self, now: float) -> dict:
        """The figures, as plain values."""
        figures = self.figures
        time_run = figures.last - figures.first
        late = np.array(figures.late or [0.0])
        ages = np.array([age for age in figures.ages if np.isfinite(age)] or [0.0])
        return {
            "seconds": round(now - figures.first, 3),
            "stage": self.stage,
            "reason": self.reason,
            "steps": figures.steps,
            "actions": round(self.plan.done, 2),
            "rate_hz": round((figures.steps - 1) / time_run, 2) if time_run else 0.0,
            "jitter_ms": round(1000 * float(np.percentile(np.abs(late), 95)), 2),
            "frame_age_ms": round(1000 * float(np.median(ages)), 1),
            "latency_ms": round(1000 * self.plan.latency(), 1),
            # Copies: other threads count meanwhile.
            "counts": dict(sorted((Counter(figures.counts) + Counter(self.plan.counts)).items())),
        }


def check_fit(robot: Robot, maker: ChunkMaker, limits: Limits) -> None:
    """Raise UserError unless policy, robot and limits are about the same numbers."""
    if list(robot.names) != limits.names:
        raise UserError(
            f"a robot with the numbers {', '.join(robot.names)}",
            f"{', '.join(limits.names)}, as its limits name them",
            "take the limits of this robot",
        )
    maker.scaling.check(limits.width, len(robot.observe()))
    if maker.absolute != (limits.kind == "joints"):
        kinds = ("where to be", "how to move")
        raise UserError(
            f"a policy that says {kinds[not maker.absolute]}",
            f"a policy that says {kinds[limits.kind != 'joints']}, as {limits.robot} needs",
            "take a policy that was trained on this robot",
        )


# --- three threads ----------------------------------------------------------------------------


def run(loop: Loop, clock: Clock, each: Callable[[float], None] | None = None) -> None:
    """Run in real time until the loop is over. each: called after every control step.

    The camera and the policy have a thread each. The control loop is the thread that calls this.
    """
    threads = [
        threading.Thread(target=watch_camera, args=(loop, clock), name="camera", daemon=True),
        threading.Thread(target=think, args=(loop, clock), name="policy", daemon=True),
    ]
    for thread in threads:
        thread.start()
    begun, number, period = clock.now(), 0, 1 / loop.hz
    try:
        while not loop.ending:
            clock.wait_until(begun + number * period)
            now = clock.now()
            loop.step(now)
            if each is not None:
                each(now)
            if now - begun > loop.config.seconds:
                loop.ending = loop.ending or "the time is over"
            number += 1
            behind = int((clock.now() - begun) / period) - number
            if behind > 0:  # a step that was missed is not done twice as fast
                loop.figures.counts["missed_steps"] += behind
                number += behind
    finally:
        loop.stage = "over"
        loop.send(Safe(loop.guard.stop()))
        loop.ended.set()
        for thread in threads:  # a policy that hangs keeps its thread, which ends with the process
            thread.join(JOIN)


def watch_camera(loop: Loop, clock: Clock) -> None:
    """The camera's thread: the newest frame only."""
    while not loop.ended.is_set():
        try:
            loop.see(loop.robot.look())
        except Exception as error:  # a camera that is pulled out raises many kinds
            loop.figures.counts["camera_error"] += 1
            loop.reason = f"the camera is gone ({error})"
            clock.sleep(RETRY)


def think(loop: Loop, clock: Clock) -> None:
    """The policy's thread: a chunk when the plan wants one."""
    while not loop.ended.is_set():
        begin = loop.plan.begin_at(clock.now())
        if begin is None or not loop.may_look(clock.now()):
            time.sleep(POLL)
            continue
        clock.wait_until(begin)
        frame = loop.frames[-1]
        ask = loop.plan.ask(clock.now(), frame.stamp)
        loop.plan.deliver(ask, loop.make(ask, frame), clock.now())
