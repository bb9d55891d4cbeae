"""The settings of a policy's two networks, which every checkpoint of a policy holds (no torch)."""

from dataclasses import dataclass

from base.files import UserError
from base.flags import check, setting


@dataclass
class GrounderConfig:
    """The grounder of a policy (net/grounder.py). Stored in every checkpoint of a policy."""

    sees: str = setting(
        "pixels",
        "images, a simulator's list of things, or nothing",
        choices=("pixels", "state", "nothing"),
    )
    vocab_size: int = setting(100, "words", at_least=2)
    longest: int = setting(24, "words of the longest order", at_least=2)
    width: int = setting(64, "width D of words and keys", at_least=8)
    layers: int = setting(2, "blocks that read the order", at_least=1)
    attributes: int = setting(2, "attentions per named thing, such as colour and shape", at_least=1)
    kinds: int = setting(17, "attributes of a thing in a simulator's list", at_least=1)
    cameras: int = setting(1, "images per moment", at_least=1)
    unit: float = setting(0.1, "metres that are 1 inside the network", above=0.0)
    sayings: int = setting(0, "words of the sentences that it says; 0: it says none", at_least=0)
    encoder: str = setting(
        "",
        "a frozen image encoder in place of eyes that learn: embedded, or a hub's name",
    )
    encoder_key: str = setting("", "hash of the frozen encoder's weights; empty: none")

    def __post_init__(self):
        check(self)
        if self.encoder and self.sees != "pixels":
            raise UserError(
                f"--encoder {self.encoder} with --sees {self.sees}",
                "--sees pixels",
                "leave out --encoder",
            )


HEADS = ("diffusion", "ar", "l1", "flow")


@dataclass
class ActorConfig:
    """The head of a policy (net/actor.py). Stored in every checkpoint of a policy."""

    head: str = setting(
        "diffusion", "how actions are made: by masked diffusion, or by a baseline", choices=HEADS
    )
    actions: int = setting(4, "numbers A per action", at_least=1)
    state: int = setting(8, "numbers of the robot's own state", at_least=1)
    order: int = setting(192, "numbers that tell the order", at_least=1)
    chunk: int = setting(8, "time steps T of a chunk of actions", at_least=1)
    bins: int = setting(65, "bins per number; odd, so that -1, 0 and 1 are exact", at_least=3)
    d_model: int = setting(128, "width D of the blocks", at_least=8)
    heads: int = setting(4, "attention heads; they divide the width", at_least=1)
    layers: int = setting(3, "blocks", at_least=1)
    sigma: float = setting(0.75, "width of the soft targets, in bins", above=0.0)
    whole: float = setting(
        0.2, "share of the rows that are masked whole", at_least=0.0, at_most=1.0
    )
    unit: float = setting(0.1, "metres that are 1 inside the network", above=0.0)
    cartesian: bool = setting(True, "the state has the hand's place, in metres")
    hand: int = setting(0, "where the hand's place begins in the state", at_least=0)
    frames: int = setting(1, "observations that are told, the newest included", at_least=1)

    def __post_init__(self):
        check(self)
        if self.bins % 2 == 0:
            raise UserError(
                f"--bins {self.bins}", "an odd number, so that rest is exact", "choose 65"
            )
