"""Blanks and what a conditional model writes into them (floor 2).

A template is what is given and how long each blank is; a blank of free length gets a length drawn from the training
pairs, or several, of which the one with the lowest bound per token is kept. The same functions serve both ways of
conditioning and the twin: `pairs.arrange` says what each reads, and the free positions of a row are the blanks in order.
"""

import dataclasses
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import diffusion
from base import templates
from base.config import SampleConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from diffusion import Denoise, guide
from net import twin
from net.samplers import row_generators, sample
from text.pairs import Pair, arrange, batch_of, place


@dataclass
class Template:
    """given: k + 1 arrays of ids as in pairs.Pair; lengths: tokens of the k blanks, None if free; kind: whose lengths those are."""

    given: list[np.ndarray]
    lengths: list[int | None]
    kind: str

    def pair(self, lengths: list[int], tokenizer: Tokenizer) -> Pair:
        return Pair(self.given, [np.full(n, tokenizer.mask) for n in lengths], self.kind)


@dataclass
class Filled:
    """A finished document: ids with [BOS] and [EOS]; the call that revealed each (0: given), its probability, the ids after every
    call; calls. blanks: what was written into each. nats: the blanks' bound (twin: exact figure) per token, if it was asked for."""

    ids: list[int]
    step: list[int]
    probability: list[float]
    frames: list[list[int]]
    calls: int
    blanks: list[list[int]]
    nats: float | None = None

    def segments(self, template: Template, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
        """The text in pieces, and whether each was written into a blank."""
        pieces = [(given, False) for given in template.given]
        for number, blank in enumerate(self.blanks):
            pieces.insert(2 * number + 1, (np.array(blank), True))
        return [(tokenizer.decode(ids), blank) for ids, blank in pieces]


def read_template(text: str, tokenizer: Tokenizer) -> Template:
    """A text with blanks: [MASK] is one token, [MASK*20] twenty, [MASK*] a free number. Raises UserError if it has none."""
    texts, lengths = templates.split(text, free=True)
    given = [tokenizer.encode(piece).tolist() for piece in texts]
    if not all(given[1:-1]) and len(given) > 2:
        raise UserError(
            f"the template {text!r}, with blanks side by side",
            "a word between them",
            "make them one blank",
        )
    given[0].insert(0, tokenizer.bos)
    given[-1].append(tokenizer.eos)
    kind = "continue" if len(lengths) == 1 and len(given[1]) == 1 else "blanks"
    return Template([np.array(piece, dtype=np.int64) for piece in given], lengths, kind)


def read_prompt(
    prompt: str | None, ending: str | None, tokenizer: Tokenizer, length: int = 0
) -> Template:
    """A beginning, and perhaps an ending, with one blank behind the first. Raises UserError if the beginning is missing."""
    if prompt is None or not prompt.strip():
        raise UserError(
            "an ending without a prompt" if prompt is None else "an empty --prompt",
            "a beginning",
            "give it with --prompt",
        )
    if ending is not None and not ending.strip():
        raise UserError("an empty --ending", "a last sentence", "give it, or drop --ending")
    behind = tokenizer.encode(ending if ending[0].isspace() else " " + ending) if ending else []
    given = [[tokenizer.bos, *tokenizer.encode(prompt.rstrip())], [*behind, tokenizer.eos]]
    return Template(
        [np.array(piece, dtype=np.int64) for piece in given],
        [length or None],
        "middle" if ending else "continue",
    )


def room(template: Template, form: str, tokenizer: Tokenizer, max_length: int) -> int:
    """How many tokens the free blanks may hold together. Raises UserError if the template is longer than the model."""
    row = arrange(template.pair([n or 0 for n in template.lengths], tokenizer), form, tokenizer)
    free = sum(n is None for n in template.lengths)
    left = max_length - len(row.ids)
    if left < free or len(row.condition) > max_length:
        given = sum(map(len, template.given))
        raise UserError(
            f"a template of {given} given tokens and {sum(n or 1 for n in template.lengths)} to fill",
            f"at most {max_length} together, the model's length",
            "shorten the prompt, or the blanks",
        )
    return left


def draw_lengths(
    template: Template, histograms: dict, left: int, rng: np.random.Generator
) -> list[int]:
    """A length for every blank: its own, or one drawn from the training pairs' that fits what is left."""
    lengths, later = [], sum(n is None for n in template.lengths)
    for n in template.lengths:
        if n is None:
            later -= 1
            count = np.array(histograms[template.kind], dtype=float)[: left - later + 1]
            count[0] = 0
            if not count.sum():  # less is left than any blank in training has
                count = np.arange(left - later + 1, dtype=float) > 0
            n = int(rng.choice(len(count), p=count / count.sum()))
            left -= n
        lengths.append(n)
    return lengths


def barred(denoise: Denoise, tokenizer: Tokenizer) -> Denoise:
    """The denoiser that writes text only: neither [EOS] nor [UNK] in the middle of a document."""

    def write(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        return denoise(tokens, share, select).index_fill(
            -1, torch.tensor([tokenizer.eos, tokenizer.unk], device=tokens.device), -torch.inf
        )

    return write


def denoisers(model, form: str, batch: dict, tokenizer: Tokenizer) -> tuple[Denoise, Denoise]:
    """The model with its condition and without it, as diffusion.py and samplers.py take them.

    Without: `cross` gets no condition; `context` gets the row with the given tokens masked as well.
    """
    _, lengths, free = place(batch, model.device)
    if form == "cross":
        condition = model.read(
            batch["condition"].to(model.device), batch["condition_lengths"].to(model.device)
        )
        return model.bind(lengths, condition), model.bind(lengths)
    written = hideable(batch, model.device)

    def blind(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        hidden = tokens.masked_fill(written & ~free, tokenizer.mask)
        return model(
            hidden,
            share=(hidden == tokenizer.mask).sum(1) / written.sum(1),
            select=select,
            lengths=lengths,
        )

    return model.bind(lengths), blind


def hideable(batch: dict, device) -> Tensor:
    """(B, L) bool: all tokens of a `context` row but its [BOS], its [EOS] and padding: what the unconditional model writes."""
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
    """Write into the blanks of each pair, which hold [MASK]s. A pair's result does not depend on the others.

    open_blanks: which blanks the twin ends itself, at their length at most; in the others (None: in all) it may not end before.
    """
    if form == "ar":
        return [
            continue_blanks(
                model,
                tokenizer,
                pair,
                settings,
                row_generators(seed, 1, first + row),
                open_blanks or [False] * len(pair.blanks),
            )
            for row, pair in enumerate(pairs)
        ]
    batch = batch_of(pairs, form, tokenizer)
    tokens, _, free = place(batch, model.device)
    conditional, blind = denoisers(model, form, batch, tokenizer)
    denoise = barred(
        conditional if guidance == 1.0 else guide(conditional, blind, guidance), tokenizer
    )
    rows = torch.where(free, tokenizer.mask, tokens)
    # A condition's own [MASK]s are no part of the row, and a `context` row has none but its blanks.
    drawn = sample(
        denoise,
        rows,
        settings,
        mask_id=tokenizer.mask,
        rngs=row_generators(seed, len(pairs), first),
        keep_frames=keep_frames,
    )
    result = []
    for row, pair in enumerate(pairs):
        mine = free[row]
        take = lambda values: values[row][mine].cpu().numpy()  # noqa: B023,E731
        result.append(
            assemble(
                pair,
                take(drawn.tokens),
                take(drawn.step.to(mine.device)),
                take(drawn.log_prob.to(mine.device).exp()),
                [take(frame) for frame in drawn.frames],
                tokenizer,
                int(drawn.used[row]),
            )
        )
    return result


def assemble(
    pair: Pair,
    ids: np.ndarray,
    step: np.ndarray,
    probability: np.ndarray,
    frames: list[np.ndarray],
    tokenizer: Tokenizer,
    calls: int,
) -> Filled:
    """The document of a pair, what was written into its blanks put where it belongs."""
    whole = pair.whole()
    blank = whole == tokenizer.mask
    spread = lambda values, rest: np.where(
        blank, np.concatenate([[0], values])[np.cumsum(blank)], rest
    ).tolist()  # noqa: E731
    edges = np.cumsum([0, *map(len, pair.blanks)])
    return Filled(
        spread(ids, whole),
        spread(step, 0),
        spread(probability, 1.0),
        [spread(frame, whole) for frame in frames],
        calls,
        [ids[left:right].tolist() for left, right in zip(edges, edges[1:], strict=False)],
    )


def continue_blanks(
    model, tokenizer: Tokenizer, pair: Pair, settings: SampleConfig, rngs, open_blanks: list[bool]
) -> Filled:
    """The twin's turn: the ending and the beginning as its prompt, then blank after blank, each behind the [EOS] of the last."""
    row = arrange(pair, "ar", tokenizer)
    prompt = row.ids[: int(row.free.argmax())]
    written: list[np.ndarray] = []
    probability: list[float] = []
    for blank, ends_itself in zip(pair.blanks, open_blanks, strict=True):
        bar = torch.tensor(
            [tokenizer.unk] + [tokenizer.eos] * (not ends_itself), device=model.device
        )
        say = lambda *args, **more: model(*args, **more).index_fill(-1, bar, -torch.inf)  # noqa: B023,E731
        drawn = twin.sample(
            say,
            torch.from_numpy(prompt)[None].to(model.device),
            len(prompt) + len(blank),
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            rngs=rngs,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        mine = drawn.tokens[0, len(prompt) :].cpu().numpy()
        mine = mine[(mine != tokenizer.pad) & (mine != tokenizer.eos)]
        written.append(mine)
        probability += drawn.log_prob[0, len(prompt) : len(prompt) + len(mine)].exp().tolist()
        prompt = np.concatenate([prompt, mine, [tokenizer.eos]])
    ids, sizes = np.concatenate(written), [len(mine) for mine in written]
    done = dataclasses.replace(pair, blanks=[np.full(n, tokenizer.mask) for n in sizes])
    step = np.arange(1, len(ids) + 1)
    return assemble(
        done,
        ids,
        step,
        np.array(probability),
        [np.where(step <= now, ids, tokenizer.mask) for now in step],
        tokenizer,
        len(ids),
    )


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
    """The bound of a pair's blanks given the rest, in nats (the twin: the exact figure, its [EOS]s included).

    One pair at a time, as `draws` rows under stratified noise levels: nothing is padded, and no other pair changes it.
    blind: without the condition.
    """
    batch = batch_of([pair], form, tokenizer)
    if form == "ar":
        tokens, _, free = place(batch, model.device)
        return float(twin.likelihoods(model, tokens, free)[0])
    if form == "context":
        batch = {
            name: value.expand(draws, *value.shape[1:]) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
    denoise = denoisers(model, form, batch, tokenizer)[blind]
    tokens, _, free = place(batch, model.device)
    tokens, free = (
        tokens.expand(draws, -1),
        free.expand(draws, -1),
    )  # one condition serves all draws
    rng = torch.Generator().manual_seed(seed)
    drawn = diffusion.corrupt(free, diffusion.stratified(draws, rng), rng)
    losses, _ = diffusion.masked_losses(denoise, tokens, drawn.masked, drawn.share, tokenizer.mask)
    return float((losses.double() * drawn.weight[drawn.masked.nonzero()[:, 0]]).sum() / draws)


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
) -> list[Filled]:
    """`number` ways to fill a template, each the best of `rerank` lengths drawn for its free blanks, by bound per token.

    Drawn lengths bring the prior in; the bound per token, unlike the bound, does not prefer short texts.
    """
    left = room(template, form, tokenizer, model.config.max_length)
    free = [n is None for n in template.lengths]
    tries = rerank if any(free) and form != "ar" else 1
    pairs = []
    for which in range(number * tries):
        if form == "ar":
            lengths = [n or left // sum(free) for n in template.lengths]
        else:
            lengths = draw_lengths(template, histograms, left, np.random.default_rng((seed, which)))
        pairs.append(template.pair(lengths, tokenizer))
    filled = []
    for first in range(0, len(pairs), batch_size):
        filled += fill(
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
    for one in filled:
        done = Pair(
            template.given, [np.array(blank, dtype=np.int64) for blank in one.blanks], template.kind
        )
        tokens = sum(map(len, one.blanks)) + (len(one.blanks) if form == "ar" else 0)
        one.nats = nats(model, tokenizer, form, done, draws=draws, seed=seed) / max(1, tokens)
    return [
        min(filled[first : first + tries], key=lambda one: one.nats)
        for first in range(0, len(filled), tries)
    ]


def edited(segments: list[tuple[str, bool]], number: int, word: str, tokenizer: Tokenizer) -> str:
    """The template in which word `number` (from 1) is `word` and given, and what else was written is blank again, as long as before.

    Raises UserError if there is no such word.
    """
    text = "".join(piece for piece, _ in segments)
    blank = np.concatenate([np.full(len(piece), written) for piece, written in segments])
    words = list(re.finditer(r"\s?\S+", text))
    if not 1 <= number <= len(words):
        raise UserError(f"word {number}", f"1 to {len(words)}", "choose one of these")
    start, end = words[number - 1].span()
    blank[start:end] = False
    lead = text[start] if text[start].isspace() else ""
    text, blank = (
        text[:start] + lead + word + text[end:],
        np.concatenate([blank[:start], np.zeros(len(lead + word), dtype=bool), blank[end:]]),
    )
    cuts = [0, *(np.flatnonzero(np.diff(blank)) + 1).tolist(), len(text)]
    result = ""
    for left, right in zip(cuts, cuts[1:], strict=False):
        piece = text[left:right]
        result += (
            f"{' ' if piece[0] == ' ' else ''}[MASK*{len(tokenizer.encode(piece))}]"
            if blank[left]
            else piece
        )
    return result
