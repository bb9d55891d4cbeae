"""The reader's training as a user runs it, with small numbers."""

import pytest

from base.files import UserError
from image import tokenisers
from tools import train_picture_reader

SIZES = "--pictures 8 --held_back 4 --side 32 --width 16 --blocks 1 --workers 1"
SETTINGS = f"{SIZES} --max_steps 2 --batch_size 4 --threads 1 --device cpu"


def test_the_reader_is_trained_continued_and_guarded(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--data_dir", str(tmp_path / "d"), "--out", str(out), *SETTINGS.split()]
    train_picture_reader.main(words)
    said = capsys.readouterr()
    assert "GFLOP per step" in said.err and "attributes" in said.out
    reader = tokenisers.open_reader(out / "reader.safetensors")
    assert reader.config.threshold in train_picture_reader.THRESHOLDS
    with pytest.raises(UserError, match="a run in"):
        train_picture_reader.main(words)
    with pytest.raises(UserError, match="sizes of the run, --width 16"):
        train_picture_reader.main([*words, "--resume", "--width", "32"])
    short = ["--out", str(out), "--resume", "--max_steps", "3"]
    train_picture_reader.main(short)  # the run keeps its flags
    with pytest.raises(UserError, match="noise 1; expected noise 0"):
        train_picture_reader.main([*short, "--noise", "0"])
