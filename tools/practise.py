"""Let a painter practise: it paints pictures, and keeps those that it reads as they were meant.

Reads   a painter of both directions (--checkpoint) and its folder with plans (--data_dir)
Writes  data_practice/ (--out): the pictures that it kept, as a folder of picture tokens

On a laptop:
    python -m tools.practise --checkpoint checkpoints_plans/best.pt --data_dir data_planned \\
        --pictures 200 --steps 12
For real, then train with what was kept (docs/painting.md):
    python -m tools.practise --checkpoint checkpoints_plans/best.pt --data_dir data_planned \\
        --pictures 8000 --block_size 12
    python train_image.py --data_dir data_planned --init_from checkpoints_plans/best.pt \\
        --logit_shift --block_sizes 1,12 --share_hidden 0.3 --practice data_practice

Most scenes have a pair of colour and shape that few pictures of training show, or none. Pairs whose
pictures are dropped are practised more often (image/practice.py). A stopped run continues.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from base import files, flags
from base.config import RECHECKING, SampleConfig
from base.errors import UserError
from base.flags import setting
from image import data, practice, studio, writer
from image.data import PictureData
from image.guides import Guidance
from image.practice import Practice, Tally
from image.studio import Brush, Studio
from loop import checkpoint, hardware, progress
from net import picture_blocks

UNFINISHED = "unfinished.json"
SAVED = 10  # batches between two saved states: a killed run loses at most these
# As the pictures of docs/painting.md are drawn, in fewer calls.
DRAWN = writer.PICTURES | {"temperature": 0.3}


@dataclass
class Work:
    """The painter, its folder, and the machine."""

    checkpoint: str | None = setting(None, "a painter; none: the newest below this folder")
    checker: str | None = setting(
        None, "the checkpoint that reads what was painted; none: the painter", metavar="FILE"
    )
    data_dir: str = setting("data_image_tokens", "its folder of picture tokens", metavar="FOLDER")
    out: str = setting("data_practice", "folder to write", metavar="FOLDER")
    precision: str = setting(
        "auto", "arithmetic of the network", choices=("auto", *hardware.PRECISIONS)
    )
    device: str = setting("auto", "auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Practice)
    parser.add_settings(Work)
    parser.add_settings(Guidance, guidance=1.0)
    parser.add_settings(SampleConfig, skip=("carry", *RECHECKING), **DRAWN)
    return parser.parse_args(argv)


@dataclass
class State:
    """How far a run is. What it kept: lines of captions.jsonl, and a row of tokens for each."""

    done: int
    tally: Tally
    records: list[dict]
    tokens: list[list[int]]


def facts_of(
    source: PictureData,
    paths: dict[str, str | Path],
    wanted: Practice,
    brush: Brush,
    arithmetic: hardware.Arithmetic,
) -> dict:
    """What meta.json says of a folder of practice, and what a stopped run must have in common.

    paths: of the checkpoints, "painter" and "checker".
    """
    facts = {name: source.meta[name] for name in ("levels", "inside", "picture_codes", "plans")}
    networks = {name: files.file_digest(path).hex() for name, path in paths.items()}
    drawn = flags.to_dict(brush.settings) | flags.to_dict(brush.guidance)
    drawn["precision"] = str(arithmetic.dtype)
    told = {"data": source.fingerprint} | networks | drawn | flags.to_dict(wanted)
    return facts | {"tidy": True, "practice": told}


def begin(out: Path, facts: dict, shown: Counter) -> State:
    """Where a stopped run stood. Raises UserError if it had other settings.

    shown: how many pictures of training show each pair of colour and shape.
    """
    path = out / UNFINISHED
    if not path.exists():
        return State(0, Tally(shown=shown), [], [])
    do = "choose another --out, or remove it"
    before = files.read_sealed(path, "a stopped practice", do)
    if before.get("facts") != facts:
        raise UserError(f"{out} of a practice with other settings", "the same settings", do)
    tally = Tally(Counter(before["painted"]), Counter(before["dropped"]), shown)
    tokens = [[int(token) for token in row.split()] for row in before["tokens"]]
    return State(before["done"], tally, before["records"], tokens)


def save(out: Path, facts: dict, state: State) -> None:
    """Write how far the run is, whole or not at all."""
    counts = {"painted": state.tally.painted, "dropped": state.tally.dropped}
    # A picture's tokens are a line, so that the file stays readable.
    tokens = [" ".join(map(str, row)) for row in state.tokens]
    kept = {"records": state.records, "tokens": tokens}
    files.write_sealed(out / UNFINISHED, {"facts": facts, "done": state.done, **counts, **kept})


def practise(
    opened: Studio,
    checker: Studio,
    source: PictureData,
    wanted: Practice,
    brush: Brush,
    out: Path,
    facts: dict,
) -> State:
    """Paint all pictures, batch after batch. Returns what was kept."""
    state = begin(out, facts, practice.shown_in(source))
    size = wanted.batch_size
    with progress.bar(None, "practice", unit="image", total=wanted.pictures) as bar:
        bar.update(state.done)
        while state.done < wanted.pictures:
            last = min(state.done + size, wanted.pictures)
            records = []
            for number in range(state.done, last):
                tally = state.tally
                records.append(practice.draw_scene(opened, source.meta, number, tally, wanted.seed))
            found = practice.practise(opened, checker, records, brush, state.done, wanted.least)
            for record, row, is_kept in zip(records, *found, strict=True):
                state.tally.add(practice.scene_of(record), is_kept)
                if is_kept:
                    state.records.append(record)
                    state.tokens.append(row.tolist())
            bar.update(last - state.done)
            state.done = last
            if state.done // size % SAVED == 0:
                save(out, facts, state)
    return state


def main(argv=None):
    arguments = parse_args(argv)
    wanted, work = flags.resolve(Practice, arguments), flags.resolve(Work, arguments)
    guidance = flags.resolve(Guidance, arguments)
    settings = flags.resolve(SampleConfig, arguments, DRAWN)
    torch.set_num_threads(work.threads or torch.get_num_threads())
    path = work.checkpoint or checkpoint.newest(("image",))
    device = hardware.choose_device(work.device)
    dtype, reason = hardware.choose_precision(work.precision, device)
    print(f"precision: {dtype} ({reason})", file=sys.stderr)
    arithmetic = hardware.Arithmetic(device, dtype)
    opened = studio.open_studio(path, work.data_dir, device)
    practice.check_studio(opened)
    checker = opened
    if work.checker:
        checker = studio.open_studio(work.checker, work.data_dir, device)
        practice.check_checker(checker)
    picture_blocks.choose(opened.model.config, settings.block_size, settings.steps)
    opened.check_guidance(guidance)
    source, brush = PictureData(work.data_dir), Brush(settings, guidance, seed=wanted.seed)
    paths = {"painter": path, "checker": work.checker or path}
    facts = facts_of(source, paths, wanted, brush, arithmetic)
    out = files.claim(work.out)
    if (out / "meta.json").exists():
        raise UserError(f"{out}, which is there", "a new folder", "choose another --out")
    with arithmetic.autocast():
        state = practise(opened, checker, source, wanted, brush, out, facts)
    if not state.records:
        (out / UNFINISHED).unlink(missing_ok=True)  # another run has another --least
        raise UserError(
            f"no picture of {wanted.pictures:,} that the network reads as it was meant",
            "a network that was trained longer",
            "train it longer, or lower --least",
        )
    kinds = {"tokenizer": source.tokenizer, "codes": source.codes, "settings": facts}
    tokens = np.array(state.tokens, dtype=np.uint16)
    data.write_folder(out, state.records, tokens, source.codes_file, **kinds)
    (out / UNFINISHED).unlink(missing_ok=True)
    print(f"{out}: kept {len(state.records):,} of {state.done:,} pictures")
    print(f"most often dropped: {practice.hardest(state.tally) or 'none'}", file=sys.stderr)


if __name__ == "__main__":
    files.run(main)
