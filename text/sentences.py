"""English text cut into sentences, each place a reason (floor 0: standard library only).

A sentence ends at . ! ? or …, and what closes behind it, when the next word begins one. Three things are never cut:
a quotation, however many sentences are said in it; what a speaker's tag ("Go!" Tim said) is tied to; an abbreviation
from its word. A blank line always cuts. Quotation marks are paired within their paragraph; an odd one is ignored.
"""

import re

TITLES = {
    "mr",
    "mrs",
    "ms",
    "dr",
    "st",
    "prof",
    "capt",
    "col",
    "gen",
    "lt",
    "sgt",
    "rev",
    "mt",
    "vs",
    "no",
    "fig",
}  # a name follows
MAYBE_LAST = {
    "etc",
    "jr",
    "sr",
    "inc",
    "co",
    "ltd",
    "a.m",
    "p.m",
    "u.s",
    "e.g",
    "i.e",
}  # may end a sentence: then a capital follows
SPOKEN = (
    "said|says|say|asked|asks|replied|answered|shouted|cried|yelled|whispered|exclaimed|screamed|called|added|thought|told|laughed|giggled|"
    "agreed|explained|begged|sighed|continued|announced|repeated|suggested|wondered|warned|promised|declared|gasped|muttered|mumbled|"
    "growled|roared|barked|chirped|sang|squeaked|responded|cheered|reminded|insisted|admitted|interrupted|demanded|pleaded|hissed"
)
# A speaker and the verb; but in `"Go!" The ant said, "No!"` they belong to what comes after.
TAG = re.compile(rf"(?:(?!and\b)[\w'’.-]+ ){{0,4}}?(?:{SPOKEN})\b(?![^.!?\"“\n]*[,:] [\"“])")
END = re.compile(r"[.!?…]+[\"”'’)\]]*(?=\s|$)")
SINGLE = re.compile(
    r"(?<!\w)['‘](?=\w)(?:[^'’\n]|(?<=\w)['’](?=\w))*[.,!?…]['’](?!\w)"
)  # 'Go!' but not don't
STARTS = re.compile(r"[\"“‘'(\[]*[A-Z0-9À-Þ]")


def quotations(text: str) -> list[tuple[int, int]]:
    """(start, end) of every quotation with its marks."""
    found = [match.span() for match in SINGLE.finditer(text)]
    for paragraph in re.finditer(r"[^\n]+", text):
        at = paragraph.start()
        found += [
            (at + one.start(), at + one.end())
            for one in re.finditer(r"“[^”“]*”|\"[^\"]*\"", paragraph[0])
        ]
    return found


def split(text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence; together they are the whole text, each with the white space before it."""
    quoted = quotations(text)
    marks = [match for match in END.finditer(text) if ends(text, match, quoted)]
    cuts = {match.end() for match in marks} | {
        match.start() for match in re.finditer(r"\s*\n\s*\n", text)
    }
    cuts = sorted(cut for cut in cuts if text[:cut].strip() and text[cut:].strip())
    edges = [0, *cuts, len(text)]
    return [
        (start, end)
        for start, end in zip(edges, edges[1:], strict=False)
        if text[start:end].strip()
    ]


def ends(text: str, mark: re.Match, quoted: list[tuple[int, int]]) -> bool:
    """Whether a sentence ends at this mark."""
    if any(start < mark.start() and mark.end() < end for start, end in quoted):
        return False
    rest = text[mark.end() :]
    if not rest.strip():
        return False  # the text ends here anyway
    space = rest[: len(rest) - len(rest.lstrip())]
    after = rest.lstrip()
    closes_speech = any(end == mark.end() for _, end in quoted)
    if closes_speech and "\n" not in space and TAG.match(after.split("\n")[0]):
        return False
    if "\n" in space:
        return True
    if not STARTS.match(after):
        return False
    return not (mark[0] == "." and abbreviates(text[: mark.start()], after))


def abbreviates(before: str, after: str) -> bool:
    """Whether the point behind `before` belongs to an abbreviation and not to a sentence's end."""
    word = re.search(r"[\w.]*$", before)[0]
    if word.lower() in TITLES:
        return word[0].isupper() or word.lower() == "vs"
    if re.fullmatch(r"[A-Z](\.[A-Z])*", word) and word != "I":  # initials: J. K. Stone
        return len(word) == 1 or not after[:1].isupper()
    return word.lower() in MAYBE_LAST and not after.lstrip("\"“'(")[:1].isupper()


def texts(text: str) -> list[str]:
    """The sentences themselves, stripped."""
    return [text[start:end].strip() for start, end in split(text)]
