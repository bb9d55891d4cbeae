"""Figures of captions that were written, whoever wrote them: truth, or likeness to references."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import metrics
from caption import clip as caption_clip
from caption import coco, truth
from caption.data import CaptionData, image_path
from loop import distributed


def judge(texts: list[str], records: list[dict], dataset: str) -> dict:
    """Figures of captions: truth where the scenes are known, else likeness to the references.

    dataset: its name, printed in the signature.
    """
    if truth.is_drawn(records[0]):
        return truth.truth(texts, records)
    figures = coco.scores(texts, [record["captions"] for record in records], dataset)
    # A figure per image serves intervals; in a report it would be thousands of numbers.
    del figures["cider_each"]
    return {**figures, "distinct_captions": len(set(texts)) / len(texts)}


def more_figures(
    clip_name: str | None, meteor_spice: bool, device, encoder: str | None = None
) -> Callable[[list[str], list[list[str]], list], dict]:
    """The scores asked for by flag, as a function of captions, references and image paths.

    encoder: what the captioner reads its features with, which should be no judge of it.
    """
    # A captioner may have learnt the quirks of its encoder, which the same CLIP rewards.
    if clip_name and clip_name == encoder:
        distributed.say(
            f"note: the captioner reads features of {clip_name}: another CLIP is a fairer judge"
        )
    clip = caption_clip.ClipScore(clip_name, device) if clip_name else None

    def more(texts: list[str], references: list[list[str]], paths: list) -> dict:
        result = coco.meteor_spice(texts, references) if meteor_spice else {}
        if clip is None:
            return result
        for name, each in clip.each(paths, texts, references).items():
            result[name] = float(each.mean())
            # All denominators are 1, so the ratio is the mean over images.
            result[f"{name}_ci95"] = metrics.ratio_interval(each, np.ones(len(each)))
            result["clip"] = clip.name
        return result

    return more


def by_objects(texts: list[str], records: list[dict]) -> dict[str, dict]:
    """Truth by the number of objects in the scene."""
    groups: dict[int, tuple[list, list]] = {}
    for text, record in zip(texts, records, strict=True):
        group = groups.setdefault(len(record["scene"]["objects"]), ([], []))
        group[0].append(text)
        group[1].append(record)
    return {str(size): truth.truth(*groups[size]) for size in sorted(groups)}


@dataclass
class Judge:
    """Judges the captions of a folder's splits. more: from `more_figures`, rank 0's alone."""

    folder: str
    splits: dict[str, CaptionData]
    more: Callable

    def __call__(self, texts: list[str], split: str, *, more: bool = False) -> dict:
        """The figures of a split's captions; with more=True also the scores asked for by flag."""
        records = self.splits[split].records
        figures = judge(texts, records, f"{Path(self.folder).name}/{split}")
        # Rank 0 alone: CLIP and Java would do the same work in every process.
        if more and distributed.leads():
            references = [record["captions"] for record in records]
            paths = [image_path(self.folder, record) for record in records]
            figures |= self.more(texts, references, paths)
        return figures
