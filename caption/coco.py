"""Likeness of captions to references, as coco-caption computes it, in numpy and without Java.

BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004) and CIDEr-D (Vedantam et al. 2015, arXiv 1411.5726,
section 4) over the words of `caption.words`. Every set of figures carries a signature.
"""

import contextlib
import importlib.util
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np

from base import metrics
from base.files import UserError
from caption.words import has_han, ngrams, tokenize

VERSION = 2  # of the figures: it grows when the same captions would score otherwise
LABELS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
    "spice": "SPICE",
    "clip_score": "CLIPScore",
    "ref_clip_score": "RefCLIPScore",
}
# A word counts by the logarithm of images / images that have it: log(1 / 1) = 0.
ONE_IMAGE = (
    "note: CIDEr of a single image is always 0, because it weighs words by how few images have "
    "them; score two images or more"
)
COMPUTED = tuple(LABELS)[:6]  # the figures that need neither Java nor a CLIP


# ---- BLEU -------------------------------------------------------------------------------------


def bleu_statistics(hypotheses: list[list[str]], references: list[list[list[str]]]) -> np.ndarray:
    """What BLEU needs of each image; sums of it are what BLEU needs of a set: (N, 10) float64.

    Columns: right 1- to 4-grams (clipped), all 1- to 4-grams, length of the caption, length of the
    closest reference. Of two references that are equally close, the shorter counts.
    """
    rows = []
    for words, refs in zip(hypotheses, references, strict=True):
        _, closest = min((abs(len(ref) - len(words)), len(ref)) for ref in refs)
        right = []
        for n in range(1, 5):
            allowed: Counter = Counter()
            for ref in refs:
                allowed |= ngrams(ref, n)
            right.append((ngrams(words, n) & allowed).total())
        total = [max(0, len(words) - n) for n in range(4)]
        rows.append([*right, *total, len(words), closest])
    return np.array(rows, dtype=np.float64)


def bleu_of(totals: np.ndarray) -> np.ndarray:
    """Summed statistics (..., 10) to BLEU-1 to BLEU-4 (..., 4), 0 to 1.

    No smoothing, but coco-caption's own guards against division by zero.
    """
    precision = (totals[..., :4] + 1e-15) / (totals[..., 4:8] + 1e-9)
    length = (totals[..., 8:9] + 1e-15) / (totals[..., 9:] + 1e-9)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / length))
    return np.cumprod(precision, -1) ** (1 / np.arange(1, 5)) * brevity


def bleu(hypotheses: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """Corpus BLEU-1 to BLEU-4, 0 to 1."""
    return bleu_of(bleu_statistics(hypotheses, references).sum(0)).tolist()


# ---- ROUGE-L ----------------------------------------------------------------------------------


def common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)  # row[j]: of the words of `a` so far and the first j words of `b`
    for word in a:
        diagonal = 0
        for j, other in enumerate(b):
            above = row[j + 1]
            row[j + 1] = diagonal + 1 if word == other else max(above, row[j])
            diagonal = above
    return row[-1]


def rouge_l(words: list[str], refs: list[list[str]], beta: float = 1.2) -> float:
    """ROUGE-L, 0 to 1: the largest precision and the largest recall, in one F measure.

    The two may come from different references, as in coco-caption.
    """
    words = words or [""]  # coco-caption takes an empty caption for one empty word
    refs = [ref or [""] for ref in refs]
    common = [common_subsequence(words, ref) for ref in refs]
    precision = max(common) / len(words)
    recall = max(n / len(ref) for n, ref in zip(common, refs, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


# ---- CIDEr-D ----------------------------------------------------------------------------------


class CiderD:
    """CIDEr-D with the document frequencies of `references`, for each image its captions as
    words."""

    def __init__(self, references: list[list[list[str]]], sigma: float = 6.0):
        self.sigma = sigma
        self.images_with: Counter = Counter()  # n-gram -> images that have it in a caption
        for refs in references:
            grams = {gram for ref in refs for n in range(1, 5) for gram in ngrams(ref, n)}
            self.images_with.update(grams)
        self.log_images = np.log(len(references))

    def vectors(self, words: list[str]) -> tuple[list[dict], list[float], int]:
        """Weights (tf-idf) of the 1- to 4-grams, their norms, and the length.

        The length is the number of bigrams, as coco-caption counts.
        """
        weights, norms = [], []
        for n in range(1, 5):
            vector = {}
            for gram, count in ngrams(words, n).items():
                idf = self.log_images - np.log(max(1.0, self.images_with[gram]))
                vector[gram] = count * idf
            weights.append(vector)
            norms.append(np.sqrt(sum(value * value for value in vector.values())))
        return weights, norms, max(0, len(words) - 1)

    def score(self, words: list[str], references: list[tuple]) -> float:
        """CIDEr-D of a caption against the `vectors` of its references, 0 to 10."""
        mine, norms, length = self.vectors(words)
        result = 0.0
        for other, other_norms, other_length in references:
            penalty = np.exp(-((length - other_length) ** 2) / (2 * self.sigma**2))
            for n in range(4):
                if not norms[n] or not other_norms[n]:
                    continue
                shared = clipped_product(mine[n], other[n])
                norm = norms[n] * other_norms[n]
                # The mean over n and over references, on coco-caption's scale of 0 to 10.
                result += 10 * penalty * shared / norm / 4 / len(references)
        return result


def clipped_product(mine: dict, other: dict) -> float:
    """The product of two vectors; a weight of `mine` counts at most as much as that of `other`."""
    total = 0
    for gram, value in mine.items():
        if gram in other:
            total += min(value, other[gram]) * other[gram]
    return total


def cider(
    hypotheses: list[list[str]], references: list[list[list[str]]], sigma: float = 6.0
) -> np.ndarray:
    """CIDEr-D of each image, 0 to 10: (N,) float64. Document frequencies are of `references`."""
    judge = CiderD(references, sigma)
    scores = []
    for words, refs in zip(hypotheses, references, strict=True):
        scores.append(judge.score(words, [judge.vectors(ref) for ref in refs]))
    return np.array(scores)


# ---- all figures ------------------------------------------------------------------------------


def signature(references: list[list[str]], dataset: str) -> str:
    """What a score is worth nothing without.

    Tokenizer, references per image (fewest, mean, most), images, document frequencies, the name of
    the data set, and the version of these figures.
    """
    counts = [len(refs) for refs in references]
    per_image = f"{min(counts)}/{np.mean(counts):.2f}/{max(counts)}"
    # Figures over single letters are not those of coco-caption, which counts whole clauses.
    tokens = "ptb+han" if any(has_han(text) for refs in references for text in refs) else "ptb"
    return (
        f"tokens:{tokens}|references:{per_image}|images:{len(counts)}"
        f"|cider:D,df=these|on:{dataset}|version:{VERSION}"
    )


def scores(
    hypotheses: list[str],
    references: list[list[str]],
    dataset: str = "given",
    resamples: int = 2000,
    seed: int = 0,
) -> dict:
    """All figures of captions against their references.

    Returns bleu_1 to bleu_4 and rouge_l from 0 to 1, cider from 0 to 10, each with its name_ci95;
    images; signature; cider_each (N,). Intervals: bootstrap over images. BLEU is computed again for
    each resample; CIDEr keeps its document frequencies.
    """
    ours = [tokenize(text) for text in hypotheses]
    theirs = [[tokenize(text) for text in refs] for refs in references]
    count = len(ours)
    rouge = [rouge_l(words, refs) for words, refs in zip(ours, theirs, strict=True)]
    each = cider(ours, theirs)
    if count == 1:
        print(ONE_IMAGE, file=sys.stderr)
    columns = np.column_stack([bleu_statistics(ours, theirs), rouge, each])  # (N, 12)
    values = figures_of(columns.sum(0), count)
    sums = metrics.resampled_sums(columns, resamples=resamples, seed=seed)  # (resamples, 12)
    low, high = np.percentile(figures_of(sums, count), [2.5, 97.5], axis=0)
    result: dict = {"images": count}
    for i, name in enumerate(COMPUTED):
        result[name] = float(values[i])
        result[f"{name}_ci95"] = [float(low[i]), float(high[i])]
    return result | {"signature": signature(references, dataset), "cider_each": each}


def figures_of(totals: np.ndarray, count: int) -> np.ndarray:
    """Sums (..., 12) over `count` images to the six figures (..., 6)."""
    return np.concatenate([bleu_of(totals[..., :10]), totals[..., 10:] / count], -1)


# ---- figures that need Java -------------------------------------------------------------------


def need_java() -> None:
    """Refuse METEOR and SPICE where they cannot run, before anything long begins."""
    missing = []
    if not importlib.util.find_spec("pycocoevalcap"):
        missing.append("pycocoevalcap")
    if not shutil.which("java"):
        missing.append("java")
    if missing:
        raise UserError(
            f"--meteor_spice without {' and '.join(missing)}",
            "both pycocoevalcap and Java",
            "pip install pycocoevalcap, install a Java runtime, or drop the flag",
        )


def meteor_spice(hypotheses: list[str], references: list[list[str]]) -> dict:
    """METEOR and SPICE, 0 to 1, by coco-caption's own Java programs.

    A program that does not run is left out, with its reason on stderr. SPICE downloads Stanford's
    parser at its first use, and needs Java 8. Raises UserError without Java or pycocoevalcap.
    """
    need_java()
    from pycocoevalcap.meteor.meteor import Meteor  # an optional extra
    from pycocoevalcap.spice.spice import Spice

    ours = {i: [" ".join(tokenize(text))] for i, text in enumerate(hypotheses)}
    theirs = {i: [" ".join(tokenize(text)) for text in refs] for i, refs in enumerate(references)}
    result = {}
    for name, kind in (("meteor", Meteor), ("spice", Spice)):
        try:
            with contextlib.redirect_stdout(sys.stderr):  # SPICE prints what it downloads
                score, _ = kind().compute_score(theirs, ours)
            result[name] = float(score)
        except (OSError, ValueError, KeyError, EOFError, subprocess.SubprocessError) as error:
            reason = f"{name}: left out, it does not run here ({type(error).__name__}: {error})"
            print(reason.replace("\n", " ")[:300], file=sys.stderr)
    return result


# ---- to print ---------------------------------------------------------------------------------


def table(named: dict[str, dict]) -> list[list[str]]:
    """{name: figures} as rows of text, ×100 with 95% intervals; the first row is the header."""
    names = [name for name in LABELS if any(name in figures for figures in named.values())]
    rows = [["", "images", *(LABELS[name] for name in names)]]
    for title, figures in named.items():
        cells = [cell(figures, name) for name in names]
        rows.append([title, str(figures["images"]), *cells])
    return rows


def cell(figures: dict, name: str) -> str:
    """A figure ×100 with its interval, or nothing where it was not computed."""
    if name not in figures:
        return ""
    text = f"{100 * figures[name]:.1f}"
    interval = figures.get(f"{name}_ci95")
    if interval:
        low, high = interval
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text
