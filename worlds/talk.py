"""Questions about a scene: their words, their meaning, and their true answers.

A question is read with what was said before it: "it" is the referent, the object that was last
named alone. The grammar:

    question := "how many" things "are there ?"                         count
              | "how many others have its" attribute "?"                count
              | "is there" a thing "?"                                  exist
              | "is there anything" relation (it | "the" thing) "?"     exist
              | "what" attribute "is" (it | "the" thing) "?"            attribute
              | "and its" attribute "?"                                 attribute
              | "what is" relation (it | "the" thing) "?"               relation
              | "is" (it | "the" thing) relation "the" thing "?"        relation
              | "where is" (it | "the" thing) "?"                       place
    thing    := [size] [fill] [colour] (shape | "shape")
    answer   := "yes" | "no" | "zero" | "one" | … | an attribute | a place | "a" colour shape

`answer` carries a question out on a scene. It gives None where the scene leaves the answer open:
"the star" in a scene of two stars, or a relation that slants.
"""

import math
from dataclasses import dataclass, replace

from worlds.language import MEANING, PLACES, PLURALS, RELATION_WORDS, article
from worlds.reader import FILL_WORDS, SIZE_WORDS, Noun
from worlds.scenes import ATTRIBUTES, COLOURS, SHAPES, Object, Scene, at_place, relation

NUMBERS = ("zero", "one", "two", "three", "four", "five")
FAMILIES = ("count", "exist", "attribute", "relation", "place")
# The kinds of questions, and the family of each.
KINDS = {
    "how many": "count",
    "how many others": "count",
    "is there": "exist",
    "is there anything": "exist",
    "what attribute": "attribute",
    "what is": "relation",
    "is it": "relation",
    "where": "place",
}
# An object may be called left although it is a little higher. An answer "no" needs more than the
# absence of a clear relation: see `never_related`.
SLANT = 0.03  # of the image's side, as in judge.py


@dataclass(frozen=True)
class Question:
    """What a question asks. noun: its subject, or None for "it"; other: a second object.

    kind: of KINDS. word: a relation or an attribute. short: the form "and its colour ?".
    """

    kind: str
    noun: Noun | None = None
    word: str = ""
    other: Noun | None = None
    short: bool = False

    @property
    def family(self) -> str:
        return KINDS[self.kind]

    @property
    def has_pronoun(self) -> bool:
        """Whether it asks about "it"."""
        return self.noun is None


@dataclass(frozen=True)
class Answer:
    """The true answer, and the referent after it: an index of the scene's objects, or None."""

    text: str
    referent: int | None


# --- words -------------------------------------------------------------------------------------


def phrase(noun: Noun, plural: bool = False) -> str:
    """The words of a noun: "small red circle", "red shape", "shapes"."""
    if noun.shape:
        shape = PLURALS[noun.shape] if plural else noun.shape
    else:
        shape = "shapes" if plural else "shape"
    words = [value for name, value in noun.named().items() if name != "shape"]
    return " ".join([*words, shape])


def ask(question: Question) -> str:
    """The words of a question."""
    subject = "it" if question.noun is None else "the " + phrase(question.noun)
    between = RELATION_WORDS.get(question.word, ("",))[0]
    match question.kind:
        case "how many":
            return f"how many {phrase(question.noun, plural=True)} are there ?"
        case "how many others":
            return f"how many others have its {question.word} ?"
        case "is there":
            return f"is there {article(phrase(question.noun))} ?"
        case "is there anything":
            return f"is there anything {between} {subject} ?"
        case "what attribute" if question.short:
            return f"and its {question.word} ?"
        case "what attribute":
            return f"what {question.word} is {subject} ?"
        case "what is":
            return f"what is {between} {subject} ?"
        case "is it":
            return f"is {subject} {between} the {phrase(question.other)} ?"
        case "where":
            return f"where is {subject} ?"
    raise ValueError(f"a question of the kind {question.kind!r}")


class Unread(ValueError):
    """The question is not in the language."""


class QuestionReader:
    """Takes words from the front of a question: one method per rule of the grammar."""

    def __init__(self, text: str):
        self.words = text.lower().replace("?", " ?").replace(",", " ").split()
        if self.words[-1:] == ["?"]:
            self.words.pop()

    def take(self, *phrases: str) -> str | None:
        """Take the longest of `phrases` that comes next. None if none of them does."""
        for wanted in sorted(phrases, key=len, reverse=True):
            words = wanted.split()
            if self.words[: len(words)] == words:
                del self.words[: len(words)]
                return wanted
        return None

    def need(self, *phrases: str) -> str:
        """Take one of `phrases`, or raise Unread."""
        found = self.take(*phrases)
        if found is None:
            next_words = " ".join(self.words[:3]) or "the end"
            raise Unread(f"{next_words!r} where {phrases[0]!r} could stand")
        return found

    def thing(self, plural: bool = False) -> Noun:
        """[size] [fill] [colour] (shape | "shape")"""
        size = MEANING.get(self.take(*SIZE_WORDS) or "", "")
        fill = MEANING.get(self.take(*FILL_WORDS) or "", "")
        colour = self.take(*COLOURS) or ""
        names = {PLURALS[shape] if plural else shape: shape for shape in SHAPES}
        names["shapes" if plural else "shape"] = ""
        return Noun(size, fill, colour, names[self.need(*names)])

    def subject(self) -> Noun | None:
        """it | "the" thing. None for "it"."""
        if self.take("it"):
            return None
        self.need("the")
        return self.thing()

    def relation(self) -> str | None:
        """The relation whose words come next, or None."""
        for word, phrases in RELATION_WORDS.items():
            if self.take(*phrases):
                return word
        return None

    def question(self) -> Question:
        """The whole question. Raises Unread if it is not in the language."""
        found = self.rule()
        if self.words:
            raise Unread(f"{' '.join(self.words)!r} after the end")
        return found

    def rule(self) -> Question:
        if self.take("how many others have its"):
            return Question("how many others", word=self.need(*ATTRIBUTES))
        if self.take("how many"):
            noun = self.thing(plural=True)
            self.need("are there")
            return Question("how many", noun)
        if self.take("is there anything"):
            word = self.relation() or self.need("left of")
            return Question("is there anything", self.subject(), word)
        if self.take("is there an", "is there a"):
            return Question("is there", self.thing())
        if self.take("and its"):
            return Question("what attribute", word=self.need(*ATTRIBUTES), short=True)
        if self.take("where is"):
            return Question("where", self.subject())
        if self.take("what is"):
            word = self.relation() or self.need("left of")
            return Question("what is", self.subject(), word)
        if self.take("what"):
            attribute = self.need(*ATTRIBUTES)
            self.need("is")
            return Question("what attribute", self.subject(), attribute)
        self.need("is")
        noun = self.subject()
        word = self.relation() or self.need("left of")
        self.need("the")
        return Question("is it", noun, word, self.thing())


def read(text: str) -> Question:
    """The meaning of a question. Raises Unread if it is not in the language."""
    return QuestionReader(text).question()


# --- answers -----------------------------------------------------------------------------------


def fitting(noun: Noun, scene: Scene) -> list[int]:
    """The objects that a noun fits."""
    return [index for index, thing in enumerate(scene.objects) if noun.fits(thing)]


def alone(noun: Noun | None, scene: Scene, referent: int | None) -> int | None:
    """The single object that "it" or "the …" means, or None."""
    if noun is None:
        return referent
    found = fitting(noun, scene)
    return found[0] if len(found) == 1 else None


def never_related(first: Object, word: str, second: Object) -> bool:
    """Whether nobody would say that `first` is `word` of `second`."""
    if "inside" in (relation(first, second), relation(second, first)):
        return relation(first, second) != word
    if word == "inside":
        # An object that covers the border of another could be called inside it.
        distance = math.hypot(first.x - second.x, first.y - second.y)
        return distance > second.radius
    ahead = {
        "left of": second.x - first.x,
        "right of": first.x - second.x,
        "above": second.y - first.y,
        "below": first.y - second.y,
    }
    return ahead[word] < SLANT


def related(scene: Scene, word: str, index: int) -> list[int] | None:
    """The objects that are clearly `word` of an object. None if another object is nearly so."""
    found = []
    for number, thing in enumerate(scene.objects):
        if number == index:
            continue
        if relation(thing, scene.objects[index]) == word:
            found.append(number)
        elif not never_related(thing, word, scene.objects[index]):
            return None
    return found


def place_of(thing: Object) -> str | None:
    """The narrowest place that clearly holds the object, and that no other place contests."""
    for place in PLACES:
        if at_place(thing, place, margin=-0.03):
            return place
        if at_place(thing, place, margin=0.03):
            return None
    return None


def say_place(place: str) -> str:
    """A place as an answer: "in the top left"."""
    return PLACES[place]


def answer(question: Question, scene: Scene, referent: int | None = None) -> Answer | None:
    """The true answer to a question. referent: the object that "it" means.

    None: the scene leaves the answer open, or an object that the question presumes is not there.
    """
    if question.kind == "how many":
        return Answer(NUMBERS[len(fitting(question.noun, scene))], referent)
    if question.kind == "is there":
        found = fitting(question.noun, scene)
        named = found[0] if len(found) == 1 else referent
        return Answer("yes" if found else "no", named)
    index = alone(question.noun, scene, referent)
    if index is None:
        return None
    text = about(question, scene, index)
    if text is None:
        return None
    if question.kind == "what is":
        return Answer(text, related(scene, question.word, index)[0])
    return Answer(text, index)


def about(question: Question, scene: Scene, index: int) -> str | None:
    """The answer to a question about object `index`. None: it is open."""
    thing = scene.objects[index]
    match question.kind:
        case "how many others":
            value = getattr(thing, question.word)
            same = sum(getattr(other, question.word) == value for other in scene.objects)
            return NUMBERS[same - 1]
        case "what attribute":
            return getattr(thing, question.word)
        case "where":
            place = place_of(thing)
            return None if place is None else say_place(place)
        case "is there anything":
            found = related(scene, question.word, index)
            return None if found is None else ("yes" if found else "no")
        case "what is":
            found = related(scene, question.word, index)
            if found is None or len(found) != 1:
                return None
            other = scene.objects[found[0]]
            named = Noun(colour=other.colour, shape=other.shape)
            # "It" may mean this object in the next question, so its name must fit no other.
            return article(phrase(named)) if len(fitting(named, scene)) == 1 else None
        case "is it":
            other_index = alone(question.other, scene, None)
            if other_index is None or other_index == index:
                return None
            other = scene.objects[other_index]
            if relation(thing, other) == question.word:
                return "yes"
            return "no" if never_related(thing, question.word, other) else None
    raise ValueError(f"a question of the kind {question.kind!r}")


def with_pronoun(question: Question) -> Question:
    """The same question about "it"."""
    return replace(question, noun=None)
