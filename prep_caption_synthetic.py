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
With the words of your photographs, for a captioner that learns them later:
    python prep_caption_synthetic.py --tokenizer data_captions_photos/tokenizer.json \\
        --encoder openai/clip-vit-base-patch32 --out data_captions_scenes

Splits: train and val are alike. held_pair, held_relation and held_count never appear in training.
long has more objects, noise3 has more noise. swap holds pairs of images whose captions use the same
words in another order.
"""

from dataclasses import dataclass
from pathlib import Path

from base import files, flags
from base.flags import setting
from caption import data, scene_folder
from caption.features import Work
from loop import checkpoint
from net import image_encoders
from worlds.collection import Scenes, sample


@dataclass
class CaptionedScenes(Scenes):
    """The scenes, and the tokens of their captions."""

    tokenizer: str | None = setting(
        None, "use this tokenizer.json instead, or that of a checkpoint", metavar="FILE"
    )


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(CaptionedScenes)
    parser.add_settings(Work, out="data_captions_synthetic", encoder=image_encoders.EMBEDDED)
    return parser.parse_args(argv)


def make_record(folder: Path, wanted: Scenes, split: str, number: int) -> dict:
    """Draw image `number` of a split, write it, and return its line of captions.jsonl."""
    scene, texts = sample(split, number, wanted)
    return scene_folder.make_record(folder, split, number, scene, texts)


def texts_of(records: list[dict]) -> list[str]:
    """What the tokenizer learns from: the captions of training."""
    return data.texts_of(records, "train")


def main(argv=None):
    arguments = parse_args(argv)
    wanted = flags.resolve(CaptionedScenes, arguments)
    work = flags.resolve(Work, arguments)
    tokenizer = checkpoint.read_tokenizer(wanted.tokenizer) if wanted.tokenizer else None
    scene_folder.make(wanted, work, make_record, texts_of, "train_captioning.py", tokenizer)


if __name__ == "__main__":
    files.run(main)
