"""Frozen image encoders: a picture in, patch features (B, P, width) out (floor 1).

`embedded` is the small convolutional tower in assets/, trained on synthetic scenes by train_encoder.py as CLIP and CoCa
are: it needs no download. Any other name is a hub name or a local folder that transformers reads: CLIP, SigLIP, DINOv2, ViT.
The features are the last hidden state, every token with its position ([CLS] too where the encoder has one), before
any pooling or projection; preprocessing (size, crop, mean, deviation) is what the model's own folder says.
"""

import contextlib
import json
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import caption_data
import data
import files
import hardware
from files import UserError
from images import look, open_image, resize_crop

EMBEDDED = "embedded"
ASSET = Path(__file__).parent / "assets" / "scene_encoder.safetensors"
ASSET_SHA256 = "13dcc59064727959"  # first 16 hex digits of the file's SHA-256
CHUNK = 256  # images between two saved states of the cache


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


def read_pixels(preprocess: Preprocess, path, view: list[float] | None = None) -> np.ndarray:
    return preprocess(look(open_image(path, at_least=preprocess.size), view) if view else path)


class ArrayFile:
    """A .npy that is filled row by row. Written, not mapped: a full disk is then an error and not a signal that kills.

    begun: go on with the one that is there. Raises UserError if it cannot be written, has another shape, or there is no room for it.
    """

    def __init__(self, path: Path, dtype, shape: tuple[int, ...], begun: bool):
        self.path, self.dtype, self.row = (
            path,
            np.dtype(dtype),
            int(np.prod(shape[1:])) * np.dtype(dtype).itemsize,
        )
        with self.errors():
            self.file = open(path, "r+b" if begun else "w+b")
            if begun:
                found = np.lib.format.open_memmap(path, mode="r")
                if found.shape != shape or found.dtype != self.dtype:
                    raise UserError(
                        f"{path} of shape {found.shape}",
                        f"{shape}",
                        "remove features.npy and features.json",
                    )
                self.first = found.offset
                return
            about = {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(self.file, about)
            self.first = self.file.tell()
            whole = self.first + shape[0] * self.row
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(
                    self.file.fileno(), 0, whole
                )  # no room is better known now than after a night's work
            self.file.truncate(whole)

    @contextlib.contextmanager
    def errors(self):
        try:
            yield
        except OSError as error:
            raise files.os_error(error, self.path) from error
        except ValueError as error:
            raise UserError(
                f"{self.path}, which is damaged or truncated",
                "a whole .npy file",
                "remove features.npy and features.json",
            ) from error

    def put(self, number: int, rows: np.ndarray) -> None:
        """Write rows (n, …) from row `number` on."""
        with self.errors():
            self.file.seek(self.first + number * self.row)
            self.file.write(np.ascontiguousarray(rows, self.dtype).tobytes())

    def flush(self) -> None:
        """Return when all that was put is on the disk."""
        with self.errors():
            self.file.flush()
            os.fsync(self.file.fileno())

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
            self.file.close()


def claim(out: Path, shard: tuple[int, int]) -> Path:
    """`files.claim`, but for a part of the features, which other processes compute beside it: the folder must be there. Raises UserError."""
    if shard[1] == 1:
        return files.claim(out)
    if not (out / "meta.json").exists():
        raise UserError(
            f"--shard {shard[0]}/{shard[1]} without captions in {out}",
            "a folder with its captions",
            "run the script once with --encoder none, then each part",
        )
    return out


def part_of(folder: Path, number: int, count: int) -> Path:
    """Where a part of the features is until all parts are there."""
    return folder / f"features_{number}_of_{count}"


def cache_features(
    encoder: Encoder,
    folder,
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    batch_size: int = 0,
) -> None:
    """Compute features.npy for every line of captions.jsonl, or go on where a killed run was.

    float16 (N, P, width), and beside it a CRC-32 of each row. features.json names the encoder's key and how many are done: it is
    written after the rows are on disk, so what it counts is there. shard (i, n): only the i-th of n equal parts, which
    other processes and machines with the same folder complete; who ends last joins them. batch_size 0: as suits the device.
    Raises UserError if the cache was begun with another encoder, or there is no room for all of it.
    """
    folder, (number, count) = Path(folder), shard
    batch_size = batch_size or (32 if encoder.device.type == "cpu" else CHUNK)
    meta, records = caption_data.read_meta(folder), caption_data.read_records(folder)
    about = {
        "encoder": encoder.name,
        "key": encoder.key,
        "patches": encoder.patches,
        "width": encoder.width,
        "fingerprint": meta["fingerprint"],
        "checksums": True,
        "done": 0,
    }
    if (folder / "features.json").exists():
        before = files.read_sealed(folder / "features.json", "image features", "remove it")
        check_key(before, encoder, folder)
        if (
            before.get("done") == len(records)
            and before.get("fingerprint") == meta["fingerprint"]
            and (folder / "features.npy").exists()
        ):
            caption_data.read_features(folder, meta)  # whole, or an error that says what is not
            return
    if count == 1:
        compute(encoder, folder, folder, records, about, workers, batch_size)
        return
    mine = records[len(records) * number // count : len(records) * (number + 1) // count]
    home = files.claim(part_of(folder, number, count))
    compute(encoder, home, folder, mine, about, workers, batch_size)
    join(folder, len(records), count, about)


def check_key(before: dict, encoder: Encoder, folder: Path) -> None:
    if before.get("key") != encoder.key:
        raise UserError(
            f"features of the encoder {before.get('encoder')} ({before.get('key')}) in {folder}",
            f"those of {encoder.name} ({encoder.key})",
            "choose another folder, or remove features.npy and features.json",
        )


def compute(
    encoder: Encoder,
    home: Path,
    folder: Path,
    records: list[dict],
    about: dict,
    workers: int,
    batch_size: int,
) -> None:
    """features.npy, its checksums and features.json in `home`, of the records' pictures (in `folder`), from where a killed run was."""
    paths, looks = (
        [caption_data.image_path(folder, record) for record in records],
        [record.get("view") for record in records],
    )
    shape, done = (len(paths), encoder.patches, encoder.width), 0
    if (home / "features.json").exists():
        before = files.read_sealed(home / "features.json", "image features", "remove it")
        check_key(before, encoder, home)
        there = (home / "features.npy").exists() and (home / caption_data.CHECKSUMS).exists()
        done = (
            before.get("done", 0)
            if before.get("fingerprint") == about["fingerprint"] and there
            else 0
        )
    if not done:
        (home / "features.json").unlink(
            missing_ok=True
        )  # it would call rows done that are still zero
    rows = ArrayFile(home / "features.npy", np.float16, shape, begun=done > 0)
    sums = ArrayFile(home / caption_data.CHECKSUMS, np.uint32, shape[:1], begun=done > 0)
    encoding, clock = 0.0, time.perf_counter()
    with (
        rows,
        sums,
        ProcessPoolExecutor(workers or None) as pool,
        tqdm(total=len(paths), initial=done, desc="features", unit="image") as bar,
    ):
        for first in range(done, len(paths), CHUNK):
            part = paths[first : first + CHUNK]
            pixels = pool.map(
                partial(read_pixels, encoder.preprocess),
                part,
                looks[first : first + CHUNK],
                chunksize=8,
            )
            for start in range(first, first + len(part), batch_size):
                size = min(batch_size, first + len(part) - start)
                batch = np.stack([next(pixels) for _ in range(size)])
                began = time.perf_counter()
                found = encoder.encode(batch).half().cpu().numpy()
                encoding += time.perf_counter() - began
                rows.put(start, found)
                sums.put(start, caption_data.row_checksums(found))
                bar.update(size)
            rows.flush()
            sums.flush()
            files.write_sealed(home / "features.json", {**about, "done": first + len(part)})
    if len(paths) - done >= CHUNK:  # fewer tell nothing of a rate
        print(
            speed(encoder, len(paths) - done, time.perf_counter() - clock, encoding),
            file=sys.stderr,
        )


def speed(encoder: Encoder, images: int, seconds: float, encoding: float) -> str:
    """How fast a cache was filled, and what held it: the encoder's arithmetic, if the share of the product is near what it reaches alone."""
    pixels = np.zeros((1, encoder.preprocess.size, encoder.preprocess.size, 3), np.uint8)
    with FlopCounterMode(display=False) as counter:
        encoder.encode(pixels)
    work, product = counter.get_total_flops() * images, hardware.product_rate(encoder.device)
    return (
        f"features: {images:,} images, {images / seconds:.1f} a second; the encoder's arithmetic, {work / images / 1e9:.2f} GFLOP an image, took "
        f"{100 * encoding / seconds:.0f}% of the time at {100 * work / encoding / product:.0f}% of this machine's matrix product "
        f"({product / 1e9:,.0f} GFLOP/s, float32)"
    )


def join(folder: Path, total: int, count: int, about: dict) -> None:
    """features.npy from its parts, every row held to its checksum; or a line that says which parts are still missing.

    Of two processes that end together both may do it: they write the same bytes.
    """
    missing, parts = [], []
    for number in range(count):
        home, size = (
            part_of(folder, number, count),
            total * (number + 1) // count - total * number // count,
        )
        there = (
            files.read_sealed(home / "features.json", "a part's features", "compute it again")
            if (home / "features.json").exists()
            else {}
        )
        if there != {**about, "done": size}:
            missing.append(f"{number}/{count}")
        parts.append((home, size))
    if missing:
        print(f"{folder}: features of {', '.join(missing)} are still to come", file=sys.stderr)
        return
    shape, first = (total, about["patches"], about["width"]), 0
    rows = ArrayFile(folder / "features.npy", np.float16, shape, begun=False)
    sums = ArrayFile(folder / caption_data.CHECKSUMS, np.uint32, shape[:1], begun=False)
    with rows, sums:
        for home, size in parts:
            some = caption_data.Features(
                home / "features.npy",
                *(
                    data.open_array(home / name, "compute that part again")
                    for name in ("features.npy", caption_data.CHECKSUMS)
                ),
            )
            for start in range(0, size, CHUNK):
                found = some[np.arange(start, min(start + CHUNK, size))]
                rows.put(first + start, found)
                sums.put(first + start, caption_data.row_checksums(found))
            first += size
        rows.flush()
        sums.flush()
    files.write_sealed(folder / "features.json", {**about, "done": total})
    for home, _ in parts:
        shutil.rmtree(home, ignore_errors=True)
