"""Write text with a trained model: whole samples, or the blanks of a template.

Reads   a checkpoint (the newest run below this folder, or --checkpoint)
Writes  samples to the screen; --html a page that plays the unmasking; --json one line a sample

Seconds on a laptop:
    python generate.py --num_samples 5 --temperature 0.8
    python generate.py --template "Once upon a time [MASK*20] the end." --show
As exact as the model is, one token a call:
    python generate.py --num_samples 5 --steps 256 --html samples.html

The checkpoint decides the architecture; there are no model flags. The autoregressive twin writes from left to right.
A text's length is given, not guessed: --length, or drawn from the lengths of the training rows.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from base import files, flags
from base.config import SampleConfig
from base.files import UserError
from base.templates import blank_rows, template_row
from loop import checkpoint, hardware
from net import twin
from net.samplers import row_generators, sample
from show import pages, terminal


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_argument("--checkpoint", help="default: the newest run below this folder")
    parser.add_argument("--num_samples", type=int, default=5, help="how many (default 5)")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=16,
        help="samples drawn at once; does not change them (default 16)",
    )
    parser.add_argument(
        "--length",
        type=int,
        default=0,
        help="tokens of a sample, [BOS] and [EOS] included; 0 draws training lengths (default 0)",
    )
    parser.add_argument(
        "--template", help='a text with blanks: "[MASK]" for one token, "[MASK*20]" for twenty'
    )
    parser.add_argument(
        "--open_end", action="store_true", help="the text may go on behind its end: no [EOS]"
    )
    parser.add_argument("--show", action="store_true", help="print the unmasking step by step")
    parser.add_argument(
        "--delay",
        type=float,
        default=0.15,
        help="seconds between the frames of --show on a terminal (default 0.15)",
    )
    parser.add_argument("--html", help="write a self-contained page that plays the unmasking")
    parser.add_argument("--json", help="write one JSON object a sample")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="same seed, same samples, whatever the batch size (default 0)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 means torch's own choice"
    )
    parser.add_settings(SampleConfig)
    return parser.parse_args(argv)


@dataclasses.dataclass
class Drawn:
    """One finished sample: ids (n,), the call that revealed each (0: given), its probability, the frames (n,) of ids, calls."""

    ids: list[int]
    step: list[int]
    probability: list[float]
    frames: list[list[int]]
    calls: int


def empty_rows(args, tokenizer, saved, max_length: int) -> list[list[int]]:
    """[BOS], masks, [EOS] for each sample, of the length asked for or of lengths drawn from the training rows.

    The twin ends its texts itself: it gets the model's whole length unless --length says less.
    """
    if args.length and not 3 <= args.length <= max_length:
        raise UserError(
            f"--length {args.length}",
            f"3 to {max_length}, the model's length",
            "choose such a length",
        )
    counts = np.asarray(saved["statistics"]["row_lengths"], dtype=float)[: max_length + 1]
    if args.length or saved["objective"] == "ar":
        lengths = [args.length or max_length] * args.num_samples
    else:
        counts[: min(3, len(counts))] = 0
        lengths = [
            int(
                np.random.default_rng((args.seed, number)).choice(
                    len(counts), p=counts / counts.sum()
                )
            )
            for number in range(args.num_samples)
        ]
    rows = []
    for n in lengths:
        row = blank_rows([n], tokenizer)[0].tolist()
        if args.open_end:
            row[-1] = tokenizer.mask
        rows.append(row)
    return rows


def left_to_right(args, model, tokenizer, rows: list[list[int]], first: int) -> list[Drawn]:
    """The twin's samples. Raises UserError unless each row is a prompt and then blanks to its end."""
    prompt = rows[0][: rows[0].index(tokenizer.mask)]
    if any(id not in (tokenizer.mask, tokenizer.eos) for id in rows[0][len(prompt) :]):
        raise UserError(
            "a template with words behind a blank",
            "blanks at the end only, since this checkpoint is an autoregressive twin",
            "use a denoiser's checkpoint to fill the middle",
        )
    length = len(rows[0])
    drawn = twin.sample(
        model,
        torch.tensor([prompt] * len(rows), device=model.device),
        length,
        eos=tokenizer.eos,
        pad=tokenizer.pad,
        rngs=row_generators(args.seed, len(rows), first),
        temperature=args.temperature,
        top_p=args.top_p,
    )
    result = []
    for tokens, step, log_prob in zip(
        drawn.tokens.tolist(), drawn.step.tolist(), drawn.log_prob.exp().tolist(), strict=True
    ):
        n = tokens.index(tokenizer.pad) if tokenizer.pad in tokens else length
        frames = [tokens[:i] + [tokenizer.mask] * (n - i) for i in range(len(prompt) + 1, n + 1)]
        result.append(
            Drawn(
                tokens[:n],
                step[:n],
                [p if s else 1.0 for p, s in zip(log_prob[:n], step[:n], strict=True)],
                frames,
                max(step),
            )
        )
    return result


def unmask(args, model, tokenizer, rows: list[list[int]], first: int) -> list[Drawn]:
    """The denoiser's samples: rows of different lengths in one batch, their padding invisible."""
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    tokens = torch.full(
        (len(rows), int(lengths.max())), tokenizer.pad, device=model.device
    )  # (B, L)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = torch.tensor(row)
    bound = model.bind(None if int(lengths.min()) == tokens.shape[1] else lengths)
    drawn = sample(
        bound,
        tokens,
        args.settings,
        mask_id=tokenizer.mask,
        rngs=row_generators(args.seed, len(rows), first),
        eos=tokenizer.eos if args.block_size else None,
        pad=tokenizer.pad,
        keep_frames=bool(args.show or args.html),
    )
    return [
        Drawn(
            drawn.tokens[i, :n].tolist(),
            drawn.step[i, :n].tolist(),
            drawn.log_prob[i, :n].exp().tolist(),
            [frame[i, :n].tolist() for frame in drawn.frames],
            int(drawn.used[i]),
        )
        for i, n in enumerate(lengths.tolist())
    ]


def record(drawn: Drawn, tokenizer, args, name: str) -> dict:
    """What --json writes for a sample."""
    return {
        "text": tokenizer.decode(drawn.ids),
        "tokens": drawn.ids,
        "step": drawn.step,
        "probability": [round(p, 6) for p in drawn.probability],
        "calls": drawn.calls,
        "seed": args.seed,
        "checkpoint": name,
        **flags.to_dict(args.settings),
    }


def main(argv=None):
    args = parse_args(argv)
    args.settings = flags.resolve(SampleConfig, args)
    given = [
        name
        for name in flags.to_dict(args.settings)
        if getattr(args, name) is not None and name not in ("temperature", "top_p")
    ]
    vars(args).update(flags.to_dict(args.settings))
    for flag in ("num_samples", "batch_size"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} {getattr(args, flag)}", "at least 1", "choose such a number")
    for path in filter(None, (args.html, args.json)):
        files.writable_folder(Path(path).parent)
    if args.threads:
        torch.set_num_threads(args.threads)
    path = Path(args.checkpoint) if args.checkpoint else checkpoint.newest()
    model, tokenizer, saved = checkpoint.open_model(
        path, hardware.choose_device(args.device), kinds=("text",)
    )
    print(f"{path}: {checkpoint.describe(saved)}", file=sys.stderr)
    if saved["objective"] == "ar" and given:
        print(
            f"note: an autoregressive twin writes from left to right; --{', --'.join(given)} means nothing to it",
            file=sys.stderr,
        )
    max_length = model.config.max_length
    if args.template is None:
        rows = empty_rows(args, tokenizer, saved, max_length)
    else:
        rows = [
            template_row(args.template, tokenizer, max_length, open_end=args.open_end)
        ] * args.num_samples
    write = left_to_right if saved["objective"] == "ar" else unmask
    clock, samples = time.perf_counter(), []
    for first in tqdm(
        range(0, len(rows), args.batch_size), unit="batch", disable=len(rows) <= args.batch_size
    ):
        samples += write(args, model, tokenizer, rows[first : first + args.batch_size], first)
    seconds = time.perf_counter() - clock
    facts = {
        "checkpoint": path.name,
        "trained for": f"{saved['step']} steps",
        "seed": args.seed,
        **{
            name: getattr(args, name)
            for name in ("sampler", "steps", "schedule", "temperature", "top_p", "block_size")
        },
    }
    if args.html:
        files.write_text(args.html, pages.unmasking(samples, tokenizer, facts))
    if args.json:
        files.write_text(
            args.json,
            "".join(
                json.dumps(record(drawn, tokenizer, args, path.name), ensure_ascii=False) + "\n"
                for drawn in samples
            ),
        )

    for number, drawn in enumerate(samples, 1):
        print(f"--- sample {number} ---")
        if args.show and drawn.frames:
            terminal.play(drawn.frames, tokenizer, args.delay)
        print(tokenizer.decode(drawn.ids) + "\n")
    written = sum(sum(step > 0 for step in drawn.step) for drawn in samples)
    print(
        f"{len(samples)} samples, {written} tokens in at most {max(drawn.calls for drawn in samples)} calls each, {seconds:.1f} s, "
        f"{written / seconds:,.0f} tokens/s",
        file=sys.stderr,
    )


if __name__ == "__main__":
    files.run(main)
