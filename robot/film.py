"""Episodes as people watch them: the front camera's images, and what the policy thought.

The images have a size of their own, whatever the policy sees, and are drawn by renderers of their
own. Each is compressed at once: an episode of 60 steps keeps 100 kB in place of 9 MB.
"""

import base64
import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, features

from base.driving import Driver
from base.errors import UserError
from worlds.camera import Cameras, missing_opengl
from worlds.table import TableEnv

SIDE = 224  # pixels
QUALITY = 80  # of WebP: 1.3 kB per image, where JPEG of quality 85 takes 3.7 kB
CAMERA = "front"


def require() -> None:
    """Raise UserError if images can not be drawn and written here."""
    if not features.check("webp"):
        raise UserError(
            "a Pillow without WebP", "a Pillow that writes WebP", "run: pip install -U pillow"
        )
    missing = missing_opengl()
    if missing is not None:
        raise missing


class Film:
    """Keeps episodes. Raises UserError if images can not be drawn here, before any episode."""

    def __init__(self, side: int = SIDE):
        require()
        self.cameras = Cameras(side)

    def frame(self, env: TableEnv) -> str:
        """What the front camera sees now, as a data: address."""
        return compress(self.cameras.picture(env.model, env.data, CAMERA))

    def chunks(self, env: TableEnv, driver: Driver) -> list[dict]:
        """The chunks that a driver followed in the episode that has just ended."""
        return chunks_of(driver, functools.partial(env.pixels, CAMERA))

    def close(self) -> None:
        self.cameras.close()


def compress(pixels: np.ndarray) -> str:
    """An image (side, side, 3) uint8 as a data: address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def chunks_of(driver: Driver, project: Callable[[np.ndarray], np.ndarray]) -> list[dict]:
    """The chunks that a driver followed. project: places (n, 3) -> shares of the image's side.

    Each has `since` (the step from which on it was followed), `start` (the step of its first
    action), `actions` (T lists of A numbers in -1..1), `calls` (for each step the call that
    revealed it, 0 for a given step; None if the head reveals nothing), and `take` and `put`: the
    places that the grounder found, as shares of the image's side, or None. A policy that sees
    nothing found none.
    """
    found = []
    # The last chunk may have come too late to be followed.
    for made, (since, start) in zip(driver.made, driver.taken, strict=False):
        take = put = None
        if made.places is not None:
            take, put = (share(point) for point in project(made.places))
        calls = made.calls
        found.append(
            {
                "since": since,
                "start": start,
                "actions": np.round(made.actions, 2).tolist(),
                # A call reveals whole steps: the largest of a step's numbers stands for all.
                "calls": None if calls is None else calls.max(1).tolist(),
                "take": take,
                "put": put,
            }
        )
    return found


def share(point: np.ndarray) -> list[float] | None:
    """A point as JSON has it; None behind the camera."""
    return np.round(point, 4).tolist() if np.isfinite(point).all() else None
