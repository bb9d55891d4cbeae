"""Draw captioned scenes of coloured shapes, and compute their image features once.

Reads   nothing; --encoder names a frozen image encoder (default: the small one in assets/)
Writes  data_captions_synthetic/ (--out): images/, captions.jsonl, tokenizer.json, features.npy, meta.json

Under a minute on a laptop:
    python prep_caption_synthetic.py --num_train 1000 --num_val 100 --levels 1
What the demo makes:
    python prep_caption_synthetic.py --num_train 5000 --num_val 200 --levels 1,2
All levels, with CLIP's features:
    python prep_caption_synthetic.py --num_train 100000 --num_val 5000 --encoder openai/clip-vit-base-patch32

Splits: train and val alike; held_pair, held_relation, held_count never seen in training; long has more objects;
noise3 is noisier; swap holds pairs of pictures whose captions use the same words in another order.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from base import config, files, flags
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data, features
from loop import hardware
from net import image_encoders
from worlds import language, scenes

HELD = ("held_pair", "held_relation", "held_count", "long", "noise3", "swap")


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--out", default="data_captions_synthetic", help="folder to write (default %(default)s)"
    )
    parser.add_argument(
        "--num_train", type=int, default=5000, help="pictures to train on (default 5000)"
    )
    parser.add_argument(
        "--num_val",
        type=int,
        default=500,
        help="pictures in val and in each test split (default 500)",
    )
    parser.add_argument(
        "--levels",
        default="1,2,3",
        help="1: one object, 2: two with a relation, 3: three (default %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=int,
        default=2,
        choices=range(4),
        help="training pictures have noise 0 to this (default 2)",
    )
    parser.add_argument(
        "--inside",
        type=float,
        default=scenes.INSIDE,
        help="share of the draws of two objects that put one into the other (default %(default)s: an eighth of the pictures)",
    )
    parser.add_argument(
        "--captions", type=int, default=5, help="true captions a picture (default 5)"
    )
    parser.add_argument(
        "--vocab_size", type=int, default=512, help="most tokens of the captions' BPE (default 512)"
    )
    parser.add_argument(
        "--encoder",
        default=image_encoders.EMBEDDED,
        help="frozen encoder, or `none` to leave features out (default %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="what computes the features: auto, cpu, cuda, mps (default auto)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="compute only this part of the features, such as 0/8; needs the captions to be there",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that draw; 0 means one a core (default 0)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides every scene, pixel and word (default 0)"
    )
    return parser.parse_args(argv)


def make_record(
    folder: str,
    split: str,
    number: int,
    levels: tuple[int, ...],
    noise: int,
    inside: float,
    num_captions: int,
    seed: int,
) -> dict:
    """Draw picture `number` of a split, write it, return its line of captions.jsonl: a pure function of the arguments."""
    scene_number = number // 2 if split == "swap" else number
    rng = np.random.default_rng([seed, [*HELD, "train", "val"].index(split), scene_number])
    level = {"held_relation": 2, "swap": 2, "held_count": 3, "long": 3}.get(
        split, levels[scene_number % len(levels)]
    )
    settings = {
        "noise": 3 if split == "noise3" else int(rng.integers(noise + 1)),
        "number": int(rng.integers(4, 6)) if split == "long" else 3,
        "inside": inside,
    }
    if split in ("held_pair", "held_relation", "held_count"):
        settings[split.split("_")[1] + "s"] = "held"
    scene = scenes.sample_scene(rng, level, **settings)
    while split == "swap" and any(
        scenes.held_pair(one.colour, one.shape) for one in scenes.swapped(scene).objects
    ):
        scene = scenes.sample_scene(rng, level, **settings)
    if split == "swap":
        texts, scene = (
            language.swap_captions(scene, number % 2, rng),
            scenes.swapped(scene) if number % 2 else scene,
        )
    else:
        texts = language.several(scene, rng, num_captions)
    name = f"images/{split}/{number:06d}.png"
    path = Path(folder) / name
    if not path.exists():  # a killed run goes on where it was
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        scenes.draw(scene).save(temporary, "PNG", compress_level=1)
        os.replace(temporary, path)
    return {"image": name, "split": split, "captions": texts, "scene": scene.to_dict()}


def draw_all(args, levels: tuple[int, ...], out: Path) -> list[dict]:
    """Every picture of every split, drawn by all cores, in order."""
    sizes = {"train": args.num_train, "val": args.num_val} | {name: args.num_val for name in HELD}
    for name, level in (("held_relation", 2), ("swap", 2), ("held_count", 3), ("long", 3)):
        if level not in levels:
            del sizes[name]
    jobs = [
        (str(out), split, number, levels, args.noise, args.inside, args.captions, args.seed)
        for split, size in sizes.items()
        for number in range(size)
    ]
    for split in sizes:
        files.writable_folder(out / "images" / split)
    with ProcessPoolExecutor(args.workers or os.cpu_count()) as pool:
        return list(
            tqdm(
                pool.map(make_record, *zip(*jobs, strict=True), chunksize=32),
                total=len(jobs),
                desc="drawing",
                unit="image",
            )
        )


def main(argv=None):
    args = parse_args(argv)
    for flag, least in (("num_train", 10), ("num_val", 2), ("captions", 1), ("workers", 0)):
        if getattr(args, flag) < least:
            raise UserError(
                f"--{flag} {getattr(args, flag)}", f"at least {least}", "choose such a number"
            )
    if not 0 <= args.inside < 1:
        raise UserError(
            f"--inside {args.inside:g}", "a share from 0 to below 1", "choose such a number"
        )
    if set(args.levels.split(",")) - {"1", "2", "3"}:
        raise UserError(
            f"--levels {args.levels}",
            "some of 1,2,3 with commas between them",
            "for example --levels 1,2",
        )
    levels = tuple(sorted({int(word) for word in args.levels.split(",")}))
    encoder = (
        None
        if args.encoder == "none"
        else image_encoders.load(args.encoder, hardware.choose_device(args.device))
    )
    shard = config.read_shard(args.shard)
    out = features.claim(Path(args.out), shard)
    kept = ("noise", "inside", "captions", "seed", "vocab_size", "num_train", "num_val")
    settings = {"levels": list(levels), **{name: getattr(args, name) for name in kept}}
    if (out / "meta.json").exists():
        before = data.read_meta(out)
        if {key: before.get(key) for key in settings} != settings:
            raise UserError(
                f"another set of pictures in {out}",
                "a folder of its own for each",
                "choose another --out or remove it",
            )
        print(f"{out}: all pictures are there", file=sys.stderr)
    else:
        if (out / "images").exists() and files.read_json(
            out / "settings.json", "the settings of a stopped run", "remove the folder"
        ) != settings:
            raise UserError(
                f"a stopped run with other settings in {out}",
                "the same flags",
                "choose another --out or remove it",
            )
        files.write_json(out / "settings.json", settings)
        records = draw_all(args, levels, out)
        texts = [
            text for record in records if record["split"] == "train" for text in record["captions"]
        ]
        data.write_folder(out, records, Tokenizer.train(texts, args.vocab_size), settings)
    if encoder is not None:
        features.cache_features(encoder, out, shard=shard, workers=args.workers)
    meta = data.read_meta(out)
    print(f"{out}: " + "  ".join(f"{name} {size:,}" for name, size in meta["splits"].items()))
    print(f"next: python train_captioning.py --data_dir {out}")


if __name__ == "__main__":
    files.run(main)
