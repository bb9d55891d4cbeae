"""Captioned photographs in every layout, with missing and broken images among them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import prep_caption_photos
from base.files import UserError
from caption import data as caption_data
from caption import photos as readers
from net import image_encoders
from tests.making.captioned import (
    make_captioner,
    save_encoder,
)

NAMES = [f"p{i}.jpg" for i in range(12)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve pictures, p10 cut short, p11 missing; an encoder with random weights beside them."""
    root = tmp_path_factory.mktemp("photos")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES[:11]:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
            root / "images" / name
        )
    cut = root / "images" / "p10.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    save_encoder(root / "encoder", "vit")
    return root


def words(number: int) -> list[str]:
    return [f"a  dog, number {number} ,runs .", f'two "old" cats {number}']


def prepare(photos, out, captions, *flags):
    prep_caption_photos.main(
        [
            "--captions",
            str(captions),
            "--images",
            str(photos / "images"),
            "--out",
            str(out),
            "--encoder",
            "none",
            "--vocab_size",
            "300",
            "--workers",
            "1",
            *flags,
        ]
    )
    return caption_data.read_records(out)


def write_layout(root: Path, photos: Path, layout: str) -> Path:
    if layout == "coco":
        content = {
            "images": [{"id": 7 + i, "file_name": name} for i, name in enumerate(NAMES)],
            "annotations": [
                {"image_id": 7 + i, "caption": text} for i in range(12) for text in words(i)
            ],
        }
        (root / "captions_x.json").write_text(json.dumps(content))
        return root / "captions_x.json"
    if layout == "karpathy":
        split = lambda i: "restval" if i == 0 else "val" if i < 3 else "test" if i == 3 else "train"
        content = {
            "images": [
                {
                    "filename": name,
                    "filepath": ".",
                    "split": split(i),
                    "sentences": [{"raw": text} for text in words(i)],
                }
                for i, name in enumerate(NAMES)
            ]
        }
        (root / "dataset_flickr8k.json").write_text(json.dumps(content))
        return root / "dataset_flickr8k.json"
    if layout == "tsv":
        (root / "c.tsv").write_text(
            "".join(
                f"{name}#{j}\t{text}\n"
                for i, name in enumerate(NAMES)
                for j, text in enumerate(words(i))
            )
        )
        return root / "c.tsv"
    import csv

    with open(root / "captions.txt", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["image", "caption"],
                *([name, text] for i, name in enumerate(NAMES) for text in words(i)),
            ]
        )
    for split, part in (("train", NAMES[4:]), ("dev", NAMES[:3])):  # p3 is in no list
        (root / f"Flickr_8k.{split}Images.txt").write_text("\n".join(part) + "\n")
    return root / "captions.txt"


@pytest.mark.parametrize(
    "layout, sizes",
    [
        ("coco", {"train": 8, "val": 2}),
        ("karpathy", {"train": 7, "val": 2, "test": 1}),
        ("tsv", {"train": 8, "val": 2}),
        ("csv", {"train": 6, "val": 3}),
    ],
)
def test_layouts(photos, tmp_path, layout, sizes, capsys):
    path = write_layout(tmp_path, photos, layout)
    flags = ["--num_val", "2"] if layout in ("coco", "tsv") else []
    records = prepare(photos, tmp_path / "out", path, *flags)
    found = {
        split: sum(record["split"] == split for record in records)
        for split in {record["split"] for record in records}
    }
    assert sum(found.values()) == 10 - (layout == "csv") and (
        found == sizes or flags
    )  # p10 and p11 may have been drawn for val
    by_name = {Path(record["image"]).name: record for record in records}
    assert (
        by_name["p2.jpg"]["captions"] == ["a dog, number 2 ,runs .", 'two "old" cats 2']
        and Path(by_name["p2.jpg"]["image"]).is_absolute()
    )
    err = capsys.readouterr().err
    bad = (tmp_path / "out" / "skipped.txt").read_text()
    assert "2 of 1" in err and "p10.jpg" in bad and "p11.jpg" in bad and bad.count("\n") == 2
    if layout == "karpathy":
        assert (
            "the usual split has (6000, 1000, 1000)" in err
            and by_name["p0.jpg"]["split"] == "train"
        )
    if layout == "csv":
        assert "1 images are in no split" in err
    prepare(photos, tmp_path / "out", path, *flags)
    assert "all captions are there" in capsys.readouterr().err
    with pytest.raises(UserError, match="another data set"):
        prepare(photos, tmp_path / "out", path, "--seed", "3")


def test_a_folder_of_texts_and_a_given_tokenizer(photos, tmp_path):
    for i, name in enumerate(NAMES[:6]):
        (tmp_path / name).write_bytes((photos / "images" / name).read_bytes())
        (tmp_path / name).with_suffix(".txt").write_text("\n".join(words(i)) + "\n\n")
    first = tmp_path.parent / "folder_out"
    prep_caption_photos.main(
        [
            "--captions",
            str(tmp_path),
            "--out",
            str(first),
            "--encoder",
            "none",
            "--vocab_size",
            "300",
        ]
    )
    again = tmp_path.parent / "folder_again"
    prep_caption_photos.main(
        [
            "--captions",
            str(tmp_path),
            "--out",
            str(again),
            "--encoder",
            "none",
            "--tokenizer",
            str(first / "tokenizer.json"),
            "--max_images",
            "4",
        ]
    )
    assert len(caption_data.read_records(first)) == 6 and len(caption_data.read_records(again)) == 4
    assert caption_data.read_meta(again)["tokenizer"] == caption_data.read_meta(first)["tokenizer"]


def test_a_folder_that_holds_the_captions_and_the_pictures(photos, tmp_path, capsys):
    path = write_layout(tmp_path, photos, "csv")
    (tmp_path / "images").symlink_to(photos / "images")
    flags = [
        "--captions",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--encoder",
        "none",
        "--vocab_size",
        "300",
        "--workers",
        "1",
    ]
    prep_caption_photos.main(flags)
    assert caption_data.read_meta(tmp_path / "out")["splits"] == {"train": 6, "val": 3}
    path.write_text(path.read_text().replace("runs", "sleeps"))
    with pytest.raises(UserError, match="another data set"):
        prep_caption_photos.main(flags)


def test_a_folder_below_and_pictures_without_texts(photos, tmp_path, capsys):
    """images/ below a folder of texts is part of it, not where its pictures are; what has no caption is counted."""
    (tmp_path / "in" / "images").mkdir(parents=True)
    for i, name in enumerate(NAMES[:5]):
        (tmp_path / "in" / "images" / name).write_bytes((photos / "images" / name).read_bytes())
        if i < 4:
            (tmp_path / "in" / "images" / f"p{i}.txt").write_text(words(i)[0])
    prep_caption_photos.main(
        [
            "--captions",
            str(tmp_path / "in"),
            "--out",
            str(tmp_path / "out"),
            "--encoder",
            "none",
            "--vocab_size",
            "300",
        ]
    )
    assert (
        len(caption_data.read_records(tmp_path / "out")) == 4
        and "1 of 5 images have no caption" in capsys.readouterr().err
    )


def test_split_lists(photos, tmp_path, capsys):
    """Lines may end as on Windows; a list without a match is no list; val is drawn if there is only train."""
    path = write_layout(tmp_path, photos, "tsv")
    (tmp_path / "a.txt").write_bytes(b"p0.jpg\r\np1.jpg\r\n")
    (tmp_path / "b.txt").write_text("p2.jpg\np3.jpg\np4.jpg\n")
    (tmp_path / "c.txt").write_text("p2\n")
    split = lambda out, *flags: {
        Path(record["image"]).stem: record["split"]
        for record in prepare(photos, tmp_path / out, path, *flags)
    }
    lists = ["--train_list", str(tmp_path / "b.txt")]
    assert split("1", *lists, "--val_list", str(tmp_path / "a.txt")) == {
        "p0": "val",
        "p1": "val",
        "p2": "train",
        "p3": "train",
        "p4": "train",
    }
    assert "7 images are in no split" in capsys.readouterr().err
    assert sorted(split("2", *lists, "--num_val", "1").values()) == ["train", "train", "val"]
    with pytest.raises(UserError, match="another data set"):
        prepare(photos, tmp_path / "2", path, "--num_val", "1")
    for flags, message in (
        (["--val_list", str(tmp_path / "c.txt")], "no image of"),
        (["--val_list", str(tmp_path / "a.txt")], "images of val only"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(photos, tmp_path / "3", path, *flags)
        assert not (tmp_path / "3" / "meta.json").exists()


def test_a_data_sets_own_splits_beat_lists_beside_it(photos, tmp_path):
    write_layout(tmp_path, photos, "csv")
    records = prepare(photos, tmp_path / "out", write_layout(tmp_path, photos, "karpathy"))
    assert {Path(record["image"]).stem: record["split"] for record in records}["p3"] == "test"


def test_views_are_other_looks_at_training_pictures(photos, tmp_path):
    """Crops whose features are those of the crop; every other one mirrored, and then without what tells left from right."""
    assert readers.SIDES.search("on the LEFT") and not readers.SIDES.search("a bright cleft")
    captions = write_layout(tmp_path, photos, "csv")
    captions.write_text(captions.read_text().replace('two ""old"" cats', "on the Left cats"))
    encoder = str(photos / "encoder")
    flags = ["--views", "3", "--encoder", encoder]
    records = prepare(photos, tmp_path / "out", captions, *flags)
    plain = [record for record in records if "view" not in record]
    seen = [record for record in records if "view" in record]
    assert len(seen) == 2 * sum(record["split"] == "train" for record in plain) and {
        record["split"] for record in seen
    } == {"train"}
    mirrored = [record["view"][4] for record in seen]
    assert mirrored == [1, 0] * (len(seen) // 2)
    assert all(
        len(record["captions"]) == (1 if record["view"][4] else 2)
        and "Left" not in record["captions"][0]
        for record in seen
    )
    encoder, data = (
        image_encoders.load(str(photos / "encoder")),
        caption_data.CaptionData(tmp_path / "out", "train"),
    )
    for number in (1, 2):
        record = data.records[number]
        left, top, right, bottom, flip = record["view"]
        picture = Image.open(caption_data.image_path(tmp_path / "out", record))
        part = picture.crop((int(left * 50), int(top * 40), round(right * 50), round(bottom * 40)))
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part
        assert (
            part.width >= 40
            and part.height >= 32
            and torch.allclose(
                encoder.features([part])[0], data.features_of([number])[0].float(), atol=1e-3
            )
        )
    with pytest.raises(UserError, match="another data set"):
        prepare(photos, tmp_path / "out", captions)
    with pytest.raises(UserError, match="--views 0"):
        prepare(photos, tmp_path / "none", captions, "--views", "0")
    make_captioner(tmp_path / "out", tmp_path / "run")


@pytest.mark.parametrize(
    "columns, own", [("caption", False), ("answer", False), ("caption_0", True)]
)
def test_the_hub(photos, tmp_path, monkeypatch, columns, own):
    """A streamed data set from memory: a JPEG is kept to the byte, a PNG becomes one, a broken one is named."""
    import datasets

    jpeg, png = (photos / "images" / "p0.jpg").read_bytes(), io.BytesIO()
    Image.open(photos / "images" / "p1.jpg").save(png, "PNG")
    pictures = [
        jpeg,
        png.getvalue(),
        *[
            (photos / "images" / name).read_bytes()
            for name in (*NAMES[2:4], NAMES[10], *NAMES[5:8])
        ],
    ]
    rows = {
        "image": [{"bytes": data, "path": None} for data in pictures],
        columns: [f"a  dog {i}" if own else words(i) for i in range(8)],
        "number": list(range(8)),
    }
    if own:
        rows |= {
            "caption_1": ["two cats"] * 8,
            "split": ["train", "train", "restval", "val", "train", "test", "val", "train"],
        }
    stream = (
        datasets.Dataset.from_dict(rows)
        .cast_column("image", datasets.Image())
        .to_iterable_dataset()
    )
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, streaming: {"test" if own else "train": stream}
    )
    monkeypatch.chdir(tmp_path)
    flags = [
        "--captions",
        "someone/photos",
        "--out",
        "out",
        "--encoder",
        "none",
        "--vocab_size",
        "300",
        "--num_val",
        "2",
    ]
    prep_caption_photos.main(flags)
    records = caption_data.read_records("out")
    first = f"images/{'test' if own else 'train'}/000000.jpg"
    assert records[0]["image"] == first and (tmp_path / "out" / first).read_bytes() == jpeg
    assert Image.open(tmp_path / "out" / records[1]["image"]).format == "JPEG" and len(records) == 7
    assert "000004.jpg, which is damaged" in (tmp_path / "out" / "skipped.txt").read_text()
    assert records[0]["captions"] == (
        ["a dog 0", "two cats"] if own else ["a dog, number 0 ,runs .", 'two "old" cats 0']
    )
    assert not own or caption_data.read_meta("out")["splits"] == {"train": 4, "val": 2, "test": 1}
    prep_caption_photos.main(
        [*flags[:3], "few", *flags[4:-2], "--max_images", "3", "--num_val", "1"]
    )
    assert len(list((tmp_path / "few" / "images").rglob("*.jpg"))) == 3


def test_the_hub_refuses(tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(tmp_path)
    flags = ["--captions", "someone/photos", "--out", "out", "--encoder", "none"]

    def unreachable(name, streaming):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        UserError,
        match="no way to a hub data set of that name .ConnectionError.; expected .*; check --captions, or the network",
    ):
        prep_caption_photos.main(flags)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, streaming: {
            "train": datasets.Dataset.from_dict({"url": ["x"]}).to_iterable_dataset()
        },
    )
    with pytest.raises(UserError, match="the columns url in someone/photos"):
        prep_caption_photos.main(flags)
    with pytest.raises(
        UserError, match="no someone/captions.csv"
    ):  # the name of a file is not looked up on the hub
        prep_caption_photos.main(["--captions", "someone/captions.csv", *flags[2:]])
    assert not (tmp_path / "out" / "meta.json").exists()


def test_refusals(photos, tmp_path):
    with pytest.raises(UserError, match="no --captions"):
        prep_caption_photos.main([])
    (tmp_path / "odd.json").write_text('{"images": [{"name": 3}]}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "one.csv").write_text("nothing here\n")
    (tmp_path / "open.csv").write_text('a.jpg,"open ' + "x" * 140_000)
    (tmp_path / "latin.txt").write_bytes("p0.jpg,caf\xe9".encode("latin-1"))
    (tmp_path / "swallow.csv").write_text('p0.jpg,"a dog\np1.jpg,a cat\np2.jpg,"a bird, too"\n')
    (tmp_path / "number.json").write_text(
        '{"images": [{"id": 1, "file_name": 7}], "annotations": [{"image_id": 1, "caption": "a dog"}]}'
    )
    (tmp_path / "two").mkdir()
    for name in ("captions_a.json", "captions_b.json"):
        (tmp_path / "two" / name).write_text("{}")
    good = write_layout(tmp_path, photos, "tsv")
    for captions, flags, message in (
        ("odd.json", [], 'image 1 without "filename"'),
        ("list.json", [], "record 1 is no object"),
        ("bad.json", [], "bad.json"),
        ("one.csv", [], "with the first line 'nothing here'"),
        ("open.csv", [], "out of place"),
        ("swallow.csv", [], "out of place"),
        ("number.json", [], 'image 1 .id 1., whose "file_name" is no text'),
        (tmp_path / "two", [], "2 files of captions"),
        ("latin.txt", [], "latin.txt .* in line 1 .byte 11.; WINDOWS-1252"),
        ("none.csv", [], "none.csv"),
        (good, ["--num_val", "99"], "--num_val 99"),
        (good, ["--images", str(tmp_path)], "none of 12 images"),
        (good, ["--images", "nowhere"], "nowhere"),
        (good, ["--train_list", "no.txt"], "no.txt"),
        (good, ["--tokenizer", "no.json"], "no.json"),
        (good, ["--encoder", str(tmp_path / "nowhere")], "no image encoder"),
        (good, ["--encoder", "embedded", "--device", "gpu"], "--device gpu"),
        (good, ["--workers", "-1"], "--workers -1"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(photos, tmp_path / "out", tmp_path / captions, *flags)
        assert not (tmp_path / "out" / "meta.json").exists()


def test_photos_are_trained_on_and_scored_unchanged(photos, tmp_path, capsys):
    captions = write_layout(tmp_path, photos, "csv")
    prepare(photos, tmp_path / "out", captions, "--encoder", str(photos / "encoder"))
    best = make_captioner(tmp_path / "out", tmp_path / "run") / "best.pt"
    evaluate.main(
        [
            "--checkpoint",
            str(best),
            "--data_dir",
            str(tmp_path / "out"),
            "--step_counts",
            "2",
            "--json",
            str(tmp_path / "r.json"),
            "--picture",
            str(tmp_path / "p.png"),
            "--threads",
            "1",
        ]
    )
    found = json.loads((tmp_path / "r.json").read_text())
    assert {"bleu_1", "bleu_4", "rouge_l", "cider", "cider_ci95"} <= set(
        found["splits"]["val"]
    ) and "cider" in found["blind"]
    assert "| cider |" in capsys.readouterr().out
    with pytest.raises(UserError, match="on photographs"):
        evaluate.main(
            ["--checkpoint", str(best), "--data_dir", str(tmp_path / "out"), "--probe_steps", "3"]
        )


def test_hub_names_may_begin_with_hub(tmp_path, monkeypatch):
    """hub:OWNER/NAME is never a file; a path of that name here is refused, not read in its place."""
    monkeypatch.chdir(tmp_path)
    wanted = prep_caption_photos.Collection(captions="hub:ann/photos.json")
    name, _, folder = prep_caption_photos.find_captions(wanted, tmp_path / "out")
    assert name == "ann/photos.json" and folder == tmp_path / "out" / "images"
    with pytest.raises(UserError, match="--captions hub:photos; expected hub:OWNER/NAME"):
        prep_caption_photos.find_captions(
            prep_caption_photos.Collection(captions="hub:photos"), tmp_path
        )
    (tmp_path / "ann" / "photos.json").mkdir(parents=True)
    with pytest.raises(UserError, match="and a folder or file ann/photos.json here"):
        prep_caption_photos.find_captions(wanted, tmp_path)
