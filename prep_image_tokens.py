"""Draw captioned scenes and turn each picture into tokens: data for models that paint.

Reads   picture codes (--codes), from tools.train_picture_codes
Writes  data_image_tokens/ (--out): tokens.npy, captions.jsonl, tokenizer.json, codes.safetensors,
        meta.json

On a laptop:
    python prep_image_tokens.py --num_train 1000 --num_val 100 --levels 1
All levels:
    python prep_image_tokens.py --num_train 48000 --num_val 1000 --noise 1

The scenes and captions are those of prep_caption_synthetic.py with the same flags. Use the --noise
of the codes' own training. With --tidy --noise 0 --plans, painters write a plan of the picture
first. A stopped run continues.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from base import files, flags
from base.errors import UserError
from base.flags import setting
from image import data, drawn, tokenisers
from loop import hardware, progress
from net.picture_codes import PictureCodes
from worlds.collection import Scenes, most_objects, sample

CHUNK = 256  # pictures between two saved states: a killed run loses at most these
SETTINGS, DONE, ROWS = "settings.json", "unfinished.json", "unfinished.npy"


@dataclass
class Work:
    """The folder, the codes, and the machine."""

    out: str = setting("data_image_tokens", "folder to write", metavar="FOLDER")
    codes: str = setting(
        tokenisers.EMBEDDED,
        "picture codes; embedded: the shipped codes",
        metavar="FILE",
    )
    plans: bool = setting(False, "painters write a plan before the picture; needs --tidy --noise 0")
    device: str = setting("auto", "what computes the tokens: auto, cpu, cuda, mps")
    threads: int = setting(0, "CPU threads; 0 means torch's own choice", at_least=0)
    workers: int = setting(0, "processes that draw; 0 means a process per core", at_least=0)

    def __post_init__(self):
        flags.check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Scenes)
    parser.add_settings(Work)
    return parser.parse_args(argv)


def facts_of(wanted: Scenes, work: Work, codes: Path) -> dict:
    """What settings.json and meta.json say of a folder.

    Raises UserError for plans of scenes that a plan does not tell.
    """
    facts = {**wanted.facts(), "picture_codes": tokenisers.fingerprint(codes)}
    if work.plans:
        if not wanted.tidy:
            raise UserError(
                "--plans without --tidy", "tidy scenes: a plan tells all of them", "add --tidy"
            )
        if wanted.noise:
            raise UserError(
                f"--plans with --noise {wanted.noise}",
                "pictures without noise: a plan tells nothing of it",
                "add --noise 0",
            )
        facts["plans"] = most_objects(wanted)  # objects that a plan has room for
    return facts


def make_one(
    wanted: Scenes, side: int, place: tuple[str, int, bool]
) -> tuple[dict, np.ndarray | None]:
    """The line of captions.jsonl of a picture, and its pixels (side, side, 3) uint8.

    place: its split, its number there, and whether its pixels are needed; None otherwise.
    """
    split, number, is_new = place
    scene, texts = sample(split, number, wanted)
    record = {"split": split, "captions": texts, "scene": scene.to_dict()}
    return record, drawn.picture(scene, side) if is_new else None


def is_there(out: Path, facts: dict) -> bool:
    """Whether the folder is finished. Raises UserError if it is of other scenes or codes.

    A stopped run has no tokenizer yet, so it may continue with another size of the vocabulary.
    """
    path = out / "meta.json"
    if path.exists():
        before = data.read_meta(out)
    elif (out / SETTINGS).exists():
        before = files.read_json(out / SETTINGS, "a stopped run's settings", "remove the folder")
    else:
        return False
    for name in {**facts, "tidy": None, "gap": None, "plans": None}:  # the last: of some folders
        decides = path.exists() or name != "vocab_size"
        if decides and before.get(name) != facts.get(name):
            found = f"{out} with {name} {before.get(name)}"
            do = "choose another --out or remove it"
            raise UserError(found, f"{name} {facts.get(name)}", do)
    return path.exists()


def begin(out: Path, facts: dict, shape: tuple[int, int]) -> tuple[int, np.memmap]:
    """How many pictures a stopped run finished, and the tokens' array, memory-mapped for writing.

    Raises UserError if the array of a stopped run is damaged.
    """
    files.write_json(out / SETTINGS, facts)
    path = out / ROWS
    done = 0
    if (out / DONE).exists() and path.exists():
        do = f"remove {out}"
        done = files.read_json(out / DONE, "the progress of a stopped run", do).get("done")
        try:
            tokens = np.lib.format.open_memmap(path, mode="r+")
        except (ValueError, OSError, SyntaxError) as error:
            raise UserError(f"{path}, which is damaged", "a whole .npy file", do) from error
        if tokens.shape != shape or type(done) is not int or not 0 <= done <= shape[0]:
            raise UserError(f"{path} of shape {tokens.shape}, done {done}", f"{shape}", do)
        return done, tokens
    return done, np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=shape)


def tokenise(
    wanted: Scenes, model: PictureCodes, out: Path, facts: dict, workers: int
) -> tuple[list[dict], np.ndarray]:
    """The lines of captions.jsonl and the tokens (N, P) of all pictures, split after split."""
    places = []
    for split, size in wanted.sizes().items():
        places += [(split, number) for number in range(size)]
    shape = (len(places), model.config.grid**2)
    done, tokens = begin(out, facts, shape)
    jobs = [(split, number, row >= done) for row, (split, number) in enumerate(places)]
    records: list[dict] = []
    images: list[np.ndarray] = []
    make = partial(make_one, wanted, model.config.side)
    with ProcessPoolExecutor(workers or None) as pool:
        made = pool.map(make, jobs, chunksize=32)
        for record, image in progress.bar(made, "tokens", unit="image", total=len(jobs)):
            records.append(record)
            if image is not None:
                images.append(image)
            if images and (len(images) == CHUNK or len(records) == len(jobs)):
                pixels = tokenisers.to_pixels(np.stack(images), model.device)
                tokens[done : done + len(images)] = model.encode(pixels).cpu().numpy()
                tokens.flush()  # before the count: a row that is counted is on disk
                done += len(images)
                files.write_json(out / DONE, {"done": done})
                images = []
    return records, tokens


def main(argv=None):
    arguments = parse_args(argv)
    wanted, work = flags.resolve(Scenes, arguments), flags.resolve(Work, arguments)
    if work.threads:
        torch.set_num_threads(work.threads)
    codes = tokenisers.locate(work.codes, tokenisers.CODES)
    model = tokenisers.open_codes(codes, hardware.choose_device(work.device))
    facts = facts_of(wanted, work, codes)
    out = files.claim(work.out)
    if is_there(out, facts):
        print(f"{out}: all tokens are there", file=sys.stderr)
    else:
        records, tokens = tokenise(wanted, model, out, facts, work.workers)
        tokenizer = data.train_tokenizer(records, wanted.vocab_size, facts.get("plans", 0))
        data.write_folder(
            out,
            *(records, tokens, codes, tokenizer),
            codes=model.config.codes,
            settings=facts,
        )
        del tokens  # Windows removes no file that is mapped
        for name in (ROWS, DONE):
            (out / name).unlink(missing_ok=True)
    meta = data.read_meta(out)
    sizes = "  ".join(f"{name} {size:,}" for name, size in meta["splits"].items())
    print(f"{out}: {sizes}  grid {meta['grid']}  codes {meta['codes']:,}")


if __name__ == "__main__":
    files.run(main)
