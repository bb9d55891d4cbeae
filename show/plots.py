"""Pictures of results as PNG files (floor 0: numpy and matplotlib, imported when a picture is drawn)."""

import json
from pathlib import Path

import numpy as np

from base import files
from base.files import UserError


def canvas(width: float, height: float):
    """A matplotlib figure and its axes, drawn without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(width, height), dpi=150)


def save(figure, path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    from matplotlib import pyplot as plt

    figure.tight_layout()
    with files.replacing(path) as file:
        figure.savefig(file, format="png")
    plt.close(figure)


def sampler_grid(path, rows: list[dict]) -> None:
    """The judge's nats against unigram entropy, rows[0] being human text. Below and left of it is repetition."""
    figure, axes = canvas(7.5, 5)
    for name in dict.fromkeys(row["sampler"] for row in rows[1:]):
        mine = [row for row in rows[1:] if row["sampler"] == name]
        axes.plot(
            [row["unigram_entropy"] for row in mine],
            [row["judge_nats_per_token"] for row in mine],
            "o-",
            label=name,
            alpha=0.8,
        )
        for row in mine:
            axes.annotate(
                f" {row['steps']}",
                (row["unigram_entropy"], row["judge_nats_per_token"]),
                fontsize=7,
            )
    human = rows[0]
    axes.axhspan(
        human["judge_nats_per_token"] - 0.5,
        human["judge_nats_per_token"] + 0.5,
        color="0.5",
        alpha=0.12,
        label="human ± 0.5 nats",
    )
    axes.axvspan(
        human["unigram_entropy"] * 0.95,
        human["unigram_entropy"] * 1.05,
        color="tab:green",
        alpha=0.08,
        label="human ± 5% entropy",
    )
    axes.plot(
        human["unigram_entropy"],
        human["judge_nats_per_token"],
        "k*",
        markersize=14,
        label="human text",
    )
    axes.set(
        xlabel="unigram entropy (nats)",
        ylabel="nats per token under the twin",
        title="Samples by sampler; the numbers are steps",
    )
    axes.legend(fontsize=8)
    save(figure, path)


def read_curve(run) -> tuple[np.ndarray, np.ndarray]:
    """Tokens seen and held-out bits per byte of a run folder's log.jsonl. Raises UserError if it holds none."""
    path = files.existing(Path(run) / "log.jsonl", "a run folder of train.py", "check --curves")
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        trained = [row for row in rows if "tokens_seen" in row]
        held_out = [row for row in rows if "val_bits_per_byte" in row]
        steps, seen = ([0, *(row[key] for row in trained)] for key in ("step", "tokens_seen"))
        tokens = np.interp([row["step"] for row in held_out], steps, seen)
        bits = np.array([row["val_bits_per_byte"] for row in held_out], dtype=float)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}, which is no log of train.py ({error})",
            "one JSON object a line",
            "name another run folder",
        ) from error
    if not len(bits):
        raise UserError(
            f"{path} without an evaluation",
            "a run that has reached --eval_every",
            "wait, or name another run folder",
        )
    return tokens, bits


def learning_curves(path, runs: list[str]) -> None:
    """Held-out bits per byte against training tokens, a line a run folder."""
    figure, axes = canvas(7, 4.5)
    for run in runs:
        tokens, bits = read_curve(run)
        axes.plot(tokens / 1e6, bits, "o-", markersize=3, label=f"{Path(run).name}: {bits[-1]:.3f}")
    axes.set(
        xlabel="training tokens (millions, repeats counted)",
        ylabel="held-out bits per byte",
        title="Held-out bound, or the twin's exact likelihood",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def caption_steps(path, result: dict) -> None:
    """Captions of val against the denoiser calls allowed, beside the twin and the blind model: truth, or for photographs CIDEr."""
    figure, axes = canvas(6.5, 4)
    steps = [str(row["steps"]) for row in result["steps"]]
    scenes = "truthful" in result["blind"]
    main = "truthful" if scenes else "cider"
    for name, words in (
        (("truthful", "truthful"), ("set_exact", "set-exact")) if scenes else (("cider", "CIDEr"),)
    ):
        low, high = (
            np.abs([100 * (row[name] - row[f"{name}_ci95"][side]) for row in result["steps"]])
            for side in (0, 1)
        )
        axes.errorbar(
            steps,
            [100 * row[name] for row in result["steps"]],
            [low, high],
            fmt="o-",
            capsize=3,
            label=words,
        )
    for words, one, style in (
        ("twin", result.get("twin", {}).get("val"), "--"),
        ("blind", result["blind"], ":"),
    ):
        if one:
            axes.axhline(
                100 * one[main],
                linestyle=style,
                color="0.4",
                label=f"{words}, {'truthful' if scenes else 'CIDEr'}",
            )
    axes.set(
        xlabel="denoiser calls at most",
        ylabel="% of captions" if scenes else "CIDEr × 100",
        title="Captions of val against steps",
    )
    axes.set_ylim(0, 102 if scenes else None)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path)
