"""Signals that a policy does not know what to do, and how well they foretell failure.

    nats     -log p per number of its chunk, under the law that made it (net/chunks.py)
    entropy  of the numbers before the first choice
    naming   entropy of which thing, or cell of a map, the order names
    unknown  share of the order's words that training never said

Each is a number that rises with doubt. An episode has the signals of its first chunk, which are
known before the arm moves, and the means over its chunks.
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from base import words
from base.driving import Made
from net.chunks import Trace

SIGNALS = ("nats", "entropy", "naming", "unknown")
WHENS = ("first", "mean")
Z = 1.96  # of an interval of 95%


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


def of_episode(
    made: Sequence[Made], text: str, unknown: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The signals of an episode: {"first": of its first chunk, "mean": over its chunks}.

    The share of unknown words is the same in both.
    """
    chunks = [each.doubt for each in made]
    names = [name for name in SIGNALS if chunks and name in chunks[0]]
    share = {"unknown": len(unknown) / max(1, len(words.split(text)))}
    first = {name: float(chunks[0][name]) for name in names}
    mean = {name: float(np.mean([chunk[name] for chunk in chunks])) for name in names}
    return {"first": first | share, "mean": mean | share}


def medians(doubts: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The median of each signal over episodes, for the signals that every episode has."""
    found: dict[str, dict[str, float]] = {}
    for when in WHENS:
        for name in SIGNALS:
            numbers = [each[when][name] for each in doubts if name in each.get(when, {})]
            if numbers and len(numbers) == len(doubts):
                found.setdefault(when, {})[name] = float(np.median(numbers))
    return found


def auc_interval(value: float, low: int, high: int) -> tuple[float, float]:
    """The 95% interval of an AUC from `low` and `high` numbers on its sides.

    Newcombe's fifth method (Statistics in Medicine 25, 2006, page 559). It stays wide at 0 and 1,
    where a bootstrap has no width.
    """

    def far(true: float) -> bool:
        pairs = (low + high) / 2 - 1
        spread = 1 + pairs * (1 - true) / (2 - true) + pairs * true / (1 + true)
        return abs(value - true) > Z * np.sqrt(true * (1 - true) * spread / (low * high))

    return edge(far, 0.0, value), edge(far, 1.0, value)


def edge(far: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where `far` changes between a number outside an interval and a number inside, by halving."""
    for _ in range(40):
        middle = (outside + inside) / 2
        if far(middle):
            outside = middle
        else:
            inside = middle
    return inside


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
