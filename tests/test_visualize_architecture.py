"""The diagrams say what the modules are, and say it readably."""

import re

import pytest
import torch

import visualize_architecture
from base.config import ModelConfig, named_size
from base.files import UserError
from base.flags import to_dict
from base.tokenizer import Tokenizer
from loop import checkpoint
from model import Denoiser
from show import diagrams, sheet

NAMES = ("architecture_captioning", "architecture_block", "architecture_diffusion")
TINY = dict(vocab_size=300, output_size=297, max_length=20, d_model=48, heads=2, layers=3)


def check_readable(drawing: sheet.Sheet) -> None:
    """Every text is on the sheet, and no text lies on another."""
    renderer = drawing.figure._get_renderer()
    page = drawing.figure.bbox
    boxes = []
    for text in drawing.axes.texts:
        words = text.get_text()
        if not words.strip():
            continue
        box = text.get_window_extent(renderer)
        inside_across = page.x0 <= box.x0 and box.x1 <= page.x1
        inside_down = page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside_across and inside_down, f"{words!r} is cut"
        for other_words, other in boxes:
            beside = box.x0 >= other.x1 or other.x0 >= box.x1
            above = box.y0 + 1 >= other.y1 or other.y0 + 1 >= box.y1
            assert beside or above, f"{words!r} on {other_words!r}"
        boxes.append((words, box))
    assert len(boxes) > 10


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """draw(*flags) runs the script into tmp_path, and holds all texts to be readable."""
    sheets, save = [], sheet.Sheet.save

    def note_and_save(self, path):
        sheets.append(self)
        return save(self, path)

    monkeypatch.setattr(sheet.Sheet, "save", note_and_save)

    def draw(*flags: str, quick: bool = True) -> dict[str, str]:
        if quick:  # coarse pixels, and without the process, which is the same for every model
            monkeypatch.setattr(sheet, "DPI", 40)
            monkeypatch.setattr(diagrams, "process", lambda *words: [])
        visualize_architecture.main([*flags, "--out", str(tmp_path)])
        assert len(sheets) == len(NAMES) - quick
        for drawing in sheets:
            check_readable(drawing)
        names = NAMES[: len(sheets)]
        return {name: (tmp_path / f"{name}.svg").read_text(encoding="utf-8") for name in names}

    return draw


def save_checkpoint(path, encoder: dict | None = None, **settings) -> Denoiser:
    """A checkpoint of a very small model that was never trained."""
    config = ModelConfig(
        **TINY | ({"condition_width": encoder["width"]} if encoder else {}) | settings
    )
    model, tokenizer = Denoiser(config), Tokenizer.train(["a red star"] * 3, 270)
    checkpoint.save(
        path,
        {
            "kind": "caption" if encoder else "text",
            "objective": "ar" if config.causal else "diffusion",
            "model": to_dict(config),
            "weights": model.state_dict(),
            "averaged": None,
            "tokenizer": tokenizer.to_json(),
            "statistics": {},
            "encoder": encoder,
        },
    )
    return model


def listed(text: str) -> list[tuple[str, int]]:
    """Name and number of the lines of a table on the screen."""
    lines = [line.split() for line in text.splitlines() if re.search(r" [\d,]+$", line)]
    return [(words[0], int(words[-1].replace(",", ""))) for words in lines]


def test_a_named_size(drawn, capsys, tmp_path):
    svg = drawn("--model_config", "tiny", quick=False)
    total = Denoiser(ModelConfig(**named_size("tiny"))).num_parameters()
    *modules, last = listed(capsys.readouterr().out)
    assert last == ("total", total) and sum(number for _, number in modules) == total
    assert (
        f"{total:,} parameters" in svg[NAMES[0]]
        and "(B, L, 256)" in svg[NAMES[0]]
        and "V × D = 8,192 × 256" in svg[NAMES[0]]
    )
    assert "(B, 4, L, 64)" in svg[NAMES[1]] and "cross" not in svg[NAMES[0]] + svg[NAMES[1]]
    for name in NAMES:
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (tmp_path / f"{name}.png").stat().st_size < 200_000 and (
            tmp_path / f"{name}.svg"
        ).stat().st_size < 100_000


def test_the_seed_decides():
    draw = visualize_architecture.unmasking
    assert draw(8, 4, 0, "first_hitting") == draw(8, 4, 0, "first_hitting")
    assert draw(8, 4, 0, "first_hitting") != draw(8, 4, 1, "first_hitting")
    assert [sum(row) for row in draw(8, 4, 0, "first_hitting")] == [0, 2, 4, 6, 8]
    assert [sum(row) for row in visualize_architecture.masking(8, 0)] == [8, 6, 4, 2, 0]


def test_detailed_lists_every_weight(drawn, capsys, tmp_path):
    model = save_checkpoint(
        tmp_path / "best.pt",
        {"encoder": "some/encoder-of-a-rather-long-name", "key": "0", "patches": 50, "width": 36},
    )
    svg = drawn("--checkpoint", str(tmp_path / "best.pt"), "--detailed")
    *weights, last = listed(capsys.readouterr().out)
    assert weights == [(name, weight.numel()) for name, weight in model.named_parameters()]
    assert (
        last == ("total", model.num_parameters())
        and sum(number for _, number in weights) == model.num_parameters()
    )
    assert (
        "(B, 50, 36)" in svg[NAMES[0]]
        and "3 × 2 × (B, 2, 50, 24)" in svg[NAMES[0]]
        and "encoder-of-a-rather-long-name" in svg[NAMES[0]]
    )
    assert (
        "block.cross.key.weight" in svg[NAMES[1]]
        and "48 × 36" in svg[NAMES[1]]
        and f"{model.num_parameters():,}" in svg[NAMES[1]]
    )


def test_the_default_is_the_captioner_and_its_encoder(drawn):
    svg = drawn()[NAMES[0]]
    from net import image_encoders

    encoder = image_encoders.load(image_encoders.EMBEDDED)
    size = {
        **named_size("caption"),
        **visualize_architecture.SCENES,
        "condition_width": encoder.width,
    }
    with torch.device("meta"):
        total = Denoiser(ModelConfig(**size)).num_parameters()
    frozen, side = (
        sum(weight.numel() for weight in encoder.model.parameters()),
        encoder.preprocess.size,
    )
    assert f"{total:,} parameters trained" in svg and f"{frozen:,} frozen" in svg
    assert (
        f"(B, {encoder.patches}, {encoder.width})" in svg
        and f"(B, 3, {side}, {side})" in svg
        and "how many masks" in svg
    )


@pytest.mark.parametrize(
    "settings",
    [{"causal": True}, {"mlp": "gelu", "time_conditioning": "sinusoidal", "max_length": 2}],
)
def test_other_models(drawn, tmp_path, settings):
    model = save_checkpoint(tmp_path / "best.pt", **settings)
    svg = drawn("--checkpoint", str(tmp_path / "best.pt"), "--detailed")
    assert f"{model.num_parameters():,} parameters" in svg[NAMES[0]]
    assert ("the autoregressive twin" in svg[NAMES[0]]) == model.config.causal
    assert ("GELU MLP" in svg[NAMES[1]]) == (model.config.mlp == "gelu")


def test_a_model_of_dialogues_has_no_length_head(drawn, answerer):
    svg = drawn("--checkpoint", str(answerer))["architecture_captioning"]
    assert "keys and values" in svg and "length head" not in svg


def test_mistakes(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        UserError, match="found --model_config tiniy; expected tiny; correct the spelling"
    ):
        visualize_architecture.main(["--model_config", "tiniy", "--out", str(out)])
    with pytest.raises(UserError, match="found --seed -1; expected a value at least 0"):
        visualize_architecture.main(["--seed", "-1", "--out", str(out)])
    missing = "found no no.pt; expected a checkpoint .* train one with train.py"
    with pytest.raises(UserError, match=missing):
        visualize_architecture.main(["--checkpoint", "no.pt", "--out", str(out)])
    assert not out.exists()
