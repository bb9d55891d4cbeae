"""Tables of captions as people and programs write them: CSV, TSV, semicolons, pipes.

The separator is a comma, a semicolon, a tab or a pipe, whichever cuts the first row into known
columns (`caption.columns`): the image, one or several captions, and the split. A
table without such a first row has two columns: the image, whose name ends in a suffix, and the
caption. Any other table is refused, and its columns are named. Every row that gives no image with
a caption is counted. So is every line that stands inside quotation marks: two unpaired marks may
have joined it to the row before.
"""

import csv
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from base import images
from base.files import UserError
from caption.collected import KNOWN_SPLITS, Collected, shown
from caption.columns import (
    EXPECTED,
    NAME_COLUMNS,
    NUMBERED,
    Columns,
    columns_of,
    give,
    key_of,
    not_understood,
)

SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}$")
PICTURE = "|".join(re.escape(suffix) for suffix in images.SUFFIXES)
NOTHING = ' \t\r\n,;|"'  # a row of these signs only is empty, whatever the separator
LONGEST = 100_000  # characters of a line that is looked at; csv refuses cells of 131,072
# A cell with the name of a picture, such as p0.jpg or p0.jpg#3.
PICTURE_CELL = re.compile(rf"(?:^|[,;|\t])[^,;|\t]*(?:{PICTURE})(?:#\d+)?(?:[,;|\t]|$)", re.I)
LINE_ENDS = re.compile(r"\r\n|\r|\n")
SAMPLE = 200  # lines that tell the separator of a table without names of columns


@dataclass
class Layout:
    """How the text of a table is cut: its separator, its quotation marks, its columns."""

    separator: str
    columns: Columns
    quoted: bool
    spaced: bool  # a space after each separator belongs to the separator

    @property
    def joint(self) -> str:
        """What stood between two cells of a caption that was cut."""
        return self.separator + " " * self.spaced


# ---- rows of text -----------------------------------------------------------------------------


def layout_of(path, text: str) -> Layout:
    """How the text of a table is cut. Raises UserError if that is not understood."""
    lines = [line for line in io.StringIO(text, newline="") if line.strip(NOTHING)]
    if not lines:
        raise UserError(f"no caption in {path}", EXPECTED, "check --captions")
    best = None
    for separator in SEPARATORS:
        columns = columns_of([name.strip() for name in cells_of(lines[0], separator)])
        if columns and (best is None or len(columns.names) > len(best[1].names)):
            best = separator, columns
    separator, columns = best or without_names(path, lines)
    # A space after each separator of the first row is the habit of this file.
    mark = re.escape(separator)
    spaced = columns.header and not re.search(mark + r"[^ ]", lines[0].rstrip())
    return Layout(separator, columns, separator == "," or is_quoted(text, separator), spaced)


def cells_of(line: str, separator: str) -> list[str]:
    """The beginning of a line cut at the separator, whatever its quotation marks."""
    beginning = line.strip("\r\n")[:LONGEST]
    try:
        return next(csv.reader([beginning], delimiter=separator), [])
    except csv.Error:
        return []


def is_image(cell: str) -> bool:
    """Whether a cell looks like the name of an image: it ends in a suffix."""
    return bool(SUFFIX.search(NUMBERED.sub("", cell.strip())))


def without_names(path, lines: list[str]) -> tuple[str, Columns]:
    """(separator, columns) of a table without known names: an image and a caption in each row.

    A first row of two other names is a header of two columns. Raises UserError for anything else.
    """
    counts = {}
    for separator in SEPARATORS:
        rows = [cells_of(line, separator) for line in lines[:SAMPLE]]
        counts[separator] = sum(len(row) > 1 and is_image(row[0]) for row in rows)
    separator = max(counts, key=lambda mark: counts[mark])
    first = cells_of(lines[0], separator)
    named = len(first) > 1 and (is_image(first[0]) or not first[0].strip())
    if counts[separator] and named:
        return separator, Columns(["image", "caption"], 0, [1], header=False)
    if counts[separator] > (len(lines[:SAMPLE]) - 1) / 2 and len(first) == 2:
        return separator, Columns([name.strip() for name in first], 0, [1])
    widest = max((cells_of(lines[0], mark) for mark in SEPARATORS), key=len)
    if len(widest) > 1:
        raise not_understood(path, widest)
    raise UserError(
        f"{path} with the first line {shown(lines[0].strip())}, in which no comma, semicolon, tab "
        "or pipe separates two cells",
        EXPECTED,
        NAME_COLUMNS,
    )


def is_quoted(text: str, separator: str) -> bool:
    """Whether all quotation marks stand around whole cells, and are doubled inside them.

    A program such as pandas writes cells so. Flickr8k.token.txt has marks of speech instead.
    """
    mark = re.escape(separator)
    cell = rf'(?:^|(?<=[{mark}\r\n])) *"[^"]*(?:""[^"]*)*"(?=[{mark}\r\n]|\Z)'
    return '"' in text and '"' not in re.sub(cell, "", text)


def cut(path, text: str, layout: Layout) -> list[tuple[int, list[str]]]:
    """(number of its first line, cells) of each row that is not empty.

    Raises UserError for a quotation mark that is out of place.
    """
    quoting = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    # Strict: a lenient reader would swallow every row up to the next quotation mark.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=layout.separator,
        quoting=quoting,
        strict=True,
        skipinitialspace=layout.spaced,
    )
    rows = []
    line, problem = 1, ""
    try:
        for row in reader:
            if "".join(row).strip(NOTHING):
                rows.append((line, row))
            if swallows(row, layout):
                problem = "a cell holds the name of another image"
                break
            line = reader.line_num + 1
    except csv.Error as error:
        line, problem = reader.line_num, str(error)
    if problem:
        raise UserError(
            f"{path} with a quotation mark out of place, at or before line {line} ({problem})",
            'captions with commas or quotation marks as "a ""quoted"" word, another"',
            "mend that line",
        )
    return rows


def lines_inside(row: list[str]) -> list[str]:
    """The lines of the table that stand inside the quotation marks of a row, behind its first."""
    return [line for cell in row for line in LINE_ENDS.split(cell)[1:]]


def swallows(row: list[str], layout: Layout) -> bool:
    """Whether a line inside the quotation marks of a row looks like a row of its own.

    It holds the name of a picture; or, cut at the separator, it has a cell for each column, and the
    cell of the image is built like the image of this row: 42 and 7, or p0 and p1.
    """
    columns = layout.columns
    own = form_of(row[columns.image]) if columns.image < len(row) else ""
    for line in lines_inside(row):
        if PICTURE_CELL.search(line):
            return True
        cells = line.split(layout.separator)
        alike = len(cells) >= len(columns.names) and form_of(cells[columns.image]) == own
        if alike and "0" in own:
            return True
    return False


def form_of(name: str) -> str:
    """The name of an image with 0 in place of each number: p0 for p12."""
    return re.sub(r"\d+", "0", name.splitlines()[0].strip(' "')) if name.strip() else ""


def note_lines_inside(path, rows: list[tuple[int, list[str]]], found: Collected) -> None:
    """Count the lines that stand inside quotation marks, and show the first.

    A program writes such cells for captions of several lines. Two marks without a partner look the
    same, and join two rows. Nobody can tell them apart, so the user is told.
    """
    first = ""
    for number, row in rows:
        inside = lines_inside(row)
        if inside and not first:
            first = f"line {number}, with {shown(inside[0])}"
        found.lines_inside += len(inside)
    if first:
        print(
            f"{path}: {found.lines_inside:,} lines stand inside quotation marks and were joined to "
            f"the rows before them; the first: {first}",
            file=sys.stderr,
        )


def check_surplus(path, rows: list[tuple[int, list[str]]], layout: Layout) -> None:
    """Drop empty columns at the end of all rows. Raises UserError if all rows have more cells than
    columns are known, and these cells are no pieces of a caption.

    A comma inside a caption has a space after it. Columns have none, or hold numbers or splits.
    """
    width = len(layout.columns.names)
    cells = [row for _, row in rows]
    trimmed = layout.columns.header and len(cells) > 1
    while trimmed and all(len(row) > width and not row[-1].strip() for row in cells):
        for row in cells:
            row.pop()
    if not cells or any(len(row) <= width for row in cells) or layout.spaced:
        return
    tight = all(any(not cell.startswith(" ") for cell in row[width:]) for row in cells)
    facts = any(
        all(is_fact(row[place]) and not row[-1].startswith(" ") for row in cells)
        for place in (width - 1, -1)
    )
    if facts or (tight and len(cells) > 1):
        number, row = rows[0]
        raise UserError(
            f"{path}, whose rows have more cells than the {width} columns "
            f"{' '.join(layout.columns.names)}; line {number} is "
            f"{' '.join(shown(cell) for cell in row[:20])}",
            EXPECTED,
            NAME_COLUMNS,
        )


def is_fact(cell: str) -> bool:
    """Whether a cell holds a number or the name of a split, and not the words of a caption."""
    cell = cell.strip().lower()
    return cell.isdecimal() or cell in KNOWN_SPLITS


def fitted(cells: list[str], layout: Layout) -> list[str] | str:
    """A row with a cell for each column, or why there is no such row."""
    columns = layout.columns
    width = len(columns.names)
    wrong = f"{len(cells)} cells for {width} columns"
    if len(cells) > width:
        # A caption with commas and no quotation marks was cut. Only a last column can be mended.
        if columns.captions != [width - 1]:
            return wrong
        return [*cells[: width - 1], layout.joint.join(cells[width - 1 :])]
    missing = range(len(cells), width)
    if columns.image in missing or columns.split in missing:
        return wrong
    return cells + [""] * len(missing)


def read(path: Path, text: str, found: Collected) -> None:
    """Add the rows of a table to what was found.

    Raises UserError if the table is not understood, or has a quotation mark out of place.
    """
    hint = re.match(r'"?sep=(.)"?\r?\n', text)  # Excel's first line
    text = text[hint.end() :] if hint else text
    layout = layout_of(path, text)
    rows = cut(path, text, layout)
    columns = layout.columns
    header = rows.pop(0)[1] if columns.header else None
    # The first line is no row if a line break stands inside quotation marks.
    if header and [key_of(name) for name in header] != [key_of(name) for name in columns.names]:
        raise not_understood(path, header)
    check_surplus(path, rows, layout)
    note_lines_inside(path, rows, found)
    kind = SEPARATORS[layout.separator]
    print(f"{path}: {kind} between columns, {columns.described()}", file=sys.stderr)
    mended = []
    for number, cells in rows:
        found.records += 1
        place = f"line {number + bool(hint)}"
        row = fitted(cells, layout)
        if isinstance(row, str):
            found.leave_out(place, f"{row}: {shown(layout.separator.join(cells))}")
        elif cells == header:
            found.leave_out(place, "the names of the columns again")
        elif not columns.header and not is_image(row[0]):
            found.leave_out(place, f"{shown(row[0])} is no name of an image")
        else:
            if len(cells) > len(columns.names):
                mended.append(place)
            split = row[columns.split] if columns.split is not None else None
            give(found, place, row[columns.image], split, [row[i] for i in columns.captions])
    if mended:
        print(
            f"{path}: {len(mended):,} captions hold a {kind} without quotation marks and were "
            f"joined again; the first: {mended[0]}",
            file=sys.stderr,
        )
