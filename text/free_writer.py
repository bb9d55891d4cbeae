"""Fills blanks whose length is not known: they grow and shrink while they are written.

The same call as `writer.fill`, for a model of train_conditional.py --free_lengths. The blanks begin
with the [MASK]s of their pairs. With the lengths that `draw_lengths` draws, they begin as in the
training. Any other start is an approximation (text/free_paths.py).
"""

from dataclasses import dataclass

import numpy as np
import torch

from base import flags
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from base.tokenizer import Tokenizer
from net.free_lengths import Canvas, FreeDenoiser, Labels
from net.growing import ORDERS, Growing, state_of, write
from net.samplers import row_generators
from text.blanks import Template, room
from text.forms import Pair
from text.writer import Filled

READ = ("sampler", "steps", "temperature", "top_p")  # of SampleConfig; the rest has no meaning


@dataclass
class FreeLengths:
    """Blanks of unknown length."""

    edit_lengths: bool = setting(
        False, "[MASK*] grows and shrinks while it is written; for models of --free_lengths"
    )
    canvas: int = setting(
        0, "places such a blank begins with; 0 draws them, as in training", at_least=0
    )

    def __post_init__(self):
        flags.check(self)
        if self.canvas and not self.edit_lengths:
            raise UserError(
                f"--canvas {self.canvas} without --edit_lengths",
                "blanks that grow and shrink",
                "add --edit_lengths, or drop --canvas",
            )

    def check(self, model, settings: SampleConfig, given, refused: dict[str, bool]) -> None:
        """Raise UserError for what cannot be done with blanks that grow and shrink.

        given: the names of the given fields of SampleConfig. refused: other flags, and whether each
        was given.
        """
        if not self.edit_lengths:
            return
        if not isinstance(model, FreeDenoiser):
            raise UserError(
                "--edit_lengths with a model that was not trained to edit",
                "a checkpoint of train_conditional.py --free_lengths",
                "name such a checkpoint, or drop --edit_lengths",
            )
        names = [name for name in given if name not in READ]
        names += [name for name, is_given in refused.items() if is_given]
        if names:
            raise UserError(
                f"--{names[0]} with --edit_lengths",
                "--" + ", --".join(READ) + " at most",
                "drop one of the two",
            )
        if settings.sampler not in ORDERS:
            raise UserError(
                f"--sampler {settings.sampler} with --edit_lengths",
                "an order of places: " + ", ".join(ORDERS),
                "choose one of these",
            )

    def starts(
        self, histograms: dict, template: Template, tokenizer: Tokenizer, most: int
    ) -> dict[str, list[int]]:
        """The histograms from which the first lengths are drawn: all on `canvas`, if it is given.

        most: tokens of the model's rows. Raises UserError if such blanks do not fit.
        """
        if not self.canvas:
            return histograms
        left = room(template, "context", tokenizer, most)
        free = sum(length is None for length in template.lengths)
        if self.canvas * free > left:
            raise UserError(
                f"--canvas {self.canvas}",
                f"at most {left // free}, which fit the model's rows",
                "choose a smaller one",
            )
        return dict.fromkeys(histograms, [0] * self.canvas + [1])


def labels_of(model: FreeDenoiser, tokenizer: Tokenizer) -> Labels:
    """The model's labels without [EOS] and [UNK], which stand nowhere inside a text."""
    never = torch.tensor([tokenizer.eos, tokenizer.unk], device=model.device)

    def labels(places, select):
        return model.labels(places, select).index_fill(-1, never, -torch.inf)

    return labels


def fill(
    model: FreeDenoiser,
    tokenizer: Tokenizer,
    form: str,
    pairs: list[Pair],
    settings: SampleConfig,
    *,
    guidance: float = 1.0,
    seed: int = 0,
    first: int = 0,
    open_blanks: list[bool] | None = None,
    keep_frames: bool = False,
) -> list[Filled]:
    """Write into the blanks of each pair, which hold [MASK]s. A pair does not depend on the others.

    open_blanks: which blanks may grow and shrink; None: all. The rest as in `writer.fill`.
    """
    assert form == "context" and guidance == 1.0, "`check` refuses others"
    canvases = []
    for pair in pairs:
        free = open_blanks or [True] * len(pair.blanks)
        canvases.append(Canvas(pair.given, pair.blanks, [state_of(is_free) for is_free in free]))
    rows = write(
        labels_of(model, tokenizer),
        canvases,
        settings,
        mask_id=tokenizer.mask,
        pad=tokenizer.pad,
        most=model.config.max_length,
        rngs=row_generators(seed, len(pairs), first),
        keep_frames=keep_frames,
    )
    return [document_of(pair, row) for pair, row in zip(pairs, rows, strict=True)]


def document_of(pair: Pair, row: Growing) -> Filled:
    """The document of a written row."""

    def spread(values: list[np.ndarray], given: float) -> list:
        """Values for the whole document: those of the blanks, and `given` elsewhere."""
        pieces = [np.full(len(pair.given[0]), given)]
        for value, text in zip(values, pair.given[1:], strict=True):
            pieces += [value, np.full(len(text), given)]
        return np.concatenate(pieces).tolist()

    return Filled(
        row.canvas.ids().tolist(),
        spread(row.step, 0),
        spread([np.exp(nats) for nats in row.log_prob], 1.0),
        [frame.tolist() for frame in row.frames],
        row.calls,
        [blank.tolist() for blank in row.canvas.blanks],
        edits={
            "canvas": [len(blank) for blank in pair.blanks],
            "expansions": row.expansions,
            "cut": row.cut,
        },
    )
