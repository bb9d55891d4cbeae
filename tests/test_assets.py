"""The text in assets/stories.txt, with which the README's first story is trained."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_maker_writes_the_same_stories_again(tmp_path):
    maker = ROOT / "tests" / "making" / "stories.py"
    subprocess.run([sys.executable, str(maker), str(tmp_path / "stories.txt")], check=True)
    made = (tmp_path / "stories.txt").read_bytes()
    assert made == (ROOT / "assets" / "stories.txt").read_bytes()
    assert made.count(b"<|endoftext|>") == 599
