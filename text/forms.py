"""A document with blanks, and the three forms in which models read it.

context   the document itself, [BOS] given BLANK given [EOS]: given tokens keep their positions
cross     [BOS] BLANK [BOS] BLANK [EOS]; the rest is the condition, with a [MASK] for each blank
ar        the ending first: [BOS] behind the first blank, [BOS] before it, then BLANK [EOS]
          BLANK [EOS] to be predicted
"""

from dataclasses import dataclass, field

import numpy as np

from base.tokenizer import Tokenizer

# Checkpoints store these names, so a renamed form makes old checkpoints unreadable.
FORMS = ("context", "cross", "ar")


@dataclass
class Pair:
    """A document in pieces.

    given: k + 1 arrays of ids, the first with [BOS] in front, the last with [EOS] at its end.
    blanks: the k arrays of ids between them.
    """

    given: list[np.ndarray]
    blanks: list[np.ndarray]
    # By kind, because lengths are drawn and paid for under the histogram of one kind.
    kind: str = "blanks"
    document: int = 0

    def whole(self) -> np.ndarray:
        """The document's ids: (n,) int64."""
        pieces = [self.given[0]]
        for blank, given in zip(self.blanks, self.given[1:], strict=True):
            pieces += [blank, given]
        # Folders store uint16; torch looks up embeddings with int64.
        return np.concatenate(pieces).astype(np.int64)


@dataclass
class Row:
    """A row in the making, piece by piece.

    ids (n,) int64. free (n,) bool: the positions to be predicted. condition (p,) int64: empty
    unless the form is `cross`.
    """

    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    free: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    condition: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, ids, *, free: bool = False) -> None:
        """Append ids that are given, or that are to be predicted."""
        self.ids = np.concatenate([self.ids, np.asarray(ids, dtype=np.int64)])
        self.free = np.concatenate([self.free, np.full(len(ids), free)])


def arrange(pair: Pair, form: str, tokenizer: Tokenizer) -> Row:
    """A pair in one of the three forms. The free positions hold the blanks, in their order."""
    if form == "context":
        return in_context(pair)
    if form == "cross":
        return across(pair, tokenizer)
    return ending_first(pair, tokenizer)


def in_context(pair: Pair) -> Row:
    """[BOS] given BLANK given [EOS]."""
    # The recommended form: at blanks 0.942 bits per byte, `cross` 1.171 (docs/log/text.md).
    row = Row()
    row.add(pair.given[0])
    for blank, given in zip(pair.blanks, pair.given[1:], strict=True):
        row.add(blank, free=True)
        row.add(given)
    return row


def across(pair: Pair, tokenizer: Tokenizer) -> Row:
    """[BOS] BLANK [BOS] BLANK [EOS]; what is given is the condition, with a [MASK] per blank."""
    row = Row()
    for blank in pair.blanks:
        # [BOS] marks the beginning of each blank, since no given text stands between them.
        row.add([tokenizer.bos])
        row.add(blank, free=True)
    row.add([tokenizer.eos])
    pieces = [pair.given[0]]
    for given in pair.given[1:]:
        # The [MASK] tells the encoder where a blank stands, but not how long it is.
        pieces += [[tokenizer.mask], given]
    row.condition = np.concatenate(pieces).astype(np.int64)
    return row


def ending_first(pair: Pair, tokenizer: Tokenizer) -> Row:
    """[BOS] behind the first blank, [BOS] before it, then BLANK [EOS] BLANK [EOS]."""
    # A causal model sees only what stands before, so the ending must come first.
    pieces = [pair.given[1]]
    for given in pair.given[2:]:
        pieces += [[tokenizer.mask], given]
    # Without the document's [EOS], which would say that the story ends here.
    behind = np.concatenate(pieces)[:-1]
    row = Row()
    # A continuation has nothing behind its blank: its row is an ordinary row of the text twin.
    if len(behind):
        row.add([tokenizer.bos])
        row.add(behind)
    row.add(pair.given[0])
    for blank in pair.blanks:
        row.add(blank, free=True)
        # The twin is not told a blank's length, so it must predict where the blank ends.
        row.add([tokenizer.eos], free=True)
    return row
