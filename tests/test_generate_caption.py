"""Captioning images: odd and bad files, templates, batches that change nothing, refusals."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import generate_caption
from base.files import UserError
from caption.data import CaptionData
from tests.making.captioned import (
    make_captioner,
    make_captions,
    save_encoder,
)


@pytest.fixture
def data(scene_folder):
    return scene_folder


@pytest.fixture
def run(captioner):
    return captioner


def picture_of(data) -> str:
    return str(data / "images" / "val" / "000001.png")


def write_pictures(folder, good: Path) -> dict[str, bool]:
    """Every kind of odd picture, and whether it can be captioned."""
    folder.mkdir()
    picture = Image.open(good).convert("RGB")
    picture.save(folder / "good.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(
        folder / "deep.png"
    )
    picture.convert("P").save(folder / "palette.png", transparency=3)
    turned = picture.rotate(-90, expand=True)
    exif = turned.getexif()
    exif[274] = 8  # show it turned back
    turned.save(folder / "turned.png", exif=exif)
    picture.resize((1, 1)).save(folder / "one.png")
    picture.save(folder / "moving.gif", save_all=True, append_images=[picture.rotate(90)] * 2)
    (folder / "cut.png").write_bytes(good.read_bytes()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.jpg").write_text("not a picture")
    bomb = io.BytesIO()
    Image.new("1", (20000, 20000)).save(bomb, "PNG")
    (folder / "bomb.png").write_bytes(bomb.getvalue())
    picture.save(folder / "COCO_val2014_000000000042.webp", lossless=True)
    bad = ("cut.png", "empty.png", "words.jpg", "bomb.png")
    return {path.name: path.name not in bad for path in folder.iterdir()}


def test_odd_pictures(data, run, tmp_path, capsys):
    kinds = write_pictures(tmp_path / "photos", data / "images" / "val" / "000000.png")
    flags = [
        "--checkpoint",
        str(run),
        "--image_dir",
        str(tmp_path / "photos"),
        "--steps",
        "4",
        "--batch_size",
        "3",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    json_file, coco, page = (str(tmp_path / name) for name in ("c.jsonl", "coco.json", "g.html"))
    assert not generate_caption.main([*flags, "--json", json_file, "--coco", coco, "--html", page])
    err = capsys.readouterr().err
    rows = {
        Path(row["image"]).name: row
        for row in map(json.loads, Path(json_file).read_text().splitlines())
    }
    assert set(rows) == {name for name, fine in kinds.items() if fine}
    for name in (name for name, fine in kinds.items() if not fine):
        assert len(re.findall(f"skipped: found [^;]*{name}[^;]*; expected .*; ", err)) == 1
    assert f"4 of {len(kinds)} images skipped" in err
    assert rows["turned.png"]["caption"] == rows["good.png"]["caption"]  # upright again
    assert all(row["bound"] > 0 for row in rows.values())
    results = json.loads(Path(coco).read_text())
    # Not every name holds a number, so the names are the ids.
    ids = {Path(name).stem for name in rows}
    assert {Path(str(one["image_id"])).stem for one in results} == ids
    assert [one["caption"] for one in results] == [row["caption"] for row in rows.values()] and all(
        one.keys() == {"image_id", "caption"} for one in results
    )
    assert Path(page).read_text().count("data:image/jpeg") >= len(rows)
    assert generate_caption.main([*flags, "--strict"]) == 1
    for name, fine in kinds.items():
        if not fine:
            with pytest.raises(UserError, match=name):
                generate_caption.main(
                    ["--checkpoint", str(run), "--image", str(tmp_path / "photos" / name)]
                )
    captions = []
    for size in (
        "1",
        "3",
        "20",
    ):  # drawn captions depend neither on the batch nor on the bad pictures in it
        Path(json_file).unlink()
        generate_caption.main(
            [
                *flags,
                "--temperature",
                "0.9",
                "--sampler",
                "first_hitting",
                "--batch_size",
                size,
                "--json",
                json_file,
            ]
        )
        captions.append(
            [json.loads(line)["caption"] for line in Path(json_file).read_text().splitlines()]
        )
    assert captions[0] == captions[1] == captions[2]
    done = Path(json_file).read_text().splitlines(keepends=True)
    Path(json_file).write_text(
        "".join(done[:2]) + done[2][:20]
    )  # a run that was killed while it wrote
    capsys.readouterr()
    assert not generate_caption.main(
        [*flags, "--temperature", "0.9", "--sampler", "first_hitting", "--json", json_file]
    )
    went_on = (
        Path(json_file).read_text().splitlines(keepends=True)
    )  # the same captions as if it had never been stopped
    assert [{**json.loads(line), "bound": 0} for line in went_on] == [
        {**json.loads(line), "bound": 0} for line in done
    ]
    assert Path(done[0] and json.loads(done[0])["image"]).name not in capsys.readouterr().out
    # A third run finds nothing to do; its gallery holds all images. Other settings are refused.
    again = [*flags, "--temperature", "0.9", "--sampler", "first_hitting", "--json", json_file]
    generate_caption.main([*again, "--html", page])
    assert Path(page).read_text().count("data:image/jpeg") == len(rows)
    before = Path(json_file).read_bytes()
    with pytest.raises(UserError, match="with --temperature 0.9; expected .* --temperature 0.0; "):
        generate_caption.main([*flags, "--sampler", "first_hitting", "--json", json_file])
    with pytest.raises(UserError, match="with --seed 0; .* --seed 1; remove it, or name another"):
        generate_caption.main([*again, "--seed", "1"])
    assert Path(json_file).read_bytes() == before


def test_templates_and_refusals(data, run, tmp_path, capsys):
    picture = picture_of(data)
    generate_caption.main(
        [
            "--checkpoint",
            str(run),
            "--image",
            picture,
            "--template",
            "a [MASK] red [MASK*2]",
            "--num_samples",
            "3",
            "--threads",
            "1",
        ]
    )
    assert (
        len(re.findall(r"000001\.png: a.*? red.*?nats/token", capsys.readouterr().out, re.S)) == 3
    )
    generate_caption.main(
        [
            "--checkpoint",
            str(run),
            "--use_val_set",
            "--data_dir",
            str(data),
            "--num_samples",
            "2",
            "--rerank",
            "2",
            "--guidance",
            "2",
            "--json",
            str(tmp_path / "val.jsonl"),
        ]
    )
    assert capsys.readouterr().out.count("nats/token)") == 2
    rows, val = (
        [json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines()],
        CaptionData(data, "val").records,
    )
    assert [row["references"] for row in rows] == [record["captions"] for record in val[:2]]
    assert [row["image"] for row in rows] == [str(data / record["image"]) for record in val[:2]]
    for flags, message in (
        ([], "no image, or several"),
        (["--image", picture, "--use_val_set"], "several kinds"),
        (["--image", "no.png"], "no.png"),
        (["--image", picture, "--template", "a red circle"], "without a blank"),
        (["--image_dir", str(tmp_path)], "no image in"),
        (["--use_val_set", "--data_dir", str(data), "--split", "test"], "no split 'test'"),
        (["--image", picture, "--steps", "0"], "steps"),
        (["--image", picture, "--batch_size", "0"], "--batch_size 0"),
        (["--image", picture, "--sampler", "fist"], "--sampler"),
    ):
        with pytest.raises(UserError, match=message):
            generate_caption.main(["--checkpoint", str(run), *flags])


def test_another_encoder_is_refused(tmp_path):
    """A captioner knows its encoder by its weights: the same name with others is refused."""
    save_encoder(tmp_path / "enc", "clip")
    small = ["--levels", "1", "--num_train", "16", "--num_val", "6"]
    flags = [*small, "--encoder", str(tmp_path / "enc")]
    folder = make_captions(tmp_path / "clip", *flags)
    best = make_captioner(folder, tmp_path / "run") / "best.pt"
    picture = str(folder / "images" / "val" / "000000.png")
    generate_caption.main(["--checkpoint", str(best), "--image", picture])
    save_encoder(tmp_path / "enc", "clip", hidden_size=48)
    with pytest.raises(UserError, match="the encoder of .*run/best.pt: "):
        generate_caption.main(["--checkpoint", str(best), "--image", picture])
    with pytest.raises(UserError, match="features of the encoder"):
        make_captions(folder, *flags)
