"""The plan for collections of photographs: arithmetic on measured rates."""

import importlib

import pytest

from base.files import UserError
from tools import plan_photos

FLICKR30K = plan_photos.COLLECTIONS[1]
ENCODER = {"gflops": 8.7, "share": 0.9, "bytes": 350e6, "patches": 50, "width": 768}


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Bytes that a row keeps, in place of a measurement: outside of the blocks, and per block."""
    monkeypatch.setattr(plan_photos.measuring, "kept_bytes", lambda job, seed: (746e3, 2.6e6))


def page(**card) -> str:
    """The section of Flickr30k with another card."""
    card = plan_photos.Card(**card)
    return plan_photos.section(FLICKR30K, card, {"share": 0.5}, ENCODER, 0.005, 1e12)


def training_time(text: str) -> float:
    """The time in the row of training, in its own unit."""
    row = next(line for line in text.splitlines() if line.startswith("| training"))
    return float(row.split("|")[3].split()[0])


def test_features_take_their_bytes():
    assert f"| {31_014 * 50 * 768 * 2 / 1e9:.3g} GB |" in page()


def test_a_fifth_of_the_rate_takes_five_times_as_long():
    slow, fast = training_time(page(peak=13e12)), training_time(page(peak=65e12))
    assert slow == pytest.approx(5 * fast / 60, rel=0.05)  # 3.1 hours and 37 minutes


def test_what_limits_the_features():
    assert "decoding |" in page(cores=0.1)
    assert "the encoder |" in page()


def test_a_card_that_is_too_small():
    with pytest.raises(UserError, match="larger card"):
        page(memory=1e9)
    with pytest.raises(UserError, match="--cores 0"):
        plan_photos.main(["--cores", "0"])


def test_its_commands_are_ours():
    lines = [line for line in page().splitlines() if line.startswith("python ")]
    assert len(lines) == 3
    for line in lines:
        script, *words = line.split()[1:]
        importlib.import_module(script.removesuffix(".py")).parse_args(words)


def test_the_page(monkeypatch, tmp_path):
    step = {"share": 0.4, "on": "2 CPU threads"}
    monkeypatch.setattr(plan_photos.measuring, "measure_step", lambda *rest: step)
    monkeypatch.setattr(plan_photos.measuring, "measure_encoder", lambda seed: ENCODER)
    monkeypatch.setattr(plan_photos.measuring, "measure_decode", lambda seed: 0.003)
    monkeypatch.setattr(plan_photos.measuring, "measure_save", lambda: 3e8)
    plan_photos.main(["--out", str(tmp_path / "recipes.md")])
    text = (tmp_path / "recipes.md").read_text()
    assert text.count("\n## ") == 2
    assert "trains 2.0 times as" in text.replace("\n", " ")
