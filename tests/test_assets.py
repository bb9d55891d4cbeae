"""What ships in assets/: a captioner, picture codes and their reader, and made-up stories."""

import subprocess
import sys
from hashlib import sha256

import numpy as np

import infer_onnx
from base import bundle
from image import drawn, scores, tokenisers
from tests.making.sources import ROOT
from worlds import judge
from worlds.scenes import sample_scene

CAPTIONER = ROOT / "assets" / "captioner"
# bundle.json holds the checksum of every other file. docs/captions.md has the commands.
CAPTIONER_SHA256 = "770c07fbe3725fcac7b7621ff15f39bbb53136ad06722d0b9c6560d672692780"
PICTURE_FILES = {
    "picture_codes.safetensors": "3be3e94845a332264409890c61260d65b7ed53776b98071ee4ff7529caa0b5a0",
    "picture_reader.safetensors": "e67378cd93f348d0ac1bc57c77ca688b7dcb48e6ba4988437388483824d0c58f",
}


def test_the_shipped_captioner_is_small_and_unchanged():
    assert not list(CAPTIONER.rglob("*.py"))  # the code is the repository's
    assert sum(path.stat().st_size for path in bundle.contents(CAPTIONER)) <= 8_000_000
    assert sha256((CAPTIONER / "bundle.json").read_bytes()).hexdigest() == CAPTIONER_SHA256
    facts = bundle.read(CAPTIONER)
    assert bundle.check(CAPTIONER, facts) == len(bundle.contents(CAPTIONER))


def test_the_readmes_first_command_prints_what_the_readme_says(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    infer_onnx.main(["--bundle", "assets/captioner", "--image", "docs/scene.png"])
    printed = capsys.readouterr().out.strip()
    assert f"```\n{printed}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
    # The scene of docs/scene.png, as tests/worlds/test_drawing.py draws it.
    scene = sample_scene(np.random.default_rng([2026, 3378]), 2, noise=1, inside=0.0)
    assert judge.judge(printed.split(": ", 1)[1], scene)["truthful"]


def test_the_shipped_codes_keep_what_the_shipped_reader_sees():
    """docs/pictures.md has the commands that made both, and the figures of 600 pictures."""
    assets = ROOT / "assets"
    for name, digest in PICTURE_FILES.items():
        assert sha256((assets / name).read_bytes()).hexdigest() == digest
        assert (assets / name).stat().st_size <= 8_000_000
    codes = tokenisers.open_codes(tokenisers.EMBEDDED)
    reader = tokenisers.open_reader(tokenisers.EMBEDDED)
    scenes = [sample_scene(np.random.default_rng([5, n]), 2, noise=1) for n in range(24)]
    side = codes.config.side
    pixels = tokenisers.to_pixels(np.stack([drawn.picture(scene, side) for scene in scenes]))
    remade = codes.decode(codes.encode(pixels))
    right = scores.seen_figures(reader.read(pixels), scenes)["attributes"]
    kept = scores.seen_figures(reader.read(remade), scenes)["attributes"]
    assert right > 0.93 and kept > 0.85 * right, (right, kept)


def test_the_maker_writes_the_same_stories_again(tmp_path):
    maker = ROOT / "tests" / "making" / "stories.py"
    subprocess.run([sys.executable, str(maker), str(tmp_path / "stories.txt")], check=True)
    made = (tmp_path / "stories.txt").read_bytes()
    assert made == (ROOT / "assets" / "stories.txt").read_bytes()
    assert made.count(b"<|endoftext|>") == 599
