"""Features of a captions folder: computed once by a frozen encoder, continued after a stop.

Writes features.npy (N, P, width) float16, features.checksums.npy (N,) uint32 and features.json. The
last names the encoder and counts the finished rows. It is written after the rows are on disk, so a
row that it counts is there, whatever killed the process.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from base import files, folders
from base.files import UserError
from base.flags import check, setting
from caption import data, pixels
from caption.writer import frames_of
from loop import hardware, progress
from net import frame_encoder, image_encoders
from net.frame_encoder import AnyEncoder

CHUNK = 256  # images between two saved states: a killed run loses at most these
REMOVE = "remove features.npy and features.json"


@dataclass
class Work:
    """The folder, the features, and the machine. None of these changes a caption."""

    out: str = setting("data_captions", "folder to write")
    encoder: str = setting(
        image_encoders.EMBEDDED, "frozen encoder: `embedded`, a hub name or a folder; or `none`"
    )
    device: str = setting("auto", "what computes the features: auto, cpu, cuda, mps")
    shard: str | None = setting(
        None,
        "compute only this part of the features, such as 0/8; needs the captions to be there",
        metavar="I/N",
    )
    workers: int = setting(0, "processes for the images; 0 means a process per core", at_least=0)

    def __post_init__(self):
        check(self)


def encoder_for(work: Work, frames: int = 1) -> AnyEncoder | None:
    """The encoder of the flags, or None. Scripts load it first: a wrong name then costs no work.

    frames: of a clip; 1 for images.
    """
    if work.encoder == "none":
        return None
    return frame_encoder.load(work.encoder, frames, hardware.choose_device(work.device))


def check_encoder(name: str, key: str, saved: dict, path) -> None:
    """Refuse features of another encoder than the captioner `saved`, from `path`, was trained on.

    name, key: of the encoder at hand. The key tells weights and preprocessing apart, the name does
    not. Raises UserError.
    """
    expected = saved["encoder"]
    if key != expected["key"]:
        raise UserError(
            f"features of the encoder {name} with key {key}",
            f"the encoder of {path}: {expected['encoder']} with key {expected['key']}",
            "name a checkpoint and data of the same encoder, or get that encoder's files",
        )


def open_encoder(saved: dict, path, device="cpu", *, has_store: bool = False) -> AnyEncoder:
    """The encoder of the captioner `saved`, from `path`. has_store: the reader can retrieve.

    Raises UserError if there is no such encoder, its weights or preprocessing are others, or the
    captioner reads captions that the reader cannot give.
    """
    if saved.get("model", {}).get("retrieve") and not has_store:
        found, do = f"{path}, a captioner of --retrieve", "train one without --retrieve"
        raise UserError(found, "a captioner that reads the image alone", do)
    encoder = frame_encoder.load(saved["encoder"]["encoder"], frames_of(saved), device)
    check_encoder(encoder.name, encoder.key, saved, path)
    return encoder


# ---- arrays that are filled row by row --------------------------------------------------------


class ArrayFile:
    """A .npy file that is filled row by row.

    The rows are written, not memory-mapped: a full disk is then an error, and not a signal that
    kills the process. begun: continue the file that is there.
    Raises UserError if the file cannot be written, has another shape, or does not fit on the disk.
    """

    def __init__(self, path: Path, dtype, shape: tuple[int, ...], begun: bool):
        self.path = path
        self.dtype = np.dtype(dtype)
        self.row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        with self.errors():
            self.file = open(path, "r+b" if begun else "w+b")  # noqa: SIM115 (closed by __exit__)
            self.first = self.check(shape) if begun else self.reserve(shape)

    def check(self, shape: tuple[int, ...]) -> int:
        """Hold the file that is there to its shape; return the offset of its first row in bytes."""
        array = np.lib.format.open_memmap(self.path, mode="r")
        if array.shape != shape or array.dtype != self.dtype:
            raise UserError(f"{self.path} of shape {array.shape}", f"{shape}", REMOVE)
        return array.offset

    def reserve(self, shape: tuple[int, ...]) -> int:
        """Write the header and reserve all rows; return the offset of the first row in bytes."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self.file, header)
        first = self.file.tell()
        end = first + shape[0] * self.row_bytes
        # A full disk is better known now than after a night of work.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.file.fileno(), 0, end)
        self.file.truncate(end)
        return first

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the system's errors into UserErrors that name the file."""
        try:
            yield
        except OSError as error:
            raise files.os_error(error, self.path) from error
        except ValueError as error:
            found = f"{self.path}, which is damaged or truncated"
            raise UserError(found, "a whole .npy file", REMOVE) from error

    def put(self, number: int, rows: np.ndarray) -> None:
        """Write rows (n, ...) from row `number` on."""
        with self.errors():
            self.file.seek(self.first + number * self.row_bytes)
            self.file.write(np.ascontiguousarray(rows, self.dtype).tobytes())

    def flush(self) -> None:
        """Return when all rows are on the disk."""
        with self.errors():
            # The first hands the bytes to the system, the second waits for the disk.
            self.file.flush()
            os.fsync(self.file.fileno())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        # Closing flushes, which fails again on a full disk and would hide the first error.
        with contextlib.suppress(OSError):
            self.file.close()


class Output:
    """The three files of features in `home`, written together.

    about: the entries of features.json. done: finished rows of an earlier run; 0 begins the files.
    """

    def __init__(self, home: Path, count: int, about: dict, done: int = 0):
        self.home = home
        self.about = about
        shape = (count, about["patches"], about["width"])
        self.rows = ArrayFile(home / "features.npy", np.float16, shape, begun=done > 0)
        self.checksums = ArrayFile(home / data.CHECKSUMS, np.uint32, shape[:1], begun=done > 0)

    def put(self, number: int, features: np.ndarray) -> None:
        """Write features (n, P, width) float16 and their checksums from row `number` on."""
        self.rows.put(number, features)
        self.checksums.put(number, data.row_checksums(features))

    def save(self, done: int) -> None:
        """Say in features.json that `done` rows are finished, after they are on the disk."""
        self.rows.flush()
        self.checksums.flush()
        files.write_sealed(self.home / "features.json", {**self.about, "done": done})

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.rows.__exit__(*exception)
        self.checksums.__exit__(*exception)


# ---- computing --------------------------------------------------------------------------------


@dataclass
class Job:
    """Features to compute. home: where they are written; folder: where the images are."""

    home: Path
    folder: Path
    records: list[dict]
    about: dict
    workers: int
    batch_size: int


def claim(out: Path, shard: tuple[int, int]) -> Path:
    """`files.claim`, unless several processes share the folder: then its captions must be there.

    shard (i, n): this process computes part i of n. Raises UserError.
    """
    number, count = shard
    if count == 1:
        return files.claim(out)
    if not (out / "meta.json").exists():
        raise UserError(
            f"--shard {number}/{count} without captions in {out}",
            "a folder with its captions",
            "run the script once with --encoder none, then each part",
        )
    return out


def part_of(folder: Path, number: int, count: int) -> Path:
    """The folder that holds a part of the features until all parts are there."""
    return folder / f"features_{number}_of_{count}"


def bounds_of(number: int, count: int, total: int) -> tuple[int, int]:
    """The first row of part `number` of `count` equal parts of `total` rows, and the row behind
    it."""
    return total * number // count, total * (number + 1) // count


def cache_features(
    encoder: AnyEncoder,
    folder,
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    batch_size: int = 0,
) -> None:
    """Compute the features of every line of captions.jsonl, or continue where a killed run was.

    shard (i, n): only part i of n equal parts. Other processes, or machines with the same folder,
    compute the other parts; the process that ends last joins them. workers: processes that read
    images; 0 means a process per core. batch_size: images per batch of the encoder; 0: by device.
    Raises UserError if the features were begun with another encoder, or do not fit on the disk.
    """
    folder, (number, count) = Path(folder), shard
    # Larger batches are no faster on a CPU.
    batch_size = batch_size or (32 if encoder.device.type == "cpu" else CHUNK)
    batch_size = max(1, batch_size // encoder.frames)
    meta, records = data.read_meta(folder), data.read_records(folder)
    about = {
        "encoder": encoder.name,
        "key": encoder.key,
        "patches": encoder.patches,
        "width": encoder.width,
        "fingerprint": meta["fingerprint"],
        **({"frames": encoder.frames} if encoder.frames > 1 else {}),
        "checksums": True,  # folders from before there were checksums lack this entry
        "done": 0,
    }
    if done_before(encoder, folder, about) == len(records) and (folder / "features.npy").exists():
        data.read_features(folder, meta)  # raises an error that says what is wrong with them
        return
    if count == 1:
        compute(encoder, Job(folder, folder, records, about, workers, batch_size))
        return
    first, end = bounds_of(number, count, len(records))
    # Each part has a folder of its own, so that two processes never write the same file.
    home = files.claim(part_of(folder, number, count))
    compute(encoder, Job(home, folder, records[first:end], about, workers, batch_size))
    join(folder, len(records), count, about)


def done_before(encoder: AnyEncoder, home: Path, about: dict) -> int:
    """How many rows an earlier run finished. Raises UserError if they are of another encoder."""
    if not (home / "features.json").exists():
        return 0
    before = files.read_sealed(home / "features.json", "image features", "remove it")
    if before.get("key") != encoder.key:
        raise UserError(
            f"features of the encoder {before.get('encoder')} ({before.get('key')}) in {home}",
            f"features of {encoder.name} ({encoder.key})",
            f"choose another folder, or {REMOVE}",
        )
    return before.get("done", 0) if before.get("fingerprint") == about["fingerprint"] else 0


def compute(encoder: AnyEncoder, job: Job) -> None:
    """Compute the features of `job`, from where a killed run was, and print the speed."""
    home, count = job.home, len(job.records)
    done = done_before(encoder, home, job.about)
    if not ((home / "features.npy").exists() and (home / data.CHECKSUMS).exists()):
        done = 0
    if not done:
        # An old features.json would call rows finished that are still zero.
        (home / "features.json").unlink(missing_ok=True)
    seconds_encoding, clock = 0.0, time.perf_counter()
    with (
        Output(home, count, job.about, done) as output,
        ProcessPoolExecutor(job.workers or None) as pool,
        progress.bar(title="features", unit="image", total=count, initial=done) as bar,
    ):
        for first in range(done, count, CHUNK):
            end = min(first + CHUNK, count)
            read = partial(pixels.of_record, encoder.preprocess, job.folder)
            # The pool decodes the next images while the encoder computes.
            seen = pool.map(read, job.records[first:end], chunksize=8)
            for start in range(first, end, job.batch_size):
                size = min(job.batch_size, end - start)
                batch = np.stack([next(seen) for _ in range(size)])  # (B, …, size, size, 3) uint8
                began = time.perf_counter()
                # float16 halves the disk; the captioner reads features through the same rounding.
                features = encoder.encode(batch).half().cpu().numpy()  # (B, P, width)
                seconds_encoding += time.perf_counter() - began
                output.put(start, features)
                bar.update(size)
            output.save(end)
    if count - done >= CHUNK:  # fewer images say nothing about a speed
        seconds = time.perf_counter() - clock
        print(speed(encoder, count - done, seconds, seconds_encoding), file=sys.stderr)


def speed(encoder: AnyEncoder, images: int, seconds: float, encoding: float) -> str:
    """A line that says how fast features were computed, and what limits the speed.

    seconds: in all; encoding: of them, in the encoder. The encoder is the limit if its share of the
    time is large and its arithmetic is near the machine's matrix product.
    """
    with FlopCounterMode(display=False) as counter:
        encoder.encode(encoder.blank)
    work = counter.get_total_flops() * images
    product = hardware.product_rate(encoder.device)
    return (
        f"features: {images:,} images, {images / seconds:.1f} per second; the encoder's "
        f"arithmetic, {work / images / 1e9:.2f} GFLOP per image, "
        f"took {100 * encoding / seconds:.0f}% of the time "
        f"at {100 * work / encoding / product:.0f}% of this machine's matrix product "
        f"({product / 1e9:,.0f} GFLOP/s, float32)"
    )


# ---- joining parts ----------------------------------------------------------------------------


def join(folder: Path, total: int, count: int, about: dict) -> None:
    """Join the parts into features.npy, or print which parts are missing.

    Every row is compared with its checksum. Two processes that end together may both join: they
    write the same bytes. Raises UserError if a part was changed.
    """
    missing = []
    for number in range(count):
        first, end = bounds_of(number, count, total)
        path = part_of(folder, number, count) / "features.json"
        do = "compute it again"
        found = files.read_sealed(path, "a part's features", do) if path.exists() else {}
        if found != {**about, "done": end - first}:
            missing.append(f"{number}/{count}")
    if missing:
        print(
            f"{folder}: the parts {', '.join(missing)} of the features are missing", file=sys.stderr
        )
        return
    with Output(folder, total, about) as output:
        for number in range(count):
            first, end = bounds_of(number, count, total)
            part = open_part(part_of(folder, number, count))
            for start in range(first, end, CHUNK):
                numbers = np.arange(start, min(start + CHUNK, end)) - first
                output.put(start, part[numbers])
        output.save(total)
    # The parts go last: until features.json is written, a kill loses nothing.
    for number in range(count):
        shutil.rmtree(part_of(folder, number, count), ignore_errors=True)


def open_part(home: Path) -> data.Features:
    """The features of a part. Raises UserError if a file of it is damaged."""
    do = "compute that part again"
    array = folders.open_array(home / "features.npy", do)
    checksums = folders.open_array(home / data.CHECKSUMS, do)
    return data.Features(home / "features.npy", array, checksums)
