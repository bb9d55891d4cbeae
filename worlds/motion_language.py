"""The words for moving scenes, and true sentences about a clip; and from such words to claims.

Every sentence that `describe` writes can be read by `parse`, and all its claims are true
(motion_judge.py); tests hold it over random seeds. The grammar:

    caption := clause {link clause} | ("after" | "before") clause "," clause
    link    := ", then" | "before" | "after" | "while" | "and"
    clause  := ("a" | "the") noun deed
    deed    := move ["and stops"] | "starts to move" direction | "appears" | "disappears"
             | "grows" | "shrinks" | "passes over" ("a" | "the") noun
    noun    := [size] [fill] [colour] shape

A link relates the two clauses beside it. "and" says nothing about time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worlds import motion
from worlds.language import SYNONYMS, article
from worlds.motion import Event, Program
from worlds.reader import Noun, Reader, Ungrammatical
from worlds.scenes import pick

DIRECTIONS = {
    "left": ("to the left", "left"),
    "right": ("to the right", "right"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}
DEEDS = {
    "appears": ("appears", "shows up"),
    "disappears": ("disappears", "vanishes"),
    "grows": ("grows", "becomes larger"),
    "shrinks": ("shrinks", "becomes smaller"),
}
LINKS = {", then": "before", "before": "before", "after": "after", "while": "while", "and": ""}
# From an event to the next, by their order; a later event comes later in the caption.
BETWEEN = {"before": ", then", "while": " while", None: " and"}
DETAIL = 0.2  # how often a noun names the size, and how often the fill
TOLD = 0.5  # how often a caption says that a move starts late or stops early


@dataclass(frozen=True)
class Deed:
    """An event as a caption tells it. other: what is passed over."""

    noun: Noun
    verb: str
    other: Noun = Noun()
    starts: bool = False
    stops: bool = False


@dataclass(frozen=True)
class Order:
    """The claim that deed `first` happens before deed `second`, or while it happens.

    word: "before" or "while". first, second: numbers of deeds.
    """

    first: int
    word: str
    second: int


@dataclass
class Told:
    """What a caption claims: that these deeds are done, in these orders."""

    deeds: list[Deed]
    orders: list[Order]


# --- writing -----------------------------------------------------------------------------------


def noun(program: Program, thing: int, rng: np.random.Generator, detail: float) -> str:
    """An object's colour and shape, and sometimes its size and its fill.

    An object that grows or shrinks has no size by which to name it.
    """
    item = program.objects[thing]
    words = []
    names = [item.size, item.fill] if len(motion.sizes(program, thing)) == 1 else [item.fill]
    for name in names:
        if rng.random() < detail:
            words.append(pick(rng, SYNONYMS[name]))
    return " ".join([*words, item.colour, item.shape])


class Writer:
    """Clauses about a program. An object that was named before is called "the"."""

    def __init__(self, program: Program, rng: np.random.Generator, detail: float = DETAIL):
        self.program = program
        self.rng = rng
        self.detail = detail
        self.named: set[int] = set()

    def phrase(self, thing: int) -> str:
        """An object, with its article."""
        words = noun(self.program, thing, self.rng, self.detail)
        if thing in self.named:
            return "the " + words
        self.named.add(thing)
        return article(words)

    def clause(self, event: Event) -> str:
        """The object of an event and what it does."""
        subject = self.phrase(event.thing)
        if event.verb == "passes":
            return f"{subject} passes over {self.phrase(event.other)}"
        if event.verb not in DIRECTIONS:
            return f"{subject} {pick(self.rng, DEEDS[event.verb])}"
        where = pick(self.rng, DIRECTIONS[event.verb])
        if self.tells(motion.starts(self.program, event)):
            return f"{subject} starts to move {where}"
        stop = " and stops" if self.tells(motion.stops(self.program, event)) else ""
        return f"{subject} moves {where}{stop}"

    def tells(self, is_so: bool) -> bool:
        """Whether the caption says so. Without detail it never does, and draws nothing."""
        return bool(self.detail) and is_so and self.rng.random() < TOLD


def describe(program: Program, rng: np.random.Generator) -> str:
    """A true caption of all events of a program."""
    events = [program.events[index] for index in rng.permutation(len(program.events))]
    if len(events) == 2:
        return describe_two(Writer(program, rng), events[0], events[1])
    events.sort(key=by_time)
    writer = Writer(program, rng)
    caption = writer.clause(events[0])
    for before, event in zip(events, events[1:], strict=False):
        caption += f"{BETWEEN[motion.order(before, event)]} {writer.clause(event)}"
    return caption


def by_time(event: Event) -> float:
    return event.middle


def describe_two(writer: Writer, first: Event, second: Event) -> str:
    """A true caption of two events. The order is said only where it is clear."""
    word = motion.order(first, second)
    if word == "after":
        first, second, word = second, first, "before"
    if word is None:
        return f"{writer.clause(first)} and {writer.clause(second)}"
    if word == "while":
        link = pick(writer.rng, ("while", "while", "and"))
        return f"{writer.clause(first)} {link} {writer.clause(second)}"
    form = int(writer.rng.integers(6))
    if form == 0:
        later = writer.clause(second)
        return f"{later} after {writer.clause(first)}"
    if form == 1:
        return f"after {writer.clause(first)}, {writer.clause(second)}"
    if form == 2:
        later = writer.clause(second)
        return f"before {later}, {writer.clause(first)}"
    # Half of the captions say "then", the plainest word.
    link = " before" if form == 3 else ", then"
    return f"{writer.clause(first)}{link} {writer.clause(second)}"


def several(program: Program, rng: np.random.Generator, count: int = 5) -> list[str]:
    """`count` true captions. They differ, unless 20 draws per caption do not give enough."""
    captions: dict[str, None] = {}  # a set that keeps the order
    for _ in range(20 * count):
        captions[describe(program, rng)] = None
        if len(captions) == count:
            break
    return (list(captions) * count)[:count]


def swap_captions(program: Program, rng: np.random.Generator) -> list[str]:
    """The caption of a program of a swap split.

    Called with equal generators, the captions of a pair of `swap_order` have the same words.
    """
    writer = Writer(program, rng, detail=0.0)
    link = pick(rng, (", then", " before", " after"))
    # Every phrase is drawn in the order of the program, which both of a pair share.
    synonyms = [int(rng.integers(2)) for _ in program.events]
    events = sorted(enumerate(program.events), key=lambda pair: pair[1].middle)
    if link == " after":
        events.reverse()
    clauses = []
    for number, event in events:
        writer.rng = np.random.default_rng(synonyms[number])
        clauses.append(writer.clause(event))
    return [f"{link} ".join(clauses)]


# --- reading -----------------------------------------------------------------------------------


def meanings_of(words: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """{verb: its phrases} turned into {phrase: its verb}."""
    meanings: dict[str, str] = {}
    for verb, phrases in words.items():
        meanings |= dict.fromkeys(phrases, verb)
    return meanings


class MotionReader(Reader):
    """Recursive descent over the words of a caption of a clip: one method per rule."""

    def the_noun(self) -> Noun:
        """("a" | "the") noun"""
        self.need("an", "a", "the")
        return self.noun()

    def clause(self) -> Deed:
        subject = self.the_noun()
        directions = meanings_of(DIRECTIONS)
        if self.take("starts to move"):
            return Deed(subject, self.need_meaning(directions), starts=True)
        if self.take("moves"):
            verb = self.need_meaning(directions)
            return Deed(subject, verb, stops=bool(self.take("and stops")))
        if self.take("passes over"):
            return Deed(subject, "passes", self.the_noun())
        return Deed(subject, self.need_meaning(meanings_of(DEEDS)))

    def need_meaning(self, meanings: dict[str, str]) -> str:
        """The meaning of the longest phrase that comes next. Raises Ungrammatical without any."""
        return self.take_meaning(meanings) or self.need(next(iter(meanings)))

    def told(self) -> Told:
        """The whole caption. Raises Ungrammatical if it is not in the language."""
        opening = self.take("after", "before")
        told = Told([self.clause()], [])
        if opening:
            self.need(",")
            told.deeds.append(self.clause())
            # "after A, B" says what "A before B" says.
            told.orders.append(
                Order(0, "before", 1) if opening == "after" else Order(1, "before", 0)
            )
        while not opening and self.words:
            link = LINKS[self.need(*LINKS)]
            number = len(told.deeds)
            told.deeds.append(self.clause())
            if link == "after":
                told.orders.append(Order(number, "before", number - 1))
            elif link:
                told.orders.append(Order(number - 1, link, number))
        if self.words:
            raise Ungrammatical(f"{' '.join(self.words)!r} after the end")
        return told


def parse(caption: str) -> Told:
    """The claims of a caption. Raises Ungrammatical if it is not in the language."""
    return MotionReader(caption).told()
