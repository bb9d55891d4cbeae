"""Caption scores against coco-caption's own figures and tokens, closed forms, and a plain second implementation of CIDEr-D."""

import math
import shutil
from collections import Counter

import numpy as np
import pytest

from base import metrics
from base.files import UserError
from caption import coco
from caption.coco import (
    bleu,
    bleu_of,
    bleu_statistics,
    cider,
    common_subsequence,
    rouge_l,
    scores,
    tokenize,
)

CAPTIONS = ["A dog's ball lies on the grass.", "two men are playing chess in the park", "a boat"]
REFERENCES = [
    ["A dog's red ball is on the grass.", "The ball of a dog lies on green grass", "a ball"],
    [
        "Two men play chess outside.",
        "men are playing a game in the park",
        "the men are playing chess in a big park near a lake",
    ],
    ["a boat on the lake", "one small boat", "the boat"],
]
GOLDEN = {
    "bleu_1": 0.94595947,
    "bleu_2": 0.88064034,
    "bleu_3": 0.71583549,
    "bleu_4": 0.51325779,
    "rouge_l": 0.77451875,
    "cider": 2.62922545,
}
GOLDEN_EACH = [2.31175651, 3.20087655, 2.3750433]
FIGURES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
# name: captions, references, coco-caption's FIGURES for them. Ties in length, nothing at all, one word, curly quotes, brackets, numbers, one
# reference, uneven numbers of references.
HARD = {
    "hard": (
        [
            "A dog's ball isn't in the box (red) .",
            "two men are playing chess in the park",
            "",
            "dog",
            "“Curly” quotes – it’s 3.5 km & 1,000 men...",
            "a boat on the lake",
        ],
        [
            [
                "A dog's ball is not in the red box.",
                "The ball isn't in a box",
                "A box (red) and a dog's ball .",
            ],
            ["Two men play chess.", "men are playing a game in the park today, outside"],
            ["an empty street", "nobody"],
            ["A dog.", "dog"],
            ["It's 3.5 km and 1,000 men", 'a "curly" quote', "3.5 km", "the men..."],
            ["a boat on a lake"],
        ],
        [0.91428571, 0.8, 0.6659822, 0.50901877, 0.68655432, 2.47674589],
    ),
    "one word each": (
        ["dog", "cat", "man"],
        [["dog"], ["a cat"], ["cat", "dog runs"]],
        [0.47768754, 0.00058505, 6.259e-05, 2.047e-05, 0.54295533, 1.11788824],
    ),
    "nothing": (["", "..."], [["a dog"], ["cat", ""]], [0, 0, 0, 0, 0.5, 0]),
    "one image": (
        ["a dog runs"],
        [["a dog runs fast", "the dog"]],
        [1, 1, 1, 0.03162278, 0.83561644, 0],
    ),
}


def test_scores_are_coco_captions():
    """Figures of coco-caption's own scorers (pycocoevalcap 1.2) for these three captions."""
    found = scores(CAPTIONS, REFERENCES)
    for key, value in GOLDEN.items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    assert found["cider_each"] == pytest.approx(GOLDEN_EACH, abs=1e-6)


@pytest.mark.parametrize("name", HARD)
def test_hard_cases_are_coco_captions(name):
    """Figures of pycocoevalcap 1.2 with its own tokenizer."""
    captions, references, golden = HARD[name]
    assert [scores(captions, references)[key] for key in FIGURES] == pytest.approx(golden, abs=1e-8)


def test_against_pycocoevalcap_itself():
    """Tokens, figures, and CIDEr of each image, for all the captions of this file."""
    pytest.importorskip("pycocoevalcap", reason="pip install pycocoevalcap to compare with it")
    if not shutil.which("java"):
        pytest.skip("coco-caption's tokenizer needs Java")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    cut = lambda lists: PTBTokenizer().tokenize(
        {i: [{"caption": text} for text in texts] for i, texts in enumerate(lists)}
    )
    for captions, references in ((CAPTIONS, REFERENCES), *(case[:2] for case in HARD.values())):
        ours, theirs = cut([text] for text in captions), cut(references)
        assert [[" ".join(tokenize(text)) for text in refs] for refs in references] == list(
            theirs.values()
        )
        found = scores(captions, references)
        want = [
            *Bleu(4).compute_score(theirs, ours, verbose=0)[0],
            Rouge().compute_score(theirs, ours)[0],
            Cider().compute_score(theirs, ours)[0],
        ]
        assert [found[key] for key in FIGURES] == pytest.approx(want, abs=1e-9)
        assert found["cider_each"] == pytest.approx(
            Cider().compute_score(theirs, ours)[1], abs=1e-9
        )


def test_intervals_and_signature():
    """The bootstrap that is computed from sums is the bootstrap that resamples images and scores them anew."""
    rng = np.random.default_rng(0)
    draw = lambda: " ".join(rng.choice(["a", "b", "c", "d", "e", "f"], size=rng.integers(2, 8)))
    captions, references = (
        [draw() for _ in range(16)],
        [[draw() for _ in range(1 + i % 3)] for i in range(16)],
    )
    found = scores(captions, references, "val", resamples=24, seed=5)
    rows, rng = [], np.random.default_rng(5)
    each = found["cider_each"]
    for counts in rng.multinomial(16, np.full(16, 1 / 16), size=24):
        pick = np.repeat(np.arange(16), counts)
        one = scores([captions[i] for i in pick], [references[i] for i in pick], resamples=1)
        rows.append([*(one[key] for key in FIGURES[:5]), each[pick].mean()])
    low, high = np.percentile(rows, [2.5, 97.5], axis=0)
    for i, key in enumerate(FIGURES):
        assert (
            found[f"{key}_ci95"] == pytest.approx([low[i], high[i]])
            and low[i] < found[key] < high[i]
        )
    assert (
        found["signature"]
        == f"tokens:ptb|references:1/1.94/3|images:16|cider:D,df=these|on:val|version:{coco.VERSION}"
    )
    many = metrics.resampled_sums(np.ones((3_000, 1)), resamples=1500)  # in several pieces
    assert many.shape == (1500, 1) and (many == 3000).all()


def test_chinese_captions_are_scored_by_letters():
    """Two captions that differ in a letter share most words; the signature says how they were cut."""
    references = [["一只狗在草地上奔跑"], ["一只猫在桌子上睡觉"]]
    found = scores(["一只狗在草地上睡觉", "一只猫在桌子上睡觉"], references, "val", resamples=2)
    assert found["bleu_1"] == pytest.approx(16 / 18) and 0.5 < found["bleu_4"] < 1
    assert found["signature"].startswith("tokens:ptb+han|references:1/")
    assert coco.signature([["a dog"]], "val").startswith("tokens:ptb|")


def test_bleu_of_sums_is_bleu():
    captions, references = zip(
        *(
            (tokenize(a), [tokenize(b) for b in refs])
            for a, refs in zip(CAPTIONS, REFERENCES, strict=True)
        ),
        strict=True,
    )
    statistics = bleu_statistics(captions, references)
    assert bleu_of(np.stack([statistics.sum(0), statistics[0]])) == pytest.approx(
        np.array([bleu(captions, references), bleu(captions[:1], references[:1])])
    )


def test_meteor_needs_what_it_needs(monkeypatch):
    monkeypatch.setattr(coco.shutil, "which", lambda name: None)
    with pytest.raises(
        UserError, match=r"--meteor_spice without .*java; expected both pycocoevalcap and Java"
    ):
        coco.need_java()


def test_papinenis_example():
    words = ["the"] * 7
    refs = [
        ["the", "cat", "is", "on", "the", "mat"],
        ["there", "is", "a", "cat", "on", "the", "mat"],
    ]
    assert bleu([words], [refs])[0] == pytest.approx(2 / 7)


def test_brevity_takes_the_closest_and_then_the_shorter_reference():
    words, refs = ["a", "b", "c", "d"], [["a", "b", "c", "d", "e", "f"], ["a", "b"]]
    assert bleu([words], [refs])[0] == pytest.approx(
        1.0
    )  # 2 and 6 are equally far from 4: 2 counts, no penalty
    assert bleu([words], [refs[:1]])[0] == pytest.approx(math.exp(1 - 6 / 4))


def test_rouge_takes_its_maxima_apart():
    assert common_subsequence(["a", "b", "c", "d"], ["b", "d", "a", "c"]) == 2
    refs = [["a", "b", "c", "d", "e", "f"], ["a", "b"]]
    p, r = 3 / 4, 1.0  # precision from the first, recall from the second
    assert rouge_l(["a", "b", "x", "c"], refs) == pytest.approx((1 + 1.44) * p * r / (r + 1.44 * p))
    assert rouge_l(["z"], refs) == 0.0


def test_the_same_caption_is_perfect():
    texts = [
        "a red dog runs on grass",
        "two men play chess outside",
        "one small boat near big rocks",
    ]
    found = scores(texts, [[text] for text in texts])
    assert all(found[f"bleu_{n}"] == pytest.approx(1) for n in range(1, 5)) and found[
        "rouge_l"
    ] == pytest.approx(1)
    assert found["cider"] == pytest.approx(10) and found["cider_each"].shape == (3,)


def plain_cider(hypotheses, references, sigma=6.0):
    """Section 4 of arXiv 1411.5726, one line a formula."""
    grams = lambda words, n: Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = []
    for words, refs in zip(hypotheses, references, strict=True):
        value = 0.0
        for n in range(1, 5):
            df = Counter(
                gram
                for group in references
                for gram in set().union(*(grams(ref, n) for ref in group))
            )
            g = lambda text, n=n, df=df: {
                k: c * math.log(len(references) / max(1, df[k])) for k, c in grams(text, n).items()
            }
            norm = lambda vector: math.sqrt(sum(x * x for x in vector.values()))
            mine = g(words)
            for ref in refs:
                other = g(ref)
                dot = sum(min(mine[k], other[k]) * other[k] for k in mine if k in other)
                if norm(mine) * norm(other):
                    value += (
                        math.exp(
                            -((max(0, len(words) - 1) - max(0, len(ref) - 1)) ** 2) / (2 * sigma**2)
                        )
                        * dot
                        / norm(mine)
                        / norm(other)
                        / len(refs)
                    )
        total.append(10 * value / 4)
    return np.array(total)


def test_cider_against_a_plain_one():
    rng = np.random.default_rng(0)
    draw = lambda: list(rng.choice(list("abcdefg"), size=rng.integers(1, 9)))
    hypotheses, references = (
        [draw() for _ in range(12)],
        [[draw() for _ in range(rng.integers(1, 5))] for _ in range(12)],
    )
    assert np.allclose(cider(hypotheses, references), plain_cider(hypotheses, references))
