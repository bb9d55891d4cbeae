"""From documents to the arrays of a folder: learn a tokenizer, draw the split, encode and write.

The documents are read twice. The first reading trains the tokenizer and finds the range of the
documents' draws, which the rule of the split needs. The second reading encodes.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from base import files
from base.files import UserError
from base.flags import check, setting
from base.tokenizer import LARGEST, SMALLEST, Tokenizer
from loop import progress
from text import parts, sources, splits
from text.sources import SplitRule


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
        sources.refuse_no_separator(self.separator)


@dataclass
class Corpus:
    """The documents of some files, and how they are prepared.

    name: of the source, for errors; without files the name of a data set on the hub.
    """

    paths: list[Path]
    about: Preparation
    name: str

    def documents(self) -> Iterator[str]:
        """The documents, one at a time."""
        return sources.stream(self.paths, self.about.separator, self.about.max_documents, self.name)


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
            # From the text, not from its position: copies of a document fall on the same side.
            number = sources.draw(text, self.seed)
            self.smallest = min(self.smallest, number)
            self.largest = max(self.largest, number)
            yield text
            if size > self.limit:
                return


def learn(corpus: Corpus, tokenizer: Tokenizer | None) -> tuple[Tokenizer, SplitRule]:
    """The tokenizer, trained unless it is given, and the rule that splits the documents."""
    about = corpus.about
    stream = progress.bar(corpus.documents(), "tokenizer", unit="document")
    documents = FirstPass(stream, about.seed, about.tokenizer_megabytes * 10**6)
    if tokenizer:
        # A given tokenizer is not trained, but the rule needs the range of the same draws.
        for _ in documents:
            pass
    else:
        tokenizer = Tokenizer.train(documents, about.vocab_size)
    if not documents.count:
        raise UserError(
            f"no text in {corpus.name}",
            "at least two documents",
            f"check the file; {sources.check_separator(about.separator)}",
        )
    if documents.smallest == documents.largest:
        times = f", {documents.count} times" if documents.count > 1 else ""
        raise UserError(
            f"one document in {corpus.name}{times}",
            "at least two different ones, to train on and to hold out",
            sources.check_separator(about.separator),
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
    # The bar counts bytes, and the first documents are an unknown share of them.
    if corpus.about.max_documents:
        total = None
    try:
        with progress.bar(title="tokens", unit="B", total=total, unit_scale=True) as bar:
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
