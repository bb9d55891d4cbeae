"""The codes' training as a user runs it, with small numbers: files, gate, picture."""

from PIL import Image

from image import tokenisers
from tests.making.pictures import make_reader
from tools import train_picture_codes

SIZES = "--pictures 8 --held_back 4 --side 32 --width 16 --blocks 1 --workers 1"
SETTINGS = f"{SIZES} --max_steps 2 --batch_size 4 --threads 1 --device cpu"


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
