"""People rate captions: a page to rate them on, blind, and the figures of the saved ratings.

The page is one file that loads nothing. It shows one image and one caption at a time, in a seeded
random order. The keys 1 to 5 rate, the browser keeps the progress, and a button saves a file:

    {"format": 1, "kind": "caption ratings", "page": …, "rater": …,
     "ratings": [{"image", "caption", "sources", "rating"}]}

A source is what wrote a caption: a model's name, `human`, or `shuffled` (a person's caption of
another image, the floor of the scale). The page holds the sources encoded, so that nobody reads
them in passing.
"""

import base64
import json
import re
from pathlib import Path

import numpy as np

from base import files, images, metrics
from base.files import UserError
from show import pages

SCALE = ("not at all", "poorly", "partly", "mostly", "perfectly")  # the words of 1 to 5
GOOD = 4  # "mostly": the share of ratings from here on is reported
HUMAN, SHUFFLED = "human", "shuffled"
IMAGE_SIDE = 640  # pixels: sharp on a laptop, and 50 photographs make a page of a few MB
SAVED = "ratings that a page of evaluate.py --rate saved"

# Tokenizers write "a dog 's ball ." with spaces before these marks; people do not.
SPACED_MARKS = re.compile(r"\s+([.,;:!?%)]|n't\b|'(?:s|re|ve|ll|d|m)\b)")


# --- the page ----------------------------------------------------------------------------------


def dress(caption: str) -> str:
    """A caption as the page shows it: "A dog 's ball ." -> "A dog's ball".

    All captions get the same spaces, capital and end. Otherwise a rater would know a source by
    its full stop.
    """
    caption = " ".join(caption.split())
    caption = SPACED_MARKS.sub(r"\1", caption).rstrip(" .")
    return caption[:1].upper() + caption[1:]


def check_sources(shown: list[dict]) -> None:
    """Raise UserError if there is too little to rate, or a model has the name of another source."""
    if len(shown) < 2:
        raise UserError(
            f"{len(shown)} image to rate",
            "at least 2: each image lends another image a wrong caption",
            "rate more images",
        )
    for name in shown[0]["captions"]:
        if name in (HUMAN, SHUFFLED):
            raise UserError(
                f"captions of a source called {name!r}",
                "another name: the page itself adds a source of that name",
                "rename the file",
            )


def compose(shown: list[dict], seed: int = 0) -> list[dict]:
    """The captions to rate, in the order in which the page shows them.

    shown: for each image its name, image (a data: address), references, and captions {source:
    caption}. Returns items {name, image, captions: [{text, sources}]}. A reference of the image is
    added as `human`, and the reference of another image as `shuffled`. Captions of one image that
    look the same are rated once and have several sources. Raises UserError for fewer than 2 images.
    """
    check_sources(shown)
    # A seed, so that the same command makes the same page again.
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(shown))
    human = [entry["references"][rng.integers(len(entry["references"]))] for entry in shown]
    items = []
    # In a cycle through the shuffled images, each image borrows its successor's reference.
    for number, successor in zip(order, np.roll(order, -1), strict=True):
        entry = shown[number]
        captions = {**entry["captions"], HUMAN: human[number], SHUFFLED: human[successor]}
        sources: dict[str, list[str]] = {}  # the captions' texts: who wrote them
        for source, caption in captions.items():
            # Compared as the rater sees them: a final full stop does not make another caption.
            sources.setdefault(dress(caption), []).append(source)
        texts = list(sources)
        # In a fixed order, the place of a caption would betray its source.
        shuffled = [texts[index] for index in rng.permutation(len(texts))]
        items.append(
            {
                "name": entry["name"],
                "image": entry["image"],
                "captions": [{"text": text, "sources": sources[text]} for text in shuffled],
            }
        )
    return items


def encoded(item: dict) -> dict:
    """An item of `compose` as the page holds it: the sources in base64, under "key"."""
    captions = []
    for caption in item["captions"]:
        # Not a secret: base64 only keeps a rater from reading the sources by accident.
        sources = json.dumps(caption["sources"]).encode()
        captions.append({"text": caption["text"], "key": base64.b64encode(sources).decode()})
    return {**item, "captions": captions}


def page(items: list[dict], title: str = "Rate the captions") -> str:
    """The page on which items, made by `compose`, are rated.

    Raises UserError for an image that is not inside the page.
    """
    for item in items:
        pages.refuse_addresses(item)
    shown = [encoded(item) for item in items]
    # The checksum names the page in saved files: ratings of two pages are never mixed up.
    data = {"page": files.sha256(json.dumps(shown).encode()), "items": shown}
    scale = ""
    for number, word in enumerate(SCALE, 1):
        label = pages.element("b", str(number)) + pages.escape(word)
        scale += pages.element("button", label, aria_pressed="false", aria_keyshortcuts=number)
    return pages.whole_page(
        "ratings.html",
        title=title,
        styles=("base.css", "ratings.css"),
        script="ratings.js",
        markup={"scale": scale, "data": pages.embed(data)},
    )


def write(path, shown: list[dict], seed: int = 0) -> dict:
    """Write the page. shown: as for `compose`, with picture (a path) in place of image.

    Returns the counts {"captions", "images"}.
    """
    embedded = []
    for entry in shown:
        image = images.data_uri(images.open_image(entry["picture"]), IMAGE_SIDE)
        embedded.append({**entry, "image": image})
    items = compose(embedded, seed)
    files.write_text(path, page(items))
    counts = {"captions": sum(len(item["captions"]) for item in items), "images": len(items)}
    print(
        f"wrote {path}: {counts['captions']} captions of {counts['images']} images. Open it in a "
        "browser, rate, save, and run evaluate.py --ratings on the saved files"
    )
    return counts


# --- the saved ratings -------------------------------------------------------------------------


def is_sound(row) -> bool:
    """Whether an entry of a saved file holds texts, at least one source, and a rating of 1 to 5."""
    try:
        texts = (row["image"], row["caption"], *row["sources"])
        return (
            type(row["rating"]) is int  # not True, which is an int too
            and 1 <= row["rating"] <= len(SCALE)
            and bool(row["sources"])
            and all(isinstance(text, str) for text in texts)
        )
    except (KeyError, TypeError):
        return False


def read_file(path: str) -> tuple[str, str, list[dict]]:
    """Page, rater and rows of one saved file. Raises UserError on anything else."""
    content = files.read_json(path, SAVED, "check --ratings")
    version, kind, ratings = (content.get(key) for key in ("format", "kind", "ratings"))
    if version != 1 or kind != "caption ratings" or not isinstance(ratings, list):
        raise UserError(
            f"{path} with format {version!r} and kind {kind!r}", SAVED, "check --ratings"
        )
    page_name = str(content.get("page"))
    rater = str(content.get("rater") or Path(path).stem)  # no name given: the file's
    rows = []
    for number, row in enumerate(ratings, 1):
        if not is_sound(row):
            raise UserError(
                f"entry {number} of {path}, which is damaged",
                f"image, caption, sources, and a rating of 1 to {len(SCALE)}",
                "check --ratings",
            )
        values = {key: row[key] for key in ("image", "caption", "sources", "rating")}
        rows.append({"page": page_name, "rater": rater, **values})
    return page_name, rater, rows


def read(paths: list[str]) -> list[dict]:
    """Files that the page saved, as rows of page, rater, image, caption, sources, rating.

    Raises UserError on other files, on damaged entries, and on two files of one rater and page.
    """
    rows: list[dict] = []
    path_of: dict[tuple[str, str], str] = {}
    for path in paths:
        page_name, rater, new_rows = read_file(path)
        # The browser keeps the progress, so a later file holds the earlier ratings again. Both
        # would count them twice.
        if (page_name, rater) in path_of:
            raise UserError(
                f"{path} and {path_of[page_name, rater]} from one rater ({rater}) of one page",
                "one file per rater",
                "leave one out",
            )
        path_of[page_name, rater] = path
        rows += new_rows
    if not rows:
        raise UserError(
            f"no rating in {', '.join(paths)}", "at least one", "rate some captions first"
        )
    return rows


def numbered(keys) -> dict:
    """Each different key with its number, in the order of the first appearance."""
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}


def source_figures(rows: list[dict], source: str, image_number: dict) -> dict:
    """Mean rating and share of good ratings of one source, with intervals over images.

    The image is what is drawn again for an interval: ratings of one image are not independent.
    """
    total, count, good = np.zeros((3, len(image_number)))
    for row in rows:
        if source in row["sources"]:
            number = image_number[row["page"], row["image"]]
            total[number] += row["rating"]
            count[number] += 1
            good[number] += row["rating"] >= GOOD
    rated = count > 0
    return {
        "images": int(rated.sum()),
        "ratings": int(count.sum()),
        "mean": total.sum() / count.sum(),
        "mean_ci95": metrics.ratio_interval(total[rated], count[rated]),
        "good": good.sum() / count.sum(),
        "good_ci95": metrics.ratio_interval(good[rated], count[rated]),
    }


def rating_matrix(rows: list[dict]) -> np.ndarray:
    """Ratings as (captions, raters), NaN where a rater did not rate a caption."""
    rater_number = numbered(row["rater"] for row in rows)
    caption_number = numbered((row["page"], row["image"], row["caption"]) for row in rows)
    matrix = np.full((len(caption_number), len(rater_number)), np.nan)
    for row in rows:
        caption = caption_number[row["page"], row["image"], row["caption"]]
        matrix[caption, rater_number[row["rater"]]] = row["rating"]
    return matrix


def summary(rows: list[dict]) -> dict:
    """{"sources": {source: figures}, "raters", "images", "alpha_ordinal", "alpha_interval"}.

    The best source comes first. Krippendorff's alpha is None where no two raters rated the same
    caption, or all of them gave the same rating.
    """
    image_number = numbered((row["page"], row["image"]) for row in rows)
    figures = {
        source: source_figures(rows, source, image_number)
        for source in numbered(name for row in rows for name in row["sources"])
    }
    matrix = rating_matrix(rows)
    return {
        "sources": dict(sorted(figures.items(), key=lambda entry: -entry[1]["mean"])),
        "raters": matrix.shape[1],
        "images": len(image_number),
        "alpha_ordinal": metrics.agreement(matrix, "ordinal"),
        "alpha_interval": metrics.agreement(matrix, "interval"),
    }


def with_interval(figures: dict, key: str, scale: int, digits: int) -> str:
    """A figure and its 95% interval: "4.00 [3.75, 4.25]"."""
    low, high = figures[key + "_ci95"]
    middle, low, high = (f"{scale * value:.{digits}f}" for value in (figures[key], low, high))
    return f"{middle} [{low}, {high}]"


def table(result: dict) -> list[list[str]]:
    """The figures of `summary` as rows of text, the first row the header."""
    rows = [["", "images", "ratings", f"mean of 1 to {len(SCALE)}", "4 or 5, %"]]
    for source, figures in result["sources"].items():
        mean = with_interval(figures, "mean", 1, 2)
        good = with_interval(figures, "good", 100, 1)
        rows.append([source, str(figures["images"]), str(figures["ratings"]), mean, good])
    return rows


def agreement_line(result: dict) -> str:
    """How many people rated, and how far they agree."""
    ordinal, interval = result["alpha_ordinal"], result["alpha_interval"]
    if ordinal is None or interval is None:
        agreement = "not defined: it takes two raters of one page, and ratings that differ"
    else:
        agreement = f"Krippendorff's alpha {ordinal:.3f} (ordinal), {interval:.3f} (interval)"
    return f"raters: {result['raters']}; agreement: {agreement}"
