"""The files of a LeRobot dataset v3.0, ours and other people's: read, or refused in one line.

No torch. `robot/episodes.py` gives frames, `robot/checking.py` gives faults; both read here.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from base import files
from base.files import UserError
from robot import layout

WHAT = "a folder with a LeRobot dataset v3.0"
COPY = "copy or record the dataset again"
CHECK = "run python -m tools.check_dataset with the folder"
CONVERT = (
    "convert it in an environment with lerobot: "
    "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=OWNER/NAME"
)
# Entries of info.json without which nothing can be read.
NEEDED = {"fps": int, "features": dict, "total_episodes": int, "total_frames": int}


def read_info(folder) -> dict:
    """The content of meta/info.json.

    Raises UserError if the folder holds no dataset, an unfinished one, or another version.
    """
    folder = Path(folder)
    path = folder / layout.INFO
    unfinished = (folder / layout.PARTS).exists() and not (folder / layout.CHECKSUMS).exists()
    if unfinished:
        do = "run the command that records it again; it continues"
        raise UserError(f"{folder}, an unfinished recording", "a finished dataset", do)
    info = files.read_json(path, WHAT, "check the path")
    version = info.get("codebase_version")
    if version != layout.VERSION:
        old = isinstance(version, str) and version.startswith(("v2", "v1"))
        do = CONVERT if old else "name another folder"
        raise UserError(f"{path} with codebase_version {version!r}", layout.VERSION, do)
    fps = info.get("fps")
    if isinstance(fps, float) and fps.is_integer():
        info["fps"] = int(fps)  # some writers store 30.0
    for name, kind in NEEDED.items():
        if type(info.get(name)) is not kind:
            found = f"{path} with {name} {info.get(name)!r}"
            raise UserError(found, f"a value of type {kind.__name__}", COPY)
    if info["fps"] < 1:
        raise UserError(f"{path} with fps {info['fps']}", "at least 1", COPY)
    for name, feature in info["features"].items():
        check_feature(path, name, feature)
    return info


def check_feature(path, name: str, feature) -> None:
    """Raise UserError unless an entry of `features` has a dtype and a shape."""
    shape = feature.get("shape") if isinstance(feature, dict) else None
    right = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    if not right or not shape or not isinstance(feature.get("dtype"), str):
        found = f"{path} with the feature {name}: {feature!r}"
        raise UserError(found, "a dtype, and a shape of whole numbers", COPY)


def open_parquet(path) -> pq.ParquetFile:
    """A parquet file. Raises UserError if it is missing, truncated or damaged."""
    path = files.existing(path, "a parquet file of the dataset", COPY)
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path, error: Exception) -> UserError:
    """What pyarrow said of a file, in three parts."""
    do = COPY
    if files.is_pointer(path):
        do = "run `git lfs pull`: the file only says where the data is"
    words = re.sub(r"\s+", " ", str(error))[:120]
    return UserError(f"{path}, which is truncated or damaged ({words})", "a parquet file", do)


def read_columns(path, columns: list[str]) -> pa.Table:
    """Columns of a parquet file. Raises UserError if the file is damaged or has no such column."""
    parquet = open_parquet(path)
    names = parquet.schema_arrow.names
    missing = [name for name in columns if name not in names]
    if missing:
        found = f"{path} without the column {missing[0]}"
        raise UserError(found, "the columns that meta/info.json names", COPY)
    try:
        return parquet.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def matrix(column: pa.ChunkedArray, width: int, where: str) -> np.ndarray:
    """The rows of a column of numbers or of lists of numbers: (n, width), in the stored type.

    where: the file and the column, for the error. Raises UserError for gaps and for rows of
    another width.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of more than 2 GiB
        array = pa.concat_arrays(array.chunks)
    rows = len(array)
    if isinstance(array, pa.ExtensionArray):  # the module `datasets` stores 2-D arrays so
        array = array.storage
    gaps = array.null_count
    while is_list(array.type):
        lengths = set(array.value_lengths().drop_null().unique().to_pylist())
        if len(lengths) > 1:
            found = f"{where} with rows of {' and '.join(map(str, sorted(lengths)))} numbers"
            raise UserError(found, f"{width} in each row", CHECK)
        array = array.flatten()
        gaps += array.null_count
    if gaps:
        raise UserError(f"{where} with {gaps} empty values", "a number in each place", CHECK)
    if len(array) != rows * width:
        found = f"{where} with {len(array) / max(rows, 1):g} numbers per row"
        raise UserError(found, f"{width}", CHECK)
    if not (is_number(array.type) or pa.types.is_boolean(array.type)):
        raise UserError(f"{where} of {array.type}", "numbers", CHECK)
    return array.to_numpy(zero_copy_only=False).reshape(rows, width)


def is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def read_tasks(folder) -> dict[int, str]:
    """meta/tasks.parquet: instruction by number. Raises UserError if it is damaged."""
    path = Path(folder) / layout.TASKS
    table = read_columns(path, ["task_index"])
    names = open_parquet(path).schema_arrow.names
    # pandas calls an index without a name __index_level_0__.
    texts = [name for name in ("task", "__index_level_0__") if name in names]
    if not texts:
        raise UserError(f"{path} with {', '.join(names)}", "task_index and task", COPY)
    column = read_columns(path, [texts[0]])[texts[0]]
    numbers = matrix(table["task_index"], 1, f"{path}: task_index")[:, 0]
    return dict(zip(numbers.tolist(), column.to_pylist(), strict=True))


def read_episodes(folder, statistics: bool = False) -> list[dict]:
    """The rows of meta/episodes, sorted by episode_index.

    statistics: with the columns stats/..., which are most of the file. Raises UserError if a file
    is damaged, or if a column is missing.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("meta/episodes/*/*.parquet"))
    if not paths:
        raise UserError(f"no file in {folder}/meta/episodes", WHAT, COPY)
    rows = []
    for path in paths:
        names = open_parquet(path).schema_arrow.names
        chosen = [name for name in names if statistics or not name.startswith("stats/")]
        needed = ["episode_index", "length", "dataset_from_index", "dataset_to_index", "tasks"]
        rows += read_columns(path, list(dict.fromkeys([*needed, *chosen]))).to_pylist()
    for row in rows:
        numbers = [row[name] for name in needed if name != "tasks"]
        if not all(type(number) is int for number in numbers) or row["tasks"] is None:
            found = f"{folder}/meta/episodes with the row {numbers}"
            raise UserError(found, "whole numbers and tasks in each row", COPY)
    return sorted(rows, key=lambda row: row["episode_index"])


def data_paths(folder, info: dict) -> list[Path]:
    """The data files, in order. Raises UserError if there is none."""
    top = str(info.get("data_path") or layout.DATA_PATH).split("/")[0]
    paths = sorted(files.inside(folder, top).glob("*/*.parquet"), key=place)
    if not paths:
        raise UserError(f"no data file in {folder}", WHAT, COPY)
    return paths


def place(path: Path) -> list[int]:
    """The numbers in the last two parts of a path: chunk-001/file-1000 comes after file-999."""
    return [int(digits) for part in path.parts[-2:] for digits in re.findall(r"\d+", part)]


def filled(pattern, chunk, file, **more) -> str:
    """A path from a pattern of info.json. Raises UserError for a pattern of another kind."""
    try:
        return str(pattern).format(chunk_index=chunk, file_index=file, **more)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        expected = "a pattern with chunk_index and file_index"
        raise UserError(f"{layout.INFO} with the path {pattern!r}", expected, COPY) from error
