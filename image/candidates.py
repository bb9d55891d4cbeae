"""Several pictures for the same words, of which a network keeps the picture that it reads best.

A network of both directions can check its own work. Reading is easier than painting: whether a
shape is a star can be said of all its tokens together, and its colour apart. So a pair of colour
and shape that training never showed is read more often than it is painted.

The network reads a row whose caption and whose fills, colours and shapes are hidden, as in
image/hidden_words.py. What is left of the plan says which object stands where. All candidates are
read in a single call. A picture is as good as the attribute of which the network is least sure:

    score = min over attributes of log p(attribute | picture, places and sizes)

No other judge takes part. The independent reader of tools/paint_scores.py stays independent.

Shapes: B rows, L positions, P picture tokens, n candidates for the same words.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

import diffusion
from image import hidden_words
from image.rows import Vocabulary, rows_of, to_device
from image.writer import Painting
from net.painter import Painter


@torch.no_grad()
def scores(
    model: Painter, vocabulary: Vocabulary, words: list[list[int]], pictures: Tensor
) -> Tensor:
    """The log-probability of the attribute of which the network is least sure: (B,) float32.

    words: ids of B captions, each with its plan. pictures: (B, P) int64.
    """
    rows = rows_of(vocabulary, words, pictures, ["words"] * len(words))
    tokens, lengths, counts, free = to_device(rows, model.device)
    plan = vocabulary.plan
    hidden = hidden_words.places(tokens.shape[1], counts, plan, hidden_words.ATTRIBUTES)
    share = hidden.sum(1) / free.sum(1)
    denoise = model.bind_rows(lengths, counts)
    nats, _ = diffusion.masked_losses(denoise, tokens, hidden, share, vocabulary.mask)
    said = torch.full(tokens.shape, -math.inf, device=model.device)
    said[hidden] = nats.float()
    # The caption's words are hidden too, but several captions are true.
    in_plan = torch.arange(tokens.shape[1], device=model.device) >= (counts - plan)[:, None]
    return -said.masked_fill(~in_plan, -math.inf).amax(1).cpu()


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
