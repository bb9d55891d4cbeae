"""A folder of captioned images, and its tokens and features in batches (floor 1). The one place that knows the format.

    captions.jsonl   one object a line: image (path in the folder or absolute), split, captions (list of strings), and for
                     synthetic pictures scene (the graph that captions are judged against)
    tokenizer.json   byte-level BPE, trained on the captions
    meta.json        format, kind "captions", fingerprint, tokenizer, sizes per split, command, seed; written last
    features.npy     float16 (N, P, width), row i for line i; features.json says by which encoder (vision.py)
    features.checksums.npy   uint32 (N,), CRC-32 of each row: the array may be larger than memory, so a row is checked when it is read

A caption is [BOS] text [EOS] and then padding that nobody sees.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import distributed

FORMAT = folders.FORMAT
CHECKSUMS = "features.checksums.npy"
REMAKE = "run the prep_caption script that made it again"
MAKE = "run prep_caption_synthetic.py or prep_caption_photos.py, or name another folder with --data_dir"


def write_folder(folder, records: list[dict], tokenizer: Tokenizer, settings: dict) -> dict:
    """Write captions.jsonl and tokenizer.json, then meta.json, which makes the folder valid; return what it holds."""
    folder = Path(folder)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    files.write_text(
        folder / "captions.jsonl", lines
    )  # its checksum is the fingerprint; the tokenizer's is its own
    files.write_text(folder / "tokenizer.json", tokenizer.to_json())
    names = dict.fromkeys(record["split"] for record in records)
    meta = {
        "format": FORMAT,
        "kind": "captions",
        "fingerprint": files.sha256(files.encoded(lines)),
        "tokenizer": tokenizer.fingerprint,
        "splits": {name: sum(record["split"] == name for record in records) for name in names},
        **settings,
    }
    files.write_sealed(folder / "meta.json", meta)
    return meta


def read_meta(folder) -> dict:
    """meta.json of a captions folder. Raises UserError if it is not one."""
    meta = folders.read_meta(folder, "captions", "a folder of captioned images", MAKE, MAKE)
    if not all(type(count) is int and count > 0 for count in meta["splits"].values()):
        raise UserError(
            f"{folder}/meta.json with splits {meta['splits']}",
            "the number of images of each",
            REMAKE,
        )
    return meta


def read_records(folder) -> list[dict]:
    """The lines of captions.jsonl. Raises UserError if it is missing or damaged."""
    path, meta = (
        files.existing(Path(folder) / "captions.jsonl", "a folder of captioned images", MAKE),
        read_meta(folder),
    )
    try:
        raw = path.read_bytes()
        records = [json.loads(line) for line in raw.decode("utf-8").split("\n") if line]
        assert records and all(
            isinstance(one, str) and one
            for record in records
            for one in (record["image"], record["split"], *record["captions"])
        )
        assert all(record["captions"] and type(record["captions"]) is list for record in records)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise UserError(
            f"{path}, which is damaged",
            "one JSON object with image, split and captions a line",
            REMAKE,
        ) from error
    if files.sha256(raw) != meta["fingerprint"]:
        raise UserError(
            f"{path}, which was changed",
            f"the captions that meta.json is about, {meta['fingerprint']}",
            REMAKE,
        )
    return records


def image_path(folder, record: dict) -> Path:
    """Where a record's picture is. An absolute path stays what it is: the script that made the folder was told of it.

    Raises UserError if the name climbs out of the folder.
    """
    return files.inside(folder, record["image"], absolute=True)


def row_checksums(rows: np.ndarray) -> np.ndarray:
    """CRC-32 of each row's bytes: (n,) uint32."""
    return np.array([zlib.crc32(row) for row in np.ascontiguousarray(rows)], np.uint32)


class Features:
    """features.npy (N, P, width) float16, or any such array, memory-mapped, of which rows are read by their numbers and held to their checksums."""

    def __init__(self, path, array: np.ndarray, checksums: np.ndarray | None):
        self.path, self.array, self.checksums = path, array, checksums
        self.shape = array.shape

    def __getitem__(self, numbers) -> np.ndarray:
        """Rows by an array of their numbers: (n, P, width). Raises UserError if one is not what was written."""
        rows = self.array[numbers]
        if self.checksums is not None:
            wrong = np.flatnonzero(row_checksums(rows) != self.checksums[numbers])
            if len(wrong):
                raise UserError(
                    f"row {int(np.asarray(numbers)[wrong[0]])} of {self.path} (or of its checksums), which was changed",
                    "the rows as they were computed",
                    f"remove {self.path}, and {REMAKE}",
                )
        return rows


def read_features(folder, meta: dict) -> tuple[Features, dict]:
    """The features of all images, and features.json. Raises UserError if missing or unfinished."""
    folder = Path(folder)
    about = files.read_sealed(folder / "features.json", "image features", REMAKE)
    count = sum(meta["splits"].values())
    if about.get("done") != count or about.get("fingerprint") != meta["fingerprint"]:
        raise UserError(
            f"features of {about.get('done')} of {count} images in {folder}",
            "features of every image",
            REMAKE,
        )
    array = folders.open_array(
        files.existing(folder / "features.npy", "image features", REMAKE), REMAKE
    )
    checksums = (
        folders.open_array(
            files.existing(folder / CHECKSUMS, "the features' checksums", REMAKE), REMAKE
        )
        if about.get("checksums")
        else None
    )
    if not all(type(about.get(name)) is int for name in ("patches", "width")) or not isinstance(
        about.get("key"), str
    ):
        raise UserError(
            f"{folder}/features.json of another shape", "patches, width and key", REMAKE
        )
    if checksums is not None and (checksums.shape != (count,) or checksums.dtype != np.uint32):
        raise UserError(f"{folder}/{CHECKSUMS} of shape {checksums.shape}", f"({count},)", REMAKE)
    if array.shape != (count, about["patches"], about["width"]) or array.dtype != np.float16:
        raise UserError(
            f"{folder}/features.npy of shape {array.shape}",
            f"({count}, {about['patches']}, {about['width']})",
            REMAKE,
        )
    return Features(folder / "features.npy", array, checksums), about


class Texts:
    """The captions of a split in one piece, from which a batch is cut in a quarter of the time that padding rows one by one took (LOG.md).

    tokens: list over images of lists over captions of (n,) int64. lengths: (captions,) int64, of all of them; longest: the largest.
    """

    def __init__(self, tokens: list[list[torch.Tensor]], pad: int):
        self.tokens, self.pad, flat = tokens, pad, [one for captions in tokens for one in captions]
        self.ids, self.lengths = torch.cat(flat).int().numpy(), np.array([len(one) for one in flat])
        self.starts, self.longest = self.lengths.cumsum() - self.lengths, int(self.lengths.max())
        self.first = np.cumsum([0] + [len(captions) for captions in tokens])[:-1]

    def rows(self, numbers: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Where captions which (n, m) of images numbers (n,) stand among all: (n, m)."""
        return self.first[numbers][:, None] + which

    def batch(self, numbers, which, pad_multiple: int = 1) -> dict:
        """Those captions: tokens (n·m, L) int64, lengths (n·m,) int64, and `sources`, image and caption number of each. L is the longest of
        them, up to the next multiple of `pad_multiple`, at most the split's longest."""
        numbers, which = np.asarray(numbers), np.asarray(which)
        rows = self.rows(numbers, which).reshape(-1)
        lengths = self.lengths[rows]
        place = np.arange(
            min(-(-lengths.max() // pad_multiple) * pad_multiple, self.longest)
        )  # (L,)
        ids = self.ids[np.minimum(self.starts[rows][:, None] + place, len(self.ids) - 1)]
        tokens = np.where(place < lengths[:, None], ids, self.pad).astype(np.int64)
        return {
            "tokens": torch.from_numpy(tokens),
            "lengths": torch.from_numpy(lengths),
            "sources": list(
                zip(
                    numbers.repeat(which.shape[1]).tolist(), which.reshape(-1).tolist(), strict=True
                )
            ),
        }


class CaptionData:
    """One split: `records`, their rows in features.npy, and every caption as ids in `texts`, with [BOS] and [EOS], cut to `max_length`."""

    def __init__(self, folder, split: str, max_length: int | None = None):
        self.folder, self.split = Path(folder), split
        self.meta = read_meta(folder)
        if split not in self.meta["splits"]:
            raise UserError(
                f"no split {split!r} in {folder}",
                "one of " + ", ".join(self.meta["splits"]),
                "choose one of these",
            )
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer.json")
        if self.tokenizer.fingerprint != self.meta.get("tokenizer"):
            raise UserError(
                f"{folder}/tokenizer.json with fingerprint {self.tokenizer.fingerprint}",
                f"{self.meta.get('tokenizer')}",
                REMAKE,
            )
        everything = read_records(folder)
        if len(everything) != sum(self.meta["splits"].values()):
            raise UserError(
                f"{len(everything)} lines in {folder}/captions.jsonl",
                f"{sum(self.meta['splits'].values())}",
                REMAKE,
            )
        self.rows = np.array([i for i, record in enumerate(everything) if record["split"] == split])
        self.records = [everything[i] for i in self.rows]
        self.features, self.encoder = read_features(folder, self.meta)
        ids = iter(
            self.encode(
                [caption for record in self.records for caption in record["captions"]],
                max_length or 1 << 30,
            )
        )
        self.texts = Texts(
            [[next(ids) for _ in record["captions"]] for record in self.records], self.tokenizer.pad
        )

    def __len__(self) -> int:
        return len(self.records)

    def encode(self, texts: list[str], max_length: int) -> list[torch.Tensor]:
        """Ids of each text with [BOS] and [EOS], cut to `max_length`: (n,) int64."""
        flat = self.tokenizer.encode_batch(texts)
        return [
            torch.tensor(
                [self.tokenizer.bos, *map(int, one)][: max_length - 1] + [self.tokenizer.eos]
            )
            for one in flat
        ]

    def retell(self, texts: list[str], max_length: int) -> None:
        """Each image has this one caption from now on, in place of people's: what a teacher wrote."""
        self.texts = Texts([[one] for one in self.encode(texts, max_length)], self.tokenizer.pad)

    @property
    def tokens(self) -> list[list[torch.Tensor]]:
        return self.texts.tokens

    @property
    def longest(self) -> int:
        return self.texts.longest

    def length_histogram(self) -> np.ndarray:
        return np.bincount(self.texts.lengths)

    def features_of(self, numbers) -> torch.Tensor:
        """Features of the split's images: (B, P, width) float16, as they are on disk."""
        return torch.from_numpy(self.features[self.rows[np.asarray(numbers)]])

    def batch(self, numbers, which, pad_multiple: int = 1) -> dict:
        """Captions which (n, m) of images numbers (n,) as `Texts.batch` gives and `data.place` reads them, and `features` (n, P, width) float16."""
        batch = self.texts.batch(numbers, which, pad_multiple)
        return {
            **batch,
            "features": self.features_of(numbers),
            "weight": float((batch["lengths"] - 1).sum()),
        }


class CaptionBatches:
    """batches(step): this process's micro-batches of a step, a pure function of (seed, step). Each epoch shows every image once,
    with `captions_per_image` of its captions drawn at random, different ones if it has so many.

    data: has `texts` and batch(numbers, which, pad_multiple)."""

    def __init__(
        self,
        data,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        captions_per_image: int = 1,
        pad_multiple: int = 1,
    ):
        self.data, self.accumulate, self.seed, self.each, self.pad_multiple = (
            data,
            accumulate,
            seed,
            captions_per_image,
            pad_multiple,
        )
        self.images = min(max(1, batch_size // captions_per_image), len(data))
        self.epoch_steps = max(1, len(data) // self.images)
        self.epoch, self.order = -1, np.empty(0, dtype=np.int64)

    def __call__(self, step: int) -> list[dict]:
        epoch, place = divmod(step, self.epoch_steps)
        if epoch != self.epoch:
            self.epoch, self.order = (
                epoch,
                np.random.default_rng([self.seed, epoch]).permutation(len(self.data)),
            )
        numbers = self.order[place * self.images : (place + 1) * self.images]
        rng = np.random.default_rng([self.seed, 1, step])
        texts = self.data.texts
        which = np.array([self.some(len(texts.tokens[n]), rng) for n in numbers])  # (images, m)
        longest = texts.lengths[texts.rows(numbers, which)].max(1)
        # Short captions with short ones: of a batch's positions 75% are tokens with four micro-batches, 55% without.
        parts = np.array_split(
            np.argsort(longest, kind="stable"), min(self.accumulate, len(numbers))
        )
        return [
            self.data.batch(numbers[part], which[part], self.pad_multiple) | where
            for part, where in distributed.deal(parts, self.each)
        ]

    def some(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`each` of `count` captions: a shuffle, begun again where there are too few."""
        rounds = [rng.permutation(count) for _ in range(-(-self.each // count))]
        return np.concatenate(rounds)[: self.each]
