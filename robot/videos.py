"""Frames of the videos of a LeRobot dataset. They need PyAV; images need nothing."""

from pathlib import Path

import numpy as np

from base.files import UserError


def require() -> None:
    """Raise UserError unless PyAV is installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        do = "pip install av"
        raise UserError("videos, and no PyAV", "the module av", do) from error


def decode(path: Path, times: list[float], fps: int) -> np.ndarray:
    """The frames of a video at `times`, ascending seconds: (n, H, W, 3) uint8.

    A frame counts if it is shown within half a frame of its time. Raises UserError without PyAV,
    if the video is damaged, or if it has no such frame.
    """
    require()
    import av

    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            # A seek ends at the key frame before the time.
            start = max(times[0] - 0.5 / fps, 0)
            container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                shown = None
                # Equal times ask for the same frame twice.
                while len(frames) < len(times) and frame.time > times[len(frames)] - 0.5 / fps:
                    if frame.time > times[len(frames)] + 0.5 / fps:
                        raise missing(path, times[len(frames)])
                    shown = frame.to_ndarray(format="rgb24") if shown is None else shown
                    frames.append(shown)
                if len(frames) == len(times):
                    break
    except (av.error.FFmpegError, IndexError, OSError) as error:
        found = f"{path}, which is damaged or no video ({error})"
        raise UserError(found, "a video that PyAV decodes", "copy it again") from error
    if len(frames) < len(times):
        raise missing(path, times[len(frames)])
    return np.stack(frames)


def missing(path: Path, time: float) -> UserError:
    """The error for a time at which a video has no frame."""
    expected = "a frame for each row of the data files"
    do = "run python -m tools.check_dataset with the folder"
    return UserError(f"{path} without a frame at {time:.3f} s", expected, do)
