"""The plan for collections of photographs: arithmetic on measured rates."""

import importlib

import pytest

from base.files import UserError
from tools import plan_photos


def test_the_plan_for_a_collection_is_arithmetic_on_what_was_measured():
    """Disk of features to the byte, training at half the rate for twice as long, and its commands are ours."""
    one = plan_photos.COLLECTIONS[1]
    encoder = {"gflops": 8.7, "share": 0.9, "bytes": 350e6, "patches": 50, "width": 768}
    page = lambda **other: plan_photos.section(
        one,
        plan_photos.parse_args([f"--{k}={v}" for k, v in other.items()]),
        {"share": 0.5},
        encoder,
        0.005,
        1e12,
    )
    assert f"| {31_014 * 50 * 768 * 2 / 1e9:.3g} GB |" in page()
    hours = lambda text: float(
        next(line for line in text.splitlines() if line.startswith("| training"))
        .split("|")[3]
        .split()[0]
    )
    assert hours(page(peak=13e12)) == pytest.approx(
        5 * hours(page(peak=65e12)) / 60, rel=0.05
    )  # 3.1 hours and 37 minutes
    assert "decoding |" in page(cores=0.1) and "the encoder |" in page()
    with pytest.raises(UserError, match="larger card"):
        page(memory=1e9)
    for line in page().splitlines():
        if line.startswith("python "):
            script, *words = line.split()[1:]
            importlib.import_module(script.removesuffix(".py")).parse_args(words)
