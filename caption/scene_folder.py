"""What the scripts share that draw scenes into a captions folder: images once, all or none.

A killed run continues where it was: an image that exists is whole and is not drawn again. A folder
of other scenes is refused.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from base import files
from base.files import UserError
from caption import data
from loop import progress
from worlds import drawing
from worlds.scenes import Scene


def make_record(folder: Path, split: str, number: int, scene: Scene, texts: list[str]) -> dict:
    """Draw image `number` of a split, write it, and return its line of captions.jsonl."""
    name = f"images/{split}/{number:06d}.png"
    path = folder / name
    if not path.exists():  # a killed run continues where it was
        # Renaming is atomic: an image that exists is whole.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        # The lowest compression: drawing should not wait for zlib.
        drawing.draw(scene).save(temporary, "PNG", compress_level=1)
        os.replace(temporary, path)
    return {"image": name, "split": split, "captions": texts, "scene": scene.to_dict()}


def draw_all(
    draw: Callable[[str, int], dict], sizes: dict[str, int], out: Path, workers: int
) -> list[dict]:
    """Draw every image of every split on all cores; return the lines of captions.jsonl in order.

    draw(split, number): draws an image and returns its line; other processes get it by pickle.
    sizes: {split: number of images}. workers: processes; 0 means a process per core.
    """
    splits, numbers = [], []
    for split, size in sizes.items():
        files.writable_folder(out / "images" / split)
        splits += [split] * size
        numbers += range(size)
    with ProcessPoolExecutor(workers or None) as pool:
        drawn = pool.map(draw, splits, numbers, chunksize=32)
        return list(progress.bar(drawn, "drawing", unit="image", total=len(splits)))


# Facts that folders from before do not have, and what they would have had.
LATER = {"tidy": False, "looks": 0, "lists": 0}


def with_later(facts: dict) -> dict:
    """Facts of a folder, with those that it is too old to have."""
    return {**LATER, **facts}


def different(before: dict, wanted: dict) -> str:
    """Which settings of `wanted` a folder has otherwise, in words; "" if none."""
    names = [name for name, value in wanted.items() if before.get(name) != value]
    return ", ".join(f"its {name} is {before.get(name)}, not {wanted[name]}" for name in names)


def captions_are_there(out: Path, facts: dict) -> bool:
    """Whether the captions are finished. Raises UserError if they are of other scenes."""
    if (out / "meta.json").exists():
        before = data.read_meta(out)
        wanted = with_later(facts)
        other = different(with_later(before), wanted)
        if other:
            found = f"another set of images in {out} ({other})"
            expected = "a folder of its own for each set of scenes"
            raise UserError(found, expected, "choose another --out, or give these flags")
        print(f"{out}: all images are there", file=sys.stderr)
        return True
    if (out / "images").exists():
        what = "the settings of a stopped run"
        before = files.read_json(out / "settings.json", what, "remove the folder")
        other = different(with_later(before), with_later(facts))
        if other:
            found = f"a stopped run with other settings in {out} ({other})"
            raise UserError(found, "the same flags", "choose another --out or remove it")
    return False
