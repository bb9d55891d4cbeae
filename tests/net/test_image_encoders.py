"""Frozen encoders: the true ViT-B/32 layout, other families, the embedded file's hash, and a cache that survives kills."""

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
from PIL import Image

from base import config
from base.files import UserError
from caption import data, features
from net import image_encoders
from tests.making.captioned import make_captions, save_encoder
from tools import pixels
from worlds import scenes

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_captions(
        tmp_path_factory.mktemp("vision") / "data", "--encoder", "none", "--levels", "1"
    )


def test_clip_vit_b_32(tmp_path):
    """50 tokens of 768, equal to resizing, normalising and running the model by hand."""
    folder = save_encoder(
        tmp_path,
        "clip",
        224,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        patch_size=32,
    )
    encoder = image_encoders.load(str(folder))
    assert (encoder.patches, encoder.width, encoder.preprocess.size, encoder.preprocess.mode) == (
        50,
        768,
        224,
        "crop",
    )
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    )
    small = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    about = json.loads((folder / "preprocessor_config.json").read_text())
    pixels = (small - about["image_mean"]) / about["image_std"]
    from transformers import CLIPVisionModel

    with torch.no_grad():
        expected = CLIPVisionModel.from_pretrained(folder)(
            pixel_values=torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        ).last_hidden_state
    found = encoder.features([picture])
    assert found.shape == (1, 50, 768) and torch.allclose(
        found, expected, atol=2e-3, rtol=2e-3
    )  # float16
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 600, 3), dtype=np.uint8))
    whole = np.asarray(
        wide.resize((448, 224), Image.Resampling.BICUBIC), int
    )  # the shorter side to 224, then the centre
    assert abs(encoder.preprocess(wide) - whole[:, 112:336]).max() <= 1
    shutil.rmtree(folder)  # 350 MB


@pytest.mark.parametrize(
    "kind, patches", [("siglip", 16), ("vit", 17), ("dinov2", 17), ("clip", 17)]
)
def test_other_families(kind, patches, tmp_path):
    encoder = image_encoders.load(
        str(save_encoder(tmp_path, kind, **({"mlp_ratio": 2} if kind == "dinov2" else {})))
    )
    assert (encoder.patches, encoder.width) == (patches, 24)
    assert encoder.features([Image.new("RGB", (50, 40), "red")]).isfinite().all()
    again = image_encoders.load(str(tmp_path))
    assert again.key == encoder.key
    again.model.state_dict()[
        "encoder.layer.0.norm1.weight" if kind == "dinov2" else next(iter(again.model.state_dict()))
    ].add_(1)
    assert image_encoders.Encoder(kind, again.model, again.preprocess).key != encoder.key


@pytest.mark.parametrize(
    "said, size, resized",
    [
        (
            {"do_center_crop": True, "size": 224, "crop_size": 224},
            (448, 336),
            (298, 224),
        ),  # as CLIP's file was once written
        (
            {
                "do_center_crop": True,
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
            },
            (512, 512),
            (256, 256),
        ),  # DINOv2's
        ({"size": {"height": 224, "width": 224}}, (448, 336), (224, 224)),  # SigLIP's and ViT's
    ],
)
def test_preprocessing_is_what_the_folder_says(said, size, resized):
    """The whole picture resized, then the centre cut out, but for a rounding of the longer side."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    picture = Image.fromarray(np.stack([across, down, 0 * down], -1).astype(np.uint8))
    left, top = ((side - 224) // 2 for side in resized)
    by_hand = np.asarray(
        picture.resize(resized, Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224)),
        int,
    )
    assert abs(image_encoders.preprocess_of(said)(picture) - by_hand).max() <= 2


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="no image encoder .*nowhere"):
        image_encoders.load(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UserError, match="CLIP, SigLIP, DINOv2 or ViT"):
        image_encoders.load(str(tmp_path))
    damaged = tmp_path / "encoder.safetensors"
    damaged.write_bytes(image_encoders.ASSET.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"SHA-256 .*expected {image_encoders.ASSET_SHA256}"):
        image_encoders.load_embedded(path=damaged)


def test_the_embedded_encoder_is_small_and_says_how_it_was_made():
    from safetensors import safe_open

    assert image_encoders.ASSET.stat().st_size <= 8 << 20
    with safe_open(image_encoders.ASSET, "pt") as file:
        assert "python -m tools.train_encoder" in file.metadata()["command"]
    encoder = image_encoders.load(image_encoders.EMBEDDED)
    assert (encoder.patches, encoder.width) == (64, 192)


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


def test_every_object_weighs_the_same():
    """A small one inside a large one owns its patches, and counts as much; background patches count 0.2 each."""
    shape = {
        "shape": "circle",
        "colour": "red",
        "size": "large",
        "fill": "solid",
        "x": 0.5,
        "y": 0.5,
        "radius": 0.22,
    }
    inner = {
        **shape,
        "shape": "star",
        "colour": "blue",
        "size": "small",
        "radius": 0.08,
        "x": 0.56,
        "y": 0.56,
    }
    classes, weights = pixels.patch_classes({"objects": [shape, inner]}, 8)
    blue = classes[:, 2] == scenes.CLASSES["colour"].index("blue")
    red = classes[:, 2] == scenes.CLASSES["colour"].index("red")
    assert 1 <= blue.sum() < red.sum() and blue[4 * 8 + 4] and classes[0].tolist() == [-1] * 4
    assert (
        weights[blue].sum() == pytest.approx(5)
        and weights[red].sum() == pytest.approx(5)
        and (weights[classes[:, 0] < 0] == np.float32(0.2)).all()
    )


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


def test_recolouring_keeps_the_shapes():
    """The channels come back in another order, or inverted, or both; over some draws something always changes."""
    picture = torch.randint(
        0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    rng, before, changed = torch.Generator().manual_seed(1), picture.sort(-1).values, 0
    for _ in range(8):
        other = pixels.recolour(picture, rng)
        assert torch.equal(other.sort(-1).values, before) or torch.equal(
            (255 - other).sort(-1).values, before
        )
        changed += not torch.equal(other, picture)
    assert changed >= 4


def test_what_is_known_of_a_patch_turns_with_it():
    """Each patch's pixels say which patch it is: eight symmetries, all of them met, and every patch still named rightly."""
    names = torch.arange(16).view(1, 4, 4)
    picture = (
        names.repeat_interleave(16, 1).repeat_interleave(16, 2)[..., None].expand(-1, -1, -1, 3)
    )
    rng, seen = torch.Generator().manual_seed(0), set()
    for _ in range(80):
        turned, known = pixels.turn(rng, picture, names)
        assert torch.equal(turned[:, 8::16, 8::16, 0], known)
        seen.add(tuple(known.flatten().tolist()))
    assert len(seen) == 8


def test_the_speed_of_a_cache_names_what_held_it():
    """50 images a second, half of the time in the encoder, and a share of the product that is a number of this machine."""
    said = features.speed(image_encoders.load(image_encoders.EMBEDDED), 100, 2.0, 1.0)
    assert (
        said.startswith("features: 100 images, 50.0 per second")
        and "took 50% of the time at " in said
    )
    gflop = float(said.split("arithmetic, ")[1].split(" GFLOP")[0])
    assert 0.3 < gflop < 0.6  # counted: most of it in 128 by 128 pixels' convolutions
