"""Whether the answers of a dialogue contradict each other, whatever the picture shows.

An answer promises numbers: "how many circles are there ? two" says that at least two and at most
two objects fit "circle". No picture makes all answers true if disjoint things promise more objects
than a wider thing has: two circles and a star are three shapes.

Counts, "is there a …", attributes and the answers to "what is left of …" are compared. Relations
and places are not. "It" is followed only where the words alone say which object it is. So a found
contradiction is sure, but not all are found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from worlds import talk
from worlds.reader import Noun
from worlds.talk import NUMBERS, Question, QuestionReader, Unread


@dataclass(frozen=True)
class Promise:
    """At least `low` and at most `high` objects fit the noun."""

    noun: Noun
    low: int
    high: float = math.inf


def within(narrow: Noun, wide: Noun) -> bool:
    """Whether each object that fits `narrow` fits `wide`."""
    return wide.named().items() <= narrow.named().items()


def apart(first: Noun, second: Noun) -> bool:
    """Whether no object fits both: they name an attribute differently."""
    other = second.named()
    return any(other.get(name, value) != value for name, value in first.named().items())


def promised(promises: Sequence[Promise]) -> int:
    """The most objects that promises about pairwise disjoint nouns add up to."""
    if not promises:
        return 0
    first, rest = promises[0], promises[1:]
    beside = [promise for promise in rest if apart(promise.noun, first.noun)]
    return max(promised(rest), first.low + promised(beside))


def possible(promises: Sequence[Promise]) -> bool:
    """Whether no promise of at most some objects is broken by the others."""
    for limit in promises:
        parts = [it for it in promises if it.low and within(it.noun, limit.noun)]
        if limit.high < promised(parts):
            return False
    return True


@dataclass
class Listener:
    """What the words of a dialogue promise. it: what is known of the referent; None: unclear."""

    it: Noun | None = None

    def hear(self, question: Question, answer: str) -> list[Promise] | None:
        """The promises of an answer. None: it contradicts what "it" is called."""
        if question.kind == "how many":
            return self.counted(question.noun, answer)
        if question.kind == "is there":
            # If the noun fits a single object, "it" is this object from now on. Words do not tell.
            self.it = None
            high = {"yes": math.inf, "no": 0}.get(answer)
            return [] if high is None else [Promise(question.noun, int(high > 0), high)]
        if question.noun is not None:
            self.it = question.noun
        if question.kind == "what is":
            self.it = thing_of(answer)
        elif question.kind == "what attribute" and self.it is not None:
            named = self.it.named().get(question.word, answer)
            if named != answer:
                return None
            self.it = replace(self.it, **{question.word: answer})
        elif question.kind == "how many others":
            return self.others(question.word, answer)
        told = question.kind in ("what is", "what attribute") and self.it is not None
        return [Promise(self.it, 1)] if told else []

    def counted(self, noun: Noun, answer: str, more: int = 0) -> list[Promise]:
        """A number as an answer: as many objects and `more` fit the noun."""
        if answer not in NUMBERS:
            return []
        number = NUMBERS.index(answer) + more
        return [Promise(noun, number, number)]

    def others(self, attribute: str, answer: str) -> list[Promise]:
        """ "how many others have its colour ?": "it" is not among the others."""
        value = self.it.named().get(attribute) if self.it else None
        return self.counted(Noun(**{attribute: value}), answer, more=1) if value else []


def thing_of(answer: str) -> Noun | None:
    """The noun of "a red star". None if the answer names no thing."""
    reader = QuestionReader(answer)
    reader.take("an", "a")
    try:
        noun = reader.thing()
    except Unread:
        return None
    return None if reader.words else noun


def contradiction(questions: Sequence[str], answers: Sequence[str]) -> int | None:
    """The first turn whose answer no picture allows after the answers before it. None: no turn.

    A question that is not in the language promises nothing, and leaves open what "it" is.
    """
    listener, promises = Listener(), []
    for turn, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        try:
            found = listener.hear(talk.read(question), answer)
        except Unread:
            listener.it, found = None, []
        if found is None or not possible(promises := promises + found):
            return turn
    return None
