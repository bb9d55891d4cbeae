"""Features of a captions folder: computed once by a frozen encoder, in parts, and continued after a stop."""

import contextlib
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from base import files, folders
from base.files import UserError
from base.images import look, open_image
from caption import data
from loop import hardware
from net import image_encoders
from net.image_encoders import Encoder, Preprocess

CHUNK = 256  # images between two saved states of the cache


def check_encoder(name: str, key: str, saved: dict, path) -> None:
    """Refuse features of another encoder than the one that the checkpoint `saved`, from `path`, was trained on.

    name, key: of the encoder at hand. Raises UserError.
    """
    theirs = saved["encoder"]
    if key != theirs["key"]:
        raise UserError(
            f"features of the encoder {name} with key {key}",
            f"features of {theirs['encoder']} with key {theirs['key']}, on which {path} was trained",
            "name a checkpoint and data of the same encoder, or get that encoder's files",
        )


def open_encoder(saved: dict, path, device="cpu") -> Encoder:
    """The encoder of the captioner `saved`, from `path`. Raises UserError if its weights or preprocessing differ."""
    encoder = image_encoders.load(saved["encoder"]["encoder"], device)
    check_encoder(encoder.name, encoder.key, saved, path)
    return encoder


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
    meta, records = data.read_meta(folder), data.read_records(folder)
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
            data.read_features(folder, meta)  # whole, or an error that says what is not
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
        [data.image_path(folder, record) for record in records],
        [record.get("view") for record in records],
    )
    shape, done = (len(paths), encoder.patches, encoder.width), 0
    if (home / "features.json").exists():
        before = files.read_sealed(home / "features.json", "image features", "remove it")
        check_key(before, encoder, home)
        there = (home / "features.npy").exists() and (home / data.CHECKSUMS).exists()
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
    sums = ArrayFile(home / data.CHECKSUMS, np.uint32, shape[:1], begun=done > 0)
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
                sums.put(start, data.row_checksums(found))
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
    sums = ArrayFile(folder / data.CHECKSUMS, np.uint32, shape[:1], begun=False)
    with rows, sums:
        for home, size in parts:
            some = data.Features(
                home / "features.npy",
                *(
                    folders.open_array(home / name, "compute that part again")
                    for name in ("features.npy", data.CHECKSUMS)
                ),
            )
            for start in range(0, size, CHUNK):
                found = some[np.arange(start, min(start + CHUNK, size))]
                rows.put(first + start, found)
                sums.put(first + start, data.row_checksums(found))
            first += size
        rows.flush()
        sums.flush()
    files.write_sealed(folder / "features.json", {**about, "done": total})
    for home, _ in parts:
        shutil.rmtree(home, ignore_errors=True)
