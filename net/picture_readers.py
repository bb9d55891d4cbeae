"""What a painter says of the masked tokens of pictures, given the words of their rows.

Two classes with the same two methods (`net.block_writing.Reader`). `WholePicture` reads the whole
row in each call. `CachedPicture` reads words and finished blocks once, which is exact: a finished
block never changes, and sees nothing behind it (net/picture_blocks.py). So its keys and values are
computed once. They cost no call of their own: the first call of the next block carries [finished
block ; next block]. Later calls carry their block alone, n tokens in place of the whole row.

Rows of a batch have different numbers of words. In the cache, words stand behind padding that
nobody sees. So a row stands a few positions farther right than alone. Rotary products depend on
distances, so this changes nothing but roundings.

Shapes: B rows, W words of the longest row, P places of a picture, n block size, M selected.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from net import picture_blocks
from net.block_writing import Reader, WindowCache
from net.painter import Painter
from net.plan_places import Objects


def reader_of(model: Painter, words: list[list[int]], pad: int, size: int) -> Reader:
    """A reader of pictures with these words. size: of its blocks; 0: the picture as a whole."""
    return CachedPicture(model, words, pad, size) if size else WholePicture(model, words, pad)


class WholePicture:
    """A `diffusion.Denoise` of pictures (B, P) that are drawn as a whole."""

    def __init__(self, model: Painter, words: list[list[int]], pad: int):
        self.model = model
        longest = max(len(row) for row in words)
        self.counts = torch.tensor([len(row) for row in words], device=model.device)
        rows = [row + [pad] * (longest + model.side**2 - len(row)) for row in words]
        self.rows = torch.tensor(rows, device=model.device)  # (B, W + P), without the pictures

    def begin(self, picture: Tensor, left: int) -> None:
        """All of the picture is read in each call."""

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        """tokens (B, P), select (B, P) bool -> logits (M, V')."""
        neighbours = len(tokens) // len(self.rows)
        rows = self.rows.repeat_interleave(neighbours, 0)
        counts = self.counts.repeat_interleave(neighbours, 0)
        where = counts[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        rows = rows.scatter(1, where, tokens)
        chosen = torch.zeros_like(rows, dtype=torch.bool).scatter(1, where, select)
        lengths = counts + tokens.shape[1]
        has_padding = rows.shape[1] > int(lengths.min())
        return self.model(
            rows, share=share, select=chosen, lengths=lengths if has_padding else None, words=counts
        )


def right_aligned(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Words of rows behind their padding: (B, W) int64, and which of them are words, bool."""
    width = max(len(row) for row in rows)
    words = torch.full((len(rows), width), pad)
    for number, row in enumerate(rows):
        words[number, width - len(row) :] = torch.tensor(row)
    fewest = torch.tensor([width - len(row) for row in rows])
    return words, torch.arange(width) >= fewest[:, None]


class CachedPicture:
    """A `net.block_writing.Reader` of pictures (B, P): a `diffusion.Denoise` of one block."""

    def __init__(self, model: Painter, words: list[list[int]], pad: int, size: int):
        self.model, self.size, self.vectors = model, size, model.vectors()
        aligned, is_real = right_aligned(words, pad)
        self.words, self.is_real = aligned.to(model.device), is_real.to(model.device)
        self.cache = WindowCache()
        self.unread = self.words
        self.objects: Objects | None = None  # of the plan in the words
        self.before: Tensor | None = None  # (B, 1, D), of the last finished token

    def begin(self, picture: Tensor, left: int) -> None:
        """The block that starts at place `left` is next; the picture (B, P) before it is there."""
        whole = torch.cat([self.words, picture.to(self.words.device)], 1)
        self.unread = whole[:, self.cache.position : self.words.shape[1] + left]

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        """tokens (B, n) of the block, select (B, n) bool -> logits (M, V')."""
        finished, start = self.unread.shape[1], self.cache.position
        seen = torch.cat([self.unread, tokens], 1) if finished else tokens
        place = torch.arange(start, start + seen.shape[1], device=tokens.device)
        place = (place - self.words.shape[1]).expand(len(seen), -1)
        neighbours = len(tokens) // len(self.words)  # of guesses: --speculate
        objects = self.objects.repeated(neighbours) if self.objects else None
        inputs = self.model.inputs_of(seen, place, self.vectors, objects)
        if not start:
            self.objects = self.model.objects_of(self.words)
        self.cache.final = finished
        attend = self.in_sight(tokens.shape[1]).repeat_interleave(neighbours, 0)
        x = self.model.trunk(seen, None, None, None, self.cache, attend, inputs)
        if finished:
            self.before = x[:, finished - 1 : finished]
            self.unread = self.unread[:, finished:]  # it is in the cache now
        assert self.before is not None
        # With a shift, the token before a place predicts it: the block's first is told by `before`.
        before = self.before.repeat_interleave(neighbours, 0)
        x = torch.cat([before, x[:, finished:]], 1)
        place = F.pad(place[:, finished:], (1, 0), value=0)
        return self.model.predict(x, place, F.pad(select, (1, 0)), self.vectors)

    def in_sight(self, block: int) -> Tensor:
        """Which keys the queries of a call see: (B, 1, queries, keys) bool.

        Words see each other; a block sees itself, all blocks before it, and the words.
        """
        width = self.words.shape[1]
        keys = self.cache.position + self.unread.shape[1] + block
        place = torch.arange(keys, device=self.words.device) - width
        number = picture_blocks.block_of(place, self.size)
        earlier = number[self.cache.position :, None] >= number  # (queries, keys)
        real = F.pad(self.is_real, (0, keys - width), value=True)
        return earlier & real[:, None, None]
