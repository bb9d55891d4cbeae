"""The embedded encoder's own training script, with small numbers."""

import re

import pytest

from base.files import UserError
from net import image_encoders
from tests.making.captioned import make_captions
from tools import train_encoder


def test_the_encoder_is_trained_by_our_script(tmp_path, capsys):
    folder = make_captions(tmp_path / "data", "--encoder", "none")
    settings = "--width 32 --image_size 32 --max_steps 2 --batch_size 4 --threads 1 --device cpu"
    flags = ["--data_dir", str(folder), "--out", str(tmp_path / "run"), *settings.split()]
    train_encoder.main(flags)
    found = re.search(r"SHA-256 (\w+)", capsys.readouterr().out)[1]
    encoder = image_encoders.load_embedded(
        path=tmp_path / "run" / "scene_encoder.safetensors", sha256=found
    )
    assert (encoder.patches, encoder.width) == (4, 48)
    with pytest.raises(UserError, match="a run in"):
        train_encoder.main(flags)
    before = (tmp_path / "run" / "resume.pt").read_bytes()
    for size in ("--width 48", "--image_size 64"):
        with pytest.raises(UserError, match="sizes of the run, --width 32 --image_size 32"):
            train_encoder.main([*flags, "--resume", *size.split()])
    assert (tmp_path / "run" / "resume.pt").read_bytes() == before
    # The run keeps its sizes, so a resumed run need not name them again.
    short = [flag for flag in flags if flag not in ("--width", "--image_size", "32")]
    train_encoder.main([*short, "--resume", "--max_steps", "3"])
    other = make_captions(tmp_path / "other", "--encoder", "none", "--seed", "1")
    flags[1] = str(other)
    with pytest.raises(UserError, match="other images"):
        train_encoder.main([*flags, "--resume", "--max_steps", "4"])
