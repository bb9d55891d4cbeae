"""Which photograph belongs to which split, and which photographs can be used at all."""

import functools
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from base import files, images
from base.files import UserError
from base.listing import matching
from caption.collected import Photos
from loop import progress

# Lists of images next to the captions, as Flickr8k names them: Flickr_8k.trainImages.txt.
LISTS = {"train": "*train*mages.txt", "val": "*dev*mages.txt", "test": "*test*mages.txt"}
SMALLEST = 224  # pixels of the shorter side that an image is decoded to: what most encoders read
LARGEST_VAL = 1000  # held-out images, unless --num_val says so


def choose(
    photos: Photos,
    path: Path,
    lists: dict[str, str | None],
    *,
    num_val: int = 0,
    max_images: int = 0,
    seed: int = 0,
) -> dict[str, str]:
    """{image: split} in the order of the names.

    The data set's own splits come first, then the lists, else all images are train. If there is
    no val, it is drawn from train: `num_val` images, or a twentieth. path: the captions, for
    lists next to them. lists: {split: file or None}, as the user gave them. max_images: keep that
    many, drawn at random; 0 keeps all. Raises UserError if a list names no image, or val would
    take all of train.
    """
    splits = {name: split for name, (split, _) in photos.items() if split}
    # Asked before the lists are read, which add to `splits`.
    has_splits = bool(splits)
    for split, given in lists.items():
        for file in list_files(split, given, path, has_splits):
            splits |= dict.fromkeys(names_in(file, split, photos, path), split)
    splits = splits or dict.fromkeys(photos, "train")
    rng = np.random.default_rng(seed)
    if "val" not in splits.values():
        # Sorted, so that the draw does not depend on the order of the file.
        train = sorted(name for name, split in splits.items() if split == "train")
        count = num_val or min(LARGEST_VAL, max(1, len(train) // 20))
        if count >= len(train):
            found = f"--num_val {count} of {len(train)} images"
            raise UserError(found, "fewer than there are", "lower it")
        for index in rng.permutation(len(train))[:count]:
            splits[train[index]] = "val"
    if len(splits) < len(photos):
        left_out = len(photos) - len(splits)
        print(f"{left_out:,} images are in no split and left out", file=sys.stderr)
    chosen = sorted(splits)
    if max_images and max_images < len(chosen):
        chosen = sorted(rng.choice(chosen, max_images, replace=False).tolist())
    return {name: splits[name] for name in chosen}


def list_files(split: str, given: str | None, path: Path, has_splits: bool) -> list[Path]:
    """The lists of a split: the given file, else the files next to the captions that fit its
    pattern.

    Lists next to the captions do not count if the data set has splits of its own.
    """
    if given:
        return [files.existing(given, "a list of images", f"check --{split}_list")]
    if has_splits or not path.exists():
        return []
    folder = path if path.is_dir() else path.parent
    return matching(folder, LISTS[split])


def names_in(file: Path, split: str, photos: Photos, path: Path) -> list[str]:
    """The images that a list names. Raises UserError if it names none of `photos`."""
    text = files.read_text(file, "a list of images", f"check --{split}_list")
    listed = {line.strip() for line in text.split("\n")}
    names = [name for name in photos if name in listed]
    if not names:
        raise UserError(
            f"no image of {path} in {file}",
            "a name per line, as the captions name them",
            f"name another --{split}_list",
        )
    return names


def problem(folder: Path, name: str) -> str | None:
    """Why an image cannot be used, or None."""
    try:
        images.open_image(folder / name, at_least=SMALLEST)
    except UserError as error:
        return str(error)
    except OSError as error:
        return str(files.os_error(error, folder / name))
    return None


def usable(folder: Path, names: list[str], out: Path, workers: int) -> list[str]:
    """The images that can be read. The others are named on the screen and in out/skipped.txt.

    Raises UserError if no image can be read.
    """
    # Every image is decoded once here: a damaged file is better known now than in an hour.
    with ProcessPoolExecutor(workers or None) as pool:
        read = pool.map(functools.partial(problem, folder), names, chunksize=16)
        problems = list(progress.bar(read, "reading", unit="image", total=len(names)))
    bad = [text for text in problems if text]
    if len(bad) == len(names):
        found = f"none of {len(names):,} images in {folder} (first: {bad[0]})"
        raise UserError(found, "the images that the captions name", "check --images")
    if bad:
        files.write_text(out / "skipped.txt", "\n".join(bad) + "\n")
        count, where = f"{len(bad):,} of {len(names):,}", out / "skipped.txt"
        print(f"{count} images are left out, all named in {where}; the first:", file=sys.stderr)
        print(*bad[:10], sep="\n", file=sys.stderr)
    return [name for name, text in zip(names, problems, strict=True) if not text]
