"""Plots of results as PNG files. matplotlib is imported when a plot is drawn."""

import numpy as np

from base import files

# Of Okabe and Ito's colours, which colour-blind people tell apart.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
BESIDE = ((GREEN, "-."), (VERMILION, "--"))  # of models that are compared with a line

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


# --- few data, many passes ---------------------------------------------------------------------

SIDES = {"diffusion": ("diffusion", BLUE, "-"), "ar": ("twin", VERMILION, "--")}
ABOVE = 1.6  # curves are cut off this many times above the best point of the worst run


def few_data(path, runs: list[dict]) -> None:
    """Held-out bits per byte against passes: a panel per number of tokens, a line per run.

    runs: unique_tokens, tokens, side (a key of SIDES), trial, is_best, passes and bits_per_byte.
    The best trial of each side is bold, and a dot marks its best point.
    """
    panels = list(dict.fromkeys(run["unique_tokens"] for run in runs))
    figure, grid = canvas(5.5 * len(panels), 4.6, 1, len(panels))
    for axes, wanted in zip(np.atleast_1d(grid), panels, strict=True):
        mine = [run for run in runs if run["unique_tokens"] == wanted]
        for run in sorted(mine, key=lambda run: run["is_best"]):  # bold lines lie above
            draw_run(axes, run)
        every = np.concatenate([run["bits_per_byte"] for run in mine])
        highest = max(np.min(run["bits_per_byte"]) for run in mine)
        low, high = every.min(), min(every.max(), ABOVE * highest)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.set_xscale("log", base=2)  # base 10 would have one or two ticks
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(
            xlabel="passes over the tokens",
            ylabel="held-out bits per byte",
            title=f"{mine[0]['tokens']:,} tokens",
        )
        axes.grid(alpha=0.3)
        title = "best trial (dropout:weight decay)"
        # Below the panel, where it hides no curve.
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15)}
        axes.legend(fontsize=8, title=title, title_fontsize=8, **below)
    save(figure, path)


def draw_run(axes, run: dict) -> None:
    """A run as a thin line, or as a bold line with its best point if it is its side's best."""
    name, colour, style = SIDES[run["side"]]
    passes, bits = run["passes"], run["bits_per_byte"]
    if not run["is_best"]:
        axes.plot(passes, bits, style, color=colour, linewidth=0.8, alpha=0.6)
        return
    best = int(np.argmin(bits))
    label = f"{name} {run['trial']}: {bits[best]:.3f} at pass {passes[best]:.1f}"
    axes.plot(passes, bits, style, color=colour, linewidth=2.4, label=label)
    axes.plot(passes[best], bits[best], "o", color=colour, markersize=7)


# --- block sizes -------------------------------------------------------------------------------


def block_line(path, rows: list[dict], human: dict) -> None:
    """Bits per byte, the judge's nats and the speed of a block model against its block size.

    rows: side, block_size (0: a model beside it, drawn as a level line), bits_per_byte with _ci95,
    samples (steps, and judge_nats_per_token if they were judged), tokens_per_second.
    human: judge_nats_per_token, if human text was judged.
    """
    judged = "judge_nats_per_token" in human
    figure, grid = canvas(12 if judged else 8.5, 5, 1, 3 if judged else 2)
    blocks = [row for row in rows if row["block_size"]]
    sizes = [row["block_size"] for row in blocks]
    beside = [row for row in rows if not row["block_size"]]
    likelihood, *middle, speed = grid
    bits = np.array([row["bits_per_byte"] for row in blocks])
    low, high = np.array([row["bits_per_byte_ci95"] for row in blocks]).T
    likelihood.errorbar(sizes, bits, [bits - low, high - bits], fmt="o-", color=BLUE, capsize=3)
    speed.plot(sizes, [row["tokens_per_second"] for row in blocks], "o-", color=BLUE)
    for row, (colour, style) in zip(beside, BESIDE, strict=False):
        how = {"color": colour, "linestyle": style, "label": row["side"]}
        likelihood.axhline(row["bits_per_byte"], **how)
        speed.axhline(row["tokens_per_second"], **how)
    for axes in middle:
        draw_judged(axes, blocks, beside, human)
    likelihood.set(ylabel="bits per byte", title="held-out text")
    speed.set(ylabel="tokens per second", title="one text at a time", ylim=(0, None))
    for axes in grid:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("tokens per block")
        axes.grid(alpha=0.3)
        if beside or axes in middle:
            # Below the panel, where it hides no line.
            axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    save(figure, path)


def draw_judged(axes, blocks: list[dict], beside: list[dict], human: dict) -> None:
    """The judge's nats of samples: a line per number of calls."""
    sizes = [row["block_size"] for row in blocks]
    counts = [row["steps"] for row in blocks[-1]["samples"]]
    for number, (steps, style) in enumerate(zip(counts, ("-", ":", "--", "-."), strict=False)):
        # Blocks of one token have a single row: they take a call per token.
        found = [row["samples"][min(number, len(row["samples"]) - 1)] for row in blocks]
        nats = [row["judge_nats_per_token"] for row in found]
        axes.plot(sizes, nats, "o" + style, color=BLUE, label=f"blocks, {steps} calls at most")
    for row, (colour, style) in zip(beside, BESIDE, strict=False):
        last = row["samples"][-1]
        label = f"{row['side']}, {last['steps']} calls at most"
        axes.axhline(last["judge_nats_per_token"], color=colour, linestyle=style, label=label)
    axes.axhline(human["judge_nats_per_token"], color="0.3", linewidth=1, label="human text")
    axes.set(ylabel="nats per token under the judge", title="samples")


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
