"""A conditional model while it trains: its loss, its score on val, and filled blanks to read."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

import diffusion
from base import config, flags
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from net import twin
from text import free_paths, writer
from text.pairs import KINDS, PairData, to_device

EVAL_DRAWS = 4  # masks per pair at an evaluation
PREVIEWS = 3  # filled pairs in a file of samples/


@dataclass
class PairRun:
    """The loss and its evaluation. A resumed run keeps these."""

    conditioning: str = setting(
        "context", "how the given text is read", choices=("context", "cross")
    )
    objective: str = setting(
        "diffusion",
        "what to train; ar is the autoregressive twin, which reads the ending first",
        choices=config.OBJECTIVES,
    )
    weight: str = setting(
        "bound", "weights of the loss; bound is the likelihood's own", choices=config.WEIGHTS
    )
    encoder_layers: int = setting(
        2, "cross: blocks of the encoder, copies of the denoiser's first", at_least=1
    )
    stage_1_steps: int = setting(
        -1, "cross: steps for the new parts alone; -1 means a tenth of --max_steps", at_least=-1
    )
    stage_1_learning_rate: float = setting(
        2e-3, "cross: peak learning rate of those steps", above=0
    )
    condition_dropout: float = setting(
        0.1, "share of rows that see nothing given, for guidance", at_least=0, below=1
    )
    free_lengths: float = setting(
        0.0,
        "context: share of the blanks whose length is not told, so that they learn to grow and "
        "shrink; 0 leaves out these parts of the network",
        at_least=0,
        at_most=1,
    )
    eval_pairs: int = setting(200, "held-out pairs at each evaluation", at_least=1)

    def __post_init__(self):
        flags.check(self)
        if self.objective == "ar" and self.conditioning == "cross":
            raise UserError(
                "--conditioning cross with --objective ar",
                "the twin, which reads its prompt in the row",
                "drop one of the two flags",
            )
        if self.free_lengths and self.form != "context":
            raise UserError(
                f"--free_lengths for the form {self.form}",
                "--conditioning context: growing blanks stand in the row",
                "drop --free_lengths",
            )

    @property
    def form(self) -> str:
        """How a row looks: see text/pairs.py."""
        return "ar" if self.objective == "ar" else self.conditioning


def make_loss(own: PairRun, tokenizer, histograms: dict | None = None):
    """loss_fn for `fit`: the blanks' loss given the rest.

    Rows whose condition is dropped see nothing given. histograms: of the training pairs' lengths,
    for --free_lengths.
    """

    def loss_fn(model, batch, rng):
        if own.free_lengths:
            return free_loss(own, model, batch, starts_of(model, tokenizer, histograms), rng)
        tokens, lengths, free = to_device(batch, model.device)
        if own.form == "ar":
            return twin.loss(model, tokens, free)
        kept = torch.rand(len(tokens), generator=rng) >= own.condition_dropout
        kept = kept.to(model.device)  # (B,)
        condition = None
        if own.form == "cross":
            given, given_lengths = batch["condition"], batch["condition_lengths"]
            condition = model.read(given.to(model.device), given_lengths.to(model.device), kept)
        else:  # a row without a condition is a whole document to write
            free = torch.where(kept[:, None], free, writer.hideable(batch, model.device))
        return diffusion.loss(
            model.bind(lengths, condition),
            tokens,
            free,
            mask_id=tokenizer.mask,
            rng=rng,
            uniform=batch["uniform"],
            weight=own.weight,
        )

    return loss_fn


def starts_of(model, tokenizer, histograms: dict | None) -> free_paths.Starts:
    """How the model's blanks of unknown length begin."""
    size = model.config
    return free_paths.Starts(histograms or {}, tokenizer, size.max_length, size.output_size)


def free_loss(own: PairRun, model, batch: dict, starts: free_paths.Starts, rng: torch.Generator):
    """The loss of a batch in which some blanks have an unknown length.

    Raises UserError if the network is compiled: its rows have too many lengths.
    """
    if "trunk" in vars(model):
        raise UserError(
            "--compile with --free_lengths",
            "rows of few lengths, which can be compiled",
            "drop one of the two",
        )
    kept = torch.rand(len(batch["tokens"]), generator=rng) >= own.condition_dropout
    pairs = free_paths.pairs_of(batch, KINDS, kept)
    # A row without a condition is a whole document to write, whose length is known.
    numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
    free = []
    for pair, has_condition in zip(pairs, kept.tolist(), strict=True):
        unknown = numbers.random(len(pair.blanks)) < own.free_lengths
        free.append((unknown & has_condition).tolist())
    return free_paths.loss(model, pairs, free, starts, batch["uniform"], numbers, own.weight)


def spread_over(count: int, most: int) -> list[int]:
    """At most `most` numbers below `count`, evenly spread."""
    # Spread, not the first pairs: one document gives several pairs in turn.
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def make_eval(own: PairRun, held_out: PairData, histograms: dict | None = None):
    """eval_fn for `fit`: the bound of val's blanks; with --free_lengths also of unknown lengths."""
    numbers = spread_over(len(held_out), own.eval_pairs)
    tokenizer, sizes = held_out.tokenizer, held_out.tokenizer.token_bytes()

    def eval_fn(model):
        pairs = [held_out.pair(number) for number in numbers]
        nats = 0
        for seed, pair in enumerate(pairs):
            # The same seeds at each evaluation: the curve then moves with the model, not the noise.
            nats += writer.nats(model, tokenizer, own.form, pair, draws=EVAL_DRAWS, seed=seed)
        blanks = np.concatenate([blank for pair in pairs for blank in pair.blanks])
        figures = {
            "nats_per_token": nats / len(blanks),
            "bits_per_byte": nats / np.log(2) / max(1, sizes[blanks].sum()),
        }
        if own.free_lengths:
            # Lengths included, so it is no figure to compare with the two above.
            starts, free_nats = starts_of(model, tokenizer, histograms), 0.0
            for seed, pair in enumerate(pairs):
                free_nats += free_paths.nats(
                    model.labels, pair, starts, draws=EVAL_DRAWS, seed=seed
                )
            figures["free_nats_per_token"] = free_nats / len(blanks)
        return figures

    return eval_fn


def make_preview(own: PairRun, seed: int, held_out: PairData):
    """preview_fn for `fit`: how the blanks of the first of val's evaluated pairs are filled."""
    numbers = spread_over(len(held_out), own.eval_pairs)[:PREVIEWS]
    tokenizer = held_out.tokenizer

    def preview_fn(model):
        empty = []
        for number in numbers:
            pair = held_out.pair(number)
            masks = [np.full(len(blank), tokenizer.mask) for blank in pair.blanks]
            empty.append(dataclasses.replace(pair, blanks=masks))
        # The evaluation has read these pairs, so the preview shows what its figures mean.
        filled = writer.fill(model, tokenizer, own.form, empty, SampleConfig(), seed=seed)
        return "\n\n".join(tokenizer.decode(text.ids) for text in filled)

    return preview_fn
