"""Whole samples of a text model: the denoiser fills rows of blanks, the twin continues a prompt."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from base.config import SampleConfig
from base.files import UserError
from net import block_writing, noise, twin
from net.block_writing import Finished
from net.samplers import Denoise, Sample, row_generators, sample
from net.soft_masks import check, writer_of
from net.stale import StaleReader


@dataclass
class Drawn:
    """A finished sample of n tokens.

    ids: [BOS] and [EOS] included. step: the call that revealed each id, 0 if it was given.
    probability: the model's own for each id, 1 if it was given. frames: the ids after each call, if
    asked for. calls: the calls that revealed something. rows: the denoiser's rows in these calls.
    """

    ids: list[int]
    step: list[int]
    probability: list[float]
    frames: list[list[int]]
    calls: int
    rows: int

    def record(self, tokenizer) -> dict:
        """Plain values for a JSON line."""
        return {
            "text": tokenizer.decode(self.ids),
            "tokens": self.ids,
            "step": self.step,
            "probability": [round(value, 6) for value in self.probability],
            "calls": self.calls,
            "rows": self.rows,
        }


def write(
    model,
    tokenizer,
    objective: str,
    rows: list[list[int]],
    settings: SampleConfig,
    *,
    seed: int = 0,
    first: int = 0,
    block_size: int = 0,
    stale: str = "none",
    keep_frames: bool = False,
    note: Callable[[int], None] | None = None,
    finished: Finished | None = None,
) -> list[Drawn]:
    """Write into the [MASK]s of each row of ids. A row's sample does not depend on the other rows.

    objective: the checkpoint's, "diffusion" or "ar". first: the number of the first row; with the
    seed it decides the rows' random numbers. block_size: of `blocks.choose`; 0: rows as a whole.
    stale: a kind of net/stale.py, for a plain denoiser whose settings have a block size.
    note(n): called when n masks are left, by the denoiser alone. finished: called in its place with
    the tokens (B, L) after each block.
    Raises UserError for the twin and words behind a blank, for --carry without soft masks, and as
    `block_writing.sample` does.
    """
    check(model, settings)
    if objective == "ar":
        return left_to_right(model, tokenizer, settings, rows, seed, first)
    tokens, lengths = padded(rows, tokenizer.pad, model.device)
    rngs = row_generators(seed, len(rows), first)
    if block_size:
        if note and not finished:
            finished = noting(tokenizer.mask, note)
        drawn = block_writing.sample(
            model,
            tokens,
            settings,
            size=block_size,
            mask_id=tokenizer.mask,
            rngs=rngs,
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            finished=finished,
            keep_frames=keep_frames,
        )
        lengths = (drawn.tokens != tokenizer.pad).sum(1)  # a text may have ended early
    else:
        drawn = whole(model, tokens, lengths, tokenizer, settings, stale, rngs, keep_frames, note)
    return samples_of(drawn, lengths)


def left_to_right(
    model, tokenizer, settings: SampleConfig, rows: list[list[int]], seed: int, first: int
) -> list[Drawn]:
    """The twin's samples. Raises UserError unless each row is a prompt and then blanks to its
    end.
    """
    length = len(rows[0])
    # All rows come from one template, so the first row speaks for all.
    prompt = rows[0][: rows[0].index(tokenizer.mask)]
    if any(id not in (tokenizer.mask, tokenizer.eos) for id in rows[0][len(prompt) :]):
        raise UserError(
            "a template with words behind a blank",
            "blanks at the end only, since this checkpoint is an autoregressive twin",
            "use a denoiser's checkpoint to fill the middle",
        )
    drawn = twin.sample(
        model,
        torch.tensor([prompt] * len(rows), device=model.device),
        length,
        eos=tokenizer.eos,
        pad=tokenizer.pad,
        # A generator per row: the size of a batch must not change any sample.
        rngs=row_generators(seed, len(rows), first),
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    samples = []
    for row, ids in enumerate(drawn.tokens.tolist()):
        # twin.sample writes [PAD] behind [EOS], so the first [PAD] ends the text.
        n = ids.index(tokenizer.pad) if tokenizer.pad in ids else length
        step = drawn.step[row].tolist()
        frames = []
        # The twin stores no frames: it writes in order, so the ids tell what each call knew.
        for known in range(len(prompt) + 1, n + 1):
            frames.append(ids[:known] + [tokenizer.mask] * (n - known))
        # A given token has log p = 0, so its probability reads 1.
        probability = drawn.log_prob[row, :n].exp().tolist()
        # One token per call, so the last step is the number of calls.
        samples.append(Drawn(ids[:n], step[:n], probability, frames, max(step), max(step)))
    return samples


def noted(denoise: Denoise, mask_id: int, rows: int, note: Callable[[int], None]) -> Denoise:
    """The same denoiser of `rows` rows, which tells before each call how many masks are left."""

    def wrapper(tokens, share, select):
        # The first of a row's neighbours holds no guess.
        note(int((tokens[:: len(tokens) // rows] == mask_id).sum()))
        return denoise(tokens, share, select)

    return wrapper


def noting(mask_id: int, note: Callable[[int], None]) -> Finished:
    """A function that tells after each block how many masks are left."""

    def finished(tokens: Tensor) -> None:
        note(int((tokens == mask_id).sum()))

    return finished


def padded(rows: list[list[int]], pad: int, device) -> tuple[Tensor, Tensor]:
    """Rows of different lengths in one batch: tokens (B, L), and lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    tokens = torch.full((len(rows), int(lengths.max())), pad, device=device)  # (B, L)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = torch.tensor(row)
    return tokens, lengths


def reader(model, lengths: Tensor, width: int, settings: SampleConfig, stale: str) -> Denoise:
    """The plain denoiser for rows (B, width) of `lengths` (B,) tokens, with or without a cache."""
    # Without padding the model gets no lengths, so it needs no attention mask.
    seen = lengths if int(lengths.min()) < width else None
    if stale == "none":
        return writer_of(model, settings, seen)
    return StaleReader(model, seen, settings.block_size, stale)


def whole(
    model,
    tokens: Tensor,
    lengths: Tensor,
    tokenizer,
    settings: SampleConfig,
    stale: str,
    rngs: list[torch.Generator],
    keep_frames: bool,
    note: Callable[[int], None] | None = None,
) -> Sample:
    """The samples of tokens (B, L) that are written as a whole, from masks or from other noise."""
    if noise.is_other(model.config):
        if note:
            note(0)  # the number of masks tells nothing about the rest of the work
        return noise.sample(
            model,
            tokens,
            settings,
            # Without padding the model gets no lengths, so it needs no attention mask.
            lengths=lengths if int(lengths.min()) < tokens.shape[1] else None,
            mask_id=tokenizer.mask,
            rngs=rngs,
            keep_frames=keep_frames,
        )
    denoise = reader(model, lengths, tokens.shape[1], settings, stale)
    if note:
        denoise = noted(denoise, tokenizer.mask, len(tokens), note)
    return sample(
        denoise,
        tokens,
        settings,
        mask_id=tokenizer.mask,
        rngs=rngs,
        eos=tokenizer.eos if settings.block_size else None,
        pad=tokenizer.pad,
        keep_frames=keep_frames,
    )


def samples_of(drawn: Sample, lengths: Tensor) -> list[Drawn]:
    """The rows of a batch, each without the padding behind it."""
    samples = []
    for row, n in enumerate(lengths.tolist()):
        ids, step = drawn.tokens[row, :n].tolist(), drawn.step[row, :n].tolist()
        probability = drawn.log_prob[row, :n].exp().tolist()
        frames = [frame[row, :n].tolist() for frame in drawn.frames]
        calls, taken = int(drawn.used[row]), int(drawn.rows[row])
        samples.append(Drawn(ids, step, probability, frames, calls, taken))
    return samples
