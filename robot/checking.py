"""Checks a LeRobot dataset v3.0 against itself: every promise of the format, every frame.

No torch. `check` reads all files and decodes all images. Two programs that other people wrote for
this miss damaged images and wrong statistics of episodes: docs/log/robot.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import files
from base.files import UserError
from robot import layout, reading, videos
from robot.rows import Fault, Rows, Run, fault_of

EPISODES = "meta/episodes"
TOLERANCE = 1e-3  # of a feature's range: other writers compute in float32
ROUNDING = 1e-6  # of its largest number
LARGEST = 300  # LeRobot's statistics of larger images are of thinned pixels


@dataclass
class Report:
    """What `inspect` found. notes: what could not be compared, and why."""

    faults: list[Fault]
    notes: list[str]
    info: dict
    tasks: list[str]


def check(folder) -> list[Fault]:
    """All faults of a dataset, as `inspect` finds them."""
    return inspect(folder).faults


def inspect(folder) -> Report:
    """Compare all files of a dataset. Raises UserError if the folder holds no dataset v3.0."""
    folder = Path(folder)
    info = reading.read_info(folder)
    faults = checksum_faults(folder)
    notes: list[str] = []
    tasks = attempt(layout.TASKS, faults, reading.read_tasks, folder)
    episodes = attempt(EPISODES, faults, reading.read_episodes, folder, True)
    rows = Rows(folder, info, tasks)
    rows.read()
    faults += rows.faults
    faults += info_faults(info, episodes, tasks, rows)
    if tasks is not None:
        faults += task_faults(tasks)
    if episodes is not None:
        faults += place_faults(episodes, rows, info, tasks)
        faults += video_faults(folder, info, episodes, notes)
        # The stated statistics are of all rows, and some are not there.
        rows.whole &= {row["episode_index"] for row in episodes} <= {
            run.episode for run in rows.runs
        }
    faults += Statistics(folder, info, rows, notes).compare(episodes)
    return Report(faults, notes, info, list((tasks or {}).values()))


def attempt(name: str, faults: list[Fault], read, *words):
    """read(*words), or None after noting the fault."""
    try:
        return read(*words)
    except UserError as error:
        faults.append(fault_of(name, error))
        return None


def checksum_faults(folder) -> list[Fault]:
    """Files that were changed since our recorder wrote them. Others' folders have no list."""
    folder = Path(folder)
    if not (folder / layout.CHECKSUMS).exists():
        return []
    try:
        own = files.read_sealed(folder / layout.CHECKSUMS, "checksums", reading.COPY)
        table = own.get("files")
        if not isinstance(table, dict) or files.unlisted(table):
            return [Fault(layout.CHECKSUMS, "no list of files", "bytes and sha256 of each")]
        paths = {name: files.inside(folder, name) for name in table}
    except UserError as error:
        return [fault_of(layout.CHECKSUMS, error)]
    faults = []
    for name, path in paths.items():
        if not path.is_file():
            faults.append(Fault(name, "no file", f"the file that {layout.CHECKSUMS} lists"))
        elif path.stat().st_size != table[name]["bytes"]:
            size = f"{path.stat().st_size} bytes"
            faults.append(Fault(name, size, f"{table[name]['bytes']} bytes, as recorded"))
        elif files.file_digest(path).hex() != table[name]["sha256"]:
            faults.append(Fault(name, "a changed file", "the file as it was recorded"))
    there = [path for room in ("meta", "data") for path in folder.glob(f"{room}/**/*.*")]
    names = {path.relative_to(folder).as_posix() for path in there if path.is_file()}
    for name in sorted(names - set(table) - {layout.CHECKSUMS}):
        faults.append(Fault(name, "a file that was not recorded", "the listed files alone"))
    return faults


def info_faults(info: dict, episodes, tasks, rows: Rows) -> list[Fault]:
    """Totals, splits and features of info.json that the other files contradict."""
    totals = {}
    if episodes is not None:
        totals["total_episodes"] = len(episodes)
    if rows.whole:
        totals["total_frames"] = rows.total
    if tasks is not None:
        totals["total_tasks"] = len(tasks)
    faults = []
    for name, right in totals.items():
        if info.get(name) != right:
            found = f"{name} {info.get(name)!r}"
            faults.append(Fault(layout.INFO, found, f"{right}, as the files have"))
    for name in layout.COUNTERS:
        if name not in info["features"]:
            faults.append(Fault(layout.INFO, f"no feature {name}", "it, as in every dataset"))
    splits = info.get("splits")
    for name, text in (splits if isinstance(splits, dict) else {}).items():
        first, _, last = str(text).partition(":")
        right = first.isdecimal() and last.isdecimal() and int(first) < int(last)
        if not right or (episodes is not None and int(last) > len(episodes)):
            found, expected = f"the split {name} {text!r}", f"0:{info['total_episodes']}"
            faults.append(Fault(layout.INFO, found, f"{expected}, or a part of it"))
    return faults


def task_faults(tasks: dict[int, str]) -> list[Fault]:
    """Instructions that are no text, are there twice, or are not numbered from 0."""
    faults = []
    if sorted(tasks) != list(range(len(tasks))):
        found = f"task_index {sorted(tasks)[:9]}"
        faults.append(Fault(layout.TASKS, found, f"0 to {len(tasks) - 1}"))
    texts = list(tasks.values())
    for number, text in tasks.items():
        if not isinstance(text, str) or not text.strip():
            faults.append(Fault(layout.TASKS, f"task {number} {text!r}", "a text with words"))
        elif texts.count(text) > 1:
            faults.append(Fault(layout.TASKS, f"task {number} {text!r} twice", "each text once"))
    return faults


def place_faults(episodes: list[dict], rows: Rows, info: dict, tasks) -> list[Fault]:
    """Episodes whose length, offsets, file or instructions the rows contradict."""
    faults, start = [], 0
    runs: dict[int, Run] = {}
    for run in rows.runs:
        runs.setdefault(run.episode, run)
    known = set((tasks or {}).values())
    for number, row in enumerate(episodes):
        episode = row["episode_index"]
        wrong = [("episode_index", episode, number)]
        wrong.append(("dataset_from_index", row["dataset_from_index"], start))
        end = start + row["length"]
        wrong.append(("dataset_to_index", row["dataset_to_index"], end))
        run = runs.get(episode)
        if run:
            wrong.append(("length", row["length"], run.length))
            chunk, file = row.get("data/chunk_index"), row.get("data/file_index")
            name = attempt("", [], reading.filled, info.get("data_path"), chunk, file)
            wrong.append(("its data file", name, run.file))
        elif rows.whole:
            wrong.append(("length", row["length"], 0))
        for key, found, right in wrong:
            if found != right:
                faults.append(Fault(EPISODES, f"{key} {found}", f"{right}", episode))
        if tasks is not None:
            for text in row["tasks"]:
                if text not in known:
                    expected = f"a text of {layout.TASKS}"
                    faults.append(Fault(EPISODES, f"the task {text!r}", expected, episode))
        start = end
    return faults


def video_faults(folder: Path, info: dict, episodes: list[dict], notes: list) -> list[Fault]:
    """Videos that are missing or too short, and episodes whose times do not fit their length."""
    cameras = [name for name, one in info["features"].items() if one["dtype"] == "video"]
    decodes = True
    if cameras:
        notes.append("statistics of videos are not compared")
        decodes = attempt("", [], lambda: videos.require() or True) or False
        if not decodes:
            notes.append("no frame of a video was decoded: pip install av")
    faults = []
    for camera in cameras:
        for row in episodes:
            faults += one_video(folder, info, row, camera, decodes)
    return faults


def one_video(folder: Path, info: dict, row: dict, camera: str, decodes: bool) -> list[Fault]:
    """What is wrong with the video of an episode: its file, its times, its first and last frame."""
    episode, key, fps = row["episode_index"], f"videos/{camera}", info["fps"]
    names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    chunk, file, start, end = (row.get(f"{key}/{name}") for name in names)
    if None in (chunk, file, start, end):
        return [Fault(EPISODES, f"no {key}/...", ", ".join(names), episode)]
    faults = []
    if abs(end - start - row["length"] / fps) > 0.5 / fps:
        found = f"{camera} from {start:g} to {end:g} s"
        expected = f"{row['length'] / fps:g} s for {row['length']} frames"
        faults.append(Fault(EPISODES, found, expected, episode))
    try:
        pattern = info.get("video_path")
        name = reading.filled(pattern, chunk, file, video_key=camera)
        path = files.existing(files.inside(folder, name), "the video", reading.COPY)
        if decodes:
            times = [start, start + (row["length"] - 1) / fps]
            pixels = videos.decode(path, times, fps)
            size = layout.picture_size(info["features"][camera])
            if pixels.shape[1:3] != size:
                found = f"frames of {pixels.shape[1]} × {pixels.shape[2]} pixels"
                faults.append(Fault(name, found, f"{size[0]} × {size[1]}", episode))
    except UserError as error:
        faults.append(fault_of(camera, error, episode))
    return faults


@dataclass
class Statistics:
    """Statistics of the rows, next to those that the dataset states."""

    folder: Path
    info: dict
    rows: Rows
    notes: list[str]

    def compare(self, episodes: list[dict] | None) -> list[Fault]:
        """Statistics that are missing or wrong, of each episode and of the whole."""
        if not self.rows.whole:
            self.notes.append("no statistic was compared: rows or images are missing")
            return []
        # Our recorder's quantiles are exact. LeRobot's are estimates.
        self.exact = (self.folder / layout.CHECKSUMS).exists()
        self.numbers = {
            name: np.concatenate(parts).astype(np.float64)
            for name, parts in self.rows.numbers.items()
        }
        faults: list[Fault] = []
        runs = {run.episode: run for run in self.rows.runs}
        for row in episodes or []:
            run = runs.get(row["episode_index"])
            for name in self.info["features"] if run else []:
                stated = {one: row.get(f"stats/{name}/{one}") for one in layout.TEN}
                right = self.computed(name, [run])
                faults += self.differences(EPISODES, name, stated, right, run.episode)
        whole = attempt(
            layout.STATISTICS,
            faults,
            files.read_json,
            self.folder / layout.STATISTICS,
            "the statistics of a dataset",
            reading.COPY,
        )
        for name in self.info["features"] if whole is not None else []:
            right = self.computed(name, self.rows.runs)
            stated = whole.get(name, {})
            stated = stated if isinstance(stated, dict) else {}
            faults += self.differences(layout.STATISTICS, name, stated, right, None)
        if not self.exact:
            self.notes.append("quantiles were held to their order only: other writers estimate")
        return faults

    def computed(self, name: str, runs: list[Run]) -> dict[str, np.ndarray] | None:
        """The ten statistics of a feature over the rows of `runs`; None if they are not known."""
        if name in self.numbers:
            values = self.numbers[name]
            if len(runs) == 1:
                values = values[runs[0].start : runs[0].start + runs[0].length]
            return layout.vector_statistics(values) if np.isfinite(values).all() else None
        if self.info["features"][name]["dtype"] != "image":
            return None
        counts = np.sum([self.rows.counts[name, run.episode] for run in runs], axis=0)
        return layout.pixel_statistics(counts, sum(run.length for run in runs))

    def differences(self, file, name, stated: dict, right, episode) -> list[Fault]:
        """The stated statistics of a feature that are missing or wrong."""
        if right is None:
            return []
        if self.estimated(name, stated, right):
            note = f"statistics of {name} are of some frames or pixels, and were not compared"
            self.notes += [note] if note not in self.notes else []
            return []
        faults = []
        low, high = right["min"].min(), right["max"].max()
        near = TOLERANCE * (high - low) + ROUNDING * max(abs(low), abs(high), 1)
        for statistic in layout.TEN:
            value = stated.get(statistic)
            if value is None and statistic in layout.BASIC + (tuple(layout.QUANTILES) * self.exact):
                faults.append(Fault(file, f"no {statistic} of {name}", "ten statistics", episode))
            if value is None:
                continue
            wanted = right[statistic].reshape(-1)
            numbers = as_numbers(value)
            found = f"{statistic} of {name} {shortened(numbers)}"
            if numbers.shape != wanted.shape:
                faults.append(Fault(file, found, f"{len(wanted)} numbers", episode))
            elif statistic in layout.QUANTILES and not self.exact:
                inside = (numbers >= low - near) & (numbers <= high + near)
                if not inside.all():
                    faults.append(Fault(file, found, f"numbers in {low:g}..{high:g}", episode))
            elif not (np.abs(numbers - wanted) <= near).all():
                faults.append(Fault(file, found, shortened(wanted), episode))
        return faults

    def estimated(self, name: str, stated: dict, right: dict) -> bool:
        """Whether the stated statistics of a camera are of some frames or pixels only."""
        feature = self.info["features"][name]
        if feature["dtype"] != "image" or self.exact:
            return False
        count = as_numbers(stated.get("count"))
        thinned = max(layout.picture_size(feature)) >= LARGEST
        return thinned or not np.array_equal(count, right["count"])


def as_numbers(value) -> np.ndarray:
    """Any nested list of numbers as (n,) float64; (0,) for anything else."""
    try:
        return np.asarray(value, np.float64).reshape(-1)
    except (ValueError, TypeError):
        return np.zeros(0)


def shortened(numbers: np.ndarray) -> str:
    """The first numbers as a reader likes them."""
    words = ", ".join(f"{number:.6g}" for number in numbers[:6])
    return f"[{words}{', ...' if len(numbers) > 6 else ''}]"
