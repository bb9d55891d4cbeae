"""Bring captioned photographs into one folder, and compute their image features once.

Reads   captions in any of five layouts, told apart by looking, and the photographs (--images):
        COCO captions_*.json; Karpathy's dataset_*.json; a CSV or TSV of image,caption; a folder of pictures with same-named .txt;
        the name of a data set on the hub, whose pictures are saved under --out; or a folder that holds one of these files
Writes  data_captions_photos/ (--out): captions.jsonl, tokenizer.json, features.npy, meta.json; skipped.txt if pictures were bad

Flickr8k, the split lists lying beside the captions:
    python prep_caption_photos.py --captions flickr8k
COCO as everybody splits it:
    python prep_caption_photos.py --captions dataset_coco.json --images coco --encoder openai/clip-vit-base-patch32
From the hub:
    python prep_caption_photos.py --captions nlphuji/flickr30k --out data_captions_flickr30k

Pictures stay where they are. Missing and unreadable ones are listed and left out. Without a split for validation, pictures
of train are held out, seeded. About 25 photographs a second and core with a ViT-Tiny of 224 pixels.
"""

import functools
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from base import config, files, flags, images
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data, features, photos
from loop import hardware
from net import image_encoders

LISTS = {
    "train": "*train*mages.txt",
    "val": "*dev*mages.txt",
    "test": "*test*mages.txt",
}  # as Flickr8k names them


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--captions",
        help="needed: file of captions, folder with one or with .txt beside pictures, or hub data set",
    )
    parser.add_argument(
        "--images",
        help="folder of the pictures (default: images/ or Images/ beside the captions, else their folder)",
    )
    parser.add_argument(
        "--out", default="data_captions_photos", help="folder to write (default %(default)s)"
    )
    parser.add_argument(
        "--encoder",
        default="openai/clip-vit-base-patch32",
        help="hub name or local folder, or `none` (default %(default)s)",
    )
    for split, pattern in LISTS.items():
        parser.add_argument(
            f"--{split}_list",
            help=f"text file with a picture's name a line (default: {pattern} beside the captions)",
        )
    parser.add_argument(
        "--num_val",
        type=int,
        default=0,
        help="pictures held out if there is no val (default: a twentieth, at most 1000)",
    )
    parser.add_argument(
        "--max_images",
        type=int,
        default=0,
        help="take only so many pictures, drawn at random; 0 means all (default 0)",
    )
    parser.add_argument(
        "--vocab_size",
        type=int,
        default=4096,
        help="most tokens of the captions' BPE (default 4096)",
    )
    parser.add_argument(
        "--tokenizer", help="use this tokenizer.json instead, such as a text denoiser's"
    )
    parser.add_argument(
        "--views",
        type=int,
        default=1,
        help="looks at each training picture: itself, then crops, every other mirrored (default 1)",
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
        "--workers",
        type=int,
        default=0,
        help="processes that read pictures; 0 means one a core (default 0)",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def choose_splits(args, path: Path, found: photos.Found) -> dict[str, str]:
    """{picture: split}: the data set's own, else the lists', else all train; val is drawn from train if there is none."""
    splits = {name: split for name, (split, _) in found.items() if split}
    beside = (
        []
        if splits or not path.exists()
        else sorted((path if path.is_dir() else path.parent).iterdir())
    )
    for split, pattern in LISTS.items():
        given = getattr(args, f"{split}_list")
        lists = (
            [files.existing(given, "a list of pictures", f"check --{split}_list")]
            if given
            else [one for one in beside if one.match(pattern)]
        )
        for file in lists:
            names = {
                line.strip()
                for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
            } & set(found)
            if not names:
                raise UserError(
                    f"no picture of {path} in {file}",
                    "a name a line, as the captions name them",
                    f"name another --{split}_list",
                )
            splits |= dict.fromkeys(names, split)
    rng, splits = np.random.default_rng(args.seed), splits or dict.fromkeys(found, "train")
    if "val" not in splits.values():
        names = sorted(name for name, split in splits.items() if split == "train")
        held = args.num_val or min(1000, max(1, len(names) // 20))
        if held >= len(names):
            raise UserError(
                f"--num_val {held} of {len(names)} pictures", "fewer than there are", "lower it"
            )
        splits |= {names[i]: "val" for i in rng.permutation(len(names))[:held]}
    if len(splits) < len(found):
        print(
            f"{len(found) - len(splits):,} pictures are in no split and left out", file=sys.stderr
        )
    chosen = sorted(splits)
    if args.max_images and args.max_images < len(chosen):
        chosen = sorted(rng.choice(chosen, args.max_images, replace=False).tolist())
    return {name: splits[name] for name in chosen}


def problem(folder: Path, name: str) -> str | None:
    """Why a picture cannot be used, or None."""
    try:
        images.open_image(folder / name, at_least=224)
    except (UserError, OSError) as error:
        return str(error if isinstance(error, UserError) else files.os_error(error, folder / name))
    return None


def usable(args, folder: Path, names: list[str], out: Path) -> list[str]:
    """The pictures that can be read. The others are named on the screen and in skipped.txt."""
    with ProcessPoolExecutor(args.workers or None) as pool:
        problems = list(
            tqdm(
                pool.map(functools.partial(problem, folder), names, chunksize=16),
                total=len(names),
                desc="reading",
                unit="image",
            )
        )
    bad = [text for text in problems if text]
    if len(bad) == len(names):
        raise UserError(
            f"none of {len(names):,} pictures in {folder} (first: {bad[0]})",
            "the pictures that the captions name",
            "check --images",
        )
    if bad:
        files.write_text(out / "skipped.txt", "\n".join(bad) + "\n")
        print(
            f"{len(bad):,} of {len(names):,} pictures are left out, all named in {out / 'skipped.txt'}; the first:",
            *bad[:10],
            sep="\n",
            file=sys.stderr,
        )
    return [name for name, text in zip(names, problems, strict=True) if not text]


def main(argv=None):
    args = parse_args(argv)
    if min(args.num_val, args.max_images, args.workers) < 0:
        raise UserError(
            "a negative --num_val, --max_images or --workers", "0 or more", "correct it"
        )
    if args.views < 1:
        raise UserError(
            f"--views {args.views}", "at least 1: the picture itself", "choose such a number"
        )
    if not args.captions:
        raise UserError("no --captions", photos.LAYOUTS, "name it with --captions")
    path, out = photos.find_file(Path(args.captions)), Path(args.out)
    hub = (
        not path.exists()
        and re.fullmatch(r"[\w-]+/[\w.-]+", args.captions)
        and path.suffix not in (".json", ".csv", ".tsv", ".txt", ".token")
    )
    beside = path if path.is_dir() else path.parent
    if hub:
        folder = out / "images"
    else:
        files.existing(path, photos.LAYOUTS, "check --captions")
        usual = [
            beside / name
            for name in ("images", "Images")
            if (beside / name).is_dir() and not path.is_dir()
        ]
        folder = files.existing(
            args.images or [*usual, beside][0], "the folder of pictures", "check --images"
        )
    if args.encoder == image_encoders.EMBEDDED:
        print(
            "note: the embedded encoder has seen drawn scenes only; for photographs openai/clip-vit-base-patch32 is better",
            file=sys.stderr,
        )
    encoder = (
        None
        if args.encoder == "none"
        else image_encoders.load(args.encoder, hardware.choose_device(args.device))
    )
    tokenizer = None
    if args.tokenizer:
        file = files.existing(args.tokenizer, "a tokenizer.json", "check --tokenizer")
        tokenizer = Tokenizer.from_json(file.read_text(encoding="utf-8", errors="replace"))
    shard = config.read_shard(args.shard)
    features.claim(out, shard)
    settings = {
        "captions": args.captions if hub else str(path.resolve()),
        "images": str(folder.resolve()),
        "seed": args.seed,
        "captions_sha256": files.file_digest(path).hex()[:16] if path.is_file() else None,
        "vocab_size": args.vocab_size,
        "max_images": args.max_images,
        "num_val": args.num_val,
        "train_list": args.train_list,
        "val_list": args.val_list,
        "test_list": args.test_list,
        "given_tokenizer": tokenizer.fingerprint if tokenizer else None,
        "views": args.views if args.views > 1 else None,
    }
    if (out / "meta.json").exists():
        before = data.read_meta(out)
        if {key: before.get(key) for key in settings} != settings:
            raise UserError(
                f"another data set in {out}",
                "a folder of its own for each",
                "choose another --out or remove it",
            )
        print(f"{out}: all captions are there", file=sys.stderr)
    else:
        found = photos.read(args.captions if hub else str(path), folder, args.max_images)
        splits = choose_splits(args, path, found)
        names = usable(args, folder, list(splits), out)
        if not {"train", "val"} <= {splits[name] for name in names}:
            raise UserError(
                f"pictures of {' '.join(sorted({splits[name] for name in names}))} only",
                "some of train and some of val",
                "name --train_list and --val_list, or choose other sizes",
            )
        home = out.resolve()
        inside = lambda place: str(place.relative_to(home) if place.is_relative_to(home) else place)
        records = [
            {
                "image": inside((folder / name).resolve()),
                "split": splits[name],
                "captions": found[name][1],
            }
            for name in names
        ]
        texts = [
            text for record in records if record["split"] == "train" for text in record["captions"]
        ]
        tokenizer = tokenizer or Tokenizer.train(texts, args.vocab_size)
        rng = np.random.default_rng([args.seed, 1])
        records = [
            look
            for record in records
            for look in photos.views(record, args.views if record["split"] == "train" else 1, rng)
        ]
        data.write_folder(out, records, tokenizer, settings)
    if encoder is not None:
        features.cache_features(encoder, out, shard=shard, workers=args.workers)
    records = data.read_records(out)
    print(
        f"{out}: "
        + "  ".join(f"{name} {size:,}" for name, size in data.read_meta(out)["splits"].items())
        + f"  captions a picture {sum(len(record['captions']) for record in records) / len(records):.1f}"
    )
    print(f"next: python train_captioning.py --data_dir {out}")


if __name__ == "__main__":
    files.run(main)
