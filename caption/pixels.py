"""The pixels of a record: of an image, of a part of it, or of a moving scene, which is drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from base.images import look, open_image
from caption import data
from net.image_encoders import Preprocess
from worlds import drawing, motion


def frames_of(record: dict) -> list[Image.Image]:
    """The frames of a moving scene, drawn from its program."""
    return drawing.draw_frames(motion.frames(motion.program_from_dict(record["program"])))


def of_record(preprocess: Preprocess, folder: Path, record: dict) -> np.ndarray:
    """What an encoder reads of a record of `folder`: (size, size, 3) uint8.

    Of a moving scene: (T, size, size, 3). Raises UserError if there is no such image, or if its
    name leads out of the folder.
    """
    if "program" in record:
        return np.stack([preprocess(frame) for frame in frames_of(record)])
    return of_image(preprocess, data.image_path(folder, record), record.get("view"))


def of_image(preprocess: Preprocess, path, view: list[float] | None = None) -> np.ndarray:
    """The pixels of an image: (size, size, 3) uint8. view: a crop of it, or None."""
    if view:
        return preprocess(look(open_image(path, at_least=preprocess.size), view))
    return preprocess(path)
