"""Images to caption: a single image, the images of a folder, or a split with its references.

A captioner of clips reads clips in their place: --video, or a split of moving scenes.
"""

import sys
from dataclasses import dataclass

from PIL import Image
from tqdm import tqdm

from base import clips, files, flags, images
from base.files import UserError
from base.flags import setting
from caption import data, pixels


@dataclass
class Source:
    """The images: --image, --image_dir, --video or --use_val_set."""

    image: str | None = setting(None, "a single image")
    image_dir: str | None = setting(None, "all images in a folder and below it")
    video: str | None = setting(
        None, "a clip for a captioner of clips: a GIF, an MP4, or a folder of frames"
    )
    use_val_set: bool = setting(False, "images of --split in --data_dir, with their references")
    data_dir: str = setting("data_captions_synthetic", "the folder for --use_val_set")
    split: str = setting("val", "the split for --use_val_set")
    num_samples: int = setting(
        0, "captions of --image, or images to caption; 0: one caption, all images", at_least=0
    )

    def __post_init__(self):
        flags.check(self)


def images_of(source: Source) -> list[tuple[str, dict]]:
    """(path, record) of each image; the record is empty unless the image belongs to a split.

    Raises UserError if not exactly one kind of source is given, or it holds no image.
    """
    # Two kinds at once would leave the order of the rows unclear.
    kinds = [source.image, source.image_dir, source.video, source.use_val_set]
    if len([kind for kind in kinds if kind]) != 1:
        expected = "one of --image, --image_dir, --video, --use_val_set"
        raise UserError("no image, or several kinds of them", expected, "choose one")
    if source.video:
        clips.read(source.video, 1)  # a bad clip ends before a model is opened
        return [(source.video, {})] * max(1, source.num_samples)
    if source.image:
        images.open_image(source.image)  # a single bad image is an error, not skipped
        # The same image several times: each row draws with a seed of its own.
        return [(source.image, {})] * max(1, source.num_samples)
    if source.image_dir:
        found: list[tuple[str, dict]] = [
            (str(path), {}) for path in images.list_images(source.image_dir)
        ]
    else:
        found = images_of_split(source.data_dir, source.split)
    return found[: source.num_samples or None]


def images_of_split(data_dir: str, split: str) -> list[tuple[str, dict]]:
    """(path, record) of each image of a split. Raises UserError if there is no such split."""
    splits = data.read_meta(data_dir)["splits"]
    if split not in splits:
        expected = "one of " + ", ".join(splits)
        raise UserError(f"no split {split!r} in {data_dir}", expected, "choose one of these")
    found = []
    for record in data.read_records(data_dir):
        if record["split"] == split:
            found.append((str(data.image_path(data_dir, record)), record))
    return found


def check(found: list[tuple[str, dict]], source: Source, frames: int, path) -> None:
    """Raise UserError unless the captioner `path` reads what was found. frames: that it reads."""
    are_clips = bool(source.video) or any(record.get("program") for _, record in found)
    if are_clips and frames == 1:
        raise UserError(
            f"clips for {path}, a captioner of images",
            "a captioner of clips",
            "train one on the folder of prep_caption_video.py, or name images",
        )
    if frames > 1 and not are_clips:
        raise UserError(
            f"images for {path}, a captioner of clips",
            "a clip",
            "name it with --video: a folder with a single image is a clip too",
        )


def open_source(path: str, record: dict, frames: int) -> Image.Image | list[Image.Image]:
    """An image, or with several frames a clip: `frames` images. Raises UserError."""
    if frames == 1:
        return images.open_image(path)
    # The frames of few moving scenes are kept. All are drawn again, pixel by pixel the same.
    if record.get("program"):
        return pixels.frames_of(record)
    clip, note = clips.read(path, frames)
    if note:
        tqdm.write(note, file=sys.stderr)
    return clip


def open_images(
    batch: list[tuple[str, dict]], skipped: list[str], frames: int = 1
) -> list[tuple[str, dict, Image.Image | list[Image.Image]]]:
    """(path, record, image) of the images that can be read; the others go to `skipped`.

    frames: of a clip, which is a list of images.
    """
    opened = []
    for path, record in batch:
        try:
            image = open_source(path, record, frames)
        except (UserError, OSError) as error:
            message = error if isinstance(error, UserError) else files.os_error(error, path)
            # A folder of thousands must not stop at a single bad file.
            tqdm.write(f"skipped: {message}", file=sys.stderr)
            skipped.append(path)
        else:
            opened.append((path, record, image))
    return opened
