"""Points: which objects a question is about, noted before its answer.

Objects are numbered from left to right, as looks name them (worlds/looks.py). A note lists the
objects that the question is about, the subject first. Behind "it" stands the object that "it" means
after this turn, and then comes the answer:

    how many medium shapes are there ?   one three it zero two
    what colour is the star ?            two it two red
    and its size ?                       two it two small
    is there anything left of it ?       two one it two yes

So an answer follows from the looks and its own note. What "it" means stands in the turn before,
however long ago the object was named.
"""

from worlds import looks, talk
from worlds.scenes import Scene
from worlds.talk import NUMBERS, Question

IT = "it"  # no answer holds this word


def concerned(question: Question, scene: Scene, referent: int | None) -> list[int]:
    """The objects that a question is about: its subject, then the others from left to right.

    referent: the object that "it" means.
    """
    if question.kind in ("how many", "is there"):
        return in_order(talk.fitting(question.noun, scene), scene)
    subject = talk.alone(question.noun, scene, referent)
    if subject is None:
        return []
    others: list[int] = []
    if question.kind in ("is there anything", "what is"):
        others = talk.related(scene, question.word, subject) or []
    elif question.kind == "how many others":
        value = getattr(scene.objects[subject], question.word)
        alike = [getattr(thing, question.word) == value for thing in scene.objects]
        others = [index for index, is_alike in enumerate(alike) if is_alike and index != subject]
    elif question.kind == "is it":
        others = talk.fitting(question.other, scene)
    return [subject, *in_order(others, scene)]


def in_order(indices: list[int], scene: Scene) -> list[int]:
    """Objects from left to right, as the looks name them."""
    return sorted(indices, key=lambda index: (scene.objects[index].x, index))


def note(question: Question, scene: Scene, before: int | None, after: int | None) -> str:
    """The note of a question. before, after: what "it" means before and after the turn."""
    places = in_order(list(range(len(scene.objects))), scene)
    numbers = {index: NUMBERS[1 + place] for place, index in enumerate(places)}
    words = [numbers[index] for index in concerned(question, scene, before)]
    return " ".join([*words, IT, NUMBERS[0] if after is None else numbers[after]])


def notes(questions: list[str], scene: Scene) -> list[str]:
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


def split(text: str) -> tuple[str, str]:
    """A note and the answer behind it. A text without a note is an answer."""
    words = text.split()
    if IT not in words:
        return "", " ".join(words)
    end = words.index(IT) + 2
    return " ".join(words[:end]), " ".join(words[end:])


def named(text: str, seen: list[str]) -> list[str]:
    """What the looks of a scene say of the objects that a note lists, in its order.

    seen: the looks, from left to right. A number without such a look is left out.
    """
    words = text.split()
    words = words[: words.index(IT)] if IT in words else []
    numbers = [NUMBERS.index(word) for word in words if word in NUMBERS]
    said = dict(enumerate(seen, 1))
    found = [said.get(number, looks.NOTHING) for number in numbers]
    return [text for text in found if text and text != looks.NOTHING]
