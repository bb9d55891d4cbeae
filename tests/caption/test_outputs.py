"""Captions for other programs: JSON lines that survive a kill, COCO's ids, items of the gallery."""

import json

from PIL import Image

from base.tokenizer import Tokenizer
from caption import outputs
from caption.writer import Caption


def caption(text: str, tokenizer: Tokenizer) -> Caption:
    ids = [tokenizer.bos, *tokenizer.encode(text).tolist(), tokenizer.eos]
    step = [0, *range(1, len(ids) - 1), 0]
    return Caption(ids, step, [0.5] * len(ids), 2, text, 1.23456)


def test_rows_come_back_up_to_the_line_that_was_cut(tmp_path):
    tokenizer = Tokenizer.train(["a dog"], 270)
    rows = [outputs.row(f"{n}.png", {}, caption("a dög", tokenizer)) for n in range(3)]
    assert rows[0]["bound"] == 1.2346 and rows[0]["references"] == []
    path = tmp_path / "c.jsonl"
    outputs.write_rows(str(path), rows)
    assert outputs.read_rows(str(path)) == rows
    path.write_text(path.read_text()[:-20])
    assert outputs.read_rows(str(path)) == rows[:2]
    assert outputs.read_rows(None) == outputs.read_rows(str(tmp_path / "none")) == []


def test_cocos_ids_are_the_last_numbers(tmp_path):
    names = ("a/COCO_val2014_000000000042.jpg", "7_b12.png", "dog.png")
    outputs.write_coco(str(tmp_path / "c.json"), [{"image": n, "caption": "x"} for n in names])
    found = json.loads((tmp_path / "c.json").read_text())
    assert [item["image_id"] for item in found] == [42, 12, 0]


def test_the_gallery_shows_words_and_verdicts():
    tokenizer = Tokenizer.train(["a red circle"], 270)
    image = Image.new("RGB", (9, 9))
    record = {"split": "val", "captions": ["a circle"]}
    item = outputs.gallery_item("x/3.png", record, image, caption("a dog", tokenizer), tokenizer)
    assert item["name"] == "val 3.png" and item["references"] == ["a circle"]
    assert "".join(item["pieces"]) == "a dog" and item["verdict"] is None
    assert len(item["step"]) == len(item["probability"]) == len(item["pieces"])
    thing = {"shape": "square", "colour": "blue", "size": "large", "fill": "solid", "angle": 0.0}
    scene = {"noise": 0, "seed": 0, "objects": [{**thing, "x": 0.5, "y": 0.5, "radius": 0.2}]}
    words = caption("a red circle", tokenizer)
    verdict = outputs.gallery_item("3.png", {"scene": scene}, image, words, tokenizer)["verdict"]
    assert verdict["truthful"] is False and verdict["notes"][0].startswith("not so: ")
