"""Frozen encoders: the true ViT-B/32 layout, other families, the embedded file, and where a patch is."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from base.files import UserError
from net import image_encoders
from tests.making.captioned import save_encoder


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
        # The file is older than the rooms: its command names the script where it stood then.
        assert "python train_encoder.py" in file.metadata()["command"]
    encoder = image_encoders.load(image_encoders.EMBEDDED)
    assert (encoder.patches, encoder.width) == (64, 192)


def test_features_are_exact_and_the_switch_is_put_back():
    """TF32 is off while an encoder computes, and whatever it was before and behind."""
    before = torch.backends.cudnn.allow_tf32
    encoder = image_encoders.load(image_encoders.EMBEDDED)
    during = []
    encoder.model.register_forward_hook(
        lambda *inside: during.append(torch.backends.cudnn.allow_tf32)
    )
    try:
        for setting in (True, False):
            torch.backends.cudnn.allow_tf32 = setting
            encoder.features([Image.new("RGB", (128, 128))])
            assert torch.backends.cudnn.allow_tf32 == setting
        with pytest.raises(ZeroDivisionError), image_encoders.exact_products():
            raise ZeroDivisionError
        assert torch.backends.cudnn.allow_tf32 is False
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert during == [False, False]


def test_a_patch_says_where_it_is():
    """Row and column each have eight waves: all codes differ, and the transposed grid swaps them."""
    code = image_encoders.patch_positions(5)  # (25, 16)
    assert code.shape == (25, image_encoders.POSITION_WAVES) and code.abs().max() <= 1
    assert torch.cdist(code, code).fill_diagonal_(9).min() > 0.1
    grid = code.view(5, 5, 16)
    assert torch.equal(grid[..., :8], grid[..., 8:].transpose(0, 1))
    assert torch.equal(grid[2, :, :4], torch.zeros(5, 4))  # the sines of the middle row


def test_the_tower_appends_the_position_to_every_patch():
    encoder = image_encoders.load(image_encoders.EMBEDDED)
    features = encoder.encode(np.zeros((2, 128, 128, 3), np.uint8))
    position = image_encoders.patch_positions(8)
    assert torch.equal(features[..., -16:], position.expand(2, -1, -1))
