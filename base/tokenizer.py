"""Byte-level BPE: any text to ids and back without loss.

The special tokens come last, in the order [EOS] [UNK] [PAD] [BOS] [MASK]. So the tokens that a
model can emit are a prefix of the vocabulary: the ids below `output_size`, the id of [PAD]. The
output has no rows for [PAD], [BOS] and [MASK].

Special ids are read from the tokenizer and typed nowhere as numbers. In a text, the letters
"[MASK]" are ordinary text.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from base import files
from base.files import UserError

SPECIAL = ("[EOS]", "[UNK]", "[PAD]", "[BOS]", "[MASK]")
# 13 byte values never occur in UTF-8: without them 260 ids hold all bytes, the special tokens and a
# few merges.
NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
# Longer words, such as DNA or base64, are cut into pieces of this many bytes while a tokenizer is
# trained. Then the time grows with the length of a word, not with its square.
LONGEST_WORD = 1000
SMALLEST, LARGEST = 260, 65_535  # ids are stored as uint16


def byte_letters() -> dict[int, str]:
    """The letter by which byte-level BPE writes each byte: printable bytes stand for themselves
    (GPT-2's table).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


def unbroken(text: str) -> str:
    """The text with U+FFFD for half a surrogate pair, which is no character.

    JSON may hold such a half, and so may a command line in another encoding.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Tokenizer:
    """Text to ids and back. `pad bos eos mask unk`: special ids. `fingerprint` tells two tokenizers
    apart.
    """

    def __init__(self, backend: Backend):
        vocabulary = backend.get_vocab()
        missing = [name for name in SPECIAL if name not in vocabulary]
        if missing:
            raise UserError(
                f"a tokenizer without {' '.join(missing)}",
                "one made by data_prep.py",
                "run data_prep.py",
            )
        ids, size = [vocabulary[name] for name in SPECIAL], len(vocabulary)
        if ids != list(range(size - len(SPECIAL), size)):
            raise UserError(
                "a tokenizer whose special tokens are not its last ids",
                "one made by data_prep.py",
                "run data_prep.py",
            )
        backend.encode_special_tokens = True  # in a text, "[MASK]" is six letters
        self.backend = backend
        self.eos, self.unk, self.pad, self.bos, self.mask = ids
        self.vocab_size = size
        self.output_size = self.pad  # ids below it can be emitted
        self.fingerprint = files.sha256(self.to_json().encode())

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """The tokenizer in the text of a tokenizer.json. Raises UserError if it is none."""
        try:
            backend = Backend.from_str(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in the library's Rust is no Exception
            raise UserError(
                f"a text that is no tokenizer ({error})",
                "the content of a tokenizer.json",
                "run data_prep.py",
            ) from error
        return cls(backend)

    @classmethod
    def load(cls, path, do: str = "copy it again, or make the folder again") -> "Tokenizer":
        """The tokenizer in a tokenizer.json. do: the last part of an error.

        Raises UserError that names the file if it is missing or none.
        """
        text = files.read_text(path, "a tokenizer.json", do)
        try:
            return cls.from_json(text)
        except UserError as error:
            found, expected, do = error.parts
            raise UserError(f"in {path} {found}", expected, do) from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn at most `vocab_size` tokens; a small corpus yields fewer.

        Raises UserError if the size is out of range.
        """
        if not SMALLEST <= vocab_size <= LARGEST:
            raise UserError(
                f"--vocab_size {vocab_size}",
                f"{SMALLEST} to {LARGEST} (all bytes and the special tokens; ids are uint16)",
                "choose such a size",
            )
        backend = Backend(models.BPE())
        # A prefix space would come back in the decoded text, which then differs.
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        # A merge moves the rest of its word: the time grows with the square of a word's length.
        pieces = pre_tokenizers.FixedLength(LONGEST_WORD)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
        backend.decoder = decoders.ByteLevel()
        letters = [letter for byte, letter in byte_letters().items() if byte not in NEVER_IN_UTF8]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIAL), initial_alphabet=letters, show_progress=False
        )
        backend.train_from_iterator(map(unbroken, texts), trainer)
        backend.pre_tokenizer = words  # a text is encoded in whole words
        # Added after the training, so that they get the last ids.
        backend.add_special_tokens(list(SPECIAL))
        return cls(backend)

    def to_json(self) -> str:
        """The text of a tokenizer.json."""
        return self.backend.to_str()

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text, without [BOS] and [EOS]: (n,) uint16."""
        return np.array(self.backend.encode(unbroken(text)).ids, dtype=np.uint16)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` for many texts, on all cores."""
        encodings = self.backend.encode_batch_fast([unbroken(text) for text in texts])
        return [np.array(encoding.ids, dtype=np.uint16) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out, a cut character becomes U+FFFD."""
        return self.backend.decode([int(id) for id in ids if 0 <= int(id) < self.eos])

    def piece(self, id: int) -> str:
        """One token as text: its name if it is special."""
        if id >= self.eos:
            return SPECIAL[id - self.eos]
        return self.backend.decode([id])

    def token_bytes(self) -> np.ndarray:
        """Bytes of raw text that each id stands for, 0 for special tokens: (V,) int64."""
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        for token, id in self.backend.get_vocab().items():
            sizes[id] = 0 if id >= self.eos else len(token)  # one letter a byte
        return sizes
