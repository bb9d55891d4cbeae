"""What checksums, whole-or-nothing writes and fsync cost: milliseconds, runs in turn; CPU time beside the clock's, for busy machines.

    python tests/hostile/faults/costs.py --folder . --model_config tiny

--folder: on the disk that is asked about; in memory fsync is free. Prints one table.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT)]

import numpy as np
import torch

from base import (
    config,
    files,
)
from caption import data as caption_data
from loop import (
    checkpoint,
    checksums,
)
from model import Denoiser
from tests.making.captioned import by_hand


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default=".")
    parser.add_argument("--model_config", default="tiny")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="costs_") as folder:
        folder = Path(folder)
        model = Denoiser(config.ModelConfig(**config.named_size(args.model_config)))
        weights = model.state_dict()
        saved = {
            "kind": "text",
            "weights": weights,
            "averaged": {name: value.clone() for name, value in weights.items()},
        }  # last.pt's tensors
        records = [
            {"image": f"{n}.png", "split": "train", "captions": ["a red circle", "a blue square"]}
            for n in range(256)
        ]
        data = by_hand(folder / "captions", records, patches=50, width=768)  # CLIP's size
        features = np.load(data / "features.npy", allow_pickle=False)
        held = caption_data.CaptionData(data, "train")
        held.features.checksums = caption_data.row_checksums(features)
        unchecked = caption_data.Features(held.features.path, held.features.array, None)
        numbers = np.random.default_rng(0).permutation(256)[:16]
        path = folder / "x.pt"
        checkpoint.save(path, saved)

        def plain() -> None:
            torch.save(saved, folder / "plain.pt")

        def synced() -> None:
            torch.save(saved, folder / "plain.pt")
            with open(folder / "plain.pt", "rb+") as file:
                os.fsync(file.fileno())

        def whole() -> None:
            with files.replacing(path) as file:
                torch.save(saved, file)

        sides = {
            "save: torch.save alone": plain,
            "save: torch.save, fsync": synced,
            "save: fsync, rename, fsync of the folder": whole,
            "save: all of it, with checksums": lambda: checkpoint.save(path, saved),
            "the checksums alone": lambda: checksums.digests(saved),
            "load: torch.load alone": lambda: torch.load(path, weights_only=True),
            "load: verified": lambda: checkpoint.load(path),
            "features of 16 images, unchecked, 50 times": lambda: [
                torch.from_numpy(unchecked[numbers]) for _ in range(50)
            ],
            "features of 16 images, checked, 50 times": lambda: [
                held.features_of(numbers) for _ in range(50)
            ],
        }
        times: dict = {name: [] for name in sides}
        work_times: dict = {name: [] for name in sides}
        for turn in range(args.repeats + 1):
            for name, work in sides.items():
                clock, worked = time.perf_counter(), time.process_time()
                work()
                if turn:
                    times[name].append(1000 * (time.perf_counter() - clock))
                    work_times[name].append(1000 * (time.process_time() - worked))
        print(
            f"{args.model_config}: {path.stat().st_size / 1e6:.1f} MB a checkpoint, {features[0].nbytes / 1e3:.1f} kB of features an image"
        )
        print("| what | CPU ms, median | ms, median | fastest |\n|---|---|---|---|")
        for name, values in times.items():
            print(
                f"| {name} | {statistics.median(work_times[name]):.1f} | {statistics.median(values):.1f} | {min(values):.1f} |"
            )


if __name__ == "__main__":
    main()
