"""Makes chunks with torch, from a checkpoint: what `base.driving.Driver` follows."""

from collections.abc import Sequence

import numpy as np
import torch

from base import words
from base.driving import Made
from base.observations import Observer
from base.scaling import Offsets
from net import chunks
from net.chunks import ChunkConfig
from net.grounder import Grounded
from robot import doubt, sayings
from robot.policies import Opened


class TorchMaker:
    """Chunks of an opened policy. It is a `base.driving.ChunkMaker`.

    about: what the policy is, by the names of a bundle's `about` (base/policy_runner.py).
    """

    def __init__(self, opened: Opened, making: ChunkConfig):
        self.opened, self.making = opened, making
        config = opened.policy.actor.config
        self.length, self.frames = config.chunk, config.frames
        self.scaling = opened.scaling
        self.absolute = bool(opened.saved.get("absolute", False))
        sees = opened.policy.grounder.config.sees
        side = opened.saved.get("image_side", 0)
        self.about = {"head": config.head, "sees": sees, "image_side": side}
        self.about |= {"cameras": list(opened.cameras), "tasks": opened.saved.get("tasks") or ""}
        self.about["world"] = opened.saved.get("world", "table")
        self.observer = Observer(sees, opened.cameras, side, opened.scaling)
        offsets = opened.saved.get("offsets")
        self.offsets = Offsets.from_dict(offsets) if offsets else None

    def begin(self, text: str, seed: int) -> list[str]:
        tokenizer = self.opened.tokenizer
        ids = words.encode(tokenizer, [text]).astype(np.int64)
        device = self.opened.policy.device
        self.order = (
            torch.from_numpy(ids).to(device),
            torch.from_numpy(words.lengths(tokenizer, ids)).to(device),
        )
        self.rng = torch.Generator().manual_seed(seed)
        return words.unknown(tokenizer, text)

    def make(self, seen: dict, earlier: Sequence[dict], prefix: np.ndarray | None) -> Made:
        policy, device = self.opened.policy, self.opened.policy.device
        parts, state = self.observed(seen)
        before = [self.observed(each) for each in earlier]
        if prefix is not None and self.offsets is not None:
            prefix = self.offsets.told(prefix, self.scaling, seen["state"])
        given = None if prefix is None else torch.from_numpy(prefix)[None].to(device)
        trace = chunks.Trace()
        with torch.inference_mode():
            found: Grounded = policy.grounder(*self.order, parts)
            told = policy.condition(found, state, policy.past(*self.order, before))
            made = chunks.make(policy.actor, told, self.making, self.rng, given, trace)[0]
        actions = made.cpu().numpy()
        if self.offsets is not None:
            actions = self.offsets.meant(actions, self.scaling, seen["state"])
        calls = None
        if trace.stages:
            count = 0 if prefix is None else len(prefix)
            calls = chunks.calls_of(trace.stages, policy.actor.config.bins, count)[0].cpu().numpy()
        blind = policy.grounder.config.sees == "nothing"
        return Made(
            actions,
            None if blind else found.places[0].cpu().numpy(),
            calls,
            doubt.of_chunk(trace, found.scores),
        )

    def says(self, seen: dict) -> str:
        """What the policy says of what is seen. Raises UserError if it says nothing."""
        own = self.opened.sayings()
        parts, _ = self.observed(seen)
        return sayings.write(self.opened.policy.grounder, own, parts)[0]

    def observed(self, seen: dict) -> tuple[dict, torch.Tensor]:
        """What is seen as a batch of one, and the state (1, S), as the policy reads them."""
        device = self.opened.policy.device
        parts, state = self.observer.read(seen)
        if "things" in parts:
            parts["places"] = parts.pop("things")
        shown = {name: torch.from_numpy(part).to(device) for name, part in parts.items()}
        return shown, torch.from_numpy(state).to(device)
