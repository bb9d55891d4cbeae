"""The layout of a LeRobot dataset v3.0: paths, features, columns, statistics. No torch.

Only this module knows how the files look.

    meta/info.json                           frames per second, features, totals, paths
    meta/stats.json                          ten statistics of each feature, over all frames
    meta/tasks.parquet                       the instructions: text, number
    meta/episodes/chunk-000/file-000.parquet a row per episode: length, place, ten statistics
    data/chunk-000/file-000.parquet          a row per frame, a row group per episode
    meta/checksums.json                      our own: SHA-256 of each file. Others ignore it

The format is described at https://huggingface.co/docs/lerobot/lerobot-dataset-v3.
"""

import json

import numpy as np
import pyarrow as pa

from base.files import UserError

VERSION = "v3.0"
INFO = "meta/info.json"
STATISTICS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
CHECKSUMS = "meta/checksums.json"
PARTS = "recording"  # the folder of an unfinished recording
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNK_FILES = 1000  # files per chunk folder, LeRobot's default
DATA_FILE_MB = 100  # size at which the next data file begins, LeRobot's default
VIDEO_FILE_MB = 200
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
BASIC = ("min", "max", "mean", "std", "count")
TEN = (*BASIC, *QUANTILES)
CAMERAS = ("image", "video")  # dtypes of features that hold pixels
NUMBERS = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
}
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Columns that every data file has. The recorder fills them in.
COUNTERS = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}


def image(height: int, width: int) -> dict:
    """The feature of a camera's images: (height, width, 3) uint8, stored as PNG."""
    names = ["height", "width", "channels"]
    return {"dtype": "image", "shape": [height, width, 3], "names": names}


def vector(names: list[str]) -> dict:
    """The feature of a vector of float32 with a name for each number."""
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def complete(features: dict) -> dict:
    """These features and the counters. Raises UserError for a feature that cannot be recorded."""
    for name, feature in features.items():
        if not name or "/" in name or name in COUNTERS:
            expected = "a name without a slash, and none of " + ", ".join(COUNTERS)
            raise UserError(f"a feature named {name!r}", expected, "choose another name")
        shape = feature.get("shape")
        sizes = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
        picture = feature.get("dtype") == "image" and sizes and len(shape) == 3 and shape[2] == 3
        plain = feature.get("dtype") in ("float32", "int64") and sizes and len(shape) == 1
        if not picture and not plain:
            found = f"the feature {name} of {feature.get('dtype')} and shape {shape}"
            expected = "an image [height, width, 3], or a vector [n] of float32 or int64"
            raise UserError(found, expected, "correct the feature")
    return {**features, **COUNTERS}


def width(feature: dict) -> int:
    """How many numbers a row of a feature has."""
    return int(np.prod(feature["shape"]))


def picture_size(feature: dict) -> tuple[int, int]:
    """(height, width) of a camera's feature. Some writers put the channels first."""
    shape, names = list(feature["shape"]), feature.get("names")
    first = isinstance(names, list) and names[:1] in (["channels"], ["channel"], ["c"])
    if first or (len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3)):
        return shape[1], shape[2]
    return shape[0], shape[1]


def arrow_type(feature: dict) -> pa.DataType:
    """The type of a feature's column."""
    if feature["dtype"] == "image":
        return PICTURE
    value = NUMBERS[feature["dtype"]]
    size = width(feature)
    return value if size == 1 else pa.list_(value, size)


def described(feature: dict) -> dict:
    """A feature as the module `datasets` writes it into the schema."""
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": feature["dtype"], "_type": "Value"}
    size = width(feature)
    return value if size == 1 else {"feature": value, "length": size, "_type": "Sequence"}


def data_schema(features: dict) -> pa.Schema:
    """The columns of a data file. The key `huggingface` lets the module `datasets` decode them."""
    columns = [(name, arrow_type(feature)) for name, feature in features.items()]
    about = {name: described(feature) for name, feature in features.items()}
    text = json.dumps({"info": {"features": about}})
    return pa.schema(columns, metadata={"huggingface": text})


def tasks_table(tasks: list[str]) -> pa.Table:
    """The content of meta/tasks.parquet: task i has the number i.

    pandas' own entry makes the texts the index, where LeRobot looks for them.
    """
    columns = [
        {"name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    about = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {**column, "field_name": column["name"], "metadata": None} for column in columns
        ],
        "pandas_version": "2.0.0",
    }
    fields = [("task_index", pa.int64()), ("task", pa.string())]
    schema = pa.schema(fields, metadata={"pandas": json.dumps(about)})
    numbers = list(range(len(tasks)))
    return pa.table({"task_index": numbers, "task": tasks}, schema=schema)


def episodes_schema(features: dict) -> pa.Schema:
    """The columns of meta/episodes: a row per episode."""
    numbers = ("data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")
    fields = [("episode_index", pa.int64()), ("tasks", pa.list_(pa.string()))]
    fields += [("length", pa.int64()), *((name, pa.int64()) for name in numbers)]
    fields += [("meta/episodes/chunk_index", pa.int64()), ("meta/episodes/file_index", pa.int64())]
    for name, feature in features.items():
        for statistic in TEN:
            kind = pa.list_(pa.float64())
            if statistic == "count":
                kind = pa.list_(pa.int64())
            elif feature["dtype"] in CAMERAS:
                kind = pa.list_(pa.list_(kind))  # (3, 1, 1)
            fields.append((f"stats/{name}/{statistic}", kind))
    return pa.schema(fields)


def data_name(number: int, pattern: str = DATA_PATH) -> str:
    """The name of the data file with this number, counted over all chunks."""
    chunk, file = divmod(number, CHUNK_FILES)
    return pattern.format(chunk_index=chunk, file_index=file)


def vector_statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """The ten statistics of rows (n, d): each (d,) float64, `count` (1,) int64. Exact."""
    values = values.reshape(len(values), -1).astype(np.float64)
    result = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)]),
    }
    levels = np.quantile(values, list(QUANTILES.values()), axis=0)  # (5, d)
    return {**result, **dict(zip(QUANTILES, levels, strict=True))}


def pixel_counts(pixels: np.ndarray) -> np.ndarray:
    """How often each channel of images (n, H, W, C) uint8 has each level: (C, 256) int64."""
    channels = pixels.reshape(-1, pixels.shape[-1]).T
    return np.stack([np.bincount(channel, minlength=256) for channel in channels])


def pixel_statistics(counts: np.ndarray, frames: int) -> dict[str, np.ndarray]:
    """The ten statistics of images on 0..1, from `pixel_counts` (C, 256). Exact.

    Returns (C, 1, 1) float64 each, and `count` (1,) int64: the number of images.
    """
    levels = np.arange(256) / 255
    total = counts.sum(1, keepdims=True)  # (C, 1)
    mean = (counts * levels).sum(1, keepdims=True) / total
    variance = (counts * (levels - mean) ** 2).sum(1, keepdims=True) / total
    result = {
        "min": level_at(counts, np.zeros_like(total)),
        "max": level_at(counts, total - 1),
        "mean": mean,
        "std": np.sqrt(variance),
    }
    for name, part in QUANTILES.items():
        place = part * (total - 1)
        low, high = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
        below, above = level_at(counts, low), level_at(counts, high)
        result[name] = below + (above - below) * (place - low)
    shaped = {name: value[:, :, None] for name, value in result.items()}
    return {**shaped, "count": np.array([frames])}


def level_at(counts: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The pixel of rank `ranks` (C, 1) among the sorted pixels of each channel: (C, 1) on 0..1."""
    cumulated = counts.cumsum(1)
    found = [
        np.searchsorted(row, rank, side="right") for row, rank in zip(cumulated, ranks, strict=True)
    ]
    return np.array(found) / 255


def plain(statistics: dict[str, np.ndarray]) -> dict[str, list]:
    """Statistics as lists for JSON and parquet, in the order of TEN."""
    return {name: statistics[name].tolist() for name in TEN}
