"""Measure shortcuts in writing: exact speculation, and for stories approximate caches.

Reads   a captioner or a text model, its data folder; --judge a text twin for stories
Writes  a Markdown table to the screen; --json the figures

Two minutes on a laptop, with the files of demo.py:
    python -m tools.shortcuts --checkpoint runs/demo/captioner/best.pt
        --data_dir runs/demo/data --texts 64 --batches 1
A captioner of the README, about 20 minutes on two cores:
    python -m tools.shortcuts --checkpoint runs/captioner/best.pt
        --data_dir data_captions_synthetic --sampler confidence --temperature 1
Stories, judged by a twin:
    python -m tools.shortcuts --checkpoint runs/small/best.pt --data_dir data_full
        --judge runs/twin/best.pt --texts 64 --batches 1,4 --caches prefix,dual

Every side writes the same texts of the val split with the same seeds: one token per call, guesses
ahead, and plain parallel decoding with as many calls as each number of guesses took. With --caches,
blocks are also written without a cache and with each cache; *agreement* is the share of tokens that
are equal. *trace_nats* is the mean of -log p of a whole text by its own trace; sides with the same
law have the same mean. The sides take turns. A ratio is the median over rounds of the one-token
seconds divided by the side's.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from base import files, flags, metrics
from base.config import SPECULATIVE, SampleConfig
from base.errors import UserError
from base.flags import check, numbers, resolve, setting, unknown
from caption import judging, writer
from caption.data import CaptionData
from loop import checkpoint, hardware, progress
from net import stale
from text import stories
from text.data import TextData
from text.judge import open_judge
from tools import speed

AT_ONCE = 64  # texts that are written together for their quality
LEAST = 16  # texts that are timed at least: how many guesses hold differs from text to text


@dataclass
class Side:
    """A way of writing. stale: its cache (net/stale.py). found: calls, rows and quality."""

    settings: SampleConfig
    stale: str = "none"
    found: dict = field(default_factory=dict)


# write(side, first, count): texts number first .. first + count - 1, with ids, calls and rows
Write = Callable[[Side, int, int], list]


@dataclass
class Shortcuts:
    """What is measured, and on what."""

    checkpoint: str = setting("runs/captioner/best.pt", "a captioner or a text model")
    data_dir: str = setting("data_captions_synthetic", "its data folder", metavar="FOLDER")
    judge: str | None = setting(None, "a text twin: nats per token of stories", metavar="FILE")
    sampler: str = setting("confidence", "the order of the tokens", choices=SPECULATIVE)
    temperature: float = setting(1.0, "of the draws", at_least=0.0)
    top_p: float = setting(1.0, "of the draws", above=0.0, at_most=1.0)
    guesses: str = setting("1,2,4,8", "numbers of guesses, with commas between them")
    caches: str | None = setting(None, "approximate caches: prefix,dual; stories only")
    block_size: int = setting(32, "--caches: tokens of a block", at_least=1)
    steps: int = setting(128, "--caches: calls per text", at_least=1)
    texts: int = setting(500, "texts whose quality is judged", at_least=1)
    min_tokens: int = setting(200, "stories of at least this many tokens", at_least=3)
    batches: str = setting("1,4,64", "batch sizes to time, with commas between them")
    repeats: int = setting(5, "timed rounds, of all sides in turn", at_least=1)
    seed: int = setting(0, "of the draws")
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    json: str | None = setting(None, "write the figures", metavar="FILE")

    def __post_init__(self):
        check(self)
        numbers("guesses", self.guesses)
        numbers("batches", self.batches)
        for name in self.caches.split(",") if self.caches else []:
            if name not in stale.KINDS[1:]:
                raise unknown(f"--caches {self.caches}", name, list(stale.KINDS[1:]))


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Shortcuts)
    return parser.parse_args(argv)


def open_captions(opened: tuple, options: Shortcuts) -> tuple[Write, Callable]:
    """How captions are written, and how they are judged."""
    model, tokenizer, saved = opened
    data = CaptionData(options.data_dir, "val", model.config.max_length)
    if len(data) < options.texts:
        raise UserError(
            f"{len(data)} val images in {options.data_dir}",
            f"--texts {options.texts} of them",
            "lower --texts",
        )

    def write(side: Side, first: int, count: int) -> list:
        features = data.features_of(np.arange(first, first + count))
        features = writer.standardise(features, saved["statistics"], model.device)
        how = {"seed": options.seed, "first": first}
        objective = saved["objective"]
        return writer.write(model, tokenizer, objective, features, side.settings, **how)

    def judge(written: list) -> dict:
        texts = [caption.text for caption in written]
        return judging.judge(texts, data.records[: len(texts)], "val")

    return write, judge


def open_stories(opened: tuple, options: Shortcuts) -> tuple[Write, Callable]:
    """How stories of held-out lengths are written, and how they are judged."""
    model, tokenizer, saved = opened
    held_out = TextData(options.data_dir, "val", model.config.max_length)
    whole = [text for text in held_out.whole_rows() if len(text) >= options.min_tokens]
    if len(whole) < options.texts:
        raise UserError(
            f"{len(whole)} held-out texts of at least {options.min_tokens} tokens",
            f"--texts {options.texts} of them",
            "lower --texts or --min_tokens",
        )
    twin = open_judge(options.judge, model.device) if options.judge else None
    blank = [
        [tokenizer.bos, *[tokenizer.mask] * (len(text) - 2), tokenizer.eos]
        for text in whole[: options.texts]
    ]

    def write(side: Side, first: int, count: int) -> list:
        rows = blank[first : first + count]
        how = {"seed": options.seed, "first": first, "stale": side.stale}
        return stories.write(model, tokenizer, saved["objective"], rows, side.settings, **how)

    def judge(written: list) -> dict:
        texts = [np.array(text.ids) for text in written]
        texts = [ids[ids != tokenizer.pad] for ids in texts]  # blocks may end early
        found = metrics.variety(texts)
        if twin is not None:
            found["judge_nats_per_token"] = twin.nats_per_token(texts, tokenizer)
        return found

    return write, judge


def judged(write: Write, judge: Callable, side: Side, count: int) -> list:
    """Writes `count` texts, and fills in what was found: calls and rows per text, and quality."""
    written = []
    for first in range(0, count, AT_ONCE):
        written += write(side, first, min(AT_ONCE, count - first))
    each = np.array([-np.log(text.probability).sum() for text in written])
    side.found = {
        "calls": statistics.mean(text.calls for text in written),
        "rows": statistics.mean(text.rows for text in written),
        # Equal laws have equal means: this is an estimate of the law's entropy.
        "trace_nats": float(each.mean()),
        "trace_nats_ci95": metrics.ratio_interval(each, np.ones(len(each))),
        **judge(written),
    }
    return written


def exact_sides(write: Write, judge: Callable, options: Shortcuts, single: Side) -> dict[str, Side]:
    """Guesses ahead, and plain sides that take as many calls as the guesses took."""
    sides: dict[str, Side] = {}
    for ahead in progress.bar(numbers("guesses", options.guesses), "quality", unit="guesses"):
        side = sides[f"{ahead} ahead"] = Side(replace(single.settings, speculate=ahead))
        judged(write, judge, side, options.texts)
        steps = max(1, round(side.found["calls"]))
        name = f"plain, {steps} calls"
        if name not in sides:
            sides[name] = Side(replace(single.settings, steps=steps))
            judged(write, judge, sides[name], options.texts)
    return sides


def cached_sides(
    write: Write, judge: Callable, options: Shortcuts, single: Side
) -> dict[str, Side]:
    """Blocks without a cache and with each: agreement is the share of tokens that are equal."""
    how = replace(single.settings, block_size=options.block_size, steps=options.steps)
    sides: dict[str, Side] = {}
    texts = {}
    for kind in ["none", *(options.caches or "").split(",")]:
        side = sides[f"blocks of {options.block_size}, cache {kind}"] = Side(how, kind)
        texts[kind] = judged(write, judge, side, options.texts)
        same = total = 0
        for ours, theirs in zip(texts[kind], texts["none"], strict=True):
            pairs = list(zip(ours.ids, theirs.ids, strict=False))
            same += sum(one == other for one, other in pairs)
            total += max(len(ours.ids), len(theirs.ids))
        side.found["agreement"] = same / total
    return sides


def seconds_of(write: Write, sides: dict[str, Side], options: Shortcuts, device) -> dict:
    """Seconds per text of each side at each batch size: (name, batch) -> seconds and ratio."""
    result = {}
    for batch in numbers("batches", options.batches):
        count = min(options.texts, max(LEAST, batch))

        def timed(side: Side, batch: int = batch, count: int = count) -> Callable:
            def work():
                for first in range(0, count, batch):
                    write(side, first, min(batch, count - first))

            return work

        works = {name: timed(side) for name, side in sides.items()}
        times = speed.alternate(works, options.repeats, device)
        for name, own in times.items():
            result[name, batch] = {
                "seconds": statistics.median(own) / count,
                "times_faster": speed.ratio(times["one token per call"], own),
            }
    return result


def table(rows: list[dict], batches: list[int]) -> str:
    """The figures as a Markdown table."""
    shown = (
        "trace_nats",
        "truthful",
        "cider",
        "bleu_4",
        "judge_nats_per_token",
        "unigram_entropy",
        "agreement",
    )
    names = [name for name in shown if any(name in row for row in rows)]
    head = ["", "calls", "rows", *names]
    lines = [[*head, *(f"batch {batch}, ms (times faster)" for batch in batches)]]
    for row in rows:
        line = [row["side"], f"{row['calls']:.1f}", f"{row['rows']:.1f}"]
        for name in names:
            line.append(metrics.interval(row, name))
        for batch in batches:
            time = row["batches"][str(batch)]
            line.append(f"{1000 * time['seconds']:.0f} ({time['times_faster']:.2f})")
        lines.append(line)
    return metrics.markdown(lines)


def main(argv=None):
    options = resolve(Shortcuts, parse_args(argv))
    if options.threads:
        torch.set_num_threads(options.threads)
    device = hardware.choose_device(options.device)
    opened = checkpoint.open_model(options.checkpoint, device, kinds=("text", "caption"))
    if opened[2]["objective"] == "ar":
        raise UserError(
            f"{options.checkpoint}, a twin",
            "a denoiser: a twin writes one token per call already",
            "choose a denoiser's checkpoint",
        )
    if options.caches and opened[2]["kind"] == "caption":
        raise UserError("--caches for a captioner", "a text model's checkpoint", "drop --caches")
    opener = open_captions if opened[2]["kind"] == "caption" else open_stories
    write, judge = opener(opened, options)
    # As many steps as the longest text has tokens: one token per call.
    draws = {"temperature": options.temperature, "top_p": options.top_p}
    single = Side(SampleConfig(options.sampler, opened[0].config.max_length, **draws))
    judged(write, judge, single, options.texts)
    sides = {"one token per call": single, **exact_sides(write, judge, options, single)}
    if options.caches:
        sides |= cached_sides(write, judge, options, single)
    times = seconds_of(write, sides, options, device)
    batches = numbers("batches", options.batches)
    rows = []
    for name, side in sides.items():
        own = {str(batch): times[name, batch] for batch in batches}
        rows.append({"side": name, **side.found, "batches": own})
    print(table(rows, batches))
    if options.json:
        facts = {**flags.to_dict(options), "threads": torch.get_num_threads(), "rows": rows}
        files.write_text(options.json, json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    files.run(main)
