"""An adapter's file: its weights, and what it was trained on (net/adapters.py).

`adapter.safetensors` in a run folder holds the weights of the best checkpoint that are the
adapter's own. Its metadata is a JSON object under the key `adapter`:

    format       1
    model        the adapter's settings: rank, alpha, targets, root, norm; embedding if it is true
    base         fingerprint of the network's weights that stay
    tokenizer    fingerprint of the tokenizer
    kind, objective, step
    statistics   of the data that it was trained on, in place of the base's

A reader opens the base and merges the adapter. The result is a plain network.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from base import files, flags
from base.config import ModelConfig
from base.files import UserError
from loop import checksums
from loop.contracts import Checkpoint
from model import Denoiser
from net import adapters

FORMAT = 1
NAME = "adapter.safetensors"
Shapes = dict[str, tuple[int, ...]]
DO = "name a file that training with --lora_rank wrote"
CLAIMS = ("model", "base", "tokenizer", "kind", "objective", "statistics")


def fingerprint(weights: Mapping[str, Tensor], embedding: bool = False) -> str:
    """What tells the network that is adapted from all others: 16 hex digits.

    Of all weights but the adapter's own, so that base and adapted network have the same.
    embedding: the adapter has --lora_embedding.
    """
    hashed = hashlib.sha256()
    for name in sorted(weights):
        if not adapters.is_own(name, embedding):
            hashed.update(f"{name} {checksums.digest(weights[name])}\n".encode())
    return hashed.hexdigest()[:16]


def write(path: Path | str, saved: Mapping[str, Any], tokenizer: str) -> None:
    """Write the adapter of a checkpoint. tokenizer: the fingerprint of its tokenizer."""
    from safetensors.torch import save

    weights = saved.get("averaged") or saved["weights"]
    settings = {name: saved["model"][name] for name in adapters.SETTINGS if name in saved["model"]}
    embedding = settings.get("lora_embedding", False)  # older checkpoints lack it
    if not embedding:
        settings.pop("lora_embedding", None)  # so that version 0.2.0 reads the file
    own = {}
    for name, value in weights.items():
        if adapters.is_own(name, embedding):
            own[name] = value.contiguous()
    about = {
        "format": FORMAT,
        "model": settings,
        "base": fingerprint(weights, embedding),
        "tokenizer": tokenizer,
        **{name: saved[name] for name in ("kind", "objective", "step", "statistics")},
    }
    with files.replacing(path) as file:
        file.write(save(own, metadata={"adapter": json.dumps(about)}))


def read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of an adapter and what its metadata says.

    Raises UserError if the file is missing, damaged, or no adapter.
    """
    from safetensors.torch import load_file

    _, about = header(path)
    return load_file(path), about


def header(path: Path | str) -> tuple[Shapes, dict[str, Any]]:
    """The shapes of an adapter's weights and what its metadata says; no weight is loaded.

    Raises UserError as `read` does.
    """
    from safetensors import SafetensorError, safe_open

    path = files.existing(path, "an adapter", DO)
    shapes: Shapes = {}
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["adapter"])
            for name in file.keys():  # noqa: SIM118 - it is no dict
                shapes[name] = tuple(file.get_slice(name).get_shape())
        if about["format"] != FORMAT or any(name not in about for name in CLAIMS):
            raise ValueError("another format")
        if not isinstance(about["model"], dict):
            raise ValueError("another format")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # RuntimeError: JSON that is nested too deeply, or a file too large to be mapped.
        raise UserError(
            f"{path}, which is damaged or no adapter", f"{NAME} of a run", DO
        ) from error
    return shapes, about


def check_shapes(model: Denoiser, config: ModelConfig, shapes: Shapes) -> None:
    """Raise ValueError unless an adapter of this configuration has weights of these shapes.

    A file of a few kB may name a rank for which there is no memory. So no adapter is made before.
    """
    wanted = {}
    for name, weight in model.state_dict().items():
        if adapters.is_own(name, config.lora_embedding):  # those that an adapter holds whole
            wanted[name] = tuple(weight.shape)
    for path, matrix in adapters.targets(model, adapters.target_names(model, config)):
        if config.lora_rank > max(matrix.weight.shape):
            raise ValueError(f"rank {config.lora_rank}, wider than {path}")
        wanted[f"{path}.{adapters.DOWN}"] = (config.lora_rank, matrix.in_features)
        wanted[f"{path}.{adapters.UP}"] = (matrix.out_features, config.lora_rank)
        if config.lora_norm:
            wanted[f"{path}.{adapters.LENGTH}"] = (matrix.out_features,)
    other = sorted(name for name in wanted | shapes if wanted.get(name) != shapes.get(name))
    if other or not config.lora_rank:
        raise ValueError(f"other weights: {other[:1]}")


def check_statistics(found: dict[str, Any], base: dict[str, Any]) -> None:
    """Raise ValueError unless an adapter's statistics are of the kinds that its base has."""
    for name, value in base.items():
        own = found.get(name)
        numbers = (int, float)
        same = isinstance(own, numbers if isinstance(value, numbers) else type(value))
        if (
            same and isinstance(own, list) and name.startswith("feature_")
        ):  # a number for each channel
            same = len(own) == len(value) and all(isinstance(item, numbers) for item in own)
        if not same:
            raise ValueError(f"other statistics: {name}")


def apply(model: Denoiser, saved: Checkpoint, tokenizer: str, path: Path | str) -> None:
    """Merge an adapter into the network that it was trained on, in place. As `attach`."""
    attach(model, saved, tokenizer, path)
    adapters.merge(model)


def attach(model: Denoiser, saved: Checkpoint, tokenizer: str, path: Path | str) -> None:
    """Give a network the adapter that was trained on it, in place, and do not merge it.

    saved: the rest of the network's checkpoint, whose statistics become the adapter's.
    Raises UserError if the adapter belongs to another network.
    """
    shapes, about = header(path)
    embedding = about["model"].get("lora_embedding", False)
    base = fingerprint(model.state_dict(), embedding)
    own = [base, tokenizer, saved["kind"], saved["objective"]]
    wanted = [about[name] for name in ("base", "tokenizer", "kind", "objective")]
    if own != wanted:
        raise UserError(
            f"{path}, the adapter of another network ({' '.join(map(str, wanted))})",
            f"an adapter of this network ({' '.join(own)})",
            "name the checkpoint that was its --init_from",
        )
    try:
        config = dataclasses.replace(plain(model.config), **about["model"])
        check_shapes(model, config, shapes)
        check_statistics(about["statistics"], saved["statistics"])
        weights, _ = read(path)
        adapters.adapt(model, config)
        model.load_state_dict(weights, strict=False)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path}, whose weights do not fit its own description ({first_line})",
            "a whole adapter",
            DO,
        ) from error
    saved["statistics"] = about["statistics"]


def plain(config: ModelConfig) -> ModelConfig:
    """The configuration of the network without adapters."""
    return flags.from_dict(ModelConfig, without_adapters(flags.to_dict(config)), "the network")


def without_adapters(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a plain dict, without the settings of adapters."""
    return {name: value for name, value in settings.items() if name not in adapters.SETTINGS}


def merge_own(model: Denoiser, saved: Checkpoint) -> None:
    """Merge the adapters of a network that was trained with them, in place."""
    adapters.merge(model)
    model.config = plain(model.config)
    saved["model"] = without_adapters(saved["model"])
