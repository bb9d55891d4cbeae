"""Changes of a scene in words, such as "the star is green": what a caption says after the change.

    change := "the" noun "is" ["now"] (colour | fill)             one thing looks different
            | "the" noun "is now" ("a" | "an") noun               one thing becomes another thing
            | "there is no" noun | "there are no" nouns           all such things go

Nouns are those of language.py. The first two name exactly one thing: "the star" is wrong where a
caption has two stars. A thing that becomes another keeps its place and its size.

A changed caption is in the grammar of captions. `Changed` says which of its claims the change is
about. A change is refused if the rest of the caption could become untrue.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from worlds.language import MEANING, PLACES, article
from worlds.reader import FILL_WORDS, Claim, Noun, Reader, Ungrammatical, parse
from worlds.scenes import COLOURS, PATTERNS, SHAPES, Scene, pick


class Impossible(ValueError):
    """The change does not fit the caption or the scene."""


@dataclass(frozen=True)
class Change:
    """noun: what changes. to: the attributes that it gets; None: it goes."""

    noun: Noun
    to: Noun | None


@dataclass(frozen=True)
class Changed:
    """A caption after a change. old, new: the captions. changed: the claims that the change is
    about. kept: all other claims of the new caption. change: what was changed.
    """

    old: str
    new: str
    changed: list[Claim]
    kept: list[Claim]
    change: Change


@dataclass(frozen=True)
class Mention:
    """A noun of a caption: the words first .. last - 1 are its phrase."""

    noun: Noun
    first: int
    last: int
    number: int


class Marker(Reader):
    """Reads a caption and notes where each noun stands."""

    def __init__(self, caption: str):
        super().__init__(caption)
        self.every = list(self.words)
        self.nouns: list[tuple[Noun, int, int]] = []

    def noun(self, plural: bool = False) -> Noun:
        first = len(self.every) - len(self.words)
        found = super().noun(plural)
        self.nouns.append((found, first, len(self.every) - len(self.words)))
        return found

    def mentions(self) -> list[Mention]:
        """The things that the caption says there are, in its order."""
        self.caption()
        counts = [claim for claim in self.claims if claim.kind in ("some", "count")]
        found = []
        for noun, first, last in self.nouns:
            if self.every[first - 2 : first] == ["but", "no"]:
                continue
            number = max((c.number for c in counts if c.noun == noun), default=1)
            found.append(Mention(noun, first, last, number))
        return found


# --- reading a change --------------------------------------------------------------------------


def read(text: str) -> Change:
    """The change that a sentence asks for. Raises Ungrammatical if it is not in the grammar."""
    reader = Reader(text.lower().rstrip(". "))
    if reader.take("there is no"):
        change = Change(reader.noun(), None)
    elif reader.take("there are no"):
        change = Change(reader.noun(plural=True), None)
    else:
        reader.need("the")
        noun = reader.noun()
        reader.need("is")
        is_now = reader.take("now")
        if is_now and reader.take("an", "a"):
            change = Change(noun, reader.noun())
        else:
            word = reader.need(*COLOURS, *FILL_WORDS)
            name = "colour" if word in COLOURS else "fill"
            change = Change(noun, Noun(**{name: MEANING.get(word, word)}))
    if reader.words:
        raise Ungrammatical(f"{' '.join(reader.words)!r} after the end")
    if change.to is not None and change.to.size:
        raise Ungrammatical("a thing that changes its size: its size stays as it is")
    return change


def names(noun: Noun, mention: Noun) -> bool:
    """Whether a caption's noun has all attributes that the change names."""
    has = mention.named()
    return all(has.get(name) == value for name, value in noun.named().items())


def only(found: list, noun: Noun, where: str):
    """The single thing that a noun names. Raises Impossible if there is none, or more."""
    if len(found) != 1:
        words = " ".join(noun.named().values())
        count = "nothing" if not found else f"{len(found)} things"
        raise Impossible(f"{count} in the {where} that could be the {words}")
    return found[0]


# --- captions ----------------------------------------------------------------------------------


def change_caption(caption: str, change: Change) -> Changed:
    """The caption after the change.

    Raises Ungrammatical for a caption outside of the grammar, Impossible if the change does not fit
    it.
    """
    caption = caption.lower().rstrip(". ")
    marker = Marker(caption)
    mentions = marker.mentions()
    if change.to is None:
        return without(caption, mentions, change)
    fitting = [mention for mention in mentions if names(change.noun, mention.noun)]
    mention = only(fitting, change.noun, "caption")
    if mention.number > 1:
        raise Impossible(f"{mention.number} things in the caption that could be meant")
    new = dataclasses.replace(mention.noun, **change.to.named())
    refuse_counts(caption, mention.noun, new)
    words = list(marker.every)
    phrase = " ".join(new.named().values())
    if words[mention.first - 1] in ("a", "an"):
        words[mention.first - 1 : mention.last] = article(phrase).split()
    else:
        words[mention.first : mention.last] = phrase.split()
    text = " ".join(words).replace(" ,", ",").replace(" :", ":")
    claims = parse(text)
    # Where "one red star and nothing else" is changed, the claim counts.
    about = [claim for claim in claims if claim.kind in ("some", "count") and claim.noun == new]
    kept = [claim for claim in claims if claim not in about]
    return Changed(caption, text, about, kept, change)


def refuse_counts(caption: str, old: Noun, new: Noun) -> None:
    """Raise Impossible if a count or a "no" of the caption may become untrue."""
    for claim in parse(caption):
        counts = claim.kind in ("count", "none") and claim.noun != old
        if counts and could_be(claim.noun, new):
            words = " ".join(claim.noun.named().values())
            raise Impossible(f"a change that the caption's number of {words} does not allow")


def could_be(noun: Noun, other: Noun) -> bool:
    """Whether a thing may fit both nouns: no attribute is named differently."""
    first, second = noun.named(), other.named()
    return all(second.get(name, value) == value for name, value in first.items())


def without(caption: str, mentions: list[Mention], change: Change) -> Changed:
    """The caption without all things that the change names. The rest is listed with its places."""
    noun = change.noun
    gone = [mention for mention in mentions if names(noun, mention.noun)]
    rest = [mention for mention in mentions if not names(noun, mention.noun)]
    if not gone:
        only([], noun, "caption")
    unsure = [mention for mention in rest if could_be(noun, mention.noun)]
    if unsure:
        raise Impossible("a caption that leaves open whether more things would go")
    if not rest:
        raise Impossible("an empty picture after the change")
    claims = parse(caption)
    words = caption.replace(",", " ,").replace(":", " :").split()
    items = []
    for mention in rest:
        phrase = " ".join(words[mention.first : mention.last])
        before = words[mention.first - 1] if mention.number > 1 else ""
        item = f"{before} {phrase}" if before else article(phrase)
        items.append(item + place_of(mention.noun, claims))
    text = items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
    return Changed(caption, text, [Claim("none", noun)], parse(text), change)


def place_of(noun: Noun, claims: list[Claim]) -> str:
    """The place that a caption gives to a thing, as words behind its noun."""
    for claim in claims:
        if claim.kind == "place" and claim.noun == noun:
            return " " + PLACES[claim.word]
    return ""


# --- scenes ------------------------------------------------------------------------------------


def change_scene(scene: Scene, change: Change) -> Scene:
    """The scene after the change. Raises Impossible if it does not fit the scene."""
    fitting = [thing for thing in scene.objects if change.noun.fits(thing)]
    if change.to is None:
        if not fitting:
            only([], change.noun, "scene")
        rest = [thing for thing in scene.objects if not change.noun.fits(thing)]
        return dataclasses.replace(scene, objects=rest)
    thing = only(fitting, change.noun, "scene")
    named = change.to.named()
    if thing.size == "small" and named.get("fill") in PATTERNS:
        raise Impossible(f"a small {thing.shape} that would be {named['fill']}: too small to see")
    other = dataclasses.replace(thing, **named)
    objects = [other if each is thing else each for each in scene.objects]
    return dataclasses.replace(scene, objects=objects)


# --- drawing changes ---------------------------------------------------------------------------


def possible(caption: str, rng: np.random.Generator) -> list[str]:
    """Changes in words that fit a caption, one of each kind, in random order; perhaps none.

    Of a random thing of the caption: another colour, another shape, or it goes.
    """
    try:
        mentions = Marker(caption).mentions()
    except Ungrammatical:
        return []
    thing = pick(rng, mentions).noun
    name = f"{thing.colour} {thing.shape}".strip()
    colour = pick(rng, [word for word in COLOURS if word != thing.colour])
    shape = pick(rng, [word for word in SHAPES if word != thing.shape])
    texts = [
        f"the {name} is {colour}",
        f"the {name} is now {article(f'{thing.colour} {shape}'.replace('  ', ' ').strip())}",
        f"there is no {name}",
    ]
    found = []
    for index in rng.permutation(len(texts)):
        try:
            change_caption(caption, read(texts[index]))
        except Impossible:
            continue
        found.append(texts[index])
    return found
