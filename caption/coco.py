"""Likeness of captions to references, as coco-caption computes it, in numpy and without Java (floor 0).

BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004) and CIDEr-D (arXiv 1411.5726, section 4), over words cut as the Penn
Treebank cuts them, lower case, without coco-caption's list of punctuation. Every set of figures carries a signature.
"""

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np

from base import metrics
from base.files import UserError

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

# The Penn Treebank's way with words, as coco-caption's Stanford tokenizer 3.4.1 has it. Brackets stay in the captions:
# coco-caption's list of punctuation has them in capitals, and its tokens are lower case when they meet it.
PUNCTUATION = {"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", ";"}
PLAIN = str.maketrans(
    {
        "‘": "`",
        "‛": "`",
        "“": '"',
        "”": '"',
        "«": '"',
        "»": '"',
        "‹": '"',
        "›": '"',
        "…": " ... ",
        "‥": " .. ",
        "\u00ad": "",
        "–": "--",
        "—": "--",
        "―": "--",
        "‒": "--",
        "½": " 1/2 ",
        "⅓": " 1/3 ",
        "⅔": " 2/3 ",
        "¼": " 1/4 ",
        "¾": " 3/4 ",
        "²": " ² ",
        "³": " ³ ",
        "€": " $ ",
        "£": " # ",
        "¢": " cents ",
    }
)
UNSEEN = re.compile(
    "[\u200b-\u200f\u2028-\u202e\ufe0e\ufe0f\U00010000-\U0010ffff]"
)  # emoji lie beyond the tokenizer's alphabet
NAMES = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
BRACKET = re.compile(r"[(){}[\]]")
PARTS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "wanna": ("wan", "na"),
    "gotta": ("got", "ta"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
    "'tis": ("'t", "is"),
    "’tis": ("tis",),
    "'twas": ("'t", "was"),
    "’twas": ("twas",),
    "&lt;": ("<",),
    "&gt;": (">",),
    "&quot;": ('"',),
}
ALWAYS = """jan feb mar apr jun jul aug sept? oct nov dec mon tues? wed thu thurs fri ala ariz calif colo conn ct dak fla ga ind kans? ky md mich
minn mo mont neb nev okla penn tenn va vt wisc? wyo inc cos? corp pty ltd plc rt bancorp dept bhd assn univ intl sys drs? profs? sens? reps? attys?
lt col gen messrs govs? adm rev maj sgt cpl pvt capt ste? ave pres lieut hon brig co?mdr pfc spc supts? det mr mrs ms mme mlle jr sr bros blvd rd esq
tel est ext sq bldg etc al seq vs ft mt alex wm jos cie ph.d ed.d""".replace(
    ".", r"\."
).split()  # they keep their points in any case
CAPITAL = "ark del ill la mass miss ore pa tex wash".split()
NUMBERED = "ca figs? prop nos? art pp op".split()  # keep them before a number
WORD = re.compile(
    rf"""
      </?[a-z][\w:.-]*(?:\s[\w-]+="[^"<>]*")*\s?/?> | &(?:amp|lt|gt|quot|\#\d+); | -[lr][rcs]b-
    | https?://[^\s"<>|()]*[^\s"<>|.!?(){{}},-] | \w[\w.+-]*@\w[\w.-]*\w | [@#][a-z_]\w*
    | [<>]?[:;=][-o*']?(?-i:[()DPdpO\\{{@|\[\]])(?![a-z])  # :-)
    | (?-i:[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+) | (?-i:[A-Z]+)\$ | c\+\+ | [cf]\#
    | (?:[a-z]\.)+-\w+ | (?:(?:[a-z]\.)+ | (?:{"|".join(ALWAYS)})\. | (?-i:(?=[A-Z]))(?:{"|".join(CAPITAL)})\.)(?![^\W\d_])
    | (?:{"|".join(NUMBERED)})\.(?=\s?\d)
    | ['’]n['’] | ['’](?:tis|twas|em|n|til|cause)(?!\w) | (?<!\w)['’]\d\ds?(?![\w'’])
    | (?P<clitic>['’](?:s|re|ve|ll|d|m)|n['’]t)(?!\w) | y['’](?=all|know)
    | (?:ma['’]am|c['’]mon|(?:n|o)?e['’]er|li['’]l|s['’]mores|nor['’]easter|ev['’]ry|hallowe['’]en)(?!\w) | (?:[dlj]|ol|somethin|dunkin)['’](?!\w)
    | [^\W\d_]+?(?=n['’]t(?!\w))
    | [^\W_]+(?:-[^\W_]+){{0,2}}(?:/[^\W_]+(?:-[^\W_]+){{0,2}}){{1,2}}(?![^\W_])
    | (?:[dol]['’])?[^\W_](?:[^\W_]|[.,])*(?:[-‐‑][^\W_]+)+
    | [-+]?(?:\d+(?:[.,:]\d+)+|\.\d+(?:[.,:]\d+)*) | [-+]\d+
    | (?:[dol]['’](?=\w))?[^\W\d_][^\W_]*(?:[.!?_][^\W\d_][^\W_]*)* | [^\W_]+(?:_[^\W_]+)*
    | \.{{3}} | -+ | `` | '' | [!?]+ | \*+ | _+ | @+ | \#+ | << | >> | [^\w\s]""",
    re.VERBOSE | re.IGNORECASE,
)


def tokenize(text: str) -> list[str]:
    """Words of a caption: "It's a dog's ball." -> it 's a dog 's ball."""
    words: list[str] = []
    for found in WORD.finditer(
        UNSEEN.sub(" ", text.replace("&apos;", "'").replace("&nbsp;", " ").translate(PLAIN))
    ):
        word = found[0].lower().replace("&amp;", "&")
        word = (
            word.replace("’", "'") if found["clitic"] or word == "’" else word
        )  # o’clock keeps what dog’s does not
        words += PARTS.get(word) or BRACKET.sub(lambda one: NAMES[one[0]], word).split()
    return [word for word in words if word not in PUNCTUATION and word != "..." and word.strip("-")]


def ngrams(words: list[str], n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu_statistics(hypotheses: list[list[str]], references: list[list[list[str]]]) -> np.ndarray:
    """What BLEU needs of each image, and may be summed: (N, 10) right 1- to 4-grams (clipped), all of them, our length, theirs.

    Theirs is the length of the closest reference; of two that are equally close, the shorter.
    """
    rows = []
    for words, refs in zip(hypotheses, references, strict=True):
        closest = min((abs(len(ref) - len(words)), len(ref)) for ref in refs)[1]
        right = []
        for n in range(1, 5):
            mine, most = ngrams(words, n), Counter()
            for ref in refs:
                most |= ngrams(ref, n)
            right.append(sum((mine & most).values()))
        rows.append([*right, *(max(0, len(words) - n) for n in range(4)), len(words), closest])
    return np.array(rows, dtype=np.float64)


def bleu_of(totals: np.ndarray) -> np.ndarray:
    """(..., 10) summed statistics to (..., 4) BLEU-1 to 4: no smoothing, but coco-caption's guards against division by zero."""
    precision = (totals[..., :4] + 1e-15) / (totals[..., 4:8] + 1e-9)
    length = (totals[..., 8:9] + 1e-15) / (totals[..., 9:] + 1e-9)
    return np.cumprod(precision, -1) ** (1 / np.arange(1, 5)) * np.exp(
        np.minimum(0.0, 1 - 1 / length)
    )


def bleu(hypotheses: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """Corpus BLEU-1 to 4."""
    return bleu_of(bleu_statistics(hypotheses, references).sum(0)).tolist()


def common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b):
            before, row[j + 1] = (
                row[j + 1],
                before + 1 if word == other else max(row[j + 1], row[j]),
            )
    return row[-1]


def rouge_l(words: list[str], refs: list[list[str]], beta: float = 1.2) -> float:
    """The largest precision and the largest recall, each over the references alone, in one F measure."""
    words, refs = (
        words or [""],
        [ref or [""] for ref in refs],
    )  # to coco-caption, nothing is one empty word
    common = [common_subsequence(words, ref) for ref in refs]
    precision = max(common) / len(words)
    recall = max(n / len(ref) for n, ref in zip(common, refs, strict=True))
    return (
        (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
        if precision and recall
        else 0.0
    )


class CiderD:
    """CIDEr-D with the document frequencies of `references`, a list over images of tokenised captions."""

    def __init__(self, references: list[list[list[str]]], sigma: float = 6.0):
        self.sigma, self.seen = sigma, Counter()
        for refs in references:
            self.seen.update({gram for ref in refs for n in range(1, 5) for gram in ngrams(ref, n)})
        self.most = np.log(len(references))

    def vectors(self, words: list[str]) -> tuple:
        """Weights of the 1- to 4-grams, their norms, and the length: the count of bigrams, as coco-caption counts."""
        parts = [
            {
                gram: count * (self.most - np.log(max(1.0, self.seen[gram])))
                for gram, count in ngrams(words, n).items()
            }
            for n in range(1, 5)
        ]
        return (
            parts,
            [np.sqrt(sum(value * value for value in part.values())) for part in parts],
            max(0, len(words) - 1),
        )

    def score(self, words: list[str], references: list[tuple]) -> float:
        """CIDEr-D of one caption against the `vectors` of its references, on the scale of 0 to 10."""
        mine, size, length = self.vectors(words)
        result = 0.0
        for other, other_size, other_length in references:
            penalty = np.exp(-((length - other_length) ** 2) / (2 * self.sigma**2))
            for n in range(4):
                if size[n] and other_size[n]:
                    shared = sum(
                        min(value, other[n][gram]) * other[n][gram]
                        for gram, value in mine[n].items()
                        if gram in other[n]
                    )
                    result += (
                        10 * penalty * shared / (size[n] * other_size[n]) / 4 / len(references)
                    )
        return result


def cider(
    hypotheses: list[list[str]], references: list[list[list[str]]], sigma: float = 6.0
) -> np.ndarray:
    """CIDEr-D of each image, on its 0 to 10 scale: (N,) float64. Document frequencies are those of the references given."""
    judge = CiderD(references, sigma)
    return np.array(
        [
            judge.score(words, [judge.vectors(ref) for ref in refs])
            for words, refs in zip(hypotheses, references, strict=True)
        ]
    )


def signature(references: list[list[str]], on: str) -> str:
    """What a score is worth nothing without: tokenizer, references (fewest, mean, most), images, what they are, version."""
    counts = [len(refs) for refs in references]
    return (
        f"tokens:ptb|references:{min(counts)}/{np.mean(counts):.2f}/{max(counts)}|images:{len(counts)}|cider:D,df=these|on:{on}"
        f"|version:{VERSION}"
    )


def scores(
    hypotheses: list[str],
    references: list[list[str]],
    on: str = "given",
    resamples: int = 2000,
    seed: int = 0,
) -> dict:
    """bleu_1 to bleu_4 and rouge_l as fractions, cider from 0 to 10, each with its name_ci95; images; signature; cider_each (N,).

    Intervals: bootstrap over images. BLEU is computed anew for each resample, CIDEr keeps its document frequencies.
    """
    ours, theirs = (
        [tokenize(text) for text in hypotheses],
        [[tokenize(text) for text in refs] for refs in references],
    )
    statistics = bleu_statistics(ours, theirs)
    rouge = np.array([rouge_l(words, refs) for words, refs in zip(ours, theirs, strict=True)])
    each, n = cider(ours, theirs), len(ours)
    columns = np.column_stack([statistics, rouge, each])
    figures = lambda totals: np.concatenate([bleu_of(totals[..., :10]), totals[..., 10:] / n], -1)
    low, high = np.percentile(
        figures(metrics.resampled_sums(columns, resamples=resamples, seed=seed)),
        [2.5, 97.5],
        axis=0,
    )
    result: dict = {"images": n}
    for i, (name, value) in enumerate(zip(tuple(LABELS)[:6], figures(columns.sum(0)), strict=True)):
        result |= {name: float(value), f"{name}_ci95": [float(low[i]), float(high[i])]}
    return result | {"signature": signature(references, on), "cider_each": each}


def need_java() -> None:
    """Refuse METEOR and SPICE where they cannot run, before anything long begins."""
    missing = [
        name
        for name, there in (
            ("pycocoevalcap", importlib.util.find_spec("pycocoevalcap")),
            ("java", shutil.which("java")),
        )
        if not there
    ]
    if missing:
        raise UserError(
            f"--meteor_spice without {' and '.join(missing)}",
            "both pycocoevalcap and Java",
            "pip install pycocoevalcap, install a Java runtime, or drop the flag",
        )


def meteor_spice(hypotheses: list[str], references: list[list[str]]) -> dict:
    """METEOR and SPICE as fractions, by coco-caption's own Java programs. One that does not run is left out, with its reason on stderr.

    SPICE downloads Stanford's parser when it is used first, and wants Java 8.
    """
    need_java()
    from pycocoevalcap.meteor.meteor import Meteor  # an optional extra
    from pycocoevalcap.spice.spice import Spice

    ours = {i: [" ".join(tokenize(text))] for i, text in enumerate(hypotheses)}
    theirs = {i: [" ".join(tokenize(text)) for text in refs] for i, refs in enumerate(references)}
    result = {}
    for name, kind in (("meteor", Meteor), ("spice", Spice)):
        try:
            with contextlib.redirect_stdout(sys.stderr):  # it says that it downloads
                result[name] = float(kind().compute_score(theirs, ours)[0])
        except (OSError, ValueError, KeyError, EOFError, subprocess.SubprocessError) as error:
            print(
                f"{name}: left out, it does not run here ({type(error).__name__}: {error})".replace(
                    "\n", " "
                )[:300],
                file=sys.stderr,
            )
    return result


def table(named: dict[str, dict]) -> list[list[str]]:
    """{name: figures} as rows of text, ×100 with their 95% intervals; the first row is the header."""
    names = [name for name in LABELS if any(name in one for one in named.values())]
    low_high = lambda one, name: (
        " [{:.1f}, {:.1f}]".format(*(100 * value for value in one[f"{name}_ci95"]))
        if f"{name}_ci95" in one
        else ""
    )
    cell = lambda one, name: f"{100 * one[name]:.1f}{low_high(one, name)}" if name in one else ""
    return [
        ["", "images", *(LABELS[name] for name in names)],
        *(
            [name, str(one["images"]), *(cell(one, key) for key in names)]
            for name, one in named.items()
        ),
    ]
