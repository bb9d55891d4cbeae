"""Clips through an image encoder: each frame alone, pooled to at most 16 patches, in its order."""

import numpy as np
import pytest
import torch

from net import frame_encoder, image_encoders
from net.frame_encoder import FrameEncoder, pool
from tests.making.captioned import save_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return image_encoders.load(str(save_encoder(tmp_path_factory.mktemp("clip") / "encoder")))


def test_pooling_by_hand():
    grid = torch.arange(64.0).view(1, 64, 1)  # 8 × 8, row by row
    pooled = pool(grid)
    assert pooled.shape == (1, 16, 1)
    assert pooled[0, 0, 0] == (0 + 1 + 8 + 9) / 4 and pooled[0, 5, 0] == (18 + 19 + 26 + 27) / 4
    with_cls = torch.cat([torch.full((1, 1, 1), 1e9), grid], 1)
    assert torch.equal(pool(with_cls), pooled)
    small = torch.arange(9.0).view(1, 9, 1)
    assert torch.equal(pool(small), small)
    assert pool(torch.ones(2, 50, 3)).shape == (2, 16, 3)  # CLIP's 7 × 7 and [CLS]


def test_a_clip_is_its_frames(encoder):
    clips = FrameEncoder(encoder, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *clips.blank.shape[1:]), np.uint8)
    features = clips.encode(pixels)
    assert features.shape == (2, clips.patches, clips.width) and clips.frames == 3
    for number in range(2):
        alone = pool(encoder.encode(pixels[number])).flatten(0, 1)
        assert torch.allclose(features[number], alone, atol=1e-5)
    turned = clips.encode(pixels[:, ::-1])
    per_frame = clips.patches // 3
    assert torch.allclose(turned[:, :per_frame], features[:, -per_frame:], atol=1e-5)


def test_clips_and_images_never_mix(encoder):
    keys = {encoder.key, FrameEncoder(encoder, 3).key, FrameEncoder(encoder, 4).key}
    assert len(keys) == 3
    assert frame_encoder.load(encoder.name).key == encoder.key and encoder.frames == 1
    assert frame_encoder.load(encoder.name, 3).key == FrameEncoder(encoder, 3).key
