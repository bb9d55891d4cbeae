"""Turn raw stories into tokens: train a byte-level BPE, split by document, write arrays.

Reads   TinyStories from the hub (streamed, needs a network); or --input: a text file, a folder of
        .txt files, a glob, or hub:OWNER/NAME, a data set with a column of texts
Writes  data_full/ (--out): train.npy, val.npy, their offsets, tokenizer.json, meta.json (see
        text/splits.py)

Seconds on a laptop, from your own text:
    python data_prep.py --input stories.txt --vocab_size 4096
For real (2 GB of stories, streamed from the hub):
    python data_prep.py
The same by several processes or machines that share --out; the last one joins the parts:
    for i in 0 1 2 3; do python data_prep.py --shard $i/4 & done; wait

Memory does not grow with the corpus: 265 MB at 8 MB of text, 274 MB at 82 MB.
8 MB of text take 4 seconds on two cores.
"""

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import config, files, flags
from base.flags import check, resolve, setting
from base.tokenizer import Tokenizer
from text import hub, parts, sources, splits
from text.corpus import Corpus, Preparation, learn, write
from text.data import TextData


@dataclass
class Locations:
    """Where documents come from and go to."""

    input: str | None = setting(
        None,
        "a text file, a folder (its .txt files), a glob, or hub:OWNER/NAME; "
        f"none: {hub.DATASET} from the hub",
    )
    out: str = setting("data_full", "data folder", metavar="FOLDER")
    shard: str | None = setting(
        None, "encode only this part of the documents, such as 0/8", metavar="I/N"
    )
    force: bool = setting(False, "prepare again even if it is already done")

    def __post_init__(self):
        check(self)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Locations)
    parser.add_settings(Preparation)
    return parser.parse_args(argv)


def read_tokenizer(path: str) -> Tokenizer:
    """From a tokenizer.json, or from a checkpoint: a file, a published folder, a hub name."""
    if Path(path).suffix == ".json":
        return Tokenizer.load(path, "check --tokenizer")
    from loop import checkpoint  # torch takes seconds to import

    return checkpoint.read_tokenizer(path)


def make(corpus: Corpus, out: Path, kept: Tokenizer | None, settings: dict, command: str) -> dict:
    """The whole folder by this process; returns its meta.json. kept: a tokenizer that is given."""
    tokenizer, rule = learn(corpus, kept)
    (out / "meta.json").unlink(missing_ok=True)  # from here until the end the folder is not valid
    sizes, _ = write(corpus, out, (0, 1), tokenizer, rule)
    return splits.write_meta(out, tokenizer, sizes, {"command": command, **settings})


def make_part(
    corpus: Corpus,
    where: Locations,
    shard: tuple[int, int],
    kept: Tokenizer | None,
    settings: dict,
    command: str,
) -> dict | None:
    """One part, unless it is there; then, if all parts are there, the whole folder's meta.json."""
    out = Path(where.out)
    home = files.claim(parts.home_of(out, *shard))
    if where.force:  # until the parts are joined the folder is not valid
        (out / "meta.json").unlink(missing_ok=True)
    # A finished part stays, so a stopped preparation repeats only the part that was cut off.
    if where.force or not parts.read(out, *shard, settings):
        tokenizer, rule = learn(corpus, kept)
        (home / "meta.json").unlink(missing_ok=True)
        sizes, blocks = write(corpus, home, shard, tokenizer, rule)
        parts.seal(home, tokenizer, sizes, blocks, {"command": command, **settings})
    return parts.join(out, shard[1], settings, command)


def report(out: Path, meta: dict) -> None:
    """Print what the folder holds."""
    for split, sizes in meta["splits"].items():
        text_tokens = max(1, sizes["tokens"] - 2 * sizes["documents"])  # without [BOS] and [EOS]
        print(
            f"{split:<6}{sizes['documents']:>10,} documents {sizes['tokens']:>13,} tokens "
            f"{sizes['bytes']:>14,} bytes ({sizes['bytes'] / text_tokens:.2f} bytes per token)"
        )
    held_out = TextData(out, "val", 40)
    tokens, _ = held_out.rows(np.array([0]))
    print(
        f"vocabulary {meta['vocab_size']}, data {meta['fingerprint']}; a held-out document begins:"
        f"\n  {held_out.tokenizer.decode(tokens[0])} …"
    )
    quick = ["--model_config", "tiny", "--max_steps", "100", "--batch_size", "16"]
    print("next: " + files.python("train.py", "--data_dir", out, *quick))


def main(argv=None):
    arguments = parse_args(argv)
    where, about = resolve(Locations, arguments), resolve(Preparation, arguments)
    paths = sources.find_files(where.input) if where.input else []
    kept = read_tokenizer(about.tokenizer) if about.tokenizer else None
    source = sources.facts_of(paths, where.input)
    settings = {"source": source, "settings": dataclasses.asdict(about)}
    # By content: the tokenizer's file may change while its name stays.
    settings["settings"]["tokenizer"] = kept and kept.fingerprint
    shard = config.read_shard(where.shard)
    command = shlex.join(["data_prep.py", *(sys.argv[1:] if argv is None else argv)])
    # Shards share --out, so each claims the folder of its own part instead.
    out = files.claim(where.out) if shard[1] == 1 else files.writable_folder(where.out)
    meta = None
    if not where.force:
        meta = splits.made_before(out, settings, "other settings or from another source")
    if meta:
        train, val = (meta["splits"][split]["documents"] for split in parts.SPLITS)
        print(f"already done: {out} holds {train:,} + {val:,} documents (--force does it again)")
        return
    corpus = Corpus(paths, about, where.input or hub.DATASET)
    if shard[1] > 1:
        meta = make_part(corpus, where, shard, kept, settings, command)
    else:
        meta = make(corpus, out, kept, settings, command)
    if meta:
        report(out, meta)


if __name__ == "__main__":
    files.run(main)
