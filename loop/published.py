"""Published checkpoints: folders that the Hugging Face hub takes, and that open as checkpoints.

    model.safetensors   the weights that readers take: the averaged weights, if there are any
    tokenizer.json      as the tokenizers library writes it
    config.json         `model_type`, and every plain value of the checkpoint (loop/checkpoint.py)
    README.md           the model card, which no script reads

`checksums` in config.json cover the tensors, the tokenizer and all plain values. `loop.checkpoint`
compares them, as it does for a file. Other line ends, which git may write, change no checksum.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from base import files, text_files
from base.files import UserError
from loop import checksums

MODEL_TYPE = "diffusion-llm"
WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.json", "tokenizer.json", "README.md"
NAMES = (WEIGHTS, TOKENIZER, CARD, CONFIG)  # config.json is written last
# Only a run that continues needs these, and it needs resume.pt itself.
OF_A_RUN = ("optimizer", "best", "tokens_seen", "skipped", "no_better", "shards", "shard_files")
HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")  # hub:OWNER/NAME@REVISION
WHAT = "a folder that tools.publish wrote"
AGAIN = "download or copy it again, or publish it again"


def is_published(path: Path) -> bool:
    """Whether a folder was published, whole or not; a run folder was not."""
    names = {name for name in NAMES if (path / name).exists()}
    # A run folder has config.json too, and a data folder has tokenizer.json.
    return WEIGHTS in names or {CONFIG, TOKENIZER} <= names


def content(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder holds of a checkpoint: one set of weights, and all plain values.

    Raises UserError if a figure is not finite.
    """
    weights = saved.get("averaged") or saved["weights"]
    kept = {name: value for name, value in saved.items() if name not in OF_A_RUN}
    kept |= {"weights": weights, "averaged": None}
    for name, value in checksums.leaves({**kept, "weights": {}}, "checkpoint"):
        # JSON has no word for such numbers, and the hub refuses Python's own words.
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{name} = {value}", "finite figures", "publish another checkpoint of the run"
            )
    return kept


def write(folder: Path, saved: Mapping[str, Any], card: str) -> None:
    """Write a checkpoint and its model card as a folder. Raises UserError as `content` does.

    saved: the content of a checkpoint, as `checkpoint.load` gives it. card: the text of README.md.
    """
    from safetensors.torch import save

    kept = content(saved)
    # From here until the end the folder is not valid.
    (folder / CONFIG).unlink(missing_ok=True)
    weights = {}
    for name, value in kept["weights"].items():
        # safetensors takes no two tensors in the same memory.
        weights[name] = value.detach().cpu().contiguous().clone()
    with files.replacing(folder / WEIGHTS) as file:
        file.write(save(weights, metadata={"format": "pt"}))  # transformers asks for the format
    files.write_text(folder / TOKENIZER, kept["tokenizer"])
    files.write_text(folder / CARD, card)
    values: dict[str, Any] = {"model_type": MODEL_TYPE}
    for name, value in kept.items():
        if name not in ("weights", "averaged", "tokenizer", "checksums"):
            values[name] = value
    files.write_json(folder / CONFIG, {**values, "checksums": checksums.digests(kept)})


def read(folder: Path, device: str | torch.device, do: str) -> dict[str, Any]:
    """The content of a checkpoint from a published folder; its checksums are not compared yet.

    device: of the tensors. do: what the user should do next. Raises UserError if a file is missing
    or damaged, or if the folder is another project's.
    """
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        files.existing(folder / name, WHAT, AGAIN)
    values = files.read_json(folder / CONFIG, WHAT, AGAIN)
    if values.get("model_type") != MODEL_TYPE:
        raise UserError(f"{folder} of model_type {values.get('model_type')!r}", WHAT, do)
    values.pop("model_type")
    if not isinstance(values.get("checksums"), dict):
        raise UserError(f"{folder / CONFIG} without checksums", WHAT, AGAIN)
    weights = read_weights(folder / WEIGHTS, device)
    check_names(folder / WEIGHTS, weights, values["checksums"])
    tokenizer = files.read_text(folder / TOKENIZER, WHAT, AGAIN)
    return {**values, "weights": weights, "averaged": None, "tokenizer": tokenizer}


def read_weights(path: Path, device: str | torch.device) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises UserError if it is damaged, or a pointer to it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with open(path, "rb") as file:
        text_files.refuse_other_kinds(path, file.read(text_files.HEAD), "a file of safetensors")
    try:
        weights = load_file(path)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}, which is damaged or truncated", "a whole file of safetensors", AGAIN
        ) from error
    # safetensors itself does not know the device `meta`, on which a checkpoint has no weights.
    return {name: weight.to(device) for name, weight in weights.items()}


def check_names(path: Path, weights: Mapping[str, Any], sums: Mapping[str, Any]) -> None:
    """Raise UserError unless the tensors are those that config.json has checksums of."""
    prefix = "weights/"
    expected = {name.removeprefix(prefix) for name in sums if name.startswith(prefix)}
    for words, names in (
        ("without the tensor", sorted(expected - weights.keys())),
        ("with the unknown tensor", sorted(weights.keys() - expected)),
    ):
        if names:
            raise UserError(
                f"{path} {words} {names[0]} ({len(names)} in all)",
                f"the {len(expected)} tensors that {CONFIG} lists",
                AGAIN,
            )


def local(path: Path | str) -> Path:
    """The path itself; for `hub:OWNER/NAME` a folder of its files, downloaded unless it is there.

    Raises UserError if the name is none, or if the hub does not give the files.
    """
    name = Path(path).as_posix()
    if not name.startswith("hub:"):
        return Path(path)
    found = HUB.fullmatch(name)
    if not found:
        raise UserError(
            name, "hub:OWNER/NAME, or hub:OWNER/NAME@REVISION", "correct the name of the repository"
        )
    try:
        import huggingface_hub  # a second, which a file spares

        repository, revision = found.groups()
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(NAMES)
        )
    except ImportError as error:
        raise UserError(
            f"{name} without huggingface_hub", "that library", "run pip install huggingface_hub"
        ) from error
    # httpx, the library and the system raise errors that share no base class.
    except Exception as error:
        raise UserError(
            f"no way to {name} ({type(error).__name__})",
            "a network connection, and a repository that you may read",
            "check the name, or download its files into a folder and name the folder",
        ) from error
    return Path(folder)
