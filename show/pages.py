"""Pages that people open in a browser: texts and captions that are unmasked step by step.

A page is one file that loads nothing, and its own policy forbids that it loads anything. The texts
can be read without JavaScript, which only plays them. HTML, CSS and JavaScript lie in assets/pages.
"""

import functools
import html
import json
import re
import unicodedata
from pathlib import Path
from string import Template

from base.files import UserError

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "pages"
FIGURE = re.compile(r"[-+−–±≤≥<>~≈]?\s*\d|—?$")  # a table's cell that holds a number, or nothing


# --- filling the files of assets/pages ---------------------------------------------------------


def escape(value) -> str:
    """A value as text of HTML: safe between tags and inside a quoted attribute."""
    return html.escape(str(value))


def embed(value) -> str:
    """JSON that is safe inside a script element: no text can close it or open a comment."""
    # HTML ends a script at "</script" even inside a string of JSON, so "<" may not appear.
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@functools.cache
def asset(name: str) -> str:
    """The text of a file of assets/pages."""
    return (ASSETS / name).read_text(encoding="utf-8").strip()


def fill(file: str, markup: dict[str, str] | None = None, /, **texts) -> str:
    """A file of assets/pages with its $placeholders filled.

    texts are escaped here. markup is HTML already: only this module's own output goes there.
    What is filled in is never searched for placeholders, so a caption may hold "$title".
    """
    escaped = {key: escape(value) for key, value in texts.items()}
    return Template(asset(file)).substitute(escaped, **(markup or {}))


def whole_page(
    name: str, *, title: str, styles: tuple[str, ...], script: str, markup: dict[str, str]
) -> str:
    """The page assets/pages/<name>, with its style sheets and its script inside."""
    style = "\n".join(asset(sheet) for sheet in styles)
    head = fill("head.html", {"style": style}, title=title)
    return fill(name, {**markup, "head": head, "script": asset(script)}, title=title) + "\n"


def element(tag: str, *content: str, **attributes) -> str:
    """<tag attribute="…">content</tag>. Attributes are escaped; the content is HTML already.

    Names of attributes are written as Python allows: class_, data_step.
    """
    written = ""
    for name, value in attributes.items():
        written += f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
    return f"<{tag}{written}>{''.join(content)}</{tag}>"


def refuse_addresses(item: dict) -> None:
    """Raise UserError if the image of an item is not inside the page."""
    if not item["image"].startswith("data:image/"):
        raise UserError(
            f"the image {item['image'][:40]!r} of {item['name']}",
            "a data:image/ address: the page loads nothing",
            "embed the image",
        )


# --- what both pages show ----------------------------------------------------------------------


def direction(text: str) -> str:
    """ "rtl" if the first letter is Arabic, Hebrew and so on, else "ltr".

    The browser is not asked (dir="auto"), because the dots of masked words would change its answer.
    """
    for letter in text:
        # Digits, spaces and marks have no direction of their own and are passed over.
        kind = unicodedata.bidirectional(letter)
        if kind in ("L", "R", "AL"):
            return "ltr" if kind == "L" else "rtl"
    return "ltr"


def played(pieces: list[str], steps: list[int], probabilities: list[float]) -> str:
    """A text's pieces as spans that player.js shows one after the other.

    The space before a word stays outside its span, so that lines break between spans.
    Raises ValueError if the lists differ in length.
    """
    spans = ""
    for piece, step, probability in zip(pieces, steps, probabilities, strict=True):
        word = piece.lstrip()
        if spans:  # the first word of a text has no space before it
            spans += escape(piece[: len(piece) - len(word)])
        spans += element("span", escape(word), data_step=int(step), data_p=f"{probability:.4f}")
    return spans


def facts_line(facts: dict) -> str:
    """The line below the title. A name and its value stay on one line."""
    return " · ".join(f"{escape(name)}&nbsp;{escape(value)}" for name, value in facts.items())


def calls_of(steps: list[int]) -> str:
    calls = max(steps, default=0)
    return f"{calls} call" if calls == 1 else f"{calls} calls"


# --- texts -------------------------------------------------------------------------------------


def unmasking(samples: list, tokenizer, facts: dict, title: str = "Unmasking, step by step") -> str:
    """A page that plays how texts were unmasked.

    samples: objects with ids, step (the call that revealed a token; 0: given) and probability,
    lists of equal length. facts: shown under the title. Special tokens are left out of the texts.
    A token that was masked again (ReMDM) appears when it was last revealed.
    """
    special = (tokenizer.bos, tokenizer.eos, tokenizer.pad)
    cards = ""
    for number, sample in enumerate(samples, 1):
        shown = [index for index, id in enumerate(sample.ids) if id not in special]
        pieces = [tokenizer.piece(sample.ids[index]) for index in shown]
        steps = [sample.step[index] for index in shown]
        text = played(pieces, steps, [sample.probability[index] for index in shown])
        cards += fill(
            "unmasking_card.html",
            {"text": text},
            name=f"sample {number} · {calls_of(steps)}",
            label=f"sample {number}. Enter plays it.",
            direction=direction("".join(pieces)),
        )
    return whole_page(
        "unmasking.html",
        title=title,
        styles=("base.css", "player.css"),
        script="player.js",
        markup={
            "facts": facts_line(facts),
            "cards": cards,
            "bar": fill("bar.html", slow=4, medium=12, fast=40),  # calls per second
        },
    )


# --- captions of images ------------------------------------------------------------------------


def folded(title: str, tag: str, rows: list[str]) -> str:
    """Rows that show when their title is clicked; nothing if there are none."""
    if not rows:
        return ""
    return element("details", element("summary", escape(title)), element(tag, *rows))


def card(item: dict) -> str:
    """An image with its caption, verdict, bound, references and the captions of other models."""
    refuse_addresses(item)
    verdict = item.get("verdict") or {}
    word, badge = "", ""
    if verdict:
        word = "true" if verdict["truthful"] else "false"
        badge = (
            element("span", "✓ true", class_="badge good")
            if verdict["truthful"]
            else element("span", "✗ false", class_="badge bad")
        )
    meta = [calls_of(item["step"])]
    if item.get("score") is not None:
        # The score is a mean log-probability; the bound is its negative, in nats.
        meta.append(f"bound {-item['score']:.2f} nats/token")
    if verdict.get("exact"):
        meta.append("exact")

    # dir="auto" will do here: no dots of masked words hide the letters.
    notes = [
        element("p", escape(note), class_="notes", dir="auto") for note in verdict.get("notes", [])
    ]
    references = item.get("references") or []
    captions = [element("li", escape(reference), dir="auto") for reference in references]
    others = item.get("others") or []
    models = []
    for model, caption in others:
        models.append(element("dt", escape(model), dir="auto"))
        models.append(element("dd", escape(caption), dir="auto"))
    spans = played(item["pieces"], item["step"], item["probability"])
    in_brackets = f" ({word})" if word else ""
    return fill(
        "gallery_card.html",
        {
            "badge": badge,
            "caption": spans or escape(item["caption"]),
            "notes": "".join(notes),
            "folded": folded(f"references ({len(references)})", "ul", captions)
            + folded(f"other models ({len(others)})", "dl", models),
        },
        label=f"{item['name']}: {item['caption']}{in_brackets}. Enter plays it.",
        verdict=word,
        group=item.get("group", ""),
        image=item["image"],
        name=item["name"],
        direction=direction(item["caption"]),
        meta=" · ".join(meta),
    )


def filters(items: list[dict]) -> str:
    """Buttons with counts, if there is a choice: all, true and false, each group."""
    rows = [("", "", "all", len(items))]
    verdicts = [bool(item["verdict"]["truthful"]) for item in items if item.get("verdict")]
    if verdicts:
        rows.append(("verdict", "true", "true", verdicts.count(True)))
        rows.append(("verdict", "false", "false", verdicts.count(False)))
    groups = [str(item.get("group", "")) for item in items]
    # A set would put the buttons in another order on every run.
    names = list(dict.fromkeys(groups))
    if len(names) > 1:
        rows += [("group", name, name or "no group", groups.count(name)) for name in names]
    if len(rows) == 1:
        return ""

    buttons = ""
    for key, value, label, count in rows:
        # The first button, "all", is pressed when the page opens.
        pressed = "false" if key else "true"
        content = f"{escape(label)} {element('small', str(count))}"
        buttons += element("button", content, data_key=key, data_value=value, aria_pressed=pressed)
    return element("div", buttons, class_="filters", role="group", aria_label="show")


def result_table(rows: list[list[str]]) -> str:
    """A table whose first row is the header. Columns of figures are set to the right."""
    header, *body = rows
    right = []
    for column in range(len(header)):
        cells = [str(row[column]).strip() for row in body]
        # all() of nothing is true: a column without cells must not count as figures.
        right.append(bool(cells) and all(FIGURE.match(cell) for cell in cells))

    def table_row(tag: str, row: list[str]) -> str:
        cells = ""
        for cell, is_figure in zip(row, right, strict=True):
            cells += element(tag, escape(cell), **({"class_": "figure"} if is_figure else {}))
        return element("tr", cells)

    table = element(
        "table",
        element("thead", table_row("th", header)),
        element("tbody", *(table_row("td", row) for row in body)),
    )
    # A wide table scrolls inside its box; tabindex lets the keyboard reach and scroll it.
    return element("div", table, class_="table", tabindex=0, role="region", aria_label="results")


def gallery(
    items: list[dict],
    facts: dict,
    table: list[list[str]] | None = None,
    title: str = "Captions, step by step",
) -> str:
    """A page that shows captioned images and plays how the captions were unmasked.

    An item holds image (a data: address), name, caption; pieces, step (0: given) and probability,
    lists of equal length. It may hold score (mean log-probability), references, verdict
    {truthful, exact, notes}, others [[model, caption]] and group (a name to filter by).
    Raises UserError for an image that is not inside the page.
    """
    return whole_page(
        "gallery.html",
        title=title,
        styles=("base.css", "player.css", "gallery.css"),
        script="player.js",
        markup={
            "facts": facts_line(facts),
            "table": result_table(table) if table else "",
            "filters": filters(items),
            "cards": "".join(map(card, items)),
            "bar": fill("bar.html", slow=2, medium=6, fast=20),  # calls per second
        },
    )
