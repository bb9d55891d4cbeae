"""What the scripts share that draw scenes into a captions folder: images once, all or none.

A killed run continues where it was: an image that exists is whole and is not drawn again. A folder
of other scenes is refused.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from base import config, files
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data, features
from caption.features import Work
from loop import progress
from worlds import drawing
from worlds.scenes import Scene


class Wanted(Protocol):
    """The settings of scenes. They decide every image and word."""

    vocab_size: int

    def facts(self) -> dict: ...

    def sizes(self) -> dict[str, int]: ...


Settings = TypeVar("Settings", bound=Wanted)


def make(
    wanted: Settings,
    work: Work,
    make_record: Callable[[Path, Settings, str, int], dict],
    texts_of: Callable[[list[dict]], list[str]],
    script: str,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Draw a captions folder of scenes, compute its features, and say what comes next.

    make_record(folder, wanted, split, number): draws an image and returns its line; other processes
    get it by pickle. texts_of(lines): what the tokenizer learns from. script: trains on the folder.
    tokenizer: use this tokenizer; None: train one on the texts.
    Raises UserError for a folder of other scenes, or features that cannot be computed.
    """
    encoder = features.encoder_for(work)
    shard = config.read_shard(work.shard)
    out = features.claim(Path(work.out), shard)
    facts = wanted.facts()
    if tokenizer is not None:  # the facts of other folders stay as they were
        facts["given_tokenizer"] = tokenizer.fingerprint
    if not captions_are_there(out, facts):
        # First of all: a stopped run is continued with the same settings only.
        files.write_json(out / "settings.json", facts)
        draw = partial(make_record, out, wanted)
        records = draw_all(draw, wanted.sizes(), out, work.workers)
        if tokenizer is None:
            tokenizer = Tokenizer.train(texts_of(records), wanted.vocab_size)
        data.write_folder(out, records, tokenizer, facts)
    if encoder is not None:
        features.cache_features(encoder, out, shard=shard, workers=work.workers)
    sizes = data.read_meta(out)["splits"]
    print(f"{out}: " + "  ".join(f"{name} {size:,}" for name, size in sizes.items()))
    print("next: " + files.python(script, "--data_dir", out))


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
LATER = {
    "tidy": False,
    "gap": 0,
    "looks": 0,
    "lists": 0,
    "notes": False,
    "values_in_notes": False,
    "given_tokenizer": None,
}


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
            old_form = before.get("values_in_notes") != wanted.get("values_in_notes")
            do = "choose another --out" + ("" if old_form else ", or give these flags")
            raise UserError(found, expected, do)
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
