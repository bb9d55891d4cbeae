"""Images from anywhere: upright, opaque, RGB, 8 bit; or an error of one line that says why not.

EXIF orientation is applied, transparency lies on white, an animation gives its first frame, and
16-bit grey is scaled instead of clipped. The header must show a bearable size before anything is
decoded.
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
from base.listing import files_below

MAX_PIXELS = 100_000_000  # a file of a few kB with 20,000 × 20,000 pixels would fill 1.2 GB
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def open_image(source, *, at_least: int | None = None) -> Image.Image:
    """An image in mode RGB. source: a path, bytes, or a binary file.

    at_least: pixels that the short side needs; a large JPEG is then decoded at a fraction of its
    size, which is faster. Raises UserError if the image is missing, empty, damaged, or larger than
    MAX_PIXELS.
    """
    name = source if isinstance(source, (str, Path)) else "the image"
    if isinstance(source, (str, Path)):
        check_path(source)
    try:
        image = decoded(source, name, at_least)
    except (UserError, PermissionError):
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{name}, which is too large to decode",
            f"at most {MAX_PIXELS:,} pixels",
            "make it smaller",
        ) from error
    except Exception as error:  # Pillow's parsers raise OSError, SyntaxError, struct.error and more
        raise UserError(
            f"{name}, which is damaged or no image",
            "a PNG, JPEG, WebP, GIF, BMP or TIFF file",
            advice(source),
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numbers that are not finite get their own error
            return to_rgb(image)
    except (ValueError, OSError) as error:  # any other error is our own fault, and is not hidden
        raise UserError(
            f"{name}, whose pixels cannot be used ({error})",
            "an image of finite numbers",
            "save it as an 8-bit PNG",
        ) from error


def advice(source) -> str:
    """What to do about a file that is damaged or no image."""
    if isinstance(source, (str, Path)) and files.is_pointer(source):
        return "run `git lfs pull`: the file only says where the image is"
    return "open it in a viewer, or copy it again"


def check_path(source) -> None:
    """Raise UserError unless the path is a file with something in it."""
    path = files.existing(source, "an image", "check the path")
    if path.is_dir():
        raise UserError(f"the folder {path}", "an image", "name a file in it, or use --image_dir")
    if not path.stat().st_size:
        raise UserError(f"{path}, which is empty", "an image", "copy it again")


def decoded(source, name, at_least: int | None) -> Image.Image:
    """The upright image of a source, in any mode, without the translation of Pillow's errors.

    name: of the source, for an error.
    """
    with warnings.catch_warnings():
        # Pillow warns of large images. The limit below is stricter.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            # Pillow has read the header only; `load` decodes the pixels.
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{name} of {image.width:,} × {image.height:,} pixels",
                    f"at most {MAX_PIXELS:,} pixels",
                    "make it smaller",
                )
            if at_least and image.format == "JPEG":
                # Twice the size that is needed keeps the resize as sharp as from the whole image.
                image.draft(None, (2 * at_least, 2 * at_least))
            image.load()
            return ImageOps.exif_transpose(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: transparency on white, 16 and 32 bits and floats scaled to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixels that are not finite")
        grey = np.clip(values / brightest(image.mode, values.max()), 0, 255)
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def brightest(mode: str, top: float) -> float:
    """The divisor that brings grey values of a wide mode to 0..255. top: the largest value."""
    # A grey PNG of 16 bits is I;16 in new versions of Pillow and I in old versions.
    if mode.startswith("I;16") or (mode == "I" and 255 < top <= 65535):
        return 257  # 65535 / 255
    if mode == "F" and top <= 1:
        return 1 / 255
    return max(1.0, top / 255)


def list_images(folder, used: tuple[str, ...] = ()) -> list[Path]:
    """The images in a folder and below it, sorted, as `base.listing` lists them.

    What is left out is printed, but for the suffixes in `used`. Raises UserError if there is no
    image.
    """
    folder = files.existing(folder, "a folder of images", "check the path")
    listing = files_below(folder, SUFFIXES, used)
    if not listing.paths:
        left_out = f" ({listing.words()})" if listing.first else ""
        expected = "files ending in " + " ".join(SUFFIXES)
        raise UserError(f"no image in {folder}{left_out}", expected, "check the path")
    listing.report()
    return listing.paths


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
    # The elements of a GStreamer pipeline are joined by exclamation marks.
    backend = cv2.CAP_GSTREAMER if "!" in name else cv2.CAP_ANY
    source = cv2.VideoCapture(int(name)) if name.isdecimal() else cv2.VideoCapture(name, backend)
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
    """The pixels of an image at a fixed size: (size, size, 3) uint8.

    mode: "crop" takes the centre square, as CLIP does; "squash" ignores the shape. zoom: above 1,
    crop takes a smaller square.
    """
    box = None
    if mode == "crop":
        # Cutting the square out of the source first avoids a huge image in between.
        side = min(image.size) / zoom
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), resample, box=box))


def look(image: Image.Image, view: list[float]) -> Image.Image:
    """A part of an image, perhaps mirrored.

    view: left, top, right and bottom as shares of the sides, then 1 if it is mirrored, else 0.
    """
    left, top = int(view[0] * image.width), int(view[1] * image.height)
    right = max(left + 1, round(view[2] * image.width))
    bottom = max(top + 1, round(view[3] * image.height))
    seen = image.crop((left, top, right, bottom))
    return ImageOps.mirror(seen) if view[4] else seen


def side_by_side(frames: list[Image.Image], size: int = 112, columns: int = 4) -> Image.Image:
    """The frames of a clip on a sheet, row by row, each at most `size` pixels wide and high."""
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * size, rows * size), "white")
    for number, frame in enumerate(frames):
        small = frame.convert("RGB")
        small.thumbnail((size, size))
        sheet.paste(small, (number % columns * size, number // columns * size))
    return sheet


def data_uri(image: Image.Image, size: int = 224, quality: int = 85) -> str:
    """A thumbnail as a data: address, for pages that load nothing."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
