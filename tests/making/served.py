"""A policy without a network behind a server, for tests of servers and their clients."""

import time
from contextlib import contextmanager

import numpy as np

from base.driving import Made
from base.facts import Facts
from base.scaling import Scaling
from base.serving import Service, Serving, in_thread

LENGTH, ACTIONS, STATE = 6, 4, 8
SCALING = Scaling(
    np.full(ACTIONS, -2, np.float32),
    np.full(ACTIONS, 6, np.float32),
    np.zeros(STATE, np.float32),
    np.ones(STATE, np.float32),
)
SEEN = {
    "state": np.arange(STATE, dtype=np.float32),
    "things": np.ones((5, 3), np.float32),
    "kinds": np.eye(8, 17, dtype=np.uint8),
}


def facts_of(**changed) -> Facts:
    values = dict(
        length=LENGTH,
        frames=1,
        scaling=SCALING,
        absolute=False,
        sees="state",
        cameras=[],
        image_side=0,
        kinds=17,
        world="table",
        tasks="",
        head="none",
    )
    return Facts(**(values | changed))


class Steady:
    """A maker: the chunk depends on the state, the order and the seed. An order may be a fault."""

    def __init__(self, facts: Facts):
        self.length, self.frames = facts.length, facts.frames
        self.scaling, self.absolute = facts.scaling, facts.absolute
        self.most = 0  # calls at the same time
        self.at_work: list[int] = []  # shared by the copies

    def begin(self, text, seed):
        self.text, self.seed, self.count = text, seed, 0
        return [word for word in text.split() if word == "dinosaur"]

    def make(self, seen, earlier, prefix):
        self.at_work.append(1)
        assert len(self.at_work) == 1, "two chunks at once"
        self.count += 1
        try:
            if self.text == "break":
                raise RuntimeError("a fault of the policy")
            if self.text == "sleep":
                time.sleep(1)
            start = 0.01 * self.seed + 0.001 * float(np.sum(seen["state"])) + 0.0001 * len(earlier)
            actions = np.full((self.length, len(self.scaling.low)), start, np.float32)
            if self.text == "nan":
                actions[0, 0] = np.nan
            if prefix is not None:
                actions[: len(prefix)] = prefix
            return Made(actions, np.zeros((2, 3), np.float32), None, {"nats": 0.5})
        finally:
            self.at_work.pop()


@contextmanager
def served(facts: Facts | None = None, maker=None, **settings):
    """A running server on a free port: (service, address)."""
    facts = facts or facts_of()
    serving = Serving(**({"port": 0, "timeout": 5.0} | settings))
    with in_thread(Service(maker or Steady(facts), facts, serving)) as service:
        yield service, f"ws://127.0.0.1:{service.port}"
