"""Invented tables of captions, with what each row says; and the check that no row is lost."""

import csv
import io
import random
from dataclasses import dataclass

from caption.collected import Collected
from caption.tables import NOTHING

WORDS = ("a", "dog", "two, three", "big", '"big"', "é", "🐝", "1,000", "don't", "; and", "0", "p1")
ODD = ('"', "\n", ",", ";", "|", "\t", "#3", "\u2028", "train", "'")
IMAGES = ("image", "file_name", "Image Path", "filename", "img")
IMAGE_NAMES = ("p{}.jpg", "p{}.jpg", "{}", "photo {}")
CAPTIONS = ("caption", "comment", "Sentence", "text")


@dataclass
class Made:
    """The text of a table, and the (image, captions) of each row that holds anything.

    quoted: written by a program that quotes cells; otherwise quotation marks have no meaning.
    """

    text: str
    rows: list[tuple[str, list[str]]]
    quoted: bool


def sentence(rng: random.Random, number: int) -> str:
    """A caption, sometimes empty, sometimes with signs that mean something in a table.

    The number is in it, so that no two captions of a table are equal.
    """
    if rng.random() < 0.1:
        return rng.choice(("", " "))
    words = rng.choices(WORDS, k=rng.randrange(1, 5))
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words) + 1), rng.choice(ODD))
    words.insert(rng.randrange(len(words) + 1), f"c{number}")
    return rng.choice((" ", "")).join(words)


def columns(rng: random.Random) -> list[str]:
    """The kinds of the columns, in any order."""
    kinds = ["image", *["caption"] * rng.choice((1, 1, 1, 2, 5))]
    kinds += [kind for kind in ("index", "number", "split") if rng.random() < 0.3]
    if rng.random() < 0.5:
        rng.shuffle(kinds)
    return kinds


def header(rng: random.Random, kinds: list[str]) -> list[str]:
    """Names of the columns."""
    word = rng.choice(CAPTIONS)
    several = kinds.count("caption") > 1
    names = {"image": rng.choice(IMAGES), "index": "", "number": f"{word}_number", "split": "split"}
    result = []
    for place, kind in enumerate(kinds):
        result.append(names.get(kind) or (f"{word}_{place}" if several else word))
        if kind == "index":
            result[-1] = ""
    return result


def table(rng: random.Random) -> Made:
    """A table of up to eleven rows."""
    separator = rng.choice(",;\t|")
    quoted = rng.random() < 0.6
    kinds = columns(rng)
    named = rng.random() < 0.8
    kinds = kinds if named else ["image", "caption"]
    lines = [header(rng, kinds)] if named else []
    rows = []
    # Without suffixes, a row that was joined to another is harder to see.
    form = rng.choice(IMAGE_NAMES) if named else IMAGE_NAMES[0]
    for number in range(rng.randrange(1, 12)):
        image = rng.randrange(6)
        facts = {
            "index": str(number),
            "number": str(number % 3),
            "split": ("train", "val")[image % 2],
        }
        facts["image"] = form.format(image) if rng.random() < 0.9 else ""
        cells = []
        for place, kind in enumerate(kinds):
            cells.append(facts[kind] if kind in facts else sentence(rng, 10 * number + place))
        if not quoted:
            cells = [" ".join(cell.splitlines()) for cell in cells]
            last = kinds.index("caption") if kinds[-1] == "caption" else None
            for place in range(len(cells)):
                if place != last or kinds.count("caption") > 1:
                    cells[place] = cells[place].replace(separator, " ")
        if rng.random() < 0.1:
            cells = cells[: rng.randrange(1, len(cells) + 1)]
        lines.append(cells)
        if "".join(cells).strip(NOTHING):
            pairs = list(zip(kinds, cells, strict=False))
            name = next((cell for kind, cell in pairs if kind == "image"), "")
            rows.append((name, [cell for kind, cell in pairs if kind == "caption"]))
    return Made(written(rng, lines, separator, quoted), rows, quoted)


def written(rng: random.Random, lines: list[list[str]], separator: str, quoted: bool) -> str:
    """The text of the rows."""
    end = rng.choice(("\n", "\n", "\r\n"))
    if not quoted:
        return "".join(separator.join(cells) + end for cells in lines)
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end).writerows(lines)
    return file.getvalue()


def plain(text: str, quoted: bool) -> str:
    """A caption as it is compared: without stray spaces; without quotation marks, and without
    separators at its end, if no program put quotation marks around it.
    """
    return " ".join((text if quoted else text.replace('"', "").rstrip(NOTHING)).split())


def check_no_loss(made: Made, found: Collected) -> None:
    """Every row is a caption of its image or counted as left out, and no caption is made up.

    Quotation marks without a partner may join rows. Then the lines inside the marks are counted.
    """
    if not made.quoted and found.lines_inside:
        assert found.records + found.lines_inside >= len(made.rows)
        return
    held = {
        name: [plain(text, made.quoted) for text in texts]
        for name, (_, texts) in found.photos.items()
    }
    lost = 0
    for name, captions in made.rows:
        wanted = [plain(text, made.quoted) for text in captions]
        wanted = [text for text in wanted if text]
        texts = held.get(name, [])
        if not name or not wanted or any(wanted.count(text) > texts.count(text) for text in wanted):
            lost += 1
            continue
        for text in wanted:
            texts.remove(text)
    assert found.records == len(made.rows)
    assert lost == found.left_out, (lost, found.left_out, found.first)
    assert not any(held.values()), f"made up: {held}"
