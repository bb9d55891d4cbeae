"""Notes: which objects a question concerns, said before its answer.

Objects are numbered from left to right, as looks name them (worlds/looks.py). A note begins with
the value that "how many others have its colour" asks for, or "any". Then it has five words, as many
as there can be objects: the number of an object, or "no". Then come "it" and the object that "it"
means after this turn. The answer stands last:

    how many medium shapes are there ?   any one no three no no it zero two
    what colour is the star ?            any no two no no no it two red
    and its size ?                       any no two no no no it two small
    is there anything left of it ?       any one no no no no it two yes
    how many others have its fill ?      solid no no three four no it two two

The numbers are of the objects that fit, of those that stand in the relation, or of the object that
is compared. The subject of a relation is behind "it". So an answer follows from the looks and its
own note. What "it" means stands in the turn before, however long ago the object was named.

Each object has its own place in the note. So whether it is noted does not depend on how many others
are. A list of numbers does: all its words are drawn in a call or two. The value has a place of its
own. Once it is drawn, each object needs a single step: does this object have this value?
"""

from worlds import looks, talk
from worlds.scenes import Scene
from worlds.talk import NUMBERS, Question

IT = "it"  # no answer holds this word
NOT = "no"
ANY = "any"  # where no value is asked for


def concerned(question: Question, scene: Scene, referent: int | None) -> list[int]:
    """The objects of a question's note: those that fit it, or stand in its relation, or the object
    that "is it … the" compares with.

    The subject of a relation, and of "how many others", is not among them: "it" means it after the
    turn. referent: the object that "it" means.
    """
    if question.kind in ("how many", "is there"):
        return talk.fitting(question.noun, scene)
    subject = talk.alone(question.noun, scene, referent)
    if subject is None:
        return []
    if question.kind in ("is there anything", "what is"):
        return talk.related(scene, question.word, subject) or []
    if question.kind == "how many others":
        value = value_of(question, scene, referent)
        alike = [getattr(thing, question.word) == value for thing in scene.objects]
        return [index for index, is_alike in enumerate(alike) if is_alike and index != subject]
    return talk.fitting(question.other, scene) if question.kind == "is it" else [subject]


def value_of(question: Question, scene: Scene, referent: int | None) -> str:
    """The value that the others of "how many others have its …" must have; else "any".

    referent: the object that "it" means.
    """
    subject = talk.alone(question.noun, scene, referent)
    if question.kind != "how many others" or subject is None:
        return ANY
    return getattr(scene.objects[subject], question.word)


def note(question: Question, scene: Scene, before: int | None, after: int | None) -> str:
    """The note of a question. before, after: what "it" means before and after the turn."""
    numbers = {index: NUMBERS[place] for place, index in enumerate(looks.in_order(scene), 1)}
    chosen = {numbers[index] for index in concerned(question, scene, before)}
    words = [number if number in chosen else NOT for number in NUMBERS[1 : looks.LOOKS + 1]]
    value = value_of(question, scene, before)
    return " ".join([value, *words, IT, NUMBERS[0] if after is None else numbers[after]])


def of_dialogue(questions: list[str], scene: Scene) -> list[str]:
    """The notes of questions that are asked one after another, each with an answer.

    Raises ValueError if the scene leaves an answer open, talk.Unread for a question outside the
    language.
    """
    found, referent = [], None
    for text in questions:
        question = talk.read(text)
        answered = talk.answer(question, scene, referent)
        if answered is None:
            raise ValueError(f"{text!r} has no answer in this scene")
        found.append(note(question, scene, referent, answered.referent))
        referent = answered.referent
    return found


def begins_with_value(text: str) -> bool:
    """Whether a note begins with a value, which older notes do not."""
    return IT in text.split() and text.split().index(IT) > looks.LOOKS


def split(text: str) -> tuple[str, str]:
    """A note and the answer behind it. A text without a note is an answer."""
    words = text.split()
    if IT not in words:
        return "", " ".join(words)
    end = words.index(IT) + 2
    return " ".join(words[:end]), " ".join(words[end:])


def named(text: str, seen: list[str]) -> list[str]:
    """What the looks of a scene say of the objects that a note names, from left to right.

    The object that "it" means is among them. seen: the looks, from left to right. A number without
    such a look is left out.
    """
    words = text.split()
    numbers = sorted({NUMBERS.index(word) for word in words if word in NUMBERS})
    said = dict(enumerate(seen, 1))
    found = [said.get(number, looks.NOTHING) for number in numbers]
    return [text for text in found if text and text != looks.NOTHING]
