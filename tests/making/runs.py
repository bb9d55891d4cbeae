"""Runs compared: their saved states bit for bit, their logs line by line."""

import json
from pathlib import Path

import torch

from loop import checkpoint
from net import soft_masks

CLOCK = "tokens_per_second"  # the one key of log.jsonl that two equal runs do not share


def log_of(run: Path) -> list[dict]:
    """log.jsonl without the key that is a clock's."""
    rows = []
    for line in (run / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        row.pop(CLOCK, None)
        rows.append(row)
    return rows


def content(run: Path, name: str = "last.pt") -> dict:
    """A checkpoint of a run folder."""
    return torch.load(run / name, weights_only=True)


def same_run(first: Path, second: Path) -> None:
    """Weights, averages, optimizer state and every logged figure are equal to the bit."""
    a, b = content(first, "resume.pt"), content(second, "resume.pt")
    for part in ("weights", "averaged"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    assert log_of(first) == log_of(second)
    for key in ("step", "tokens_seen", "best", "metrics", "flags"):
        assert a[key] == b[key], key
    for mine, other in zip(a["optimizer"], b["optimizer"], strict=True):
        for key, state in mine["state"].items():
            for name, value in state.items():
                expected = torch.as_tensor(other["state"][key][name])
                assert torch.equal(torch.as_tensor(value), expected)


def as_soft_model(path: Path, out: Path, **scalars: float) -> Path:
    """A denoiser's checkpoint with soft masks, whose scalars are those of the start, or given."""
    saved = checkpoint.load(path)
    saved["model"]["soft_masks"] = True
    for part in filter(None, (saved["weights"], saved["averaged"])):
        start = soft_masks.START | scalars
        part |= {name: torch.tensor([value]) for name, value in start.items()}
    checkpoint.save(out, saved)
    return out


def as_block_model(path: Path, sizes: str, out: Path) -> Path:
    """A denoiser's checkpoint that says it learnt these block sizes. It did not, so it writes badly."""
    saved = checkpoint.load(path)
    saved["model"]["block_sizes"] = sizes
    checkpoint.save(out, saved)
    return out
