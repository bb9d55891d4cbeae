"""Plots of results as PNG files. matplotlib is imported when a plot is drawn."""

import numpy as np

from base import files

HUMAN_NATS = 0.5  # samples this near to human text, under the judge, count as human-like
HUMAN_ENTROPY = 0.05  # share of the human entropy; a lower entropy is repetition


def canvas(width: float, height: float, rows: int = 1, columns: int = 1):
    """A matplotlib figure of width × height inches and its axes, drawn without a screen.

    Axes are an array (rows, columns) if there are several.
    """
    import matplotlib

    # On a server without a screen, a backend with windows would fail.
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, figsize=(width, height), dpi=150)


def save(figure, path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    from matplotlib import pyplot as plt

    figure.tight_layout()
    with files.replacing(path) as file:
        figure.savefig(file, format="png")
    plt.close(figure)  # pyplot keeps every figure until it is closed


# --- samples of text ---------------------------------------------------------------------------


def sampler_grid(path, rows: list[dict]) -> None:
    """The judge's nats per token against unigram entropy.

    Below and left of human text is repetition.

    rows: human text, then a row per sampler and number of steps: sampler, steps, unigram_entropy,
    judge_nats_per_token.
    """
    figure, axes = canvas(7.5, 5)
    human, *samples = rows
    for name in dict.fromkeys(row["sampler"] for row in samples):
        points = [row for row in samples if row["sampler"] == name]
        entropy = [row["unigram_entropy"] for row in points]
        nats = [row["judge_nats_per_token"] for row in points]
        axes.plot(entropy, nats, "o-", label=name, alpha=0.8)
        for row, x, y in zip(points, entropy, nats, strict=True):
            axes.annotate(f" {row['steps']}", (x, y), fontsize=7)
    mark_human(axes, human["unigram_entropy"], human["judge_nats_per_token"])
    axes.set(
        xlabel="unigram entropy (nats)",
        ylabel="nats per token under the twin",
        title="Samples by sampler; the numbers are steps",
    )
    axes.legend(fontsize=8)
    save(figure, path)


def mark_human(axes, entropy: float, nats: float) -> None:
    """Human text as a star, with the bands in which samples count as human-like."""
    low, high = nats - HUMAN_NATS, nats + HUMAN_NATS
    axes.axhspan(low, high, color="0.5", alpha=0.12, label="human ± 0.5 nats")
    low, high = entropy * (1 - HUMAN_ENTROPY), entropy * (1 + HUMAN_ENTROPY)
    axes.axvspan(low, high, color="tab:green", alpha=0.08, label="human ± 5% entropy")
    axes.plot(entropy, nats, "k*", markersize=14, label="human text")


# --- captions ----------------------------------------------------------------------------------


def caption_steps(path, result: dict) -> None:
    """Captions of val against the allowed denoiser calls, with the twin and the blind model.

    result: steps (rows with steps and figures with _ci95), blind, and perhaps twin {val: figures}.
    Drawn scenes show the share of truthful and of set-exact captions, photographs show CIDEr.
    """
    figure, axes = canvas(6.5, 4)
    rows = result["steps"]
    scenes = "truthful" in result["blind"]
    if scenes:
        labels = {"truthful": "truthful", "set_exact": "set-exact"}
        main, limit, unit = "truthful", 102, "% of captions"  # 102: 100% is not cut
    else:
        labels = {"cider": "CIDEr"}
        main, limit, unit = "cider", None, "CIDEr × 100"
    # As words, 1, 2, 4, 8 and 16 stand at equal distances; as numbers, 1 and 2 would touch.
    steps = [str(row["steps"]) for row in rows]
    for name, label in labels.items():
        values = [100 * row[name] for row in rows]
        # errorbar wants distances from the value, not the ends of the interval.
        errors = [
            np.abs([100 * (row[name] - row[f"{name}_ci95"][side]) for row in rows])
            for side in (0, 1)
        ]
        axes.errorbar(steps, values, errors, fmt="o-", capsize=3, label=label)
    twin = result.get("twin", {}).get("val")
    for name, figures, style in (("twin", twin, "--"), ("blind", result["blind"], ":")):
        if figures:
            label = f"{name}, {labels[main]}"
            axes.axhline(100 * figures[main], linestyle=style, color="0.4", label=label)
    axes.set(xlabel="denoiser calls at most", ylabel=unit, title="Captions of val against steps")
    axes.set_ylim(0, limit)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path)


# --- robots ------------------------------------------------------------------------------------


def kept_by_doubt(path, curves: dict) -> None:
    """Success among the episodes that are kept, the least doubtful first.

    curves: signal -> (shares kept (n,), success among the kept (n,)).
    """
    figure, axes = canvas(6, 4)
    for name, (kept, success) in curves.items():
        axes.plot(100 * kept, 100 * success, label=name)
    axes.set(
        xlabel="episodes that are kept, the least doubtful first (%)",
        ylabel="done among the kept (%)",
        title="What if the arm stands still when in doubt?",
    )
    axes.legend(fontsize=8, title="sorted by")
    axes.grid(alpha=0.3)
    save(figure, path)
