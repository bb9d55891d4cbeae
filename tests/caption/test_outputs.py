"""Captions for other programs: JSON lines that survive a kill, COCO's ids, items of the gallery."""

import json

import pytest
from PIL import Image

from base.tokenizer import Tokenizer
from caption import outputs, results
from caption.writer import Caption


def caption(text: str, tokenizer: Tokenizer) -> Caption:
    ids = [tokenizer.bos, *tokenizer.encode(text).tolist(), tokenizer.eos]
    step = [0, *range(1, len(ids) - 1), 0]
    return Caption(ids, step, [0.5] * len(ids), 2, text, 1.23456)


def test_a_line_of_json():
    tokenizer = Tokenizer.train(["a dog"], 270)
    line = outputs.row("3.png", {}, caption("a dög", tokenizer), tokenizer)
    assert line["bound"] == 1.2346 and line["references"] == [] and line["caption"] == "a dög"
    assert "".join(line["unmasking"]["pieces"]).startswith("a d")
    assert {len(values) for values in line["unmasking"].values()} == {
        len(line["unmasking"]["step"])
    }


def coco_ids(tmp_path, names: list[str]) -> list:
    """The ids in the results file of images with these paths."""
    outputs.write_coco(str(tmp_path / "c.json"), [{"image": n, "caption": "x"} for n in names])
    return [item["image_id"] for item in json.loads((tmp_path / "c.json").read_text())]


def test_cocos_ids_are_the_numbers_at_the_end(tmp_path, capsys):
    names = ["a/COCO_val2014_000000000042.jpg", "7_b12.png", "p0.png", "7_b12.png"]
    assert coco_ids(tmp_path, names) == [42, 12, 0, 12]  # the same image twice has one id
    assert "image_id is the number at the end of the file's name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, ids, reason",
    [
        (["a_1.jpg", "b_1.jpg"], ["a_1.jpg", "b_1.jpg"], "a_1.jpg and b_1.jpg share the number 1"),
        (["x/001.jpg", "1.jpg"], ["001.jpg", "1.jpg"], "share the number 1"),
        (["cat.jpg", "dog.jpg"], ["cat.jpg", "dog.jpg"], "cat.jpg has no number"),
        # Flickr's names end in letters and figures of a code, which are no number.
        (["10_693b08cb05.jpg", "2.jpg"], ["10_693b08cb05.jpg", "2.jpg"], "no number"),
        (["p/cat.jpg", "p/sub/cat.jpg"], ["cat.jpg", "sub/cat.jpg"], "the file's path inside"),
        (["../p/1.jpg", "../q/1.jpg"], ["p/1.jpg", "q/1.jpg"], "share the number 1"),
        ([f"{'9' * 30}.jpg"], [f"{'9' * 30}.jpg"], "no number"),
    ],
)
def test_different_images_have_different_ids(tmp_path, capsys, names, ids, reason):
    """Ids that are no numbers, or not one per image, are names, and stderr says why."""
    assert coco_ids(tmp_path, names) == ids
    assert reason in capsys.readouterr().err


def test_the_results_file_is_read_by_evaluate(tmp_path):
    """Whatever the ids are, references with the same file names find their captions."""
    names = ["cat.jpg", "a_1.jpg", "b_1.jpg", "sub/cat.jpg"]
    rows = [{"image": str(tmp_path / name), "caption": name} for name in names]
    outputs.write_coco(str(tmp_path / "r.json"), rows)
    references = {
        "images": [{"id": 70 + n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"image_id": 70 + n, "caption": "a cat"} for n in range(4)],
    }
    (tmp_path / "c.json").write_text(json.dumps(references))
    found = results.read([str(tmp_path / "r.json")], str(tmp_path / "c.json"))
    assert [image.captions for image in found] == [[name] for name in names]


def test_the_gallery_shows_words_and_verdicts():
    tokenizer = Tokenizer.train(["a red circle"], 270)
    image = Image.new("RGB", (9, 9))
    record = {"split": "val", "captions": ["a circle"]}
    line = outputs.row("x/3.png", record, caption("a dog", tokenizer), tokenizer)
    item = outputs.gallery_item(line, record, image)
    assert item["name"] == "val 3.png" and item["references"] == ["a circle"]
    assert "".join(item["pieces"]) == "a dog" and item["verdict"] is None
    assert len(item["step"]) == len(item["probability"]) == len(item["pieces"])
    thing = {"shape": "square", "colour": "blue", "size": "large", "fill": "solid", "angle": 0.0}
    scene = {"noise": 0, "seed": 0, "objects": [{**thing, "x": 0.5, "y": 0.5, "radius": 0.2}]}
    line = outputs.row("3.png", {}, caption("a red circle", tokenizer), tokenizer)
    verdict = outputs.gallery_item(line, {"scene": scene}, image)["verdict"]
    assert verdict["truthful"] is False and verdict["notes"][0].startswith("not so: ")
