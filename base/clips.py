"""The frames of a clip from anywhere: a GIF, a folder of images, an MP4; or an error of one line.

A file that Pillow reads (GIF, and animated PNG or WebP) and a folder of images need nothing more.
Other videos need PyAV or imageio. The frames that are taken are spread evenly over the clip's time.
GIFs say how long each frame is shown: writers join equal neighbours into one long frame. The frames
of a folder and of a video count as equally long.
"""

import bisect
import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageSequence

from base import files, images
from base.files import UserError

MOST_FRAMES = 10_000  # of a clip: each must be decoded to reach the last
USUAL = 100.0  # milliseconds of a frame that says no time, as browsers have it
WHAT = "a clip: a GIF, an MP4, or a folder of frames"


def read(source, count: int) -> tuple[list[Image.Image], str | None]:
    """`count` frames of a clip in mode RGB, spread evenly over its time, and a note for the user.

    source: a path. The note is None if these are all frames of the clip. Raises UserError if the
    clip is missing, empty, damaged, too long or no clip, or if nothing that is installed reads it.
    """
    path = files.existing(source, WHAT, "check the path")
    if path.is_dir():
        paths = frame_paths(path)
        numbers = spread([1.0] * len(paths), count)
        return [images.open_image(paths[i]) for i in numbers], note(path, len(paths), numbers)
    if not path.stat().st_size:
        raise UserError(f"{path}, which is empty", WHAT, "copy it again")
    opened = pillow_frames if path.suffix.lower() in images.SUFFIXES else video_frames
    # Twice: the times are known at the end, and all frames would fill the memory.
    times = [time_of(frame) for frame in limited(opened(path), path)]
    if not times:
        raise UserError(f"{path} without a frame", WHAT, "copy it again")
    numbers = spread(times, count)
    kept = {}
    for number, frame in enumerate(opened(path)):
        if number in numbers:
            kept[number] = images.to_rgb(frame)
        if number == numbers[-1]:
            break
    return [kept[number] for number in numbers], note(path, len(times), numbers)


def time_of(frame: Image.Image) -> float:
    """How long a frame is shown. A file that gives no time, or 0, means a usual time."""
    time = frame.info.get("duration")
    return float(time) if isinstance(time, int | float) and time > 0 else USUAL


def spread(times: list[float], count: int) -> list[int]:
    """The frames that are shown in the middle of `count` equal parts of a clip.

    times: how long each frame is shown. With n equal times and a count of n, these are all frames.
    """
    ends = list(itertools.accumulate(times))
    middles = [(i + 0.5) / count * ends[-1] for i in range(count)]
    return [min(bisect.bisect_right(ends, middle), len(times) - 1) for middle in middles]


def note(path: Path, total: int, numbers: list[int]) -> str | None:
    """What a user should know if frames `numbers` of `total` are read, and these are not all."""
    count = len(numbers)
    if numbers == list(range(total)):
        return None
    if total == 1:
        return f"note: {path} has 1 frame, which stands for all {count}: nothing moves"
    more = ", some of them more than once" if len(set(numbers)) < count else ""
    taken = len(set(numbers))
    return f"note: {path} has {total:,} frames; {taken} are read, spread evenly over its time{more}"


def frame_paths(folder: Path) -> list[Path]:
    """The images of a folder, by the numbers in their names: 2.png comes before 10.png.

    Raises UserError if there is none, or too many.
    """
    paths = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in images.SUFFIXES and not path.name.startswith("."):
            paths.append(path)
    if not paths:
        expected = "frames: files ending in " + " ".join(images.SUFFIXES)
        raise UserError(f"no image in {folder}", expected, "check the path")
    return sorted(limited(paths, folder), key=by_numbers)


def by_numbers(path: Path) -> list[tuple[int, str]]:
    """A key for sorting: the numbers in a name count as numbers."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def limited(frames, path: Path) -> Iterator:
    """The frames of a clip. Raises UserError if there are more than MOST_FRAMES."""
    for number, frame in enumerate(frames):
        if number == MOST_FRAMES:
            found = f"{path} with more than {MOST_FRAMES:,} frames"
            raise UserError(found, "a short clip", "cut it")
        yield frame


def pillow_frames(path: Path) -> Iterator[Image.Image]:
    """The frames of a file that Pillow reads. Raises UserError if it is damaged or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the limit is stricter
            with Image.open(path) as image:
                if image.width * image.height > images.MAX_PIXELS:
                    raise UserError(
                        f"{path} of {image.width:,} × {image.height:,} pixels",
                        f"at most {images.MAX_PIXELS:,} pixels",
                        "make it smaller",
                    )
                for frame in ImageSequence.Iterator(image):
                    yield frame.copy()
    except (UserError, PermissionError):
        raise
    except Exception as error:  # Pillow's parsers raise OSError, SyntaxError, struct.error and more
        found = f"{path}, which is damaged or no image"
        raise UserError(found, WHAT, images.advice(path)) from error


def video_frames(path: Path) -> Iterator[Image.Image]:
    """The frames of a video, by PyAV or else by imageio. Raises UserError without both."""
    try:
        import av
    except ImportError:
        yield from imageio_frames(path)
        return
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_image()
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise unreadable(path, error) from error


def imageio_frames(path: Path) -> Iterator[Image.Image]:
    """The frames of a video by imageio. Raises UserError without it, or without its reader."""
    try:
        import imageio.v3 as imageio
    except ImportError as error:
        raise UserError(
            f"{path}, and neither PyAV nor imageio to read it",
            "a GIF, a folder of frames, or one of these modules",
            "pip install av",
        ) from error
    try:
        for pixels in imageio.imiter(path):
            yield Image.fromarray(pixels)
    except Exception as error:  # each reader of imageio raises errors of its own
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a video that cannot be decoded."""
    reason = str(error).strip().partition("\n")[0][:200]
    found = f"{path}, which is damaged or no video ({reason})"
    return UserError(found, WHAT, "open it in a player, or copy it again")
