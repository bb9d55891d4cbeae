"""Draw captioned clips of moving shapes, and compute the features of their frames once.

Reads   nothing; --encoder names a frozen image encoder (default: the small one in assets/)
Writes  data_captions_video/ (--out): captions.jsonl, tokenizer.json, features.npy, meta.json, and
        clips/: the first clips of each split (--keep), each as a folder of eight frames

A small set on a laptop:
    python prep_caption_video.py --num_train 500 --num_val 50
For real:
    python prep_caption_video.py --num_train 10000 --num_val 500
With CLIP's features:
    python prep_caption_video.py --num_train 10000 --encoder openai/clip-vit-base-patch32

A clip is a program of one or two events: a move, an appearance, a growth, a pass over a shape.
Splits: train and val are alike. held_verb and held_order never appear in training. held_count has
three events. swap_order and swap_time hold pairs of clips: in two orders, and in two directions.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from base import files, flags
from base.files import UserError
from base.flags import setting
from base.tokenizer import Tokenizer
from caption import data, features, pixels
from caption.features import Work
from loop import progress
from net import image_encoders
from worlds import motion, motion_language, motion_sampling
from worlds.motion_sampling import HELD, SPLITS


@dataclass
class Clips:
    """The clips. They decide every frame and caption, and are kept in meta.json."""

    num_train: int = setting(5000, "training clips", at_least=10)
    num_val: int = setting(500, "clips in val and in each test split", at_least=2)
    noise: int = setting(2, "clips have noise 0 to this", at_least=0, at_most=3)
    captions: int = setting(5, "true captions per clip", at_least=1)
    vocab_size: int = setting(512, "most tokens of the captions' BPE")
    seed: int = setting(0, "decides every clip, pixel and word", at_least=0)

    def __post_init__(self):
        flags.check(self)

    def facts(self) -> dict:
        """What meta.json says of the clips."""
        return flags.to_dict(self) | {"frames": motion.FRAMES}

    def sizes(self) -> dict[str, int]:
        """{split: number of clips}."""
        return {"train": self.num_train, **dict.fromkeys(("val", *HELD), self.num_val)}


@dataclass
class Kept:
    """What is kept for people to look at."""

    keep: int = setting(8, "clips of each split whose frames are kept as images", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Clips)
    parser.add_settings(Kept)
    # The features of a clip are computed by a single process.
    parser.add_settings(
        Work, skip=("shard",), out="data_captions_video", encoder=image_encoders.EMBEDDED
    )
    return parser.parse_args(argv)


def make_record(wanted: Clips, split: str, number: int) -> dict:
    """The line of captions.jsonl of clip `number` of a split: a pure function of the arguments."""
    program = motion_sampling.sample(wanted.seed, split, number, wanted.noise)
    is_pair = split.startswith("swap")
    # A generator of its own: the captions do not depend on how the program was found.
    index = number // 2 if is_pair else number
    rng = np.random.default_rng([wanted.seed, len(SPLITS), SPLITS.index(split), index])
    if is_pair:
        texts = motion_language.swap_captions(program, rng)
    else:
        texts = motion_language.several(program, rng, wanted.captions)
    name = f"clips/{split}/{number:06d}"
    return {"image": name, "split": split, "captions": texts, "program": program.to_dict()}


def make_records(wanted: Clips, workers: int) -> list[dict]:
    """The lines of captions.jsonl of all splits, in order, made on all cores."""
    splits: list[str] = []
    numbers: list[int] = []
    for split, size in wanted.sizes().items():
        splits += [split] * size
        numbers += range(size)
    with ProcessPoolExecutor(workers or None) as pool:
        made = pool.map(partial(make_record, wanted), splits, numbers, chunksize=32)
        return list(progress.bar(made, "programs", unit="clip", total=len(splits)))


def keep_frames(out: Path, records: list[dict], keep: int) -> None:
    """Write the frames of the first `keep` clips of each split, where they are not there."""
    for record in records:
        folder = data.image_path(out, record)
        if int(folder.name) >= keep or folder.exists():
            continue
        temporary = files.writable_folder(folder.with_name(f".{folder.name}.{os.getpid()}"))
        for number, frame in enumerate(pixels.frames_of(record)):
            frame.save(temporary / f"{number}.png")
        # Renaming is atomic: a folder that exists is whole.
        os.replace(temporary, folder)


def captions_are_there(out: Path, facts: dict) -> bool:
    """Whether the captions are finished. Raises UserError if they are of other clips."""
    if not (out / "meta.json").exists():
        return False
    before = data.read_meta(out)
    if {key: before.get(key) for key in facts} != facts:
        expected = "a folder of its own for each set of clips"
        raise UserError(f"another set of captions in {out}", expected, "choose another --out")
    print(f"{out}: all captions are there", file=sys.stderr)
    return True


def main(argv=None):
    arguments = parse_args(argv)
    wanted = flags.resolve(Clips, arguments)
    kept = flags.resolve(Kept, arguments)
    work = flags.resolve(Work, arguments)
    encoder = features.encoder_for(work, motion.FRAMES)
    out = files.claim(Path(work.out))
    facts = wanted.facts()
    if not captions_are_there(out, facts):
        records = make_records(wanted, work.workers)
        texts = data.texts_of(records, "train")
        data.write_folder(out, records, Tokenizer.train(texts, wanted.vocab_size), facts)
    keep_frames(out, data.read_records(out), kept.keep)
    if encoder is not None:
        features.cache_features(encoder, out, workers=work.workers)
    sizes = data.read_meta(out)["splits"]
    print(f"{out}: " + "  ".join(f"{name} {size:,}" for name, size in sizes.items()))
    print("next: " + files.python("train_captioning.py", "--data_dir", out))


if __name__ == "__main__":
    files.run(main)
