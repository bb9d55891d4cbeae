"""The diagrams say what the modules are."""

import re

import pytest
from captioned import make_captioner, make_captions

import visualize_architecture
from config import ModelConfig, named_size
from files import UserError
from model import Denoiser

NAMES = ("architecture_captioning", "architecture_block", "architecture_diffusion")


def test_a_named_size(tmp_path, capsys):
    visualize_architecture.main(["--model_config", "tiny", "--out", str(tmp_path), "--detailed"])
    model = Denoiser(ModelConfig(**named_size("tiny")))
    text = capsys.readouterr().out
    counts = [int(line.split()[-1].replace(",", "")) for line in text.splitlines() if re.match(r"^[a-z]+[.\w]* +\d", line)]
    assert sum(counts) == model.num_parameters() and f"{model.num_parameters():,}" in text
    for name in NAMES:
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / f"{name}.svg").stat().st_size < 200_000
    whole = (tmp_path / "architecture_captioning.svg").read_text()
    assert f"{model.num_parameters() / 1e6:.2f} M parameters" in whole and "(B, 256, 256)" in whole and "V = 8,192" in whole
    block = (tmp_path / "architecture_block.svg").read_text()
    assert "query.weight 256 × 256" in block and "cross" not in block
    before = (tmp_path / "architecture_diffusion.svg").read_bytes()
    visualize_architecture.main(["--model_config", "tiny", "--out", str(tmp_path)])
    assert (tmp_path / "architecture_diffusion.svg").read_bytes() == before


def test_a_captioner(tmp_path, capsys):
    best = make_captioner(make_captions(tmp_path / "data", "--levels", "1"), tmp_path / "run") / "best.pt"
    visualize_architecture.main(["--checkpoint", str(best), "--out", str(tmp_path)])
    whole = (tmp_path / "architecture_captioning.svg").read_text()
    assert "(B, 64, 192)" in whole and "(B, 3, 128, 128)" in whole and "(B, 2, 64, 8)" in whole and "cross-attention" in whole
    assert "× gate" in (tmp_path / "architecture_block.svg").read_text()


def test_refusals(tmp_path):
    for words, message in ((["--model_config", "huge"], "--model_config huge"), (["--checkpoint", str(tmp_path / "no.pt")], "no.pt")):
        with pytest.raises(UserError, match=message):
            visualize_architecture.main([*words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
