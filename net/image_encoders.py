"""Frozen image encoders: a picture in, patch features (B, P, width) out (floor 1).

`embedded` is the small convolutional tower in assets/, trained on synthetic scenes by train_encoder.py as CLIP and CoCa
are: it needs no download. Any other name is a hub name or a local folder that transformers reads: CLIP, SigLIP, DINOv2, ViT.
The features are the last hidden state, every token with its position ([CLS] too where the encoder has one), before
any pooling or projection; preprocessing (size, crop, mean, deviation) is what the model's own folder says.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from base import files
from base.files import UserError
from base.images import open_image, resize_crop

EMBEDDED = "embedded"
ASSET = Path(__file__).parent.parent / "assets" / "scene_encoder.safetensors"
ASSET_SHA256 = "13dcc59064727959"  # first 16 hex digits of the file's SHA-256


@dataclass(frozen=True)
class Preprocess:
    """size: side in pixels. mode: `crop` the centre, or `squash` to a square. mean, std: of each channel, for pixels in 0..1."""

    size: int
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = int(Image.Resampling.BICUBIC)
    zoom: float = 1.0  # of the centre: the shorter side before the crop, over `size`

    def __call__(self, source) -> np.ndarray:
        """A path, bytes or an open picture -> (size, size, 3) uint8. Raises UserError if it is no picture."""
        image = (
            source if isinstance(source, Image.Image) else open_image(source, at_least=self.size)
        )
        return resize_crop(image, self.size, self.mode, self.resample, self.zoom)


class Encoder:
    """A frozen encoder. name; key: tells weights and preprocessing apart; patches P; width of a feature."""

    def __init__(self, name: str, model: nn.Module, preprocess: Preprocess, device="cpu"):
        self.name, self.preprocess, self.device = name, preprocess, torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        torch.backends.cudnn.allow_tf32 = False  # in this whole process: a GPU's default, 10 bits of mantissa; features are alike everywhere
        self.mean, self.std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1)
            for v in (preprocess.mean, preprocess.std)
        )
        digest = [
            json.dumps(
                {
                    name: value
                    for name, value in asdict(preprocess).items()
                    if (name, value) != ("zoom", 1.0)
                },
                sort_keys=True,
            ).encode()
        ]
        for key, weight in sorted(model.state_dict().items()):
            digest += [key.encode(), weight.detach().float().cpu().numpy().tobytes()]
        self.key = files.sha256(b"".join(files.sha256(part).encode() for part in digest))
        self.patches, self.width = self.encode(
            np.zeros((1, preprocess.size, preprocess.size, 3), np.uint8)
        ).shape[1:]

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> Tensor:
        """(B, size, size, 3) uint8 -> (B, P, width) float32."""
        x = (
            torch.from_numpy(np.ascontiguousarray(pixels))
            .to(self.device)
            .permute(0, 3, 1, 2)
            .float()
            / 255
        )
        return self.model(pixel_values=(x - self.mean) / self.std).last_hidden_state.float()

    def features(self, sources: list) -> Tensor:
        """Pictures as a captioner was trained on them, rounded to float16 like the cache: (B, P, width) float32."""
        return self.encode(np.stack([self.preprocess(source) for source in sources])).half().float()


def load(name: str, device="cpu") -> Encoder:
    """The encoder of this name. Raises UserError if there is none, or if the embedded one is damaged."""
    if name == EMBEDDED:
        return load_embedded(device)
    import transformers
    from transformers import AutoConfig

    transformers.logging.set_verbosity_error()
    try:
        kind = AutoConfig.from_pretrained(name).model_type
        said = transformers.ImageProcessingMixin.get_image_processor_dict(name)[0]
        classes = {
            "clip": "CLIPVisionModel",
            "clip_vision_model": "CLIPVisionModel",
            "siglip": "SiglipVisionModel",
            "siglip_vision_model": "SiglipVisionModel",
            "vit": "ViTModel",
            "dinov2": "Dinov2Model",
        }
        extra = {"add_pooling_layer": False} if kind == "vit" else {}
        model = getattr(transformers, classes[kind]).from_pretrained(name, **extra)
    except KeyError as error:
        raise UserError(
            f"--encoder {name} of a kind that is not known ({error})",
            "a CLIP, SigLIP, DINOv2 or ViT model",
            f"choose such a model, or --encoder {EMBEDDED}",
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"no image encoder {name} ({str(error).splitlines()[0]})",
            "a hub name or a local folder that transformers reads",
            f"check the name and the network, or use --encoder {EMBEDDED}",
        ) from error
    return Encoder(name, model, preprocess_of(said), device)


def preprocess_of(said: dict) -> Preprocess:
    """Size, crop, mean and deviation from the words of a preprocessor_config.json."""
    size = said.get("crop_size") if said.get("do_center_crop") else said.get("size")
    size = size if isinstance(size, dict) else {"height": size or 224}
    side = size.get("height") or size.get("shortest_edge") or 224
    half, shorter = (0.5, 0.5, 0.5), said.get("size")
    shorter = shorter.get("shortest_edge") if isinstance(shorter, dict) else shorter
    return Preprocess(
        int(side),
        "crop" if said.get("do_center_crop") else "squash",
        tuple(said.get("image_mean") or half),
        tuple(said.get("image_std") or half),
        int(said.get("resample") or Image.Resampling.BICUBIC),
        (shorter or side) / side if said.get("do_center_crop") else 1.0,
    )


class SceneTower(nn.Module):
    """The embedded encoder: transformers' ResNet to a grid of patches, and 16 fixed channels that say where a patch is.

    CLIP (arXiv 2103.00020, section 2.3) trains ResNets as well as ViTs; on scenes, from scratch and on a CPU, a ViT of
    equal cost knew 25% of shapes where this knew most of them (LOG.md).
    """

    def __init__(self, settings: dict):
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        self.body = ResNetModel(ResNetConfig(**settings)).to(memory_format=torch.channels_last)

    def forward(self, pixel_values: Tensor):
        pixel_values = pixel_values.contiguous(
            memory_format=torch.channels_last
        )  # a sixth faster on CPUs
        x = self.body(pixel_values=pixel_values).last_hidden_state  # (B, C, h, w)
        B, C, h, w = x.shape
        angle = (
            torch.linspace(-1, 1, h, device=x.device)[:, None]
            * torch.tensor([0.5, 1.0, 2.0, 4.0], device=x.device)
            * torch.pi
            / 2
        )
        wave = torch.cat([angle.sin(), angle.cos()], -1)  # (h, 8); the picture is square
        where = torch.cat([wave[:, None].expand(h, w, 8), wave[None].expand(h, w, 8)], -1).reshape(
            h * w, 16
        )
        patches = torch.cat(
            [x.flatten(2).transpose(1, 2), where.expand(B, -1, -1)], -1
        )  # (B, P, C + 16)
        return SimpleNamespace(last_hidden_state=patches)


def vision_model(settings: dict) -> nn.Module:
    """An untrained encoder of the embedded one's architecture."""
    return SceneTower(settings)


def save_embedded(
    path, model: nn.Module, settings: dict, preprocess: Preprocess, command: str
) -> None:
    """Write an encoder as float16 safetensors; its architecture and how it was made are in the file's metadata."""
    from safetensors.torch import save

    weights = {
        name: value.detach().half().contiguous()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    about = {
        "config": json.dumps(settings),
        "preprocess": json.dumps(asdict(preprocess)),
        "command": command,
    }
    with files.replacing(path) as file:
        file.write(save(weights, metadata=about))


def read_weights(path, settings: dict | None = None) -> tuple[dict, dict]:
    """The weights of an embedded encoder's file as float32, and its metadata. Raises UserError if it is none of ours, or of
    another architecture than `settings`."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    path = files.existing(
        path,
        "an image encoder from train_encoder.py",
        "get the file from the repository again, or run train_encoder.py",
    )
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
        config = json.loads(about["config"])
        weights = {name: value.float() for name, value in load_file(path).items()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}, which is damaged or no encoder of this project",
            "a file that train_encoder.py wrote",
            "choose such a file",
        ) from error
    if settings and config != settings:
        raise UserError(
            f"{path} of architecture {config}", f"{settings}", "choose the same --width"
        )
    return weights, about


def load_embedded(device="cpu", path: Path = ASSET, sha256: str | None = None) -> Encoder:
    """The encoder in assets/. Raises UserError unless the file is the very one that belongs to this code."""
    path = files.existing(
        path,
        "the embedded image encoder",
        "get the file from the repository again, or run train_encoder.py",
    )
    found = files.file_digest(path).hex()[:16]
    if found != (sha256 or ASSET_SHA256):
        raise UserError(
            f"{path} with SHA-256 {found}",
            sha256 or ASSET_SHA256,
            "get the file from the repository again",
        )
    weights, about = read_weights(path)
    model = vision_model(json.loads(about["config"]))
    model.load_state_dict(weights, strict=False)
    preprocess = json.loads(about["preprocess"])
    return Encoder(
        EMBEDDED,
        model,
        Preprocess(
            **{**preprocess, "mean": tuple(preprocess["mean"]), "std": tuple(preprocess["std"])}
        ),
        device,
    )
