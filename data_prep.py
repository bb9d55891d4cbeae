"""Turn raw stories into tokens: train a byte-level BPE, split by document, write arrays.

Reads   TinyStories from the hub (streamed, needs a network); or --input: a text file, a folder of
        .txt files, or a glob
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
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from base import config, files, flags
from base.files import UserError
from base.flags import check, resolve, setting
from base.tokenizer import LARGEST, SMALLEST, Tokenizer
from text import parts, sources, splits
from text.data import TextData
from text.sources import HUB_DATASET, SplitRule


@dataclass
class Place:
    """Where documents come from and go to."""

    input: str | None = setting(
        None, f"a text file, a folder (its .txt files), or a glob; none: {HUB_DATASET} from the hub"
    )
    out: str = setting("data_full", "data folder", metavar="FOLDER")
    shard: str | None = setting(
        None, "encode only this part of the documents, such as 0/8", metavar="I/N"
    )
    force: bool = setting(False, "prepare again even if it is already done")

    def __post_init__(self):
        check(self)


@dataclass
class Preparation:
    """What decides the content of the folder."""

    separator: str = setting("<|endoftext|>", "stands between documents")
    vocab_size: int = setting(
        8192, f"tokens, {SMALLEST} to {LARGEST}", at_least=SMALLEST, at_most=LARGEST
    )
    tokenizer: str | None = setting(
        None, "use this tokenizer.json, or a checkpoint's (*.pt), instead of training one"
    )
    tokenizer_megabytes: int = setting(
        200, "train the tokenizer on this many MB from the beginning", at_least=0
    )
    val_fraction: float = setting(0.02, "share of documents held out", above=0, below=1)
    max_documents: int = setting(0, "stop after this many documents; 0 means all", at_least=0)
    seed: int = setting(0, "decides the split")

    def __post_init__(self):
        check(self)
        if not self.separator:
            raise UserError("an empty --separator", "the text between documents", "name it")


@dataclass
class Corpus:
    """The documents of some files (none: of the hub), and how they are prepared."""

    paths: list[Path]
    about: Preparation
    name: str

    def documents(self) -> Iterator[str]:
        """The documents, one at a time."""
        return sources.stream(self.paths, self.about.separator, self.about.max_documents)


def parse_args(argv):
    parser = flags.Parser(__doc__)
    parser.add_settings(Place)
    parser.add_settings(Preparation)
    return parser.parse_args(argv)


class FirstPass:
    """Iterate over the first `limit` characters; note what the rule of the split must know."""

    def __init__(self, documents: Iterable[str], seed: int, limit: int):
        self.documents = documents
        self.seed = seed
        self.limit = limit
        self.count = 0
        # The range of the documents' draws.
        self.smallest = math.inf
        self.largest = -math.inf

    def __iter__(self) -> Iterator[str]:
        size = 0
        for text in self.documents:
            self.count += 1
            size += len(text)
            number = sources.draw(text, self.seed)
            self.smallest = min(self.smallest, number)
            self.largest = max(self.largest, number)
            yield text
            if size > self.limit:
                return


def read_tokenizer(path: str) -> Tokenizer:
    """From a tokenizer.json, or from a checkpoint."""
    if path.endswith(".pt"):
        from loop import checkpoint  # torch takes seconds to import

        return Tokenizer.from_json(checkpoint.load(path)["tokenizer"])
    path = files.existing(path, "a tokenizer.json or a checkpoint", "check --tokenizer")
    return Tokenizer.from_json(path.read_text(encoding="utf-8", errors="replace"))


def learn(corpus: Corpus, tokenizer: Tokenizer | None) -> tuple[Tokenizer, SplitRule]:
    """The tokenizer, trained unless it is given, and the rule that splits the documents."""
    about = corpus.about
    stream = tqdm(corpus.documents(), desc="tokenizer", unit=" documents")
    documents = FirstPass(stream, about.seed, about.tokenizer_megabytes * 10**6)
    if tokenizer:
        for _ in documents:
            pass
    else:
        tokenizer = Tokenizer.train(documents, about.vocab_size)
    if not documents.count:
        raise UserError(
            f"no text in {corpus.name}", "at least two documents", "check the file and --separator"
        )
    if documents.smallest == documents.largest:
        times = f", {documents.count} times" if documents.count > 1 else ""
        raise UserError(
            f"one document in {corpus.name}{times}",
            "at least two different ones, to train on and to hold out",
            f"check --separator {about.separator}",
        )
    # Each split gets a document at least, whatever the share.
    just_above = math.nextafter(documents.smallest, 1)
    share = min(max(about.val_fraction, just_above), documents.largest)
    return tokenizer, SplitRule(about.seed, share)


def write(
    corpus: Corpus, home: Path, shard: tuple[int, int], tokenizer: Tokenizer, rule: SplitRule
) -> tuple[dict, list[dict]]:
    """Encode and write both splits to `home`, or the shard's blocks of them.

    Returns the sizes of the splits, and of each block how many documents each split has.
    """
    number, count = shard
    writers = {split: splits.SplitWriter(home, split, tokenizer) for split in parts.SPLITS}
    blocks = []
    total = sum(path.stat().st_size for path in corpus.paths) or None
    if corpus.about.max_documents:
        total = None
    try:
        with tqdm(total=total, desc="tokens", unit="B", unit_scale=True) as bar:
            for index, texts in enumerate(sources.batches_of(corpus.documents(), parts.BLOCK)):
                bar.update(sum(len(text.encode()) for text in texts))
                if index % count == number:
                    blocks.append(write_block(texts, tokenizer, rule, writers))
        return {split: writer.finish() for split, writer in writers.items()}, blocks
    except OSError as error:
        raise files.os_error(error, home) from error
    finally:
        for writer in writers.values():
            writer.discard()


def write_block(texts: list[str], tokenizer: Tokenizer, rule: SplitRule, writers: dict) -> dict:
    """Encode and write some documents; returns how many documents each split got."""
    documents = dict.fromkeys(writers, 0)
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        split = rule.side(text)
        writers[split].add(ids, len(text.encode()))
        documents[split] += 1
    return documents


def make(corpus: Corpus, out: Path, kept: Tokenizer | None, settings: dict, command: str) -> dict:
    """The whole folder by this process; returns its meta.json. kept: a tokenizer that is given."""
    tokenizer, rule = learn(corpus, kept)
    (out / "meta.json").unlink(missing_ok=True)  # from here until the end the folder is not valid
    sizes, _ = write(corpus, out, (0, 1), tokenizer, rule)
    return splits.write_meta(out, tokenizer, sizes, {"command": command, **settings})


def make_part(
    corpus: Corpus,
    place: Place,
    shard: tuple[int, int],
    kept: Tokenizer | None,
    settings: dict,
    command: str,
) -> dict | None:
    """One part, unless it is there; then, if all parts are there, the whole folder's meta.json."""
    out = Path(place.out)
    home = files.claim(parts.home_of(out, *shard))
    if place.force:  # until the parts are joined the folder is not valid
        (out / "meta.json").unlink(missing_ok=True)
    if place.force or not parts.read(out, *shard, settings):
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
    print(
        f"next: python train.py --data_dir {out} --model_config tiny --max_steps 100 "
        "--batch_size 16"
    )


def main(argv=None):
    arguments = parse_args(argv)
    place, about = resolve(Place, arguments), resolve(Preparation, arguments)
    paths = sources.find_files(place.input) if place.input else []
    kept = read_tokenizer(about.tokenizer) if about.tokenizer else None
    settings = {"source": sources.facts_of(paths), "settings": dataclasses.asdict(about)}
    # By content: the tokenizer's file may change while its name stays.
    settings["settings"]["tokenizer"] = kept and kept.fingerprint
    shard = config.read_shard(place.shard)
    command = "data_prep.py " + " ".join(sys.argv[1:] if argv is None else argv)
    out = files.claim(place.out) if shard[1] == 1 else files.writable_folder(place.out)
    meta = None
    if not place.force:
        meta = splits.made_before(out, settings, "other settings or from another source")
    if meta:
        train, val = (meta["splits"][split]["documents"] for split in parts.SPLITS)
        print(f"already done: {out} holds {train:,} + {val:,} documents (--force does it again)")
        return
    corpus = Corpus(paths, about, place.input or HUB_DATASET)
    if shard[1] > 1:
        meta = make_part(corpus, place, shard, kept, settings, command)
    else:
        meta = make(corpus, out, kept, settings, command)
    if meta:
        report(out, meta)


if __name__ == "__main__":
    files.run(main)
