"""A plan adds up, and what cannot run says why."""

import pytest

from tools import scaling
from tools.scaling import Hardware, Measured, Plan

SMALL, BILLION = scaling.JOBS[0], scaling.JOBS[2]


def plan(job, gpus, rate=1e14, **hardware) -> Plan:
    return Plan(job, gpus, Hardware(**hardware), Measured(rate, 1e6, 1e6, 1e9))


def test_twice_the_rate_halves_the_arithmetic():
    alone = plan(SMALL, 1).seconds["compute"]
    assert alone == pytest.approx(2 * plan(SMALL, 1, 2e14).seconds["compute"])
    assert alone == pytest.approx(8 * plan(SMALL, 8).seconds["compute"])
    assert plan(SMALL, 8).accumulate == 8


def test_traffic_is_twice_the_gradients():
    count = scaling.weights_of(SMALL.model).count
    assert plan(SMALL, 1).traffic == 0
    assert plan(SMALL, 8).traffic == pytest.approx(2 * 4 * count * 7 / 8)
    assert (plan(SMALL, 1).parallel, plan(SMALL, 8).parallel) == ("alone", "ddp")


def test_splitting_divides_the_state():
    assert plan(BILLION, 8).parallel == "fsdp"
    assert plan(BILLION, 64).resident < plan(BILLION, 8).resident < plan(BILLION, 1).resident


def test_what_cannot_run_says_why():
    assert "batch" in plan(SMALL, 1024).problem
    assert "memory" in plan(BILLION, 1, memory=5e9).problem
    assert not plan(SMALL, 1).problem


def test_the_bottleneck_is_the_largest_part():
    name, share = plan(SMALL, 1, 1e9).bottleneck
    assert name == "compute" and 0.9 < share <= 1


def test_assumptions_are_listed():
    lines = scaling.assumptions(Hardware(peak=1e12)).splitlines()
    assert lines[0].startswith("- `--peak 1e+12`: products per second")
    assert len(lines) == 4
