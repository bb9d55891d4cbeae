"""Signals that a policy does not know what to do, and how well they foretell failure.

    nats     -log p per number of its chunk, under the law that made it (net/chunks.py)
    entropy  of the numbers before the first choice
    naming   entropy of which thing, or cell of a map, the order names
    unknown  share of the order's words that training never said

Each is a number that rises with doubt. An episode has the mean over its chunks.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from net.chunks import Trace

SIGNALS = ("nats", "entropy", "naming", "unknown")


def naming_entropy(scores: Tensor) -> float:
    """The entropy of the first role's choice, in nats: log-probabilities (1, R, N)."""
    log_p = scores[0, 0]
    chances = log_p.exp()
    # A row that is no thing has -inf, and no part in the sum.
    return float(-(chances * log_p.clamp(min=-1e4)).sum())


def of_chunk(trace: Trace, scores: Tensor) -> dict[str, float]:
    """The signals of a chunk; without nats and entropy for a head that writes numbers."""
    found = {"naming": naming_entropy(scores)}
    if trace.nats is not None and trace.entropy is not None:
        found |= {"nats": float(trace.nats[0]), "entropy": float(trace.entropy[0])}
    return found


def of_episode(made: Sequence[dict], text: str, unknown: Sequence[str]) -> dict[str, float]:
    """The signals of an episode: means over its chunks, and the share of unknown words."""
    chunks = [each["doubt"] for each in made]
    names = [name for name in SIGNALS if chunks and name in chunks[0]]
    found = {name: float(np.mean([chunk[name] for chunk in chunks])) for name in names}
    return found | {"unknown": len(unknown) / max(1, len(text.split()))}


def auc(low: Sequence[float], high: Sequence[float]) -> float | None:
    """The chance that a number of `high` is above a number of `low`; ties count half.

    None if a side is empty.
    """
    if not len(low) or not len(high):
        return None
    left, right = np.asarray(low)[:, None], np.asarray(high)[None]
    return float((right > left).mean() + 0.5 * (right == left).mean())


def kept_success(doubts: Sequence[float], done: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """If only the least doubtful episodes are acted on: shares kept (n,), success among them (n,).

    Episodes of equal doubt are kept together: the success of a cut among them is interpolated.
    """
    doubts, right = np.asarray(doubts), np.asarray(done, dtype=float)
    for value in np.unique(doubts):
        right[doubts == value] = right[doubts == value].mean()
    ordered = right[np.argsort(doubts, kind="stable")]
    number = np.arange(1, len(ordered) + 1)
    return number / len(ordered), ordered.cumsum() / number
