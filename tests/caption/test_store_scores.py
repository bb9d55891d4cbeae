"""What a captioner owes to its store: paired gains, and every kind of store once."""

import numpy as np
import pytest

from caption import coco, store_scores
from caption.data import CaptionData
from caption.store import KINDS, Store, Told
from loop.checkpoint import open_model
from tests.making.captioned import by_hand, make_captioner

REFERENCES = [["a dog runs"], ["a cat sleeps"], ["two boats sail"]]


def test_a_gain_is_paired():
    """The mean difference is that of both scores; of equal captions the interval is a point."""
    texts, others = ["a dog runs", "a cat", "boats"], ["a dog", "a cat", "two boats sail"]
    found = store_scores.gain(texts, others, REFERENCES)
    scores = [coco.scores(some, REFERENCES)["cider"] for some in (texts, others)]
    assert found["cider_gain"] == pytest.approx(scores[0] - scores[1])
    low, high = found["cider_gain_ci95"]
    assert low < found["cider_gain"] < high
    same = store_scores.gain(texts, texts, REFERENCES)
    assert same == {"cider_gain": 0.0, "cider_gain_ci95": [0.0, 0.0]}


def test_every_store_is_tried_and_the_first_comes_back(tmp_path):
    lines = []
    for number in range(20):
        split = "train" if number < 14 else "val"
        said = [f"a dog number {number} runs", f"dog {number}"]
        lines.append({"image": f"{number}.png", "split": split, "captions": said})
    folder = by_hand(tmp_path / "data", lines)
    out = make_captioner(folder, tmp_path / "run", "--retrieve", "2", "--neighbours", "4")
    opened = open_model(out / "last.pt")
    val, shelf = CaptionData(folder, "val"), Store(CaptionData(folder, "train"))
    val.told = told = Told(shelf, val)
    asked = []

    def write(name: str) -> list[str]:
        asked.append((name, val.told.kind))
        return [(val.told(np.array([n]), 1)[0] or ["nothing"])[0] for n in range(len(val))]

    found = store_scores.controls(opened, val, write, ["a dog runs"] * len(val))
    assert asked == [(f"{kind} store, val", kind) for kind in KINDS] and val.told is told
    assert found["oracle store"]["cider"] > found["nearest store"]["cider"]
    gains = {name: figures["cider_gain"] for name, figures in found.items()}
    nearest = found["nearest store"]["cider"]
    for kind in ("empty", "shuffled", "oracle"):
        other = found[f"{kind} store"]["cider"]
        assert gains[f"{kind} store"] == pytest.approx(nearest - other)
    assert len({figures["nats_per_token"] for figures in found.values()}) == 4
    printed = store_scores.lines(found)
    assert len(printed) == 4 and "gained by the nearest store over the twin" in printed[0]
    assert "over the shuffled store" in printed[2] and "nats per token" in printed[2]
