"""Draw captioned scenes of coloured shapes, and compute their image features once.

Reads   nothing; --encoder names a frozen image encoder (default: the small one in assets/)
Writes  data_captions_synthetic/ (--out): images/, captions.jsonl, tokenizer.json, features.npy,
        meta.json

Under a minute on a laptop:
    python prep_caption_synthetic.py --num_train 1000 --num_val 100 --levels 1
The scenes of the demo:
    python prep_caption_synthetic.py --num_train 5000 --num_val 200 --levels 1,2
All levels, with CLIP's features:
    python prep_caption_synthetic.py --num_train 100000 --num_val 5000 \\
        --encoder openai/clip-vit-base-patch32

Splits: train and val are alike. held_pair, held_relation and held_count never appear in training.
long has more objects, noise3 has more noise. swap holds pairs of images whose captions use the same
words in another order.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from base import config, files, flags
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data, features
from caption.features import Work
from loop import progress
from net import image_encoders
from worlds import drawing
from worlds.collection import Scenes, sample


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Scenes)
    parser.add_settings(Work, out="data_captions_synthetic", encoder=image_encoders.EMBEDDED)
    return parser.parse_args(argv)


def make_record(folder: Path, wanted: Scenes, split: str, number: int) -> dict:
    """Draw image `number` of a split, write it, and return its line of captions.jsonl."""
    scene, texts = sample(split, number, wanted)
    name = f"images/{split}/{number:06d}.png"
    path = folder / name
    if not path.exists():  # a killed run continues where it was
        # Renaming is atomic: an image that exists is whole.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        # The lowest compression: drawing should not wait for zlib.
        drawing.draw(scene).save(temporary, "PNG", compress_level=1)
        os.replace(temporary, path)
    return {"image": name, "split": split, "captions": texts, "scene": scene.to_dict()}


def draw_all(wanted: Scenes, out: Path, workers: int) -> list[dict]:
    """Draw every image of every split on all cores; return the lines of captions.jsonl in order."""
    splits, numbers = [], []
    for split, size in wanted.sizes().items():
        files.writable_folder(out / "images" / split)
        splits += [split] * size
        numbers += range(size)
    draw = partial(make_record, out, wanted)
    with ProcessPoolExecutor(workers or None) as pool:
        drawn = pool.map(draw, splits, numbers, chunksize=32)
        return list(progress.bar(drawn, "drawing", unit="image", total=len(splits)))


def captions_are_there(out: Path, facts: dict) -> bool:
    """Whether the captions are finished. Raises UserError if they are of other scenes."""
    if (out / "meta.json").exists():
        before = data.read_meta(out)
        if {key: before.get(key) for key in facts} != facts:
            expected = "a folder of its own for each set of scenes"
            raise UserError(f"another set of images in {out}", expected, "choose another --out")
        print(f"{out}: all images are there", file=sys.stderr)
        return True
    if (out / "images").exists():
        what = "the settings of a stopped run"
        before = files.read_json(out / "settings.json", what, "remove the folder")
        if before != facts:
            found = f"a stopped run with other settings in {out}"
            raise UserError(found, "the same flags", "choose another --out or remove it")
    return False


def main(argv=None):
    arguments = parse_args(argv)
    wanted = flags.resolve(Scenes, arguments)
    work = flags.resolve(Work, arguments)
    encoder = features.encoder_for(work)
    shard = config.read_shard(work.shard)
    out = features.claim(Path(work.out), shard)
    facts = wanted.facts()
    if not captions_are_there(out, facts):
        # First of all: a stopped run is continued with the same settings only.
        files.write_json(out / "settings.json", facts)
        records = draw_all(wanted, out, work.workers)
        texts = data.texts_of(records, "train")
        data.write_folder(out, records, Tokenizer.train(texts, wanted.vocab_size), facts)
    if encoder is not None:
        features.cache_features(encoder, out, shard=shard, workers=work.workers)
    sizes = data.read_meta(out)["splits"]
    print(f"{out}: " + "  ".join(f"{name} {size:,}" for name, size in sizes.items()))
    print("next: " + files.python("train_captioning.py", "--data_dir", out))


if __name__ == "__main__":
    files.run(main)
