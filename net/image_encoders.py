"""Frozen image encoders: pixels in, features (B, P, width) of P patches out.

`embedded` is the small convolutional tower in assets/. tools/train_encoder.py trained it on drawn
scenes, as CLIP and CoCa are trained, so it needs no download. Any other name is a hub name or a
local folder that transformers reads: CLIP, SigLIP, DINOv2 or ViT.

The features are the last hidden state of every token ([CLS] too, where an encoder has it), before
any pooling or projection. Size, crop, mean and deviation are what the model's own folder says.
"""

import contextlib
import json
from collections.abc import Iterator
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
from net import pretrained

EMBEDDED = "embedded"
ASSET = Path(__file__).parent.parent / "assets" / "scene_encoder.safetensors"
ASSET_SHA256 = "13dcc59064727959"  # first 16 hex digits of the file's SHA-256
GET_AGAIN = "get the file from the repository again, or run tools/train_encoder.py"

# transformers' name of a model: its class. Only the part that sees images is loaded.
CLASSES = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
}

POSITION_WAVES = 16  # channels of `patch_positions`


@dataclass(frozen=True)
class Preprocess:
    """From an image to pixels.

    size: side in pixels. mode: `crop` the centre, or `squash` to a square. mean, std: of each
    channel, for pixels in 0 .. 1. zoom: the shorter side before the crop, divided by `size`.
    """

    size: int
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = int(Image.Resampling.BICUBIC)
    zoom: float = 1.0

    def __call__(self, source) -> np.ndarray:
        """A path, bytes or an open image -> (size, size, 3) uint8. UserError if it is no image."""
        if not isinstance(source, Image.Image):
            source = open_image(source, at_least=self.size)
        return resize_crop(source, self.size, self.mode, self.resample, self.zoom)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Convolve in float32, not in TF32, so that features are alike on all machines.

    TF32 is the default of NVIDIA GPUs since 2020. It keeps 10 bits of the mantissa.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class Encoder:
    """A frozen encoder.

    patches, width: P and the channels of its features. key: a hash of weights and preprocessing,
    which every features file and checkpoint stores, so that features never mix. frames: of what it
    reads. blank: pixels of the right shape.
    """

    frames = 1

    def __init__(self, name: str, model: nn.Module, preprocess: Preprocess, device="cpu"):
        self.name = name
        self.preprocess = preprocess
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.mean = torch.tensor(preprocess.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocess.std, device=self.device).view(1, 3, 1, 1)
        self.key = key_of(model, preprocess)
        self.blank = np.zeros((1, preprocess.size, preprocess.size, 3), np.uint8)
        _, self.patches, self.width = self.encode(self.blank).shape

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> Tensor:
        """Pixels (B, size, size, 3) uint8 -> features (B, P, width) float32."""
        x = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        x = x.permute(0, 3, 1, 2).float() / 255  # (B, 3, size, size)
        with exact_products():
            hidden = self.model(pixel_values=(x - self.mean) / self.std).last_hidden_state
        return hidden.float()

    def features(self, sources: list) -> Tensor:
        """Images -> features (B, P, width) float32, rounded to float16 as a features file is.

        A captioner is trained on a features file, so it reads exactly these numbers.
        """
        pixels = np.stack([self.preprocess(source) for source in sources])
        return self.encode(pixels).half().float()


def key_of(model: nn.Module, preprocess: Preprocess) -> str:
    """A hash of the weights, as float32, and of the preprocessing."""
    settings = asdict(preprocess)
    if settings["zoom"] == 1.0:
        del settings["zoom"]  # keys are older than this setting, and must stay
    digests = [files.sha256(json.dumps(settings, sort_keys=True).encode())]
    for name, weight in sorted(model.state_dict().items()):
        digests.append(files.sha256(name.encode()))
        digests.append(files.sha256(weight.detach().float().cpu().numpy().tobytes()))
    return files.sha256("".join(digests).encode())


# ---- Encoders of transformers


def load(name: str, device="cpu") -> Encoder:
    """The encoder of this name. Raises UserError if there is none, or if a file is damaged."""
    if name == EMBEDDED:
        return load_embedded(device)
    do = f"check the name and the network, or use --encoder {EMBEDDED}"
    with pretrained.reading(name, "image encoder", do):
        kind = pretrained.kind_of(name)
        if kind not in CLASSES:
            raise UserError(
                f"--encoder {name} of an unknown kind ({kind!r})",
                "a CLIP, SigLIP, DINOv2 or ViT model",
                f"choose such a model, or --encoder {EMBEDDED}",
            )
        said = pretrained.image_file(name)
        # A ViT's pooling layer has random weights in most folders, and nothing reads it.
        extra = {"add_pooling_layer": False} if kind == "vit" else {}
        model = pretrained.load_model(CLASSES[kind], name, **extra)
    preprocess = preprocess_of(said, kind)
    try:
        # A first image goes through it: a network may refuse the size that its folder says.
        return Encoder(name, model, preprocess, device)
    # torch's own checks raise RuntimeError, such as for a patch larger than the image.
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise UserError(
            f"{name}, whose network refuses images of {preprocess.size} pixels ({reason})",
            "a preprocessor_config.json that fits config.json",
            "get the model's own files",
        ) from error


def preprocess_of(said: dict, kind: str = "clip") -> Preprocess:
    """The preprocessing of a preprocessor_config.json, in any of its dialects.

    The image processor class that the file names fills what the file leaves out; `kind` of network
    decides where it names none. Raises UserError if a step is switched off, or if images would not
    become a square.
    """
    settings = pretrained.settings_of(said, kind)
    check_steps(settings)
    size, crop = settings["size"], settings["crop_size"]
    shorter, height = size.get("shortest_edge"), size.get("height")
    square = set(size) == {"height", "width"} and height == size["width"]
    crop = crop.get("height") if crop.get("height") == crop.get("width") else None
    if settings["do_center_crop"] and set(size) == {"shortest_edge"} and crop and crop <= shorter:
        mode, side, zoom = "crop", crop, shorter / crop
    # A crop of the whole square changes nothing.
    elif square and (crop == height or not settings["do_center_crop"]):
        mode, side, zoom = "squash", height, 1.0
    else:
        raise UserError(
            f"a preprocessor_config.json with size {size}, crop_size {settings['crop_size']} and "
            f"do_center_crop {settings['do_center_crop']}",
            "a square: height and width alike, or shortest_edge with a centre crop inside",
            "choose another encoder",
        )
    return Preprocess(
        size=int(side),
        mode=mode,
        mean=per_channel(settings, "image_mean"),
        std=per_channel(settings, "image_std"),
        resample=int(settings["resample"]),
        zoom=zoom,
    )


def check_steps(settings: dict) -> None:
    """Raise UserError if a preprocessing leaves out a step that every known encoder needs.

    Without do_rescale or do_normalize, pixels would be 0 .. 255 or 0 .. 1, and features another
    network's.
    """
    off = [step for step in ("do_resize", "do_rescale", "do_normalize") if not settings[step]]
    factor = settings["rescale_factor"]
    if not off and abs(factor * 255 - 1) > 1e-6:
        off = [f"rescale_factor {factor}"]
    if off:
        raise UserError(
            f"a preprocessor_config.json that switches off or changes {', '.join(off)}",
            "do_resize, do_rescale by 1/255 and do_normalize switched on",
            "choose another encoder, or correct the file if the encoder was trained with them",
        )
    if settings["resample"] not in list(Image.Resampling):
        raise UserError(
            f"a preprocessor_config.json with resample {settings['resample']!r}",
            "a number of Pillow's, such as 2 (bilinear) or 3 (bicubic)",
            "correct the file",
        )


def per_channel(settings: dict, name: str) -> tuple[float, ...]:
    """Three numbers: mean or deviation of red, green and blue. A single number counts for all."""
    value = settings[name]
    # Whole numbers stay whole: the encoder's key is made from the text of these numbers.
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    real = len(numbers) == 3 and all(type(number) in (int, float) for number in numbers)
    # Pixels are below 256. NaN is not smaller than anything.
    real = real and all(abs(number) < 1000 for number in numbers)
    if not real or (name == "image_std" and min(numbers) <= 0):
        raise UserError(
            f"a preprocessor_config.json with {name} {value!r}",
            "three numbers, each deviation above 0",
            "correct the file",
        )
    return numbers


# ---- The embedded encoder


def waves(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Sines and cosines of `count` places on a line: (count, 8) in -1 .. 1, float32."""
    frequency = torch.tensor([0.5, 1.0, 2.0, 4.0], device=device)
    angle = torch.linspace(-1, 1, count, device=device)[:, None] * frequency * torch.pi / 2
    return torch.cat([angle.sin(), angle.cos()], -1)


def patch_positions(side: int, device: torch.device | str = "cpu") -> Tensor:
    """Where each patch of a square grid is: sines and cosines of its row, then of its column.

    Returns (side·side, 16) in -1 .. 1, row by row, float32. This is the only formula for it: the
    embedded encoder appends these channels, and the captioner adds them to any encoder's features.
    """
    wave = waves(side, device)  # (side, 8)
    half = POSITION_WAVES // 2
    row = wave[:, None].expand(side, side, half)
    column = wave[None].expand(side, side, half)
    return torch.cat([row, column], -1).reshape(side * side, POSITION_WAVES)


class SceneTower(nn.Module):
    """The embedded encoder: a ResNet to a grid of patches, then 16 channels for a patch's position.

    CLIP (arXiv 2103.00020, section 2.3) trains ResNets too. On drawn scenes, trained from the start
    on a CPU, a ViT of equal cost knew 25% of the shapes; this ResNet knew most of them
    (docs/log/captions.md).
    """

    def __init__(self, settings: dict):
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        body: nn.Module = ResNetModel(ResNetConfig(**settings))
        self.body = body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """(B, 3, S, S) normalised pixels -> last_hidden_state (B, P, C + 16)."""
        # channels_last is a sixth faster on CPUs.
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        x = self.body(pixel_values=pixel_values).last_hidden_state  # (B, C, side, side)
        B, _, side, _ = x.shape
        position = patch_positions(side, x.device).expand(B, -1, -1)  # (B, P, 16)
        patches = torch.cat([x.flatten(2).transpose(1, 2), position], -1)
        return SimpleNamespace(last_hidden_state=patches)


def save_embedded(
    path, model: nn.Module, settings: dict, preprocess: Preprocess, command: str
) -> None:
    """Write a SceneTower as float16 safetensors. Its metadata holds settings and command."""
    from safetensors.torch import save

    weights = {}
    for name, value in model.state_dict().items():
        if value.is_floating_point():  # batch norm's counters are whole numbers, and unused
            weights[name] = value.detach().half().contiguous()
    about = {
        "config": json.dumps(settings),
        "preprocess": json.dumps(asdict(preprocess)),
        "command": command,
    }
    with files.replacing(path) as file:
        file.write(save(weights, metadata=about))


def read_weights(path, settings: dict | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a file of `save_embedded`, as float32, and its metadata.

    Raises UserError if the file is damaged, or of another architecture than `settings`.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    path = files.existing(path, "an image encoder from tools/train_encoder.py", GET_AGAIN)
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
        config = json.loads(about["config"])
        weights = {name: value.float() for name, value in load_file(path).items()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}, which is damaged or no encoder of this project",
            "a file that tools/train_encoder.py wrote",
            "choose such a file",
        ) from error
    if settings and config != settings:
        raise UserError(
            f"{path} of architecture {config}", f"{settings}", "choose the same --width"
        )
    return weights, about


def load_embedded(device="cpu", path: Path = ASSET, sha256: str | None = None) -> Encoder:
    """The encoder in assets/. Raises UserError unless the file has the SHA-256 of this version."""
    path = files.existing(path, "the embedded image encoder", GET_AGAIN)
    expected = sha256 or ASSET_SHA256
    found = files.file_digest(path).hex()[:16]
    if found != expected:
        raise UserError(
            f"{path} with SHA-256 {found}", expected, "get the file from the repository again"
        )
    weights, about = read_weights(path)
    model = SceneTower(json.loads(about["config"]))
    model.load_state_dict(weights, strict=False)  # batch norm's counters are not stored
    settings = json.loads(about["preprocess"])
    for name in ("mean", "std"):
        settings[name] = tuple(settings[name])
    return Encoder(EMBEDDED, model, Preprocess(**settings), device)
