"""Measure a block model at each block size: likelihood, samples, speed; other models beside it.

Reads   a block model (--checkpoint) and its data folder; a plain denoiser (--denoiser) and a twin
        (--twin) of the same tokenizer, if there are any
Writes  a Markdown table to the screen; --json the figures, --picture a PNG

On a laptop, with the models of docs/stories.md:
    python -m tools.block_line --checkpoint runs/blocks/best.pt --data_dir data_mine
        --denoiser runs/stories/best.pt --min_tokens 40 --texts 8 --documents 20
Real stories, with a judge (its time was not measured):
    python -m tools.block_line --checkpoint runs/blocks/best.pt --denoiser checkpoints/best.pt
        --twin checkpoints_ar/best.pt --judge checkpoints_judge/best.pt --picture block_line.png

Bits per byte are the exact likelihood for blocks of one token and for the twin, else a bound.
Samples have the lengths of held-out texts, and at most --steps calls per text; blocks of one token
and the twin take a call per token. Speed is that of a single text, with the exact cache, all sides
in turn; *first block* is the time until the first block is finished.
"""

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from base import files, flags, metrics
from base.config import SampleConfig
from base.errors import UserError
from base.flags import check, numbers, resolve, setting
from base.folders import check_tokenizer
from loop import checkpoint, hardware, progress
from show import plots
from text import samples, scores, stories
from text.data import TextData
from text.judge import Judge, open_judge


@dataclass
class BlockLine:
    """What is measured, and on what."""

    checkpoint: str = setting("runs/blocks/best.pt", "a block model")
    data_dir: str = setting("data_full", "its data folder", metavar="FOLDER")
    denoiser: str | None = setting(None, "a plain denoiser to compare with", metavar="FILE")
    twin: str | None = setting(None, "a twin to compare with", metavar="FILE")
    judge: str | None = setting(
        None, "a twin that judges the samples; none: they are not judged", metavar="FILE"
    )
    documents: int = setting(0, "held-out documents to score; 0 means all", at_least=0)
    draws: int = setting(8, "noise levels per row of a bound", at_least=1)
    steps: str = setting("64,256", "calls per text, with commas between them")
    texts: int = setting(16, "samples of each side", at_least=1)
    min_tokens: int = setting(200, "lengths of held-out texts at least this long", at_least=3)
    temperature: float = setting(0.8, "of the draws", at_least=0.0)
    repeats: int = setting(3, "timed texts of each side, in turn", at_least=1)
    seed: int = setting(0, "of masks and draws")
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    json: str | None = setting(None, "write the figures", metavar="FILE")
    picture: str | None = setting(None, "draw the figures into this PNG", metavar="FILE")

    def __post_init__(self):
        check(self)
        numbers("steps", self.steps)


@dataclass
class Side:
    """A model and a way of writing. size: of its blocks, 0: none. found: its figures."""

    name: str
    opened: tuple
    size: int
    found: dict = field(default_factory=dict)

    @property
    def one_by_one(self) -> bool:
        """Whether it writes a token per call, so that a number of calls means nothing."""
        return self.size == 1 or self.opened[2]["objective"] == "ar"


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(BlockLine)
    return parser.parse_args(argv)


def open_beside(path: str, name: str, objective: str, tokenizer, device) -> Side:
    """A model to compare with. Raises UserError for another kind, or another tokenizer."""
    opened = checkpoint.open_model(path, device, kinds=("text",))
    check_tokenizer(opened[1].fingerprint, tokenizer.fingerprint, path)
    if opened[2]["objective"] != objective or opened[0].config.trained_sizes:
        raise UserError(f"{path}, which is no {name}", f"a {name}", "name another checkpoint")
    return Side(name, opened, 0)


def open_all(options: BlockLine, device: torch.device) -> tuple[list[Side], Judge | None]:
    """The block model at each of its sizes, the models beside it, and the judge.

    Raises UserError for a checkpoint of another kind, or of another tokenizer.
    """
    opened = checkpoint.open_model(options.checkpoint, device, kinds=("text",))
    tokenizer, beside, judge = opened[1], [], None
    if options.denoiser:
        beside.append(
            open_beside(options.denoiser, "plain denoiser", "diffusion", tokenizer, device)
        )
    if options.twin:
        beside.append(open_beside(options.twin, "twin", "ar", tokenizer, device))
    if options.judge:
        judge = open_judge(options.judge, device)
    sizes = opened[0].config.trained_sizes
    if not sizes:
        raise UserError(
            f"{options.checkpoint}, a network without block sizes",
            "a network of train.py --block_sizes",
            "train one, or score this one with evaluate.py",
        )
    return [*(Side(f"blocks of {size}", opened, size) for size in sizes), *beside], judge


def measure_likelihood(side: Side, held_out: TextData, options: BlockLine) -> None:
    """Bits per byte of held-out documents, with the interval."""
    model, _, saved = side.opened
    scoring = scores.TextScoring(documents=options.documents, draws=options.draws)
    found = scores.likelihood(model, saved, held_out, scoring, options.seed, side.size)
    for name in ("bits_per_byte", "bits_per_byte_ci95", "nats_per_token"):
        side.found[name] = found[name]


def measure_samples(side: Side, lengths: list[int], judge, options: BlockLine) -> None:
    """Entropy, repetition and the judge's nats of samples, for each number of calls."""
    model, tokenizer, saved = side.opened
    counts = [max(lengths)] if side.one_by_one else numbers("steps", options.steps)
    side.found["samples"] = []
    for steps in counts:
        settings = SampleConfig(steps=steps, temperature=options.temperature, block_size=side.size)
        texts, calls = samples.draw(
            model, tokenizer, saved["objective"], lengths, settings, options.seed
        )
        row = {"steps": steps, "calls": calls, **metrics.variety(texts)}
        if judge is not None:
            row["judge_nats_per_token"] = judge.nats_per_token(texts, tokenizer)
        side.found["samples"].append(row)


def timed(side: Side, length: int, options: BlockLine, seed: int) -> tuple[float, float]:
    """Seconds until the first block of a text of `length` tokens, and tokens per second."""
    model, tokenizer, saved = side.opened
    row = [tokenizer.bos, *[tokenizer.mask] * (length - 2), tokenizer.eos]
    if saved["objective"] == "ar":
        row[-1] = tokenizer.mask  # the twin writes its own end
    steps = max(numbers("steps", options.steps))
    settings = SampleConfig(steps=steps, temperature=options.temperature, block_size=side.size)
    moments: list[float] = []

    def finished(tokens) -> None:
        moments.append(time.perf_counter())

    clock = time.perf_counter()
    (text,) = stories.write(
        model,
        tokenizer,
        saved["objective"],
        [row],
        settings,
        seed=seed,
        block_size=side.size,
        finished=finished if side.size else None,
    )
    end = time.perf_counter()
    first = moments[0] if moments else end
    return first - clock, (len(text.ids) - 1) / (end - clock)


def measure_speed(sides: list[Side], length: int, options: BlockLine) -> None:
    """Medians over texts; the sides take turns, because a shared machine is not steady."""
    every: dict[str, list] = {side.name: [] for side in sides}
    rounds = range(options.repeats + 1)
    for number in progress.bar(rounds, "speed", unit="round"):
        for side in sides:
            found = timed(side, length, options, options.seed + number)
            if number:  # the first round warms up
                every[side.name].append(found)
    for side in sides:
        firsts, rates = zip(*every[side.name], strict=True)
        side.found["first_block_seconds"] = statistics.median(firsts)
        side.found["tokens_per_second"] = statistics.median(rates)


def table(sides: list[Side], human: dict) -> str:
    """The figures as a Markdown table: a line per side and number of calls."""
    head = ["", "bits per byte", "calls", "judge's nats", "entropy", "repeated 4-grams"]
    lines = [[*head, "tokens/s", "first block, s"]]
    lines.append(["human text", "", "", *quality(human), "", ""])
    for side in sides:
        bits = metrics.interval(side.found, "bits_per_byte", digits=3)
        speed = f"{side.found['tokens_per_second']:.0f}"
        first = f"{side.found['first_block_seconds']:.2f}" if side.size else ""
        for row in side.found["samples"]:
            lines.append([side.name, bits, str(row["calls"]), *quality(row), speed, first])
    return metrics.markdown(lines)


def quality(row: dict) -> list[str]:
    nats = row.get("judge_nats_per_token")
    return [
        "" if nats is None else f"{nats:.3f}",
        f"{row['unigram_entropy']:.3f}",
        f"{100 * row['repetition_4']:.1f}%",
    ]


def main(argv=None):
    options = resolve(BlockLine, parse_args(argv))
    if options.threads:
        torch.set_num_threads(options.threads)
    for path in (options.json, options.picture):
        if path:
            files.writable_folder(Path(path).parent)
    sides, judge = open_all(options, hardware.choose_device(options.device))
    model, tokenizer, _ = sides[0].opened
    held_out = TextData(options.data_dir, "val", model.config.max_length)
    whole = samples.whole_texts(held_out, options.texts, options.min_tokens)
    lengths = [len(text) for text in whole]
    human = metrics.variety(whole)
    if judge is not None:
        human["judge_nats_per_token"] = judge.nats_per_token(whole, tokenizer)
    for side in progress.bar(sides, "sides", unit="side"):
        measure_likelihood(side, held_out, options)
        measure_samples(side, lengths, judge, options)
    measure_speed(sides, max(lengths), options)
    print(table(sides, human))
    rows = [{"side": side.name, "block_size": side.size, **side.found} for side in sides]
    if options.json:
        facts = {**flags.to_dict(options), "threads": torch.get_num_threads()}
        content = {**facts, "human": human, "rows": rows}
        files.write_text(options.json, json.dumps(content, indent=2) + "\n")
    if options.picture:
        plots.block_line(options.picture, rows, human)


if __name__ == "__main__":
    files.run(main)
