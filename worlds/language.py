"""The language of scenes: describe a scene in words, read the words back, and judge them by truth (floor 0: no torch).

String overlap is no judge here: with templates, a caption whose relation is inverted still scores BLEU-4 92. So
captions are parsed into claims ("some small red circle", "it is left of some blue square") and each claim is
checked against the scene's graph. `describe` and `parse` are inverse to each other: every caption that `describe`
writes parses, and all its claims are true (a test holds it over seeds).

    caption := [opening] list | place "there is" item | "the" noun "is" (place | relation "the" noun | "larger than the" noun)
             | "the largest is" item | number "shapes:" list
    list    := item {"," item} ["and" item] ["but no" nouns | "and nothing else"]
    item    := ("a" | number) noun [place] [relation item | "with" item relation-to-it]
"""

import itertools
from dataclasses import dataclass

import numpy as np

from worlds.scenes import ATTRIBUTES, COLOURS, FILLS, SHAPES, SIZES, Object, Scene, pick, relation

SYNONYMS = {
    "small": ("small", "little"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big"),
    "solid": ("solid", "filled"),
    "outlined": ("outlined", "hollow"),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
}
MEANING = {word: name for name, words in SYNONYMS.items() for word in words}
NUMBERS = ("one", "two", "three", "four", "five")
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
OPENINGS = ("there is", "there are", "the picture shows", "we see", "this is")
RELATION_WORDS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "within"),
}
RELATION_TO_IT = {
    "left of": "to its left",
    "right of": "to its right",
    "above": "above it",
    "below": "below it",
    "inside": "inside it",
}
PLACES = {
    "top left": "in the top left",
    "top right": "in the top right",
    "bottom left": "in the bottom left",
    "bottom right": "in the bottom right",
    "top": "at the top",
    "bottom": "at the bottom",
    "left": "on the left",
    "right": "on the right",
    "centre": "in the centre",
}


@dataclass(frozen=True)
class Noun:
    """What a noun phrase says of an object; "" where it is silent."""

    size: str = ""
    fill: str = ""
    colour: str = ""
    shape: str = ""

    def fits(self, one: Object) -> bool:
        return all(
            said in ("", has)
            for said, has in zip(
                (self.size, self.fill, self.colour, self.shape), one.kind(), strict=True
            )
        )

    def said(self) -> dict[str, str]:
        """The attributes that it names."""
        return {name: getattr(self, name) for name in ATTRIBUTES if getattr(self, name)}


@dataclass(frozen=True)
class Claim:
    """One proposition. kind: some, count, place, relation, larger, largest, none, total.

    some: an object fits `noun`. count: exactly `number` do. place: one that fits is at `word`. relation: one that fits is
    `word` of another that fits `other`. larger: one that fits is larger than one that fits `other`. largest: the largest
    fits. none: no object fits. total: the scene has `number` objects.
    """

    kind: str
    noun: Noun = Noun()
    number: int = 1
    word: str = ""
    other: Noun = Noun()


def at_place(one: Object, word: str, margin: float = 0.05) -> bool:
    """Whether the object is there. margin > 0 for judging, < 0 for writing: what is written is clear."""
    if word == "centre":
        return max(abs(one.x - 0.5), abs(one.y - 0.5)) < 0.13 + margin
    near = {"left": one.x, "right": 1 - one.x, "top": one.y, "bottom": 1 - one.y}
    return all(near[part] < 0.40 + margin for part in word.split())


def clear_place(one: Object) -> str | None:
    """The narrowest place word that clearly holds, or None."""
    found = [word for word in PLACES if at_place(one, word, -0.03)]
    return found[0] if found else None


def related(first: Object, word: str, second: Object) -> bool:
    """Whether `first` is `word` of `second`, generously: a slanting left is still left."""
    if word == "inside":
        return relation(first, second) == "inside"
    ahead = {
        "left of": second.x - first.x,
        "right of": first.x - second.x,
        "above": second.y - first.y,
        "below": first.y - second.y,
    }
    return ahead[word] > 0.03 and "inside" not in (relation(first, second), relation(second, first))


def holds(claim: Claim, scene: Scene) -> bool:
    """Whether a claim is true of a scene."""
    objects = scene.objects
    fits = [one for one in objects if claim.noun.fits(one)]
    others = [one for one in objects if claim.other.fits(one)]
    if claim.kind in ("count", "none"):
        return len(fits) == (claim.number if claim.kind == "count" else 0)
    if claim.kind == "place":
        return sum(at_place(one, claim.word) for one in fits) >= claim.number
    if claim.kind == "relation":
        return any(a is not b and related(a, claim.word, b) for a in fits for b in others)
    if claim.kind == "larger":
        return any(a is not b and a.radius > 1.2 * b.radius for a in fits for b in others)
    if claim.kind == "largest":
        return bool(objects) and claim.noun.fits(max(objects, key=lambda one: one.radius))
    return len(objects) == claim.number if claim.kind == "total" else bool(fits)


# --- writing -------------------------------------------------------------------------------------------------


def noun(one: Object, rng: np.random.Generator, plural: bool = False, detail: float = 0.45) -> str:
    """Colour and shape, and with probability `detail` each the size and the fill."""
    words = [pick(rng, SYNONYMS[name]) for name in (one.size, one.fill) if rng.random() < detail]
    return " ".join([*words, one.colour, PLURALS[one.shape] if plural else one.shape])


def article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def groups_of(scene: Scene) -> list[list[Object]]:
    """Objects that are alike, together; the order of the groups is that of the scene."""
    groups: dict[tuple, list[Object]] = {}
    for one in scene.objects:
        groups.setdefault(one.kind(), []).append(one)
    return list(groups.values())


def listing(scene: Scene, rng: np.random.Generator) -> str:
    groups = groups_of(scene)
    items = [
        article(noun(g[0], rng))
        if len(g) == 1
        else f"{NUMBERS[len(g) - 1]} {noun(g[0], rng, plural=True)}"
        for g in (groups[i] for i in rng.permutation(len(groups)))
    ]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def describe_one(scene: Scene, rng: np.random.Generator) -> str:
    one = scene.objects[0]
    phrase, place = noun(one, rng), clear_place(one)
    forms = [
        article(phrase),
        f"there is {article(phrase)}",
        f"the picture shows {article(phrase)}",
        f"this is {article(phrase)}",
        f"one {phrase} and nothing else",
    ]
    if place:
        where = PLACES[place]
        forms += [
            f"{article(phrase)} {where}",
            f"{where} there is {article(phrase)}",
            f"the {phrase} is {where}",
            f"there is {article(phrase)} {where}",
        ]
    return pick(rng, forms)


def describe_two(scene: Scene, rng: np.random.Generator) -> str:
    first, second = (scene.objects[i] for i in rng.permutation(2))
    word = relation(first, second)
    if word is None:  # the second is inside the first
        first, second = second, first
        word = relation(first, second)
    a, b = noun(first, rng), noun(second, rng)
    between = pick(rng, RELATION_WORDS[word])
    forms = [f"{article(a)} {between} {article(b)}"] * 2 + [
        f"there is {article(a)} {between} {article(b)}",
        f"the {a} is {between} the {b}",
        f"{article(b)} with {article(a)} {RELATION_TO_IT[word]}",
        f"the picture shows {article(a)} {between} {article(b)}",
        f"{article(a)} and {article(b)}",
    ]
    places = clear_place(first), clear_place(second)
    if all(places):
        forms.append(f"{article(a)} {PLACES[places[0]]} and {article(b)} {PLACES[places[1]]}")
    return pick(rng, forms)


def describe_many(scene: Scene, rng: np.random.Generator) -> str:
    words, number = listing(scene, rng), len(scene.objects)
    absent = pick(
        rng, [shape for shape in SHAPES if shape not in {one.shape for one in scene.objects}]
    )
    forms = [
        words,
        f"there are {words}",
        f"we see {words}",
        f"the picture shows {words}",
        f"{NUMBERS[number - 1]} shapes: {words}",
        f"{words} but no {PLURALS[absent]}",
    ]
    largest, *rest = sorted((group[0] for group in groups_of(scene)), key=lambda one: -one.radius)
    smaller = [one for one in rest if largest.radius > 1.3 * one.radius]
    if smaller:
        forms.append(f"the {noun(largest, rng)} is larger than the {noun(pick(rng, smaller), rng)}")
        if len(smaller) == len(rest):
            forms.append(f"the largest is {article(noun(largest, rng))}")
    return pick(rng, forms)


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """A true caption of the scene."""
    return (describe_one, describe_two, describe_many)[min(len(scene.objects), 3) - 1](scene, rng)


def several(scene: Scene, rng: np.random.Generator, count: int = 5) -> list[str]:
    """`count` true captions, different from each other if twenty draws each can make them so."""
    found: dict[str, None] = {}
    for _ in range(20 * count):
        found[describe(scene, rng)] = None
        if len(found) == count:
            break
    return (list(found) * count)[:count]


def swap_captions(scene: Scene, mate: int, rng: np.random.Generator) -> list[str]:
    """One caption for a scene of two objects (mate 0) or for `scenes.swapped` of it (mate 1): the same words, the colours exchanged."""
    back, front = scene.objects
    word = relation(front, back)
    colours = (back.colour, front.colour) if mate else (front.colour, back.colour)
    between = RELATION_WORDS[word][int(rng.integers(2))]
    return [
        f"{article(f'{colours[0]} {front.shape}')} {between} {article(f'{colours[1]} {back.shape}')}"
    ]


# --- reading -------------------------------------------------------------------------------------------------


class Ungrammatical(ValueError):
    """The caption is not in the language."""


class Reader:
    """Recursive descent over the words of a caption."""

    def __init__(self, caption: str):
        self.words = caption.replace(",", " ,").replace(":", " :").split()
        self.claims: list[Claim] = []

    def take(self, *phrases: str) -> str | None:
        """The first of `phrases` that comes next, consumed; None if none does."""
        for phrase in phrases:
            words = phrase.split()
            if self.words[: len(words)] == words:
                del self.words[: len(words)]
                return phrase
        return None

    def need(self, *phrases: str) -> str:
        found = self.take(*phrases)
        if found is None:
            raise Ungrammatical(
                f"{' '.join(self.words[:3]) or 'the end'!r} instead of {phrases[0]!r}"
            )
        return found

    def one_of(self, table: dict[str, tuple[str, ...]] | dict[str, str]) -> str | None:
        """The key of the phrase in `table` that comes next, longest phrases first."""
        pairs = [
            (phrase, key)
            for key, phrases in table.items()
            for phrase in ((phrases,) if isinstance(phrases, str) else phrases)
        ]
        return next(
            (key for phrase, key in sorted(pairs, key=lambda p: -len(p[0])) if self.take(phrase)),
            None,
        )

    def noun(self, plural: bool = False) -> Noun:
        size, fill = (
            self.take(*(w for s in SIZES for w in SYNONYMS[s])),
            self.take(*(w for f in FILLS for w in SYNONYMS[f])),
        )
        colour = self.take(*COLOURS)
        shape = (
            {word: s for s, word in PLURALS.items()}[self.need(*PLURALS.values())]
            if plural
            else self.need(*SHAPES)
        )
        return Noun(MEANING.get(size, ""), MEANING.get(fill, ""), colour or "", shape)

    def item(self, alone: bool = False) -> Noun:
        """("a" | number) noun [place] [relation item | "with" item relation-to-it]; its claims are noted. alone: no tail."""
        word = self.need("an", "a", *NUMBERS)
        number = NUMBERS.index(word) + 1 if word in NUMBERS else 1
        phrase = self.noun(plural=number > 1)
        self.claims.append(
            Claim("count", phrase, number) if word in NUMBERS else Claim("some", phrase)
        )
        if alone:
            return phrase
        if place := self.one_of(PLACES):
            self.claims.append(Claim("place", phrase, number, place))
        if word := self.one_of(RELATION_WORDS):
            self.claims.append(Claim("relation", phrase, word=word, other=self.item()))
        elif self.take("with"):
            other = self.item(alone=True)
            self.claims.append(
                Claim(
                    "relation",
                    other,
                    word=self.one_of(RELATION_TO_IT) or self.need("to its left"),
                    other=phrase,
                )
            )
        return phrase

    def listing(self) -> None:
        self.item()
        while self.take(","):
            self.item()
        if self.take("and nothing else"):
            self.claims.append(Claim("total", number=1))
        elif self.take("and"):
            self.item()
        if self.take("but no"):
            self.claims.append(Claim("none", self.noun(plural=True)))

    def definite(self) -> None:
        """ "the" noun "is" …"""
        phrase = self.noun()
        self.need("is")
        self.claims.append(Claim("some", phrase))
        if place := self.one_of(PLACES):
            self.claims.append(Claim("place", phrase, 1, place))
            return
        word = (
            "larger"
            if self.take("larger than")
            else self.one_of(RELATION_WORDS) or self.need("above")
        )
        self.need("the")
        other = self.noun()
        self.claims.append(Claim("some", other))
        self.claims.append(
            Claim("larger" if word == "larger" else "relation", phrase, word=word, other=other)
        )

    def sentence(self) -> list[Claim]:
        if self.take("the largest is"):
            self.claims.append(Claim("largest", self.item()))
        elif self.words[1:3] == ["shapes", ":"]:
            self.claims.append(Claim("total", number=NUMBERS.index(self.need(*NUMBERS)) + 1))
            self.need("shapes :")
            self.listing()
        elif place := self.one_of(PLACES):
            self.need("there is")
            self.claims.append(Claim("place", self.item(), 1, place))
        elif self.take(*OPENINGS):
            self.listing()
        elif self.take("the"):
            self.definite()
        else:
            self.listing()
        if self.words:
            raise Ungrammatical(f"{' '.join(self.words)!r} after the end")
        return self.claims


def parse(caption: str) -> list[Claim]:
    """The claims of a caption. Raises Ungrammatical if it is not in the language."""
    return Reader(caption).sentence()


# --- judging -------------------------------------------------------------------------------------------------


def align(nouns: list[Noun], objects: list[Object]) -> list[tuple[Noun, Object | None]]:
    """Each mention with the object that it most likely means: the one-to-one assignment with most attributes right."""
    seats = list(objects) + [None] * max(0, len(nouns) - len(objects))

    def right(order) -> int:
        pairs = [(phrase, one) for phrase, one in zip(nouns, order, strict=True) if one is not None]
        return sum(
            said == getattr(one, name)
            for phrase, one in pairs
            for name, said in phrase.said().items()
        )

    return (
        list(zip(nouns, max(itertools.permutations(seats, len(nouns)), key=right), strict=True))
        if nouns
        else []
    )


def judge(caption: str, scene: Scene) -> dict:
    """What a caption gets right.

    grammatical, truthful (every claim true), exact (true, and it names every object with colour and shape, and no other),
    false: the untrue claims. tallies: {attribute or claim: [right, total]} for size, fill, colour, shape, place, relation,
    count; recall: [objects named, objects]; hallucinated: [mentions of a colour and shape that no object has, mentions].
    """
    try:
        claims = parse(caption)
    except Ungrammatical as error:
        return {
            "grammatical": False,
            "truthful": False,
            "exact": False,
            "false": [str(error)],
            "tallies": {},
            "recall": [0, len(scene.objects)],
            "hallucinated": [0, 0],
        }
    untrue = [claim for claim in claims if not holds(claim, scene)]
    mentions = [
        claim.noun
        for claim in claims
        if claim.kind in ("some", "count")
        for _ in range(claim.number)
    ][:6]
    kinds = sorted((one.colour, one.shape) for one in scene.objects)
    tallies: dict[str, list[int]] = {}

    def tally(name: str, right: bool) -> None:
        entry = tallies.setdefault(name, [0, 0])
        entry[0] += right
        entry[1] += 1

    for phrase, one in align(mentions, scene.objects):
        for name, said in phrase.said().items():
            tally(name, one is not None and getattr(one, name) == said)
    for claim in claims:
        if claim.kind in ("place", "relation", "count", "total", "larger", "largest", "none"):
            tally(
                {"total": "count", "largest": "larger"}.get(claim.kind, claim.kind),
                holds(claim, scene),
            )
    named = [(phrase.colour, phrase.shape) for phrase in mentions]
    return {
        "grammatical": True,
        "truthful": not untrue,
        "exact": not untrue and sorted(named) == kinds,
        "false": [explain(claim) for claim in untrue],
        "tallies": tallies,
        "recall": [sum(kind in named for kind in kinds), len(kinds)],
        "hallucinated": [sum(name not in kinds for name in named), len(named)],
    }


def explain(claim: Claim) -> str:
    """A claim in words, for people who look at what was wrong."""
    words = " ".join(claim.noun.said().values())
    if claim.kind in ("relation", "larger"):
        return (
            f"{words} {claim.word} {' '.join(claim.other.said().values())}"
            if claim.kind == "relation"
            else f"{words} larger than {' '.join(claim.other.said().values())}"
        )
    return {
        "some": words,
        "count": f"exactly {claim.number} {words}",
        "place": f"{words} {PLACES.get(claim.word, '')}",
        "largest": f"{words} is the largest",
        "none": f"no {words}",
        "total": f"{claim.number} shapes in all",
    }[claim.kind]
