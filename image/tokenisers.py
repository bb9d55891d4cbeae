"""Files of trained picture networks: picture codes (*.safetensors), and the independent reader.

A file holds the weights as float16. Its metadata has one entry, `about`, which is JSON: `kind`,
`config`, `sha256` of the weights, and `command`, which made the file. The file decides the sizes:
no script that opens it takes a flag for them. The path `embedded` means the file in assets/.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from base import files, flags
from base.errors import UserError
from net.picture_codes import PictureCodes, PictureCodesConfig
from net.picture_reader import PictureReader, ReaderConfig

EMBEDDED = "embedded"
ASSETS = Path(__file__).parent.parent / "assets"


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, its network, the tool that trains the network, the shipped file."""

    name: str
    config: Any
    network: Any
    tool: str
    asset: str


CODES = Kind(
    "picture codes",
    PictureCodesConfig,
    PictureCodes,
    "tools.train_picture_codes",
    "picture_codes.safetensors",
)
READER = Kind(
    "picture reader",
    ReaderConfig,
    PictureReader,
    "tools.train_picture_reader",
    "picture_reader.safetensors",
)


def locate(path, kind: Kind) -> Path:
    """The file that a path names: the shipped file for `embedded`."""
    return ASSETS / kind.asset if str(path) == EMBEDDED else Path(path)


def save_codes(path, model: PictureCodes, command: str) -> None:
    """Write picture codes, whole or not at all. command: what made them."""
    save(path, CODES, model, command)


def save_reader(path, model: PictureReader, command: str) -> None:
    """Write a reader, whole or not at all. command: what made it."""
    save(path, READER, model, command)


def open_codes(path, device: str | torch.device = "cpu") -> PictureCodes:
    """The picture codes in a file, in evaluation mode. Raises UserError if it holds none."""
    return open_network(path, CODES, device)


def open_reader(path, device: str | torch.device = "cpu") -> PictureReader:
    """The reader in a file, in evaluation mode. Raises UserError if it holds none."""
    return open_network(path, READER, device)


def fingerprint(path) -> str:
    """What tells a file from all others: 16 hex digits of its SHA-256."""
    return files.file_digest(path).hex()[:16]


def save(path, kind: Kind, model: nn.Module, command: str) -> None:
    """Write a network as float16 safetensors."""
    from safetensors.torch import save as packed

    weights = {}
    for name, value in model.state_dict().items():
        if value.is_floating_point():  # batch norm's counters are whole numbers, and unused
            weights[name] = value.detach().cpu().half().contiguous()
    about = {
        "kind": kind.name,
        "config": flags.to_dict(model.config),
        "sha256": digest(weights),
        "command": command,
    }
    with files.replacing(path) as file:
        # safetensors orders its entries at random. With one entry, equal networks are equal files.
        file.write(packed(weights, metadata={"about": json.dumps(about)}))


def digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of the names and bytes of float16 weights: safetensors has no checksum of its own."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode() + b"\0" + weights[name].numpy().tobytes())
    return total.hexdigest()


def open_network(path, kind: Kind, device: str | torch.device) -> Any:
    """The network in a file of this kind. Raises UserError if it is missing, broken or foreign."""
    path = locate(path, kind)
    path = files.existing(path, f"{kind.name} from {kind.tool}", f"run python -m {kind.tool}")
    weights, about = read(path, kind)
    wrong = broken(path, kind)
    if about.get("kind") != kind.name or about.get("sha256") != digest(weights):
        raise wrong
    try:
        config = flags.from_dict(kind.config, about["config"], str(path))
        if not is_within_reason(config, weights):
            raise wrong
        model = kind.network(config)
        own = model.state_dict()
        if {name for name in own if own[name].is_floating_point()} != weights.keys():
            raise wrong
        # Not strict: counters are not stored.
        model.load_state_dict({name: weights[name].float() for name in weights}, strict=False)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise wrong from error
    return quick(model.to(device)).eval()


def broken(path: Path, kind: Kind) -> UserError:
    """The error for a file that holds something else."""
    return UserError(
        f"{path}, which is damaged or no {kind.name} of this project",
        f"a file that {kind.tool} wrote",
        "choose such a file, or copy it again",
    )


def is_within_reason(config: Any, weights: dict[str, Tensor]) -> bool:
    """Whether the file has at least the weights of the residual blocks that its config names.

    A file of a few kB must not make its reader ask for all memory.
    """
    values = sum(value.numel() for value in weights.values())
    blocks = config.blocks + getattr(config, "encoder_blocks", 0)
    return 2 * 9 * blocks * config.width**2 <= values


def read(path: Path, kind: Kind) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a safetensors file. Raises UserError if it is none."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise broken(path, kind) from error
    if not isinstance(about, dict):
        raise broken(path, kind)
    return weights, about


def quick(model: Any) -> Any:
    """The network with its weights in channels_last, which is faster on the CPUs that we tried."""
    return model.to(memory_format=torch.channels_last)


def to_pixels(images: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """Images (B, S, S, 3) uint8 -> pixels (B, 3, S, S) float32 in [0, 1], in channels_last."""
    # Copied: torch refuses memory that it may not write. The permuted view of an array with its
    # channels last is channels_last already.
    pixels = torch.from_numpy(np.array(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255


def to_images(pixels: Tensor) -> np.ndarray:
    """The inverse of `to_pixels`, rounded: (B, S, S, 3) uint8."""
    return (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
