"""Pairs of images whose captions have the same words: does the model prefer the right caption?"""

import itertools

import numpy as np

from base import metrics
from caption import moving, store, writer
from caption.data import CaptionData
from loop import distributed


def swap_scores(
    model,
    tokenizer,
    saved: dict,
    data: CaptionData,
    *,
    draws: int = 16,
    batch_size: int = 100,
    orders: moving.Orders | None = None,
) -> dict:
    """Winoground's three scores (arXiv 2204.03162) by the bound, on pairs of images.

    Images 2n and 2n + 1 of the split are a pair. text: each image prefers its own caption. image:
    each caption prefers its own image. group: both. orders: of the frames of clips; None keeps
    them. Two clips that look the same are never told apart: all three scores are then 0.
    """

    def bounds(cell: tuple[int, int, np.ndarray]) -> np.ndarray:
        image, caption, pairs = cell
        shown = 2 * pairs + image
        raw = moving.in_order(data, shown, orders)
        features = store.look(model, tokenizer, saved["statistics"], data, shown, raw)
        texts = []
        for pair in pairs:
            # From the text, because the data may have another tokenizer than the model.
            text = data.records[2 * pair + caption]["captions"][0]
            ids = tokenizer.encode(text).tolist()[: model.config.max_length - 2]
            texts.append([tokenizer.bos, *ids, tokenizer.eos])
        seed = int(pairs[0])  # all four cells of a pair draw the same noise
        return writer.bounds(
            model, tokenizer, saved["objective"], features, texts, draws=draws, seed=seed
        )

    count = len(data) // 2
    batches = np.array_split(np.arange(count), -(-count // batch_size))
    cells = list(itertools.product(range(2), range(2), batches))
    nats = np.zeros((2, 2, count))  # [image, caption, pair]
    for cell, values in zip(cells, distributed.shared(cells, bounds), strict=True):
        nats[cell] = values
    text = (nats[0, 0] < nats[0, 1]) & (nats[1, 1] < nats[1, 0])
    image = (nats[0, 0] < nats[1, 0]) & (nats[1, 1] < nats[0, 1])
    # Chance is 1/4 for text and for image, and 1/6 for both (arXiv 2204.03162).
    group = text & image
    return {
        "pairs": count,
        "text": float(text.mean()),
        "image": float(image.mean()),
        "group": float(group.mean()),
        "group_ci95": metrics.share_interval(int(group.sum()), count),
    }
