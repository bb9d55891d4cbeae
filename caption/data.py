"""A folder of captioned images, and its tokens and features in batches.

Only this module knows the format.

    captions.jsonl   one JSON object per line: image (a path in the folder, or absolute), split,
                     captions (a list of strings), view (optional: a crop, see `base.images.look`),
                     scene, program (drawn images, drawn clips: what captions are judged against),
                     turns (dialogues only: see caption/dialogue.py)
    tokenizer.json   byte-level BPE, trained on the captions
    meta.json        format, kind "captions", fingerprint, tokenizer, sizes of splits, settings;
                     written last, so a folder with meta.json is whole
    features.npy     float16 (N, P, width); row i belongs to line i
    features.checksums.npy   uint32 (N,): a CRC-32 of each row of features.npy
    features.json    which encoder computed the features; caption/features.py writes these three

A caption is [BOS] text [EOS], then padding that the model never sees.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import distributed

FORMAT = folders.FORMAT
CHECKSUMS = "features.checksums.npy"
WHAT = "a folder of captioned images"
REMAKE = "run the prep_caption script that made it again"
MAKE = (
    "run prep_caption_synthetic.py or prep_caption_photos.py, "
    "or name another folder with --data_dir"
)
# The shortest caption, in tokens: [BOS], a word, [EOS]. The length head may say less before it is
# trained.
SHORTEST = 3
# Captions are never cut while a folder is read, unless a model's `max_length` says so.
UNLIMITED = 1 << 30


def write_folder(folder, records: list[dict], tokenizer: Tokenizer, settings: dict) -> dict:
    """Write captions.jsonl, tokenizer.json and, last, meta.json. Returns the content of meta.json.

    records: the lines of captions.jsonl. settings: what made them, stored in meta.json.
    Raises UserError if the folder cannot be written.
    """
    folder = Path(folder)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    files.write_text(folder / "captions.jsonl", lines)
    files.write_text(folder / "tokenizer.json", tokenizer.to_json())
    names = dict.fromkeys(record["split"] for record in records)
    meta = {
        "format": FORMAT,
        "kind": "captions",
        # The fingerprint is the checksum of captions.jsonl. The tokenizer has a fingerprint of
        # its own.
        "fingerprint": files.sha256(files.encoded(lines)),
        "tokenizer": tokenizer.fingerprint,
        "splits": {name: sum(record["split"] == name for record in records) for name in names},
        **settings,
    }
    # Last: a folder without meta.json was left unfinished by a kill.
    files.write_sealed(folder / "meta.json", meta)
    return meta


def read_meta(folder) -> dict:
    """The content of meta.json. Raises UserError if the folder holds no captioned images."""
    meta = folders.read_meta(folder, "captions", WHAT, MAKE, MAKE)
    if not all(type(count) is int and count > 0 for count in meta["splits"].values()):
        found = f"{folder}/meta.json with splits {meta['splits']}"
        raise UserError(found, "the number of images of each split", REMAKE)
    return meta


def read_records(folder) -> list[dict]:
    """The lines of captions.jsonl. Raises UserError if the file is missing, damaged or changed."""
    path = files.existing(Path(folder) / "captions.jsonl", WHAT, MAKE)
    meta = read_meta(folder)
    damaged = UserError(
        f"{path}, which is damaged",
        "one JSON object with image, split and captions per line",
        REMAKE,
    )
    try:
        raw = path.read_bytes()
        # Not splitlines(): a caption may hold other line ends of Unicode, such as U+2028.
        records = [json.loads(line) for line in raw.decode("utf-8").split("\n") if line]
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not records or not all(is_record(record) for record in records):
        raise damaged
    # A changed caption would silently be another data set than the checkpoint names.
    if files.sha256(raw) != meta["fingerprint"]:
        found, expected = (
            f"{path}, which was changed",
            f"the captions of meta.json, {meta['fingerprint']}",
        )
        raise UserError(found, expected, REMAKE)
    return records


def texts_of(records: list[dict], split: str) -> list[str]:
    """All captions of a split."""
    texts = []
    for record in records:
        if record["split"] == split:
            texts += record["captions"]
    return texts


def is_record(record) -> bool:
    """Whether a line of captions.jsonl has an image, a split and at least one caption, none
    empty."""
    if not isinstance(record, dict):
        return False
    captions = record.get("captions")
    if not isinstance(captions, list) or not captions:
        return False
    texts = [record.get("image"), record.get("split"), *captions]
    return all(isinstance(text, str) and text for text in texts)


def image_path(folder, record: dict) -> Path:
    """The path of a record's image. Raises UserError if the name climbs out of the folder.

    An absolute path is allowed: the user named that folder to the script that made the records.
    """
    return files.inside(folder, record["image"], absolute=True)


def row_checksums(rows: np.ndarray) -> np.ndarray:
    """CRC-32 of the bytes of each row (n, ...): (n,) uint32."""
    return np.array([zlib.crc32(row) for row in np.ascontiguousarray(rows)], np.uint32)


class Features:
    """A memory-mapped array (N, ...). A row is compared with its checksum when it is read.

    The array may be larger than the memory, so it is not checked as a whole when it is opened.
    """

    def __init__(self, path, array: np.ndarray, checksums: np.ndarray | None):
        self.path = path
        self.array = array
        self.checksums = checksums
        self.shape = array.shape

    def __getitem__(self, numbers) -> np.ndarray:
        """Rows by an array of row numbers (n,): (n, ...). Raises UserError if a row was changed."""
        rows = self.array[numbers]
        if self.checksums is None:
            return rows
        wrong = np.flatnonzero(row_checksums(rows) != self.checksums[numbers])
        if len(wrong):
            number = int(np.asarray(numbers)[wrong[0]])
            raise UserError(
                f"row {number} of {self.path} (or of its checksums), which was changed",
                "the rows as they were computed",
                f"remove {self.path}, and {REMAKE}",
            )
        return rows


def read_features(folder, meta: dict) -> tuple[Features, dict]:
    """The features of all images, and the content of features.json.

    Raises UserError if a file is missing, the features are unfinished, or a shape is wrong.
    """
    folder = Path(folder)
    about = files.read_sealed(folder / "features.json", "image features", REMAKE)
    count = sum(meta["splits"].values())
    if about.get("done") != count or about.get("fingerprint") != meta["fingerprint"]:
        found = f"features of {about.get('done')} of {count} images in {folder}"
        raise UserError(found, "features of every image", REMAKE)
    array = open_rows(folder / "features.npy", "image features")
    checksums = None
    if about.get("checksums"):  # folders from before there were checksums have none
        checksums = open_rows(folder / CHECKSUMS, "the checksums of the features")
        if checksums.shape != (count,) or checksums.dtype != np.uint32:
            found = f"{folder}/{CHECKSUMS} of shape {checksums.shape}"
            raise UserError(found, f"({count},)", REMAKE)
    sizes = [about.get("patches"), about.get("width")]
    frames = about.get("frames", 1)  # of a clip; features of images do not say it
    whole = all(type(size) is int for size in [*sizes, frames]) and frames > 0
    if not whole or sizes[0] % frames or not isinstance(about.get("key"), str):
        found = f"{folder}/features.json of another shape"
        raise UserError(found, "patches, width and key", REMAKE)
    shape = (count, *sizes)
    if array.shape != shape or array.dtype != np.float16:
        raise UserError(f"{folder}/features.npy of shape {array.shape}", f"{shape}", REMAKE)
    return Features(folder / "features.npy", array, checksums), about


def open_rows(path: Path, what: str) -> np.ndarray:
    """A .npy file, memory-mapped. Raises UserError if it is missing or damaged."""
    return folders.open_array(files.existing(path, what, REMAKE), REMAKE)


class Texts:
    """All captions of a split as a single array of ids, from which batches are cut.

    Cutting takes a quarter of the time that padding row by row took (docs/log/captions.md).

    tokens: for each image, a list of its captions, each (n,) int64. lengths: (captions,) int64, the
    lengths of all captions. longest: the largest of them.
    """

    def __init__(self, tokens: list[list[torch.Tensor]], pad: int):
        self.tokens = tokens
        self.pad = pad
        every = [caption for captions in tokens for caption in captions]
        self.ids = torch.cat(every).int().numpy()
        self.lengths = np.array([len(caption) for caption in every])
        self.starts = self.lengths.cumsum() - self.lengths
        self.longest = int(self.lengths.max())
        counts = [len(captions) for captions in tokens]
        self.first = np.cumsum([0, *counts])[:-1]  # (images,) each image's first caption

    def rows(self, numbers: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The index of captions `which` (n, m) of images `numbers` (n,) among all: (n, m)."""
        return self.first[numbers][:, None] + which

    def batch(self, numbers, which, pad_multiple: int = 1) -> dict:
        """Captions `which` (n, m) of images `numbers` (n,), padded.

        Returns tokens (n·m, L) int64, lengths (n·m,) int64, and `sources`: a list of (image number,
        caption number). L is the longest of these captions, rounded up to a multiple of
        `pad_multiple`, and at most the split's longest caption.
        """
        numbers, which = np.asarray(numbers), np.asarray(which)
        rows = self.rows(numbers, which).reshape(-1)
        lengths = self.lengths[rows]
        rounded = -(-lengths.max() // pad_multiple) * pad_multiple
        position = np.arange(min(rounded, self.longest))  # (L,)
        # Positions behind the last caption would be out of range; they are padding anyway.
        index = np.minimum(self.starts[rows][:, None] + position, len(self.ids) - 1)  # (n·m, L)
        tokens = np.where(position < lengths[:, None], self.ids[index], self.pad).astype(np.int64)
        images = numbers.repeat(which.shape[1]).tolist()
        captions = which.reshape(-1).tolist()
        return {
            "tokens": torch.from_numpy(tokens),
            "lengths": torch.from_numpy(lengths),
            "sources": list(zip(images, captions, strict=True)),
        }


class CaptionData:
    """A split of a folder: its records, features and captions.

    records: its lines of captions.jsonl. rows: (images,) their rows in features.npy. texts: all
    captions as ids, with [BOS] and [EOS], cut to `max_length` tokens. encoder: features.json.
    told: what a captioner with retrieval is given of these images (caption/store.py), or None.
    Raises UserError if a file is missing, damaged, or belongs to other captions.
    """

    def __init__(self, folder, split: str, max_length: int | None = None):
        self.folder, self.split = Path(folder), split
        self.meta = read_meta(folder)
        if split not in self.meta["splits"]:
            expected = "one of " + ", ".join(self.meta["splits"])
            raise UserError(f"no split {split!r} in {folder}", expected, "choose one of these")
        self.tokenizer = self.read_tokenizer()
        every = read_records(folder)
        count = sum(self.meta["splits"].values())
        if len(every) != count:
            raise UserError(f"{len(every)} lines in {folder}/captions.jsonl", f"{count}", REMAKE)
        self.rows = np.array([i for i, record in enumerate(every) if record["split"] == split])
        self.records = [every[i] for i in self.rows]
        self.features, self.encoder = read_features(folder, self.meta)
        self.texts = Texts(self.tokenized(max_length or UNLIMITED), self.tokenizer.pad)
        self.told: Callable[[np.ndarray, int], list[list[str]]] | None = None

    def read_tokenizer(self) -> Tokenizer:
        """tokenizer.json. Raises UserError if it is not the tokenizer that meta.json names."""
        tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        expected = self.meta.get("tokenizer")
        if tokenizer.fingerprint != expected:
            found = f"{self.folder}/tokenizer.json with fingerprint {tokenizer.fingerprint}"
            raise UserError(found, f"{expected}", REMAKE)
        return tokenizer

    def tokenized(self, max_length: int) -> list[list[torch.Tensor]]:
        """For each image, a list of its captions as ids."""
        every = [caption for record in self.records for caption in record["captions"]]
        ids = iter(self.encode(every, max_length))
        return [[next(ids) for _ in record["captions"]] for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def encode(self, texts: list[str], max_length: int) -> list[torch.Tensor]:
        """The ids of each text with [BOS] and [EOS], cut to `max_length`: a list of (n,) int64."""
        result = []
        for ids in self.tokenizer.encode_batch(texts):
            row = [self.tokenizer.bos, *map(int, ids)][: max_length - 1]
            result.append(torch.tensor([*row, self.tokenizer.eos]))
        return result

    def retell(self, texts: list[str], max_length: int) -> None:
        """Replace the captions: each image has a single caption from now on, written by a
        teacher."""
        ids = self.encode(texts, max_length)
        self.texts = Texts([[caption] for caption in ids], self.tokenizer.pad)

    @property
    def tokens(self) -> list[list[torch.Tensor]]:
        return self.texts.tokens

    @property
    def longest(self) -> int:
        return self.texts.longest

    def length_histogram(self) -> np.ndarray:
        """The number of captions of each length: (longest + 1,) int64."""
        return np.bincount(self.texts.lengths)

    def features_of(self, numbers) -> torch.Tensor:
        """Features of images `numbers` (B,) of this split: (B, P, width) float16, as on disk."""
        return torch.from_numpy(self.features[self.rows[np.asarray(numbers)]])

    def batch(self, numbers, which, pad_multiple: int = 1) -> dict:
        """Captions `which` (n, m) of images `numbers` (n,): a batch for `loop.batches.to_device`.

        Besides what `Texts.batch` gives: features (n, P, width) float16, and weight, the number of
        tokens that the loss counts.
        """
        batch = self.texts.batch(numbers, which, pad_multiple)
        batch["features"] = self.features_of(numbers)
        batch["weight"] = float((batch["lengths"] - 1).sum())  # [BOS] is given
        return batch


class CaptionBatches:
    """batches(step): the micro-batches of a step for this process, a pure function of (seed, step).

    Each epoch shows every image once, with `captions_per_image` of its captions, drawn at random.

    data: has `texts` and batch(numbers, which, pad_multiple). batch_size: captions per step, over
    all micro-batches. accumulate: micro-batches per step.
    """

    def __init__(
        self,
        data,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        captions_per_image: int = 1,
        pad_multiple: int = 1,
    ):
        self.data = data
        self.accumulate = accumulate
        self.seed = seed
        self.captions_per_image = captions_per_image
        self.pad_multiple = pad_multiple
        self.images_per_step = min(max(1, batch_size // captions_per_image), len(data))
        self.epoch_steps = max(1, len(data) // self.images_per_step)
        self.epoch = -1
        self.order = np.empty(0, dtype=np.int64)

    def __call__(self, step: int) -> list[dict]:
        numbers = self.images_of(step)
        texts = self.data.texts
        # The order of an epoch is drawn from (seed, epoch); the 1 keeps the captions' draws apart.
        rng = np.random.default_rng([self.seed, 1, step])
        which = np.array(
            [self.draw(len(texts.tokens[number]), rng) for number in numbers]
        )  # (n, m)
        longest = texts.lengths[texts.rows(numbers, which)].max(1)  # (n,)
        # Images with short captions go together, because padding is wasted work: with four
        # micro-batches, tokens fill 75% of the positions; without sorting, 55%.
        order = np.argsort(longest, kind="stable")
        parts = np.array_split(order, min(self.accumulate, len(numbers)))
        result = []
        for part, share_of_step in distributed.deal(parts, self.captions_per_image):
            batch = self.data.batch(numbers[part], which[part], self.pad_multiple)
            result.append(batch | share_of_step)
        return result

    def images_of(self, step: int) -> np.ndarray:
        """The numbers of the images of a step: (images_per_step,) int64."""
        epoch, index = divmod(step, self.epoch_steps)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, rng.permutation(len(self.data))
        first = index * self.images_per_step
        return self.order[first : first + self.images_per_step]

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`captions_per_image` of `count` captions. Captions repeat only if there are too few."""
        rounds = -(-self.captions_per_image // count)
        shuffles = [rng.permutation(count) for _ in range(rounds)]
        return np.concatenate(shuffles)[: self.captions_per_image]
