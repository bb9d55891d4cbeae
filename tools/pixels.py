"""Scenes as the embedded encoder learns from them: their pixels, and what each patch shows.

`recolour` and `turn` change the images in ways that keep the shapes.

Shapes: B batch, N images, S side of the pixels, G side of the grid of patches, P = G² patches.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from base import files, folders
from base.tokenizer import Tokenizer
from caption import data as caption_data
from caption.pixels import of_image
from loop import progress
from net.image_encoders import Preprocess
from worlds.scenes import CLASSES

STRIDE = 16  # pixels of the input per patch
NOTHING = -1  # the class of the background
# With equal weights, a small object inside a large one was 0.2% of the loss and was learnt badly
# (docs/log/captions.md). So an object weighs 5 in all, and a patch of the background 0.2.
OBJECT_WEIGHT, BACKGROUND_WEIGHT = 5, 0.2


def decoded(paths: list[Path], preprocess: Preprocess) -> Iterator[np.ndarray]:
    """The pixels (S, S, 3) of each image, decoded in parallel, in their order."""
    with ProcessPoolExecutor() as pool:
        read = partial(of_image, preprocess)
        images = pool.map(read, paths, chunksize=32)
        yield from progress.bar(images, "decoding", unit="image", total=len(paths))


def write_pixels(path: Path, sums: Path, paths: list[Path], preprocess: Preprocess) -> None:
    """Decode the images into `path`, (N, S, S, 3) uint8, with a checksum of each row in `sums`."""
    size = preprocess.size
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), size, size, 3)}
    checksums = []
    # Row by row: 24,000 images of 128 pixels are 1.2 GB.
    with files.replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for pixels in decoded(paths, preprocess):
            file.write(pixels.tobytes())
            checksums.append(caption_data.row_checksums(pixels[None]))
    with files.replacing(sums) as file:
        np.save(file, np.concatenate(checksums))


def open_pixels(
    folder: Path, split: str, records: list[dict], preprocess: Preprocess
) -> caption_data.Features:
    """The pixels of a split, (N, S, S, 3) uint8, memory-mapped; decoded at the first call."""
    fingerprint = caption_data.read_meta(folder)["fingerprint"]
    # Other images or another size get another name, so old pixels are never read.
    path = folder / f"pixels_{split}_{preprocess.size}_{fingerprint}.npy"
    sums = path.with_suffix(".checksums.npy")
    if not (path.exists() and sums.exists()):
        paths = [caption_data.image_path(folder, record) for record in records]
        write_pixels(path, sums, paths, preprocess)
    arrays = (folders.open_array(file, "remove it") for file in (path, sums))
    return caption_data.Features(path, *arrays)


def open_texts(records: list[dict], tokenizer: Tokenizer) -> caption_data.Texts:
    """The captions of the records as rows of [BOS], ids, [EOS]."""
    captions = [caption for record in records for caption in record["captions"]]
    rows = []
    for ids in tokenizer.encode_batch(captions):
        rows.append(torch.tensor([tokenizer.bos, *(int(id) for id in ids), tokenizer.eos]))
    remaining = iter(rows)
    by_image = [[next(remaining) for _ in record["captions"]] for record in records]
    return caption_data.Texts(by_image, tokenizer.pad)


class Pixels:
    """The images of a split as the encoder sees them: what CaptionBatches batches.

    pixels: (N, S, S, 3) uint8. targets: (N, P, 4) int64, the class of each attribute at a patch,
    NOTHING for none. weights: (N, P) float32, of each patch in the loss.
    """

    def __init__(self, folder, split: str, preprocess: Preprocess):
        folder = Path(folder)
        records = caption_data.read_records(folder)
        self.fingerprint = caption_data.read_meta(folder)["fingerprint"]
        self.records = [record for record in records if record["split"] == split]
        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self.tokenizer = Tokenizer.from_json(tokenizer)
        self.pixels = open_pixels(folder, split, self.records, preprocess)
        grid = preprocess.size // STRIDE
        classes = [patch_classes(record["scene"], grid) for record in self.records]
        self.targets = np.stack([targets for targets, _ in classes])
        self.weights = np.stack([weights for _, weights in classes])
        self.texts = open_texts(self.records, self.tokenizer)

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, numbers, which, pad_multiple: int = 1) -> dict:
        """The images `numbers` (B,), each with its caption number `which` (B, 1)."""
        order = np.asarray(numbers)
        return {
            **self.texts.batch(order, which, pad_multiple),
            "weight": float(len(order)),
            "pixels": torch.from_numpy(self.pixels[order]),
            "targets": torch.from_numpy(self.targets[order]),
            "patch_weights": torch.from_numpy(self.weights[order]),
        }


def patch_classes(scene: dict, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """What each patch's centre shows: classes (P, 4) int64, and the patches' weights (P,) float32.

    The classes are size, fill, colour and shape of the topmost object, NOTHING for the background.
    """
    y, x = np.divmod(np.arange(grid * grid), grid)
    x, y = (x + 0.5) / grid, (y + 0.5) / grid
    classes = np.full((grid * grid, len(CLASSES)), NOTHING)
    owner = np.full(grid * grid, NOTHING)  # the number of the patch's object
    for number, item in enumerate(scene["objects"]):
        distance = np.hypot(x - item["x"], y - item["y"])
        # A patch is an object's if its centre lies well inside, or close to a tiny object's centre.
        inside = distance < max(0.8 * item["radius"], 0.55 / grid)
        classes[inside] = [names.index(item[name]) for name, names in CLASSES.items()]
        owner[inside] = number
    patches = np.bincount(owner + 1, minlength=len(scene["objects"]) + 1)
    weights = np.where(owner < 0, BACKGROUND_WEIGHT, OBJECT_WEIGHT / patches[owner + 1])
    return classes, weights.astype(np.float32)


def recolour(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """The same images with their channels in another order, or inverted, or both.

    (B, S, S, 3) uint8 in and out.
    """
    # The first encoder read shape partly from colour; here colour says nothing about shape
    # (docs/log/captions.md, training without colour).
    pixels = pixels[..., torch.randperm(3, generator=rng)]
    inverted = torch.rand((), generator=rng) < 0.5
    return 255 - pixels if inverted else pixels


def turn(rng: torch.Generator, *grids: Tensor) -> list[Tensor]:
    """Images and what is known of their patches, in one of the square's eight symmetries.

    These keep a shape what it is. (B, side, side, ...) in and out.
    """
    quarters = int(torch.randint(4, (), generator=rng))
    mirrored = torch.rand((), generator=rng) < 0.5
    turned = []
    for grid in grids:
        grid = grid.flip(2) if mirrored else grid
        turned.append(torch.rot90(grid, quarters, (1, 2)))
    return turned
