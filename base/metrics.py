"""Figures from arrays: intervals, entropy, variety, repetition. Pure functions of numpy arrays."""

import math
from collections.abc import Sequence

import numpy as np


def ratio_interval(
    numerator: np.ndarray, denominator: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95% bootstrap interval of sum(numerator)/sum(denominator) over documents, (N,) float64 each.

    Documents, not tokens, are resampled: tokens of one story are not independent (Efron 1979).
    A draw of documents that count nothing has the ratio 0.
    """
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
        pick = rng.integers(0, len(numerator), len(numerator))
        # A mean of ratios would give short documents the weight of long documents.
        total = denominator[pick].sum()
        ratios.append(numerator[pick].sum() / total if total else 0.0)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def resampled_sums(values: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Sums over rows drawn with replacement: (N, K) to (resamples, K).

    Any function of sums gets its bootstrap interval from them.
    """
    rng = np.random.default_rng(seed)
    n = len(values)
    step = max(1, 4_000_000 // n)  # resamples at once: the counts stay below 32 MB
    sums = []
    for done in range(0, resamples, step):
        # How often a row is drawn is enough: a product replaces the copies of rows.
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - done))
        sums.append(counts @ values)
    return np.concatenate(sums)


def unigram_entropy(texts: Sequence[np.ndarray]) -> float:
    """The entropy in nats of a text's own token frequencies, mean over texts.

    It grows with length, so only texts of equal length can be compared.
    """
    entropies = []
    for ids in texts:
        share = np.unique(ids, return_counts=True)[1] / len(ids)
        entropies.append(-(share * np.log(share)).sum())
    return float(np.mean(entropies))


def ngrams(ids: np.ndarray, n: int) -> list[tuple[int, ...]]:
    """All runs of n tokens."""
    return [tuple(ids[i : i + n].tolist()) for i in range(len(ids) - n + 1)]


def distinct(texts: Sequence[np.ndarray], n: int) -> float:
    """Distinct n-grams over all n-grams of all texts together (Li et al. 2016, arXiv 1510.03055).

    It falls with the number of texts.
    """
    every = [gram for ids in texts for gram in ngrams(ids, n)]
    return len(set(every)) / max(1, len(every))


def repetition(texts: Sequence[np.ndarray], n: int = 4) -> float:
    """Share of n-grams that occurred before in their text, mean over texts.

    This is rep-n of Welleck et al. 2019, arXiv 1908.04319.
    """
    shares = []
    for ids in texts:
        every = ngrams(ids, n)
        # A text shorter than n tokens has no n-gram.
        shares.append(1 - len(set(every)) / max(1, len(every)))
    return float(np.mean(shares))


def variety(texts: Sequence[np.ndarray]) -> dict[str, float]:
    """The figures that need no judge, by name."""
    return {
        "unigram_entropy": unigram_entropy(texts),
        **{f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)},
        "repetition_4": repetition(texts),
    }


def auc(low: Sequence[float], high: Sequence[float]) -> float | None:
    """The chance that a number of `high` is above a number of `low`; ties count half.

    None if a side is empty.
    """
    if not len(low) or not len(high):
        return None
    left, right = np.asarray(low)[:, None], np.asarray(high)[None]
    return float((right > left).mean() + 0.5 * (right == left).mean())


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is the header."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def share_interval(count: int, total: int) -> list[float]:
    """Wilson's 95% interval of a share (Wilson 1927), which also holds near 0 and 1."""
    if not total:
        return [0.0, 1.0]  # nothing was seen, so any share is possible
    z = 1.959964  # 97.5% of a normal distribution lie below it
    share = count / total
    half = z * math.sqrt(count * (total - count) / total**3 + z * z / (4 * total * total))
    centre = share + z * z / (2 * total)
    scale = 1 + z * z / total
    return [max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)]


def agreement(table: np.ndarray, level: str = "ordinal") -> float | None:
    """Krippendorff's alpha of ratings (units, raters), NaN where there is none: 1 is perfect, 0 is
    chance (Krippendorff 2011).

    None where it is not defined: no unit with two ratings, or only one value in all of them.
    """
    # A unit with a single rating has no pair that could agree.
    table = table[(~np.isnan(table)).sum(1) >= 2]
    values = np.unique(table[~np.isnan(table)])
    if len(values) < 2:
        return None
    counts = (table[:, :, None] == values).sum(1).astype(float)  # (units, values)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    # Coincidences of two values in one unit, each unit weighted by its number of partners.
    seen = (pairs / (counts.sum(1) - 1)[:, None, None]).sum(0)
    n = seen.sum(0)
    rank = np.cumsum(n) - n / 2  # a distance is the square of a difference of ranks, or of values
    scale = rank if level == "ordinal" else values
    distance = np.subtract.outer(scale, scale) ** 2
    return float(1 - (seen * distance).sum() * (n.sum() - 1) / (np.outer(n, n) * distance).sum())


def overlap(tokens, others) -> float:
    """Token F1 of two sequences as bags: twice the shared tokens over all tokens."""
    tokens, others = list(tokens), list(others)
    shared = sum(min(tokens.count(token), others.count(token)) for token in set(tokens))
    return 2 * shared / max(1, len(tokens) + len(others))


def matches(written: list[list[int]], wanted: list[list[int]]) -> tuple[dict, np.ndarray]:
    """How often filled blanks hold the wanted ids: exact matches and token F1, with 95% intervals.

    Returns the figures by name, and the F1 of each of the N blanks: (N,) float64.
    """
    exact, scores = 0, np.zeros(len(written))
    for number, (mine, theirs) in enumerate(zip(written, wanted, strict=True)):
        exact += list(mine) == list(theirs)
        scores[number] = overlap(mine, theirs)
    figures = {
        "blanks": len(written),
        "exact": exact / len(written),
        "exact_ci95": share_interval(exact, len(written)),
        "token_f1": float(scores.mean()),
        "token_f1_ci95": ratio_interval(scores, np.ones(len(scores))),  # over ones: of the mean
    }
    return figures, scores


def interval(row: dict, name: str, *, scale: float = 1.0, digits: int = 3) -> str:
    """A figure of a row and its 95% interval for a table: "0.512 [0.498, 0.526]"; "" if it is
    missing.
    """
    if name not in row:
        return ""
    text = f"{scale * row[name]:.{digits}f}"
    if f"{name}_ci95" not in row:
        return text
    low, high = row[f"{name}_ci95"]
    return f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
