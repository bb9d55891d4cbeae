"""Frozen encoders: the true ViT-B/32 layout, other families, the embedded file's hash, and a cache that survives kills."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from base.files import UserError
from net import image_encoders
from tests.making.captioned import save_encoder
from tools import pixels
from worlds import scenes

ROOT = Path(__file__).parent.parent.parent


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
