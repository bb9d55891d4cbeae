"""Captions are judged by truth where the scene is known, and else by their references."""

import pytest

from caption import judging, truth
from caption.data import CaptionData


def test_truth_or_references(scene_folder):
    records = CaptionData(scene_folder, "val").records
    texts = [record["captions"][0] for record in records]
    assert judging.judge(texts, records, "scenes") == truth.truth(texts, records)
    photos = [{"captions": record["captions"]} for record in records]
    figures = judging.judge(texts, photos, "photos")
    assert figures["bleu_4"] == pytest.approx(1.0)
    assert "photos" in figures["signature"] and "cider_each" not in figures
    assert judging.judge([texts[0]] * 8, photos, "photos")["distinct_captions"] == 1 / 8


def test_by_objects_splits_the_images(scene_folder):
    records = CaptionData(scene_folder, "val").records
    texts = [record["captions"][0] for record in records]
    groups = judging.by_objects(texts, records)
    assert list(groups) == sorted(groups, key=int)
    assert sum(figures["images"] for figures in groups.values()) == len(records)
    for size, figures in groups.items():
        own = [record for record in records if len(record["scene"]["objects"]) == int(size)]
        assert figures == truth.truth([record["captions"][0] for record in own], own)


def test_more_scores_are_asked_for(scene_folder):
    """Only with more=True, with each image's references and its path."""
    calls = []

    def more(texts, references, paths):
        calls.append((texts, references, paths))
        return {"spice": 0.5}

    val = CaptionData(scene_folder, "val")
    judged = judging.Judge(str(scene_folder), {"val": val}, more)
    texts = [record["captions"][0] for record in val.records]
    assert "spice" not in judged(texts, "val") and not calls
    assert judged(texts, "val", more=True)["spice"] == 0.5
    ((_, references, paths),) = calls
    assert references == [record["captions"] for record in val.records]
    assert all(path.exists() for path in paths)
    assert judging.more_figures(None, False, "cpu")(texts, references, paths) == {}
