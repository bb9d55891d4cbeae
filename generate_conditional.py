"""Write what is missing: the rest of a story, its middle between two ends, or the blanks of a template.

Reads   a checkpoint of train_conditional.py (default: the newest below this folder)
Writes  texts to the screen; --html a page that plays the unmasking; --json one line a text

Seconds on a laptop:
    python generate_conditional.py --prompt "Once upon a time there was a brave knight."
    python generate_conditional.py --prompt "Tim lost his red ball." --ending "They were best friends." --num_samples 3
    python generate_conditional.py --template "Lily had a [MASK*3] and went to the [MASK*]. She was happy." --rerank 4 --show
    python generate_conditional.py --interactive
As exact as the model is, one token a call:
    python generate_conditional.py --prompt "Once upon a time there was a brave knight." --steps 256 --html story.html

[MASK] is one token, [MASK*20] twenty, [MASK*] as many as the training pairs have; --rerank tries several such lengths and keeps
the one with the lowest bound per token. The checkpoint decides the architecture and the way of conditioning; there are no model flags.
"""

import json
import re
import sys
import time
from pathlib import Path

import torch

from base import files, flags
from base.config import SampleConfig
from base.files import UserError
from loop import checkpoint, hardware
from show import pages, terminal
from text import writer as text_writer
from text.writer import Filled, Template

DEFAULTS = {"temperature": 0.8}
HELP = """A text with blanks fills them; a text without is continued.   An empty line: fill again.
=N WORD: make word N this word and fill the rest again.   ?: number the words.   q: quit."""


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint", help="default: the newest of train_conditional.py below this folder"
    )
    parser.add_argument("--prompt", help="how the story begins")
    parser.add_argument("--ending", help="how it ends; the middle is written")
    parser.add_argument(
        "--length",
        type=int,
        default=0,
        help="tokens to write between them; 0 draws lengths as in the training pairs (default 0)",
    )
    parser.add_argument(
        "--template", help='instead: a text with blanks "[MASK]", "[MASK*20]" or "[MASK*]"'
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="type texts, see them filled, edit a word, fill again",
    )
    parser.add_argument("--num_samples", type=int, default=1, help="how many (default 1)")
    parser.add_argument(
        "--rerank",
        type=int,
        default=1,
        help="lengths to try for a free blank; the lowest bound per token is kept (default 1)",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        help="away from the model that sees nothing given; 1 is none (default 1)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=16,
        help="texts drawn at once; does not change them (default 16)",
    )
    parser.add_argument("--show", action="store_true", help="print the unmasking step by step")
    parser.add_argument(
        "--delay",
        type=float,
        default=0.15,
        help="seconds between the frames of --show on a terminal (default 0.15)",
    )
    parser.add_argument("--html", help="write a self-contained page that plays the unmasking")
    parser.add_argument("--json", help="write one JSON object a text")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="same seed, same texts, whatever the batch size (default 0)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 means torch's own choice"
    )
    parser.add_settings(SampleConfig, **DEFAULTS)
    return parser.parse_args(argv)


class Writer:
    """A conditional checkpoint, ready to fill templates with the settings of the command line."""

    def __init__(self, args):
        self.args = args
        self.settings = flags.resolve(SampleConfig, args, DEFAULTS)
        self.path = (
            Path(args.checkpoint) if args.checkpoint else checkpoint.newest(("conditional",))
        )
        self.model, self.tokenizer, self.saved = checkpoint.open_model(
            self.path, hardware.choose_device(args.device), kinds=("conditional",)
        )
        self.form = self.saved["form"]
        print(f"{self.path}: {checkpoint.describe(self.saved)}  {self.form}", file=sys.stderr)
        if self.form == "ar":
            given = [
                f"--{name}"
                for name in (*flags.to_dict(self.settings), "guidance", "rerank")
                if name not in ("temperature", "top_p")
                and getattr(args, name) not in (None, 1, 1.0)
            ]
            if given:
                raise UserError(
                    f"{', '.join(given)} for an autoregressive twin",
                    "--temperature and --top_p at most: it writes from left to right",
                    "drop it, or name a denoiser's checkpoint",
                )

    def template(self, text: str) -> Template:
        """A text with blanks as it is; one without is a prompt."""
        return (
            text_writer.read_template(text, self.tokenizer)
            if "[MASK" in text
            else text_writer.read_prompt(text, None, self.tokenizer, self.args.length)
        )

    def fill(self, template: Template, seed: int) -> list[Filled]:
        args = self.args
        return text_writer.fill_template(
            self.model,
            self.tokenizer,
            self.form,
            template,
            self.saved["statistics"]["blank_lengths"],
            self.settings,
            args.num_samples,
            rerank=args.rerank,
            guidance=args.guidance,
            seed=seed,
            batch_size=args.batch_size,
            keep_frames=bool(args.show or args.html),
        )


def marked(segments: list[tuple[str, bool]]) -> str:
    """The text, what was written in bold on a terminal and between ‹ › elsewhere."""
    left, right = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("‹", "›")
    space = lambda piece: piece[: len(piece) - len(piece.lstrip())]  # noqa: E731
    show = lambda piece: f"{space(piece)}{left}{piece.strip()}{right}{piece[len(piece.rstrip()) :]}"  # noqa: E731
    return "".join(show(piece) if blank and piece.strip() else piece for piece, blank in segments)


def record(one: Filled, template: Template, writer: Writer, seed: int) -> dict:
    """What --json writes for a text."""
    tokenizer = writer.tokenizer
    return {
        "text": tokenizer.decode(one.ids),
        "blanks": [tokenizer.decode(blank) for blank in one.blanks],
        "kind": template.kind,
        "nats_per_token": round(one.nats, 4),
        "tokens": one.ids,
        "step": one.step,
        "probability": [round(p, 6) for p in one.probability],
        "calls": one.calls,
        "seed": seed,
        "guidance": writer.args.guidance,
        "rerank": writer.args.rerank,
        "checkpoint": writer.path.name,
        "form": writer.form,
        **flags.to_dict(writer.settings),
    }


def talk(writer: Writer) -> None:
    """Read lines from standard input until it ends; a mistake is answered and nothing is lost."""
    print(HELP, flush=True)
    text, segments, seed = "", [], writer.args.seed
    for line in sys.stdin:
        line = line.rstrip("\n")
        if line == "q":
            return
        try:
            if line == "?":
                words = "".join(piece for piece, _ in segments).split()
                print(
                    "  ".join(f"{number} {word}" for number, word in enumerate(words, 1)),
                    flush=True,
                )
                continue
            if edit := re.match(r"=(\d+) (\S.*)", line):
                text = text_writer.edited(segments, int(edit[1]), edit[2].strip(), writer.tokenizer)
            elif line.strip():
                text = line.replace("\\n", "\n")
            elif not text:
                continue
            else:
                seed += 1
            template = writer.template(text)
            for one in writer.fill(template, seed):
                segments = one.segments(template, writer.tokenizer)
                if writer.args.show:
                    terminal.play(one.frames, writer.tokenizer, writer.args.delay)
                print(
                    f"{marked(segments)}\n  ({one.calls} calls, {one.nats:.2f} nats per token)",
                    flush=True,
                )
        except UserError as error:
            print(f"error: {error}", flush=True)


def check(args) -> None:
    """Refuse flags that contradict each other before anything long begins."""
    for flag in ("num_samples", "batch_size", "rerank"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} {getattr(args, flag)}", "at least 1", "choose such a number")
    if args.length < 0:
        raise UserError(
            f"--length {args.length}", "a number of tokens, or 0", "choose such a number"
        )
    asked = [name for name in ("prompt", "ending", "template") if getattr(args, name) is not None]
    if args.interactive and asked or args.interactive and (args.html or args.json):
        raise UserError(
            "--interactive with another text or a file to write",
            "texts typed in",
            "drop one of the flags",
        )
    if "template" in asked and (len(asked) > 1 or args.length):
        raise UserError(
            "--template with --prompt, --ending or --length",
            "one text",
            "write all of it into the template",
        )
    if not asked and not args.interactive:
        raise UserError(
            "nothing to write about", "--prompt, --template or --interactive", "give one"
        )
    for path in filter(None, (args.html, args.json)):
        files.writable_folder(Path(path).parent)


def main(argv=None):
    args = parse_args(argv)
    check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    writer = Writer(args)
    tokenizer = writer.tokenizer
    if args.interactive:
        talk(writer)
        return
    if args.template is not None:
        template = text_writer.read_template(args.template, tokenizer)
    else:
        template = text_writer.read_prompt(args.prompt, args.ending, tokenizer, args.length)
    clock = time.perf_counter()
    texts = writer.fill(template, args.seed)
    seconds = time.perf_counter() - clock
    if args.html:
        facts = {
            "checkpoint": writer.path.name,
            "conditioning": writer.form,
            "trained for": f"{writer.saved['step']} steps",
            "seed": args.seed,
            "temperature": writer.settings.temperature,
            "top_p": writer.settings.top_p,
        }
        if writer.form != "ar":
            facts |= {
                "guidance": args.guidance,
                "sampler": writer.settings.sampler,
                "steps": writer.settings.steps,
            }
        files.write_text(args.html, pages.unmasking(texts, tokenizer, facts))
    if args.json:
        files.write_text(
            args.json,
            "".join(
                json.dumps(record(one, template, writer, args.seed), ensure_ascii=False) + "\n"
                for one in texts
            ),
        )
    for number, one in enumerate(texts, 1):
        print(f"--- text {number} ({one.nats:.2f} nats per token) ---")
        if args.show:
            terminal.play(one.frames, tokenizer, args.delay)
        print(marked(one.segments(template, tokenizer)) + "\n")
    written = sum(sum(map(len, one.blanks)) for one in texts)
    print(
        f"{len(texts)} texts, {written} tokens in at most {max(one.calls for one in texts)} calls each, {seconds:.1f} s",
        file=sys.stderr,
    )


if __name__ == "__main__":
    files.run(main)
