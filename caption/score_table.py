"""What is printed of a captioner's scores: a table, and the lines below it."""

from base import metrics
from caption import store_scores, truth

PHOTO_COLUMNS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "distinct_captions")
MORE_COLUMNS = ("meteor", "spice", "clip_score", "ref_clip_score")


def named_rows(result: dict) -> list[tuple[str, dict]]:
    """The rows of the table: a name and its figures."""
    rows = list(result["splits"].items())
    for split, sizes in result.get("objects", {}).items():
        for size, figures in sizes.items():
            if len(sizes) > 1:
                rows.append((f"{split}, {plural(int(size), 'object')}", figures))
    for name in ("twin", "probe"):
        for split, figures in result.get(name, {}).items():
            rows.append((f"{name}, {split}", figures))
    rows.append(("blind, val", result["blind"]))
    rows += [(f"{name}, val", figures) for name, figures in result.get("controls", {}).items()]
    rows += [(f"{name}, val", figures) for name, figures in result.get("stores", {}).items()]
    for figures in result["steps"]:
        name = f"val, {plural(figures['steps'], 'step')}, {figures['calls']:.1f} calls"
        rows.append((name, figures))
    return rows


def plural(count: int, noun: str) -> str:
    """ "1 step", "4 steps"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(result: dict) -> list[list[str]]:
    """The figures as rows of text, in percent; the first row is the header."""
    # Only drawn scenes have a truth; photographs have references alone.
    blind = result["blind"]
    columns = list(truth.columns(blind) if "truthful" in blind else PHOTO_COLUMNS)
    for name in MORE_COLUMNS:
        if any(name in figures for figures in result["splits"].values()):
            columns.append(name)
    heads = [name.replace("_accuracy", "").replace("_", " ") for name in columns]
    rows = [["", "images", *heads]]
    for name, figures in named_rows(result):
        cells = [f"{100 * figures[key]:.1f}" if key in figures else "" for key in columns]
        rows.append([name, str(figures.get("images", "")), *cells])
    return rows


def lines(result: dict) -> list[str]:
    """What is printed: the table, the signatures of its figures, swapped pairs, filled blanks."""
    printed = [metrics.markdown(table(result)), *signatures(result)]
    for key, scores in result.items():
        if key.removeprefix("twin_").startswith("swap"):
            figures = [f"{name} {100 * scores[name]:.1f}" for name in ("text", "image", "group")]
            printed.append(f"{key}: " + "  ".join(figures))
    for key in ("infilling", "twin_infilling"):
        for span, row in result.get(key, {}).items():
            exact, f1 = 100 * row["exact"], 100 * row["token_f1"]
            printed.append(f"{key} of {span} tokens: exact {exact:.1f}  token F1 {f1:.1f}")
    return printed + store_scores.lines(result.get("stores", {}))


def signatures(result: dict) -> list[str]:
    """What the figures of photographs rest on, each signature once."""
    rows = list(result["splits"].values()) + list(result.get("twin", {}).values())
    rows += [result["blind"], *result["steps"]]
    return list(dict.fromkeys(row["signature"] for row in rows if "signature" in row))
