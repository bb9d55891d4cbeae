"""Features on disk: a stop, a kill, lost or damaged files, and parts lead to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from base import config
from base.files import UserError
from caption import data, features
from net import image_encoders
from tests.making.captioned import (
    make_captions,
    save_encoder,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    flags = ["--encoder", "none", "--levels", "1", "--num_train", "24", "--num_val", "4"]
    return make_captions(tmp_path_factory.mktemp("features") / "data", *flags)


def test_a_stopped_cache_goes_on_and_another_encoder_is_refused(pictures, tmp_path, monkeypatch):
    encoder = image_encoders.load(str(save_encoder(tmp_path / "a")))
    features.cache_features(encoder, pictures, workers=1)
    straight = np.load(pictures / "features.npy")
    for name in ("features.npy", "features.json"):
        (pictures / name).unlink()
    monkeypatch.setattr(features, "CHUNK", 16)
    calls, encode = [], encoder.encode
    monkeypatch.setattr(
        encoder,
        "encode",
        lambda pixels: encode(pixels) if len(calls) < 3 and not calls.append(1) else 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        features.cache_features(encoder, pictures, workers=1, batch_size=8)
    assert json.loads((pictures / "features.json").read_text())["done"] == 16
    with pytest.raises(UserError, match="features of 16 of"):
        data.CaptionData(pictures, "train")
    monkeypatch.setattr(encoder, "encode", encode)
    features.cache_features(encoder, pictures, workers=1, batch_size=32)
    assert (
        np.array_equal(np.load(pictures / "features.npy"), straight)
        and straight.dtype == np.float16
    )
    torch.manual_seed(1)
    with pytest.raises(UserError, match=f"features of the encoder {tmp_path / 'a'} "):
        features.cache_features(
            image_encoders.load(str(save_encoder(tmp_path / "b", "vit"))), pictures
        )


def test_a_damaged_picture_is_named(pictures, tmp_path):
    """It is read in a process of its own, and still the mistake is one line, not a broken pool."""
    folder = tmp_path / "data"
    shutil.copytree(pictures, folder, ignore=shutil.ignore_patterns("features.*"))
    (folder / "images" / "val" / "000003.png").write_bytes(b"cut")
    with pytest.raises(UserError, match="val/000003.png, which is damaged"):
        features.cache_features(
            image_encoders.load(str(save_encoder(tmp_path / "a"))), folder, workers=1
        )


def test_lost_features_are_not_taken_for_done(pictures, tmp_path, monkeypatch):
    """features.npy is gone, features.json still says that all is done, and the run that makes it anew is killed at once."""
    folder = tmp_path / "data"
    shutil.copytree(pictures, folder, ignore=shutil.ignore_patterns("features.*"))
    encoder = image_encoders.load(str(save_encoder(tmp_path / "a")))
    features.cache_features(encoder, folder, workers=1)
    (folder / "features.npy").unlink()
    monkeypatch.setattr(encoder, "encode", lambda pixels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        features.cache_features(encoder, folder, workers=1)
    with pytest.raises(UserError, match="image features"):
        data.CaptionData(folder, "train")


@pytest.mark.posix
def test_a_killed_cache_goes_on(pictures, tmp_path):
    """SIGKILL in the middle, in a process of its own: the rest is computed, and all is equal to the bit."""
    folder = save_encoder(tmp_path / "a")
    code = (
        f"import time; from caption import features; from net import image_encoders; features.CHUNK = 4\n"
        f"e = image_encoders.load({str(folder)!r}); encode = e.encode\n"
        f"e.encode = lambda pixels: (time.sleep(0.3), encode(pixels))[1]\n"
        f"if __name__ == '__main__': features.cache_features(e, {str(pictures)!r}, workers=1, batch_size=4)"
    )
    (tmp_path / "cache.py").write_text(code)
    for name in ("features.npy", "features.json"):
        (pictures / name).unlink(missing_ok=True)
    slow = subprocess.Popen(
        [sys.executable, str(tmp_path / "cache.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    done = lambda: (
        json.loads((pictures / "features.json").read_text())["done"]
        if (pictures / "features.json").exists()
        else 0
    )
    deadline = time.time() + 60
    while done() < 8 and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(slow.pid, signal.SIGKILL)
    slow.wait()
    total = sum(data.read_meta(pictures)["splits"].values())
    assert 8 <= done() < total
    encoder = image_encoders.load(str(folder))
    features.cache_features(encoder, pictures, workers=1, batch_size=4)
    resumed = np.load(pictures / "features.npy")
    assert done() == total and resumed.any((1, 2)).all()
    for name in ("features.npy", "features.json"):
        (pictures / name).unlink()
    features.cache_features(encoder, pictures, workers=1, batch_size=4)
    assert np.array_equal(np.load(pictures / "features.npy"), resumed)


def test_parts_of_a_cache_are_joined(pictures, tmp_path):
    """Three processes' parts, in any order, are the whole cache to the bit; a damaged part and an impossible one are refused."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        shutil.copytree(pictures, folder, ignore=shutil.ignore_patterns("features*"))
    encoder = image_encoders.load(image_encoders.EMBEDDED)
    features.cache_features(encoder, whole, workers=1)
    features.cache_features(encoder, parts, shard=(2, 3), workers=1)
    features.cache_features(encoder, parts, shard=(0, 3), workers=1)
    assert not (parts / "features.json").exists()
    aside = features.part_of(parts, 0, 3) / "features.npy"
    good = aside.read_bytes()
    aside.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match="which was changed"):
        features.cache_features(encoder, parts, shard=(1, 3), workers=1)
    aside.write_bytes(good)
    features.cache_features(encoder, parts, shard=(1, 3), workers=1)
    for name in ("features.npy", data.CHECKSUMS, "features.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert not list(parts.glob("features_*_of_*"))
    for text in ("3/3", "1", "0/0", "-1/2"):
        with pytest.raises(UserError, match=f"--shard {text}"):
            config.read_shard(text)
    with pytest.raises(UserError, match="without captions"):
        features.claim(tmp_path / "empty", (0, 2))


def test_another_encoder_is_refused_by_its_key():
    saved = {"encoder": {"encoder": "embedded", "key": "a"}}
    features.check_encoder("embedded", "a", saved, "best.pt")
    with pytest.raises(UserError, match="key b; expected the encoder of best.pt: embedded"):
        features.check_encoder("embedded", "b", saved, "best.pt")
    with pytest.raises(UserError, match="expected the encoder of best.pt: embedded with key a"):
        features.open_encoder(saved, "best.pt")


def test_the_speed_of_a_cache_names_what_held_it():
    """50 images a second, half of the time in the encoder, and a share of the product that is a number of this machine."""
    said = features.speed(image_encoders.load(image_encoders.EMBEDDED), 100, 2.0, 1.0)
    assert (
        said.startswith("features: 100 images, 50.0 per second")
        and "took 50% of the time at " in said
    )
    gflop = float(said.split("arithmetic, ")[1].split(" GFLOP")[0])
    assert 0.3 < gflop < 0.6  # counted: most of it in 128 by 128 pixels' convolutions
