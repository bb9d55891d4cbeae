"""The rows of a dataset's data files, each compared with what the format promises. No torch."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from base import images
from base.files import UserError
from robot import layout, reading

TOLERANCE = 1e-4  # seconds; LeRobot's own for timestamps
BATCH = 64  # rows whose images are read together


@dataclass(frozen=True)
class Fault:
    """A fault of a dataset. file: its name in the folder. frame: counted within the episode."""

    file: str
    found: str
    expected: str
    episode: int | None = None
    frame: int | None = None

    def __str__(self) -> str:
        place = self.file
        if self.episode is not None:
            place += f", episode {self.episode}"
        if self.frame is not None:
            place += f", frame {self.frame}"
        return " ".join(f"{place}: found {self.found}; expected {self.expected}".split())


def fault_of(file: str, error: UserError, episode: int | None = None) -> Fault:
    """What a reader refused, as a fault."""
    found, expected, _ = error.parts
    return Fault(file, found, expected, episode)


@dataclass
class Run:
    """Rows of an episode that follow each other. start: the place of the first among all rows."""

    episode: int
    start: int
    length: int
    file: str


@dataclass
class Rows:
    """All rows of a dataset, file by file.

    faults: what was wrong. runs: the episodes as the rows have them. numbers: by feature, a matrix
    per file. counts: pixel counts by (camera, episode). whole: whether every file was read.
    """

    folder: Path
    info: dict
    tasks: dict[int, str] | None
    faults: list[Fault] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    numbers: dict[str, list[np.ndarray]] = field(default_factory=dict)
    counts: dict = field(default_factory=dict)
    total: int = 0
    whole: bool = True

    def read(self) -> None:
        """Read and compare all data files."""
        try:
            paths = reading.data_paths(self.folder, self.info)
        except UserError as error:
            self.faults.append(fault_of("data", error))
            self.whole = False
            return
        for path in paths:
            self.read_file(path)

    def read_file(self, path: Path) -> None:
        """Compare the rows of a file. A damaged file is a fault, and the others are read."""
        name = path.relative_to(self.folder).as_posix()
        try:
            parquet = reading.open_parquet(path)
            numbers = self.read_numbers(path, parquet.schema_arrow.names)
        except UserError as error:
            self.faults.append(fault_of(name, error))
            self.whole = False
            return
        counters = {key: numbers.get(key) for key in layout.COUNTERS}
        rows = parquet.metadata.num_rows
        if any(values is None for values in counters.values()) or not rows:
            if not rows:
                self.faults.append(Fault(name, "no rows", "at least 1"))
            self.whole = False
            return
        episodes = counters["episode_index"][:, 0].astype(np.int64)
        starts = self.find_runs(name, episodes)
        frames = np.arange(rows) - starts
        self.compare_counters(name, counters, episodes, frames)
        for key, values in numbers.items():
            finite = np.isfinite(values.astype(np.float64)).all(1)
            where = self.first_wrong(~finite, episodes)
            for row, others in where:
                found = f"{key} {values[row].tolist()}{others}"
                self.faults.append(
                    Fault(name, found, "finite numbers", int(episodes[row]), int(frames[row]))
                )
        self.compare_images(name, parquet, episodes, frames)
        self.total += rows

    def read_numbers(self, path: Path, names: list[str]) -> dict[str, np.ndarray]:
        """The columns of numbers, (rows, width) each; what is wrong with a column is a fault."""
        file = path.relative_to(self.folder).as_posix()
        result = {}
        for key, feature in self.info["features"].items():
            if feature["dtype"] == "video":
                continue
            if key not in names:
                expected = "every feature of meta/info.json but videos"
                self.faults.append(Fault(file, f"no column {key}", expected))
                self.whole = False
            elif feature["dtype"] in layout.NUMBERS:
                try:
                    column = reading.read_columns(path, [key])[key]
                    result[key] = reading.matrix(column, layout.width(feature), key)
                    self.numbers.setdefault(key, []).append(result[key])
                except UserError as error:
                    self.faults.append(fault_of(file, error))
                    self.whole = False
        return result

    def find_runs(self, name: str, episodes: np.ndarray) -> np.ndarray:
        """Note the episodes of a file. Returns the first row of each row's episode: (rows,)."""
        edges = np.flatnonzero(np.diff(episodes)) + 1
        bounds = [0, *edges.tolist(), len(episodes)]
        starts = np.zeros(len(episodes), np.int64)
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            episode = int(episodes[first])
            expected = self.runs[-1].episode + 1 if self.runs else 0
            if episode != expected:
                found = f"episode_index {episode} at row {first}"
                self.faults.append(Fault(name, found, f"{expected}, the next episode"))
            self.runs.append(Run(episode, self.total + first, last - first, name))
            starts[first:last] = first
        return starts

    def compare_counters(self, name, counters: dict, episodes, frames) -> None:
        """Compare index, frame_index, timestamp and task_index of a file's rows."""
        fps = self.info["fps"]
        rows = np.arange(len(episodes))
        time = counters["timestamp"][:, 0].astype(np.float64)
        index, frame = counters["index"][:, 0], counters["frame_index"][:, 0]
        task = counters["task_index"][:, 0]
        wrong = [
            ("index", index, self.total + rows, index != self.total + rows),
            ("frame_index", frame, frames, frame != frames),
            # Written so that NaN is wrong too.
            ("timestamp", time, frames / fps, ~(np.abs(time - frames / fps) <= TOLERANCE)),
        ]
        for key, values, right, mask in wrong:
            for row, others in self.first_wrong(mask, episodes):
                found = f"{key} {values[row]:.6g}{others}"
                expected = f"{right[row]:.6g}"
                self.faults.append(
                    Fault(name, found, expected, int(episodes[row]), int(frames[row]))
                )
        if self.tasks is not None:
            known = np.isin(task, list(self.tasks))
            for row, others in self.first_wrong(~known, episodes):
                found = f"task_index {task[row]}{others}"
                expected = f"one of the {len(self.tasks)} in {layout.TASKS}"
                self.faults.append(
                    Fault(name, found, expected, int(episodes[row]), int(frames[row]))
                )

    def first_wrong(self, mask: np.ndarray, episodes: np.ndarray) -> list[tuple[int, str]]:
        """For each episode with wrong rows: the first of them, and how many others there are."""
        rows = np.flatnonzero(mask)
        _, firsts, counts = np.unique(episodes[rows], return_index=True, return_counts=True)
        result = []
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
            others = f" (and {count - 1} more frames are wrong)" if count > 1 else ""
            result.append((int(rows[first]), others))
        return result

    def compare_images(self, name, parquet, episodes, frames) -> None:
        """Decode all images of a file, compare their shape, and count their pixels."""
        cameras = [
            key
            for key, one in self.info["features"].items()
            if one["dtype"] == "image" and key in parquet.schema_arrow.names
        ]
        for key in cameras:
            # An episode with a wrong image is named once, and its statistics are not compared.
            spoilt: set[int] = set()
            row = 0
            try:
                for batch in parquet.iter_batches(BATCH, columns=[key]):
                    for encoded in batch.column(0).field("bytes"):
                        episode, frame = int(episodes[row]), int(frames[row])
                        fault = self.count_image(name, key, encoded.as_py(), episode, frame)
                        if fault and episode not in spoilt:
                            self.faults.append(fault)
                            spoilt.add(episode)
                        row += 1
            except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
                found = f"{key} that cannot be read ({error})"
                self.faults.append(Fault(name, found, "bytes and path of each image"))
                spoilt |= set(episodes.tolist())
            for episode in spoilt:
                self.counts[key, episode] = None
                self.whole = False

    def count_image(self, name, key, encoded: bytes | None, episode, frame) -> Fault | None:
        """Decode an image and count its pixels. Returns what is wrong with it."""
        height, width = layout.picture_size(self.info["features"][key])
        expected = f"an image of {height} × {width} pixels"
        if encoded is None:
            return Fault(name, f"{key} without bytes", expected, episode, frame)
        try:
            pixels = np.asarray(images.open_image(encoded))
        except UserError:
            found = f"{key} that does not decode"
            return Fault(name, found, expected, episode, frame)
        if pixels.shape[:2] != (height, width):
            found = f"{key} of {pixels.shape[0]} × {pixels.shape[1]} pixels"
            return Fault(name, found, expected, episode, frame)
        counts = layout.pixel_counts(pixels)
        self.counts[key, episode] = self.counts.get((key, episode), 0) + counts
        return None
