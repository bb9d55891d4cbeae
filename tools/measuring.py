"""What plans measure on this machine: training, encoding, decoding, saving."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import diffusion
from base import config, flags
from base.config import ModelConfig
from base.images import resize_crop
from loop import checkpoint, hardware
from model import Denoiser
from net.anatomy import training_flops
from tools.scaling import Job
from tools.steps import optimizer_step

PRODUCT = 2048  # side of the matrix product that a step is compared with
PATCHES = 50  # of a ViT-B/32, whose features a captioner reads


def median_seconds(sides: list[Callable], device: torch.device) -> list[float]:
    """The median seconds of each side: three counted rounds in turn, after a warm-up."""
    seconds: list[list[float]] = [[] for _ in sides]
    # Round 0 fills caches and allocators, and is not counted.
    for turn in range(4):
        for work, times in zip(sides, seconds, strict=True):
            clock = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()  # a GPU works on after the call
            if turn:
                times.append(time.perf_counter() - clock)
    return [statistics.median(times) for times in seconds]


def measure_step(model_config: str, seed: int, rows: int = 8, length: int = 256) -> dict:
    """One optimizer step here: its rate, and its share of the matrix product."""
    device = hardware.choose_device("auto")
    precision, _ = hardware.choose_precision("auto", device)
    torch.manual_seed(seed)
    model = Denoiser(ModelConfig(**config.named_size(model_config))).to(device)
    tokens = torch.randint(0, model.config.output_size, (rows, length), device=device)
    a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=precision) for _ in range(2))
    sides = [optimizer_step(model, tokens, precision), lambda: a @ b]
    step, product = median_seconds(sides, device)
    rate = training_flops(model, length) * rows * length / step
    name = f"{torch.get_num_threads()} CPU threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    return {
        "rate": rate,
        "tokens_per_second": rows * length / step,
        "share": rate / (2 * PRODUCT**3 / product),
        "on": f"{name}, {precision}",
    }


def kept_bytes_at(job: Job, layers: int, rows: int, seed: int) -> int:
    """Bytes that autograd really saves here for a backward pass in bfloat16, without the weights.

    The bfloat16 copies of the weights are included; they cancel in `kept_bytes`.
    """
    torch.manual_seed(seed)
    size = job.model
    model = Denoiser(ModelConfig(**{**flags.to_dict(size), "layers": layers}))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    saved: dict[int, int] = {}  # bytes by the storage's address

    def note(value):
        # Views share a storage, so bytes are counted per address and not per tensor.
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return value

    # Twice the same seed: only the number of rows and layers differs between two calls.
    tokens = torch.randint(0, size.output_size, (rows, job.length))
    condition = None
    if size.condition_width:
        condition = model.keys_values(torch.randn(rows, PATCHES, size.condition_width))
    free = torch.arange(job.length).expand(rows, -1) > 0
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda value: value)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        loss, _ = diffusion.loss(
            model.bind(None, condition),
            tokens,
            free,
            mask_id=size.vocab_size - 1,
            rng=torch.Generator().manual_seed(seed),
            uniform=torch.full((rows,), 0.5),  # one noise level, so all rows mask alike
        )
    del loss  # alive until here, so that no storage is freed and its address used again
    return sum(saved.values())


def kept_bytes(job: Job, seed: int) -> tuple[float, float]:
    """Bytes that a row keeps for its backward pass, outside of the blocks and in each block.

    A row's bytes are the difference of two rows and one; a block's, of two layers and one.
    """
    per_row = []
    for layers in (1, 2):
        one_row, two_rows = (kept_bytes_at(job, layers, rows, seed) for rows in (1, 2))
        per_row.append(two_rows - one_row)
    one_layer, two_layers = per_row
    # With l layers a row keeps outside + l·block: two equations, solved for both.
    return 2 * one_layer - two_layers, two_layers - one_layer


def measure_save(parameters: int = 25_000_000) -> float:
    """Bytes per second of checkpoint.save here, fsync and rename included."""
    content = {"kind": "text", "weights": {"weight": torch.randn(parameters)}}
    # In the current folder: the usual /tmp may lie in memory, where fsync costs nothing.
    with tempfile.TemporaryDirectory(dir=".") as folder:
        clock = time.perf_counter()
        checkpoint.save(Path(folder) / "save.pt", content)
        return 4 * parameters / (time.perf_counter() - clock)


def measure_encoder(seed: int, batch: int = 8) -> dict:
    """A ViT-B/32 of CLIP's architecture with random weights.

    gflops: per image. share: of the matrix product's rate here. bytes: of its weights. patches,
    width: of its features.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(seed)
    device = hardware.choose_device("auto")
    # The defaults are openai/clip-vit-base-patch32's.
    model = CLIPVisionModel(CLIPVisionConfig()).to(device).eval()
    pixels, seconds = torch.zeros(batch, 3, 224, 224, device=device), []
    # Counting slows a pass down, so the counted pass is not timed.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model(pixel_values=pixels).last_hidden_state
    with torch.no_grad():
        for _ in range(3):
            clock = time.perf_counter()
            model(pixel_values=pixels).last_hidden_state[0, 0, 0].item()  # waits for a GPU
            seconds.append(time.perf_counter() - clock)
    work = counter.get_total_flops()
    return {
        "gflops": work / batch / 1e9,
        "share": work / statistics.median(seconds) / hardware.product_rate(device),
        "bytes": 4 * sum(weight.numel() for weight in model.parameters()),
        "patches": features.shape[1],
        "width": features.shape[2],
    }


def measure_decode(seed: int) -> float:
    """Seconds of one core to decode a JPEG of 640x480 and resize it; median of ten."""
    rng = np.random.default_rng(seed)
    # Smooth colours: pure noise does not compress as a photograph does.
    coarse = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    image, file = coarse.resize((640, 480), Image.Resampling.BICUBIC), io.BytesIO()
    image.save(file, "JPEG", quality=90)
    seconds = []
    for _ in range(10):
        clock = time.perf_counter()
        decoded = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
        resize_crop(decoded, 224, "crop", int(Image.Resampling.BICUBIC))
        seconds.append(time.perf_counter() - clock)
    return statistics.median(seconds)


SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
TIMES = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def short(value: float, units: tuple) -> str:
    """Three digits and the largest unit that fits."""
    for unit, name in units:
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    unit, name = units[-1]
    return f"{value / unit:.3g} {name}"


def size(count: float) -> str:
    """Bytes in words."""
    return short(count, SIZES)


def duration(seconds: float) -> str:
    """Seconds in words."""
    return short(seconds, TIMES)
