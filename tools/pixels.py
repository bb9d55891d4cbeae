"""Scenes as the embedded encoder learns from them (floor 1): decoded pictures, what each patch shows, and other colours and turns."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from base import files, folders
from base.tokenizer import Tokenizer
from caption import data as caption_data
from caption import features
from net import image_encoders
from worlds.scenes import CLASSES

STRIDE = 16  # pixels of the input to one patch


class Pixels:
    """The train or val pictures as the encoder sees them, decoded once: what CaptionBatches batches.

    pixels: (N, size, size, 3) uint8, memory-mapped. targets: (N, P, 4) int64, class of each attribute at a patch, -1 for none.
    weights: (N, P) float32, of each patch in the loss.
    """

    def __init__(self, folder, split: str, preprocess: image_encoders.Preprocess):
        self.records = [
            record for record in caption_data.read_records(folder) if record["split"] == split
        ]
        self.tokenizer = Tokenizer.from_json(
            (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
        )
        path = (
            Path(folder)
            / f"pixels_{split}_{preprocess.size}_{caption_data.read_meta(folder)['fingerprint']}.npy"
        )
        sums = path.with_suffix(".checksums.npy")
        if not (path.exists() and sums.exists()):
            found = []
            with files.replacing(path) as file, ProcessPoolExecutor() as pool:
                np.lib.format.write_array_header_1_0(
                    file,
                    {
                        "descr": "|u1",
                        "fortran_order": False,
                        "shape": (len(self.records), preprocess.size, preprocess.size, 3),
                    },
                )
                paths = [caption_data.image_path(folder, record) for record in self.records]
                for image in tqdm(
                    pool.map(partial(features.read_pixels, preprocess), paths, chunksize=32),
                    total=len(paths),
                    desc="decoding",
                ):
                    file.write(image.tobytes())
                    found.append(caption_data.row_checksums(image[None]))
            with files.replacing(sums) as file:
                np.save(file, np.concatenate(found))
        self.pixels = caption_data.Features(
            path, folders.open_array(path, "remove it"), folders.open_array(sums, "remove it")
        )
        classes = [
            patch_classes(record["scene"], preprocess.size // STRIDE) for record in self.records
        ]
        self.targets, self.weights = (np.stack(parts) for parts in zip(*classes, strict=True))
        flat = self.tokenizer.encode_batch(
            [caption for record in self.records for caption in record["captions"]]
        )
        ids = iter(
            torch.tensor([self.tokenizer.bos, *(int(i) for i in one), self.tokenizer.eos])
            for one in flat
        )
        self.texts = caption_data.Texts(
            [[next(ids) for _ in record["captions"]] for record in self.records], self.tokenizer.pad
        )

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, numbers, which, pad_multiple: int = 1) -> dict:
        """One caption, which (B, 1), of each of the pictures numbers (B,), as `caption_data.Texts.batch` gives it, and the pictures."""
        order = np.asarray(numbers)
        return {
            **self.texts.batch(order, which, pad_multiple),
            "weight": float(len(order)),
            "pixels": torch.from_numpy(self.pixels[order]),
            "targets": torch.from_numpy(self.targets[order]),
            "patch_weights": torch.from_numpy(self.weights[order]),
        }


def patch_classes(scene: dict, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Size, fill, colour and shape over each patch's centre, the topmost object's, -1 for background: (grid², 4) int64; and
    the patches' weights (grid²,) float32: every object weighs 5 in all, however few its patches, and background 0.2 a patch.

    With equal patches the small object inside a large one was 0.2% of the loss, and badly learnt (LOG.md).
    """
    y, x = np.divmod(np.arange(grid * grid), grid)
    x, y = (x + 0.5) / grid, (y + 0.5) / grid
    result, owner = np.full((grid * grid, 4), -1), np.full(grid * grid, -1)
    for number, one in enumerate(scene["objects"]):
        near = np.hypot(x - one["x"], y - one["y"]) < max(0.8 * one["radius"], 0.55 / grid)
        result[near], owner[near] = (
            [names.index(one[name]) for name, names in CLASSES.items()],
            number,
        )
    patches = np.bincount(owner + 1, minlength=len(scene["objects"]) + 1)
    return result, np.where(owner < 0, 0.2, 5 / patches[owner + 1]).astype(np.float32)


def recolour(pixels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The same pictures with their channels in another order, or inverted, or both: (B, size, size, 3) uint8 in and out."""
    pixels = pixels[..., torch.randperm(3, generator=rng)]
    return 255 - pixels if torch.rand((), generator=rng) < 0.5 else pixels


def turn(rng: torch.Generator, *grids: torch.Tensor) -> list[torch.Tensor]:
    """The same pictures, and what is known of their patches, in one of the square's eight symmetries, which leave a shape what it is:
    (B, side, side, ...) in and out."""
    quarters, mirrored = (
        int(torch.randint(4, (), generator=rng)),
        torch.rand((), generator=rng) < 0.5,
    )
    return [torch.rot90(one.flip(2) if mirrored else one, quarters, (1, 2)) for one in grids]
