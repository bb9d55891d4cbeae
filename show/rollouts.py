"""A page of a policy's episodes: clips that play, what was said, and what the policy thought.

Each card shows an episode: its images with the two places that the policy found, its order, whether
the order was done, and the chunk of actions that was followed at the image shown. The page is a
single file that loads nothing. Without JavaScript it shows the first images and all words.
"""

from base import files
from show import pages
from show.pages import element, embed, escape, fill

TITLE = "A policy at the table"
ACTIONS = ("x", "y", "z", "grip")  # names of the numbers of an action, where there are four
SPEEDS = {"slow": 4, "medium": 10, "fast": 30}  # images per second; 10 is real time


def name_of(episode) -> str:
    """The verdict, as the page's filter and colours use it."""
    return "done" if episode.end else "failed"


def notes_of(episode) -> list[str]:
    """What went wrong, besides the verdict, and what the policy said."""
    notes = []
    if episode.ever and not episode.end:
        notes.append("it was done, and then undone")
    if episode.old:
        notes.append("did the order from before the swap")
    if episode.moved:
        notes.append("moved a wrong thing: " + ", ".join(episode.moved))
    if episode.unknown:
        notes.append("unknown words: " + ", ".join(episode.unknown))
    if episode.said is not None:
        verdict = "true" if episode.said.true else "not true"
        notes.append(f"says at the start: {episode.said.text} ({verdict})")
    return notes


def card(episode, name: str) -> str:
    """An episode's card: its first image, and what is said about it."""
    for frame in episode.frames:
        pages.refuse_addresses({"image": frame, "name": name})
    verdict = name_of(episode)
    words = "✓ done" if episode.end else "✗ not done"
    badge = element("span", words, class_="badge good" if episode.end else "badge bad")
    notes = [element("p", escape(note), class_="notes", dir="auto") for note in notes_of(episode)]
    return fill(
        "rollouts_card.html",
        {"badge": badge, "notes": "".join(notes)},
        label=f"{name}: {episode.text} ({words})",
        verdict=verdict,
        split=episode.split,
        verb=episode.verb,
        image=episode.frames[0],
        name=name,
        direction=pages.direction(episode.text),
        order=episode.text,
        meta=f"{episode.verb} · {episode.steps} steps",
        last=len(episode.frames) - 1,
    )


def buttons(key: str, label: str, values: list[str], names: dict[str, str]) -> str:
    """Buttons that filter by an attribute of the cards, with counts; nothing without a choice."""
    kinds = list(dict.fromkeys(values))
    if len(kinds) < 2:
        return ""
    rows = [("", "all", len(values))]
    rows += [(kind, names.get(kind, kind), values.count(kind)) for kind in kinds]
    made = ""
    for value, shown, count in rows:
        content = f"{escape(shown)} {element('small', str(count))}"
        pressed = "false" if value else "true"
        made += element("button", content, data_key=key, data_value=value, aria_pressed=pressed)
    return element("div", made, class_="filters", role="group", aria_label=label)


def filters(episodes: list) -> str:
    """Three groups of buttons: the verdict, the split, the verb."""
    # In this order, whatever the first episode is.
    verdicts = sorted(name_of(episode) for episode in episodes)
    shown = buttons("verdict", "show", verdicts, {"failed": "not done"})
    shown += buttons("split", "split", [episode.split for episode in episodes], {})
    return shown + buttons("verb", "verb", [episode.verb for episode in episodes], {})


def clip(episode) -> dict:
    """What the script plays: the images after the first, and the chunks."""
    chunks = []
    for chunk in episode.chunks:
        numbers = len(chunk["actions"][0])
        names = ACTIONS if numbers == len(ACTIONS) else range(1, numbers + 1)
        chunks.append({**chunk, "names": [str(name) for name in names]})
    return {"frames": episode.frames[1:], "chunks": chunks, "stride": episode.stride}


def page(
    episodes: list,
    facts: dict,
    table: list[list[str]] | None = None,
    title: str = TITLE,
) -> str:
    """The page. Episodes without images are left out.

    episodes: objects with split, verb, text, ever, end, old, moved, steps, unknown, said, frames
    (data: addresses), chunks and stride (steps per image), as robot/film.py makes them. facts:
    shown under the title. table: rows of cells, the first row the header. Raises UserError for an
    image that is not inside the page.
    """
    kept = [episode for episode in episodes if episode.frames]
    cards = ""
    counts: dict[str, int] = {}
    for episode in kept:
        counts[episode.split] = counts.get(episode.split, 0) + 1
        cards += card(episode, f"{episode.split} {counts[episode.split]}")
    return pages.whole_page(
        "rollouts.html",
        title=title,
        styles=("base.css", "player.css", "gallery.css", "rollouts.css"),
        script="rollouts.js",
        markup={
            "facts": pages.facts_line(facts),
            "table": pages.result_table(table) if table else "",
            "filters": filters(kept),
            "cards": cards,
            "bar": fill("rollouts_bar.html", **SPEEDS),
            "data": embed([clip(episode) for episode in kept]),
        },
    )


def write(
    path,
    episodes: list,
    facts: dict,
    table: list[list[str]] | None = None,
    title: str = TITLE,
) -> None:
    """Write the page, whole or not at all, and say what it holds."""
    files.write_text(path, page(episodes, facts, table, title))
    kept = sum(bool(episode.frames) for episode in episodes)
    print(f"wrote {path}: clips of {kept} of {len(episodes)} episodes. Open it in a browser")
