"""A page of painted and edited pictures, which plays how their tokens were unmasked.

Each card shows a picture under a grid of its tokens. A token's place is covered until the call that
drew it. An edited picture has two more images: the picture before, and what was drawn again. The
page is a single file that loads nothing. Without JavaScript it shows all pictures.
"""

from show import pages
from show.pages import element, escape, fill

TITLE = "Pictures, step by step"


def cells(values: list[str], side: int, kind: str) -> str:
    """A grid of side × side spans over an image. values: their HTML, row by row."""
    if len(values) != side * side:
        raise ValueError("a span for each place of the grid")
    return element("div", *values, class_=f"cells {kind}", style=f"--side: {side}")


def steps_over(item: dict) -> str:
    """The cover that player.js lifts: a span for each token, with its call and its probability."""
    spans = []
    for step, probability in zip(item["step"], item["probability"], strict=True):
        spans.append(element("span", data_step=int(step), data_p=f"{probability:.4f}"))
    return cells(spans, item["side"], "cover")


def mask_over(item: dict) -> str:
    """What an edit drew again: the places that a call wrote."""
    spans = [element("span", class_="again" if step else "kept") for step in item["step"]]
    return cells(spans, item["side"], "mask")


def frame(image: str, alt: str, over: str, caption: str) -> str:
    """An image with a grid over it, and a word below it."""
    picture = element("img", src=image, alt=alt, width=224, height=224)
    picture = picture.replace("</img>", "")
    stage = element("div", picture, over, class_="stage")
    return element("figure", stage, element("figcaption", escape(caption)))


def card(item: dict) -> str:
    """A picture with its words, and what an independent reader says of it."""
    shown = [item["image"], *filter(None, [item.get("before")])]
    for address in shown:
        pages.refuse_addresses({"image": address, "name": item["name"]})
    frames = ""
    if item.get("before"):
        frames += frame(item["before"], "before", "", "before")
        frames += frame(item["before"], "what is drawn again", mask_over(item), "drawn again")
    words = "after" if item.get("before") else "painted"
    frames += frame(item["image"], item["text"], steps_over(item), words)
    notes = [element("p", escape(note), class_="notes", dir="auto") for note in item["notes"]]
    if item.get("plan"):
        plan = f"plan: {item['plan']}"
        notes.append(element("p", escape(plan), class_="meta", dir="auto"))
    badge = ""
    if item.get("true") is not None:
        word, kind = ("✓ true", "good") if item["true"] else ("✗ false", "bad")
        badge = element("span", word, class_=f"badge {kind}")
    wide = "wide" if item.get("before") else ""
    return fill(
        "pictures_card.html",
        {"frames": frames, "badge": badge, "notes": "".join(notes)},
        label=f"{item['name']}: {item['text']}. Enter plays it.",
        wide=wide,
        name=item["name"],
        text=item["text"],
        direction=pages.direction(item["text"]),
        meta=pages.calls_of(item["step"]),
    )


def page(items: list[dict], facts: dict, title: str = TITLE) -> str:
    """The page. An item holds image (a data: address), name, text (its words), side (of the grid),
    step (0: given) and probability, lists of side² values, and notes (lines below the words). It
    may hold before (a data: address), plan (what the network planned), and true: whether the reader
    found all claims true.

    Raises UserError for an image that is not inside the page.
    """
    return pages.whole_page(
        "pictures.html",
        title=title,
        styles=("base.css", "player.css", "gallery.css", "pictures.css"),
        script="player.js",
        markup={
            "facts": pages.facts_line(facts),
            "cards": "".join(map(card, items)),
            "bar": fill("bar.html", slow=2, medium=6, fast=20),  # calls per second
        },
    )
