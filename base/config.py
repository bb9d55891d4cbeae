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
    "image": (256, 4, 5),
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

# Settings of ModelConfig that a text model does not have.
OF_CAPTIONERS = ("condition_width", "length_hidden", "quality_layers")
# Settings of ModelConfig that only networks of words and pictures have (net/painter.py).
OF_PAINTERS = ("picture_side", "picture_codes")
# Settings of SampleConfig for networks with a quality head, which only captioners have.
RECHECKING = ("recheck", "doubt", "doubtful")
SPECIAL = ("carry", *RECHECKING)  # and for networks with soft masks


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
    quality_layers: int = setting(
        0,
        "blocks of a head that says how likely each token is right; 0: no head (net/quality.py)",
        at_least=0,
    )
    picture_side: int = setting(
        0, "side S of a picture's grid of S·S tokens; 0: no pictures (net/painter.py)", at_least=0
    )
    picture_codes: int = setting(
        0, "codes of a picture's tokens: the ids below the words' ids", at_least=0
    )

    def __post_init__(self):
        check(self)
        self.check_block_sizes()
        self.check_parts()
        self.check_pictures()
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

    def check_parts(self) -> None:
        """Raise UserError for soft masks or a quality head where they have no use."""
        others = {
            "a twin": self.causal,
            "--block_sizes": bool(self.block_sizes),
            "--time_conditioning": self.time_conditioning != "none",
        }
        quality = f"--quality_layers {self.quality_layers}"
        parts = {
            "--soft_masks": others if self.soft_masks else {},
            # The head reads a network that does not change, so it has no use for dropout.
            quality: others | {"--soft_masks": self.soft_masks, "--dropout": self.dropout > 0}
            if self.quality_layers
            else {},
        }
        for part, refused in parts.items():
            for other in [name for name, given in refused.items() if given]:
                raise UserError(
                    f"{part} with {other}", "a plain denoiser", "leave out one of the two"
                )

    def check_pictures(self) -> None:
        """Raise UserError for pictures that leave no room, or in a network of another kind."""
        if not self.picture_side and not self.picture_codes:
            return
        places = self.picture_side**2
        if not 0 < places < self.max_length or not 0 < self.picture_codes < self.output_size:
            raise UserError(
                f"pictures of {places} tokens of {self.picture_codes} codes in rows of "
                f"{self.max_length} tokens of {self.output_size} ids",
                "a picture, and room for words",
                "raise --max_length",
            )
        timed = self.time_conditioning != "none"
        if self.block_sizes or timed or self.soft_masks or self.condition_width:
            found = "pictures with blocks, time, soft masks or a condition"
            raise UserError(found, "a plain denoiser", "leave out their flags")


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
