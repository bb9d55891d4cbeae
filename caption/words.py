"""Captions cut into words as coco-caption cuts them, without Java.

coco-caption uses Stanford's Penn Treebank tokenizer 3.4.1, lower case, and drops its list of
punctuation. BLEU, ROUGE-L and CIDEr-D count these words, so a score means nothing without them.
tests/caption/test_words.py holds this module to what that tokenizer printed.
"""

import re
from collections import Counter

# Brackets are not dropped: coco-caption's list of punctuation has them in capitals (-LRB-), and its
# tokens are lower case when they meet the list.
PUNCTUATION = {"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", ";"}
# Letters that the tokenizer writes in another way.
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
# Emoji and invisible letters lie beyond the tokenizer's alphabet: they separate words.
UNSEEN = re.compile("[\u200b-\u200f\u2028-\u202e\ufe0e\ufe0f\U00010000-\U0010ffff]")
# Chinese and Japanese write no spaces. Each of their letters is a word, as in sacreBLEU's "zh".
# coco-caption would take a whole clause for a word.
HAN = re.compile("([\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
WIDE_MARKS = re.compile("[、。「」『』！？，：；｡｢｣､]")  # as their narrow forms, they do not count
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
BRACKET = re.compile(r"[(){}[\]]")
# Words that are cut into several.
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
# Abbreviations that keep their points in upper and lower case.
ALWAYS = r"""
    jan feb mar apr jun jul aug sept? oct nov dec mon tues? wed thu thurs fri
    ala ariz calif colo conn ct dak fla ga ind kans? ky md mich minn mo mont neb nev okla penn tenn
    va vt wisc? wyo inc cos? corp pty ltd plc rt bancorp dept bhd assn univ intl sys
    drs? profs? sens? reps? attys? lt col gen messrs govs? adm rev maj sgt cpl pvt capt ste? ave
    pres lieut hon brig co?mdr pfc spc supts? det mr mrs ms mme mlle jr sr
    bros blvd rd esq tel est ext sq bldg etc al seq vs ft mt alex wm jos cie ph\.d ed\.d
""".split()  # noqa: SIM905 (a list literal is 100 lines long)
# These keep theirs only with a capital: "Mass." is a state, "a mass." ends a sentence.
CAPITAL = ["ark", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash"]
# These keep theirs only before a number: "No. 5".
NUMBERED = ["ca", "figs?", "prop", "nos?", "art", "pp", "op"]
# The first alternative that fits wins, so the order matters.
WORD = re.compile(
    rf"""
    # tags, entities, names of brackets
      </?[a-z][\w:.-]*(?:\s[\w-]+="[^"<>]*")*\s?/?>
    | &(?:amp|lt|gt|quot|\#\d+);
    | -[lr][rcs]b-
    # addresses, @names and #tags
    | https?://[^\s"<>|()]*[^\s"<>|.!?(){{}},-]
    | \w[\w.+-]*@\w[\w.-]*\w
    | [@#][a-z_]\w*
    # smileys
    | [<>]?[:;=][-o*']?(?-i:[()DPdpO\\{{@|\[\]])(?![a-z])
    # AT&T, US$, C++, C#
    | (?-i:[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)
    | (?-i:[A-Z]+)\$
    | c\+\+
    | [cf]\#
    # U.S.-made, U.S., abbreviations with their point
    | (?:[a-z]\.)+-\w+
    | (?:
          (?:[a-z]\.)+
        | (?:{"|".join(ALWAYS)})\.
        | (?-i:(?=[A-Z]))(?:{"|".join(CAPITAL)})\.
      )(?![^\W\d_])
    | (?:{"|".join(NUMBERED)})\.(?=\s?\d)
    # apostrophes: 'n', 'tis, '90s, the clitics of it's and isn't, y'all, ma'am, o'
    | ['’]n['’]
    | ['’](?:tis|twas|em|n|til|cause)(?!\w)
    | (?<!\w)['’]\d\ds?(?![\w'’])
    | (?P<clitic>['’](?:s|re|ve|ll|d|m)|n['’]t)(?!\w)
    | y['’](?=all|know)
    | (?:
          ma['’]am | c['’]mon | (?:n|o)?e['’]er | li['’]l | s['’]mores
        | nor['’]easter | ev['’]ry | hallowe['’]en
      )(?!\w)
    | (?:[dlj]|ol|somethin|dunkin)['’](?!\w)
    | [^\W\d_]+?(?=n['’]t(?!\w))
    # black/white, words with hyphens
    | [^\W_]+(?:-[^\W_]+){{0,2}}(?:/[^\W_]+(?:-[^\W_]+){{0,2}}){{1,2}}(?![^\W_])
    | (?:[dol]['’])?[^\W_](?:[^\W_]|[.,])*(?:[-‐‑][^\W_]+)+
    # numbers with points, commas, colons or a sign
    | [-+]?(?:\d+(?:[.,:]\d+)+|\.\d+(?:[.,:]\d+)*)
    | [-+]\d+
    # plain words, and what is left: dots, dashes, quotes, repeated marks
    | (?:[dol]['’](?=\w))?[^\W\d_][^\W_]*(?:[.!?_][^\W\d_][^\W_]*)*
    | [^\W_]+(?:_[^\W_]+)*
    | \.{{3}} | -+ | `` | '' | [!?]+ | \*+ | _+ | @+ | \#+ | << | >> | [^\w\s]""",
    re.VERBOSE | re.IGNORECASE,
)


def tokenize(text: str) -> list[str]:
    """The words of a caption: "It's a dog's ball." -> it 's a dog 's ball."""
    text = text.replace("&apos;", "'").replace("&nbsp;", " ").translate(PLAIN)
    if has_han(text):
        text = HAN.sub(r" \1 ", WIDE_MARKS.sub(" ", text))
    words: list[str] = []
    for match in WORD.finditer(UNSEEN.sub(" ", text)):
        word = match[0].lower().replace("&amp;", "&")
        if match["clitic"] or word == "’":  # o’clock keeps its quote, dog’s does not
            word = word.replace("’", "'")
        named = BRACKET.sub(lambda bracket: BRACKETS[bracket[0]], word)
        words += PARTS.get(word) or named.split()
    return [word for word in words if is_counted(word)]


def has_han(text: str) -> bool:
    """Whether a text has Chinese or Japanese letters, each of which is then a word."""
    return not text.isascii() and HAN.search(text) is not None


def is_counted(word: str) -> bool:
    """Whether coco-caption counts a word: punctuation, "..." and dashes do not count."""
    return word not in PUNCTUATION and word != "..." and bool(word.strip("-"))


def ngrams(words: list[str], n: int) -> Counter:
    """How often each run of n words occurs: {tuple of n words: count}."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
