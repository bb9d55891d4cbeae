"""A folder of scenes as picture tokens: each picture is a grid of codes, with its captions.

Only this module knows the format.

    captions.jsonl     one JSON object per line: split, captions (a list of strings), scene
    tokens.npy         uint16 (N, P), row by row of the grid; row i belongs to line i
    tokenizer.json     byte-level BPE, trained on the captions of train
    codes.safetensors  the picture codes that made the tokens; image/tokenisers.py opens them
    meta.json          format, kind "pictures", fingerprint, tokenizer, files, splits, grid, codes,
                       settings; written last, so a folder with meta.json is whole. With "plans",
                       rows hold a plan (worlds/plans.py) with room for this many objects

A folder of practice (tools/practise.py) has only the split train. Its pictures were painted, and
"practice" in meta.json says by whom: the fingerprint of the painter's folder, the checkpoint's
SHA-256, and how.

The lines of a split follow each other, so the tokens of a split are a slice of tokens.npy.

Shapes: N pictures, P = grid · grid picture tokens. Tokens are 0 to codes - 1.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from worlds import plans
from worlds.scenes import scene_from_dict

KIND = "pictures"
TOKENS, CAPTIONS, CODES = "tokens.npy", "captions.jsonl", "codes.safetensors"
MOST_OBJECTS = 5  # of a scene
WHAT = "a folder of picture tokens"
REMAKE = "run prep_image_tokens.py again"
MAKE = "run prep_image_tokens.py, or name another folder with --data_dir"


def write_folder(
    folder,
    records: list[dict],
    tokens: np.ndarray,
    codes_file,
    tokenizer: Tokenizer,
    *,
    codes: int,
    settings: dict,
) -> dict:
    """Write a folder of pictures, meta.json last. Returns the content of meta.json.

    records: the lines of captions.jsonl, split after split. tokens: (N, P) whole numbers below
    `codes`. codes_file: the picture codes that made them, copied into the folder. settings: what
    made the scenes, stored in meta.json.
    Raises UserError if the folder cannot be written; ValueError if the arguments do not fit.
    """
    folder = Path(folder)
    grid = round(tokens.shape[1] ** 0.5)
    if tokens.shape != (len(records), grid * grid) or tokens.max(initial=0) >= codes:
        raise ValueError("a square grid of tokens below `codes` for each record")
    splits: dict[str, int] = {}
    for record in records:
        splits[record["split"]] = splits.get(record["split"], 0) + 1
    if [record["split"] for record in records] != in_order(splits):
        raise ValueError("the records of a split follow each other")
    files.write_lines(folder / CAPTIONS, records)
    with files.replacing(folder / TOKENS) as file:
        np.save(file, np.ascontiguousarray(tokens, dtype=np.uint16))
    with files.replacing(folder / CODES) as target, open(codes_file, "rb") as source:
        shutil.copyfileobj(source, target)
    facts = {**settings, "splits": splits, "grid": grid, "codes": codes}
    return folders.seal(folder, KIND, tokenizer, [TOKENS, CAPTIONS, CODES], facts)


def train_tokenizer(records: list[dict], vocab_size: int, objects: int) -> Tokenizer:
    """A tokenizer of the training captions, and of plans, in which a word is a token.

    objects: that a plan has room for; 0: rows have no plans.
    Raises UserError if the vocabulary is too small for the words of plans.
    """
    lines = plans.every_word() if objects else []
    texts = lines * 2  # twice: a pair that stands once is not merged
    for record in records:
        if record["split"] == "train":
            texts += record["captions"]
            if objects:
                texts.append(plans.write(scene_from_dict(record["scene"]), objects))
    tokenizer = Tokenizer.train(texts, vocab_size)
    for line in lines:
        if len(tokenizer.encode(line)) > len(line.split()):
            raise UserError(
                f"--vocab_size {vocab_size}, which splits words of plans",
                "a token for each word of a plan",
                "raise --vocab_size",
            )
    return tokenizer


def in_order(splits: dict[str, int]) -> list[str]:
    """The split of each line: {"train": 2, "val": 1} is train, train, val."""
    names = []
    for name, count in splits.items():
        names += [name] * count
    return names


def read_meta(folder) -> dict:
    """The content of meta.json. Raises UserError if the folder holds no picture tokens."""
    meta = folders.read_meta(folder, KIND, WHAT, MAKE, MAKE)
    counts = [*meta["splits"].values(), meta.get("grid"), meta.get("codes")]
    objects = meta.get("plans", 0)
    if type(objects) is not int or not 0 <= objects <= MOST_OBJECTS:
        expected = f"plans of at most {MOST_OBJECTS} objects"
        raise UserError(f"{folder}/meta.json with plans {objects!r}", expected, REMAKE)
    if not all(type(count) is int and count > 0 for count in counts):
        found = f"{folder}/meta.json with splits {meta['splits']} and grid {meta.get('grid')}"
        raise UserError(found, "the sizes of the splits, the grid and the codes", REMAKE)
    return meta


class PictureData:
    """A folder of picture tokens: all its splits.

    meta: meta.json. tokenizer: of the captions. splits: {name: pictures}. grid: places on a side
    of the grid. codes: the number of codes. codes_file: the path of the picture codes.
    plans: the objects that a row's plan has room for; 0: rows have no plans.
    fingerprint: tells this data from all other data.
    Raises UserError if a file is missing, damaged, changed, or belongs to another folder.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.meta = read_meta(folder)
        names = (TOKENS, CAPTIONS, CODES, "tokenizer.json")
        for name in names:
            files.existing(self.folder / name, WHAT, REMAKE)
        folders.check_files(self.folder, self.meta, names, REMAKE)
        self.tokenizer = self.read_tokenizer()
        self.fingerprint: str = self.meta["fingerprint"]
        self.splits: dict[str, int] = self.meta["splits"]
        self.grid: int = self.meta["grid"]
        self.codes: int = self.meta["codes"]
        self.plans: int = self.meta.get("plans", 0)
        self.codes_file = self.folder / CODES
        self.every_record = self.read_records()
        self.every_token = self.open_tokens()

    @property
    def places(self) -> int:
        """Picture tokens of a picture: P."""
        return self.grid * self.grid

    def records(self, split: str) -> list[dict]:
        """The lines of a split: split, captions, scene. Raises UserError if there is no split."""
        return self.every_record[self.rows(split)]

    def tokens(self, split: str) -> np.ndarray:
        """The tokens of a split, memory-mapped: (n, P) uint16. Row i belongs to record i.

        Raises UserError if there is no such split.
        """
        return self.every_token[self.rows(split)]

    def rows(self, split: str) -> slice:
        """Where a split lies in the files. Raises UserError if there is no such split."""
        if split not in self.splits:
            expected = "one of " + ", ".join(self.splits)
            found = f"no split {split!r} in {self.folder}"
            raise UserError(found, expected, "choose one of these")
        names = list(self.splits)
        first = sum(self.splits[name] for name in names[: names.index(split)])
        return slice(first, first + self.splits[split])

    def read_tokenizer(self) -> Tokenizer:
        """tokenizer.json. Raises UserError if it is not the tokenizer that meta.json names."""
        path = self.folder / "tokenizer.json"
        tokenizer = Tokenizer.load(path)
        if tokenizer.fingerprint != self.meta.get("tokenizer"):
            found = f"{path} with fingerprint {tokenizer.fingerprint}"
            raise UserError(found, f"{self.meta.get('tokenizer')}", REMAKE)
        return tokenizer

    def read_records(self) -> list[dict]:
        """The lines of captions.jsonl. Raises UserError if they do not fit meta.json."""
        path = self.folder / CAPTIONS
        # Not splitlines(): a caption may hold other line ends of Unicode, such as U+2028.
        lines = files.read_text(path, WHAT, REMAKE).split("\n")
        try:
            records = [json.loads(line) for line in lines if line]
            fits = [record["split"] for record in records] == in_order(self.splits)
        except (ValueError, KeyError, TypeError, RecursionError):
            fits = False
        if not fits:
            expected = "a line per picture, split after split, as meta.json counts them"
            raise UserError(f"{path} with other lines", expected, REMAKE)
        return records

    def open_tokens(self) -> np.ndarray:
        """tokens.npy, memory-mapped. Raises UserError if it does not fit meta.json."""
        path = self.folder / TOKENS
        tokens = folders.open_array(path, REMAKE)
        shape = (len(self.every_record), self.places)
        if tokens.shape != shape or tokens.dtype != np.uint16:
            found = f"{path} of shape {tokens.shape} and type {tokens.dtype}"
            raise UserError(found, f"{shape} and uint16", REMAKE)
        if tokens.max(initial=0) >= self.codes:
            raise UserError(f"{path} with token {tokens.max()}", f"below {self.codes}", REMAKE)
        return tokens
