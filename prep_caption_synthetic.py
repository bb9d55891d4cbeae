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

from functools import partial
from pathlib import Path

from base import config, files, flags
from base.tokenizer import Tokenizer
from caption import data, features, scene_folder
from caption.features import Work
from net import image_encoders
from worlds.collection import Scenes, sample


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Scenes)
    parser.add_settings(Work, out="data_captions_synthetic", encoder=image_encoders.EMBEDDED)
    return parser.parse_args(argv)


def make_record(folder: Path, wanted: Scenes, split: str, number: int) -> dict:
    """Draw image `number` of a split, write it, and return its line of captions.jsonl."""
    scene, texts = sample(split, number, wanted)
    return scene_folder.make_record(folder, split, number, scene, texts)


def main(argv=None):
    arguments = parse_args(argv)
    wanted = flags.resolve(Scenes, arguments)
    work = flags.resolve(Work, arguments)
    encoder = features.encoder_for(work)
    shard = config.read_shard(work.shard)
    out = features.claim(Path(work.out), shard)
    facts = wanted.facts()
    if not scene_folder.captions_are_there(out, facts):
        # First of all: a stopped run is continued with the same settings only.
        files.write_json(out / "settings.json", facts)
        draw = partial(make_record, out, wanted)
        records = scene_folder.draw_all(draw, wanted.sizes(), out, work.workers)
        texts = data.texts_of(records, "train")
        data.write_folder(out, records, Tokenizer.train(texts, wanted.vocab_size), facts)
    if encoder is not None:
        features.cache_features(encoder, out, shard=shard, workers=work.workers)
    sizes = data.read_meta(out)["splits"]
    print(f"{out}: " + "  ".join(f"{name} {size:,}" for name, size in sizes.items()))
    print("next: " + files.python("train_captioning.py", "--data_dir", out))


if __name__ == "__main__":
    files.run(main)
