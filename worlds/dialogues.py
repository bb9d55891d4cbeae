"""Dialogues about a scene: ten questions, each with its true answer.

`converse` draws a dialogue. Its rules make the image and the history necessary:

- An answer is drawn first, evenly among the answers that this scene allows, then a question that
  has it. So the words of a question tell little about its answer.
- "It" stands only where another object of the scene would give another answer.
- Nothing is asked that the dialogue has already said.

`answers` carries the questions of any dialogue out on any scene: the oracle of every score.
"""

from dataclasses import asdict, dataclass, field

import numpy as np

from worlds import scenes, talk
from worlds.reader import Noun
from worlds.scenes import (
    ATTRIBUTES,
    CLASSES,
    RELATIONS,
    Object,
    Scene,
    pick,
)
from worlds.talk import FAMILIES, Question

TURNS = 10
PRONOUNS = 0.6  # share of the questions that say "it" where they can
FARTHEST = 6  # turns between a name and the last "it" that means it
TRIES = 30  # questions that a turn draws and chooses from
GROUPED = 0.3  # share of the scenes with objects that are alike, so that counts exceed one
HELD = ("held_pair", "long")
SPLITS = ("train", "val", *HELD)  # a split's number is part of its seed: never change the order
SHORT = 0.3  # share of the questions about an attribute of "it" that are "and its colour ?"


@dataclass(frozen=True)
class Turn:
    """A question and its true answer.

    family: of talk.FAMILIES. distance: turns since "it" was last named; 0 without "it". note: which
    objects the question is about (worlds/notes.py); empty: nothing is noted.
    """

    question: str
    answer: str
    family: str
    distance: int = 0
    note: str = ""

    def to_dict(self) -> dict:
        return {name: value for name, value in asdict(self).items() if name != "note" or value}


@dataclass
class History:
    """What was said. referent: the object that "it" means; named_at: the turn that named it.

    known: (object, attribute) pairs that were said. asked: questions with the object they meant.
    """

    turn: int = 0
    referent: int | None = None
    named_at: int = 0
    known: set[tuple[int, str]] = field(default_factory=set)
    asked: set[tuple] = field(default_factory=set)

    def say(self, question: Question, found: talk.Answer, scene: Scene) -> int:
        """Take a question and its answer in. Returns the distance of its "it", or 0."""
        distance = self.turn - self.named_at if question.has_pronoun else 0
        self.asked.add(self.key(question, scene))
        for noun in (question.noun, question.other):
            if noun is not None and len(talk.fitting(noun, scene)) == 1:
                self.learn(noun, talk.fitting(noun, scene)[0])
        self.referent = found.referent
        if question.kind == "what attribute" and found.referent is not None:
            self.known.add((found.referent, question.word))
        if question.kind == "what is" and found.referent is not None:
            self.known |= {(found.referent, "colour"), (found.referent, "shape")}
        if self.names(question, found, scene):
            self.named_at = self.turn
        self.turn += 1
        return distance

    def names(self, question: Question, found: talk.Answer, scene: Scene) -> bool:
        """Whether this turn names the referent: by the question's subject, or by the answer."""
        if question.kind == "what is":
            return True
        if question.noun is None:
            return False
        return talk.fitting(question.noun, scene) == [found.referent]

    def learn(self, noun: Noun, index: int) -> None:
        """The attributes of an object that its name says."""
        self.known |= {(index, name) for name in noun.named()}

    def key(self, question: Question, scene: Scene) -> tuple:
        """What is asked, whatever the words: an object that is named alone counts as itself."""
        subject = talk.alone(question.noun, scene, self.referent)
        other = talk.alone(question.other, scene, None)
        if subject is None:
            return question.kind, question.noun, question.word, other
        return question.kind, subject, question.word, other


# --- scenes ------------------------------------------------------------------------------------


def sample_scene(rng: np.random.Generator, split: str, noise: int = 0) -> Scene:
    """A scene to talk about: two to four objects, and five in the split `long`.

    Most scenes have objects of different kinds, so that each can be named alone. The first object
    of `held_pair` has a colour and a shape that no image of training shows together.
    """
    number = 5 if split == "long" else int(rng.integers(2, 5))
    pairs = "held" if split == "held_pair" else "seen"
    if number > 2 and rng.random() < GROUPED:
        return scenes.sample_scene(rng, 3, noise=noise, pairs=pairs, number=number)
    while True:
        objects = sample_apart(rng, number, pairs)
        if objects is not None:
            return Scene(objects, noise, seed=int(rng.integers(2**31)))


def sample_apart(rng: np.random.Generator, number: int, pairs: str) -> list[Object] | None:
    """Objects that differ in colour or shape, at places apart. None: draw again."""
    objects: list[Object] = []
    for _ in range(number):
        thing = scenes.sample_kind(rng, "seen" if objects else pairs)
        twins = [it for it in objects if (it.colour, it.shape) == (thing.colour, thing.shape)]
        too_large = thing.size == "large" and number > 3  # large objects would find no room
        if twins or too_large or not scenes.find_place(rng, thing, objects):
            return None
        objects.append(thing)
    return objects


def sample(split: str, number: int, seed: int, noise: int = 0) -> tuple[Scene, list[Turn]]:
    """Scene `number` of a split and its dialogue: a pure function of the arguments.

    noise: images have noise 0 to this.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), number, 10])
    while True:
        scene = sample_scene(rng, split, int(rng.integers(noise + 1)))
        turns = converse(scene, rng)
        if len(turns) == TURNS:
            return scene, turns


# --- drawing questions -------------------------------------------------------------------------


def draw_noun(rng: np.random.Generator, scene: Scene, index: int | None) -> Noun:
    """A noun for an object, or with None for any object, there or not. One to three attributes."""
    count = int(rng.integers(1, 4))
    names = [ATTRIBUTES[number] for number in rng.permutation(len(ATTRIBUTES))[:count]]
    chosen = {}
    for name in names:
        if index is None:
            chosen[name] = pick(rng, CLASSES[name])
        else:
            chosen[name] = getattr(scene.objects[index], name)
    return Noun(**chosen)


def draw_name(rng: np.random.Generator, scene: Scene, index: int) -> Noun | None:
    """A noun that fits this object alone, or None."""
    for _ in range(8):
        noun = draw_noun(rng, scene, index)
        if talk.fitting(noun, scene) == [index]:
            return noun
    return None


def draw_question(
    rng: np.random.Generator, family: str, scene: Scene, pronoun: bool
) -> Question | None:
    """A question of a family, about "it" or about a named object. None: no name was found."""
    index = int(rng.integers(len(scene.objects)))
    if family == "count" and not pronoun:
        anything = rng.random() < 0.3
        return Question("how many", draw_noun(rng, scene, None if anything else index))
    if family == "exist" and not pronoun and rng.random() < 0.6:
        return Question("is there", near_noun(rng, scene, index))
    noun = None if pronoun else draw_name(rng, scene, index)
    if noun is None and not pronoun:
        return None
    match family:
        case "count":
            return Question("how many others", word=pick(rng, ATTRIBUTES))
        case "exist":
            return Question("is there anything", noun, pick(rng, RELATIONS))
        case "attribute":
            short = pronoun and rng.random() < SHORT
            return Question("what attribute", noun, pick(rng, ATTRIBUTES), short=short)
        case "place":
            return Question("where", noun)
    return draw_relation(rng, scene, noun)


def draw_relation(rng: np.random.Generator, scene: Scene, noun: Noun | None) -> Question | None:
    """A question about a relation: what stands there, or whether an object does."""
    if rng.random() < 0.5:
        return Question("what is", noun, pick(rng, RELATIONS))
    first, second = rng.integers(len(scene.objects), size=2)
    other = draw_name(rng, scene, int(second))
    if other is None:
        return None
    # Half of the words are true of a pair: most words are true of no pair.
    true = scenes.relation(scene.objects[first], scene.objects[second])
    word = true if true is not None and rng.random() < 0.5 else pick(rng, RELATIONS)
    return Question("is it", noun, word, other)


def near_noun(rng: np.random.Generator, scene: Scene, index: int) -> Noun:
    """A noun of an object, with another value of one of its attributes half of the time.

    A question about a thing that shares nothing with the scene would be answered too easily.
    """
    noun = draw_noun(rng, scene, index)
    if rng.random() < 0.5:
        return noun
    named = noun.named()
    changed = pick(rng, list(named))
    return Noun(**{**named, changed: pick(rng, CLASSES[changed])})


def needs_referent(question: Question, scene: Scene, referent: int, text: str) -> bool:
    """Whether another object as "it" would give another answer."""
    for other in range(len(scene.objects)):
        if other != referent:
            found = talk.answer(question, scene, other)
            if found is not None and found.text != text:
                return True
    return False


def is_known(question: Question, scene: Scene, history: History) -> bool:
    """Whether the dialogue has already said the answer."""
    if history.key(question, scene) in history.asked:
        return True
    if question.kind == "what attribute":
        index = talk.alone(question.noun, scene, history.referent)
        named = question.noun.named() if question.noun else {}
        return (index, question.word) in history.known or question.word in named
    if question.kind == "is there":
        for index in talk.fitting(question.noun, scene):
            if all((index, name) in history.known for name in question.noun.named()):
                return True
    return False


def candidates(
    rng: np.random.Generator, family: str, scene: Scene, history: History, pronoun: bool
) -> list[tuple[Question, talk.Answer]]:
    """Questions of a family that may be asked now, with their answers."""
    found = []
    for _ in range(TRIES):
        question = draw_question(rng, family, scene, pronoun)
        if question is None or is_known(question, scene, history):
            continue
        answered = talk.answer(question, scene, history.referent)
        if answered is None:
            continue
        referent = history.referent
        if pronoun and not needs_referent(question, scene, referent, answered.text):
            continue
        found.append((question, answered))
    return found


def choose(
    rng: np.random.Generator, found: list[tuple[Question, talk.Answer]]
) -> tuple[Question, talk.Answer]:
    """First a kind of question, then an answer, then a question: each choice is an even one."""
    kind = pick(rng, sorted({question.kind for question, _ in found}))
    text = pick(rng, sorted({it.text for question, it in found if question.kind == kind}))
    return pick(rng, [it for it in found if it[0].kind == kind and it[1].text == text])


def converse(scene: Scene, rng: np.random.Generator, turns: int = TURNS) -> list[Turn]:
    """A dialogue of `turns` questions about a scene; fewer if it leaves nothing to ask."""
    history = History()
    dialogue: list[Turn] = []
    for _ in range(4 * turns):
        if len(dialogue) == turns:
            break
        near = history.turn - history.named_at <= FARTHEST
        may_say_it = history.referent is not None and near
        pronoun = may_say_it and rng.random() < PRONOUNS
        family = pick(rng, FAMILIES)
        found = candidates(rng, family, scene, history, pronoun)
        if found:
            question, answered = choose(rng, found)
            distance = history.say(question, answered, scene)
            dialogue.append(Turn(talk.ask(question), answered.text, family, distance))
    return dialogue


# --- the oracle --------------------------------------------------------------------------------


def answers(questions: list[str], scene: Scene) -> list[str | None]:
    """The true answers to questions that are asked one after another.

    None: the scene leaves an answer open. "It" then keeps its meaning.
    Raises talk.Unread for a question outside the language.
    """
    found: list[str | None] = []
    referent = None
    for text in questions:
        answered = talk.answer(talk.read(text), scene, referent)
        if answered is not None:
            referent = answered.referent
        found.append(None if answered is None else answered.text)
    return found
