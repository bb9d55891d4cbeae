"""Turn stories into pairs: a beginning and the rest, both ends and the middle, texts with blanks.

Reads   a denoiser's checkpoint (--denoiser, default: the newest text run), whose tokenizer and
        length the pairs get; and data_full/ (--data_dir), whose held-out documents stay held out;
        or --input: a text file, a folder of .txt files, or a glob. Without either, TinyStories from
        the hub (streamed, needs a network)
Writes  data_conditional/ (--out): train and val documents, their blanks, tokenizer.json, meta.json
        (see text/pairs.py)

Seconds on a laptop, from your own text:
    python prep_conditional_data.py --input stories.txt --denoiser checkpoints/best.pt
For real, from the documents that the denoiser was trained on:
    python prep_conditional_data.py

Documents longer than the denoiser's rows are kept, so that copies of them can be found, but they
make no pairs.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import files, flags, folders
from base.files import UserError
from base.flags import check, resolve, setting
from base.tokenizer import Tokenizer
from loop import checkpoint, progress
from text import hub, pairs, sources, splits
from text.data import TextData
from text.sources import SplitRule

CHUNK = 1000  # documents that are encoded at once


@dataclass
class Locations:
    """Where documents come from and pairs go to."""

    denoiser: str | None = setting(
        None,
        "checkpoint whose tokenizer and length to use; none: the newest text run below this folder",
    )
    data_dir: str = setting("data_full", "folder from data_prep.py, read if it is there")
    input: str | None = setting(
        None, "instead: a text file, a folder (its .txt files), a glob, or hub:OWNER/NAME"
    )
    out: str = setting("data_conditional", "folder of pairs", metavar="FOLDER")
    force: bool = setting(False, "prepare again even if it is already done")

    def __post_init__(self):
        check(self)


@dataclass
class Pairing:
    """What decides the pairs."""

    separator: str = setting("<|endoftext|>", "stands between the documents of --input")
    val_fraction: float = setting(
        0.02, "share of the documents of --input held out", above=0, below=1
    )
    blanks: int = setting(2, "pairs with one to four blanks for each document", at_least=0)
    max_documents: int = setting(
        0, "stop after this many (from --data_dir: of each split); 0 means all", at_least=0
    )
    seed: int = setting(0, "decides the blanks, and the split of --input", at_least=0)

    def __post_init__(self):
        check(self)
        sources.refuse_no_separator(self.separator)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Locations)
    parser.add_settings(Pairing)
    return parser.parse_args(argv)


def from_folder(folder, limit: int, tokenizer: Tokenizer) -> Iterator[tuple[str, str, np.ndarray]]:
    """(split, text, ids) of every document of a data folder: decoding gives back the very bytes.

    limit: documents of each split; 0 means all.
    """
    for split in ("train", "val"):
        held = TextData(folder, split, 1 << 30)  # no document is cut
        # Another tokenizer gives the same ids other meanings.
        folders.check_tokenizer(held.tokenizer.fingerprint, tokenizer.fingerprint, folder)
        count = min(limit or held.num_documents, held.num_documents)
        for start, end in zip(held.offsets[:count], held.offsets[1 : count + 1], strict=True):
            ids = np.asarray(held.tokens[start + 1 : end - 1])  # without [BOS] and [EOS]
            yield split, tokenizer.decode(ids), ids


def from_text(
    paths: list[Path], name: str, about: Pairing, tokenizer: Tokenizer
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(split, text, ids) of every document of text files, or of a data set on the hub.

    name: of the data set, if there are no files. The split is data_prep.py's for the same seed and
    share.
    """
    # The text itself decides its split, so data_prep.py's seed and share hold out the same texts.
    rule = SplitRule(about.seed, about.val_fraction)
    documents = sources.stream(paths, about.separator, about.max_documents, name)
    for texts in sources.batches_of(documents, CHUNK):
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            yield rule.side(text), text, ids


def write(out: Path, about: Pairing, documents, tokenizer: Tokenizer, max_length: int) -> dict:
    """Write both splits; return their sizes. Raises UserError if a split has no pair."""
    writers = {}
    for split in ("train", "val"):
        writers[split] = pairs.PairWriter(out, split, tokenizer, max_length)
    try:
        for number, (split, text, ids) in enumerate(
            progress.bar(documents, "pairs", unit="document")
        ):
            # A generator per document: --max_documents does not change the first documents' blanks.
            rng = np.random.default_rng((about.seed, number))
            writers[split].add(text, ids, rng, about.blanks)
        for split, writer in writers.items():
            # Training would fail on an empty split. Here the reason is still known.
            if not any(writer.pairs.values()):
                raise UserError(
                    f"{writer.documents.documents} documents in the {split} split, "
                    "none with a pair",
                    "documents of two sentences or more and at most "
                    f"{max_length - pairs.ROOM} tokens",
                    "give more text, or another --val_fraction; or "
                    + sources.check_separator(about.separator),
                )
        return {split: writer.finish() for split, writer in writers.items()}
    except OSError as error:
        raise files.os_error(error, out) from error
    finally:
        for writer in writers.values():
            writer.discard()


def report(out: Path, meta: dict, tokenizer: Tokenizer) -> None:
    """Print what the folder holds."""
    for split, sizes in meta["splits"].items():
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sizes["pairs"].items())
        print(
            f"{split:<6}{sizes['documents']:>9,} documents, "
            f"{sizes['fitting_documents']:,} of them fit: {counts}"
        )
    example = pairs.PairData(out, "val", "context").pair(0)
    before, behind = (tokenizer.decode(given) for given in example.given[:2])
    print(
        f"pairs {meta['fingerprint']}; a held-out pair, {example.kind}:\n"
        f"  {before} [MASK*{len(example.blanks[0])}]{behind}"
    )
    print("next: " + files.python("train_conditional.py", "--data_dir", out))


def main(argv=None):
    arguments = parse_args(argv)
    where, about = resolve(Locations, arguments), resolve(Pairing, arguments)
    paths = sources.find_files(where.input) if where.input else []
    saved = checkpoint.load(
        where.denoiser or checkpoint.newest(),
        kinds=("text",),
        do="train one with train.py, or name it with --denoiser",
    )
    tokenizer, max_length = Tokenizer.from_json(saved["tokenizer"]), saved["model"]["max_length"]
    source: object = sources.facts_of(paths, where.input)
    name = where.input or hub.DATASET
    documents = from_text(paths, name, about, tokenizer)
    # Held-out documents of the denoiser stay held out, so its own folder comes before the hub.
    if not where.input and Path(where.data_dir).exists():
        source = TextData(where.data_dir, "train", max_length).meta["fingerprint"]
        documents = from_folder(where.data_dir, about.max_documents, tokenizer)
        name = where.data_dir
    # Compared with meta.json: equal settings mean that the folder is done.
    settings = {
        "source": source,
        "max_length": max_length,
        "tokenizer": tokenizer.fingerprint,
        "settings": flags.to_dict(about),
    }
    print(f"documents from {name}", file=sys.stderr)
    out = files.claim(where.out)  # two processes in one folder would mix their files
    meta = None
    if not where.force:
        other = "other settings, from another source or for another denoiser"
        meta = splits.made_before(out, settings, other)
    if meta:
        count = sum(meta["splits"]["train"]["pairs"].values())
        print(f"already done: {out} holds {count:,} training pairs (--force does it again)")
        return
    (out / "meta.json").unlink(missing_ok=True)  # from here until the end the folder is not valid
    sizes = write(out, about, documents, tokenizer, max_length)
    command = shlex.join(["prep_conditional_data.py", *(sys.argv[1:] if argv is None else argv)])
    report(
        out, pairs.write_meta(out, tokenizer, sizes, {"command": command, **settings}), tokenizer
    )


if __name__ == "__main__":
    files.run(main)
