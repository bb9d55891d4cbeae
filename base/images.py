"""Pictures from anywhere, upright, opaque, RGB, 8 bit, or one line that says why not (floor 0: numpy and Pillow).

EXIF orientation is applied, transparency lies on white, an animation gives its first frame, 16-bit grey is scaled
and not clipped. Nothing is decoded before its header was found to be of bearable size.
"""

import base64
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from base import files
from base.files import UserError

MAX_PIXELS = 100_000_000  # a 20,000 × 20,000 bomb of a few kB would fill 1.2 GB
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def open_image(source, *, at_least: int | None = None) -> Image.Image:
    """A picture as mode RGB. source: a path, bytes, or a binary file.

    at_least: pixels that the short side needs; a large JPEG is then decoded at a fraction of its size, which is faster.
    Raises UserError if it is missing, empty, damaged, no picture, or of more than MAX_PIXELS.
    """
    name = source if isinstance(source, (str, Path)) else "the picture"
    if isinstance(source, (str, Path)):
        path = files.existing(source, "a picture", "check the path")
        if path.is_dir():
            raise UserError(
                f"the folder {path}", "a picture", "name a file in it, or use --image_dir"
            )
        if not path.stat().st_size:
            raise UserError(f"{path}, which is empty", "a picture", "copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow warns of large pictures; the check below is stricter
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"{name} of {image.width:,} × {image.height:,} pixels",
                        f"at most {MAX_PIXELS:,} pixels",
                        "make it smaller",
                    )
                if at_least and image.format == "JPEG":
                    image.draft(None, (2 * at_least, 2 * at_least))  # at least twice what is needed
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{name}, which is too large to decode",
            f"at most {MAX_PIXELS:,} pixels",
            "make it smaller",
        ) from error
    except PermissionError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsers meet: OSError, SyntaxError, struct.error, zlib.error, …
        raise UserError(
            f"{name}, which is damaged or no picture",
            "a PNG, JPEG, WebP, GIF, BMP or TIFF file",
            "open it in a viewer, or copy it again",
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: transparency on white, 16 and 32 bits and floats scaled to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixels that are not finite")
        top = values.max()
        scale = (
            257
            if image.mode.startswith("I;16") or (image.mode == "I" and 255 < top <= 65535)
            else 1 / 255
            if image.mode == "F" and top <= 1
            else max(1.0, top / 255)
        )
        return Image.fromarray(np.clip(values / scale, 0, 255).round().astype(np.uint8)).convert(
            "RGB"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def list_images(folder) -> list[Path]:
    """The pictures in a folder and below it, by suffix, sorted. Raises UserError if there are none."""
    folder = files.existing(folder, "a folder of pictures", "check the path")
    found = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )
    if not found:
        raise UserError(
            f"no picture in {folder}", "files ending in " + " ".join(SUFFIXES), "check the path"
        )
    return found


def open_camera(name: str) -> Iterator[Image.Image]:
    """A generator of frames as images. Raises UserError without OpenCV or without a camera."""
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "no OpenCV, which --camera needs",
            "the module cv2",
            "apt install python3-opencv (JetPack has it), or use --image",
        ) from error
    backend = cv2.CAP_GSTREAMER if "!" in name else cv2.CAP_ANY
    source = cv2.VideoCapture(int(name)) if name.isdigit() else cv2.VideoCapture(name, backend)
    if not source.isOpened():
        raise UserError(
            f"no camera {name}",
            "a V4L2 number such as 0, a device, or a GStreamer pipeline",
            "see v4l2-ctl --list-devices",
        )
    source.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not a frame that has waited
    while True:
        arrived, frame = source.read()
        if not arrived:
            raise UserError(
                f"no frame from the camera {name}", "an image", "check the cable and the pipeline"
            )
        yield Image.fromarray(frame[:, :, ::-1])  # OpenCV's order is BGR


def resize_crop(
    image: Image.Image,
    size: int,
    mode: str = "crop",
    resample: int = Image.Resampling.BICUBIC,
    zoom: float = 1.0,
) -> np.ndarray:
    """(size, size, 3) uint8. crop: the shorter side to `size`, then the centre (CLIP's way). squash: both sides to `size`."""
    box = None
    if (
        mode == "crop"
    ):  # the centre square of the source gives the same picture without a huge intermediate one
        side = min(image.size) / zoom
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), resample, box=box))


def look(image: Image.Image, view: list[float]) -> Image.Image:
    """Part of a picture. view: left, top, right and bottom in shares of its sides, and whether it is mirrored (0 or 1)."""
    left, top = int(view[0] * image.width), int(view[1] * image.height)
    part = image.crop(
        (
            left,
            top,
            max(left + 1, round(view[2] * image.width)),
            max(top + 1, round(view[3] * image.height)),
        )
    )
    return ImageOps.mirror(part) if view[4] else part


def data_uri(image: Image.Image, size: int = 224, quality: int = 85) -> str:
    """A thumbnail as a data: address, for pages that load nothing."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
