"""A small folder of captioned scenes with the embedded encoder's features, a captioner, encoders with random weights."""

import json

import numpy as np
import torch

import prep_caption_synthetic
import train_captioning
from base import files
from base.tokenizer import Tokenizer
from caption import data
from net.pretrained import PROCESSORS

SMALL = [
    "--d_model",
    "16",
    "--heads",
    "2",
    "--layers",
    "2",
    "--batch_size",
    "8",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--eval_images",
    "6",
    "--warmup_steps",
    "2",
]


def make_captions(folder, *flags: str):
    """40 training scenes, 8 in each other split."""
    prep_caption_synthetic.main(
        [
            "--out",
            str(folder),
            "--num_train",
            "40",
            "--num_val",
            "8",
            "--vocab_size",
            "320",
            "--workers",
            "1",
            *flags,
        ]
    )
    return folder


def by_hand(
    folder,
    records: list[dict],
    tokenizer: Tokenizer | None = None,
    key: str = "k",
    patches: int = 3,
    width: int = 4,
):
    """A captions folder of these records, without pictures: its features are random numbers."""
    folder.mkdir(exist_ok=True)
    tokenizer = tokenizer or Tokenizer.train(
        [text for record in records for text in record["captions"]], 300
    )
    meta = data.write_folder(folder, records, tokenizer, {"seed": 0})
    np.save(
        folder / "features.npy",
        np.random.default_rng(0).normal(size=(len(records), patches, width)).astype(np.float16),
    )
    about = {
        "encoder": "embedded",
        "key": key,
        "patches": patches,
        "width": width,
        "fingerprint": meta["fingerprint"],
        "done": len(records),
    }
    files.write_sealed(folder / "features.json", about)
    return folder


def rewrite(path, **values) -> None:
    """Change entries of a sealed JSON file, and seal it again."""
    files.write_sealed(path, files.read_sealed(path, "the file", "check the test") | values)


def make_captioner(data_dir, out, *flags: str):
    """A run folder from a few steps of a very small captioner."""
    train_captioning.main(
        ["--data_dir", str(data_dir), "--out", str(out), *SMALL, "--max_steps", "4", *flags]
    )
    return out


def save_encoder(folder, kind: str = "clip", image_size: int = 32, **sizes):
    """A folder that transformers reads: a randomly initialised encoder of this kind, and its preprocessor_config.json."""
    import transformers as t

    sizes = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 8,
    } | sizes
    config, model = {
        "clip": (t.CLIPVisionConfig, t.CLIPVisionModel),
        "siglip": (t.SiglipVisionConfig, t.SiglipVisionModel),
        "vit": (t.ViTConfig, t.ViTModel),
        "dinov2": (t.Dinov2Config, t.Dinov2Model),
    }[kind]
    torch.manual_seed(0)
    model(config(image_size=image_size, **sizes)).save_pretrained(folder)
    crop = {
        "size": {"shortest_edge": image_size},
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
    }
    squash = {"size": {"height": image_size, "width": image_size}}
    about = {
        "image_processor_type": PROCESSORS[kind],
        "do_resize": True,
        "do_normalize": True,
        "do_rescale": True,
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(
        json.dumps(about | (crop if kind in ("clip", "dinov2") else squash))
    )
    return folder
