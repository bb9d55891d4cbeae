"""The captioner's scripts as a user runs them: stop and resume, bad pictures, refusals, the demo from end to end."""

import importlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import demo
import evaluate
import generate_caption
import prep_caption_synthetic
import train
import train_captioning
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data as caption_data
from caption import scores, writer
from caption.data import CaptionData
from loop import checkpoint
from net import image_encoders
from tests.making.captioned import (
    SMALL,
    by_hand,
    make_captioner,
    make_captions,
    rewrite,
    save_encoder,
)
from tests.making.corpus import TINY
from tools import train_encoder

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
    assert (data / "captions.jsonl").read_bytes() == before and (
        data / "meta.json"
    ).read_bytes() == (data / "meta.aside").read_bytes()
    assert (data / "images" / "val" / "000000.png").stat().st_mtime_ns == kept
    make_captions(data)
    assert "all images are there" in capsys.readouterr().err
    for flags, message in (
        (("--seed", "1"), "another set of images"),
        (("--levels", "1,4"), "--levels 1,4"),
        (("--inside", "1"), "--inside 1"),
        (("--inside", "0.5"), "another set of images"),
        (("--encoder", str(data / "nowhere")), "no image encoder"),
        (("--device", "gpu"), "--device gpu"),
    ):
        with pytest.raises(UserError, match=message):
            make_captions(data, *flags)
    for flag in ("--num_train", "--num_val", "--captions"):
        with pytest.raises(UserError, match=f"{flag} 0"):
            prep_caption_synthetic.main(["--out", str(data), flag, "0"])


def same_run(one, other) -> None:
    """Weights, averages and figures are equal to the bit."""
    one, other = (torch.load(run / "last.pt", weights_only=True) for run in (one, other))
    assert one["step"] == other["step"]
    for key in ("weights", "averaged"):
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])
    assert one["metrics"] == other["metrics"]


def test_stopped_training_equals_a_straight_run(data, tmp_path):
    """SIGTERM in a process of its own, then nothing but --resume: the flags of the loss are kept too."""
    flags = [
        "--data_dir",
        str(data),
        *SMALL,
        "--max_steps",
        "30",
        "--save_every",
        "5",
        "--eval_every",
        "10",
        "--log_every",
        "1",
        "--ema",
        "0.9",
        "--weight",
        "clipped",
        "--image_dropout",
        "0.4",
        "--patch_dropout",
        "0.2",
        "--label_smoothing",
        "0.1",
        "--complementary",
        "--dropout",
        "0.1",
    ]
    train_captioning.main([*flags, "--out", str(tmp_path / "straight")])
    half = subprocess.Popen(
        [sys.executable, "train_captioning.py", *flags, "--out", str(tmp_path / "half")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "half" / "log.jsonl"
    while half.poll() is None and (not log.exists() or log.read_text().count("\n") < 4):
        time.sleep(0.01)
    half.send_signal(signal.SIGTERM)
    error = half.communicate(timeout=60)[1]
    assert half.returncode == 128 + signal.SIGTERM and "go on with --resume" in error
    assert checkpoint.load(tmp_path / "half" / "resume.pt")["step"] < 30
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")


def resumed_equals_straight(data, tmp_path, monkeypatch, flags) -> None:
    """`half`, whose evaluation fails after the state was saved, goes on with --resume alone and equals `straight`."""
    monkeypatch.setattr(train_captioning.writer, "write", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_captioner(data, tmp_path / "half", *flags)
    monkeypatch.undo()
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")


@pytest.mark.parametrize(
    "kept", [["--objective", "ar"], ["--weight", "flat", "--estimator", "cosine"]]
)
def test_what_is_trained_is_kept_by_a_resumed_run(kept, data, tmp_path, monkeypatch):
    """The stop is made by an evaluation that fails, after the state was saved."""
    flags = [*kept, "--save_every", "2", "--eval_every", "3"]
    make_captioner(data, tmp_path / "straight", *flags)
    resumed_equals_straight(data, tmp_path, monkeypatch, flags)


def test_the_second_phase_is_resumed_as_such(data, run, tmp_path, monkeypatch):
    """It starts from a trained captioner, logs its reward, and after a stop goes on rewarding."""
    flags = [
        "--init_from",
        str(run),
        "--self_critical",
        "2",
        "--save_every",
        "2",
        "--eval_every",
        "3",
        "--log_every",
        "1",
        "--learning_rate",
        "1e-3",
    ]
    make_captioner(data, tmp_path / "straight", *flags)
    lines = [
        json.loads(line) for line in (tmp_path / "straight" / "log.jsonl").read_text().splitlines()
    ]
    assert all(
        0 <= line["reward"] <= 10 and 0 <= line["greedy_reward"] <= 10
        for line in lines
        if "loss" in line
    )
    resumed_equals_straight(data, tmp_path, monkeypatch, flags)
    for wrong, message in (
        (["--self_critical", "1"], "--init_from"),
        ([*flags, "--objective", "ar"], "a trained diffusion captioner"),
        ([*flags, "--label_smoothing", "0.1"], "--complementary or --label_smoothing"),
        (["--patch_dropout", "1"], "--patch_dropout 1"),
        (["--estimator", "sine"], "--estimator sine"),
        (["--complementary", "--estimator", "linear"], "the count estimator"),
    ):
        with pytest.raises(UserError, match=message):
            make_captioner(data, tmp_path / "wrong", *wrong)
    assert not (tmp_path / "wrong").exists()


def test_lengths_alone(data, run, tmp_path, monkeypatch):
    """Everything but the head stays as it was to the bit, the head says val's lengths better, and a stop changes nothing."""
    flags = [
        "--length_only",
        "--length_dropout",
        "0.2",
        "--init_from",
        str(run),
        "--optimizer",
        "adamw",
        "--max_steps",
        "12",
        "--save_every",
        "6",
        "--eval_every",
        "7",
        "--ema",
        "0.5",
        "--learning_rate",
        "1e-2",
    ]
    make_captioner(data, tmp_path / "straight", *flags)
    before, after = (
        torch.load(run, weights_only=True),
        torch.load(tmp_path / "straight" / "last.pt", weights_only=True),
    )
    start = before["averaged"]
    assert {name for name in start if not torch.equal(start[name], after["averaged"][name])} == {
        name for name in start if "length_head" in name
    }
    split, lengths = CaptionData(data, "val"), []
    for path in (run, tmp_path / "straight" / "last.pt"):
        model, _, saved = checkpoint.open_model(path)
        log_p = model.length_logits(
            writer.standardise(split.features_of(range(6)), saved["statistics"], "cpu")
        ).log_softmax(-1)
        lengths.append(
            -np.mean(
                [log_p[n, [len(one) for one in split.tokens[n]]].mean().item() for n in range(6)]
            )
        )
    assert lengths[1] < lengths[0] and after["metrics"]["nats_per_length"] == pytest.approx(
        lengths[1], abs=1e-2
    )
    with monkeypatch.context() as broken:
        broken.setattr(train_captioning.writer, "write", lambda *args, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_captioner(data, tmp_path / "half", *flags)
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")
    for wrong in ([], ["--objective", "ar", "--init_from", str(run)]):
        with pytest.raises(UserError, match="a trained diffusion captioner"):
            make_captioner(data, tmp_path / "wrong", "--length_only", *wrong)
    assert not (tmp_path / "wrong").exists()
    twin = (
        make_captioner(
            data, tmp_path / "twin", "--objective", "ar", "--max_steps", "2", "--warmup_steps", "1"
        )
        / "best.pt"
    )
    for wrong in (
        ["--init_from", str(twin)],
        ["--init_from", str(run), "--layers", "3"],
    ):  # the rest would stay random, or a twin's
        with pytest.raises(UserError, match="a diffusion captioner of this --model_config"):
            make_captioner(data, tmp_path / "other", "--length_only", *wrong)


def test_a_run_from_before_keeps_its_length_head(data, tmp_path, monkeypatch):
    """It is resumed as it was begun: its checkpoint does not say how wide the head is, which means linear."""
    flags = ["--length_hidden", "0", "--save_every", "2", "--eval_every", "3"]
    make_captioner(data, tmp_path / "straight", *flags)
    monkeypatch.setattr(train_captioning.writer, "write", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_captioner(data, tmp_path / "half", *flags)
    monkeypatch.undo()
    saved = torch.load(tmp_path / "half" / "resume.pt", weights_only=True)
    del saved["model"]["length_hidden"]
    checkpoint.save(tmp_path / "half" / "resume.pt", saved)
    train_captioning.main(["--data_dir", str(data), "--out", str(tmp_path / "half"), "--resume"])
    same_run(tmp_path / "straight", tmp_path / "half")


def test_the_place_code_keeps_its_size(data, tmp_path, monkeypatch):
    """What goes on from a captioner whose place code was smaller, resumed or as a start, sees it at that size."""
    size = lambda path: torch.load(path, weights_only=True)["statistics"]["place_scale"]
    with monkeypatch.context() as small:
        small.setattr(writer, "PLACE_SCALE", 1.0)
        before = make_captioner(
            data, tmp_path / "before", "--max_steps", "2", "--warmup_steps", "1"
        )
    make_captioner(data, tmp_path / "before", "--resume", "--max_steps", "3")
    make_captioner(data, tmp_path / "started", "--init_from", str(before / "best.pt"))
    make_captioner(data, tmp_path / "new")
    assert [size(tmp_path / name / "last.pt") for name in ("before", "started", "new")] == [
        1.0,
        1.0,
        writer.PLACE_SCALE,
    ]


def test_a_text_denoiser_is_the_start(data, tmp_path, monkeypatch, capsys):
    """The new parts are the identity: before the first step the captioner says what the text denoiser says, whatever the picture."""
    import data_prep

    (tmp_path / "stories.txt").write_text(
        "<|endoftext|>".join(["a red circle and a blue square."] * 60 + ["there is a star."] * 60)
    )
    (tmp_path / "tokenizer.json").write_text(CaptionData(data, "train").tokenizer.to_json())
    started = {}
    for name, tokenizer in (
        ("same", ["--tokenizer", str(data / "tokenizer.json")]),
        ("other", ["--vocab_size", "300"]),
    ):
        data_prep.main(
            [
                "--input",
                str(tmp_path / "stories.txt"),
                "--out",
                str(tmp_path / name),
                "--val_fraction",
                "0.1",
                *tokenizer,
            ]
        )
        train.main(
            [
                "--data_dir",
                str(tmp_path / name),
                "--out",
                str(tmp_path / f"{name}_run"),
                *TINY,
                "--max_steps",
                "3",
                "--max_length",
                "64",
            ]
        )
    with pytest.raises(UserError, match="tokenizer"):
        make_captioner(
            data,
            tmp_path / "refused",
            "--init_from",
            str(tmp_path / "other_run" / "best.pt"),
            "--layers",
            "1",
        )
    monkeypatch.setattr(
        train_captioning.training,
        "fit",
        lambda model, *args, **more: started.update(model=model) or {},
    )
    make_captioner(
        data,
        tmp_path / "run",
        "--init_from",
        str(tmp_path / "same_run" / "best.pt"),
        "--layers",
        "1",
    )
    text, tokenizer, _ = checkpoint.open_model(tmp_path / "same_run" / "best.pt")
    tokens = torch.randint(0, tokenizer.eos, (2, 12), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, 3:7] = tokenizer.bos, tokenizer.mask
    select, model = tokens == tokenizer.mask, started["model"].eval()
    with torch.no_grad():
        said = model(
            tokens,
            select=select,
            condition=model.keys_values(CaptionData(data, "val").features_of([0, 1]).float()),
        )
        assert torch.equal(said, text(tokens, select=select))
    assert "tensors; new:" in capsys.readouterr().err


def test_training_refusals(data, run, tmp_path):
    start = lambda *flags: make_captioner(data, run.parent, *flags)
    other = by_hand(
        tmp_path / "other",
        [
            {"image": "a.png", "split": split, "captions": ["a red circle"]}
            for split in ("train", "val")
        ],
        width=192,
    )
    shutil.copytree(data, tmp_path / "features", ignore=shutil.ignore_patterns("images"))
    rewrite(tmp_path / "features" / "features.json", key="0" * 16)
    new = ["--out", str(tmp_path / "x")]
    for flags, message in (
        (("--resume", "--data_dir", str(other)), "other captions or features"),
        ((), "a run in"),
        (("--resume", "--data_dir", str(tmp_path / "features")), "other captions or features"),
        (("--resume", "--d_model", "32"), "another model"),
        (("--objective", "art"), "--objective art"),
        (("--image_dropout", "1"), "--image_dropout 1"),
        ((*new, "--max_steps", "0"), "max_steps"),
        ((*new, "--max_length", "4"), "--max_length 4"),
        ((*new, "--init_from", "no.pt"), "no.pt"),
        ((*new, "--resume"), "resume.pt"),
        ((*new, "--data_dir", str(tmp_path)), "meta.json"),
    ):
        with pytest.raises(UserError, match=message):
            start(*flags)


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
    assert {"image_id": 42, "caption": rows["COCO_val2014_000000000042.webp"]["caption"]} in results
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
        (["--image", picture, "--template", "a red circle"], "at least one"),
        (["--image_dir", str(tmp_path)], "no picture in"),
        (["--use_val_set", "--data_dir", str(data), "--split", "test"], "no split 'test'"),
        (["--image", picture, "--steps", "0"], "steps"),
        (["--image", picture, "--batch_size", "0"], "--batch_size 0"),
        (["--image", picture, "--sampler", "fist"], "--sampler"),
    ):
        with pytest.raises(UserError, match=message):
            generate_caption.main(["--checkpoint", str(run), *flags])


def test_evaluate(data, run, tmp_path, capsys):
    twin = make_captioner(data, data.parent / "twin", "--objective", "ar") / "best.pt"
    flags = ["--checkpoint", str(run), "--data_dir", str(data), "--threads", "1", "--device", "cpu"]
    evaluate.main(
        [
            *flags,
            "--twin",
            str(twin),
            "--step_counts",
            "1,3",
            "--probe_steps",
            "2",
            "--json",
            str(tmp_path / "r.json"),
            "--picture",
            str(tmp_path / "p.png"),
        ]
    )
    found = json.loads((tmp_path / "r.json").read_text())
    assert (
        set(found["splits"])
        == {"val", "held_pair", "held_relation", "held_count", "long", "noise3", "swap"}
        == set(found["twin"])
        == set(found["probe"])
    )
    assert (
        all(0 <= one["truthful"] <= 1 and one["images"] == 8 for one in found["splits"].values())
        and found["swap"]["pairs"] == 4
    )
    assert [row["steps"] for row in found["steps"]] == [1, 3] and all(
        row["calls"] <= row["steps"] for row in found["steps"]
    )
    assert (
        sum(one["images"] for one in found["objects"]["val"].values()) == 8
        and "truthful" in found["blind"]
    )
    assert (tmp_path / "p.png").read_bytes()[
        :4
    ] == b"\x89PNG" and "| held_pair | 8 |" in capsys.readouterr().out
    for words, message in (
        (["--splits", "valid"], "--splits valid"),
        (["--samples"], "--samples for a caption"),
        (["--text", "a.txt"], "--text for a caption"),
        (["--splits", "train"], "--splits train"),
        (["--judge", str(twin)], "--judge for a caption"),
        (["--twin", str(tmp_path / "no.pt")], "no.pt"),
        (["--samplers", "fist"], "fist"),
        (["--data_dir", str(tmp_path)], "meta.json"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main([*flags, *words])
    generate_caption.main(
        [
            "--checkpoint",
            str(twin),
            "--image",
            picture_of(data),
            "--html",
            str(tmp_path / "twin.html"),
            "--num_samples",
            "2",
        ]
    )
    assert (tmp_path / "twin.html").exists() and capsys.readouterr().out.count("nats/token)") == 2
    for script, words in (
        (evaluate, ["--data_dir", str(data), "--guidance", "2"]),
        (generate_caption, ["--image", picture_of(data), "--guidance", "2"]),
        (generate_caption, ["--image", picture_of(data), "--template", "a [MASK] circle"]),
        (generate_caption, ["--image", picture_of(data), "--rerank", "2"]),
    ):
        with pytest.raises(UserError, match="for a twin"):
            script.main(["--checkpoint", str(twin), *words])


def picture_of(data) -> str:
    return str(data / "images" / "val" / "000001.png")


def test_data_of_another_encoder_or_tokenizer(data, run, tmp_path):
    """Features of another encoder are refused; other tokens for the same captions change no score."""
    model, tokenizer, saved = checkpoint.open_model(run)
    records = caption_data.read_records(data)
    other = by_hand(
        tmp_path / "other",
        records,
        Tokenizer.train(["a blue heart"], 270),
        key="0" * 16,
        patches=64,
        width=192,
    )
    with pytest.raises(UserError, match="0000000000000000"):
        evaluate.main(
            [
                "--checkpoint",
                str(run),
                "--data_dir",
                str(other),
                "--splits",
                "val",
                "--step_counts",
                "1",
            ]
        )
    shutil.copy(data / "features.npy", other / "features.npy")
    mine, theirs = (
        scores.swap_scores(model, tokenizer, saved, CaptionData(folder, "swap"), draws=4)
        for folder in (data, other)
    )
    assert mine == theirs


def test_another_encoder_is_refused(data, run, tmp_path, monkeypatch):
    """A captioner knows its encoder by its weights: the same name with others is refused."""
    save_encoder(tmp_path / "enc", "clip")
    folder = make_captions(tmp_path / "clip", "--levels", "1", "--encoder", str(tmp_path / "enc"))
    best = make_captioner(folder, tmp_path / "run") / "best.pt"
    picture = str(folder / "images" / "val" / "000000.png")
    generate_caption.main(["--checkpoint", str(best), "--image", picture])
    save_encoder(tmp_path / "enc", "clip", hidden_size=48)
    with pytest.raises(UserError, match="the encoder of .*run/best.pt: "):
        generate_caption.main(["--checkpoint", str(best), "--image", picture])
    with pytest.raises(UserError, match="features of the encoder"):
        make_captions(folder, "--levels", "1", "--encoder", str(tmp_path / "enc"))


def test_the_encoder_is_trained_by_our_script(tmp_path, capsys):
    folder = make_captions(tmp_path / "data", "--encoder", "none")
    flags = [
        "--data_dir",
        str(folder),
        "--out",
        str(tmp_path / "run"),
        "--width",
        "32",
        "--image_size",
        "32",
        "--max_steps",
        "2",
        "--batch_size",
        "4",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    train_encoder.main(flags)
    found = re.search(r"SHA-256 (\w+)", capsys.readouterr().out)[1]
    encoder = image_encoders.load_embedded(
        path=tmp_path / "run" / "scene_encoder.safetensors", sha256=found
    )
    assert (encoder.patches, encoder.width) == (4, 48)
    with pytest.raises(UserError, match="a run in"):
        train_encoder.main(flags)
    train_encoder.main([*flags, "--resume", "--max_steps", "3"])


def test_the_demo(tmp_path, capfd, monkeypatch):
    """The first stage is a process of its own, as all are; the others run here, which spares three starts."""
    out = tmp_path / "demo"

    def stage(words):
        if words[1].endswith("prep_caption_synthetic.py"):
            return subprocess.run(words)
        return subprocess.CompletedProcess(
            words, importlib.import_module(Path(words[1]).stem).main(words[2:]) or 0
        )

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=stage))
    flags = ["--out", str(out), "--num_train", "30", "--num_val", "10", "--max_steps", "10"]
    demo.main(flags)
    found = json.loads((out / "results.json").read_text())
    assert found["seconds"] > 0 and 0 < found["peak_memory_gb"] < 4
    assert all(
        0 <= found["splits"][split][key] <= 1
        for split in ("val", "held_pair")
        for key in ("truthful", "set_exact")
    )
    text = capfd.readouterr().out
    assert (
        f"look at {out / 'index.html'}" in text
        and "| held_pair | 10 |" in text
        and text.count("$ python ") == 4
    )
    assert (out / "index.html").read_text().count("data:image/jpeg") >= 10 and (
        out / "steps.png"
    ).exists()
    assert "--resume" in demo.commands(demo.parse_args(flags), out)[1]  # a second demo goes on
    with pytest.raises(UserError, match="--num_train 5"):
        demo.main(["--out", str(out), "--num_train", "5"])
