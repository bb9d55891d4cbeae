"""Samples over a grid of samplers and steps, judged by the twin and by what needs no judge.

Every cell of the grid draws texts of the same lengths as held-out human texts, because entropy and
repetition grow with the length.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from base import metrics
from base.config import SampleConfig
from base.files import UserError
from base.templates import blank_rows
from loop import distributed, progress
from net import block_writing, blocks, noise, twin
from net.samplers import row_generators, sample
from net.soft_masks import check, writer_of
from text.data import TextData
from text.judge import Judge


def bar_of(unit: str) -> Callable:
    """A progress bar over items, which one process of torchrun shows."""

    def bar(items):
        return progress.bar(items, unit=unit)

    return bar


def cells(
    objective: str, settings: SampleConfig, samplers: str, step_counts: list[int]
) -> list[SampleConfig]:
    """The settings of each cell of the grid: samplers times step counts.

    The twin has one cell: it writes from left to right, one token per call.
    """
    if objective == "ar":
        # The twin reads no number of steps: `cell` reports the length instead.
        return [replace(settings, sampler="left_to_right", steps=64)]
    return [
        replace(settings, sampler=sampler, steps=steps)
        for sampler in samplers.split(",")
        for steps in step_counts
    ]


def whole_texts(held_out: TextData, count: int, min_tokens: int) -> list[np.ndarray]:
    """The first `count` held-out texts of at least `min_tokens` tokens, as ids.

    Raises UserError if there are fewer.
    """
    # A piece of a cut document has no beginning or no end, which the samples have.
    whole = [text for text in held_out.whole_rows() if len(text) >= min_tokens][:count]
    if len(whole) < count:
        raise UserError(
            f"{len(whole)} whole held-out texts of {min_tokens} to {held_out.max_length} tokens",
            f"--num_samples {count} of them",
            "lower --num_samples or --min_tokens",
        )
    return whole


def grid(
    opened: tuple,
    held_out: TextData,
    judge: Judge | None,
    cells: list[SampleConfig],
    num_samples: int,
    min_tokens: int,
    seed: int,
) -> list[dict]:
    """Figures of held-out human texts, then of samples of the same lengths for each cell.

    Under torchrun each process draws its share of the cells.
    """
    model, tokenizer, saved = opened
    whole = whole_texts(held_out, num_samples, min_tokens)
    lengths = [len(text) for text in whole]

    def figures(texts: list[np.ndarray]) -> dict:
        judged = {}
        if judge:
            judged["judge_nats_per_token"] = judge.nats_per_token(texts, tokenizer)
        return judged | metrics.variety(texts)

    def cell(settings: SampleConfig) -> dict:
        clock = time.perf_counter()
        texts, calls = draw(model, tokenizer, saved["objective"], lengths, settings, seed)
        return {
            "sampler": settings.sampler,
            "steps": max(lengths) if saved["objective"] == "ar" else settings.steps,
            "calls": calls,
            "seconds": time.perf_counter() - clock,
            **figures(texts),
        }

    human = {"sampler": "human text", "steps": 0, "calls": 0, "seconds": 0.0, **figures(whole)}
    return [human, *distributed.shared(cells, cell, bar_of("cell"))]


def draw(
    model, tokenizer, objective: str, lengths: list[int], settings: SampleConfig, seed: int
) -> tuple[list[np.ndarray], int]:
    """Samples of the given lengths as ids with [BOS] and [EOS], and the calls of the batch."""
    # Every cell starts from the same random numbers: cells differ by their settings only.
    check(model, settings)
    rngs = row_generators(seed, len(lengths))
    if objective == "ar":
        prompt = torch.full((len(lengths), 1), tokenizer.bos, device=model.device)
        drawn = twin.sample(
            model,
            prompt,
            max(lengths),
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            rngs=rngs,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        # The twin ends its texts itself, so they are shorter than the rows.
        return [row[row != tokenizer.pad].cpu().numpy() for row in drawn.tokens], drawn.calls
    size = torch.tensor(lengths, device=model.device)
    tokens = torch.from_numpy(blank_rows(lengths, tokenizer)).to(model.device)
    block = blocks.choose(model.config, settings.block_size)
    if block:
        drawn = block_writing.sample(
            model,
            tokens,
            settings,
            size=block,
            mask_id=tokenizer.mask,
            rngs=rngs,
            eos=tokenizer.eos,
            pad=tokenizer.pad,
        )
        return [row[row != tokenizer.pad].cpu().numpy() for row in drawn.tokens], drawn.calls
    how = {"mask_id": tokenizer.mask, "rngs": rngs}
    if noise.is_other(model.config):
        drawn = noise.sample(model, tokens, settings, lengths=size, **how)
    else:
        drawn = sample(writer_of(model, settings, size), tokens, settings, **how)
    rows = zip(drawn.tokens, lengths, strict=True)
    return [row[:length].cpu().numpy() for row, length in rows], drawn.calls


def table(rows: list[dict]) -> list[list[str]]:
    """The grid as rows of text, the first row the header; seconds come last."""
    names = [name for name in rows[0] if name not in ("sampler", "steps", "seconds")]
    lines = [["sampler", "steps", *names, "seconds"]]
    for row in rows:
        figures = [row[name] for name in names]
        cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in figures]
        lines.append([row["sampler"], str(row["steps"]), *cells, f"{row['seconds']:.1f}"])
    return lines
