"""A policy in action: from what is seen to the next action, chunk by chunk, also under a delay.

The delay is the time between an observation and the chunk that it gives, in control steps:

    wait      the robot stands still meanwhile
    naive     it goes on with the old chunk; of the new chunk it skips what is past
    ensemble  as naive, and where both chunks have an action it does their mean
    frozen    as naive, and the new chunk is filled around the actions that are done meanwhile
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from base import flags
from base.errors import UserError
from base.flags import setting
from net import chunks
from net.chunks import ChunkConfig
from net.grounder import Grounded
from robot import doubt, sayings, stills, words
from robot.policies import Opened

MODES = ("wait", "naive", "ensemble", "frozen")


@dataclass
class DriveConfig:
    """How a policy drives."""

    execute: int = setting(4, "actions of a chunk that are done before the next chunk", at_least=1)
    delay: int = setting(0, "control steps from an observation to its chunk", at_least=0)
    while_waiting: str = setting("frozen", "what is done during the delay", choices=MODES)

    def __post_init__(self):
        flags.check(self)


class Driver:
    """Drives one robot. `begin` with an order, then `next` once per control step.

    For people who want to see it, after an episode:

    made   every chunk: the `step` that it was made in, the `places` (2, 3) that the grounder found,
           its `actions` (T, A), the `calls` (T, A) that revealed them, or None, and the signals
           of `doubt`
    taken  for each chunk that was followed: the step from which on, and its first action's step
    """

    def __init__(self, opened: Opened, making: ChunkConfig, drive: DriveConfig, seed: int = 0):
        self.opened, self.making, self.drive, self.seed = opened, making, drive, seed
        length = opened.policy.actor.config.chunk
        if drive.execute + drive.delay > length:
            raise UserError(
                f"--execute {drive.execute} with --delay {drive.delay}",
                f"at most {length} together, the length of a chunk",
                "lower --execute or --delay",
            )

    def begin(self, text: str) -> list[str]:
        """Begin an episode with an order. Returns the words that the policy does not know."""
        tokenizer = self.opened.tokenizer
        ids = words.encode(tokenizer, [text]).astype(np.int64)
        self.words = torch.from_numpy(ids)
        self.lengths = torch.from_numpy(words.lengths(tokenizer, ids))
        self.rng = torch.Generator().manual_seed(self.seed)
        self.step = 0
        self.chunk: np.ndarray | None = None
        self.start = 0  # the control step of the chunk's first action
        self.coming: tuple[int, np.ndarray] | None = None  # when it began, and the chunk
        # Of the steps that looked before, the newest first: what was seen, and the state.
        self.before: list[tuple[dict, torch.Tensor]] = []
        self.made: list[dict] = []
        self.taken: list[tuple[int, int]] = []
        self.seconds: list[float] = []
        return words.unknown(tokenizer, text)

    def next(self, seen: dict, kinds: np.ndarray | None = None) -> np.ndarray:
        """The action of this control step: (A,) float32, in the robot's units.

        seen: what `TableEnv` shows. kinds: the attributes of the things, for a policy of lists.
        """
        if self.looks():
            earlier = self.opened.policy.actor.config.frames - 1
            clock = time.perf_counter()
            observed = self.observed(seen, kinds)
            if self.due():
                self.coming = (self.step, self.think(*observed))
                self.seconds.append(time.perf_counter() - clock)
                self.arrive()  # at once, without a delay
            self.before = [observed, *self.before][:earlier]
        action = self.current()
        self.step += 1
        return self.opened.scaling.restore(action).astype(np.float32)

    def says(self, seen: dict, kinds: np.ndarray | None = None) -> str:
        """What the policy says of what is seen. Raises UserError if it says nothing."""
        own = self.opened.sayings()
        parts, _ = self.observed(seen, kinds)
        return sayings.write(self.opened.policy.grounder, own, parts)[0]

    def looks(self) -> bool:
        """Whether the next control step looks, and so needs an image.

        A policy of F frames looks in the last F steps before each chunk, that step included.
        """
        self.arrive()
        return self.step + self.opened.policy.actor.config.frames > self.due_at()

    def due(self) -> bool:
        """Whether a new chunk is made in the next control step."""
        self.arrive()
        return self.step >= self.due_at()

    def due_at(self) -> int:
        """The control step in which the next chunk will be made, as it is known now."""
        if self.coming is None:
            return self.step if self.chunk is None else self.start + self.drive.execute
        begun, arrival = self.coming[0], self.coming[0] + self.drive.delay
        start = self.first_step(begun, arrival)
        return max(arrival, start + self.drive.execute)

    def first_step(self, begun: int, arrival: int) -> int:
        """The control step of the first action of the chunk that is coming."""
        # While the robot stands still, nothing of the chunk gets past.
        still = self.drive.while_waiting == "wait" or self.chunk is None
        return arrival if still else begun

    def arrive(self) -> None:
        """Take over a chunk whose delay is over."""
        if self.coming is None or self.step < self.coming[0] + self.drive.delay:
            return
        begun, chunk = self.coming
        begun = self.first_step(begun, self.step)
        if self.drive.while_waiting == "ensemble" and self.chunk is not None:
            # Both chunks know the steps that they share.
            shared = self.chunk[begun - self.start :][: len(chunk)]
            chunk = chunk.copy()
            chunk[: len(shared)] = (chunk[: len(shared)] + shared) / 2
        self.chunk, self.start, self.coming = chunk, begun, None
        self.taken.append((self.step, begun))

    def current(self) -> np.ndarray:
        """The action of now, or none: all at rest, the last number (the gripper) as it was."""
        standing = self.drive.while_waiting == "wait" and self.coming is not None
        index = self.step - self.start
        if self.chunk is None or standing or index >= len(self.chunk):
            rest = np.zeros(self.opened.policy.actor.config.actions, np.float32)
            if self.chunk is not None:
                rest[-1] = self.chunk[min(index, len(self.chunk) - 1)][-1]
            else:
                rest[-1] = -1.0
            return rest
        return self.chunk[index]

    def observed(self, seen: dict, kinds: np.ndarray | None) -> tuple[dict, torch.Tensor]:
        """What is seen and the state (1, S), as the policy reads them."""
        device = self.opened.policy.device
        state = self.opened.scaling.plain(seen["state"]).astype(np.float32)
        parts = {name: part.to(device) for name, part in self.seen(seen, kinds).items()}
        return parts, torch.from_numpy(state)[None].to(device)

    def think(self, parts: dict, state: torch.Tensor) -> np.ndarray:
        """A new chunk from what is seen now: (T, A) in [-1, 1]."""
        policy, device = self.opened.policy, self.opened.policy.device
        earlier = policy.actor.config.frames - 1
        # At an episode's start its first observation is repeated.
        oldest = self.before[-1] if self.before else (parts, state)
        before = [*self.before, *[oldest] * earlier][:earlier]
        with torch.inference_mode():
            order = self.words.to(device), self.lengths.to(device)
            found: Grounded = policy.grounder(*order, parts)
            told = policy.condition(found, state, policy.past(*order, before))
            prefix = self.committed(device)
            trace = chunks.Trace()
            actions = chunks.make(policy.actor, told, self.making, self.rng, prefix, trace)[0]
        made = {"step": self.step, "places": found.places[0].cpu().numpy()}
        calls = None
        if trace.stages:
            given = 0 if prefix is None else prefix.shape[1]
            calls = chunks.calls_of(trace.stages, policy.actor.config.bins, given)[0].cpu().numpy()
        made |= {"actions": actions.cpu().numpy(), "calls": calls}
        self.made.append(made | {"doubt": doubt.of_chunk(trace, found.scores)})
        return actions.cpu().numpy()

    def committed(self, device) -> torch.Tensor | None:
        """The old chunk's actions that will be done before the new chunk arrives: (1, n, A)."""
        if self.drive.while_waiting != "frozen" or self.chunk is None or not self.drive.delay:
            return None
        index = self.step - self.start
        left = self.chunk[index : index + self.drive.delay]
        return torch.from_numpy(left)[None].to(device) if len(left) else None

    def seen(self, seen: dict, kinds: np.ndarray | None) -> dict[str, torch.Tensor]:
        """What the grounder sees, as a batch of one."""
        if self.opened.policy.grounder.config.sees == "nothing":
            return {}
        if self.opened.policy.grounder.config.sees == "state":
            assert kinds is not None
            places = stills.padded(seen["things"])
            parts = {"kinds": kinds.astype(np.float32), "places": places}
            parts["real"] = kinds.sum(1) > 0
            return {name: torch.from_numpy(part)[None] for name, part in parts.items()}
        names = [name.split(".")[-1] for name in self.opened.cameras]
        images = [seen["image" if i == 0 else f"image_{name}"] for i, name in enumerate(names)]
        return {"images": torch.from_numpy(np.stack(images))[None]}
