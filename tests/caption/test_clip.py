"""CLIPScore on a small CLIP with random weights, against the paper's formulas written out."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import evaluate
from base.files import UserError
from caption import clip as caption_clip
from tests.making.captioned import by_hand, make_captioner, rewrite

CAPTIONS = ["a red dog", "two cats play", "a boat " * 60]  # the last is longer than CLIP reads
REFERENCES = [["a dog", "the red dog runs"], ["cats"], ["a boat on a lake", "a boat", "water"]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder as hubs have it: weights, tokenizer (letters), preprocessing; and three pictures."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    letters = [chr(code) for code in range(97, 123)]
    vocab = {
        token: i
        for i, token in enumerate(
            [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        )
    }
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = transformers.CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": len(vocab),
            "max_position_embeddings": 77,
            "eos_token_id": 53,
            "bos_token_id": 52,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    model = transformers.CLIPModel(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # the usual 0.02 makes all vectors alike
    model.save_pretrained(folder)
    transformers.CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    about = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "do_normalize": True,
        "do_rescale": True,
        "resample": 3,
        "size": {"shortest_edge": 32},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    rng = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            folder / f"photo_{n}.png"
        )
    return folder


def direct(folder, picture, caption, references):
    """The formulas, one caption at a time, without padding: the model's own similarity of one text and one picture."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = (
        torch.tensor((np.asarray(Image.open(picture)) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4])
        .permute(2, 0, 1)[None]
        .float()
    )
    vectors = []
    with torch.no_grad():
        for text in (caption, *references):
            ids = tokenizer("A photo depicts " + text)["input_ids"]
            ids = torch.tensor([ids if len(ids) <= 77 else [*ids[:76], ids[-1]]])
            out = model(input_ids=ids, pixel_values=pixels)
            vectors.append(out.text_embeds[0] / out.text_embeds[0].norm())
    image = out.image_embeds[0] / out.image_embeds[0].norm()
    score = 2.5 * max(float(image @ vectors[0]), 0)
    reference = max(max(float(vectors[0] @ other), 0) for other in vectors[1:])
    return score, 2 / (1 / score + 1 / reference) if score and reference else 0.0


def test_scores_are_the_papers(clip):
    pictures = [clip / f"photo_{n}.png" for n in range(3)]
    found = caption_clip.ClipScore(str(clip)).each(pictures, CAPTIONS, REFERENCES)
    want = np.array(
        [direct(clip, *one) for one in zip(pictures, CAPTIONS, REFERENCES, strict=True)]
    )
    assert found["clip_score"] == pytest.approx(want[:, 0], abs=1e-5) and found[
        "ref_clip_score"
    ] == pytest.approx(want[:, 1], abs=1e-5)
    assert want[:, 0].max() > 0 and len(set(want[:, 1].round(4))) == 3


def test_from_files(clip, tmp_path, capsys):
    (tmp_path / "mine.jsonl").write_text(
        "".join(
            json.dumps(
                {"image": f"photo_{n}.png", "caption": CAPTIONS[n], "references": REFERENCES[n]}
            )
            + "\n"
            for n in range(3)
        )
    )
    evaluate.main(
        [
            "--hypotheses",
            str(tmp_path / "mine.jsonl"),
            "--clip_score",
            str(clip),
            "--image_dir",
            str(clip),
            "--json",
            str(tmp_path / "s.json"),
            "--device",
            "cpu",
        ]
    )
    told = json.loads((tmp_path / "s.json").read_text())
    found = caption_clip.ClipScore(str(clip)).each(
        [clip / f"photo_{n}.png" for n in range(3)], CAPTIONS, REFERENCES
    )
    assert (
        told["clip_score"] == pytest.approx(found["clip_score"].mean())
        and told["clip"] == clip.name
    )
    assert (
        told["ref_clip_score_ci95"][0] <= told["ref_clip_score"] <= told["ref_clip_score_ci95"][1]
    )
    assert "CLIPScore | RefCLIPScore" in capsys.readouterr().out


def test_from_a_checkpoint(clip, tmp_path, capsys):
    """A captioner's own pictures and references; the CLIP that it reads its features with is named as no fair judge."""
    records = [
        {"image": str(clip / f"photo_{n % 3}.png"), "split": split, "captions": REFERENCES[n % 3]}
        for n, split in enumerate(["train"] * 9 + ["val"] * 3)
    ]
    folder = by_hand(tmp_path / "photos", records)
    rewrite(folder / "features.json", encoder=str(clip))
    run = make_captioner(folder, tmp_path / "run") / "best.pt"
    evaluate.main(
        [
            "--checkpoint",
            str(run),
            "--data_dir",
            str(folder),
            "--step_counts",
            "2",
            "--clip_score",
            str(clip),
            "--device",
            "cpu",
            "--json",
            str(tmp_path / "s.json"),
        ]
    )
    told = json.loads((tmp_path / "s.json").read_text())["splits"]["val"]
    assert (
        told["ref_clip_score"] >= 0
        and 0 <= told["clip_score"] <= 2.5
        and told["signature"].startswith("tokens:ptb")
    )
    shown = capsys.readouterr()
    assert "another CLIP is a fairer judge" in shown.err and "| ref clip score |" in shown.out


def test_no_clip(clip, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match="it is no CLIP"):
        caption_clip.ClipScore(str(tmp_path))
    (tmp_path / "config.json").write_bytes((clip / "config.json").read_bytes())
    with pytest.raises(UserError, match="no CLIP in"):
        caption_clip.ClipScore(str(tmp_path))
