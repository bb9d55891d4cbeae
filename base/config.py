"""Settings that several commands share: dataclasses, the named sizes, and their defaults (no
torch).
"""

import re
from dataclasses import dataclass

from base.files import UserError
from base.flags import check, numbers, setting, unknown

# name: (d_model, heads, layers). `caption` is xlarge's width with half of its layers (+ cross-
# attention).
NAMED_SIZES = {
    "tiny": (256, 4, 4),
    "small": (384, 6, 6),
    "medium": (512, 8, 8),
    "large": (640, 10, 10),
    "xlarge": (768, 12, 12),
    "xxlarge": (1024, 16, 16),
    "caption": (768, 12, 6),
}

# Width of the head for captions' lengths. A linear head gets the length wrong, and with it the
# structure of the caption (docs/log/captions.md).
LENGTH_HIDDEN = 256

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


@dataclass
class ModelConfig:
    """The architecture. Stored in every checkpoint, which is the only place that readers take it
    from.
    """

    vocab_size: int = setting(8192, "tokens in the vocabulary V, special ones included", at_least=2)
    output_size: int = setting(
        8189,
        "ids below this can be emitted; [PAD], [BOS] and [MASK] lie at or above it",
        at_least=1,
    )
    max_length: int = setting(256, "longest sequence L, in tokens", at_least=2)
    d_model: int = setting(256, "width D of the residual stream", at_least=8)
    heads: int = setting(4, "attention heads H; they divide the width", at_least=1)
    layers: int = setting(4, "transformer blocks", at_least=1)
    # Both kinds are about as fast; their quality was not compared (docs/log/scaling.md).
    mlp: str = setting(
        "swiglu", "feed-forward kind; both have about 8·D² parameters", choices=("swiglu", "gelu")
    )
    causal: bool = setting(False, "attend to the left only: the autoregressive twin")
    time_conditioning: str = setting(
        "none", "tell the network the masked share", choices=("none", "sinusoidal")
    )
    condition_width: int = setting(
        0, "width of the condition (B, P, width) for cross-attention; 0 means none", at_least=0
    )
    length_hidden: int = setting(
        0,
        "hidden width of the head for captions' lengths; 0: a linear map of the mean patch",
        at_least=0,
    )
    dropout: float = setting(0.0, "dropout on the residual branches", at_least=0.0, below=1.0)
    block_sizes: str = setting(
        "",
        "train for these block sizes, such as 1,16,256; empty: a plain denoiser",
        metavar="SIZES",
    )
    soft_masks: bool = setting(
        False, "a masked place carries the belief of an earlier pass (net/soft_masks.py)"
    )

    def __post_init__(self):
        check(self)
        self.check_block_sizes()
        self.check_soft_masks()
        # Rotary positions turn the channels of a head in pairs.
        if self.d_model % (2 * self.heads):
            raise UserError(
                f"d_model {self.d_model} with {self.heads} heads",
                "an even number of channels per head",
                "choose --d_model divisible by twice --heads",
            )

    @property
    def trained_sizes(self) -> list[int]:
        """The block sizes that the network is trained for, ascending; none: a plain denoiser."""
        return sorted(set(numbers("block_sizes", self.block_sizes))) if self.block_sizes else []

    def check_block_sizes(self) -> None:
        """Raise UserError for sizes that do not fit the length, or for a model without blocks."""
        if self.trained_sizes and self.trained_sizes[-1] > self.max_length:
            raise UserError(
                f"--block_sizes {self.block_sizes} with --max_length {self.max_length}",
                f"sizes of at most {self.max_length} tokens",
                f"leave out {self.trained_sizes[-1]}, or raise --max_length",
            )
        if self.trained_sizes and self.causal:
            raise UserError(
                f"--block_sizes {self.block_sizes} for a twin",
                "a denoiser: block size 1 is as exact as a twin",
                "leave out --objective ar or --block_sizes",
            )
        if self.trained_sizes and self.time_conditioning != "none":
            raise UserError(
                f"--block_sizes {self.block_sizes} with --time_conditioning "
                f"{self.time_conditioning}",
                "a network that is not told the masked share",
                "leave out --time_conditioning",
            )

    def check_soft_masks(self) -> None:
        """Raise UserError for soft masks in a network that has no use for them."""
        refused = {
            "a twin": self.causal,
            "--block_sizes": bool(self.block_sizes),
            "--time_conditioning": self.time_conditioning != "none",
        }
        for other in [name for name, given in refused.items() if given and self.soft_masks]:
            raise UserError(
                f"--soft_masks with {other}", "a plain denoiser", "leave out one of the two"
            )


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
        0, "fill blocks of this many tokens from left to right; 0 means all at once", at_least=0
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


def named_size(name: str) -> dict:
    """The settings of a named size. Raises UserError with the names that exist."""
    if name not in NAMED_SIZES:
        raise unknown(f"--model_config {name}", name, list(NAMED_SIZES))
    return dict(zip(("d_model", "heads", "layers"), NAMED_SIZES[name], strict=True))


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
