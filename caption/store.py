"""A store of training captions: images that look alike have captions that help.

The store is the split `train` of a captions folder. It is made from the folder at every start:
nothing is saved. An image is looked up by its mean patch, standardised over the store, by cosine.

Leakage. What a captioner is given must not hold what it is scored on:

- The store holds captions of `train` alone. An image of val or test is never in it.
- An image never gets its own captions. All views of a photograph are one image.
- Near-duplicates, with a cosine above 0.97, are left out: the same photograph may have two names.

Training draws the captions from more similar images than are given, and any caption of each. A
model that always met the nearest captions would copy what most of them say (arXiv 2406.02265).
Writing takes the first caption of each of the nearest images, so it draws nothing.

Three other kinds of stores are controls:

    empty      gives nothing
    shuffled   gives the captions of other images than those that were found
    oracle     gives the image's own captions: if they do not help, the model does not read

Shapes: B images, P patches, C width of the features, N images in the store, K captions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base.files import UserError
from base.flags import setting
from base.tokenizer import Tokenizer
from caption import features, lengths, writer
from caption.data import CaptionData
from loop.batches import MicroBatches
from net.retrieval import Given, Seen

DUPLICATE = 0.97  # cosine above which two images count as the same photograph
DIGITS = 1e6  # cosines are compared in steps of 1 / DIGITS, so that a batch changes no order
CHUNK = 256  # images whose patches are in memory at one time
STREAM = 2  # keeps the draws of given captions apart from those of images and captions
KINDS = ("nearest", "empty", "shuffled", "oracle")
CONTROLS = KINDS[1:]


@dataclass
class StoreChoice:
    """Which captions a captioner reads, if it was trained with --retrieve."""

    store: str | None = setting(
        None,
        "for a captioner of --retrieve: folder whose training captions it reads",
        metavar="FOLDER",
    )
    store_kind: str = setting(
        "nearest", "captions of similar images, or a control (caption/store.py)", choices=KINDS
    )


class Store:
    """The captions of a folder's training images, found by features.

    data: the split `train`. names: (N,) the images, each once. captions: a list of texts for each.
    unit: (N, C) float64, their standardised mean patches, of length 1.
    """

    def __init__(self, data: CaptionData):
        self.fingerprint = data.meta["fingerprint"]
        # The views of a photograph are lines with one name. The first line stands for all.
        self.number: dict[str, int] = {}
        lines = []
        for line, record in enumerate(data.records):
            if record["image"] not in self.number:
                self.number[record["image"]] = len(lines)
                lines.append(line)
        self.captions: list[list[str]] = [data.records[line]["captions"] for line in lines]
        means = []
        for part in np.array_split(np.array(lines), -(-len(lines) // CHUNK)):
            means.append(mean_patch(data.features_of(part)))
        every = np.concatenate(means)  # (N, C)
        self.mean = every.mean(0)
        self.deviation = every.std(0) + 1e-4  # a channel may be constant
        self.unit = self.unit_of(every)

    def __len__(self) -> int:
        return len(self.unit)

    def unit_of(self, means: np.ndarray) -> np.ndarray:
        """Mean patches (B, C) as standardised vectors of length 1: (B, C) float64."""
        standard = (means - self.mean) / self.deviation
        return standard / np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-12)

    def nearest(self, seen: Tensor, count: int, names: list[str] | None = None) -> list[np.ndarray]:
        """For each image, its `count` nearest images in the store or fewer, the nearest first.

        seen: features (B, P, C) as on disk. names: of the images, if they are lines of the store's
        own folder. An image itself and its near-duplicates are left out. Equal cosines: the
        earlier line first. Returns B arrays of numbers in the store, int64.
        """
        cosine = self.unit_of(mean_patch(seen)) @ self.unit.T  # (B, N)
        allowed = cosine <= DUPLICATE
        for row, name in enumerate(names or []):
            if name in self.number:
                allowed[row, self.number[name]] = False
        # Rounded: the last bits of a product depend on the batch. All keys differ.
        total = len(self)
        key = np.round(cosine * DIGITS).astype(np.int64) * total - np.arange(total)
        key[~allowed] = -(1 << 62)  # behind all others
        count = min(count, total)
        top = np.argpartition(-key, count - 1, axis=1)[:, :count]
        result = []
        for row, found in enumerate(top):
            ordered = found[np.argsort(-key[row, found])]
            result.append(ordered[allowed[row, ordered]])
        return result

    def shuffled(self, seed: int) -> list[list[str]]:
        """The captions of all images, dealt to other images than their own."""
        order = np.random.default_rng(seed).permutation(len(self))
        # Each image takes the captions of the next image in a random circle.
        source = np.empty_like(order)
        source[order] = np.roll(order, 1)
        return [self.captions[number] for number in source]

    def for_features(self, seen: Tensor, count: int) -> list[list[str]]:
        """What a captioner is given of anybody's images. seen: features (B, P, C)."""
        return [first_captions(self.captions, near) for near in self.nearest(seen, count)]

    def names_in(self, data: CaptionData, numbers) -> list[str] | None:
        """The names of a split's images if the split is of the store's own folder, else None."""
        if data.meta["fingerprint"] != self.fingerprint:
            return None  # there, an equal name is another photograph
        return [data.records[number]["image"] for number in numbers]


@dataclass
class Told:
    """What a captioner is given of the images of a split, by a kind of store: callable.

    seed: of the shuffled store.
    """

    store: Store
    data: CaptionData
    kind: str = "nearest"
    seed: int = 0

    def __post_init__(self) -> None:
        is_shuffled = self.kind == "shuffled"
        self.captions = self.store.shuffled(self.seed) if is_shuffled else self.store.captions

    def __call__(self, numbers: np.ndarray, count: int) -> list[list[str]]:
        """At most `count` captions for each of the images `numbers` (B,)."""
        if self.kind == "empty":
            return [[] for _ in numbers]
        if self.kind == "oracle":
            return [self.data.records[number]["captions"][:count] for number in numbers]
        names = self.store.names_in(self.data, numbers)
        found = self.store.nearest(self.data.features_of(numbers), count, names)
        return [first_captions(self.captions, near) for near in found]


def mean_patch(seen: Tensor) -> np.ndarray:
    """Features (B, P, C) -> (B, C) float64."""
    return seen.float().mean(1).double().cpu().numpy()


def first_captions(captions: list[list[str]], near: np.ndarray) -> list[str]:
    """The first caption of each of the images `near`."""
    return [captions[number][0] for number in near]


def give(texts: list[list[str]], tokenizer: Tokenizer, slots: int, max_length: int) -> Given:
    """Texts, at most `slots` for each of B images, as ids. A text is cut to `max_length` ids."""
    row_of, slot_of, flat = [], [], []
    for row, mine in enumerate(texts):
        for slot, text in enumerate(mine[:slots]):
            row_of.append(row)
            slot_of.append(slot)
            flat.append(text)
    lists = [ids[:max_length] for ids in tokenizer.encode_batch(flat)]
    width = max(map(len, lists), default=0)
    ids = torch.full((len(texts), slots, width), tokenizer.pad)
    sizes = torch.zeros(len(texts), slots, dtype=torch.long)
    for row, slot, found in zip(row_of, slot_of, lists, strict=True):
        ids[row, slot, : len(found)] = torch.from_numpy(found.astype(np.int64))
        sizes[row, slot] = len(found)
    return Given(ids, sizes)


def see(
    model,
    tokenizer: Tokenizer,
    features: Tensor,
    texts: list[list[str]],
    kept: Tensor | None = None,
) -> Seen:
    """What a captioner with retrieval reads. features: (B, P, C), standardised.

    kept: (B,) bool, the images that keep their texts in training; None: all.
    """
    given = give(texts, tokenizer, model.config.retrieve, model.config.max_length)
    return Seen(features, given if kept is None else given.where(kept))


def look(
    model, tokenizer: Tokenizer, statistics: dict, data: CaptionData, numbers, raw=None
) -> Tensor | Seen:
    """What a captioner reads of images `numbers` (B,) of a split: features, and what it is told.

    raw: features (B, P, C) in place of those on disk, such as frames in another order.
    Raises UserError if the captioner reads captions and the split has no store.
    """
    numbers = np.asarray(numbers)
    raw = data.features_of(numbers) if raw is None else raw
    standard = writer.standardise(raw, statistics, model.device)
    if not model.config.retrieve:
        return standard
    if data.told is None:
        raise missing(model.config.retrieve)
    return see(model, tokenizer, standard, data.told(numbers, model.config.retrieve))


def look_at(model, tokenizer: Tokenizer, statistics: dict, store: Store | None, raw: Tensor):
    """What a captioner reads of anybody's images. raw: features (B, P, C) as the encoder gives."""
    standard = writer.standardise(raw, statistics, model.device)
    if store is None:
        return standard
    return see(model, tokenizer, standard, store.for_features(raw, model.config.retrieve))


def missing(count: int) -> UserError:
    """The error for a captioner of so many given captions that has no store."""
    found = f"a captioner of --retrieve {count} without --store"
    return UserError(found, "the folder whose training captions it reads", "name it with --store")


def open_store(folder: str | None, *captioners: tuple) -> Store | None:
    """The store of these captioners, or None if none of them reads captions.

    captioners: as `checkpoint.open_model` gives them. Raises UserError without a folder, with a
    folder that nobody reads, or if the folder's features are of another encoder.
    """
    readers = [(model, saved) for model, _, saved in captioners if model.config.retrieve]
    if not readers and folder is None:
        return None
    if not readers:
        raise UserError(
            f"--store {folder} for a captioner that reads no captions",
            "a captioner that was trained with --retrieve",
            "drop --store, or name another checkpoint",
        )
    if folder is None:
        raise missing(readers[0][0].config.retrieve)
    data = CaptionData(folder, "train")
    for _, saved in readers:
        name, key = data.encoder["encoder"], data.encoder["key"]
        features.check_encoder(name, key, saved, "the checkpoint")
    return Store(data)


def open_splits(choice, names: list[str], seed: int, *captioners: tuple) -> dict:
    """{split: its CaptionData} as `lengths.open_splits`, each with what its images are told.

    choice: has data_dir, store and store_kind. Raises UserError as `open_store` does.
    """
    store = open_store(choice.store, *captioners)
    if store is None and choice.store_kind != "nearest":
        found = f"--store_kind {choice.store_kind} without --store"
        raise UserError(found, "a store, for a captioner of --retrieve", "drop --store_kind")
    loaded = lengths.open_splits(choice.data_dir, names, *[model for model, _, _ in captioners])
    for data in loaded.values():
        if store is not None:
            data.told = Told(store, data, choice.store_kind, seed)
    return loaded


# ---- training ---------------------------------------------------------------------------------


def drawn(store: Store, near: np.ndarray, count: int, rng: np.random.Generator) -> list[str]:
    """Any caption of each of `count` of the images `near`, which keep their order."""
    chosen = np.sort(rng.permutation(len(near))[:count])
    return [str(rng.choice(store.captions[number])) for number in near[chosen]]


def for_training(count: int, neighbours: int, *splits: CaptionData) -> Store | None:
    """The store of a run, and what the images of its splits are told; None without retrieval.

    count: captions per image. splits: train first. Raises UserError if there are too few
    neighbours to draw from.
    """
    if not count:
        return None
    if neighbours < count:
        raise UserError(
            f"--neighbours {neighbours} with --retrieve {count}",
            "at least as many similar images as given captions",
            "raise --neighbours",
        )
    store = Store(splits[0])
    for data in splits:
        data.told = Told(store, data)
    return store


def with_given(
    batches: MicroBatches, store: Store, data: CaptionData, seed: int, count: int, neighbours: int
) -> MicroBatches:
    """`batches` with `texts`: for each image, `count` captions from its nearest `neighbours`.

    An image's draw is a function of (seed, step, image) alone, whatever its micro-batch is.
    """

    def told(step: int) -> list[dict]:
        result = []
        for batch in batches(step):
            per_image = len(batch["tokens"]) // len(batch["features"])
            numbers = [image for image, _ in batch["sources"][::per_image]]
            names = store.names_in(data, numbers)
            texts = []
            found = store.nearest(batch["features"], neighbours, names)
            for number, near in zip(numbers, found, strict=True):
                rng = np.random.default_rng([seed, STREAM, step, number])
                texts.append(drawn(store, near, count, rng))
            result.append(batch | {"texts": texts})
        return result

    return told
