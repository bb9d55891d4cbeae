"""The text of files that people wrote: UTF-8, or an error that says what the file is instead.

A byte order mark at the beginning is left out. Line ends of Windows (\\r\\n) and of old Macs (\\r)
become \\n, so the same text gives the same tokens, wherever it was saved. All other characters
stay, also mojibake such as "wasnâ€™t": nobody can know that a text does not mean its own letters.

Standard library only.
"""

import codecs
import io
import re
import shlex
from collections.abc import Iterator

from base.errors import UserError, os_error

CHUNK = 1 << 20  # bytes that are read at once
MARK = "\ufeff"  # the byte order mark that some programs write before a text
HEAD = 1024  # bytes in which UTF-16 without a mark is looked for
# (the first bytes of a file, what it is, what to do with it)
KINDS = (
    (rb"\x1f\x8b", "a gzip file", "unpack it with gunzip"),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip file", "unpack it, and name a file in it"),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "a bzip2 file", "unpack it with bunzip2"),
    (rb"\xfd7zXZ\0", "an xz file", "unpack it with unxz"),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it with unzstd"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z file", "unpack it, and name a file in it"),
    (rb"Rar!\x1a\x07", "a RAR file", "unpack it, and name a file in it"),
    (rb"PAR1[\x15\0]", "a parquet file", "write its columns as UTF-8 text, for example as CSV"),
    (rb"(\xff{4}.{4})?ARROW1\0\0", "an Arrow file", "write its columns as UTF-8 text"),
    (rb"\x89HDF\r\n", "an HDF5 file", "write its content as UTF-8 text"),
    (rb"SQLite format 3\0", "an SQLite database", "write its columns as UTF-8 text"),
    (rb"\x93NUMPY", "a numpy array", "name the text that it was made from"),
    (rb"\x80[\x02-\x05][\x80-\xff}\](c]", "a pickle", "write its content as UTF-8 text"),
    (rb"%PDF-", "a PDF document", "save its text as UTF-8"),
    (rb"\{\\rtf", "an RTF document", "save its text as UTF-8"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document", "save it as UTF-8 text or CSV"),
    (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", "an image", "name a text file"),
    (rb"version https://git-lfs", "a pointer of git-lfs, not the file", "run git lfs pull"),
)
SAMPLE = 2000  # bytes on each side of a wrong byte that tell the encoding
# (Python's name, iconv's name, letters of its language, the share of them that shows it). The order
# matters: a later encoding also reads texts of an earlier one, as other letters.
FOREIGN = (
    ("shift_jis", "SHIFT_JIS", "[\u3040-\u309f]", 0.2),
    ("euc_jp", "EUC-JP", "[\u3040-\u309f]", 0.2),
    ("euc_kr", "EUC-KR", "[\uac00-\ud7a3]", 0.8),
    ("cp1251", "WINDOWS-1251", "[а-яё]", 0.8),
    ("koi8_r", "KOI8-R", "[а-яё]", 0.8),
    ("gb2312", "GB18030", "[\u4e00-\u9fff]", 0.6),
    ("big5", "BIG5", "[\u4e00-\u9fff]", 0.6),
)
WESTERN = "WINDOWS-1252"  # reads Latin-1 too


def read(path, what: str = "a UTF-8 text") -> str:
    """The text of a file. what: the words for what is expected. Raises UserError as `pieces`."""
    return "".join(pieces(path, what))


def pieces(path, what: str = "a UTF-8 text") -> Iterator[str]:
    """The text of a file, in pieces of about a megabyte.

    Raises UserError if the file cannot be read, is of another kind, such as gzip or UTF-16, or has
    bytes that are no UTF-8. The error names the file, the line and the likely encoding.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), True)
    line, position, begun = 1, 0, False
    try:
        # Unbuffered reads of a pipe may be short. A buffered reader waits for the whole chunk.
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                if not begun:
                    refuse_other_kinds(path, chunk, what)
                    begun = True
                yield decoder.decode(chunk)
                line += chunk.count(b"\n")
                position += len(chunk)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # The error's bytes begin with those that the decoder kept from the chunk before.
        raise not_utf8(path, error, line, position, what) from error
    except OSError as error:
        raise os_error(error, path) from error


def refuse_other_kinds(path, head: bytes, what: str) -> None:
    """Raise UserError if the first bytes of a file say that it is no text, or in UTF-16."""
    for pattern, kind, do in KINDS:
        if re.match(pattern, head, re.DOTALL):
            raise UserError(f"{path}, which is {kind}", what, do)
    wide = wide_encoding(head)
    if wide:
        raise UserError(f"{path}, which is in {wide}", what, convert(path, wide))


def wide_encoding(head: bytes) -> str | None:
    """UTF-32 or UTF-16, if a file that begins so is in it."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark is its first half
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if head.startswith(mark):
            return name
    head = head[: min(HEAD, len(head) // 2 * 2)]
    # Without a mark: every second byte of a Western text is 0, and never both bytes of a pair.
    for zeros, others, name in (
        (head[1::2], head[0::2], "UTF-16LE"),
        (head[0::2], head[1::2], "UTF-16BE"),
    ):
        if len(zeros) >= 4 and zeros.count(0) > 0.7 * len(zeros) and not others.count(0):
            return name
    return None


def not_utf8(path, error: UnicodeDecodeError, line: int, position: int, what: str) -> UserError:
    """The error for bytes that are no UTF-8.

    line, position: of the chunk that was decoded, line from 1, position in bytes from 0.
    """
    raw, start = error.object, error.start
    line += raw[:start].count(b"\n")
    found = f"{path} with bytes that are no UTF-8 in line {line} (byte {position + start})"
    name = likely_encoding(raw[max(0, start - SAMPLE) : start + SAMPLE])
    if name:
        return UserError(f"{found}; {name} is likely", what, convert(path, name))
    return UserError(f"{found}; the other letters are UTF-8", what, "mend that line")


def convert(path, encoding: str) -> str:
    """What to do with a text in another encoding."""
    command = shlex.join(["iconv", "-f", encoding, "-t", "UTF-8", str(path)])
    return f"save it as UTF-8, for example with {command} > new.txt"


def likely_encoding(sample: bytes) -> str | None:
    """The likely encoding of bytes that are no UTF-8; None if they are UTF-8 but for damage."""
    for python, name, letters, share in FOREIGN:
        # At most a cut character at each end may be unreadable.
        text = sample.decode(python, "replace")
        foreign = [letter for letter in text if not letter.isascii()]
        theirs = len(re.findall(letters, text))
        runs = re.findall(rb"[\x80-\xff]+", sample)
        # Western texts have single letters that are not ASCII; these languages have whole words.
        words = sum(map(len, runs)) >= 2.5 * len(runs) or python == "shift_jis"
        if words and text.count("\ufffd") <= 2 and theirs >= max(2, share * len(foreign)):
            return name
    text = sample.decode("utf-8", "replace")
    good = sum(not letter.isascii() for letter in text) - text.count("\ufffd")
    return None if good else WESTERN
