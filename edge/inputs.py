"""What an export starts from: the trained model, and real inputs to compare and calibrate on.

All inputs are real: held-out images with their captions, or held-out rows of text. Random numbers
would judge a graph where it never works.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from base.config import SampleConfig
from base.files import UserError
from base.folders import check_tokenizer
from caption import data as caption_data
from caption import features, writer
from caption.lengths import open_cut
from edge.networks import key_layout
from loop import checkpoint
from net.samplers import row_generators, sample
from text.data import TextData

CUT = 64  # tokens of a text that are compared: 64 rows of 256 tokens would take an hour
FEED = 16  # rows in one calibration feed


@dataclass
class Material:
    """Real inputs.

    rows: ids with [BOS] and [EOS]. images: (n, S, S, 3) uint8 that the rows describe, or None.
    paths: of the images' files. records: of the captions folder.
    """

    rows: list[list[int]]
    images: np.ndarray | None = None
    paths: list = field(default_factory=list)
    records: list = field(default_factory=list)

    def part(self, first: int, last: int) -> "Material":
        """The inputs from number `first` to before number `last`."""
        images = None if self.images is None else self.images[first:last]
        return Material(
            self.rows[first:last], images, self.paths[first:last], self.records[first:last]
        )


@dataclass
class Trained:
    """What a checkpoint opens to. encoder: of a captioner, else None."""

    model: torch.nn.Module
    tokenizer: object
    saved: dict
    encoder: object = None

    @property
    def objective(self) -> str:
        return self.saved["objective"]

    def features(self, images: np.ndarray) -> torch.Tensor:
        """(B, S, S, 3) uint8 -> features (B, P, width) float32, rounded to float16."""
        # The cache of features is float16, so the captioner was trained on rounded features.
        return self.encoder.encode(images).half().float()

    def standardised(self, features: torch.Tensor) -> torch.Tensor:
        """Features as the model reads them: (B, P, width)."""
        return writer.standardise(features, self.saved["statistics"], "cpu")

    def graph_condition(self, condition: list) -> dict[str, torch.Tensor]:
        """The model's keys and values, one pair per block, in the layout of the graphs' inputs.

        Each (B, H, P, head) -> keys (B, N, H, head, P) and values (B, N, H, P, head).
        """
        head = self.model.config.d_model // self.model.config.heads
        return {
            "keys": torch.stack([key_layout(keys, head) for keys, _ in condition], 1),
            "values": torch.stack([values for _, values in condition], 1),
        }


def open_trained(path, adapter: str | None = None) -> Trained:
    """The checkpoint's model, with an adapter merged into it, and a captioner's encoder.

    Raises UserError for soft masks, a quality head or patch layers, or if the encoder is not that
    of the captioner's training.
    """
    model, tokenizer, saved = checkpoint.open_model(
        path, kinds=("text", "caption"), adapter=adapter
    )
    if model.config.soft_masks:
        raise UserError(
            f"{path}, a network with soft masks",
            "a plain denoiser: the graphs carry no beliefs",
            "train one without --soft_masks",
        )
    if model.config.quality_layers:
        raise UserError(
            f"{path}, a network with a quality head",
            "a plain denoiser: the graphs have no such head",
            "export the checkpoint that its head was trained on",
        )
    if saved["kind"] != "caption":
        return Trained(model, tokenizer, saved)
    if writer.frames_of(saved) > 1:
        raise UserError(
            f"{path}, a captioner of clips",
            "a captioner of images: the graphs read a single image",
            "run it with generate_caption.py --video",
        )
    if model.config.patch_layers:
        raise UserError(
            f"{path}, a captioner whose patches read each other",
            "a captioner without such blocks: the graphs have none",
            "train one without --patch_layers",
        )
    encoder = features.open_encoder(saved, path)
    if hasattr(encoder.model, "set_attn_implementation"):
        # The fused operator is exported as 72 nodes that compute nothing.
        encoder.model.set_attn_implementation("eager")
    return Trained(model, tokenizer, saved, encoder)


def evenly(total: int, count: int) -> np.ndarray:
    """At most `count` numbers below `total`, spread evenly."""
    # Not the first ones: neighbours in a folder may be alike.
    return np.linspace(0, total - 1, min(count, total)).astype(int)


def real_inputs(trained: Trained, folder, split: str, count: int) -> Material:
    """At most `count` images with their captions, or rows of text, from a split of a data folder.

    Raises UserError if the folder has another tokenizer than the checkpoint.
    """
    if trained.encoder is None:
        return text_inputs(trained, folder, split, count)
    data = open_cut(folder, split, trained.model.config.max_length)
    check_tokenizer(data.tokenizer.fingerprint, trained.tokenizer.fingerprint, folder)
    numbers = evenly(len(data), count)
    records = [data.records[number] for number in numbers]
    paths = [caption_data.image_path(folder, record) for record in records]
    images = np.stack([trained.encoder.preprocess(path) for path in paths])
    rows = [data.tokens[number][0].tolist() for number in numbers]  # each image's first caption
    return Material(rows, images, paths, records)


def text_inputs(trained: Trained, folder, split: str, count: int) -> Material:
    """At most `count` rows of a text folder, each cut to CUT tokens."""
    data = TextData(folder, split, trained.model.config.max_length)
    check_tokenizer(data.tokenizer.fingerprint, trained.tokenizer.fingerprint, folder)
    tokens, lengths = data.rows(evenly(len(data.starts), count))
    rows = []
    for row, length in zip(tokens, lengths, strict=True):
        rows.append(row[: min(int(length), CUT)].tolist())
    return Material(rows)


def with_holes(
    rows: list[list[int]], tokenizer, share: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a share of their tokens masked: (B, L) int32, and lengths (B,) int32.

    At least one token of each row is masked, and never [BOS] or [EOS].
    """
    # A seed: torch and bundle must fill the same blanks.
    rng = np.random.default_rng(seed)
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), lengths.max()), tokenizer.pad, np.int32)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = row
        positions = rng.permutation(np.arange(1, max(2, len(row) - 1)))
        line[positions[: max(1, round(share * len(positions)))]] = tokenizer.mask
    return tokens, lengths


@torch.no_grad()
def states(
    trained: Trained, material: Material, steps: int = 8, factors: dict | None = None
) -> Iterator[dict]:
    """Real states of the denoising at all noise levels: StepGraph's inputs, FEED rows each.

    factors: what the graphs read of the adapter that `trained` has merged.
    """
    model, tokenizer = trained.model, trained.tokenizer
    # The trace of a real run: the network is calibrated on the states that it will meet.
    settings = SampleConfig("confidence", steps, temperature=0.0)
    for first in range(0, len(material.rows), FEED):
        part = material.part(first, first + FEED)
        tokens, lengths = map(torch.from_numpy, with_holes(part.rows, tokenizer, 1.0))
        condition, given = None, {"factors": factors} if factors else {}
        if part.images is not None:
            condition = model.keys_values(trained.standardised(trained.features(part.images)))
            given = {**given, **trained.graph_condition(condition)}
        denoise, calls = recorded(model.bind(lengths, condition))
        rngs = row_generators(0, len(part.rows))
        sample(denoise, tokens.long(), settings, mask_id=tokenizer.mask, rngs=rngs)
        for seen, share in calls:
            yield {"tokens": seen, "lengths": lengths.int(), "share": share, **given}


def as_arrays(feed: dict) -> dict[str, np.ndarray]:
    """What a network reads, as the inputs of its graph: an adapter's factors are inputs too."""
    rest = {name: value for name, value in feed.items() if name != "factors"}
    return {name: value.numpy() for name, value in {**rest, **feed.get("factors", {})}.items()}


def recorded(denoise):
    """The same denoiser, and a list that notes the tokens and shares of its calls."""
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def wrapper(tokens, share, select):
        calls.append((tokens.int(), share.float()))
        return denoise(tokens, share, select)

    return wrapper, calls
