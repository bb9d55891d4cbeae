"""A web page with a picture and the dialogue about it. It loads nothing and has no script."""

from show.pages import asset, element, escape, facts_line, fill, refuse_addresses


def page(item: dict, facts: dict, title: str = "A dialogue about a picture") -> str:
    """The page of a dialogue.

    item: image (a data: address), name, turns, and seen, the objects that the model noted first
    (may be missing). A turn is a dict: question, answer, note (may be empty), and objects, those
    that its answer rests on (may be missing). facts: shown under the title.
    Raises UserError for an image that is not inside the page.
    """
    refuse_addresses(item)
    turns = ""
    for turn in item["turns"]:
        note = element("p", escape(turn["note"]), class_="note") if turn["note"] else ""
        if turn.get("objects"):
            objects = escape("It noted: " + "; ".join(turn["objects"]))
            note = element("p", objects, class_="objects") + note
        turns += fill(
            "dialogue_turn.html",
            {"note": note},
            question=turn["question"],
            answer=turn["answer"] or "(nothing)",
        )
    style = asset("base.css") + "\n" + asset("dialogue.css")
    head = fill("head.html", {"style": style}, title=title)
    markup = {"head": head, "facts": facts_line(facts), "turns": turns, "seen": ""}
    if item.get("seen"):
        things = "".join(element("li", escape(thing), class_="thing") for thing in item["seen"])
        markup["seen"] = element("figcaption", f"What the model notes first: <ul>{things}</ul>")
    return fill("dialogue.html", markup, title=title, image=item["image"], name=item["name"]) + "\n"
