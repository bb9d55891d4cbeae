"""Caption scores against closed forms, the papers' own examples, and a plain second implementation of CIDEr-D."""

import math
from collections import Counter

import numpy as np
import pytest

from coco_scores import bleu, cider, common_subsequence, rouge_l, scores, tokenize

CAPTIONS = ["A dog's ball lies on the grass.", "two men are playing chess in the park", "a boat"]
REFERENCES = [["A dog's red ball is on the grass.", "The ball of a dog lies on green grass", "a ball"],
              ["Two men play chess outside.", "men are playing a game in the park", "the men are playing chess in a big park near a lake"],
              ["a boat on the lake", "one small boat", "the boat"]]
GOLDEN = {"bleu_1": 0.94595947, "bleu_2": 0.88064034, "bleu_3": 0.71583549, "bleu_4": 0.51325779, "rouge_l": 0.77451875, "cider": 2.62922545}
GOLDEN_EACH = [2.31175651, 3.20087655, 2.3750433]


def test_tokens():
    assert tokenize("A dog's ball, isn't it?") == ["a", "dog", "'s", "ball", "is", "n't", "it"]
    assert tokenize("") == tokenize("...") == []


@pytest.mark.parametrize("text, words", [
    ("the dog 's ball and dogs ' tails", "the dog 's ball and dogs tails"),  # Flickr8k's captions come cut in words already
    ('a sign that says " active . "', "a sign that says active"),
    ("it’s “curly” – yes—no…", "it 's curly yes no"),
    ("Two well-known men -- (in red) ... run .", "two well-known men -lrb- in red -rrb- run"),
    ("It is 3.5 km & they're U.S. flags", "it is 3.5 km & they 're u.s. flags"),
    ("1,000 men at 5:30 p.m., 3/4 of them", "1,000 men at 5:30 p.m. 3/4 of them"),
    ("I cannot go, they won't", "i can not go they wo n't"),
    ("a 2-year-old's toy at O'Brien's o'clock", "a 2-year-old 's toy at o'brien 's o'clock"),
    ("Mr. Smith and a St. Bernard in Washington D.C.", "mr. smith and a st. bernard in washington d.c."),
    ("a slip 'n' slide of the '90s", "a slip 'n' slide of the '90s"),
    ("hello!!! what? w/ #7, 50% of $5", "hello !!! what w / # 7 50 % of $ 5"),
    ("dog; cat at a@b.com in black/white", "dog cat at a@b.com in black/white"),
])
def test_words_are_cut_as_coco_caption_cuts_them(text, words):
    """Right-hand sides: what coco-caption's own tokenizer printed (Stanford PTB 3.4.1)."""
    assert " ".join(tokenize(text)) == words


def test_scores_are_coco_captions():
    """Figures of coco-caption's own scorers (pycocoevalcap 1.2) for these three captions."""
    found = scores(CAPTIONS, REFERENCES)
    for key, value in GOLDEN.items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    assert found["cider_each"] == pytest.approx(GOLDEN_EACH, abs=1e-6)


def test_papinenis_example():
    words = ["the"] * 7
    refs = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    assert bleu([words], [refs])[0] == pytest.approx(2 / 7)


def test_brevity_takes_the_closest_and_then_the_shorter_reference():
    words, refs = ["a", "b", "c", "d"], [["a", "b", "c", "d", "e", "f"], ["a", "b"]]
    assert bleu([words], [refs])[0] == pytest.approx(1.0)  # 2 and 6 are equally far from 4: 2 counts, no penalty
    assert bleu([words], [refs[:1]])[0] == pytest.approx(math.exp(1 - 6 / 4))


def test_rouge_takes_its_maxima_apart():
    assert common_subsequence("a b c d".split(), "b d a c".split()) == 2
    refs = ["a b c d e f".split(), "a b".split()]
    p, r = 3 / 4, 1.0  # precision from the first, recall from the second
    assert rouge_l("a b x c".split(), refs) == pytest.approx((1 + 1.44) * p * r / (r + 1.44 * p))
    assert rouge_l(["z"], refs) == 0.0


def test_the_same_caption_is_perfect():
    texts = ["a red dog runs on grass", "two men play chess outside", "one small boat near big rocks"]
    found = scores(texts, [[text] for text in texts])
    assert all(found[f"bleu_{n}"] == pytest.approx(1) for n in range(1, 5)) and found["rouge_l"] == pytest.approx(1)
    assert found["cider"] == pytest.approx(10) and found["cider_each"].shape == (3,)


def plain_cider(hypotheses, references, sigma=6.0):
    """Section 4 of arXiv 1411.5726, one line a formula."""
    grams = lambda words, n: Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = []
    for words, refs in zip(hypotheses, references, strict=True):
        value = 0.0
        for n in range(1, 5):
            df = Counter(gram for group in references for gram in set().union(*(grams(ref, n) for ref in group)))
            g = lambda text, n=n, df=df: {k: c * math.log(len(references) / max(1, df[k])) for k, c in grams(text, n).items()}
            norm = lambda vector: math.sqrt(sum(x * x for x in vector.values()))
            mine = g(words)
            for ref in refs:
                other = g(ref)
                dot = sum(min(mine[k], other[k]) * other[k] for k in mine if k in other)
                if norm(mine) * norm(other):
                    value += math.exp(-((max(0, len(words) - 1) - max(0, len(ref) - 1)) ** 2) / (2 * sigma ** 2)) * dot / norm(mine) / norm(other) / len(refs)
        total.append(10 * value / 4)
    return np.array(total)


def test_cider_against_a_plain_one():
    rng = np.random.default_rng(0)
    draw = lambda: list(rng.choice(list("abcdefg"), size=rng.integers(1, 9)))
    hypotheses, references = [draw() for _ in range(12)], [[draw() for _ in range(rng.integers(1, 5))] for _ in range(12)]
    assert np.allclose(cider(hypotheses, references), plain_cider(hypotheses, references))
