"""What a captioner owes to its store: the same captioner on val with other stores.

    nearest     captions of similar images
    empty       no captions: must be no better
    shuffled    captions of images that are not similar: must be no better than a plain captioner
    oracle      the image's own captions: must be far better, or the captioner does not read

Two figures: CIDEr of what is written, and nats per token of human captions. The gain in CIDEr has a
95% interval over images, whose captions are compared pair by pair.
"""

from dataclasses import replace

import numpy as np
import torch

from base import metrics
from caption import coco, store, truth, writer
from caption.data import CaptionData
from caption.judging import judge
from loop import distributed

BATCH = 50  # images whose captions are scored at one time


def gain(texts: list[str], others: list[str], references: list[list[str]]) -> dict:
    """How much more CIDEr texts have than others: cider_gain, and its interval over images."""
    each = coco.scores(texts, references)["cider_each"]
    difference = each - coco.scores(others, references)["cider_each"]
    low, high = metrics.ratio_interval(difference, np.ones(len(difference)))
    return {"cider_gain": float(difference.mean()), "cider_gain_ci95": [low, high]}


@torch.no_grad()
def nats_per_token(opened: tuple, data: CaptionData, *, draws: int = 8) -> float:
    """Nats per token of the first human caption of each image, given what the split is told."""
    model, tokenizer, saved = opened

    def batch(first: int) -> tuple[float, int]:
        numbers = np.arange(first, min(first + BATCH, len(data)))
        seen = store.look(model, tokenizer, saved["statistics"], data, numbers)
        texts = [data.tokens[number][0].tolist() for number in numbers]
        # The seed depends on the images alone: all stores meet the same noise.
        how = {"draws": draws, "seed": first}
        nats = writer.bounds(model, tokenizer, saved["objective"], seen, texts, **how)
        return float(nats.sum()), sum(len(text) - 1 for text in texts)  # [BOS] is given

    nats, tokens = zip(*distributed.shared(range(0, len(data), BATCH), batch), strict=True)
    return sum(nats) / sum(tokens)


def controls(opened: tuple, val: CaptionData, write, twin_texts: list[str] | None = None) -> dict:
    """{store: figures of val} for every kind of store, and what the nearest captions gain.

    write: from a name for the progress bar to a caption for each image of val, as told now.
    twin_texts: captions of another captioner, such as one without retrieval, to compare with.
    Afterwards val is told what it was told before.
    """
    told, result = val.told, {}
    references = [record["captions"] for record in val.records]
    written = {}
    for kind in store.KINDS:
        val.told = replace(told, kind=kind)
        written[kind] = write(f"{kind} store, val")
        figures = judge(written[kind], val.records, "val")
        result[f"{kind} store"] = figures | {"nats_per_token": nats_per_token(opened, val)}
    val.told = told
    if truth.is_drawn(val.records[0]):
        return result
    for kind in store.CONTROLS:
        result[f"{kind} store"] |= gain(written["nearest"], written[kind], references)
    if twin_texts:
        result["nearest store"] |= gain(written["nearest"], twin_texts, references)
    return result


def lines(found: dict) -> list[str]:
    """What is printed of `controls`."""
    printed = []
    for name, figures in found.items():
        text = f"{name}, val: {figures['nats_per_token']:.3f} nats per token of human captions"
        if "cider_gain" in figures:
            low, high = (100 * value for value in figures["cider_gain_ci95"])
            over = "the twin" if name == "nearest store" else f"the {name}"
            text += f"; CIDEr gained by the nearest store over {over}: "
            text += f"{100 * figures['cider_gain']:.1f} [{low:.1f}, {high:.1f}]"
        printed.append(text)
    return printed
