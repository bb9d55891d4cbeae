"""A page of several models of scenes: captions, drawings, edits, clips and dialogues.

Each section has the share of claims that are true, cards of held-out scenes with a mark for each
claim, and the commands of a full training. The page is a single file that loads nothing. Its bar
plays how words and pictures were unmasked. Clips move without JavaScript.

An item, a card, is a dict. Every item has name, alt (what its image shows, in words), and kind,
which says what else it holds:

    captions   image, text, pieces, step, probability, marks
    clips      image (a sheet of 4 × 2 frames), text, pieces, step, probability, marks
    drawings   image, text, side, step, probability, marks
    edits      the same, before, and change
    dialogues  image, turns: lists of [question, answer, true answer]

image, before: data: addresses. side: of the grid of tokens. step: the call that wrote a token, 0:
given. probability: lists as long as step. marks: [what is claimed, whether it is true].
"""

from show import pages, pictures
from show.pages import element, escape, fill

TITLE = "Scenes: captions, drawings, edits, clips, dialogues"


def badge(is_true: bool) -> str:
    """The mark of an item, an answer or a claim."""
    word, kind = ("✓ true", "good") if is_true else ("✗ false", "bad")
    return element("span", word, class_=f"badge {kind}")


def marks_of(item: dict) -> list[bool]:
    """Whether each claim, or each answer, of an item is true."""
    if item["kind"] == "dialogues":
        return [answer == truth for _, answer, truth in item["turns"]]
    return [is_true for _, is_true in item["marks"]]


def marks(item: dict) -> str:
    """The claims of an item, each with its mark."""
    rows = []
    for words, is_true in item["marks"]:
        sign, kind, said = ("✓", "good", "true: ") if is_true else ("✗", "bad", "false: ")
        # The sign is for eyes, the word for a screen reader.
        mark = element("span", sign, class_=kind, aria_label=said, role="img")
        rows.append(element("li", f"{mark} {escape(words)}"))
    return element("ul", *rows, class_="marks")


def picture(address: str, alt: str) -> str:
    """An image of a card."""
    image = element("img", src=address, alt=alt, width=224, height=224, decoding="async")
    return image.replace("</img>", "")


def top(item: dict) -> str:
    """What a card shows above its words."""
    kind = item["kind"]
    for name in ("image", "before"):
        if name in item:
            pages.refuse_addresses({"image": item[name], "name": item["name"]})
    if kind == "clips":
        return element("div", picture(item["image"], item["alt"]), class_="film")
    if kind == "drawings":
        shown = pictures.frame(item["image"], item["alt"], pictures.steps_over(item), "painted")
        return element("div", shown, class_="frames")
    if kind == "edits":
        before = item["before"]
        frames = pictures.frame(before, "the picture before", "", "before")
        again = pictures.mask_over(item)
        frames += pictures.frame(before, "the places that are drawn again", again, "drawn again")
        frames += pictures.frame(item["image"], item["alt"], pictures.steps_over(item), "after")
        return element("div", frames, class_="frames")
    return picture(item["image"], item["alt"])


def body(item: dict) -> str:
    """The words of a card."""
    if item["kind"] == "dialogues":
        return element("ol", *map(turn, item["turns"]), class_="talk")
    text = escape(item["text"])
    if item["kind"] in ("captions", "clips"):
        text = pages.played(item["pieces"], item["step"], item["probability"]) or text
    words = element("p", text, class_="caption", dir=pages.direction(item["text"]))
    if item["kind"] == "edits":
        words = element("p", escape(item["change"]), class_="change", dir="auto") + words
    return words


def turn(said: list) -> str:
    """A question, its answer with a mark, and the true answer if it is another."""
    question, answer, truth = said
    is_true = answer == truth
    note = "" if is_true else element("p", escape(f"true: {truth}"), class_="note", dir="auto")
    return fill(
        "world_turn.html",
        {"badge": badge(is_true), "note": note},
        question=question,
        answer=answer or "(nothing)",
    )


def card(item: dict) -> str:
    """An item with its marks. Raises UserError for an image that is not inside the page."""
    right = marks_of(item)
    is_dialogue = item["kind"] == "dialogues"
    whole = f"{sum(right)} of {len(right)} answers true" if is_dialogue else ""
    shown = element("span", whole, class_="number") if is_dialogue else badge(all(right))
    said = whole or f"{item['text']} ({'true' if all(right) else 'false'})"
    hint = "" if is_dialogue else " Enter plays it."
    return fill(
        "world_card.html",
        {
            "top": top(item),
            "badge": shown,
            "body": body(item),
            "marks": "" if is_dialogue else marks(item),
        },
        label=f"{item['name']}: {said}.{hint}",
        wide={"edits": "wide", "dialogues": "talks"}.get(item["kind"], ""),
        name=item["name"],
    )


def section(told: dict) -> str:
    """A section of the page."""
    share = "" if told["share"] is None else element("b", escape(told["share"]))
    says = [element("p", escape(line), class_="says", dir="auto") for line in told["says"]]
    commands = element(
        "details",
        element("summary", "the full training"),
        element("pre", escape("\n".join(told["commands"]))),
        class_="commands",
        open="",
    )
    return fill(
        "world_section.html",
        {
            "share": f"{share} {escape(told['of'])}",
            "says": "".join(says),
            "cards": "".join(map(card, told["items"])),
            "commands": commands,
        },
        id=told["id"],
        title=told["title"],
    )


def link(told: dict) -> str:
    """A section in the list at the top, with its figure."""
    figure = element("b", escape(told["share"] or "—"))
    return element("a", figure, escape(told["title"]), href=f"#{told['id']}")


def page(sections: list[dict], facts: dict, title: str = TITLE) -> str:
    """The page.

    A section: id, title; share, such as "92%", or None; of, what the share is of; says, lines
    below it; items, as at the head of this file; commands, lines. facts: shown under the title.
    Raises UserError for an image that is not inside the page.
    """
    return pages.whole_page(
        "world.html",
        title=title,
        styles=("base.css", "player.css", "gallery.css", "pictures.css", "world.css"),
        script="player.js",
        markup={
            "facts": pages.facts_line(facts),
            "links": "".join(map(link, sections)),
            "sections": "".join(map(section, sections)),
            "bar": fill("bar.html", slow=2, medium=6, fast=20),  # calls per second
            "clips": pages.asset("world.js"),
        },
    )
