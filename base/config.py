"""Settings that several commands share: dataclasses and their defaults (no torch).

The architecture's settings stand in architecture.py, and are read from here.
"""

import re
from dataclasses import dataclass

from base.architecture import LENGTH_HIDDEN as LENGTH_HIDDEN
from base.architecture import NAMED_SIZES as NAMED_SIZES
from base.architecture import NOISES as NOISES
from base.architecture import NOT_OF_CAPTIONERS as NOT_OF_CAPTIONERS
from base.architecture import OF_CAPTIONERS as OF_CAPTIONERS
from base.architecture import OF_PAINTERS as OF_PAINTERS
from base.architecture import ModelConfig as ModelConfig
from base.architecture import named_size as named_size
from base.files import UserError
from base.flags import check, setting

OBJECTIVES = ("diffusion", "ar")
ESTIMATORS = ("count", "linear", "cosine", "polynomial")
WEIGHTS = ("bound", "clipped", "flat")
CHOOSE = ("bound", "consensus")  # of several captions
SCHEDULES = ("linear", "cosine", "polynomial")
SAMPLERS = (
    "ancestral",
    "first_hitting",
    "left_to_right",
    "confidence",
    "margin",
    "entropy",
    "threshold",
    "factor",
    "entropy_bound",
    "remask",
)
# Their order is fixed before a token is drawn, so several tokens can be guessed and then checked.
SPECULATIVE = ("first_hitting", "left_to_right", "confidence", "margin", "entropy")

# Settings of SampleConfig for networks with a quality head, which only captioners have.
RECHECKING = ("recheck", "doubt", "doubtful")
SPECIAL = ("carry", *RECHECKING)  # and for networks with soft masks


@dataclass
class TrainConfig:
    """One training run: everything that `loop.fit.fit` needs besides the model, the loss and the
    data.
    """

    max_steps: int = setting(10_000, "optimizer steps", at_least=1)
    minutes: float = setting(
        0.0,
        "fit --max_steps to this time, measured before the first step; 0: off",
        at_least=0.0,
    )
    batch_size: int = setting(
        64, "sequences per optimizer step, over all micro-batches", at_least=1
    )
    accumulate: int = setting(
        1, "micro-batches per optimizer step; divides the batch size", at_least=1
    )
    # Muon reached 5.59 nats where AdamW reached 5.91 (docs/log/text.md).
    optimizer: str = setting(
        "muon", "muon: Muon for the hidden matrices, AdamW for the rest", choices=("adamw", "muon")
    )
    learning_rate: float = setting(2e-3, "peak learning rate", above=0.0)
    warmup_steps: int = setting(100, "steps of linear warm-up", at_least=0)
    final_learning_rate: float = setting(
        0.05, "end of the cosine, as a share of the peak", at_least=0.0, at_most=1.0
    )
    weight_decay: float = setting(0.1, "decoupled weight decay of matrices", at_least=0.0)
    beta2: float = setting(0.98, "AdamW's second-moment decay", above=0.0, below=1.0)
    clip: float = setting(1.0, "largest gradient norm; 0 means no clipping", at_least=0.0)
    ema: float = setting(
        0.999,
        "decay of the averaged weights (0.999 suits runs up to 20k steps); 0 means none",
        at_least=0.0,
        below=1.0,
    )
    precision: str = setting(
        "auto", "arithmetic of the forward pass", choices=("auto", "fp32", "bf16", "fp16")
    )
    parallel: str = setting(
        "auto",
        "under torchrun: whole weights everywhere, or split by FSDP2; auto splits from xlarge on",
        choices=("auto", "ddp", "fsdp"),
    )
    # Off by default: it brought no gain on a CPU (docs/log/scaling.md).
    compile: bool = setting(
        False, "torch.compile the blocks (a minute at the start; needs a C++ compiler)"
    )
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    seed: int = setting(0, "decides the weights, the data order and the masks", at_least=0)
    log_every: int = setting(10, "steps between lines in log.jsonl", at_least=1)
    eval_every: int = setting(500, "steps between evaluations; 0 means only at the end", at_least=0)
    eval_growth: float = setting(
        1.0,
        "leave out evaluations, so that their steps grow by this factor; 1: leave out none",
        at_least=1.0,
    )
    patience: int = setting(
        0,
        "stop after this many evaluations in a row that were no better than the best; 0: never",
        at_least=0,
    )
    save_every: int = setting(
        500, "steps between saved states; 0 means only at the end", at_least=0
    )
    tensorboard: bool = setting(
        False, "write the figures of log.jsonl for TensorBoard too (requirements-extra.txt)"
    )
    skip_nonfinite: int = setting(
        0,
        "steps with a non-finite loss or gradient that are left out; one more stops the run",
        at_least=0,
    )

    def __post_init__(self):
        check(self)
        if self.batch_size % self.accumulate:
            raise UserError(
                f"--batch_size {self.batch_size} with --accumulate {self.accumulate}",
                "micro-batches of equal size",
                "make --accumulate a divisor of --batch_size",
            )


# Looking back masks every fourth token at a time, so neighbours are never drawn together. Of 2, 3,
# 4, 6
# groups and single tokens, 4 groups were the best for their calls (docs/log/captions.md).
GROUPS = 4


@dataclass
class SampleConfig:
    """How to turn masks into tokens: the settings of `net.samplers.sample`."""

    sampler: str = setting(
        "first_hitting", "which positions to reveal at each step", choices=SAMPLERS
    )
    steps: int = setting(64, "denoiser calls at most", at_least=1)
    schedule: str = setting(
        "linear", "masked share over time, for the samplers that follow one", choices=SCHEDULES
    )
    temperature: float = setting(
        1.0, "divides the logits of the token draw; 0 takes the likeliest token", at_least=0.0
    )
    top_p: float = setting(
        1.0,
        "draw from the smallest set of tokens with at least this probability",
        above=0.0,
        at_most=1.0,
    )
    block_size: int = setting(
        0,
        "fill blocks of this many tokens from left to right; 0: all at once, or, of a network that "
        "learnt blocks, its own choice",
        at_least=0,
    )
    threshold: float = setting(
        0.9, "threshold: reveal what is at least this sure", above=0.0, at_most=1.0
    )
    factor: float = setting(
        1.0, "factor: reveal the largest n with (n+1)(1-confidence) below this", above=0.0
    )
    # Captions have a default of their own: see `CAPTIONS` below.
    entropy_bound: float = setting(
        0.5, "entropy_bound: nats of joint uncertainty accepted per step", at_least=0.0
    )
    speculate: int = setting(
        0,
        "one token after another, exactly, in fewer calls: guess this many tokens ahead and check "
        "them in one call; --steps and --schedule then mean nothing",
        at_least=0,
    )
    carry: bool = setting(
        False,
        "soft masks: one pass per call, with the belief of the previous call; else two passes",
    )
    revise: int = setting(
        0,
        "how many times each quarter of the written tokens is masked and drawn again",
        at_least=0,
    )
    recheck: int = setting(
        0,
        "how many times a quality head looks at the written tokens, and doubtful ones are drawn "
        "again",
        at_least=0,
    )
    doubt: float = setting(
        0.5,
        "recheck: draw a token again that is less likely right than this",
        above=0.0,
        at_most=1.0,
    )
    doubtful: int = setting(
        2, "recheck: most tokens that are masked together, the least likely first", at_least=1
    )
    remask: str = setting(
        "cap",
        "remask: how ReMDM chooses its re-masking probability",
        choices=("cap", "rescale", "loop"),
    )
    remask_strength: float = setting(0.04, "remask: eta of ReMDM", at_least=0.0, at_most=1.0)

    def __post_init__(self):
        check(self)
        if self.speculate and self.sampler not in SPECULATIVE:
            raise UserError(
                f"--speculate {self.speculate} with --sampler {self.sampler}",
                "a sampler that reveals one token after another: " + ", ".join(SPECULATIVE),
                "choose one of these, or drop --speculate",
            )
        if self.speculate and self.recheck:
            raise UserError(
                f"--speculate {self.speculate} with --recheck {self.recheck}",
                "one of the two: a recheck changes the law that the guesses keep",
                "leave out one of the two",
            )
        if self.speculate and self.carry:
            raise UserError(
                f"--speculate {self.speculate} with --carry",
                "fresh beliefs: guesses are checked in other rows, which carry none",
                "leave out --carry",
            )


# How captions are written unless a flag says otherwise: the likeliest tokens, and in each call all
# tokens that are nearly certain together (docs/log/captions.md).
CAPTIONS = {
    "sampler": "entropy_bound",
    "entropy_bound": 0.2,
    "schedule": "cosine",
    "steps": 64,
    "temperature": 0.0,
}


def read_shard(text: str | None) -> tuple[int, int]:
    """ "2/8" -> (2, 8): the third of eight parts; None is all there is. Raises UserError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text or "0/1")
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(
            f"--shard {text}",
            "a part and the number of parts, such as 0/8 to 7/8",
            "choose one of these",
        )
    return int(found[1]), int(found[2])
