"""The captioner's scripts as a user runs them: stop and resume, bad pictures, refusals, the demo from end to end."""

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from captioned import SMALL, make_captioner, make_captions, save_encoder
from corpus import TINY
from PIL import Image

import checkpoint
import demo
import evaluate
import generate_caption
import prep_caption_synthetic
import train
import train_captioning
import train_encoder
import vision
from files import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_captions(tmp_path_factory.mktemp("scripts") / "data")


@pytest.fixture(scope="module")
def run(data):
    return make_captioner(data, data.parent / "run") / "best.pt"


def test_prep_is_done_once_and_goes_on(data, capsys):
    before = (data / "captions.jsonl").read_bytes()
    (data / "meta.json").rename(data / "meta.aside")
    kept = (data / "images" / "val" / "000000.png").stat().st_mtime_ns
    make_captions(data)  # as after a kill: nothing is drawn twice
    assert (data / "captions.jsonl").read_bytes() == before and (data / "meta.json").read_bytes() == (data / "meta.aside").read_bytes()
    assert (data / "images" / "val" / "000000.png").stat().st_mtime_ns == kept
    make_captions(data)
    assert "all pictures are there" in capsys.readouterr().err
    for flags, message in ((("--seed", "1"), "another set of pictures"), (("--levels", "1,4"), "--levels 1,4"), (("--encoder", "nowhere"), "no image encoder")):
        with pytest.raises(UserError, match=message):
            make_captions(data, *flags)
    for flag in ("--num_train", "--num_val", "--captions"):
        with pytest.raises(UserError, match=f"{flag} 0"):
            prep_caption_synthetic.main(["--out", str(data), flag, "0"])


def test_stopped_training_equals_a_straight_run(data, tmp_path):
    """SIGTERM in a process of its own, then --resume: weights, averages and figures equal to the bit."""
    flags = ["--data_dir", str(data), *SMALL, "--max_steps", "30", "--save_every", "5", "--eval_every", "10", "--log_every", "1", "--ema", "0.9"]
    train_captioning.main([*flags, "--out", str(tmp_path / "straight")])
    half = subprocess.Popen([sys.executable, "train_captioning.py", *flags, "--out", str(tmp_path / "half")], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "half" / "log.jsonl"
    while half.poll() is None and (not log.exists() or log.read_text().count("\n") < 4):
        pass
    half.send_signal(signal.SIGTERM)
    assert half.wait() == 128 + signal.SIGTERM and "go on with --resume" in half.stderr.read()
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume", "--threads", "1", "--device", "cpu"])
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("straight", "half"))
    assert one["metrics"] == other["metrics"] and one["step"] == other["step"] == 30
    for key in ("weights", "averaged"):
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])


def test_a_text_denoiser_is_the_start(data, tmp_path, capsys):
    """The new parts are the identity: with a picture, the model says what the text denoiser says."""
    import data_prep
    (tmp_path / "stories.txt").write_text("<|endoftext|>".join(["a red circle and a blue square."] * 60 + ["there is a star."] * 60))
    data_prep.main(["--input", str(tmp_path / "stories.txt"), "--out", str(tmp_path / "text"), "--vocab_size", "300", "--val_fraction", "0.1"])
    train.main(["--data_dir", str(tmp_path / "text"), "--out", str(tmp_path / "denoiser"), *TINY, "--max_steps", "3", "--max_length", "64"])
    text, _, _ = checkpoint.open_model(tmp_path / "denoiser" / "best.pt")
    with pytest.raises(UserError, match="tokenizer"):
        make_captioner(data, tmp_path / "other", "--init_from", str(tmp_path / "denoiser" / "best.pt"))
    from caption_data import CaptionData
    from model import Denoiser
    model = Denoiser(type(text.config)(**{**vars(text.config), "condition_width": 192}))
    train_captioning.start_from(model, str(tmp_path / "denoiser" / "best.pt"), checkpoint.load(tmp_path / "denoiser" / "best.pt")["data"]["tokenizer"])
    tokens = torch.full((2, 6), 5)
    tokens[:, 2:5] = text.config.vocab_size - 1
    select = tokens == text.config.vocab_size - 1
    seen = CaptionData(data, "val").images([0, 1])
    with torch.no_grad():
        assert torch.equal(model.eval()(tokens, select=select, condition=model.keys_values(seen)), text(tokens, select=select))
    assert "tensors; new:" in capsys.readouterr().err


def test_training_refusals(data, run, tmp_path):
    start = lambda *flags: make_captioner(data, run.parent, *flags)
    other = make_captions(tmp_path / "other", "--seed", "5", "--levels", "1")
    for flags, message in ((("--resume", "--data_dir", str(other)), "with other captions"), ((), "a run in"), (("--resume", "--d_model", "32"), "another model"),
                           (("--objective", "art"), "--objective art"), (("--image_dropout", "1"), "--image_dropout 1"), (("--max_steps", "0"), "max_steps"),
                           (("--out", str(tmp_path / "x"), "--max_length", "4"), "--max_length 4"), (("--out", str(tmp_path / "x"), "--init_from", "no.pt"), "no.pt"),
                           (("--out", str(tmp_path / "x"), "--resume"), "resume.pt"), (("--out", str(tmp_path / "x"), "--data_dir", str(tmp_path)), "meta.json")):
        with pytest.raises(UserError, match=message):
            start(*flags)


def write_pictures(folder, good: Path) -> dict[str, bool]:
    """Every kind of odd picture, and whether it can be captioned."""
    folder.mkdir()
    picture = Image.open(good).convert("RGB")
    picture.save(folder / "good.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
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
    bad = ("cut.png", "empty.png", "words.jpg", "bomb.png")
    return {path.name: path.name not in bad for path in folder.iterdir()}


def test_odd_pictures(data, run, tmp_path, capsys):
    kinds = write_pictures(tmp_path / "photos", data / "images" / "val" / "000000.png")
    flags = ["--checkpoint", str(run), "--image_dir", str(tmp_path / "photos"), "--steps", "4", "--batch_size", "3", "--threads", "1", "--device", "cpu"]
    json_file, coco, page = (str(tmp_path / name) for name in ("c.jsonl", "coco.json", "g.html"))
    assert not generate_caption.main([*flags, "--json", json_file, "--coco", coco, "--html", page])
    err = capsys.readouterr().err
    rows = {Path(row["image"]).name: row for row in map(json.loads, Path(json_file).read_text().splitlines())}
    assert set(rows) == {name for name, fine in kinds.items() if fine}
    for name in (name for name, fine in kinds.items() if not fine):
        assert len(re.findall(f"^skipped: found .*{name}.*; expected .*; ", err, re.M)) == 1
    assert f"4 of {len(kinds)} pictures skipped" in err
    assert rows["turned.png"]["caption"] == rows["good.png"]["caption"]  # upright again
    assert all(row["bound"] > 0 and row["caption"] for row in rows.values())
    assert len(json.loads(Path(coco).read_text())) == len(rows) and Path(page).read_text().count("data:image/jpeg") >= len(rows)
    assert generate_caption.main([*flags, "--strict"]) == 1
    for name, fine in kinds.items():
        if not fine:
            with pytest.raises(UserError, match=name):
                generate_caption.main(["--checkpoint", str(run), "--image", str(tmp_path / "photos" / name)])
    done = Path(json_file).read_text().splitlines(keepends=True)
    Path(json_file).write_text("".join(done[:2]) + done[2][:20])  # a run that was killed while it wrote
    capsys.readouterr()
    assert not generate_caption.main([*flags, "--json", json_file])
    assert {Path(row["image"]).name for row in map(json.loads, Path(json_file).read_text().splitlines())} == set(rows)
    assert Path(done[0] and json.loads(done[0])["image"]).name not in capsys.readouterr().out


def test_templates_and_refusals(data, run, tmp_path, capsys):
    picture = str(data / "images" / "val" / "000001.png")
    generate_caption.main(["--checkpoint", str(run), "--image", picture, "--template", "a [MASK] red [MASK*2]", "--num_samples", "3", "--threads", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(re.search(r": a.* red", line) for line in lines)
    generate_caption.main(["--checkpoint", str(run), "--use_val_set", "--data_dir", str(data), "--num_samples", "2", "--rerank", "2", "--guidance", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    for flags, message in (([], "no picture, or several"), (["--image", picture, "--use_val_set"], "several kinds"), (["--image", "no.png"], "no.png"),
                           (["--image", picture, "--template", "a red circle"], "at least one"), (["--image_dir", str(tmp_path)], "no picture in"),
                           (["--use_val_set", "--data_dir", str(data), "--split", "test"], "no split 'test'"), (["--image", picture, "--steps", "0"], "steps"),
                           (["--image", picture, "--batch_size", "0"], "--batch_size 0"), (["--image", picture, "--sampler", "fist"], "--sampler")):
        with pytest.raises(UserError, match=message):
            generate_caption.main(["--checkpoint", str(run), *flags])


def test_evaluate(data, run, tmp_path, capsys):
    twin = make_captioner(data, data.parent / "twin", "--objective", "ar") / "best.pt"
    flags = ["--checkpoint", str(run), "--data_dir", str(data), "--threads", "1", "--device", "cpu"]
    evaluate.main([*flags, "--twin", str(twin), "--step_counts", "1,3", "--probe_steps", "2", "--json", str(tmp_path / "r.json"), "--picture", str(tmp_path / "p.png")])
    found = json.loads((tmp_path / "r.json").read_text())
    assert set(found["splits"]) == {"val", "held_pair", "held_relation", "held_count", "long", "noise3", "swap"} == set(found["twin"]) == set(found["probe"])
    assert all(0 <= one["truthful"] <= 1 and one["images"] == 8 for one in found["splits"].values()) and found["swap"]["pairs"] == 4
    assert [row["steps"] for row in found["steps"]] == [1, 3] and all(row["calls"] <= row["steps"] for row in found["steps"])
    assert sum(one["images"] for one in found["objects"]["val"].values()) == 8 and "truthful" in found["blind"]
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG" and "| held_pair | 8 |" in capsys.readouterr().out
    for words, message in ((["--splits", "valid"], "--splits valid"), (["--samples"], "--samples for a caption"), (["--text", "a.txt"], "--text for a caption"),
                           (["--twin", str(tmp_path / "no.pt")], "no.pt"), (["--samplers", "fist"], "fist"), (["--data_dir", str(tmp_path)], "meta.json")):
        with pytest.raises(UserError, match=message):
            evaluate.main([*flags, *words])
    with pytest.raises(UserError, match="for a twin"):
        evaluate.main(["--checkpoint", str(twin), "--data_dir", str(data), "--guidance", "2"])


def test_another_encoder_is_refused(data, run, tmp_path, monkeypatch):
    """A captioner knows its encoder by its weights: the same name with others is refused."""
    save_encoder(tmp_path / "enc", "clip")
    folder = make_captions(tmp_path / "clip", "--levels", "1", "--encoder", str(tmp_path / "enc"))
    best = make_captioner(folder, tmp_path / "run") / "best.pt"
    picture = str(folder / "images" / "val" / "000000.png")
    generate_caption.main(["--checkpoint", str(best), "--image", picture])
    save_encoder(tmp_path / "enc", "clip", hidden_size=48)
    with pytest.raises(UserError, match="the one that .* was trained on"):
        generate_caption.main(["--checkpoint", str(best), "--image", picture])
    with pytest.raises(UserError, match="features of the encoder"):
        make_captions(folder, "--levels", "1", "--encoder", str(tmp_path / "enc"))


def test_the_encoder_is_trained_by_our_script(tmp_path, capsys):
    folder = make_captions(tmp_path / "data", "--encoder", "none")
    flags = ["--data_dir", str(folder), "--out", str(tmp_path / "run"), "--width", "32", "--image_size", "32", "--max_steps", "2", "--batch_size", "4",
             "--threads", "1", "--device", "cpu"]
    train_encoder.main(flags)
    found = re.search(r"SHA-256 (\w+)", capsys.readouterr().out)[1]
    encoder = vision.load_embedded(path=tmp_path / "run" / "scene_encoder.safetensors", sha256=found)
    assert (encoder.patches, encoder.width) == (4, 48)
    with pytest.raises(UserError, match="a run in"):
        train_encoder.main(flags)
    train_encoder.main([*flags, "--resume", "--max_steps", "3"])


def test_the_demo(tmp_path, capfd):
    out = tmp_path / "demo"
    flags = ["--out", str(out), "--num_train", "60", "--num_val", "10", "--max_steps", "12"]
    demo.main(flags)
    found = json.loads((out / "results.json").read_text())
    assert found["seconds"] > 0 and 0 < found["peak_memory_gb"] < 4
    assert all(0 <= found["splits"][split][key] <= 1 for split in ("val", "held_pair") for key in ("truthful", "set_exact"))
    text = capfd.readouterr().out
    assert f"look at {out / 'index.html'}" in text and "| held_pair | 10 |" in text and text.count("$ python ") == 4
    assert (out / "index.html").read_text().count("data:image/jpeg") >= 10 and (out / "steps.png").exists()
    with pytest.raises(UserError, match="--num_train 5"):
        demo.main(["--out", str(out), "--num_train", "5"])
