"""Writes texts block by block with the exact cache of a block model (net/blocks.py).

A finished block never changes, so its keys and values are computed once. They cost no call of their
own: the first call of the next block carries [finished block ; next block]. Within that call the
finished block sees itself and all earlier blocks, as in training. Later calls carry their block
alone. In a network with `logit_shift`, the last finished token predicts the first of the block: its
output of the first call is kept.

A text may be longer than the rows of the training: the oldest tokens are forgotten, so that no call
sees more than `max_length` tokens. Positions keep growing. Rotary products depend on distances, so
keys that were turned before stay right.

Shapes: B rows, L positions, n block size, M selected positions.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from base.config import SampleConfig
from base.files import UserError
from model import Cache, Denoiser, Rotary
from net import block_speculation, samplers
from net.samplers import Sample

# Called after each block with all tokens (B, L): those behind the block are masks still.
Finished = Callable[[Tensor], None]


class WindowCache(Cache):
    """A cache of finished blocks. What a call carries behind them may still change.

    final: how many tokens of the next call are finished.
    """

    def __init__(self) -> None:
        super().__init__()
        self.final = 0

    def extend(self, layer: int, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """As `Cache.extend`. m neighbours of each row, k (m·B, H, n, head), are not stored.

        Neighbours come with `speculate`, and never in the first call of a block.
        """
        if layer not in self.layers or len(k) == len(self.layers[layer][0]):
            return super().extend(layer, k, v, max_length)
        both = []
        for held, new in zip(self.layers[layer], (k, v), strict=True):
            before = held[:, :, : self.length].repeat_interleave(len(new) // len(held), 0)
            both.append(torch.cat([before, new], 2))
        return both[0], both[1]

    def advance(self, count: int) -> None:
        """Keep the finished tokens of a call; the next call overwrites the others."""
        super().advance(self.final)

    def forget(self, first: int) -> None:
        """Drop all tokens before position `first`."""
        count = min(self.length, max(0, first - (self.position - self.length)))
        for held in self.layers.values():
            for tensor in held:
                tensor[:, :, : self.length - count] = tensor[:, :, count : self.length].clone()
        self.length -= count
        self.position = max(self.position, first)


class Reader(Protocol):
    """A `diffusion.Denoise` of one block (B, n), which knows the text before it."""

    def begin(self, text: Tensor, left: int) -> None:
        """The block that starts at `left` is next; the text (B, L) before it is finished."""

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor, /) -> Tensor: ...


def first_in_sight(left: int, size: int, max_length: int) -> int:
    """The first position that the block from `left` on may see."""
    return max(0, left + size - max_length)


class CachedReader:
    """Reads each finished block once."""

    def __init__(self, model: Denoiser, size: int, pad: int):
        self.model, self.size, self.pad = model, size, pad
        self.cache = WindowCache()
        self.unread = torch.empty(0)
        self.before: Tensor | None = None  # (B, D), of the last finished token

    def begin(self, text: Tensor, left: int) -> None:
        self.cache.forget(first_in_sight(left, self.size, self.model.config.max_length))
        self.unread = text[:, self.cache.position : left]

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        """tokens (B, n) of the block, select (B, n) bool -> logits (M, V')."""
        finished = self.unread.shape[1]
        attend = self.in_sight(tokens)
        self.cache.final = finished
        seen = torch.cat([self.unread, tokens], 1) if finished else tokens
        x = self.model.trunk(seen, None, None, None, self.cache, attend)
        if finished:
            self.unread = self.unread[:, finished:]  # it is in the cache now
            self.before = x[:, finished - 1]
        return self.model.logits(self.outputs(x[:, finished:], select))

    def outputs(self, x: Tensor, select: Tensor) -> Tensor:
        """Of the block's x (B, n, D), what predicts the selected positions: (M, D)."""
        outputs = self.model.outputs(x, None)
        if self.model.config.logit_shift and self.before is not None:
            neighbours = len(x) // len(self.before)
            outputs[:, 0] = self.before.repeat_interleave(neighbours, 0)
        return outputs[select]

    def in_sight(self, tokens: Tensor) -> Tensor:
        """Which keys the queries of a call see: (B, 1, queries, keys) bool."""
        start, count = self.cache.position, self.unread.shape[1] + tokens.shape[1]
        position = torch.arange(start - self.cache.length, start + count, device=tokens.device)
        block = position // self.size
        earlier = block[-count:, None] >= block[None]  # (queries, keys)
        # A row that has ended, or is shorter than its neighbours, has padding in this block.
        real = tokens != self.pad
        real[:, 0] |= ~real.any(1)  # a softmax over nothing would be nan
        before = len(position) - tokens.shape[1]
        return earlier & torch.nn.functional.pad(real, (before, 0), value=True)[:, None, None]


def sample(
    model: Denoiser,
    tokens: Tensor,
    config: SampleConfig,
    *,
    size: int,
    mask_id: int,
    rngs: list[torch.Generator],
    eos: int,
    pad: int,
    finished: Finished | None = None,
    keep_frames: bool = False,
) -> Sample:
    """Fill every [MASK] of tokens (B, L), block by block; given tokens never change.

    size: tokens of a block. config.steps: denoiser calls per `max_length` tokens; each block gets
        its part, at least one.
    A drawn [EOS] ends its row, unless given words follow: [PAD] stands behind it.
    Rows may be longer than the model's `max_length`. Raises UserError if such rows start with more
    given tokens than the model sees. A block must then be at most half of what it sees.
    """
    longest = model.config.max_length
    if tokens.shape[1] > longest:
        check_long(tokens, size, longest, mask_id)
        reach(model, tokens.shape[1])
    if size == 1 and config.speculate:  # blocks of a token have nothing to guess in their block
        return block_speculation.sample(
            model,
            tokens,
            config,
            mask_id=mask_id,
            rngs=rngs,
            eos=eos,
            pad=pad,
            finished=finished,
            keep_frames=keep_frames,
        )
    steps = max(1, math.ceil(config.steps * size / longest))
    settings = dataclasses.replace(config, steps=steps, block_size=0)
    writing = Writing(CachedReader(model, size, pad), tokens, settings, mask_id, eos, pad, rngs)
    return writing.fill(size, finished, keep_frames)


def check_long(tokens: Tensor, size: int, longest: int, mask_id: int) -> None:
    """Raise UserError if rows longer than the model's length cannot be written."""
    if 2 * size > longest:
        raise UserError(
            f"a text of {tokens.shape[1]} tokens in blocks of {size}",
            f"blocks of at most half of the model's length {longest}, or a text of that length",
            "choose a smaller --block_size or --length",
        )
    given = (tokens != mask_id).all(0).long().cumprod(0).sum()
    if given + size > longest:
        raise UserError(
            f"a text that begins with {int(given)} given tokens",
            f"at most {longest - size}, so that a block of {size} sees all of them",
            "shorten it",
        )


def reach(model: Denoiser, length: int) -> None:
    """Make the model's table of rotary positions long enough for `length` tokens."""
    rotary = model.rotary
    if length > len(rotary.cos):
        longer = Rotary(rotary.cos.shape[1], length).to(rotary.cos.device)
        rotary.cos, rotary.sin = longer.cos, longer.sin


class Writing:
    """Rows (B, L) while their blocks are filled: the tokens and their trace, as in `Sample`."""

    def __init__(
        self,
        reader: Reader,
        tokens: Tensor,
        config: SampleConfig,
        mask_id: int,
        eos: int,
        pad: int,
        rngs: list[torch.Generator],
    ):
        self.reader, self.config, self.rngs = reader, config, rngs
        self.mask_id, self.eos, self.pad = mask_id, eos, pad
        self.tokens = tokens.clone()
        self.step = torch.zeros(tokens.shape, dtype=torch.long)
        self.log_prob = torch.zeros(tokens.shape)
        self.used = torch.zeros(len(tokens), dtype=torch.long)
        self.rows = torch.zeros_like(self.used)
        self.calls = 0
        self.frames: list[Tensor] = []
        words = (tokens != mask_id) & (tokens != eos) & (tokens != pad)
        number = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        self.words_end = (words * number).amax(1)  # (B,) behind the last given word

    def fill(self, size: int, finished: Finished | None, keep_frames: bool) -> Sample:
        """Fill block after block until no [MASK] is left."""
        for left in range(0, self.tokens.shape[1], size):
            if not (self.tokens[:, left:] == self.mask_id).any():
                break
            self.fill_block(left, left + size, keep_frames)
            if finished:
                finished(self.tokens)
        return Sample(
            self.tokens,
            self.step,
            self.log_prob,
            self.calls,
            self.used,
            self.rows,
            self.frames,
        )

    def fill_block(self, left: int, right: int, keep_frames: bool) -> None:
        """Fill the block left .. right - 1 by its own calls."""
        block = self.tokens[:, left:right]
        masked = block == self.mask_id
        self.reader.begin(self.tokens, left)
        drawn = samplers.sample(
            self.reader,
            block,
            self.config,
            mask_id=self.mask_id,
            rngs=self.rngs,
            keep_frames=keep_frames,
        )
        for frame in drawn.frames:
            whole = self.tokens.clone()
            whole[:, left:right] = frame
            self.frames.append(whole)
        self.tokens[:, left:right] = drawn.tokens
        self.step[:, left:right] = drawn.step + self.used[:, None] * (drawn.step > 0)
        self.log_prob[:, left:right] = drawn.log_prob
        self.calls += drawn.calls
        self.used += drawn.used
        self.rows += drawn.rows
        self.end_rows(left, masked)

    def end_rows(self, left: int, fresh: Tensor) -> None:
        """Put [PAD] behind the first [EOS] that was drawn. fresh: (B, n) bool, what was drawn."""
        position = torch.arange(self.tokens.shape[1], device=fresh.device)
        block = slice(left, left + fresh.shape[1])
        ends = fresh & (self.tokens[:, block] == self.eos)
        ends &= position[block] >= self.words_end[:, None]
        end = torch.where(ends, position[block], len(position)).amin(1)  # (B,)
        behind = position > end[:, None]
        self.tokens[behind] = self.pad
        self.step[behind.cpu()] = 0
        self.log_prob[behind.cpu()] = 0.0
