"""Write text with a trained model: whole samples, or the blanks of a template.

Reads   a checkpoint (the newest run below this folder, or --checkpoint)
Writes  samples to the screen; --html a page that plays the unmasking; --json one line per sample

Seconds on a laptop:
    python generate.py --num_samples 5 --temperature 0.8
    python generate.py --template "Once upon a time [MASK*20] the end." --show
As exact as the model is, one token per call:
    python generate.py --num_samples 5 --steps 256 --html samples.html

The checkpoint decides the architecture, so there are no model flags. The autoregressive twin writes
from left to right. The length of a text is given with --length, or drawn from the training rows.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from base import files, flags
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from base.templates import blank_rows, template_row
from loop import checkpoint, hardware, progress
from show import pages, terminal
from text import stories

SHORTEST = 3  # [BOS], a token, [EOS]
# The twin writes a token per call from left to right, so samplers and steps mean nothing to it.
READ_BY_TWIN = ("temperature", "top_p")
SHOWN_SETTINGS = (
    "sampler",
    "steps",
    "schedule",
    "temperature",
    "top_p",
    "block_size",
    "speculate",
)


@dataclass
class Story:
    """What to write, and where to."""

    checkpoint: str | None = setting(
        None, "default: the newest text model below this folder", metavar="FILE"
    )
    num_samples: int = setting(5, "samples to write", at_least=1)
    batch_size: int = setting(16, "samples drawn at once; does not change them", at_least=1)
    length: int = setting(
        0, "tokens of a sample, [BOS] and [EOS] included; 0 draws training lengths", at_least=0
    )
    template: str | None = setting(
        None, 'a text with blanks: "[MASK]" for one token, "[MASK*20]" for twenty', metavar="TEXT"
    )
    open_end: bool = setting(False, "the text may continue after its end: no [EOS]")
    show: bool = setting(False, "print the unmasking step by step")
    delay: float = setting(0.15, "seconds between the frames of --show on a terminal", at_least=0)
    html: str | None = setting(
        None, "write a self-contained page that plays the unmasking", metavar="FILE"
    )
    json: str | None = setting(None, "write one JSON object per sample", metavar="FILE")
    seed: int = setting(0, "same seed, same samples, whatever the batch size")
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Story)
    parser.add_settings(SampleConfig)
    return parser.parse_args(argv)


def sample_lengths(story: Story, saved: dict, max_length: int) -> list[int]:
    """The length of each sample: --length, or a draw of its own from the lengths of training rows.

    The twin ends its texts itself, so it gets the model's whole length.
    """
    if story.length and not SHORTEST <= story.length <= max_length:
        raise UserError(
            f"--length {story.length}",
            f"{SHORTEST} to {max_length}, the model's length",
            "choose such a length",
        )
    if story.length or saved["objective"] == "ar":
        return [story.length or max_length] * story.num_samples
    counts = np.asarray(saved["statistics"]["row_lengths"], dtype=float)[: max_length + 1]
    # Shorter rows hold no token that could be written.
    counts[:SHORTEST] = 0
    lengths = []
    for number in range(story.num_samples):
        # A generator per sample: --num_samples does not change the first lengths.
        rng = np.random.default_rng((story.seed, number))
        lengths.append(int(rng.choice(len(counts), p=counts / counts.sum())))
    return lengths


def make_rows(story: Story, tokenizer, saved: dict, max_length: int) -> list[list[int]]:
    """The ids of each sample before writing, [MASK] in its blanks."""
    if story.template is not None:
        row = template_row(story.template, tokenizer, max_length, open_end=story.open_end)
        return [row] * story.num_samples
    rows = [
        blank_rows([length], tokenizer)[0].tolist()
        for length in sample_lengths(story, saved, max_length)
    ]
    if story.open_end:
        for row in rows:
            # The last place holds [EOS], which would end the text.
            row[-1] = tokenizer.mask
    return rows


def write_files(story: Story, settings: SampleConfig, samples, tokenizer, facts: dict) -> None:
    """The files asked for. facts: what the page says above the samples."""
    if story.html:
        files.write_text(story.html, pages.unmasking(samples, tokenizer, facts))
    if not story.json:
        return
    records = []
    for drawn in samples:
        record = {
            "text": tokenizer.decode(drawn.ids),
            "tokens": drawn.ids,
            "step": drawn.step,
            "probability": [round(value, 6) for value in drawn.probability],
            "calls": drawn.calls,
            "rows": drawn.rows,
            "seed": story.seed,
            "checkpoint": facts["checkpoint"],
        }
        records.append(record | flags.to_dict(settings))
    files.write_lines(story.json, records)


def note_ignored(arguments) -> None:
    """Say which flags an autoregressive twin does not read."""
    names = [name for name in flags.given(SampleConfig, arguments) if name not in READ_BY_TWIN]
    if names:
        # On stderr, because stdout holds the samples only.
        print(
            "note: an autoregressive twin writes from left to right; "
            f"--{', --'.join(names)} means nothing to it",
            file=sys.stderr,
        )


def main(argv=None):
    arguments = parse_args(argv)
    story = flags.resolve(Story, arguments)
    settings = flags.resolve(SampleConfig, arguments)
    for file in filter(None, (story.html, story.json)):
        files.writable_folder(Path(file).parent)  # before any work that a refusal would waste
    if story.threads:
        torch.set_num_threads(story.threads)
    path = Path(story.checkpoint) if story.checkpoint else checkpoint.newest()
    device = hardware.choose_device(story.device)
    model, tokenizer, saved = checkpoint.open_model(path, device, kinds=("text",))
    print(f"{path}: {checkpoint.describe(saved)}", file=sys.stderr)
    if saved["objective"] == "ar":
        note_ignored(arguments)  # no error: the samples are right without these flags
    rows = make_rows(story, tokenizer, saved, model.config.max_length)
    clock = time.perf_counter()  # opening the checkpoint is no part of the speed
    samples = []
    with progress.Tokens(rows, tokenizer.mask) as bar:
        for first in range(0, len(rows), story.batch_size):
            batch = rows[first : first + story.batch_size]
            samples += stories.write(
                model,
                tokenizer,
                saved["objective"],
                batch,
                settings,
                seed=story.seed,
                first=first,
                keep_frames=story.show or story.html is not None,  # memory for each call
                note=bar.batch(batch),
            )
    seconds = time.perf_counter() - clock
    facts = {"checkpoint": path.name, "trained for": f"{saved['step']} steps", "seed": story.seed}
    facts |= {name: getattr(settings, name) for name in SHOWN_SETTINGS}
    write_files(story, settings, samples, tokenizer, facts)
    for number, drawn in enumerate(samples, 1):
        print(f"--- sample {number} ---")
        if story.show:
            terminal.play(drawn.frames, tokenizer, story.delay)
        print(tokenizer.decode(drawn.ids) + "\n")
    written = sum(step > 0 for drawn in samples for step in drawn.step)  # 0: it was given
    most = max(drawn.calls for drawn in samples)
    said = f"{len(samples)} samples, {written} tokens in at most {most} calls each"
    if settings.speculate:
        said += f" and {sum(drawn.rows for drawn in samples)} rows in all"
    print(f"{said}, {seconds:.1f} s, {written / seconds:,.0f} tokens/s", file=sys.stderr)


if __name__ == "__main__":
    files.run(main)
