"""Bring captioned photographs into one folder, and compute their image features once.

Reads   captions in any of six layouts, told apart by looking, and the images (--images):
        COCO's captions_*.json; Karpathy's dataset_*.json; a table (CSV, TSV, semicolons, pipes) or
        JSON lines with the columns image and caption; a folder of images with .txt files of the
        same names, or with metadata.csv; the name of a data set on the hub, whose images are saved
        below --out; or a folder that holds one of these files
Writes  data_captions_photos/ (--out): captions.jsonl, tokenizer.json, features.npy, meta.json;
        skipped.txt if images were bad

Flickr8k, with the lists of its splits next to the captions:
    python prep_caption_photos.py --captions flickr8k
COCO with the usual splits:
    python prep_caption_photos.py --captions dataset_coco.json --images coco \\
        --encoder openai/clip-vit-base-patch32
From the hub:
    python prep_caption_photos.py --captions nlphuji/flickr30k --out data_captions_flickr30k

Images stay where they are. Missing and unreadable images are listed and left out. Without a split
for validation, images of train are held out, seeded. Expect 25 photographs per second and core with
a ViT-Tiny at 224 pixels.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from base import config, files, flags
from base.files import UserError
from base.flags import setting
from base.tokenizer import Tokenizer
from caption import data, features, identity, lengths, photos, splits
from caption.features import Work
from loop import checkpoint
from net import image_encoders

# What ends so is meant as a file, even if it is not there.
FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".token")


def list_setting(split: str):
    """The flag that names the list of a split."""
    words = f"text file with an image's name per line; none: {splits.LISTS[split]} by the captions"
    return setting(None, words)


@dataclass
class Collection:
    """The captions and images. They decide captions.jsonl, and are kept in meta.json."""

    captions: str | None = setting(
        None, "needed: file of captions, folder with such a file or .txt files, or hub data set"
    )
    images: str | None = setting(
        None, "folder of the images; none: images/ or Images/ next to the captions, or their folder"
    )
    train_list: str | None = list_setting("train")
    val_list: str | None = list_setting("val")
    test_list: str | None = list_setting("test")
    num_val: int = setting(
        0, "images held out if there is no val; 0: a twentieth, at most 1000", at_least=0
    )
    max_images: int = setting(
        0, "take only this many images, drawn at random; 0 means all", at_least=0
    )
    vocab_size: int = setting(4096, "most tokens of the captions' BPE")
    tokenizer: str | None = setting(
        None, "use this tokenizer.json instead, or that of a checkpoint, such as a text denoiser's"
    )
    views: int = setting(
        1,
        "records of each training image: itself, then crops, every second crop mirrored",
        at_least=1,
    )
    seed: int = setting(0, "decides which images are held out or taken, and the crops")

    def __post_init__(self):
        flags.check(self)
        if not self.captions:
            raise UserError("no --captions", photos.LAYOUTS, "name it with --captions")

    @property
    def lists(self) -> dict[str, str | None]:
        """{split: the list of its images, or None}."""
        return {"train": self.train_list, "val": self.val_list, "test": self.test_list}


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Collection)
    parser.add_settings(Work, out="data_captions_photos", encoder="openai/clip-vit-base-patch32")
    return parser.parse_args(argv)


def find_captions(wanted: Collection, out: Path) -> tuple[str, Path, Path]:
    """The file or hub name of the captions, its path, and the folder of the images.

    Raises UserError if the captions or the images are not there.
    """
    name = wanted.captions.removeprefix("hub:")
    path = photos.find_file(Path(name))
    # "flickr/captions" may be a folder or a hub name; a path that exists comes first.
    looks_like_hub = re.fullmatch(r"[\w-]+/[\w.-]+", name)
    is_named = name != wanted.captions
    if is_named and (path.exists() or not looks_like_hub):
        found = f"--captions {wanted.captions}"
        found += f", and a folder or file {path} here" if path.exists() else ""
        raise UserError(found, "hub:OWNER/NAME", "correct the name, or change the working folder")
    is_file_name = path.suffix.lower() in FILE_SUFFIXES and not is_named
    if not path.exists() and looks_like_hub and not is_file_name:
        return name, path, out / "images"
    files.existing(path, photos.LAYOUTS, "check --captions")
    folder = wanted.images or photos.images_beside(path)
    folder = files.existing(folder, "the folder of images", "check --images")
    return str(path), path, folder


def facts_of(wanted: Collection, name: str, path: Path, folder: Path, tokenizer) -> dict:
    """What meta.json says of the collection. Folders from before there were views have no views."""
    facts = {
        "captions": str(path.resolve()) if path.exists() else name,
        "images": str(folder.resolve()),
        "seed": wanted.seed,
        "captions_sha256": identity.of_captions(path, folder),
        "lists_sha256": identity.of_lists(wanted.lists, path),
    }
    for flag in ("vocab_size", "max_images", "num_val", "train_list", "val_list", "test_list"):
        facts[flag] = getattr(wanted, flag)
    facts["given_tokenizer"] = tokenizer.fingerprint if tokenizer else None
    # None, as in folders from before there were views: they stay valid.
    facts["views"] = wanted.views if wanted.views > 1 else None
    return facts


def make_records(wanted: Collection, work: Work, name: str, path: Path, folder: Path) -> list[dict]:
    """The lines of captions.jsonl, without further views.

    Raises UserError if train or val is empty.
    """
    out = Path(work.out)
    found = photos.read(name, folder, wanted.max_images)
    split_of = splits.choose(
        found,
        path,
        wanted.lists,
        num_val=wanted.num_val,
        max_images=wanted.max_images,
        seed=wanted.seed,
    )
    # Bad images leave their split: val keeps its other images.
    names = splits.usable(folder, list(split_of), out, work.workers)
    present = {split_of[name] for name in names}
    # Without val, no checkpoint could be chosen as best.pt.
    if not {"train", "val"} <= present:
        raise UserError(
            f"images of {' '.join(sorted(present))} only",
            "some of train and some of val",
            "name --train_list and --val_list, or choose other sizes",
        )
    records = []
    for name in names:
        image = (folder / name).resolve()
        if image.is_relative_to(out.resolve()):  # such a folder can be moved as a whole
            image = image.relative_to(out.resolve())
        _, captions = found[name]
        records.append({"image": image.as_posix(), "split": split_of[name], "captions": captions})
    return records


def captions_are_there(out: Path, facts: dict) -> bool:
    """Whether the captions are finished. Raises UserError if they are of another collection."""
    if not (out / "meta.json").exists():
        return False
    if not identity.agree(data.read_meta(out), facts):
        found = f"another data set in {out}, or captions or lists that were changed since"
        raise UserError(found, "the same captions", "choose another --out or remove it")
    print(f"{out}: all captions are there", file=sys.stderr)
    return True


def read_tokenizer(path: str | None) -> Tokenizer | None:
    """The tokenizer that --tokenizer names. Raises UserError if there is no such file."""
    return None if path is None else checkpoint.read_tokenizer(path)


def main(argv=None):
    arguments = parse_args(argv)
    wanted = flags.resolve(Collection, arguments)
    work = flags.resolve(Work, arguments)
    out = Path(work.out)
    name, path, folder = find_captions(wanted, out)
    if work.encoder == image_encoders.EMBEDDED:
        message = "note: the embedded encoder has seen drawn scenes only; for photographs "
        print(message + "openai/clip-vit-base-patch32 is better", file=sys.stderr)
    encoder = features.encoder_for(work)  # a missing encoder is found before the long work
    tokenizer = read_tokenizer(wanted.tokenizer)
    shard = config.read_shard(work.shard)
    features.claim(out, shard)
    facts = facts_of(wanted, name, path, folder, tokenizer)
    if not captions_are_there(out, facts):
        records = make_records(wanted, work, name, path, folder)
        # A given tokenizer lets a captioner start from a text denoiser.
        if tokenizer is None:
            tokenizer = Tokenizer.train(data.texts_of(records, "train"), wanted.vocab_size)
        lengths.name_long(records, tokenizer)
        # After the tokenizer: views repeat captions and would change its counts.
        records = photos.with_views(records, wanted.views, wanted.seed)
        data.write_folder(out, records, tokenizer, facts)
    if encoder is not None:
        features.cache_features(encoder, out, shard=shard, workers=work.workers)
    records = data.read_records(out)
    sizes = "  ".join(f"{name} {size:,}" for name, size in data.read_meta(out)["splits"].items())
    captions = sum(len(record["captions"]) for record in records) / len(records)
    print(f"{out}: {sizes}  captions per image {captions:.1f}")
    print("next: " + files.python("train_captioning.py", "--data_dir", out))


if __name__ == "__main__":
    files.run(main)
