"""Likeness of captions to references, as coco-caption computes it, in numpy and without Java (floor 0).

BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004) and CIDEr-D (arXiv 1411.5726, section 4), over words cut as the Penn
Treebank cuts them, lower case, without coco-caption's list of punctuation.
"""

import re
from collections import Counter

import numpy as np

# Brackets stay: coco-caption's list has them in capitals, and its tokens are lower case when they meet it.
PUNCTUATION = {"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"}
PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "..."})
NAMES = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
PARTS = {"cannot": ("can", "not"), "gonna": ("gon", "na"), "wanna": ("wan", "na"), "gotta": ("got", "ta")}
WORD = re.compile(r"""\.{3} | --+ | `` | '' | [!?]+
    | (?<!\w)(?:(?:[a-z]\.)+|(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|inc|co)\.)(?!\w)  # abbreviations keep their points
    | '(?:s|re|ve|ll|d|m|em|n'|til|\d0s)(?!\w)                                # alone, as in "the dog 's ball"
    | \d+(?:[.,:/]\d+)+ | \w+(?:[.\-'/&@]\w+)* | [^\w\s]""", re.VERBOSE)
CLITIC = re.compile(r"(.+?)(n't|'(?:s|re|ve|ll|d|m))")


def tokenize(text: str) -> list[str]:
    """Words of a caption: "It's a dog's ball." -> it 's a dog 's ball."""
    words: list[str] = []
    for word in WORD.findall(text.translate(PLAIN).lower()):
        clitic = CLITIC.fullmatch(word)
        words += clitic.groups() if clitic else PARTS.get(word, (NAMES.get(word, word),))
    return [word for word in words if word not in PUNCTUATION]


def ngrams(words: list[str], n: int) -> Counter:
    return Counter(tuple(words[i:i + n]) for i in range(len(words) - n + 1))


def bleu(hypotheses: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """Corpus BLEU-1 to 4: clipped counts, the closest reference length (ties: the shorter), no smoothing."""
    right, total, ours, theirs = np.zeros(4), np.zeros(4), 0, 0
    for words, refs in zip(hypotheses, references, strict=True):
        ours += len(words)
        theirs += min((abs(len(ref) - len(words)), len(ref)) for ref in refs)[1]
        for n in range(4):
            mine, most = ngrams(words, n + 1), Counter()
            for ref in refs:
                most |= ngrams(ref, n + 1)
            right[n] += sum((mine & most).values())
            total[n] += max(0, len(words) - n)
    brevity = 1.0 if ours > theirs else np.exp(1 - theirs / max(1, ours))
    precision = np.where(total > 0, right / np.maximum(total, 1), 0.0)
    return [float(brevity * np.prod(precision[:n]) ** (1 / n)) for n in range(1, 5)]


def common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b):
            before, row[j + 1] = row[j + 1], before + 1 if word == other else max(row[j + 1], row[j])
    return row[-1]


def rouge_l(words: list[str], refs: list[list[str]], beta: float = 1.2) -> float:
    """The largest precision and the largest recall, each over the references alone, in one F measure."""
    common = [common_subsequence(words, ref) for ref in refs]
    precision = max(common) / max(1, len(words))
    recall = max(n / max(1, len(ref)) for n, ref in zip(common, refs, strict=True))
    return (1 + beta ** 2) * precision * recall / (recall + beta ** 2 * precision) if precision and recall else 0.0


def cider(hypotheses: list[list[str]], references: list[list[list[str]]], sigma: float = 6.0) -> np.ndarray:
    """CIDEr-D of each image, on its 0 to 10 scale: (N,) float64. Document frequencies are those of the references given.

    Lengths in the penalty are counts of bigrams, as coco-caption counts them.
    """
    seen: Counter = Counter()
    for refs in references:
        seen.update({gram for ref in refs for n in range(1, 5) for gram in ngrams(ref, n)})
    most = np.log(len(references))

    def vectors(words):
        parts = [{gram: count * (most - np.log(max(1.0, seen[gram]))) for gram, count in ngrams(words, n).items()} for n in range(1, 5)]
        return parts, [np.sqrt(sum(value * value for value in part.values())) for part in parts], max(0, len(words) - 1)

    result = np.zeros(len(hypotheses))
    for row, (words, refs) in enumerate(zip(hypotheses, references, strict=True)):
        mine, size, length = vectors(words)
        for other, other_size, other_length in map(vectors, refs):
            penalty = np.exp(-((length - other_length) ** 2) / (2 * sigma ** 2))
            for n in range(4):
                if size[n] and other_size[n]:
                    shared = sum(min(value, other[n][gram]) * other[n][gram] for gram, value in mine[n].items() if gram in other[n])
                    result[row] += 10 * penalty * shared / (size[n] * other_size[n]) / 4 / len(refs)
    return result


def scores(hypotheses: list[str], references: list[list[str]]) -> dict:
    """bleu_1 to bleu_4 and rouge_l as fractions, cider from 0 to 10, and cider_each (N,), whose mean it is."""
    ours, theirs = [tokenize(text) for text in hypotheses], [[tokenize(text) for text in refs] for refs in references]
    each = cider(ours, theirs)
    return {**{f"bleu_{n}": value for n, value in enumerate(bleu(ours, theirs), 1)},
            "rouge_l": float(np.mean([rouge_l(words, refs) for words, refs in zip(ours, theirs, strict=True)])),
            "cider": float(each.mean()), "cider_each": each}
