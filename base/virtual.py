"""A virtual clock: the control loop as a list of moments, which no load on the machine can disturb.

The same `Loop`, `Plan` and `Guard` as in real time run here, in one thread. A frame, the arrival of
a chunk, a control step and a look of the policy happen one after the other, each at its own time. A
chunk takes `think` seconds, and what a maker sleeps on top.
"""

import math
from dataclasses import dataclass

from base.control import Loop
from base.driving import Made
from base.guard import Safe
from base.schedule import Ask


class VirtualClock:
    """Seconds that go forward when somebody waits. What is slept is kept, and costs time later."""

    def __init__(self):
        self.time = 0.0
        self.slept = 0.0

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float) -> None:
        self.time = max(self.time, moment)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def taken(self) -> float:
        """The seconds that were slept since the last question."""
        slept, self.slept = self.slept, 0.0
        return slept


@dataclass
class Job:
    """A chunk that is being made."""

    ask: Ask
    made: Made | Exception
    arrival: float


def run(loop: Loop, clock: VirtualClock, think: float = 0.01, each=None) -> None:
    """Run until the loop is over. think: seconds that a chunk takes. each: after every step."""
    job: Job | None = None
    begun, number = clock.now(), 0
    while not loop.ending:
        now = clock.now()
        moments = {
            "frame": loop.robot.frame_at,
            "arrival": job.arrival if job else math.inf,
            "step": begun + number / loop.hz,
            "look": math.inf,
        }
        if job is None and loop.may_look(now):
            begin = loop.plan.begin_at(now)
            moments["look"] = math.inf if begin is None else begin
        what = min(moments, key=lambda name: moments[name])  # of equals, the first in this order
        clock.wait_until(moments[what])
        if what == "frame":
            look(loop, clock)
        elif what == "arrival" and job is not None:
            loop.plan.deliver(job.ask, job.made, clock.now())
            job = None
        elif what == "look":
            job = begin_job(loop, clock, think)
        else:
            loop.step(clock.now())
            number += 1
            if each is not None:
                each(clock.now())
            if clock.now() - begun > loop.config.seconds:
                loop.ending = loop.ending or "the time is over"
    loop.stage = "over"
    loop.send(Safe(loop.guard.stop()))


def look(loop: Loop, clock: VirtualClock) -> None:
    """The camera's turn. A camera that is gone is asked again a little later."""
    try:
        loop.see(loop.robot.look())
    except Exception as error:
        loop.figures.counts["camera_error"] += 1
        loop.reason = f"the camera is gone ({error})"


def begin_job(loop: Loop, clock: VirtualClock, think: float) -> Job:
    """The policy's turn: what it makes arrives later."""
    frame = loop.frames[-1]
    ask = loop.plan.ask(clock.now(), frame.stamp)
    clock.taken()
    made = loop.make(ask, frame)
    return Job(ask, made, clock.now() + think + clock.taken())
