"""Records demonstrations as a LeRobot dataset v3.0. No torch.

Each episode is written whole into `recording/`, so a killed recording loses at most the episode
that it was writing. `finish` joins the episodes into data files, which depend on the episodes
alone: a recording that was stopped and continued gives the same bytes as a straight one.
"""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from base import files
from base.files import UserError
from robot import layout, reading

SETTINGS = "settings.json"
NEW = "choose another folder, or remove this one"
CODES = ("episode_index", "task_index")  # columns that hold few values


@dataclass
class Part:
    """What is known of a recorded episode without its frames.

    size: bytes of its columns. tasks: its instructions. length: frames. statistics: by feature.
    counts: by camera (3, 256).
    """

    path: Path
    size: int
    tasks: list[str]
    length: int
    statistics: dict
    counts: dict


class Recorder:
    """Writes a dataset, episode by episode; an unfinished one is continued.

    folder: new, empty, or an unfinished recording with the same settings. fps: frames per second.
    features: `layout.image` or `layout.vector` by name. action_range: the lowest and the highest
    number that `action` may hold. about: plain values that say how the episodes were made, kept in
    meta/checksums.json. data_file_mb: the size at which the next data file begins.

    count: the episodes so far, so a script records episodes `count`, `count + 1`, ...
    Raises UserError if the folder holds something else, or a recording with other settings.
    """

    def __init__(
        self,
        folder,
        fps: int,
        robot_type: str,
        features: dict,
        *,
        action_range: tuple[float, float] = (-1.0, 1.0),
        about: dict | None = None,
        data_file_mb: float = layout.DATA_FILE_MB,
    ):
        if type(fps) is not int or fps < 1:
            raise UserError(f"{fps} frames per second", "a whole number from 1", "correct fps")
        self.features = layout.complete(features)
        self.schema = layout.data_schema(self.features)
        self.settings = {
            "fps": fps,
            "robot_type": robot_type,
            "features": features,
            "action_range": list(action_range),
            "about": about or {},
            "data_file_mb": data_file_mb,
        }
        self.folder = files.claim(folder)
        self.parts: list[Part] = []
        self.tasks: dict[str, int] = {}
        self.frames = 0
        self.finished = (self.folder / layout.CHECKSUMS).exists()
        if self.finished:
            self.open_finished()
        else:
            self.open_parts()

    def open_finished(self) -> None:
        """Hold a finished dataset to the settings."""
        own = files.read_sealed(self.folder / layout.CHECKSUMS, "the checksums of a dataset", NEW)
        self.hold_to(own.get("settings"), layout.CHECKSUMS)
        self.count = reading.read_info(self.folder)["total_episodes"]
        shutil.rmtree(self.folder / layout.PARTS, ignore_errors=True)  # a kill may have left some

    def open_parts(self) -> None:
        """Begin a recording, or find the episodes of an unfinished one."""
        path = self.folder / layout.PARTS / SETTINGS
        self.count = 0
        if not path.exists():
            others = [entry for entry in self.folder.iterdir() if entry.name != ".lock"]
            if [entry for entry in others if entry.name != layout.PARTS]:
                found = f"{self.folder}, which holds {others[0].name}"
                raise UserError(found, "an empty folder, or an unfinished recording", NEW)
            files.write_json(path, self.settings)
        self.hold_to(files.read_json(path, "the settings of a recording", NEW), path.name)
        while self.part_path(self.count).exists():
            self.remember(read_part(self.part_path(self.count)))

    def hold_to(self, settings: dict | None, name: str) -> None:
        """Raise UserError unless the settings are those of this recorder."""
        if settings == json.loads(json.dumps(self.settings)):
            return
        settings = settings or {}
        other = [key for key, value in self.settings.items() if settings.get(key) != value]
        key = other[0] if other else "of another kind"
        found = f"{self.folder}/{name} with {key} {settings.get(key)!r}"
        raise UserError(found, f"{key} {self.settings.get(key)!r}", NEW)

    def part_path(self, number: int) -> Path:
        return self.folder / layout.PARTS / f"episode-{number:06d}.parquet"

    def remember(self, part: Part) -> None:
        """Take an episode into the counts. Tasks are numbered as they come."""
        self.parts.append(part)
        for task in part.tasks:
            self.tasks.setdefault(task, len(self.tasks))
        self.frames += part.length
        self.count += 1

    def add(self, episode: dict[str, np.ndarray], task: str | list[str]) -> None:
        """Record an episode of n frames.

        episode: by feature, images (n, H, W, 3) uint8 and vectors (n, d) or, for d = 1, (n,).
        task: the instruction. Of several, such as paraphrases, frame i carries number i modulo
        their count, so every reader meets all of them.
        Raises UserError if an array is missing, of another shape, not finite, or out of range.
        """
        if self.finished:
            found = f"{self.folder}, a finished dataset of {self.count} episodes"
            raise UserError(found, "an unfinished recording", NEW)
        where = f"episode {self.count}"
        arrays = self.checked(episode, where)
        tasks = self.checked_tasks(task, len(next(iter(arrays.values()))), where)
        length = len(tasks)
        numbers = dict(self.tasks)
        for text in tasks:
            numbers.setdefault(text, len(numbers))
        frame = np.arange(length)
        arrays |= {
            "timestamp": (frame / self.settings["fps"]).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, self.count),
            "index": self.frames + frame,
            "task_index": np.array([numbers[text] for text in tasks]),
        }
        statistics, counts = self.measured(arrays)
        columns = [column(arrays[name], self.features[name]) for name in self.features]
        table = pa.Table.from_arrays(columns, schema=self.schema)
        texts = list(dict.fromkeys(tasks))
        path = self.part_path(self.count)
        write_part(path, table, texts, statistics, counts)
        self.remember(read_part(path))

    def checked(self, episode: dict, where: str) -> dict[str, np.ndarray]:
        """The arrays of an episode as they are stored. Raises UserError."""
        expected = [name for name in self.features if name not in layout.COUNTERS]
        if set(episode) != set(expected):
            found = f"{where} with {', '.join(episode) or 'nothing'}"
            raise UserError(found, ", ".join(expected), "give every feature, and no other")
        arrays = {name: self.stored(name, episode[name], where) for name in expected}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or not all(lengths.values()):
            found = f"{where} of {lengths} frames"
            raise UserError(found, "the same number from 1 for each", "correct the episode")
        return arrays

    def stored(self, name: str, values, where: str) -> np.ndarray:
        """The values of a feature in their stored type. Raises UserError."""
        feature, values = self.features[name], np.asarray(values)
        kinds = {"image": np.uint8, "float32": np.floating, "int64": np.integer}
        shape = tuple(feature["shape"])
        if shape == (1,) and values.ndim == 1:
            values = values[:, None]
        right = np.issubdtype(values.dtype, kinds[feature["dtype"]])
        if not right or values.shape[1:] != shape or values.ndim != 1 + len(shape):
            found = f"{name} of {where}: {values.dtype} of shape {values.shape}"
            expected = f"{feature['dtype']} of shape (frames, {', '.join(map(str, shape))})"
            raise UserError(found, expected, "correct the episode")
        if feature["dtype"] == "image":
            return values
        with np.errstate(over="ignore"):  # a number too large for float32 becomes inf
            values = values.astype(feature["dtype"])
        low, high = self.settings["action_range"] if name == "action" else (-np.inf, np.inf)
        wrong = ~np.isfinite(values) | (values < low) | (values > high)
        if wrong.any():
            frame = int(np.argwhere(wrong)[0][0])
            found = f"{name} {values[frame].tolist()} in frame {frame} of {where}"
            expected = f"finite numbers from {low:g} to {high:g}"
            do = "clip the actions, or give the recorder their action_range"
            raise UserError(found, expected, do if name == "action" else "correct the episode")
        return values

    def checked_tasks(self, task: str | list[str], length: int, where: str) -> list[str]:
        """The instruction of each frame. Raises UserError."""
        texts = [task] if isinstance(task, str) else list(task)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            found = f"the instructions {texts!r} of {where}"
            raise UserError(found, "texts with words", "give an instruction")
        if len(texts) > length:
            found = f"{len(texts)} instructions for the {length} frames of {where}"
            raise UserError(found, "at most one per frame", "give fewer paraphrases")
        return [texts[frame % len(texts)] for frame in range(length)]

    def measured(self, arrays: dict) -> tuple[dict, dict]:
        """(statistics by feature, pixel counts by camera) of an episode."""
        statistics, counts = {}, {}
        for name, feature in self.features.items():
            values = arrays[name]
            if feature["dtype"] != "image":
                statistics[name] = layout.plain(layout.vector_statistics(values))
                continue
            counts[name] = layout.pixel_counts(values)
            statistics[name] = layout.plain(layout.pixel_statistics(counts[name], len(values)))
        return statistics, counts

    def finish(self) -> None:
        """Join the episodes into a dataset. Nothing happens if the dataset is finished.

        Raises UserError without an episode, or if a file cannot be written.
        """
        if self.finished:
            return
        if not self.parts:
            raise UserError(f"no episode in {self.folder}", "at least 1", "record an episode")
        for name in ("data", "meta"):  # of a `finish` that was killed
            shutil.rmtree(self.folder / name, ignore_errors=True)
        numbers, whole = self.write_data()
        written = sorted({layout.data_name(number) for number in numbers})
        written += self.write_meta(numbers, whole)
        # Last: a folder with this file is a whole dataset.
        table = files.listed(self.folder, written)
        own = {"format": 1, "settings": self.settings, "files": table}
        files.write_sealed(self.folder / layout.CHECKSUMS, own)
        self.finished = True
        shutil.rmtree(self.folder / layout.PARTS)

    def file_numbers(self) -> list[int]:
        """For each episode the number of its data file."""
        limit = self.settings["data_file_mb"] * 2**20
        numbers, number, size = [], 0, 0
        for part in self.parts:
            if size and size + part.size > limit:
                number, size = number + 1, 0
            size += part.size
            numbers.append(number)
        return numbers

    def write_data(self) -> tuple[list[int], dict]:
        """Write the data files. Returns each episode's file number, and the whole statistics."""
        numbers = self.file_numbers()
        kept: dict[str, list[np.ndarray]] = {
            name: [] for name, feature in self.features.items() if feature["dtype"] != "image"
        }
        for number in range(numbers[-1] + 1):
            chosen = [part for part, own in zip(self.parts, numbers, strict=True) if own == number]
            path = self.folder / layout.data_name(number)
            with files.replacing(path) as file, writer(file, self.schema) as parquet:
                for part in chosen:
                    table = reading.open_parquet(part.path).read()
                    parquet.write_table(table.cast(self.schema), row_group_size=part.length)
                    for name, values in kept.items():
                        size = layout.width(self.features[name])
                        values.append(reading.matrix(table[name], size, f"{part.path}: {name}"))
        whole = {}
        for name in self.features:
            if name in kept:
                whole[name] = layout.vector_statistics(np.concatenate(kept[name]))
            else:
                counts = np.sum([part.counts[name] for part in self.parts], axis=0)
                whole[name] = layout.pixel_statistics(counts, self.frames)
        return numbers, whole

    def write_meta(self, numbers: list[int], whole: dict) -> list[str]:
        """Write the files in meta/. Returns their names."""
        rows, start = [], 0
        for number, (part, file_number) in enumerate(zip(self.parts, numbers, strict=True)):
            rows.append(episode_row(number, part, file_number, start))
            start += part.length
        episodes = pa.Table.from_pylist(rows, schema=layout.episodes_schema(self.features))
        names = [layout.data_name(0, layout.EPISODES_PATH), layout.TASKS]
        tables = [episodes, layout.tasks_table(list(self.tasks))]
        for name, table in zip(names, tables, strict=True):
            with files.replacing(self.folder / name) as file:
                pq.write_table(table, file)
        statistics = {name: layout.plain(values) for name, values in whole.items()}
        files.write_json(self.folder / layout.STATISTICS, statistics)
        files.write_json(self.folder / layout.INFO, self.info())
        return [*names, layout.STATISTICS, layout.INFO]

    def info(self) -> dict:
        """The content of meta/info.json."""
        return {
            "codebase_version": layout.VERSION,
            "robot_type": self.settings["robot_type"],
            "total_episodes": self.count,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": layout.CHUNK_FILES,
            "data_files_size_in_mb": layout.DATA_FILE_MB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MB,
            "fps": self.settings["fps"],
            "splits": {"train": f"0:{self.count}"},
            "data_path": layout.DATA_PATH,
            "video_path": None,
            "features": self.features,
        }


def column(values: np.ndarray, feature: dict) -> pa.Array:
    """The column of a feature. values: as `Recorder.stored` gives them."""
    kind = layout.arrow_type(feature)
    if feature["dtype"] == "image":
        rows = []
        for number, pixels in enumerate(values):
            rows.append({"bytes": png(pixels), "path": f"frame-{number:06d}.png"})
        return pa.array(rows, kind)
    flat = pa.array(values.reshape(-1))
    if layout.width(feature) == 1:
        return flat.cast(kind)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def png(pixels: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def writer(file, schema: pa.Schema) -> pq.ParquetWriter:
    """A parquet writer. Images get no dictionary and no smallest and largest value."""
    plain = [name for name in schema.names if schema.field(name).type != layout.PICTURE]
    return pq.ParquetWriter(
        file, schema, compression="snappy", use_dictionary=list(CODES), write_statistics=plain
    )


def write_part(path: Path, table: pa.Table, tasks: list[str], statistics: dict, counts: dict):
    """Write an episode into `recording/`, with what `finish` needs to know in its schema."""
    about = {
        "tasks": tasks,
        "statistics": statistics,
        "counts": {name: values.tolist() for name, values in counts.items()},
    }
    schema = table.schema.with_metadata({**table.schema.metadata, "episode": json.dumps(about)})
    with files.replacing(path) as file, writer(file, schema) as parquet:
        parquet.write_table(table.cast(schema))


def read_part(path: Path) -> Part:
    """What `write_part` wrote, without the frames. Raises UserError if it is damaged."""
    parquet = reading.open_parquet(path)
    metadata, group = parquet.schema_arrow.metadata or {}, parquet.metadata.row_group(0)
    if b"episode" not in metadata:
        raise UserError(f"{path} of another kind", "a recorded episode", "remove it")
    about = json.loads(metadata[b"episode"])
    counts = {name: np.array(values) for name, values in about["counts"].items()}
    size = sum(group.column(place).total_compressed_size for place in range(group.num_columns))
    return Part(path, size, about["tasks"], group.num_rows, about["statistics"], counts)


def episode_row(number: int, part: Part, file_number: int, start: int) -> dict:
    """The row of an episode in meta/episodes. start: the index of its first frame."""
    chunk, file = divmod(file_number, layout.CHUNK_FILES)
    row = {
        "episode_index": number,
        "tasks": part.tasks,
        "length": part.length,
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": start,
        "dataset_to_index": start + part.length,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for name, statistics in part.statistics.items():
        for statistic, value in statistics.items():
            row[f"stats/{name}/{statistic}"] = value
    return row
