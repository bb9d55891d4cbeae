"""What a policy reads of what is seen. Training, torch and bundles read with the same code.

Shapes: N things, H x W pixels, S numbers of the state.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from base.errors import UserError
from base.facts import image_keys
from base.scaling import Scaling

MOST = 8  # things and zones in a list
RESIZE = Image.Resampling.BILINEAR
PARTS = ("kinds", "things", "real")  # of a list, as bundles name them


def padded(places: np.ndarray) -> np.ndarray:
    """Places (n, 3) of everything, with rows of zeros behind: (MOST, 3) float32."""
    rows = np.zeros((MOST, 3), np.float32)
    rows[: len(places)] = places
    return rows


def real_of(kinds: np.ndarray) -> np.ndarray:
    """Which rows of a list are things: attributes (.., N, C) -> (.., N) bool."""
    return kinds.sum(-1) > 0


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Images (n, H, W, 3) as squares of `side` pixels; 0: as they are."""
    if not side or images.shape[1:3] == (side, side):
        return images
    squares = [Image.fromarray(image).resize((side, side), RESIZE) for image in images]
    return np.stack([np.asarray(square) for square in squares])


def stacked(images: list[np.ndarray], side: int) -> np.ndarray:
    """Images of K cameras, (n, H, W, 3) each -> (n, K, side, side, 3)."""
    return np.stack([resized(each, side) for each in images], 1)


@dataclass
class Observer:
    """Reads what is seen.

    sees: "pixels", "state" or "nothing". cameras: names of a dataset's features. side: pixels of
    the squares that the eyes were trained on; 0: as they come.
    """

    sees: str
    cameras: list[str]
    side: int
    scaling: Scaling

    def read(self, seen: dict) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """A batch of one: what the grounder sees, and the state (1, S) float32 without a unit.

        Of a list "kinds" (1, MOST, C) float32, "things" (1, MOST, 3) and "real" (1, MOST) bool;
        of cameras "images" (1, K, side, side, 3) uint8. Raises UserError if something is missing
        or has another shape.
        """
        state = self.part(seen, "state")
        if state.shape != self.scaling.mean.shape:
            raise UserError(
                f"a state of shape {state.shape}",
                f"{len(self.scaling.mean)} numbers, as the policy was trained on",
                "name a robot of the policy's kind",
            )
        plain = self.scaling.plain(state).astype(np.float32)[None]
        if self.sees == "nothing":
            return {}, plain
        if self.sees == "state":
            kinds = self.part(seen, "kinds")
            things = padded(self.part(seen, "things"))
            parts = (kinds.astype(np.float32), things, real_of(kinds))
            return {name: part[None] for name, part in zip(PARTS, parts, strict=True)}, plain
        images = [self.image(seen, key)[None] for key in image_keys(self.cameras)]
        return {"images": stacked(images, self.side)}, plain

    def image(self, seen: dict, key: str) -> np.ndarray:
        """The image (H, W, 3) uint8 of a camera."""
        image = self.part(seen, key)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"{key} of shape {image.shape} and type {image.dtype}",
                "(height, width, 3) uint8",
                "give RGB pixels",
            )
        return image

    def part(self, seen: dict, key: str) -> np.ndarray:
        """A part of what is seen."""
        if key not in seen:
            raise UserError(
                f"an observation without {key!r}",
                "what the policy was trained on",
                "name a robot of the policy's kind, with its cameras",
            )
        return np.asarray(seen[key])
