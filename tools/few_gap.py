"""The gap between the best trials of both sides on few data, and who overtook whom, and when."""

import numpy as np
import torch

from base import metrics
from loop import checkpoint
from text.data import TextData
from text.document_scores import score_documents
from text.samples import bar_of


def mark_best(rows: list[dict]) -> None:
    """Give each run `is_best`: whether no trial of its side and tokens is better."""
    lowest: dict[tuple, dict] = {}
    for row in rows:
        key = (row["unique_tokens"], row["side"])
        if key not in lowest or row["best_bits_per_byte"] < lowest[key]["best_bits_per_byte"]:
            lowest[key] = row
    for row in rows:
        row["is_best"] = row is lowest[row["unique_tokens"], row["side"]]


def best_pairs(rows: list[dict]) -> list[tuple[dict, dict]]:
    """The best trials of diffusion and of the twin, for each number of tokens."""
    best = [row for row in rows if row["is_best"]]
    pairs = []
    for wanted in dict.fromkeys(row["unique_tokens"] for row in best):
        mine = {row["side"]: row for row in best if row["unique_tokens"] == wanted}
        pairs.append((mine["diffusion"], mine["ar"]))
    return pairs


def overtaken_at(diffusion: dict, twin: dict) -> float | None:
    """The pass at which diffusion was first better than the twin at its best, or None."""
    for passes, bits in zip(diffusion["passes"], diffusion["bits_per_byte"], strict=True):
        if bits < twin["best_bits_per_byte"]:
            return passes
    return None


def still_improves(run: dict) -> bool:
    """Whether the last point of a run is its best: more passes may be better still."""
    return run["passes_at_best"] == run["passes_run"]


def verdict(diffusion: dict, twin: dict, highest: float) -> str:
    """Whether diffusion overtook the twin, in words. highest: the upper end of the gap's interval.

    The curves and the gap are of different documents, so they may disagree.
    """
    at = overtaken_at(diffusion, twin)
    if at is None:
        words = f"not overtaken within {diffusion['passes_run']:.1f} passes"
        return words + (", and diffusion still improves" if still_improves(diffusion) else "")
    if still_improves(twin):
        return "too few passes: the twin still improves"
    return f"overtaken at pass {at:.1f}" + (", but the gap may be 0" if highest >= 0 else "")


def score(path: str, options, device: torch.device) -> np.ndarray:
    """Of each held-out document: bits under best.pt of a run, and bytes. (N, 2) float64."""
    model, _, saved = checkpoint.open_model(f"{path}/best.pt", device, kinds=("text",))
    data = TextData(options.data_dir, "val", model.config.max_length)
    found = score_documents(
        model,
        saved["objective"],
        data,
        saved["statistics"],
        documents=options.documents or None,
        draws=options.draws,
        seed=options.seed,
        progress=bar_of("batch"),
    )
    return np.stack([found.nats / np.log(2), found.bytes], axis=1)


def gap_of(diffusion: dict, twin: dict, options, device: torch.device) -> dict:
    """Bits per byte of both best trials on the same documents, and their gap with its interval.

    Below 0, diffusion is better. Documents that chose the trials are left out if there are others.
    """
    ours, theirs = (score(row["run"], options, device) for row in (diffusion, twin))
    unseen = len(ours) > options.eval_documents
    first = options.eval_documents if unseen else 0
    # Documents are drawn in pairs: what is hard for one side is hard for the other.
    values = np.stack([ours[first:, 0], theirs[first:, 0], ours[first:, 1]], axis=1)
    sums = metrics.resampled_sums(values, seed=options.seed)
    gaps = (sums[:, 0] - sums[:, 1]) / sums[:, 2]
    low, high = (float(end) for end in np.percentile(gaps, [2.5, 97.5]))
    total = values.sum(0)
    return {
        "unique_tokens": diffusion["unique_tokens"],
        "tokens": diffusion["tokens"],
        "documents": len(values),
        "unseen": unseen,
        "diffusion": float(total[0] / total[2]),
        "ar": float(total[1] / total[2]),
        "diffusion_trial": diffusion["trial"],
        "ar_trial": twin["trial"],
        "gap": float((total[0] - total[1]) / total[2]),
        "gap_ci95": [low, high],
        "overtaken_at": overtaken_at(diffusion, twin),
        "verdict": verdict(diffusion, twin, high),
    }


def note(gaps: list[dict]) -> str:
    """How to read the gaps."""
    line = "A gap below 0: diffusion is better. 95% intervals by documents."
    if not all(gap["unseen"] for gap in gaps):
        line += " The same documents chose the trials: prepare more, or lower --eval_documents."
    return line
