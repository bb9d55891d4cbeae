"""Sayings: true sentences about a table, which a policy learns to say and is judged by.

A saying is about two things and where they are to each other, in the grammar of scenes:
"a red star to the left of a blue cross". Zones have no place in that grammar. The sentences are
written from the stills' arrays, so a folder of stills needs nothing more.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import diffusion
from base import words
from base.config import CAPTIONS, SampleConfig
from base.metrics import share_interval
from base.templates import blank_rows
from base.tokenizer import Tokenizer
from loop.batches import to_device
from net.grounder import Grounder, Seen
from net.samplers import row_generators, sample
from net.sayer import LONGEST
from robot import stills
from worlds import language
from worlds.judge import judge
from worlds.layouts import SHAPES, ZONES, Layout, Thing, as_object, as_scene
from worlds.scenes import COLOURS, Scene, pick, relation

PER_STILL = 4  # sayings of a still in a step; the still is seen once
LENGTH_WEIGHT = 0.1  # of the loss of lengths, next to the words'


def tokenizer() -> Tokenizer:
    """A word is a token: the grammar's words for two things."""
    texts = [*language.OPENINGS, *language.RELATION_WORDS["inside"], "a an the is with and"]
    texts += [word for group in language.SYNONYMS.values() for word in group]
    for kind in language.RELATION_WORDS.values():
        texts += kind
    texts += [*language.RELATION_TO_IT.values(), *language.PLACES.values(), *COLOURS, *SHAPES]
    return words.from_texts(texts)


# --- sentences -----------------------------------------------------------------------------------


def layout_of(kinds: np.ndarray, places: np.ndarray) -> Layout:
    """The layout of a still: attributes (8, kinds) in 0 and 1, places (8, 3) in metres."""
    found: dict[bool, list[Thing]] = {True: [], False: []}
    for row, place in zip(kinds, places.tolist(), strict=True):
        names = [stills.KINDS[index] for index in np.flatnonzero(row)]
        if names:
            colour, shape = names
            found[shape in ZONES].append(Thing(shape, colour, *place))
    return Layout(found[False], found[True])


def say(layout: Layout, rng: np.random.Generator) -> str:
    """A true sentence about two things of a layout; about one if no two have a clear relation."""
    objects = [as_object(thing) for thing in layout.things]
    pairs = []
    for first in objects:
        pairs += [(first, second) for second in objects if relation(first, second) is not None]
    if not pairs:
        return language.article(language.noun(pick(rng, objects), rng))
    return language.describe_two(Scene(list(pick(rng, pairs))), rng)


class Sayings:
    """Gives sayings of stills as rows of ids, a pure function of the generator."""

    def __init__(self, arrays: dict):
        self.kinds, self.places = arrays["kinds"], arrays["places"]
        self.tokenizer = tokenizer()

    def batch(self, numbers: np.ndarray, rng: np.random.Generator) -> dict:
        """PER_STILL sayings for each of n stills: tokens (n · PER_STILL, L), lengths, int64."""
        rows = []
        for number in numbers:
            layout = layout_of(self.kinds[number], self.places[number])
            rows += [encode(self.tokenizer, say(layout, rng)) for _ in range(PER_STILL)]
        lengths = [len(row) for row in rows]
        tokens = np.full((len(rows), max(lengths)), self.tokenizer.pad, np.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return {"tokens": torch.from_numpy(tokens), "lengths": torch.tensor(lengths)}


def encode(own: Tokenizer, text: str) -> list[int]:
    """[BOS], the words, [EOS]."""
    ids = own.backend.encode(text).ids[: LONGEST - 2]
    return [own.bos, *ids, own.eos]


# --- training and writing ------------------------------------------------------------------------


def view(model: Grounder, seen: Seen) -> Tensor:
    """What the writer reads: (B, N, D)."""
    assert model.sayer is not None
    return model.sayer.view(seen.keys, seen.places, seen.real)


def loss(model: Grounder, condition: Tensor, batch: dict, rng: torch.Generator):
    """The loss of sayings in nats per word, and of their lengths. condition: from `view`.

    The sayings of a still are neighbours in the batch.
    """
    writer = model.sayer.writer
    tokens, lengths, free = to_device(batch, model.device)
    guessed = writer.length_logits(condition).repeat_interleave(PER_STILL, 0)
    rows = torch.nn.functional.cross_entropy(guessed, batch["lengths"].to(model.device))
    denoise = writer.bind(lengths, writer.keys_values(condition))
    mask = writer.config.vocab_size - 1  # [MASK] is the last token
    value, figures = diffusion.loss(denoise, tokens, free, mask_id=mask, rng=rng, weight="clipped")
    return value + LENGTH_WEIGHT * rows, {"saying_nats": figures["nats_per_token"]}


@torch.no_grad()
def write(model: Grounder, own: Tokenizer, shown: dict[str, Tensor], seed: int = 0) -> list[str]:
    """What the model says of what it is shown: a sentence for each of B rows."""
    writer = model.sayer.writer
    condition = view(model, model.look(shown))
    lengths = writer.length_logits(condition).argmax(-1).clamp(min=3)
    tokens = torch.from_numpy(blank_rows(lengths.tolist(), own)).to(model.device)
    denoise = writer.bind(lengths, writer.keys_values(condition))
    rngs = row_generators(seed, len(tokens))
    drawn = sample(denoise, tokens, SampleConfig(**CAPTIONS), mask_id=own.mask, rngs=rngs)
    texts = []
    for row, length in zip(drawn.tokens, lengths.tolist(), strict=True):
        texts.append(own.decode(row[:length].tolist()).strip())
    return texts


# --- truth ---------------------------------------------------------------------------------------


@dataclass
class Said:
    """A sentence, and whether it is true of the table."""

    text: str
    true: bool


def judged(text: str, layout: Layout) -> Said:
    return Said(text, judge(text, as_scene(layout))["truthful"])


def share_true(said: list[Said]) -> dict:
    """The share of true sentences with its 95% interval."""
    true = sum(each.true for each in said)
    return {
        "sayings": len(said),
        "true": true / len(said),
        "true_ci95": share_interval(true, len(said)),
    }
