"""Raw text: files and the hub as documents, the split that each belongs to, and their sentences.

A sentence ends at . ! ? or …, with the marks that close behind it, when the next word begins
another sentence. Three things are never cut: a quotation, however many sentences it holds; a
quotation from its speaker's tag ("Go!" Tim said); an abbreviation from its word. A blank line
always cuts. Quotation marks are paired within their paragraph; an odd mark is ignored.

Chinese and Japanese sentences end at 。！ or ？ without a space, whatever letter follows. Their
quotations stay whole, and with its speaker's tag.
"""

import glob
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from base import files, text_files
from base.files import UserError
from base.listing import files_below, once
from text import hub


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


# A name follows these words, so their point ends no sentence.
TITLES = words("mr mrs ms dr st prof capt col gen lt sgt rev mt vs no fig")
# These words may end a sentence: then a capital letter follows.
MAYBE_LAST = words("etc jr sr inc co ltd a.m p.m u.s e.g i.e")
SPOKEN = """
said says say asked asks replied answered shouted cried yelled whispered exclaimed screamed called
added thought told laughed giggled agreed explained begged sighed continued announced repeated
suggested wondered warned promised declared gasped muttered mumbled growled roared barked chirped
sang squeaked responded cheered reminded insisted admitted interrupted demanded pleaded hissed
"""
# A speaker and the verb; but in `"Go!" The ant said, "No!"` they belong to the words that follow.
TAG = re.compile(
    rf"(?:(?!and\b)[\w'’.-]+ ){{0,4}}?(?:{'|'.join(SPOKEN.split())})\b(?![^.!?\"“\n]*[,:] [\"“])"
)
END = re.compile(r"[.!?…]+[\"”'’)\]]*(?=\s|$)|[。！？｡][。！？｡…]*[\"”’」』）)\]]*")
WIDE = "。！？｡"  # Chinese and Japanese: no space follows, and no capital letter begins a sentence
# A speaker and the verb, in Chinese and Japanese; but not before a colon and the next quotation.
WIDE_TAG = re.compile(
    r"[^。！？｡，、：:\n“「]{0,12}(?:说|說|道|问|問|喊|叫|答|嚷|と言|と聞|と叫)"
    r"(?![^。！？｡\n]*[，：,:]\s*[“「『\"])"
)
# 'Go!' but not don't.
SINGLE = re.compile(r"(?<!\w)['‘](?=\w)(?:[^'’\n]|(?<=\w)['’](?=\w))*[.,!?…]['’](?!\w)")
DOUBLE = re.compile(r"“[^”“]*”|\"[^\"]*\"|「[^「」]*」|『[^『』]*』")
STARTS = re.compile(r"[\"“‘'(\[]*[A-Z0-9À-Þ]")


def find_files(pattern: str) -> list[Path]:
    """The text files that --input names, none for a data set on the hub.

    What is left out of a folder is printed. Raises UserError if there is no file.
    """
    if hub.is_name(pattern):
        return []
    path = Path(pattern)
    left_out = ""
    if path.is_dir():
        listing = files_below(path, [".txt"])
        left_out = f" ({listing.words()})" if listing.first else ""
        paths = listing.paths
        if paths:
            listing.report()
    elif path.exists():
        paths = [path] if path.is_file() else []  # a pipe could not be read twice
    else:
        names = map(Path, glob.glob(pattern, recursive=True))
        paths = once(name for name in names if name.is_file())
    if not paths:
        raise UserError(
            f"no file for --input {pattern}{left_out}",
            f"a text file, a folder with .txt files, a glob, or {hub.EXPECTED}",
            "check the path",
        )
    return paths


def facts_of(paths: list[Path], name: str | None = None) -> list | str:
    """What meta.json says of a source: name, size and time of each file, or the hub's name."""
    facts = []
    for path in paths:
        about = path.stat()
        facts.append([path.name, about.st_size, int(about.st_mtime)])
    return facts or (name or hub.DATASET).removeprefix(hub.PREFIX)


def read_documents(path, separator: str) -> Iterator[str]:
    """The documents of a UTF-8 text file, streamed, stripped; empty documents are left out.

    Byte order marks and line ends as `base.text_files` says; \\r\\n in the separator is \\n too.
    Raises UserError if the file is no UTF-8 text.
    """
    refuse_no_separator(separator)
    separator = separator.replace("\r\n", "\n").replace("\r", "\n")
    buffer = ""
    for piece in text_files.pieces(files.existing(path, "a text file", "check the path")):
        # The part of the buffer that was searched is not searched again.
        searched = max(0, len(buffer) - len(separator) + 1)
        buffer += piece
        start = 0
        while (end := buffer.find(separator, max(start, searched))) >= 0:
            if text := stripped(buffer[start:end]):
                yield text
            start = end + len(separator)
        buffer = buffer[start:]
    if text := stripped(buffer):
        yield text


def refuse_no_separator(separator: str) -> None:
    """Raise UserError if a separator is empty: it would stand everywhere."""
    if not separator:
        raise UserError("an empty --separator", "the text between documents", "name it")


def check_separator(separator: str) -> str:
    """What to do where a separator was not found; it is shown as Python writes a string."""
    words = f"check --separator {separator!r}"
    if "\\" not in separator:
        return words
    # A shell passes '\n' on as two characters.
    return f"{words}: its backslash is a letter here; a shell writes a line end as $'\\n'"


def stripped(text: str) -> str:
    """A document without white space around it, and without the mark of a file that was joined."""
    return text.strip().removeprefix(text_files.MARK).strip()


def stream(
    paths: list[Path], separator: str, limit: int = 0, name: str = hub.DATASET
) -> Iterator[str]:
    """The documents of files one at a time; without files those of a data set on the hub.

    limit: at most this many documents; 0 means all. name: of the data set, with or without `hub:`.
    """
    if paths:
        documents = (text for path in paths for text in read_documents(path, separator))
    else:
        documents = hub.documents(name)
    yield from itertools.islice(documents, limit or None)


def batches_of(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items; the last list may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def draw(text: str, seed: int) -> float:
    """A number in [0, 1) from a document's text, so that copies fall on the same side."""
    digest = hashlib.sha256(f"{seed} {text}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56


@dataclass(frozen=True)
class SplitRule:
    """Which split a document falls on: val if its draw is below `share`, else train."""

    seed: int
    share: float

    def side(self, text: str) -> str:
        """The split of a document."""
        return "val" if draw(text, self.seed) < self.share else "train"


# ---------------------------------------------------------------------------- sentences


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped."""
    return [text[start:end].strip() for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence with the white space before it. Nothing lies between them."""
    quoted = quotations(text)
    cuts = {mark.end() for mark in END.finditer(text) if ends_sentence(text, mark, quoted)}
    cuts |= {blank_line.start() for blank_line in re.finditer(r"\s*\n\s*\n", text)}
    edges = [0]
    for cut in sorted(cuts):
        if text[:cut].strip() and text[cut:].strip():
            edges.append(cut)
    edges.append(len(text))
    spans = itertools.pairwise(edges)
    return [(start, end) for start, end in spans if text[start:end].strip()]


def quotations(text: str) -> list[tuple[int, int]]:
    """(start, end) of every quotation with its marks."""
    spans = [match.span() for match in SINGLE.finditer(text)]
    for paragraph in re.finditer(r"[^\n]+", text):
        offset = paragraph.start()
        for match in DOUBLE.finditer(paragraph[0]):
            spans.append((offset + match.start(), offset + match.end()))
    return spans


def ends_sentence(text: str, mark: re.Match, quoted: list[tuple[int, int]]) -> bool:
    """Whether a sentence ends at this mark."""
    if any(start < mark.start() and mark.end() < end for start, end in quoted):
        return False
    rest = text[mark.end() :]
    after = rest.lstrip()
    if not after:
        return False  # the text ends here anyway
    if "\n" in rest[: len(rest) - len(after)]:
        return True
    closes_speech = any(end == mark.end() for _, end in quoted)
    if mark[0][0] in WIDE:
        return not (closes_speech and WIDE_TAG.match(after))
    if closes_speech and TAG.match(after.split("\n")[0]):
        return False
    if not STARTS.match(after):
        return False
    return not (mark[0] == "." and abbreviates(text[: mark.start()], after))


def abbreviates(before: str, after: str) -> bool:
    """Whether the point behind `before` belongs to an abbreviation: no sentence ends there."""
    word = re.search(r"[\w.]*$", before)[0]
    if word.lower() in TITLES:
        return word[0].isupper() or word.lower() == "vs"
    if re.fullmatch(r"[A-Z](\.[A-Z])*", word) and word != "I":  # initials: J. K. Stone
        return len(word) == 1 or not after[:1].isupper()
    return word.lower() in MAYBE_LAST and not after.lstrip("\"“'(")[:1].isupper()
