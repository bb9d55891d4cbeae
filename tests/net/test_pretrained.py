"""Networks of transformers: whole, or refused in one line; preprocessing from the class named."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from base import files
from base.files import UserError
from net import image_encoders
from tests.making.captioned import save_encoder

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
HALF = (0.5, 0.5, 0.5)
BILINEAR, BICUBIC = 2, 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("clip"), num_hidden_layers=1)


def prefixed(weights):
    return {f"module.{name}": value for name, value in weights.items()}


def without_one(weights):
    name = next(name for name in sorted(weights) if "fc1" in name)
    return {key: value for key, value in weights.items() if key != name}


def another_shape(weights):
    name = next(name for name in sorted(weights) if "fc1.weight" in name)
    return {**weights, name: torch.zeros(3, 3)}


@pytest.mark.parametrize(
    "change, count, words",
    [
        (prefixed, "all", "the file calls module."),
        (without_one, 1, "fc1"),
        (another_shape, 1, "fc1.weight, of another shape"),
    ],
)
def test_missing_weights_are_refused(clip, tmp_path, change, count, words):
    """transformers would draw them at random, another encoder at every start."""
    folder = shutil.copytree(clip, tmp_path / "encoder")
    weights = load_file(clip / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})
    total = len(weights)
    count = total if count == "all" else count
    with pytest.raises(UserError, match=f"{count} of {total} weights missing") as error:
        image_encoders.load(str(folder))
    assert words in str(error.value)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("model.safetensors", "half", "no image encoder"),
        ("model.safetensors", b"", "no image encoder"),
        (
            "model.safetensors",
            files.POINTER + b"/spec/v1\noid sha256:00\nsize 9\n",
            "lfs pull",
        ),
        ("config.json", "half", "no image encoder"),
        ("config.json", files.POINTER + b"/spec/v1\n", "config.json, a pointer of git-lfs"),
        ("config.json", b"[1]", "no image encoder"),
        ("preprocessor_config.json", "half", "no image encoder"),
        ("preprocessor_config.json", b"[1]", "no image encoder"),
        ("pytorch_model.bin", b"PK\x03\x04 cut", "9,224 parameters and weights in"),
        ("pytorch_model.bin", b"\x80\x02cut", "9,224 parameters and weights in"),
    ],
)
def test_damaged_files_are_one_line(clip, tmp_path, name, content, words):
    folder = shutil.copytree(clip, tmp_path / "encoder")
    path = folder / name
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    if content == "half":
        raw = path.read_bytes()
        content = raw[: len(raw) // 2]
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        image_encoders.load(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, key, value, words",
    [
        ("config.json", "num_hidden_layers", 2**31, "2,147,483,648 layers"),
        ("config.json", "num_hidden_layers", 900, "parameters and weights in"),
        ("config.json", "intermediate_size", 2**31, "parameters and weights in"),
        ("config.json", "hidden_size", 2**20, "parameters and weights in"),
        ("config.json", "image_size", 2**31, "parameters and weights in"),
        ("preprocessor_config.json", "crop_size", 2**31, "sides of 1 to 8192 pixels"),
        ("preprocessor_config.json", "size", {"shortest_edge": 0}, "sides of 1 to 8192 pixels"),
    ],
)
def test_a_few_bytes_cannot_ask_for_all_memory(clip, tmp_path, name, key, value, words):
    """Without a check, two billion layers took ten gigabytes in ten minutes, and went on."""
    folder = shutil.copytree(clip, tmp_path / "encoder")
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, key: value}))
    with pytest.raises(UserError, match=words) as error:
        image_encoders.load(str(folder))
    assert "\n" not in str(error.value)


def test_a_network_that_refuses_its_images(clip, tmp_path):
    folder = shutil.copytree(clip, tmp_path / "encoder")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 64, "crop_size": 64}))
    with pytest.raises(UserError, match="refuses images of 64 pixels"):
        image_encoders.load(str(folder))
    small = {"size": {"shortest_edge": 4}, "crop_size": 4, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(small))
    with pytest.raises(UserError, match="refuses images of 4 pixels"):
        image_encoders.load(str(folder))


def test_a_pooling_layer_may_be_missing(tmp_path):
    """No feature reads it, and the encoder's key is the same at every start."""
    folder = save_encoder(tmp_path, "siglip", num_hidden_layers=1)
    before = image_encoders.load(str(folder)).encode
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "head." not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    first, second = image_encoders.load(str(folder)), image_encoders.load(str(folder))
    assert first.key == second.key
    pixels = torch.arange(32 * 32 * 3).view(1, 32, 32, 3).to(torch.uint8).numpy()
    assert torch.equal(first.encode(pixels), before(pixels))


@pytest.mark.parametrize(
    "said, kind, expected",
    [
        # (mode, size, zoom, mean, resample)
        ({"size": 32, "crop_size": 32}, "clip", ("crop", 32, 1.0, CLIP_MEAN, BICUBIC)),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": 32, "crop_size": 32},
            "vit",  # the file's class comes first
            ("crop", 32, 1.0, CLIP_MEAN, BICUBIC),
        ),
        ({"size": 32}, "vit", ("squash", 32, 1.0, HALF, BILINEAR)),
        ({"feature_extractor_type": "ViTFeatureExtractor"}, "", ("squash", 224, 1.0, HALF, 2)),
        ({"image_processor_type": "ViTImageProcessorFast"}, "", ("squash", 224, 1.0, HALF, 2)),
        (
            {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}},
            "",
            ("squash", 64, 1.0, HALF, BICUBIC),
        ),
        ({"size": {"shortest_edge": 256}}, "dinov2", ("crop", 224, 256 / 224, CLIP_MEAN, 3)),
        ({"size": 32, "resample": 0}, "vit", ("squash", 32, 1.0, HALF, 0)),  # 0 is a choice
        ({"size": 32, "image_mean": None}, "vit", ("squash", 32, 1.0, HALF, BILINEAR)),
        ({"size": 32, "image_mean": 0.25}, "vit", ("squash", 32, 1.0, (0.25,) * 3, BILINEAR)),
        # A crop of the whole square: the class squashes, then there is nothing to cut.
        (
            {"size": {"height": 32, "width": 32}, "crop_size": 32},
            "clip",
            ("squash", 32, 1.0, CLIP_MEAN, BICUBIC),
        ),
    ],
)
def test_the_class_fills_what_the_file_leaves_out(said, kind, expected):
    found = image_encoders.preprocess_of(said, kind)
    assert (found.mode, found.size, found.zoom, found.mean, found.resample) == expected


@pytest.mark.parametrize(
    "said, words",
    [
        ({"do_normalize": False}, "do_normalize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"do_resize": False}, "do_resize"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"resample": 9}, "resample 9"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean"),
        ({"image_mean": 2**70}, "image_mean"),
        ({"image_mean": True}, "image_mean"),
        ({"image_std": float("nan")}, "image_std"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
        ({"size": {"height": 32, "width": 64}}, "a square"),
        ({"do_center_crop": False}, "a square"),  # images of any shape would come out
        ({"crop_size": {"height": 500, "width": 500}}, "a square"),  # it would add a black frame
        ({"size": {"height": 256, "width": 256}}, "a square"),  # squash, then crop
        ({"size": "large"}, "image processor"),
        ({"image_processor_type": "MyProcessor"}, "MyProcessor"),
        ({"image_processor_type": 7}, "image processor 7"),
    ],
)
def test_preprocessing_that_is_refused(said, words):
    with pytest.raises(UserError, match=words):
        image_encoders.preprocess_of(said, "clip")
