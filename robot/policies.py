"""Opens the checkpoints of grounders and policies."""

from dataclasses import dataclass
from pathlib import Path

import torch

from base import flags
from base.errors import UserError
from base.policy_config import ActorConfig, GrounderConfig
from base.scaling import Scaling
from base.tokenizer import Tokenizer
from loop import checkpoint
from loop.contracts import Checkpoint
from net.grounder import Grounder
from net.policy import Policy


@dataclass
class Opened:
    """A policy, and what its checkpoint says."""

    policy: Policy
    tokenizer: Tokenizer
    scaling: Scaling
    cameras: list[str]
    saved: Checkpoint

    def sayings(self) -> Tokenizer:
        """The words of what the policy says. Raises UserError if it says nothing."""
        if not self.saved.get("sayings"):
            raise UserError(
                "a policy that says nothing",
                "a grounder that was trained with --co_train",
                "train one with train_grounding.py --co_train 1, then the policy on it",
            )
        own = Tokenizer.from_json(self.saved["sayings"])
        sayer = self.policy.grounder.sayer
        words = 0 if sayer is None else sayer.writer.config.vocab_size
        if own.vocab_size != words:
            raise UserError(
                f"a policy that says {words} words, with a tokenizer of {own.vocab_size}",
                "as many words as its tokenizer has",
                "use another checkpoint of the run",
            )
        return own


def read(path: Path | str, kind: str, trainer: str) -> Checkpoint:
    do = f"train one with {trainer}, or name another"
    return checkpoint.load(path, kinds=(kind,), do=do)


def fit_weights(model: torch.nn.Module, weights: dict, path: Path | str) -> None:
    """Load weights. Raises UserError if they do not fit."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path}, whose weights do not fit its own description",
            "a whole checkpoint",
            "use another checkpoint of the run",
        ) from error


def open_grounder(path: Path | str) -> tuple[Grounder, Tokenizer, Checkpoint]:
    """A grounder in evaluation mode. Raises UserError for another or a damaged checkpoint."""
    saved = read(path, "grounding", "train_grounding.py")
    config = flags.from_dict(GrounderConfig, saved["grounder"], "the checkpoint")
    grounder = Grounder(config)
    fit_weights(grounder, saved.get("averaged") or saved["weights"], path)
    return grounder.eval(), Tokenizer.from_json(saved["tokenizer"]), saved


def open_policy(path: Path | str, device: torch.device) -> Opened:
    """A policy in evaluation mode. Raises UserError for another or a damaged checkpoint."""
    saved = read(path, "policy", "train_policy.py")
    grounder = flags.from_dict(GrounderConfig, saved["grounder"], "the checkpoint")
    actor = flags.from_dict(ActorConfig, saved["actor"], "the checkpoint")
    policy = Policy(grounder, actor)
    weights = dict(saved.get("averaged") or saved["weights"])
    # The first policies did not know how far an action moves the hand. 0 is what they computed.
    weights.setdefault("actor.reach", torch.zeros(3))
    fit_weights(policy, weights, path)
    return Opened(
        policy.to(device).eval(),
        Tokenizer.from_json(saved["tokenizer"]),
        Scaling.from_dict(saved["statistics"]),
        saved["cameras"],
        saved,
    )
