"""Checkpoints: what they hold, how they are written, which model they build.

A checkpoint `*.pt` is one dict of tensors and plain values, read with `weights_only=True`:
    format       1
    kind         key of KINDS: which model to build
    objective    "diffusion" or "ar" (autoregressive, the twin)
    model        ModelConfig as a plain dict: the architecture, for every reader
    weights      state dict, float32
    averaged     the averaged weights, or None. Readers take them if they are there
    tokenizer    tokenizer.json as a string
    statistics   plain values from the training data, such as the histogram of row lengths
    encoder      kinds "caption" and "dialogue": name, key, patches and width of the frozen image
                 encoder; the mean and deviation of its features are in statistics
    form         kind "conditional": "context", "cross" or "ar", how its rows look (text/pairs.py);
                 encoder_layers, of its text encoder; both_stages, settings of the whole run;
                 free_lengths, whether its blanks can grow and shrink (net/free_lengths.py)
    flags        the trainer's own flags, which a resumed run keeps
    data         fingerprint of the training data; tokenizer: the tokenizer's fingerprint
    train        TrainConfig as a plain dict; step, seed, git, metrics: where the weights come from
    checksums    SHA-256 of every tensor and plain value, which `load` checks (checksums.py)
`resume.pt` also holds `optimizer`, `best`, `tokens_seen`, `skipped`, the number of steps that
--skip_nonfinite left out, and `no_better`, the evaluations since the best, for --patience. Only
training reads it.

A folder that tools.publish wrote opens as a checkpoint too, and so does `hub:OWNER/NAME`: see
published.py.
"""

import hashlib
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from base import config, files, flags
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import adapter_files, checksums, published
from loop.contracts import Checkpoint
from model import Denoiser
from net import soft_masks
from net.free_lengths import FreeDenoiser
from net.text_encoder import TextConditioned

FORMAT = 1
WRITERS = "versions 0.1.0 and 0.2.0"  # of this project, which write the format above
SHAPES: dict[str, tuple[type, ...]] = {  # of the keys that a checkpoint may lack, but not spoil
    "model": (dict,),
    "weights": (dict,),
    "averaged": (dict, type(None)),
    "objective": (str,),
    "tokenizer": (str,),
    "step": (int,),
    "metrics": (dict, type(None)),
    "statistics": (dict,),
    "data": (dict,),
    "encoder": (dict, type(None)),
    "train": (dict,),
}
LONGEST = 1 << 20  # tokens of a row; a larger number would ask for all memory
ANOTHER = "use another checkpoint of the run (last.pt, best.pt) or copy it again"
RUN_FOLDERS = (
    "checkpoints*/best.pt",
    "runs/*/best.pt",
    "checkpoints*/last.pt",
    "runs/*/last.pt",
    "runs/*/*/best.pt",
)


def model_config(saved: Checkpoint) -> config.ModelConfig:
    """The architecture that a checkpoint describes. Raises UserError on an unknown key."""
    return flags.from_dict(config.ModelConfig, saved["model"], "the checkpoint")


def build_denoiser(saved: Checkpoint) -> Denoiser:
    """The text denoiser or its autoregressive twin, which is the same class run causally."""
    return soft_masks.build(model_config(saved))


def build_conditional(saved: Checkpoint) -> Denoiser:
    """The text model itself; for form "cross" a model with an encoder of its condition."""
    if saved.get("free_lengths"):
        return FreeDenoiser(model_config(saved))
    if saved["form"] != "cross":
        return build_denoiser(saved)
    return TextConditioned(model_config(saved), saved["encoder_layers"])


def build_dialogue(saved: Checkpoint) -> Denoiser:
    """A denoiser of dialogues, or its twin. Their answers have slots, so no head says a length."""
    model = build_denoiser(saved)
    model.length_head = None
    return model


class Kind(NamedTuple):
    """A kind of checkpoint: how its model is built, and the script that trains it."""

    build: Callable[[Checkpoint], Denoiser]
    trainer: str


KINDS = {
    "text": Kind(build_denoiser, "train.py"),
    "caption": Kind(build_denoiser, "train_captioning.py"),
    "conditional": Kind(build_conditional, "train_conditional.py"),
    "dialogue": Kind(build_dialogue, "train_dialogue.py"),
    "image": Kind(build_denoiser, "train_image.py"),
}


def is_within_reason(saved: Checkpoint) -> bool:
    """Whether there are as many weights as the described model needs at least.

    A file of a few kB must not make its reader ask for all memory.
    """
    size = model_config(saved)
    values = sum(weight.numel() for weight in saved["weights"].values())
    layers = size.layers + size.patch_layers
    if saved.get("form") == "cross":
        layers += saved.get("encoder_layers", 0)
    # A lower limit: it counts one matrix of D × D per block, and a block has more.
    head = size.length_hidden * size.condition_width
    per_channel = size.vocab_size + layers * size.d_model + size.condition_width
    is_coded = size.noise == "gaussian"
    codes = size.code_width * (size.output_size + size.d_model) if is_coded else 0
    least = head + size.d_model * per_channel + codes
    return least <= values and size.max_length <= LONGEST


def save(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. Raises UserError if there is no room."""
    sealed = {**content, "format": FORMAT, "checksums": checksums.digests(content)}
    with files.replacing(path) as file:
        try:
            torch.save(sealed, file)
        except RuntimeError as error:
            # torch's zip writer fails again while it closes the file: the system's error hides.
            raise system_error(error) or error from None


def system_error(error: BaseException) -> OSError | None:
    """The operating system's error that an error came from, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def read(path: Path | str, device: str | torch.device, do: str) -> dict[str, Any]:
    """The tensors and plain values in a checkpoint: a file, a published folder, or its hub name.

    do: what the user should do next. Raises UserError if the file is missing or damaged, or if it
    holds anything else.
    """
    path = files.existing(published.local(path), "a checkpoint (*.pt)", do)
    is_published = path.is_dir() and published.is_published(path)
    if path.is_dir() and not is_published:
        raise UserError(
            f"the folder {path}",
            f"a checkpoint file, or {published.WHAT}",
            f"try {path / 'best.pt'}",
        )
    saved = (published.read if is_published else read_file)(path, device, do)
    if not isinstance(saved, dict) or "format" not in saved or "kind" not in saved:
        raise UserError(
            f"{path}, which is no checkpoint of this project", "keys `format` and `kind`", do
        )
    return saved


def read_file(path: Path, device: str | torch.device, do: str) -> Any:
    """What is in a file of torch, if it is tensors and plain values. Raises UserError otherwise."""
    try:
        # torch.load does not compare the zip's own checksums.
        if zipfile.is_zipfile(path):
            checksums.check_archive(path, ANOTHER)
        # Without weights_only a pickle may run any code.
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}, which holds more than tensors and plain values, or is no checkpoint at all",
            "a checkpoint of this project",
            do,
        ) from error
    except (UserError, PermissionError):  # not damage
        raise
    # Of a damaged file torch raises RuntimeError, EOFError, KeyError, AttributeError,
    # OverflowError, …
    except Exception as error:
        raise UserError(
            f"{path}, which is damaged or truncated", "a whole checkpoint", ANOTHER
        ) from error


def load(
    path: Path | str,
    *,
    kinds: tuple[str, ...] = tuple(KINDS),
    device: str | torch.device = "cpu",
    do: str = "train one with train.py, or name another with --checkpoint",
) -> Checkpoint:
    """The content of a checkpoint.

    Raises UserError if it is missing, damaged, of another project, of another format or of another
    kind.
    """
    saved = read(path, device, do)
    # Another format may hold other keys, so it is refused before anything is looked at.
    if saved["format"] != FORMAT:
        raise UserError(
            f"{path} of format {saved['format']}",
            f"format {FORMAT}, which {WRITERS} write",
            "use the version that wrote it, or train again",
        )
    if saved["kind"] not in kinds:
        raise UserError(
            f"{path} of kind {saved['kind']!r}",
            "kind " + " or ".join(kinds),
            "name a checkpoint of that kind",
        )
    check_shapes(saved, path, do)
    # Old checkpoints hold no checksums: the zip's own CRC-32 must do.
    if "checksums" in saved:
        checksums.check(saved, path, ANOTHER)
    else:
        # A checkpoint from before there were checksums.
        checksums.check_archive(Path(path), ANOTHER, tensors=True)
    return cast(Checkpoint, saved)


def check_shapes(saved: dict[str, Any], path: Path | str, do: str) -> None:
    """Raise UserError if a value of a checkpoint is not of its type in SHAPES."""
    for name, types in SHAPES.items():
        if name == "weights" and saved.get("shards") and saved.get("weights") is None:
            continue  # the weights are in the folder that `shards` names
        if name in saved and not isinstance(saved[name], types):
            raise UserError(
                f"{path} of another shape ({name} is {type(saved[name]).__name__})",
                "a checkpoint of this project",
                do,
            )


def check_noise(saved: Checkpoint, path: Path | str, noises: tuple[str, ...]) -> None:
    """Raise UserError for a checkpoint whose network was not trained with one of `noises`."""
    # Checkpoints from before there was a choice have no such key.
    noise = saved["model"].get("noise", "absorbing")
    if noise not in noises or (noise != "absorbing" and saved["kind"] != "text"):
        raise UserError(
            f"{path}, a network of {noise} noise",
            "a network that fills [MASK]s",
            "name a checkpoint of --noise absorbing; train.py, generate.py and evaluate.py read "
            "the other",
        )


def open_model(
    path: Path | str,
    device: str | torch.device = "cpu",
    *,
    averaged: bool = True,
    kinds: tuple[str, ...] = tuple(KINDS),
    adapter: Path | str | None = None,
    noises: tuple[str, ...] = ("absorbing",),
) -> tuple[Denoiser, Tokenizer, Checkpoint]:
    """The model in evaluation mode, its tokenizer, and the rest of the checkpoint.

    averaged: take the averaged weights if there are any. adapter: a file to merge into the model;
    its own adapters are merged anyway. noises: what the caller can do with; most know masks alone.
    Raises UserError as `load` does, for another noise, and if the weights do not fit the
    description, or the adapter does not fit the model.
    """
    saved = load(path, kinds=kinds)
    check_noise(saved, path, noises)
    try:
        if saved["objective"] not in config.OBJECTIVES or not is_within_reason(saved):
            raise ValueError(f"a model of {saved['model']} from fewer weights")
        # The checkpoint decides the architecture: no reader takes a flag for it.
        model = KINDS[saved["kind"]].build(saved)
        own = saved["weights"]
        model.load_state_dict((saved.get("averaged") or own) if averaged else own)
        tokenizer = Tokenizer.from_json(saved["tokenizer"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        # torch writes a line for every weight that does not fit.
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path}, whose weights do not fit its own description ({first_line})",
            "a whole checkpoint",
            "use another checkpoint of the run",
        ) from error
    saved.pop("weights", None)  # they are in the model; two copies would take twice the memory
    saved.pop("averaged", None)
    if model.config.lora_rank:
        adapter_files.merge_own(model, saved)
    if adapter:
        adapter_files.apply(model, saved, tokenizer.fingerprint, adapter)
    return model.to(device).eval(), tokenizer, saved


def read_tokenizer(path: str, do: str = "check --tokenizer") -> Tokenizer:
    """The tokenizer of a checkpoint (a file, a published folder, a hub name) or a tokenizer.json.

    Raises UserError if there is none.
    """
    if path.endswith(".pt") or path.startswith("hub:") or Path(path).is_dir():
        return Tokenizer.from_json(load(path, do=do)["tokenizer"])
    return Tokenizer.load(path, do)


def kind_of(path: Path | str) -> str:
    """The kind of a checkpoint, without its weights. Raises UserError as `read` does."""
    return read(path, "meta", "name another with --checkpoint")["kind"]


def digest(path: Path | str, saved: Checkpoint) -> str:
    """What tells this checkpoint from all others: 64 hex digits of SHA-256.

    Of the file; of a published folder, or a hub name, of the checksums that `saved` holds.
    """
    if Path(path).is_file():
        return files.file_digest(path).hex()
    return hashlib.sha256(repr(sorted(saved["checksums"].items())).encode()).hexdigest()


def newest(kinds: tuple[str, ...] = ("text",)) -> Path:
    """The most recently written checkpoint of these kinds below the working folder.

    Raises UserError if there is none. A checkpoint that cannot be read is named and passed over.
    """
    # On the device `meta` no tensor is held: a folder may have many large runs.
    paths = list(candidates())
    for path in paths:
        try:
            # A single candidate is taken unread: whoever opens it says what is wrong with it.
            if len(paths) == 1 or read(path, "meta", ANOTHER)["kind"] in kinds:
                return path
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
    raise UserError(
        f"no {' or '.join(kinds)} checkpoint below this folder",
        " or ".join(RUN_FOLDERS[:2]),
        f"run {KINDS[kinds[0]].trainer} first, or name one with --checkpoint",
    )


def candidates() -> Iterator[Path]:
    """The checkpoints in the usual run folders below the working folder, the newest first."""
    paths: set[Path] = set()
    for pattern in RUN_FOLDERS:
        paths.update(Path().glob(pattern))
    yield from sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def special_parts(saved: Checkpoint) -> list[str]:
    """What sets a checkpoint's network apart from a plain denoiser."""
    size = saved["model"]
    noise = size.get("noise", "absorbing")
    parts = {
        f"{size.get('retrieve')} retrieved captions": size.get("retrieve"),
        "quality head": size.get("quality_layers"),
        "free lengths": saved.get("free_lengths"),
        "logit shift": size.get("logit_shift"),
        f"{size.get('experts')} experts": size.get("experts"),
        f"{size.get('patch_layers')} patch layers": size.get("patch_layers"),
        "soft masks": size.get("soft_masks"),
        f"{noise} noise": noise != "absorbing",
        f"block sizes {size.get('block_sizes')}": size.get("block_sizes"),
    }
    return [name for name, there in parts.items() if there]


def describe(saved: Checkpoint) -> str:
    """One line: kind, objective, size, step and metrics of a checkpoint."""
    size = saved["model"]
    facts = [
        f"{saved['kind']} {saved['objective']}",
        f"{size['layers']} layers × {size['d_model']}",
        *special_parts(saved),
        f"step {saved.get('step')}",
    ]
    for name, value in (saved.get("metrics") or {}).items():
        if isinstance(value, float) and not name.startswith("block_"):
            facts.append(f"{name} {value:.4f}")
    return "  ".join(facts)
