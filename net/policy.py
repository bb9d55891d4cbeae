"""A policy: a grounder, which finds what the words name, and an actor, which moves there.

The actor sees places, the robot's own state and what the order says, and no image. So what it
learns about one thing holds for every thing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from base.policy_config import ActorConfig, GrounderConfig
from net.actor import Actor, Condition
from net.grounder import Grounded, Grounder


class Policy(nn.Module):
    """Words, what is seen, and the robot's state -> what the actor is told."""

    def __init__(self, grounder: GrounderConfig, actor: ActorConfig):
        super().__init__()
        self.grounder = Grounder(grounder)
        self.actor = Actor(actor)

    def told(
        self,
        words: Tensor,
        lengths: Tensor,
        seen: dict[str, Tensor],
        state: Tensor,
        before: Sequence[tuple[dict[str, Tensor], Tensor]] = (),
    ) -> Condition:
        """words (B, W) with lengths (B,), seen as the grounder needs it, state (B, S).

        before: what was seen, and the state, of the observations before, the newest first.
        Gradients reach the grounder if its weights ask for them.
        """
        found = self.grounder(words, lengths, seen)
        return self.condition(found, state, self.past(words, lengths, before))

    def past(self, words: Tensor, lengths: Tensor, before: Sequence) -> tuple | None:
        """Places (B, F - 1, 2, 3) and states (B, F - 1, S) of earlier observations, or None."""
        if not before:
            return None
        places = [self.grounder(words, lengths, seen).places for seen, _ in before]
        return torch.stack(places, 1), torch.stack([state for _, state in before], 1)

    def condition(self, found: Grounded, state: Tensor, past: tuple | None = None) -> Condition:
        return Condition(found.places, state, found.order, past=past)

    @property
    def device(self) -> torch.device:
        return self.actor.device

    def num_parameters(self) -> int:
        return self.grounder.num_parameters() + self.actor.num_parameters()
