"""Settings: dataclasses, the named sizes, and the one way from a dataclass to flags (floor 0: no torch).

A field's help text is its flag's help text. Precedence: default < named size < --config file.json < flag.
Unknown keys and unknown flags are errors. Nothing is read from the environment.
"""

import argparse
import dataclasses
import difflib
import re
import sys
import typing
from dataclasses import dataclass

from base import files
from base.files import UserError


def setting(
    default, help: str, *, at_least=None, at_most=None, above=None, below=None, choices=None
):
    """A dataclass field with its help text and its limits, which `check` enforces."""
    return dataclasses.field(
        default=default,
        metadata=dict(
            help=help, at_least=at_least, at_most=at_most, above=above, below=below, choices=choices
        ),
    )


# name: (d_model, heads, layers). `caption` is xlarge's width with half of its layers (+ cross-attention).
NAMED_SIZES = {
    "tiny": (256, 4, 4),
    "small": (384, 6, 6),
    "medium": (512, 8, 8),
    "large": (640, 10, 10),
    "xlarge": (768, 12, 12),
    "xxlarge": (1024, 16, 16),
    "caption": (768, 12, 6),
}

LENGTH_HIDDEN = (
    256  # of captioners: a linear head gets the length wrong, and with it the structure (LOG.md)
)

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


@dataclass
class ModelConfig:
    """The architecture. Stored in every checkpoint, which is the only place that readers take it from."""

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

    def __post_init__(self):
        check(self)
        if self.d_model % (2 * self.heads):
            raise UserError(
                f"d_model {self.d_model} with {self.heads} heads",
                "an even number of channels per head",
                "choose --d_model divisible by twice --heads",
            )


@dataclass
class TrainConfig:
    """One training run: everything that `training.fit` needs besides the model, the loss and the data."""

    max_steps: int = setting(10_000, "optimizer steps", at_least=1)
    batch_size: int = setting(
        64, "sequences per optimizer step, over all micro-batches", at_least=1
    )
    accumulate: int = setting(
        1, "micro-batches per optimizer step; divides the batch size", at_least=1
    )
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
    compile: bool = setting(
        False, "torch.compile the blocks (a minute at the start; needs a C++ compiler)"
    )
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    seed: int = setting(0, "decides the weights, the data order and the masks", at_least=0)
    log_every: int = setting(10, "steps between lines in log.jsonl", at_least=1)
    eval_every: int = setting(500, "steps between evaluations; 0 means only at the end", at_least=0)
    save_every: int = setting(
        500, "steps between saved states; 0 means only at the end", at_least=0
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


GROUPS = 4  # of positions that `revise` draws again together: never neighbours; of 2, 3, 4, 6 and one by one the best for its calls (LOG.md)


@dataclass
class SampleConfig:
    """How to turn masks into tokens: the settings of `diffusion.sample`."""

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
    entropy_bound: float = setting(
        0.5, "entropy_bound: nats of joint uncertainty accepted per step", at_least=0.0
    )
    revise: int = setting(
        0,
        "looks back: each quarter of what was written is masked and drawn again so many times, the rest in sight",
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


# How captions are written unless a flag says otherwise: the likeliest tokens, and in one call all that are nearly certain together (LOG.md).
CAPTIONS = {
    "sampler": "entropy_bound",
    "entropy_bound": 0.2,
    "schedule": "cosine",
    "steps": 64,
    "temperature": 0.0,
}


def check(config) -> None:
    """Hold every field to its type, its choices and its limits; raise UserError that names the flag."""
    for field in dataclasses.fields(config):
        value, limit = getattr(config, field.name), field.metadata
        flag = f"--{field.name} {value!r}" if isinstance(value, str) else f"--{field.name} {value}"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if field.type is float and number:
            value = float(value)
            setattr(config, field.name, value)
        if not isinstance(value, field.type) or (field.type is int and isinstance(value, bool)):
            raise UserError(flag, f"a value of type {field.type.__name__}", "correct it")
        if limit.get("choices") and value not in limit["choices"]:
            near = difflib.get_close_matches(str(value), limit["choices"], 1)
            raise UserError(
                flag,
                "one of " + ", ".join(limit["choices"]),
                f"did you mean {near[0]}?" if near else "choose one",
            )
        for name, words, holds in (
            ("at_least", "at least", lambda v, b: v >= b),
            ("at_most", "at most", lambda v, b: v <= b),
            ("above", "above", lambda v, b: v > b),
            ("below", "below", lambda v, b: v < b),
        ):
            if limit.get(name) is not None and not holds(
                value, limit[name]
            ):  # NaN fails every comparison
                raise UserError(flag, f"a value {words} {limit[name]}", "choose such a value")


def to_dict(config) -> dict:
    """Plain values only: what goes into JSON files and checkpoints."""
    return dataclasses.asdict(config)


def from_dict(kind, values: dict, where: str = "the configuration"):
    """A dataclass from plain values. Raises UserError on a key that it does not have."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            raise unknown(f"the key {key!r} in {where}", key, known)
    return kind(**values)


def unknown(found: str, word: str, known: list[str]) -> UserError:
    """The error for a misspelt key or flag, with the nearest right one."""
    near = difflib.get_close_matches(word, known, 1)
    return UserError(
        found,
        f"{near[0]}" if near else "one of " + ", ".join(known),
        "correct the spelling" if near else "choose one",
    )


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors in three parts, exact flag names, and a docstring as its help."""

    def __init__(self, doc: str):
        super().__init__(
            description=doc,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.groups: dict[str, list[str]] = {}

    def error(self, message: str) -> typing.NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            words = message.split(": ", 1)[1].split()
            word = next((word for word in words if word.startswith("-")), words[0] if words else "")
            problem = (
                unknown(f"the flag {word}", word.split("=")[0], known)
                if word.startswith("-")
                else UserError(
                    f"the extra word {word!r}", "flags only", "quote texts that hold spaces"
                )
            )
        else:
            problem = UserError(message, "flags as --help lists them", "run again with --help")
        raise problem

    def add_choices(self, flags: dict[str, tuple]) -> None:
        """One flag for each name: (default, what it can be, what it is for). Another value is refused as it is read."""

        def one_of(flag: str, choices):
            def read(value: str) -> str:
                if value not in choices:
                    raise unknown(f"--{flag} {value}", value, list(choices))
                return value

            return read

        for flag, (default, choices, words) in flags.items():
            self.add_argument(
                f"--{flag}",
                type=one_of(flag, choices),
                default=default,
                metavar="|".join(choices),
                help=f"{words} (default {default})",
            )

    def add_settings(self, kind, *, skip=(), **defaults) -> None:
        """One flag for each field of the dataclass `kind`; `defaults` override the fields' own in the help text."""
        group = self.add_argument_group(kind.__doc__.split(".")[0].split(":")[0].strip())
        self.groups[kind.__name__] = names = [
            f.name for f in dataclasses.fields(kind) if f.name not in skip
        ]
        for field in dataclasses.fields(kind):
            if field.name not in names:
                continue
            default = defaults.get(field.name, field.default)
            words = f"{field.metadata['help']} (default {default})"
            if field.type is bool:
                group.add_argument(
                    f"--{field.name}",
                    action=argparse.BooleanOptionalAction,
                    default=None,
                    help=words,
                )
            else:
                group.add_argument(
                    f"--{field.name}",
                    type=field.type,
                    default=None,
                    help=words.replace("%", "%%"),
                    metavar="|".join(field.metadata["choices"] or [field.type.__name__.upper()]),
                )


def resolve(kind, arguments: argparse.Namespace, *layers: dict):
    """The dataclass `kind` from its defaults, then each of `layers` in turn, then the flags that were given."""
    names = {field.name for field in dataclasses.fields(kind)}
    values: dict = {}
    for layer in layers:
        values.update({key: value for key, value in layer.items() if key in names})
    values.update(
        {key: value for key, value in vars(arguments).items() if key in names and value is not None}
    )
    return kind(**values)


def take_over(args: argparse.Namespace, resume: dict | None) -> None:
    """Give a resumed run its own `flags` again, but for those that were given anew. args.parser: what read them."""
    for name, value in (resume or {}).get("flags", {}).items():
        if getattr(args, name) == args.parser.get_default(name):
            setattr(args, name, value)


def read_config_file(path, parser: Parser) -> dict:
    """The settings in a JSON file (--config). Raises UserError on a key that no group of `parser` has."""
    if path is None:
        return {}
    values = files.read_json(
        path, "a JSON file with settings, such as a run folder's config.json", "check --config"
    )
    known = [name for names in parser.groups.values() for name in names]
    for key in values:
        if key not in known:
            raise unknown(f"the key {key!r} in {path}", key, known)
    return values


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


def show(title: str, values: dict) -> None:
    """Print the resolved settings in one aligned block."""
    print(
        f"{title}: " + "  ".join(f"{key}={value}" for key, value in values.items()), file=sys.stderr
    )
