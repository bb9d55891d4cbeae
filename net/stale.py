"""Approximate caches for a plain denoiser that writes in blocks: smaller calls, another law.

Within a block of `--block_size` tokens, the keys and values of all other tokens are those of the
block's first call, which reads the whole row (Fast-dLLM, arXiv 2505.22618, section 3.2). They are
out of date as soon as the block has a new token, because a denoiser sees both sides.

    dual     later calls compute the block alone
    prefix   later calls compute the block and what is behind it

Each block begins with a call of the whole row, so a block's mistakes stay in its own calls. A block
model's cache is exact (net/block_writing.py). `python -m tools.shortcuts --caches prefix,dual` says
how often the tokens agree with an uncached run, and how fast it is.

Shapes: B rows, L positions, M selected positions.
"""

from torch import Tensor

from model import Cache, Denoiser, real_positions

KINDS = ("none", "prefix", "dual")


class StaleCache(Cache):
    """The keys and values of all L positions, each from the last call that computed it.

    columns: the positions that the next call carries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.columns = slice(0, 0)

    def where(self, count: int) -> slice:
        return self.columns

    def extend(self, layer: int, k: Tensor, v: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        if layer not in self.layers or k.shape[2] == self.layers[layer][0].shape[2]:
            self.layers[layer] = (k, v)
        all_k, all_v = self.layers[layer]
        all_k[:, :, self.columns] = k
        all_v[:, :, self.columns] = v
        return all_k, all_v

    def advance(self, count: int) -> None:
        """Every call starts from a row's own positions."""


class StaleReader:
    """A `diffusion.Denoise` of whole rows, which computes a part of them.

    lengths: (B,) real tokens of each row, or None without padding. size: tokens of a block. kind:
    `prefix` or `dual`. A call whose selected positions are not all in one block reads everything.
    """

    def __init__(self, model: Denoiser, lengths: Tensor | None, size: int, kind: str):
        self.model, self.lengths, self.size, self.kind = model, lengths, size, kind
        self.cache = StaleCache()
        self.left = -1  # where the block of the last call begins

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        """tokens (B, L), select (B, L) bool -> logits (M, V')."""
        length = tokens.shape[1]
        column = select.any(0).nonzero()[:, 0]
        first, last = int(column[0]), int(column[-1])
        left = first // self.size * self.size
        columns = slice(0, length)
        if left == self.left and last < left + self.size:
            # With a logit shift, the block's first token is predicted by the position before it.
            begin = max(0, left - int(self.model.config.logit_shift))
            columns = slice(begin, length if self.kind == "prefix" else left + self.size)
        self.left = left if last < left + self.size else -1
        self.cache.columns = columns
        attend = None if self.lengths is None else real_positions(self.lengths, length)
        return self.model(
            tokens[:, columns],
            share=share,
            select=select[:, columns],
            cache=self.cache,
            attend=attend,
        )
