"""Which places of a picture a change of words affects: those whose tokens fit the new words less.

Shapes: P picture tokens of a picture, `side` of its grid.
"""

import torch
from torch import Tensor

import diffusion
from image.rows import Vocabulary, rows_of, to_device
from net import blocks, picture_blocks
from net.painter import Painter


@torch.no_grad()
def fall(
    model: Painter,
    vocabulary: Vocabulary,
    picture: Tensor,
    old: list[int],
    new: list[int],
    *,
    draws: int = 16,
    seed: int = 0,
) -> Tensor:
    """How far each token's log-probability falls when the words change from old to new: (P,).

    picture: (P,) int64. The mean over `draws` random masks of half of the picture or more: with all
    neighbours in sight the words would decide nothing, with none in sight they tell little of
    where a thing is. Both captions meet the same masks. A network of blocks reads the picture as a
    whole, if it learnt that, or else in its largest blocks.
    """
    size = picture_blocks.widest(model.config)
    rng = torch.Generator().manual_seed(seed)
    free = torch.ones(draws, len(picture), dtype=torch.bool)
    counts = (len(picture) * (0.5 + 0.5 * diffusion.stratified(draws, rng))).ceil().long()
    masked = diffusion.mask_exactly(free, counts, rng)
    said = []
    for words in (old, new):
        rows = rows_of(vocabulary, [words] * draws, picture.expand(draws, -1), ["picture"] * draws)
        tokens, _, number, _ = to_device(rows, model.device)
        hidden = torch.zeros_like(tokens, dtype=torch.bool)
        hidden[:, len(words) :] = masked.to(tokens.device)
        if size:
            both = picture_blocks.bind(model, number, None, size)
            nats, _ = blocks.masked_losses(both, tokens, hidden, vocabulary.mask)
        else:
            share = counts.to(tokens.device) / len(picture)
            plain = model.bind_rows(None, number)
            nats, _ = diffusion.masked_losses(plain, tokens, hidden, share, vocabulary.mask)
        sums = torch.zeros(draws, len(picture))
        sums[masked] = nats.float().cpu()
        said.append(sums.sum(0))
    return (said[1] - said[0]) / masked.sum(0).clamp(min=1)


def places(
    score: Tensor, side: int, threshold: float, top_share: float | None, grow: int = 1
) -> Tensor:
    """The places whose tokens are drawn again: (P,) bool, at least one.

    score: (P,) from `fall`, smoothed here over 3 × 3 places. threshold: nats. top_share: the share
    of places with the largest fall, in place of the threshold. grow: places around them, added.
    """
    grid = score.view(1, 1, side, side)
    pool = torch.nn.functional.avg_pool2d(grid, 3, 1, 1, count_include_pad=False)
    smooth = pool.flatten()
    least = threshold
    if top_share is not None:
        wanted = max(1, round(top_share * len(smooth)))
        least = float(smooth.topk(wanted).values[-1])
    chosen = smooth >= min(least, float(smooth.max()))
    if grow:
        wide = chosen.float().view(1, 1, side, side)
        size = 2 * grow + 1
        chosen = torch.nn.functional.max_pool2d(wide, size, 1, grow).flatten() > 0
    return chosen
