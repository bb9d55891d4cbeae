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
from captioned import make_captions, save_encoder
from PIL import Image

import caption_data
import vision
from files import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_captions(tmp_path_factory.mktemp("vision") / "data", "--encoder", "none", "--levels", "1")


def test_clip_vit_b_32(tmp_path):
    """50 tokens of 768, equal to resizing, normalising and running the model by hand."""
    folder = save_encoder(tmp_path, "clip", 224, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32)
    encoder = vision.load(str(folder))
    assert (encoder.patches, encoder.width, encoder.preprocess.size, encoder.preprocess.mode) == (50, 768, 224, "crop")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    small = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    about = json.loads((folder / "preprocessor_config.json").read_text())
    pixels = (small - about["image_mean"]) / about["image_std"]
    from transformers import CLIPVisionModel
    with torch.no_grad():
        expected = CLIPVisionModel.from_pretrained(folder)(pixel_values=torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]).last_hidden_state
    found = encoder.features([picture])
    assert found.shape == (1, 50, 768) and torch.allclose(found, expected, atol=2e-3, rtol=2e-3)  # float16
    wide = Image.new("RGB", (500, 300))
    wide.paste(picture, (100, 0))  # the centre square is all that CLIP sees
    assert torch.equal(encoder.features([wide]), found)
    shutil.rmtree(folder)  # 350 MB


@pytest.mark.parametrize("kind, patches", [("siglip", 16), ("vit", 17), ("dinov2", 17), ("clip", 17)])
def test_other_families(kind, patches, tmp_path):
    encoder = vision.load(str(save_encoder(tmp_path, kind, **({"mlp_ratio": 2} if kind == "dinov2" else {}))))
    assert (encoder.patches, encoder.width) == (patches, 24)
    assert encoder.features([Image.new("RGB", (50, 40), "red")]).isfinite().all()
    again = vision.load(str(tmp_path))
    assert again.key == encoder.key
    again.model.state_dict()["encoder.layer.0.norm1.weight" if kind == "dinov2" else next(iter(again.model.state_dict()))].add_(1)
    assert vision.Encoder(kind, again.model, again.preprocess).key != encoder.key


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="no image encoder .*nowhere"):
        vision.load(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UserError, match="CLIP, SigLIP, DINOv2 or ViT"):
        vision.load(str(tmp_path))
    damaged = tmp_path / "encoder.safetensors"
    damaged.write_bytes(vision.ASSET.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"SHA-256 .*expected {vision.ASSET_SHA256}"):
        vision.load_embedded(path=damaged)


def test_the_embedded_encoder_is_small_and_says_how_it_was_made():
    from safetensors import safe_open
    assert vision.ASSET.stat().st_size <= 8 << 20
    with safe_open(vision.ASSET, "pt") as file:
        assert "python train_encoder.py" in file.metadata()["command"]
    encoder = vision.load(vision.EMBEDDED)
    assert (encoder.patches, encoder.width) == (64, 192)


def test_a_stopped_cache_goes_on_and_another_encoder_is_refused(pictures, tmp_path, monkeypatch):
    encoder = vision.load(str(save_encoder(tmp_path / "a")))
    vision.cache_features(encoder, pictures, workers=1)
    straight = np.load(pictures / "features.npy")
    for name in ("features.npy", "features.json"):
        (pictures / name).unlink()
    monkeypatch.setattr(vision, "CHUNK", 16)
    calls, encode = [], encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda pixels: encode(pixels) if len(calls) < 3 and not calls.append(1) else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vision.cache_features(encoder, pictures, workers=1, batch_size=8)
    assert json.loads((pictures / "features.json").read_text())["done"] == 16
    with pytest.raises(UserError, match="features of 16 of"):
        caption_data.CaptionData(pictures, "train")
    monkeypatch.setattr(encoder, "encode", encode)
    vision.cache_features(encoder, pictures, workers=1, batch_size=32)
    assert np.array_equal(np.load(pictures / "features.npy"), straight) and straight.dtype == np.float16
    torch.manual_seed(1)
    with pytest.raises(UserError, match=f"features of the encoder {tmp_path / 'a'} "):
        vision.cache_features(vision.load(str(save_encoder(tmp_path / "b", "vit"))), pictures)


def test_a_killed_cache_goes_on(pictures, tmp_path):
    """SIGKILL in the middle, in a process of its own: the rest is computed, and all is equal to the bit."""
    folder = save_encoder(tmp_path / "a")
    code = (f"import sys, time, vision; vision.CHUNK = 4; e = vision.load({str(folder)!r}); encode = e.encode\n"
            f"e.encode = lambda pixels: (time.sleep(float(sys.argv[1])), encode(pixels))[1]\n"
            f"if __name__ == '__main__': vision.cache_features(e, {str(pictures)!r}, workers=1, batch_size=4)")
    (tmp_path / "cache.py").write_text(code)
    for name in ("features.npy", "features.json"):
        (pictures / name).unlink(missing_ok=True)
    start = lambda pause: subprocess.Popen([sys.executable, str(tmp_path / "cache.py"), pause], env={**os.environ, "PYTHONPATH": str(ROOT)},
                                           stderr=subprocess.DEVNULL, start_new_session=True)
    slow = start("0.3")
    done = lambda: json.loads((pictures / "features.json").read_text())["done"] if (pictures / "features.json").exists() else 0
    deadline = time.time() + 60
    while done() < 8 and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(slow.pid, signal.SIGKILL)
    slow.wait()
    total = sum(caption_data.read_meta(pictures)["splits"].values())
    assert 8 <= done() < total
    assert start("0").wait() == 0 and done() == total
    resumed = np.load(pictures / "features.npy")
    for name in ("features.npy", "features.json"):
        (pictures / name).unlink()
    vision.cache_features(vision.load(str(folder)), pictures, workers=1, batch_size=4)
    assert np.array_equal(np.load(pictures / "features.npy"), resumed)
