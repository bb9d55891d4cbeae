"""Reads a LeRobot dataset v3.0, ours or another's: numbers in memory, images when asked for.

No torch. Rows are found by their own `index` and `episode_index`, so a stale file number in
meta/episodes, which converters have written (github.com/huggingface/lerobot/issues/2401), leads
to no wrong frame.
"""

import difflib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa

from base import files, images
from base.files import UserError
from robot import layout, reading, videos

ROW_GROUPS = 64  # of encoded images are kept: 64 episodes of 50 images of 6 kB are 20 MB


class Episodes:
    """The episodes of a dataset. N frames, E episodes.

    folder: the dataset. state, action: names of features; state may be None. cameras: names of
    features with images or videos; None means all. decoded: keep all images in memory as pixels
    (N·H·W·3 bytes per camera), which makes `images` quick.

    states: (N, S) float32, S = 0 without a state. actions: (N, A) float32. starts, lengths: (E,)
    int64, the index of an episode's first frame, and its frames. episode_of, task_of: (N,) int64.
    tasks: instruction by number. statistics: meta/stats.json, {} if it is missing.
    Raises UserError if the folder holds no dataset, another version, no such feature, damaged
    files, rows that do not fit the episodes, or numbers that are not finite.
    """

    def __init__(
        self,
        folder,
        state: str | None = "observation.state",
        action: str = "action",
        cameras: list[str] | None = None,
        decoded: bool = False,
    ):
        self.folder = Path(folder)
        self.info = reading.read_info(folder)
        self.fps: int = self.info["fps"]
        self.features: dict = self.info["features"]
        pixels = [name for name, one in self.features.items() if one["dtype"] in layout.CAMERAS]
        self.cameras = pixels if cameras is None else list(cameras)
        for name in self.cameras:
            self.hold_to(name, pixels, "an image or a video")
        if any(self.features[name]["dtype"] == "video" for name in self.cameras):
            videos.require()
        self.tasks = reading.read_tasks(folder)
        self.rows = reading.read_episodes(folder)
        self.paths = reading.data_paths(folder, self.info)
        self.read_numbers(state, action)
        self.starts = np.array([row["dataset_from_index"] for row in self.rows], np.int64)
        self.lengths = np.array([row["length"] for row in self.rows], np.int64)
        self.check_places()
        path = self.folder / layout.STATISTICS
        self.statistics = files.read_json(path, "", "") if path.exists() else {}
        self.groups: OrderedDict = OrderedDict()
        self.pixels: dict[str, np.ndarray] = {}
        if decoded:
            every = np.arange(len(self))
            self.pixels = {name: self.images(every, name) for name in self.cameras}

    def __len__(self) -> int:
        return len(self.actions)

    def hold_to(self, name: str, known: list[str], what: str) -> None:
        """Raise UserError unless `name` is one of the features `known`."""
        if name in known:
            return
        near = difflib.get_close_matches(name, known, 1)
        do = f"did you mean {near[0]}?" if near else "name a feature of the dataset"
        found = f"no feature {name} with {what} in {self.folder}"
        raise UserError(found, "one of " + (", ".join(known) or "none"), do)

    def read_numbers(self, state: str | None, action: str) -> None:
        """Read all columns of numbers, and where each row lies."""
        vectors = [
            name
            for name, one in self.features.items()
            if name not in layout.COUNTERS and one["dtype"] in layout.NUMBERS
        ]
        chosen = [action] if state is None else [action, state]
        for name in chosen:
            self.hold_to(name, vectors, "numbers")
        counters = ["index", "episode_index", "task_index"]
        read: dict[str, list] = {name: [] for name in [*counters, *chosen]}
        counts = []
        for path in self.paths:
            table = reading.read_columns(path, list(read))
            counts.append(len(table))
            for name, parts in read.items():
                wide = 1 if name in counters else layout.width(self.features[name])
                parts.append(reading.matrix(table[name], wide, f"{path}: {name}"))
        joined = {name: np.concatenate(parts) for name, parts in read.items()}
        index = joined["index"][:, 0]
        order = np.argsort(index, kind="stable")
        if not np.array_equal(index[order], np.arange(len(index))):
            found = f"{self.folder} whose rows are not numbered 0 to {len(index) - 1}"
            raise UserError(found, "each index once", reading.CHECK)
        # (N,) the file of each frame, and its row in that file
        self.file_of = np.repeat(np.arange(len(counts)), counts)[order]
        self.row_of = np.concatenate([np.arange(count) for count in counts])[order]
        self.episode_of = joined["episode_index"][order, 0].astype(np.int64)
        self.task_of = joined["task_index"][order, 0].astype(np.int64)
        self.actions = self.finite(action, joined[action][order])
        self.states = np.zeros((len(index), 0), np.float32)
        if state is not None:
            self.states = self.finite(state, joined[state][order])

    def finite(self, name: str, values: np.ndarray) -> np.ndarray:
        """(N, d) as float32. Raises UserError for NaN and infinity."""
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(values).all(1))
        if len(wrong):
            frame = int(wrong[0])
            found = f"{name} {values[frame].tolist()} in episode {self.episode_of[frame]}"
            found += f" (index {frame}) of {self.folder}"
            raise UserError(found, "finite numbers", reading.CHECK)
        return values

    def check_places(self) -> None:
        """Raise UserError unless the episodes cover the rows, in order and without a gap."""
        ends = np.array([row["dataset_to_index"] for row in self.rows], np.int64)
        right = np.array_equal(self.starts, np.concatenate([[0], ends[:-1]]))
        right = right and np.array_equal(ends - self.starts, self.lengths)
        numbers = np.array([row["episode_index"] for row in self.rows])
        right = right and self.lengths.min() > 0 and ends[-1] == len(self)
        if not right or not np.array_equal(np.repeat(numbers, self.lengths), self.episode_of):
            found = f"{self.folder} whose episodes do not fit its {len(self)} rows"
            raise UserError(found, "episodes that follow each other", reading.CHECK)
        unknown = sorted(set(np.unique(self.task_of).tolist()) - set(self.tasks))
        if unknown:
            found = f"rows with task_index {unknown[0]} in {self.folder}"
            raise UserError(found, f"a task of {layout.TASKS}", reading.CHECK)

    def task(self, index: int) -> str:
        """The instruction of a frame."""
        return self.tasks[int(self.task_of[index])]

    def tasks_in(self, episode: int) -> list[str]:
        """The instructions of an episode, each once, in the order of its frames."""
        start = self.starts[episode]
        numbers = self.task_of[start : start + self.lengths[episode]].tolist()
        return [self.tasks[number] for number in dict.fromkeys(numbers)]

    def frames_in(self, episode: int) -> np.ndarray:
        """The indices of the frames of an episode: (length,) int64."""
        return self.starts[episode] + np.arange(self.lengths[episode])

    def chunk(self, index: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The actions from frame `index` on: ((length, A) float32, is_pad (length,) bool).

        The episode's last action is repeated after its end; is_pad marks these places.
        """
        episode = self.episode_of[index]
        last = self.starts[episode] + self.lengths[episode] - 1
        wanted = index + np.arange(length)
        return self.actions[np.minimum(wanted, last)], wanted > last

    def episode(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of an episode: state (n, S), action (n, A), and (n, H, W, 3) per camera."""
        frames = self.frames_in(number)
        arrays = {"state": self.states[frames], "action": self.actions[frames]}
        return arrays | {name: self.images(frames, name) for name in self.cameras}

    def images(self, indices, camera: str) -> np.ndarray:
        """The images of frames `indices` (n,) by a camera: (n, H, W, 3) uint8.

        Raises UserError if an image does not decode, or has another shape than declared.
        """
        self.hold_to(camera, self.cameras, "an image or a video")
        indices = np.atleast_1d(np.asarray(indices))
        if camera in self.pixels:
            return self.pixels[camera][indices]
        height, width = layout.picture_size(self.features[camera])
        result = np.empty((len(indices), height, width, 3), np.uint8)
        video = self.features[camera]["dtype"] == "video"
        for place, pixels in (self.from_video if video else self.from_rows)(indices, camera):
            if pixels.shape != (height, width, 3):
                found = f"{camera} of {pixels.shape} at index {indices[place]} of {self.folder}"
                raise UserError(found, f"{(height, width, 3)}", reading.CHECK)
            result[place] = pixels
        return result

    def from_rows(self, indices: np.ndarray, camera: str):
        """(place in `indices`, pixels) of each frame, from a column of encoded images."""
        # By file and row, so each row group is read once.
        order = np.lexsort([self.row_of[indices], self.file_of[indices]])
        for place in order.tolist():
            index = int(indices[place])
            encoded = self.encoded(index, camera)
            if encoded is None:
                found = f"no bytes of {camera} at index {index} of {self.folder}"
                raise UserError(found, "images inside the data files", reading.COPY)
            try:
                picture = images.open_image(encoded)
            except UserError as error:
                found = f"{camera} at index {index} of {self.folder}, which does not decode"
                raise UserError(found, error.parts[1], reading.CHECK) from error
            yield place, np.asarray(picture)

    def encoded(self, index: int, camera: str) -> bytes | None:
        """The bytes of an image file, as the data file holds them."""
        number, row = int(self.file_of[index]), int(self.row_of[index])
        path = self.paths[number]
        known = self.groups.get((number, "ends"))
        if known is None:
            meta = reading.open_parquet(path).metadata
            sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            known = self.groups[number, "ends"] = np.cumsum(sizes)
        group = int(np.searchsorted(known, row, side="right"))
        key = (number, group, camera)
        if key not in self.groups:
            self.groups[key] = self.read_group(path, group, camera)
            held = [key for key in self.groups if len(key) == 3]
            if len(held) > ROW_GROUPS:
                del self.groups[held[0]]
        self.groups.move_to_end(key)
        first = int(known[group - 1]) if group else 0
        return self.groups[key][row - first].as_py()

    def read_group(self, path: Path, group: int, camera: str) -> pa.Array:
        """The encoded images of a row group. Raises UserError if the column is of another kind."""
        try:
            table = reading.open_parquet(path).read_row_group(group, columns=[camera])
            return table[camera].combine_chunks().field("bytes")
        except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
            raise reading.damaged(path, error) from error

    def from_video(self, indices: np.ndarray, camera: str):
        """(place in `indices`, pixels) of each frame, from the videos of the episodes."""
        for episode in np.unique(self.episode_of[indices]).tolist():
            places = np.flatnonzero(self.episode_of[indices] == episode)
            places = places[np.argsort(indices[places], kind="stable")]
            path, start = self.video_of(episode, camera)
            numbers = indices[places] - self.starts[episode]
            times = (start + numbers / self.fps).tolist()
            yield from zip(places.tolist(), videos.decode(path, times, self.fps), strict=True)

    def video_of(self, episode: int, camera: str) -> tuple[Path, float]:
        """The video file of an episode, and the second at which the episode begins in it."""
        row, key = self.rows[episode], f"videos/{camera}"
        needed = [f"{key}/chunk_index", f"{key}/file_index", f"{key}/from_timestamp"]
        if any(row.get(name) is None for name in needed):
            found = f"episode {episode} of {self.folder} without {needed[0]}"
            raise UserError(found, "the place of its video", reading.COPY)
        chunk, file, start = (row[name] for name in needed)
        pattern = self.info.get("video_path")
        name = reading.filled(pattern, chunk, file, video_key=camera)
        return files.existing(files.inside(self.folder, name), "a video", reading.COPY), start
