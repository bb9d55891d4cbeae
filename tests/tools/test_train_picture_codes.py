"""The codes' training as a user runs it, with small numbers: files, gate, picture."""

import pytest
import torch
from PIL import Image

from base.files import UserError
from image import tokenisers
from tests.making.pictures import make_reader
from tools import train_picture_codes

SIZES = "--pictures 8 --held_back 4 --side 32 --width 16 --blocks 1 --workers 1"
SETTINGS = f"{SIZES} --crop 16 --max_steps 2 --batch_size 4 --threads 1 --device cpu"


def test_the_codes_are_trained_and_meet_the_gate(tmp_path, capsys):
    out, picture = tmp_path / "run", tmp_path / "seen.png"
    words = ["--data_dir", str(tmp_path / "d"), "--out", str(out), *SETTINGS.split()]
    train_picture_codes.main([*words, "--picture", str(picture)])
    said = capsys.readouterr()
    assert "GFLOP per step" in said.err and "used_codes" in said.out and "gate" not in said.out
    assert Image.open(picture).size == (4 * 32, 2 * 32)
    assert tokenisers.open_codes(out / "picture_codes.safetensors").config.grid == 4
    # The gate of a finished run, once a reader is there; a low threshold, so that it sees things.
    reader = make_reader(tmp_path / "reader", threshold=0.001)
    train_picture_codes.main(["--out", str(out), "--resume", "--reader", str(reader)])
    assert "| attributes |" in capsys.readouterr().out


def test_a_window_keeps_the_weights_of_its_pixels():
    maps = torch.arange(2 * 6 * 6).view(2, 1, 6, 6)
    found = train_picture_codes.cut(maps, torch.tensor([[0, 2], [3, 3]]), 3)
    assert torch.equal(found[0], maps[0, :, :3, 2:5]) and torch.equal(found[1], maps[1, :, 3:, 3:])


def test_a_second_training_starts_from_the_first(tmp_path):
    """A rate of zero keeps the weights, but for a block left out; other sizes are refused."""
    words = ["--data_dir", str(tmp_path / "d"), *SETTINGS.split(), "--feature_weight", "0"]
    train_picture_codes.main([*words, "--out", str(tmp_path / "first"), "--encoder_blocks", "1"])
    first = str(tmp_path / "first" / "picture_codes.safetensors")
    again = [*words, "--init_from", first, "--out", str(tmp_path / "again")]
    with pytest.raises(UserError, match="--init_from .*'width': 16.*"):
        train_picture_codes.main([*again, "--width", "32"])
    train_picture_codes.main([*again, "--learning_rate", "1e-12"])
    found = tokenisers.open_codes(tmp_path / "again" / "picture_codes.safetensors")
    start = tokenisers.open_codes(first)
    start.drop_encoder_blocks(0)
    for name, weight in start.named_parameters():
        assert torch.equal(found.get_parameter(name), weight)


@pytest.mark.parametrize("crop", ["12", "64"])
def test_a_window_that_does_not_fit_is_refused(tmp_path, crop):
    words = ["--data_dir", str(tmp_path / "d"), "--out", str(tmp_path / "run"), *SETTINGS.split()]
    with pytest.raises(UserError, match=f"--crop {crop} of pictures of side 32"):
        train_picture_codes.main([*words, "--crop", crop])
    assert not (tmp_path / "run").exists()
