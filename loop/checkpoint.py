"""Checkpoints: what is in them, how they are written, what they build (floor 2).

A checkpoint `*.pt` is one dict of tensors and plain values, read with `weights_only=True`:
    format       1
    kind         key of KINDS: what to build
    objective    "diffusion" or "ar"
    model        ModelConfig as a plain dict: the architecture, for every reader
    weights      state dict, float32; `averaged`: the EMA weights or None. Readers take `averaged` if it is there
    tokenizer    tokenizer.json as a string
    statistics   plain values from the training data, such as the histogram of row lengths
    encoder      kind "caption": name, key, patches and width of the frozen image encoder; the features' mean and deviation are
                 in statistics
    form         kind "conditional": "context", "cross" or "ar", what a row of it looks like (pairs.py); encoder_layers of its text
                 encoder; flags, both_stages: what a resumed run keeps
    data         fingerprint of the training data; tokenizer: the tokenizer's
    train        TrainConfig as a plain dict; step, seed, git, metrics: where the weights come from
    checksums    SHA-256 of every tensor and plain value, which `load` holds them to (checksums.py)
`resume.pt` holds the same and beside it `optimizer`, and `skipped`: steps that --skip_nonfinite left out. Only training reads it.
"""

import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from base import config, files, flags
from base.files import UserError
from base.folders import check_tokenizer
from base.tokenizer import Tokenizer
from loop import checksums, distributed
from model import Denoiser
from net.text_encoder import TextConditioned

FORMAT = 1
SHAPES = {
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
}  # where it has them
LONGEST = 1 << 20  # tokens of a row
ANOTHER = "use another checkpoint of the run (last.pt, best.pt) or copy it again"
RUN_FOLDERS = (
    "checkpoints*/best.pt",
    "runs/*/best.pt",
    "checkpoints*/last.pt",
    "runs/*/last.pt",
    "runs/*/*/best.pt",
)


def build_denoiser(saved: dict) -> Denoiser:
    """The text denoiser or its autoregressive twin, which is the same class run causally."""
    return Denoiser(flags.from_dict(config.ModelConfig, saved["model"], "the checkpoint"))


def build_conditional(saved: dict) -> Denoiser:
    """A denoiser or twin that writes into blanks: the text model itself, or one that reads its condition through an encoder."""
    if saved["form"] != "cross":
        return build_denoiser(saved)
    return TextConditioned(
        flags.from_dict(config.ModelConfig, saved["model"], "the checkpoint"),
        saved["encoder_layers"],
    )


def within_reason(saved: dict) -> bool:
    """Whether the weights are as many as the description needs at least: a file of a few kB must not ask for all memory."""
    size = flags.from_dict(config.ModelConfig, saved["model"], "the checkpoint")
    there = sum(weight.numel() for weight in saved["weights"].values())
    layers = size.layers + saved.get("encoder_layers", 0) * (saved.get("form") == "cross")
    head = size.length_hidden * size.condition_width
    return (
        head + size.d_model * (size.vocab_size + layers * size.d_model + size.condition_width)
        <= there
        and size.max_length <= LONGEST
    )


KINDS = {"text": build_denoiser, "caption": build_denoiser, "conditional": build_conditional}
TRAINERS = {
    "text": "train.py",
    "caption": "train_captioning.py",
    "conditional": "train_conditional.py",
}


def save(path, content: dict) -> None:
    """Write a checkpoint, whole or not at all. Raises UserError if there is no room."""
    with files.replacing(path) as file:
        try:
            torch.save({**content, "format": FORMAT, "checksums": checksums.digests(content)}, file)
        except RuntimeError as error:  # torch's zip writer, which closes what it could not write, hides the system's error
            raise next(
                (cause for cause in causes(error) if isinstance(cause, OSError)), error
            ) from None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the one that it came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def read(path, device: str | torch.device, do: str) -> dict:
    """What is in a checkpoint file, tensors and plain values. Raises UserError if it is missing, damaged, or holds anything else."""
    path = files.existing(path, "a checkpoint (*.pt)", do)
    if path.is_dir():
        raise UserError(f"the folder {path}", "a checkpoint file", f"try {path / 'best.pt'}")
    try:
        if zipfile.is_zipfile(path):
            checksums.check_archive(path, ANOTHER)
        saved = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}, which holds more than tensors and plain values, or is no checkpoint at all",
            "a checkpoint of this project",
            do,
        ) from error
    except (UserError, PermissionError):
        raise
    except Exception as error:  # of a damaged file torch raises RuntimeError, EOFError, KeyError, AttributeError, OverflowError, …
        raise UserError(
            f"{path}, which is damaged or truncated", "a whole checkpoint", ANOTHER
        ) from error
    if not isinstance(saved, dict) or "format" not in saved or "kind" not in saved:
        raise UserError(
            f"{path}, which is no checkpoint of this project", "keys `format` and `kind`", do
        )
    return saved


def load(
    path,
    *,
    kinds: tuple[str, ...] = tuple(KINDS),
    device: str | torch.device = "cpu",
    do: str = "train one with train.py, or name another with --checkpoint",
) -> dict:
    """The content of a checkpoint. Raises UserError if it is missing, damaged, not ours, or of another format."""
    saved = read(path, device, do)
    if saved["format"] != FORMAT:
        raise UserError(
            f"{path} of format {saved['format']}",
            f"format {FORMAT}",
            "use the release that wrote it, or train again",
        )
    if saved["kind"] not in kinds:
        raise UserError(
            f"{path} of kind {saved['kind']!r}",
            "kind " + " or ".join(kinds),
            "name a checkpoint of that kind",
        )
    apart = (
        {"weights"} if saved.get("shards") and saved.get("weights") is None else set()
    )  # they are in the folder that it names
    wrong = [
        name
        for name, shape in SHAPES.items()
        if name not in apart and not isinstance(saved.get(name, shape[0]()), shape)
    ]
    if wrong:
        raise UserError(
            f"{path} of another shape ({wrong[0]} is {type(saved[wrong[0]]).__name__})",
            "a checkpoint of this project",
            do,
        )
    if "checksums" in saved:
        checksums.check(saved, path, ANOTHER)
    else:
        checksums.check_archive(Path(path), ANOTHER, tensors=True)
    return saved


def open_model(
    path,
    device: str | torch.device = "cpu",
    *,
    averaged: bool = True,
    kinds: tuple[str, ...] = tuple(KINDS),
) -> tuple[nn.Module, Tokenizer, dict]:
    """The model in evaluation mode, its tokenizer, and the rest of the checkpoint. Raises UserError as `load` does."""
    saved = load(path, kinds=kinds)
    try:
        if saved["objective"] not in config.OBJECTIVES or not within_reason(saved):
            raise ValueError(f"a model of {saved['model']} from fewer weights")
        model = KINDS[saved["kind"]](saved)
        model.load_state_dict(
            saved["averaged"] if averaged and saved.get("averaged") else saved["weights"]
        )
        tokenizer = Tokenizer.from_json(saved["tokenizer"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path}, whose weights do not fit its own description ({first})",
            "a whole checkpoint",
            "use another checkpoint of the run",
        ) from error
    for name in ("weights", "averaged"):
        saved.pop(name, None)
    return model.to(device).eval(), tokenizer, saved


def start_from(model: nn.Module, path, fingerprint: str) -> dict:
    """Copy every weight that fits from another checkpoint; new parts keep their own start. Returns its other content.

    Raises UserError if its tokenizer is not the one with this fingerprint, or nothing fits."""
    other, tokenizer, saved = open_model(path)
    check_tokenizer(tokenizer.fingerprint, fingerprint, path)
    mine, theirs = model.state_dict(), other.state_dict()
    fits = {
        name: weight
        for name, weight in theirs.items()
        if name in mine and mine[name].shape == weight.shape
    }
    if not fits:
        raise UserError(
            f"{path}, no weight of which fits",
            "a checkpoint of the same width",
            "choose the same --model_config",
        )
    model.load_state_dict(fits, strict=False)
    distributed.say(
        f"from {path}: {len(fits)} of {len(mine)} tensors; new: {len(mine) - len(fits)}"
    )
    return saved


def newest(kinds: tuple[str, ...] = ("text",)) -> Path:
    """The most recently written checkpoint of these kinds below the working folder. Raises UserError if there is none."""
    found = {path for pattern in RUN_FOLDERS for path in Path().glob(pattern)}
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            if len(found) == 1 or read(path, "meta", ANOTHER)["kind"] in kinds:
                return path
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
    raise UserError(
        f"no {' or '.join(kinds)} checkpoint below this folder",
        " or ".join(RUN_FOLDERS[:2]),
        f"run {TRAINERS[kinds[0]]} first, or name one with --checkpoint",
    )


def describe(saved: dict) -> str:
    """One line: what the checkpoint is."""
    size = saved["model"]
    metrics = "  ".join(
        f"{key} {value:.4f}"
        for key, value in (saved.get("metrics") or {}).items()
        if isinstance(value, float)
    )
    return f"{saved['kind']} {saved['objective']}  {size['layers']} layers × {size['d_model']}  step {saved.get('step')}  {metrics}".rstrip()
