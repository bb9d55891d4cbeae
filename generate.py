"""Write text with a trained model: whole samples, or the blanks of a template.

Reads   a checkpoint (the newest run below this folder, or --checkpoint)
Writes  samples to the screen; --html a page that plays the unmasking; --json one line per sample

Seconds on a laptop:
    python generate.py --num_samples 5 --temperature 0.8
    python generate.py --template "Once upon a time [MASK*20] the end." --show
As exact as the model is, one token per call:
    python generate.py --num_samples 5 --steps 256 --html samples.html
A network that learnt several block sizes, block by block:
    python generate.py --block_size 16 --stream --num_samples 1 --length 600

The checkpoint decides the architecture, so there are no model flags. The autoregressive twin writes
from left to right. The length of a text is given with --length, or drawn from the training rows.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from base import config, files, flags
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from loop import checkpoint, hardware, progress
from net import blocks, kernels, noise, stale
from show import pages, terminal
from text import stories
from text.story_rows import make_rows
from text.streaming import Stream

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
    adapter: str | None = setting(None, "an adapter to merge into it", metavar="FILE")
    num_samples: int = setting(5, "samples to write", at_least=1)
    batch_size: int = setting(16, "samples drawn at once; does not change them", at_least=1)
    length: int = setting(
        0,
        "tokens of a sample, [BOS] and [EOS] included; 0 draws training lengths; a block model may "
        "write more than its own length, and then sees the last tokens only",
        at_least=0,
    )
    template: str | None = setting(
        None, 'a text with blanks: "[MASK]" for one token, "[MASK*20]" for twenty', metavar="TEXT"
    )
    open_end: bool = setting(False, "the text may continue after its end: no [EOS]")
    show: bool = setting(False, "print the unmasking step by step")
    stream: bool = setting(False, "a block model: print each block as soon as it is finished")
    stale_cache: str = setting(
        "none",
        "a plain denoiser with --block_size: smaller calls, only approximate, see net/stale.py",
        choices=stale.KINDS,
    )
    delay: float = setting(0.15, "seconds between the frames of --show on a terminal", at_least=0)
    html: str | None = setting(
        None, "write a self-contained page that plays the unmasking", metavar="FILE"
    )
    json: str | None = setting(None, "write one JSON object per sample", metavar="FILE")
    seed: int = setting(0, "same seed, same samples, whatever the batch size")
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    kernels: bool = setting(False, kernels.HELP)

    def __post_init__(self):
        flags.check(self)
        if self.stream and self.show:
            raise UserError("--stream with --show", "one of the two", "drop one")


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Story)
    parser.add_settings(SampleConfig, skip=config.RECHECKING)
    return parser.parse_args(argv)


def write_files(story: Story, settings: SampleConfig, samples, tokenizer, facts: dict) -> None:
    """The files asked for. facts: what the page says above the samples."""
    if story.html:
        files.write_text(story.html, pages.unmasking(samples, tokenizer, facts))
    if not story.json:
        return
    how = {"seed": story.seed, "checkpoint": facts["checkpoint"], "stale_cache": story.stale_cache}
    how |= flags.to_dict(settings)
    files.write_lines(story.json, [drawn.record(tokenizer) | how for drawn in samples])


def note_ignored(arguments, objective: str) -> None:
    """Say which flags an autoregressive twin does not read, or exact speculation."""
    given = flags.given(SampleConfig, arguments)
    if objective == "ar":
        names = [name for name in given if name not in READ_BY_TWIN]
        why = "an autoregressive twin writes from left to right"
    else:
        names = [name for name in ("steps", "schedule") if name in given and "speculate" in given]
        why = "with --speculate a text takes as many calls as it needs"
    if names:
        # On stderr, because stdout holds the samples only.
        print(f"note: {why}; --{', --'.join(names)} means nothing to it", file=sys.stderr)


def block_size_of(model, settings: SampleConfig, story: Story) -> int:
    """The block size to write with, which is told; 0: the text as a whole.

    Raises UserError for a size that the network did not learn, and for --stream without blocks.
    """
    size = blocks.choose(model.config, settings.block_size)
    if model.config.trained_sizes:
        how = f"blocks of {size}" if size else "the text as a whole"
        sizes = ", ".join(map(str, model.config.trained_sizes))
        print(f"writing: {how} (trained block sizes: {sizes})", file=sys.stderr)
    if story.stream and not size:
        raise UserError(
            "--stream for a text that is written as a whole",
            "a checkpoint of train.py --block_sizes, and a --block_size below its length",
            "leave out --stream",
        )
    plain = not (model.config.trained_sizes or model.config.causal or model.config.soft_masks)
    fits = plain and settings.block_size and not settings.speculate
    if story.stale_cache != "none" and not fits:
        raise UserError(
            f"--stale_cache {story.stale_cache}",
            "a plain denoiser with --block_size, and no --speculate, whose law it would break",
            "add --block_size 32, or leave out --stale_cache",
        )
    return size


def write_samples(model, tokenizer, saved: dict, story: Story, settings: SampleConfig, rows, size):
    """The samples of all rows, in batches; --stream writes one row at a time and prints it."""
    samples: list[stories.Drawn] = []
    batch_size = 1 if story.stream else story.batch_size
    with progress.Tokens(rows, tokenizer.mask) as bar:
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            if story.stream:
                print(f"--- sample {first + 1} ---")
            samples += stories.write(
                model,
                tokenizer,
                saved["objective"],
                batch,
                settings,
                seed=story.seed,
                first=first,
                block_size=size,
                stale=story.stale_cache,
                keep_frames=story.show or story.html is not None,  # memory for each call
                note=bar.batch(batch),
                finished=Stream(tokenizer) if story.stream else None,
            )
            if story.stream:
                print("\n")
    return samples


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
    model, tokenizer, saved = checkpoint.open_model(
        path, device, kinds=("text",), adapter=story.adapter, noises=config.NOISES
    )
    print(f"{path}: {checkpoint.describe(saved)}", file=sys.stderr)
    note_ignored(arguments, saved["objective"])  # no error: the samples are right without them
    settings = noise.settings_of(model.config, settings, flags.given(SampleConfig, arguments))
    size = block_size_of(model, settings, story)
    rows = make_rows(story, tokenizer, saved, model.config.max_length, size)
    clock = time.perf_counter()  # opening the checkpoint is no part of the speed
    with kernels.use(model, story.kernels):
        samples = write_samples(model, tokenizer, saved, story, settings, rows, size)
    seconds = time.perf_counter() - clock
    facts = {"checkpoint": path.name, "trained for": f"{saved['step']} steps", "seed": story.seed}
    facts |= {name: getattr(settings, name) for name in SHOWN_SETTINGS}
    write_files(story, settings, samples, tokenizer, facts)
    for number, drawn in enumerate([] if story.stream else samples, 1):
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
