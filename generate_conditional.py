"""Write what is missing: the rest of a story, its middle between two ends, or the blanks of a
template.

Reads   a checkpoint of train_conditional.py (default: the newest below this folder)
Writes  texts to the screen; --html a page that plays the unmasking; --json one line per text

Seconds on a laptop:
    python generate_conditional.py --prompt "Once upon a time there was a brave knight." python
    generate_conditional.py --prompt "Tim lost his red ball." --ending "They were best friends."
    python generate_conditional.py --template "Lily had a [MASK*3]. She went to the [MASK*]."
    --rerank 4 python generate_conditional.py --interactive
As exact as the model is, one token per call:
    python generate_conditional.py --prompt "Once upon a time there was a knight." --steps 256

[MASK] is one token, [MASK*20] twenty, and [MASK*] gets a length drawn from the training pairs.
--rerank tries several such lengths and keeps the text with the lowest bound per token. With
--edit_lengths a model of --free_lengths changes the length while it writes. There are no model
flags: the checkpoint decides the architecture and the way of conditioning.
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
from loop import checkpoint, hardware
from show import pages, terminal
from text import blanks, conversation, free_writer, writer
from text.blanks import Template
from text.free_writer import FreeLengths
from text.writer import Filled


@dataclass
class Request:
    """What to write, and where to."""

    checkpoint: str | None = setting(
        None, "default: the newest of train_conditional.py below this folder", metavar="FILE"
    )
    prompt: str | None = setting(None, "how the story begins", metavar="TEXT")
    ending: str | None = setting(None, "how it ends; the middle is written", metavar="TEXT")
    length: int = setting(
        0, "tokens to write between them; 0 draws lengths as in the training pairs", at_least=0
    )
    template: str | None = setting(
        None, 'instead: a text with blanks "[MASK]", "[MASK*20]" or "[MASK*]"', metavar="TEXT"
    )
    interactive: bool = setting(False, "type texts, see them filled, edit a word, fill again")
    num_samples: int = setting(1, "texts to write", at_least=1)
    rerank: int = setting(
        1, "lengths to try for a free blank; the lowest bound per token is kept", at_least=1
    )
    guidance: float = setting(1.0, "away from the model that sees nothing given; 1 is none")
    batch_size: int = setting(16, "texts drawn at once; does not change them", at_least=1)
    show: bool = setting(False, "print the unmasking step by step")
    delay: float = setting(0.15, "seconds between the frames of --show on a terminal", at_least=0)
    html: str | None = setting(
        None, "write a self-contained page that plays the unmasking", metavar="FILE"
    )
    json: str | None = setting(None, "write one JSON object per text", metavar="FILE")
    seed: int = setting(0, "same seed, same texts, whatever the batch size")
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Request)
    parser.add_settings(FreeLengths)
    parser.add_settings(SampleConfig, skip=config.SPECIAL, temperature=0.8)
    return parser.parse_args(argv)


def check(request: Request) -> None:
    """Refuse flags that contradict each other before anything long begins."""
    texts = ("prompt", "ending", "template")
    asked = [name for name in texts if getattr(request, name) is not None]
    if request.interactive and (asked or request.html or request.json):
        raise UserError(
            "--interactive with another text or a file to write",
            "texts typed in",
            "drop one of the flags",
        )
    if "template" in asked and (len(asked) > 1 or request.length):
        raise UserError(
            "--template with --prompt, --ending or --length",
            "one text",
            "write all of it into the template",
        )
    if not asked and not request.interactive:
        raise UserError(
            "nothing to write about", "--prompt, --template or --interactive", "give one of them"
        )
    for file in filter(None, (request.html, request.json)):
        files.writable_folder(Path(file).parent)  # before any work that a refusal would waste


class Filler:
    """A conditional checkpoint, ready to fill templates with the settings of the command line."""

    def __init__(self, request: Request, settings: SampleConfig, lengths: FreeLengths):
        self.request, self.settings, self.lengths = request, settings, lengths
        chosen = request.checkpoint
        self.path = Path(chosen) if chosen else checkpoint.newest(("conditional",))
        device = hardware.choose_device(request.device)
        opened = checkpoint.open_model(self.path, device, kinds=("conditional",))
        self.model, self.tokenizer, self.saved = opened
        self.form = self.saved["form"]  # the checkpoint decides, not a flag
        print(f"{self.path}: {checkpoint.describe(self.saved)}  {self.form}", file=sys.stderr)

    def refuse(self, given: dict) -> None:
        """Raise UserError for settings that this checkpoint, or --edit_lengths, does not read."""
        names = [name for name in ("guidance", "rerank") if getattr(self.request, name) != 1]
        if self.form == "ar":
            writer.refuse_for_twin([*given, *names])
        others = {"guidance": "guidance" in names, "html": self.request.html is not None}
        self.lengths.check(self.model, self.settings, given, others)

    def template(self, text: str) -> Template:
        """A text with blanks as it is; a text without blanks is a prompt."""
        if "[MASK" in text:  # no `]`: a wrong blank gets its error from read_template
            return blanks.read_template(text, self.tokenizer)
        return blanks.read_prompt(text, None, self.tokenizer, self.request.length)

    def fill(self, template: Template, seed: int) -> list[Filled]:
        """The texts asked for."""
        histograms = self.saved["statistics"]["blank_lengths"]  # of the training pairs, for [MASK*]
        return writer.fill_template(
            self.model,
            self.tokenizer,
            self.form,
            template,
            self.lengths.starts(histograms, template, self.tokenizer, self.model.config.max_length),
            self.settings,
            self.request.num_samples,
            rerank=self.request.rerank,
            guidance=self.request.guidance,
            seed=seed,  # --interactive takes the next seed for an empty line
            batch_size=self.request.batch_size,
            keep_frames=self.request.show or self.request.html is not None,
            write=free_writer.fill if self.lengths.edit_lengths else writer.fill,
        )

    def facts(self) -> dict:
        """What the page says above the texts."""
        settings = self.settings
        facts = {"checkpoint": self.path.name, "conditioning": self.form}
        facts |= {"trained for": f"{self.saved['step']} steps", "seed": self.request.seed}
        facts |= {"temperature": settings.temperature, "top_p": settings.top_p}
        if self.form != "ar":  # the twin reads none of these
            facts["guidance"] = self.request.guidance
            facts |= {"sampler": settings.sampler, "steps": settings.steps}
        return facts

    def record(self, text: Filled, template: Template) -> dict:
        """What --json writes for a text."""
        return {
            **text.record(self.tokenizer, template.kind),
            **{name: getattr(self.request, name) for name in ("seed", "guidance", "rerank")},
            "checkpoint": self.path.name,
            "form": self.form,
            **flags.to_dict(self.settings),  # a line says how to write its text again
        }


def write(filler: Filler) -> None:
    """The texts of --prompt or --template, on the screen and in the files asked for."""
    request, tokenizer = filler.request, filler.tokenizer
    if request.template is not None:
        template = blanks.read_template(request.template, tokenizer)
    else:
        template = blanks.read_prompt(request.prompt, request.ending, tokenizer, request.length)
    clock = time.perf_counter()  # the model is open: only the writing counts
    texts = filler.fill(template, request.seed)
    seconds = time.perf_counter() - clock
    if request.html:
        files.write_text(request.html, pages.unmasking(texts, tokenizer, filler.facts()))
    if request.json:
        files.write_lines(request.json, [filler.record(text, template) for text in texts])
    for number, text in enumerate(texts, 1):
        print(f"--- text {number} ({text.nats:.2f} nats per token) ---")
        if request.show:
            terminal.play(text.frames, tokenizer, request.delay)
        print(terminal.marked(text.segments(template, tokenizer)) + "\n")
    written = sum(len(blank) for text in texts for blank in text.blanks)
    most = max(text.calls for text in texts)
    print(
        f"{len(texts)} texts, {written} tokens in at most {most} calls each, {seconds:.1f} s",
        file=sys.stderr,
    )


def main(argv=None):
    arguments = parse_args(argv)
    request = flags.resolve(Request, arguments)
    settings = flags.resolve(SampleConfig, arguments)
    check(request)  # before a checkpoint is read, which takes longer
    if request.threads:
        torch.set_num_threads(request.threads)
    filler = Filler(request, settings, flags.resolve(FreeLengths, arguments))
    filler.refuse(flags.given(SampleConfig, arguments))  # the form is known only now
    if request.interactive:
        play = terminal.player(filler.tokenizer, request.delay) if request.show else None
        conversation.talk(filler, request.seed, play)
    else:
        write(filler)


if __name__ == "__main__":
    files.run(main)
