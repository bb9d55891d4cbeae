"""Several pictures of the same words. The network reads them, and keeps the best.

A network of both directions can check its own work. It reads a row that hides the caption and all
fills, colours and shapes, as in image/hidden_words.py. What is left of the plan says which object
stands where. If an object is not in the plan, all its words are hidden, so that an object too many
lowers the score. All candidates are read in a single call. The best picture has the largest score:

    score = sum over hidden words of the plan of log p(word | picture, all that is not hidden)

The candidates show the same objects at other places (`planner.vary`). So the score cannot prefer
objects that the caption does not name. No other judge takes part, so the independent reader of
tools/paint_scores.py stays independent.

Shapes: B rows, L positions, P picture tokens, n candidates for the same words.
"""

from dataclasses import replace

import torch
from torch import Tensor

import diffusion
from image import hidden_words
from image.rows import Vocabulary, rows_of, to_device
from image.writer import Painting
from net.painter import Painter


@torch.no_grad()
def hidden_nats(
    model: Painter, vocabulary: Vocabulary, words: list[list[int]], pictures: Tensor
) -> Tensor:
    """log p of each hidden word of the plans, 0 for all other words: (B, L) float32.

    words: ids of B captions, each with its plan. pictures: (B, P) int64.
    """
    rows = rows_of(vocabulary, words, pictures, ["words"] * len(words))
    tokens, lengths, counts, free = to_device(rows, model.device)
    plan = vocabulary.plan
    hidden = hidden_words.places(tokens.shape[1], counts, plan, hidden_words.ATTRIBUTES)
    # The caption's words are hidden too, but several captions are true.
    in_plan = torch.arange(tokens.shape[1], device=model.device) >= (counts - plan)[:, None]
    hidden |= in_plan & free & (tokens == vocabulary.nothing)
    share = hidden.sum(1) / free.sum(1)
    denoise = model.bind_rows(lengths, counts)
    nats, _ = diffusion.masked_losses(denoise, tokens, hidden, share, vocabulary.mask)
    said = torch.zeros(tokens.shape, device=model.device)
    said[hidden] = -nats.float()
    return said.masked_fill(~in_plan, 0.0).cpu()


def scores(
    model: Painter, vocabulary: Vocabulary, words: list[list[int]], pictures: Tensor
) -> Tensor:
    """How well the network reads each plan in its picture, in nats: (B,) float32, at most 0."""
    return hidden_nats(model, vocabulary, words, pictures).sum(1)


def least_sure(
    model: Painter, vocabulary: Vocabulary, words: list[list[int]], pictures: Tensor
) -> Tensor:
    """The probability of the hidden word that the network doubts most: (B,) float32."""
    return hidden_nats(model, vocabulary, words, pictures).amin(1).exp()


def best(
    model: Painter, vocabulary: Vocabulary, painting: Painting, words: list[list[int]], count: int
) -> Painting:
    """The best of each `count` neighbouring pictures; of equals, the first.

    painting: of B · n rows. words: their ids, each with its plan. A painting of single candidates
    stays as it is, and is not read.
    """
    if count == 1:
        return painting
    found = scores(model, vocabulary, words, painting.tokens).view(-1, count)
    kept = torch.arange(len(found)) * count + found.argmax(1)
    return replace(
        painting,
        tokens=painting.tokens[kept],
        step=painting.step[kept],
        probability=painting.probability[kept],
        calls=painting.calls[kept] + 1,
        plans=[painting.plans[row] for row in kept.tolist()],
    )
