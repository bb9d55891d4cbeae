"""A policy: a grounder, which finds what the words name, and an actor, which moves there.

The actor sees places, the robot's own state and what the order says, and no image. So what it
learns about one thing holds for every thing.
"""

import torch
from torch import Tensor, nn

from base.config import ActorConfig, GrounderConfig
from net.actor import Actor, Condition
from net.grounder import Grounded, Grounder


class Policy(nn.Module):
    """Words, what is seen, and the robot's state -> what the actor is told."""

    def __init__(self, grounder: GrounderConfig, actor: ActorConfig):
        super().__init__()
        self.grounder = Grounder(grounder)
        self.actor = Actor(actor)

    def told(
        self, words: Tensor, lengths: Tensor, seen: dict[str, Tensor], state: Tensor
    ) -> Condition:
        """words (B, W) with lengths (B,), seen as the grounder needs it, state (B, S).

        Gradients reach the grounder if its weights ask for them.
        """
        return self.condition(self.grounder(words, lengths, seen), state)

    def condition(self, found: Grounded, state: Tensor) -> Condition:
        return Condition(found.places, state, found.order)

    @property
    def device(self) -> torch.device:
        return self.actor.device

    def num_parameters(self) -> int:
        return self.grounder.num_parameters() + self.actor.num_parameters()
