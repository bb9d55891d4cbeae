"""Read a caption: from words to claims. The grammar stands in language.py.

A claim is one statement about the scene, such as "some small red circle" or "it is left of some
blue square". judge.py says when a claim is true.
"""

from dataclasses import dataclass

from worlds.language import (
    MEANING,
    NUMBERS,
    OPENINGS,
    PLACES,
    PLURALS,
    RELATION_TO_IT,
    RELATION_WORDS,
    SYNONYMS,
)
from worlds.scenes import ATTRIBUTES, COLOURS, FILLS, SHAPES, SIZES, Object

SIZE_WORDS = tuple(word for size in SIZES for word in SYNONYMS[size])
FILL_WORDS = tuple(word for fill in FILLS for word in SYNONYMS[fill])
SHAPE_OF = {plural: shape for shape, plural in PLURALS.items()}


@dataclass(frozen=True)
class Noun:
    """The attributes that a noun phrase names; "" for an attribute that it does not name."""

    size: str = ""
    fill: str = ""
    colour: str = ""
    shape: str = ""

    def named(self) -> dict[str, str]:
        """The named attributes, in the order of ATTRIBUTES."""
        values = {name: getattr(self, name) for name in ATTRIBUTES}
        return {name: value for name, value in values.items() if value}

    def fits(self, thing: Object) -> bool:
        """Whether the object has all attributes that the noun names."""
        # Dialogues ask this millions of times: a loop over ATTRIBUTES took 1.4 times as long.
        return (
            self.size in ("", thing.size)
            and self.fill in ("", thing.fill)
            and self.colour in ("", thing.colour)
            and self.shape in ("", thing.shape)
        )


@dataclass(frozen=True)
class Claim:
    """One statement. `kind` says what the other fields mean; judge.holds has the list."""

    kind: str
    noun: Noun = Noun()
    number: int = 1
    word: str = ""  # a place or a relation
    other: Noun = Noun()


class Ungrammatical(ValueError):
    """The caption is not in the language."""


class Reader:
    """Recursive descent over the words of a caption: one method per rule of the grammar.

    The methods take words from the front of `words` and add to `claims`.
    """

    def __init__(self, caption: str):
        # Punctuation becomes words of its own, so that the rules need no characters.
        self.words = caption.replace(",", " ,").replace(":", " :").split()
        self.claims: list[Claim] = []

    # --- words ---------------------------------------------------------------------------------

    def take(self, *phrases: str) -> str | None:
        """Take the first of `phrases` that comes next. None if none of them does."""
        for phrase in phrases:
            # Whole words: "red" must not take the beginning of another word.
            words = phrase.split()
            if self.words[: len(words)] == words:
                del self.words[: len(words)]
                return phrase
        return None

    def need(self, *phrases: str) -> str:
        """Take one of `phrases`, or raise Ungrammatical."""
        phrase = self.take(*phrases)
        if phrase is None:
            next_words = " ".join(self.words[:3]) or "the end"
            raise Ungrammatical(f"{next_words!r} instead of {phrases[0]!r}")
        return phrase

    def take_place(self) -> str | None:
        return self.take_meaning({phrase: place for place, phrase in PLACES.items()})

    def take_relation(self) -> str | None:
        meanings = {}
        for word, phrases in RELATION_WORDS.items():
            meanings |= dict.fromkeys(phrases, word)
        return self.take_meaning(meanings)

    def take_relation_to_it(self) -> str | None:
        return self.take_meaning({phrase: word for word, phrase in RELATION_TO_IT.items()})

    def take_meaning(self, meanings: dict[str, str]) -> str | None:
        """Take the longest phrase of {phrase: meaning} that comes next. Returns its meaning."""
        phrase = self.take(*sorted(meanings, key=len, reverse=True))
        return meanings[phrase] if phrase else None

    # --- rules ---------------------------------------------------------------------------------

    def noun(self, plural: bool = False) -> Noun:
        size = self.take(*SIZE_WORDS)
        fill = self.take(*FILL_WORDS)
        colour = self.take(*COLOURS)
        shape = SHAPE_OF[self.need(*SHAPE_OF)] if plural else self.need(*SHAPES)
        return Noun(MEANING.get(size or "", ""), MEANING.get(fill or "", ""), colour or "", shape)

    def counted_noun(self) -> tuple[Noun, int]:
        """("a" | number) noun. "a" claims at least one, a number n claims exactly n."""
        word = self.need("an", "a", *NUMBERS)
        if word in NUMBERS:
            number = NUMBERS.index(word) + 1
            phrase = self.noun(plural=number > 1)
            self.claims.append(Claim("count", phrase, number))
            return phrase, number
        phrase = self.noun()
        self.claims.append(Claim("some", phrase))
        return phrase, 1

    def item(self) -> Noun:
        """counted noun [place] [relation item | "with" counted noun relation-to-it]"""
        phrase, number = self.counted_noun()
        place = self.take_place()
        if place:
            self.claims.append(Claim("place", phrase, number, place))
        word = self.take_relation()
        if word:
            self.claims.append(Claim("relation", phrase, word=word, other=self.item()))
        elif self.take("with"):
            other, _ = self.counted_noun()
            word = self.take_relation_to_it() or self.need("to its left")  # raises: none came
            self.claims.append(Claim("relation", other, word=word, other=phrase))
        return phrase

    def listing(self) -> None:
        """item {"," item} ["and" item] ["but no" nouns | "and nothing else"]"""
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
        """ "the" noun "is" (place | relation "the" noun | "larger than the" noun), after "the" """
        phrase = self.noun()
        self.need("is")
        self.claims.append(Claim("some", phrase))
        place = self.take_place()
        if place:
            self.claims.append(Claim("place", phrase, 1, place))
            return
        if self.take("larger than"):
            kind = word = "larger"
        else:
            kind = "relation"
            word = self.take_relation() or self.need("above")
        self.need("the")
        other = self.noun()
        # "the" claims that there is such an object, whether or not the relation holds.
        self.claims.append(Claim("some", other))
        self.claims.append(Claim(kind, phrase, word=word, other=other))

    def caption(self) -> list[Claim]:
        """The whole caption. Raises Ungrammatical if it is not in the language."""
        if self.take("the largest is"):
            self.claims.append(Claim("largest", self.item()))
        # Two words ahead: a listing may begin with the same number, as in "two red circles".
        elif self.words[1:3] == ["shapes", ":"]:
            number = NUMBERS.index(self.need(*NUMBERS)) + 1
            self.claims.append(Claim("total", number=number))
            self.need("shapes :")
            self.listing()
        elif place := self.take_place():
            self.need("there is")
            self.claims.append(Claim("place", self.item(), 1, place))
        elif self.take(*OPENINGS):
            self.listing()
        elif self.take("the"):
            self.definite()
        else:
            self.listing()
        # A caption that continues after its end may claim anything, so it is refused.
        if self.words:
            raise Ungrammatical(f"{' '.join(self.words)!r} after the end")
        return self.claims


def parse(caption: str) -> list[Claim]:
    """The claims of a caption. Raises Ungrammatical if it is not in the language."""
    return Reader(caption).caption()
