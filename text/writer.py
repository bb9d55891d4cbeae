"""Write into the blanks of templates with a conditional model, or with the autoregressive twin.

The same functions serve both ways of conditioning and the twin: `forms.arrange` makes the row that
each of them reads. The free positions of a row hold the blanks in their order.

A blank of free length gets a length drawn from the training pairs. With reranking several lengths
are drawn, and the text with the lowest bound per token is kept.
"""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import diffusion
from base.config import SampleConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from diffusion import Denoise, guide
from loop import progress
from net import twin
from net.samplers import Sample, row_generators, sample
from text.blanks import Template, draw_lengths, room
from text.forms import Pair, arrange
from text.pairs import batch_of, to_device

READ_BY_TWIN = ("temperature", "top_p")  # it writes from left to right: no sampler, no steps


@dataclass
class Filled:
    """A finished document of n tokens.

    ids: [BOS] and [EOS] included. step: the call that revealed each id, 0 if it was given.
    probability: of each id, 1 if it was given. frames: the ids after each call, if asked for.
    calls: the calls that revealed something. blanks: the ids written into each blank. nats: the
    bound of the blanks per token (the twin: the exact figure), if asked for. edits: of blanks that
    grew or shrank, the places that they began with, and the numbers of edits.
    """

    ids: list[int]
    step: list[int]
    probability: list[float]
    frames: list[list[int]]
    calls: int
    blanks: list[list[int]]
    nats: float | None = None
    edits: dict | None = None

    def segments(self, template: Template, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
        """The text in pieces, and whether each was written into a blank."""
        segments = [(tokenizer.decode(template.given[0]), False)]
        for blank, given in zip(self.blanks, template.given[1:], strict=True):
            segments.append((tokenizer.decode(blank), True))
            segments.append((tokenizer.decode(given), False))
        return segments

    def record(self, tokenizer: Tokenizer, kind: str) -> dict:
        """Plain values for a JSON line. kind: the template's."""
        return {
            "text": tokenizer.decode(self.ids),
            "blanks": [tokenizer.decode(blank) for blank in self.blanks],
            "kind": kind,
            "nats_per_token": round(self.nats, 4),
            "tokens": self.ids,
            "step": self.step,
            "probability": [round(value, 6) for value in self.probability],
            "calls": self.calls,
            **(self.edits or {}),
        }


def refuse_for_twin(given: list[str]) -> None:
    """Raise UserError for given settings that an autoregressive twin does not read."""
    names = [name for name in given if name not in READ_BY_TWIN]
    if names:  # an ignored flag would look as if it had worked
        raise UserError(
            f"--{', --'.join(names)} for an autoregressive twin",
            "--temperature and --top_p at most: it writes from left to right",
            "drop it, or name a denoiser's checkpoint",
        )


def barred(denoise: Denoise, tokenizer: Tokenizer) -> Denoise:
    """The denoiser that writes text only: neither [EOS] nor [UNK] in the middle of a document."""

    def write(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        never = torch.tensor([tokenizer.eos, tokenizer.unk], device=tokens.device)
        return denoise(tokens, share, select).index_fill(-1, never, -torch.inf)

    return write


def denoisers(model, form: str, batch: dict, tokenizer: Tokenizer) -> tuple[Denoise, Denoise]:
    """The model with its condition and without it, as diffusion.py and net/samplers.py call them.

    Without it, a `cross` model gets no condition, and a `context` model gets the row with its given
    tokens masked too. guide() steers from the second to the first.
    """
    _, lengths, free = to_device(batch, model.device)
    if form == "cross":
        condition = model.read(
            batch["condition"].to(model.device), batch["condition_lengths"].to(model.device)
        )
        return model.bind(lengths, condition), model.bind(lengths)
    written = hideable(batch, model.device)

    def blind(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        neighbours = len(tokens) // len(written)
        given = (written & ~free).repeat_interleave(neighbours, 0)
        hidden = tokens.masked_fill(given, tokenizer.mask)
        total = written.sum(1).repeat_interleave(neighbours)
        return model(
            hidden,
            share=(hidden == tokenizer.mask).sum(1) / total,
            select=select,
            lengths=lengths,
        )

    return model.bind(lengths), blind


def hideable(batch: dict, device) -> Tensor:
    """The positions of a `context` row that the model without a condition writes: (B, L) bool.

    They are all but its [BOS], its [EOS] and the padding.
    """
    position = torch.arange(batch["tokens"].shape[1], device=device)
    return (position >= 1) & (position < batch["lengths"].to(device)[:, None] - 1)


@torch.no_grad()
def fill(
    model,
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

    first: the number of the first pair; with the seed it decides the random numbers. open_blanks:
    for the twin, which blanks it ends itself, at their length at the latest. It may not end the
    others before; None: no blank.
    """
    if form == "ar":
        filled = []
        for row, pair in enumerate(pairs):
            rngs = row_generators(seed, 1, first + row)
            ends_itself = open_blanks or [False] * len(pair.blanks)
            filled.append(continue_blanks(model, tokenizer, pair, settings, rngs, ends_itself))
        return filled
    batch = batch_of(pairs, form, tokenizer)
    tokens, _, free = to_device(batch, model.device)
    conditional, blind = denoisers(model, form, batch, tokenizer)
    # Guidance doubles the calls of the model, so 1.0 skips the blind model.
    guided = conditional if guidance == 1.0 else guide(conditional, blind, guidance)
    # [MASK]s of a condition are no part of the row; the row of `context` has [MASK]s in blanks
    # only.
    drawn = sample(
        barred(guided, tokenizer),
        torch.where(free, tokenizer.mask, tokens),
        settings,
        mask_id=tokenizer.mask,
        rngs=row_generators(seed, len(pairs), first),
        keep_frames=keep_frames,
    )
    return [document_of(pair, drawn, row, free[row], tokenizer) for row, pair in enumerate(pairs)]


def document_of(pair: Pair, drawn: Sample, row: int, free: Tensor, tokenizer: Tokenizer) -> Filled:
    """The document of one row of a batch. free: (L,) its positions in blanks."""
    where = free.cpu()

    def written(values: Tensor) -> np.ndarray:
        """The values (B, L) of this row at its blanks."""
        return values[row].cpu()[where].numpy()

    return assemble(
        pair,
        written(drawn.tokens),
        written(drawn.step),
        written(drawn.log_prob.exp()),
        [written(frame) for frame in drawn.frames],
        tokenizer,
        int(drawn.used[row]),
    )


def assemble(
    pair: Pair,
    ids: np.ndarray,
    step: np.ndarray,
    probability: np.ndarray,
    frames: list[np.ndarray],
    tokenizer: Tokenizer,
    calls: int,
) -> Filled:
    """The document of a pair, with the m written tokens in its blanks.

    ids, step, probability: (m,) of the written tokens, in their order. frames: (m,) ids after each
    call.
    """
    whole = pair.whole()
    blank = whole == tokenizer.mask

    def spread(values: np.ndarray, given: np.ndarray | float) -> list:
        """Values for the whole document: those of the written tokens, and `given` elsewhere."""
        # Blank number k of the document, counted from 1, takes value number k; 0 stands for a given
        # token.
        return np.where(blank, np.concatenate([[0], values])[np.cumsum(blank)], given).tolist()

    edges = np.cumsum([0, *map(len, pair.blanks)])
    return Filled(
        spread(ids, whole),
        spread(step, 0),
        spread(probability, 1.0),
        [spread(frame, whole) for frame in frames],
        calls,
        [ids[left:right].tolist() for left, right in itertools.pairwise(edges)],
    )


def continue_blanks(
    model, tokenizer: Tokenizer, pair: Pair, settings: SampleConfig, rngs, open_blanks: list[bool]
) -> Filled:
    """Blanks of one pair filled by the twin, each behind the [EOS] of the blank before it.

    Its prompt is the ending, if there is one, and then the beginning (text/pairs.py). open_blanks:
    which blanks it ends itself.
    """
    row = arrange(pair, "ar", tokenizer)
    prompt = row.ids[: int(row.free.argmax())]
    written: list[np.ndarray] = []
    probability: list[float] = []
    for blank, ends_itself in zip(pair.blanks, open_blanks, strict=True):
        never = [tokenizer.unk] if ends_itself else [tokenizer.unk, tokenizer.eos]
        drawn = twin.sample(
            without(model, never),
            torch.from_numpy(prompt)[None].to(model.device),
            len(prompt) + len(blank),
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            rngs=rngs,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        ids = drawn.tokens[0, len(prompt) :].cpu().numpy()
        ids = ids[(ids != tokenizer.pad) & (ids != tokenizer.eos)]
        written.append(ids)
        probability += drawn.log_prob[0, len(prompt) : len(prompt) + len(ids)].exp().tolist()
        prompt = np.concatenate([prompt, ids, [tokenizer.eos]])
    ids = np.concatenate(written)
    blanks = [np.full(len(piece), tokenizer.mask) for piece in written]
    step = np.arange(1, len(ids) + 1)  # one token per call
    return assemble(
        dataclasses.replace(pair, blanks=blanks),
        ids,
        step,
        np.array(probability),
        [np.where(step <= now, ids, tokenizer.mask) for now in step],
        tokenizer,
        len(ids),
    )


def without(model, never: list[int]) -> Callable[..., Tensor]:
    """The model with the ids in `never` impossible."""
    barred_ids = torch.tensor(never, device=model.device)

    def call(*arguments, **options) -> Tensor:
        return model(*arguments, **options).index_fill(-1, barred_ids, -torch.inf)

    return call


@torch.no_grad()
def nats(
    model,
    tokenizer: Tokenizer,
    form: str,
    pair: Pair,
    *,
    draws: int = 8,
    seed: int = 0,
    blind: bool = False,
) -> float:
    """The bound of a pair's blanks given the rest, in nats; the twin's is exact and counts its
    [EOS]s.

    The pair is alone, as `draws` rows under stratified noise levels: nothing is padded, and no
    other pair changes the figure. blind: without the condition.
    """
    batch = batch_of([pair], form, tokenizer)
    if form == "ar":
        tokens, _, free = to_device(batch, model.device)
        return float(twin.likelihoods(model, tokens, free)[0])
    if form == "context":
        for name, value in batch.items():
            if isinstance(value, Tensor):
                batch[name] = value.expand(draws, *value.shape[1:])
    denoise = denoisers(model, form, batch, tokenizer)[blind]
    tokens, _, free = to_device(batch, model.device)
    tokens, free = (
        tokens.expand(draws, -1),
        free.expand(draws, -1),
    )  # one condition serves all draws
    # On the CPU: a GPU's generator would draw other masks, and the figure would depend on it.
    rng = torch.Generator().manual_seed(seed)
    drawn = diffusion.corrupt(free, diffusion.stratified(draws, rng), rng)
    losses, _ = diffusion.masked_losses(denoise, tokens, drawn.masked, drawn.share, tokenizer.mask)
    weight = drawn.weight[drawn.masked.nonzero()[:, 0]]  # of each masked token: its row's
    return float((losses.double() * weight).sum() / draws)


def fill_template(
    model,
    tokenizer: Tokenizer,
    form: str,
    template: Template,
    histograms: dict,
    settings: SampleConfig,
    number: int,
    *,
    rerank: int = 1,
    guidance: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
    draws: int = 8,
    keep_frames: bool = False,
    write: Callable[..., list[Filled]] = fill,
) -> list[Filled]:
    """`number` ways to fill a template, each the best of `rerank` drawn lengths.

    The best has the lowest bound per token. The drawn lengths bring the prior in; the bound per
    token, unlike the bound, does not prefer short texts. draws: noise levels of a bound. write:
    `fill`, or `free_writer.fill`, which begins with the drawn lengths and edits them.
    """
    free = [n is None for n in template.lengths]
    # Without a free length all tries would have one length; the twin ends its blanks itself.
    tries = rerank if any(free) and form != "ar" else 1
    left = room(template, form, tokenizer, model.config.max_length)
    pairs = empty_pairs(template, form, tokenizer, histograms, left, number * tries, seed)
    filled = []
    for first in progress.bar(range(0, len(pairs), batch_size), "texts", unit="batch"):
        filled += write(
            model,
            tokenizer,
            form,
            pairs[first : first + batch_size],
            settings,
            guidance=guidance,
            seed=seed,
            first=first,
            open_blanks=free,
            keep_frames=keep_frames,
        )
    for text in progress.bar(filled, "bounds", unit="text"):
        text.nats = nats_per_token(model, tokenizer, form, template, text, draws, seed)
    groups = [filled[first : first + tries] for first in range(0, len(filled), tries)]
    return [min(group, key=lambda text: text.nats) for group in groups]


def empty_pairs(
    template: Template, form: str, tokenizer: Tokenizer, histograms: dict, left: int, count, seed
) -> list[Pair]:
    """`count` pairs with [MASK]s in their blanks. Free blanks have drawn lengths, or for the twin
    all tokens that are left.
    """
    pairs = []
    for which in range(count):
        if form == "ar":
            lengths = [n or left // template.lengths.count(None) for n in template.lengths]
        else:
            lengths = draw_lengths(template, histograms, left, np.random.default_rng((seed, which)))
        pairs.append(template.pair(lengths, tokenizer))
    return pairs


def nats_per_token(
    model, tokenizer: Tokenizer, form: str, template: Template, text: Filled, draws: int, seed: int
) -> float:
    """`nats` of a filled template per token; the twin's tokens include an [EOS] for each blank."""
    blanks = [np.array(blank, dtype=np.int64) for blank in text.blanks]
    pair = Pair(template.given, blanks, template.kind)
    tokens = sum(map(len, blanks))
    if form == "ar":
        tokens += len(blanks)
    return nats(model, tokenizer, form, pair, draws=draws, seed=seed) / max(1, tokens)
