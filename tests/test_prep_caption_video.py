"""Clips as a user makes, learns, captions and scores them, with tiny numbers."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import generate_caption
import prep_caption_video
from base.files import UserError
from caption import data as caption_data
from caption import pixels, writer
from caption.data import CaptionData
from edge.inputs import open_trained
from loop import checkpoint
from tests.making.captioned import make_captioner, rewrite
from worlds.motion_sampling import SPLITS

HERE = ["--threads", "1", "--device", "cpu", "--steps", "2"]


def prepare(folder, *flags: str):
    sizes = ["--num_train", "10", "--num_val", "2", "--vocab_size", "320", "--workers", "1"]
    prep_caption_video.main(["--out", str(folder), *sizes, "--keep", "1", *flags])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("video") / "data")


@pytest.fixture(scope="module")
def run(data):
    return make_captioner(data, data.parent / "run") / "best.pt"


def test_a_folder_of_clips(data, capsys):
    meta, records = caption_data.read_meta(data), caption_data.read_records(data)
    assert set(meta["splits"]) == set(SPLITS) and meta["frames"] == 8
    val = CaptionData(data, "val")
    assert val.features.shape == (22, 8 * 16, 192) and val.encoder["frames"] == 8
    # The mates of swap_time: the same frames backwards, to the bit.
    one, mate = CaptionData(data, "swap_time").features_of([0, 1]).unflatten(1, (8, 16))
    assert torch.equal(one, mate.flip(0)) and not torch.equal(one, mate)
    # Only the first clip of each split is kept; kept frames are those that the features are of.
    assert sorted(path.name for path in (data / "clips" / "val").iterdir()) == ["000000"]
    (record,) = [record for record in records if record["image"] == "clips/val/000000"]
    for number, frame in enumerate(pixels.frames_of(record)):
        kept = Image.open(data / "clips" / "val" / "000000" / f"{number}.png")
        assert np.array_equal(kept, frame)
    before = (data / "features.npy").stat().st_mtime_ns
    prepare(data)
    assert (data / "features.npy").stat().st_mtime_ns == before
    assert "all captions are there" in capsys.readouterr().err


def test_what_is_refused(data, tmp_path):
    cases = {
        ("--num_train", "9"): "--num_train 9",
        ("--captions", "0"): "--captions 0",
        ("--seed", "1"): "another set of captions",
        ("--keep", "-1"): "--keep -1",
        ("--encoder", str(tmp_path / "nowhere")): "no image encoder",
        ("--shard", "0/2"): "--shard",
    }
    for flags, message in cases.items():
        with pytest.raises(UserError, match=message):
            prepare(data, *flags)


def test_a_clip_is_captioned(data, run, tmp_path, capsys):
    """A folder of frames, the same frames as a GIF or by name, and clips of other lengths."""
    kept = data / "clips" / "val" / "000000"
    lines = tmp_path / "lines.jsonl"

    def caption(*words: str) -> tuple[list[dict], str]:
        generate_caption.main(["--checkpoint", str(run), *HERE, "--json", str(lines), *words])
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        return rows, capsys.readouterr().err

    (from_folder,), said = caption("--video", str(kept))
    assert from_folder["caption"] and "frame" not in said
    page = tmp_path / "page.html"
    words = ["--use_val_set", "--data_dir", str(data), "--html", str(page)]
    from_split, _ = caption(*words)
    assert len(from_split) == 2  # the frames of the second were not kept
    assert (from_split[0]["caption"], from_split[0]["bound"]) == (
        from_folder["caption"],
        from_folder["bound"],
    )
    assert "data:image/jpeg" in page.read_text()
    frames = [Image.open(kept / f"{number}.png") for number in range(8)]
    marked = [frame.convert("RGB") for frame in frames[:3]]
    for number, frame in enumerate(marked):
        frame.putpixel((0, 0), (80 * number,) * 3)  # a GIF joins frames that are alike
    marked[0].save(tmp_path / "clip.gif", save_all=True, append_images=marked[1:])
    rows, said = caption("--video", str(tmp_path / "clip.gif"), "--num_samples", "2")
    assert len(rows) == 2 and "clip.gif has 3 frames; 3 are read" in said
    (tmp_path / "one").mkdir()
    frames[0].save(tmp_path / "one" / "0.png")
    _, said = caption("--video", str(tmp_path / "one"))
    assert "has 1 frame, which stands for all 8" in said


def test_clips_and_images_are_kept_apart(data, run, captioner, scene_folder, tmp_path):
    kept, picture = str(data / "clips" / "val" / "000000"), str(scene_folder / "images")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    cases = [
        ((run, "--image_dir", picture), "images for .*, a captioner of clips"),
        ((captioner, "--video", kept), "clips for .*, a captioner of images"),
        ((captioner, "--use_val_set", "--data_dir", data), "clips for .*, a captioner of images"),
        ((run, "--video", tmp_path / "nowhere.gif"), "nowhere.gif"),
        ((run, "--video", tmp_path / "bad.mp4"), "bad.mp4"),
        ((run, "--video", kept, "--image", kept), "several kinds"),
    ]
    for words, message in cases:
        with pytest.raises(UserError, match=message):
            generate_caption.main(["--checkpoint", *map(str, words), *HERE])
    # The weights of the encoder are the same; the key of its features is not.
    with pytest.raises(UserError, match="those that the model was trained on"):
        evaluate.main(["--checkpoint", str(captioner), "--data_dir", str(data), *HERE[:4]])
    with pytest.raises(UserError, match="a captioner of clips"):
        open_trained(run)


def test_evaluation_has_the_controls_of_time(data, run, tmp_path, capsys):
    words = ["--data_dir", str(data), "--step_counts", "2", "--splits", "val,swap_order,swap_time"]
    out = tmp_path / "scores.json"
    evaluate.main(["--checkpoint", str(run), *words, "--json", str(out), *HERE[:4]])
    scores = json.loads(out.read_text())
    assert set(scores["controls"]) == {"one frame", "shuffled", "reversed"}
    assert {"swap_order", "swap_time", "blind"} <= set(scores) and scores["swap_time"]["pairs"] == 1
    printed = capsys.readouterr().out
    for row in (
        "blind, val",
        "one frame, val",
        "reversed, val",
        "swap_order: text",
        "swap_time, one frame: text",
        "event recall",
    ):
        assert row in printed


def test_the_checkpoint_says_how_frames_are_read(data, run, tmp_path):
    saved = checkpoint.load(run)
    assert (writer.frames_of(saved), saved["encoder"]["patches"]) == (8, 128)
    assert saved["statistics"]["time_scale"] == writer.TIME_SCALE
    assert saved["statistics"]["change_scale"] == writer.CHANGE_SCALE
    assert saved["model"]["condition_width"] == 2 * saved["encoder"]["width"]
    assert saved["model"]["patch_layers"] == 2
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    rewrite(copy / "features.json", frames=7)
    with pytest.raises(UserError, match="another shape"):
        CaptionData(copy, "val")


def test_a_captioner_of_patches_alone(data, tmp_path, capsys):
    """It is resumed as it began; it may start a captioner that reads changes."""
    out = tmp_path / "plain"
    alone = ["--no-frame_changes", "--patch_layers", "0"]
    plain = checkpoint.load(make_captioner(data, out, *alone) / "best.pt")
    assert "change_scale" not in plain["statistics"]
    width = plain["encoder"]["width"]
    assert plain["model"]["condition_width"] == width
    make_captioner(data, out, "--resume")
    start = ["--init_from", str(out / "best.pt")]
    lengths = make_captioner(data, tmp_path / "lengths", *start, "--length_only")
    for folder in (out, lengths):  # the defaults are those of the network before
        kept = checkpoint.load(folder / "best.pt")
        assert "change_scale" not in kept["statistics"] and kept["model"]["patch_layers"] == 0
    capsys.readouterr()
    later = make_captioner(data, tmp_path / "later", *start, "--patch_layers", "0")
    said = capsys.readouterr().err
    assert "new: 0" in said
    later = checkpoint.load(later / "best.pt")
    assert later["model"]["condition_width"] == 2 * width and later["statistics"]["change_scale"]
    with pytest.raises(UserError, match="add --patch_layers 0"):
        make_captioner(data, tmp_path / "soft", "--soft_masks")
