"""What makes a caption of a clip true: each of its claims is checked against the program.

A caption is

    grammatical   if motion_language.py can read it
    truthful      if each deed that it tells is an event of its own, and all orders are true
    exact         if it is truthful, and tells every event

A writer says an order only where it is clear. The judge is more generous: see SEEN and ALIKE.
"""

import itertools

from worlds import motion
from worlds.motion import Event, Program
from worlds.motion_language import Deed, Order, Told, parse
from worlds.reader import Noun, Ungrammatical

MOST_DEEDS = 4  # `align` tries all assignments; programs have at most three events
SEEN = 1.0  # frames between the midpoints of two events in an order. Writers ask for 2
ALIKE = 1.5  # frames between the midpoints of two events at one time. Writers ask for 0.5

Assignment = list[Event | None]


# --- claims ------------------------------------------------------------------------------------


def fits(noun: Noun, program: Program, thing: int) -> dict[str, bool]:
    """Whether each attribute that a noun names is the object's: {attribute: bool}.

    An object that grows has two sizes, and both are true.
    """
    result = {}
    for name, value in noun.named().items():
        own = {getattr(program.objects[thing], name)}
        result[name] = value in (motion.sizes(program, thing) if name == "size" else own)
    return result


def in_order(first: Event, word: str, second: Event) -> bool:
    """Whether one event happens before the other, or while it happens."""
    gap = second.middle - first.middle
    if word == "before":
        return gap >= SEEN
    overlap = min(first.end, second.end) - max(first.start, second.start)
    return abs(gap) <= ALIKE and overlap >= 1


def deed_claims(deed: Deed, event: Event | None, program: Program) -> list[tuple[str, bool]]:
    """(kind of claim, whether it is true) for each claim of a deed, if it tells this event."""
    if event is None:
        told = ["verb", *deed.noun.named(), *deed.other.named()]
        return [(name, False) for name in told]
    claims = [("verb", deed.verb in (event.verb, event.direction))]
    claims += fits(deed.noun, program, event.thing).items()
    if deed.verb == "passes":
        if event.other >= 0:
            claims += fits(deed.other, program, event.other).items()
        else:
            claims += [(name, False) for name in deed.other.named()]
    if deed.stops:
        claims.append(("stop", motion.stops(program, event)))
    if deed.starts:
        claims.append(("stop", motion.starts(program, event)))
    return claims


def order_claim(order: Order, events: Assignment) -> bool:
    """Whether an order of a caption is true of the events that its deeds tell."""
    first, second = events[order.first], events[order.second]
    return first is not None and second is not None and in_order(first, order.word, second)


def claims_of(told: Told, events: Assignment, program: Program) -> list[tuple[str, bool]]:
    """(kind of claim, whether it is true) for all claims of a caption."""
    claims = []
    for deed, event in zip(told.deeds, events, strict=True):
        claims += deed_claims(deed, event, program)
    claims += [("order", order_claim(order, events)) for order in told.orders]
    return claims


def align(told: Told, program: Program) -> Assignment:
    """The event that each deed most likely tells, None for deeds too many.

    Of all one-to-one assignments, the first with most claims true.
    """
    seats = [*program.events, *[None] * len(told.deeds)]

    def claims_true(events: Assignment) -> int:
        return sum(is_true for _, is_true in claims_of(told, events, program))

    assignments = [list(chosen) for chosen in itertools.permutations(seats, len(told.deeds))]
    return max(assignments, key=claims_true)


# --- captions ----------------------------------------------------------------------------------


def in_words(deed: Deed) -> str:
    """A deed in words."""
    words = f"{' '.join(deed.noun.named().values())} {deed.verb}"
    if deed.verb == "passes":
        words += f" {' '.join(deed.other.named().values())}"
    return words + " and stops" * deed.stops


def explain(deed: Deed, event: Event | None, program: Program) -> str:
    """A deed that is not so, in words, and what happens in its place."""
    words = in_words(deed)
    if event is None:
        return words
    thing = program.objects[event.thing]
    return f"{words} (but: {thing.colour} {thing.shape} {event.verb})"


def marks(caption: str, program: Program) -> list[tuple[str, bool]]:
    """(what is claimed, whether it is true) for each deed and each order of a caption.

    A caption that cannot be read has a single mark: the reason, and False.
    """
    try:
        told = parse(caption)
    except Ungrammatical as error:
        return [(str(error), False)]
    if len(told.deeds) > MOST_DEEDS:
        return [(f"{len(told.deeds)} events", False)]
    events = align(told, program)
    found = []
    for deed, event in zip(told.deeds, events, strict=True):
        is_true = all(right for _, right in deed_claims(deed, event, program))
        found.append((in_words(deed) if is_true else explain(deed, event, program), is_true))
    for order in told.orders:
        verbs = [told.deeds[number].verb for number in (order.first, order.second)]
        found.append((f"{verbs[0]} {order.word} {verbs[1]}", order_claim(order, events)))
    return found


def refused(reason: str, program: Program) -> dict:
    """The verdict on a caption that cannot be read."""
    return {
        "grammatical": False,
        "truthful": False,
        "exact": False,
        "false": [reason],
        "tallies": {},
        "recall": [0, len(program.events)],
        "hallucinated": [0, 0],
    }


def judge(caption: str, program: Program) -> dict:
    """Judge a caption of a clip.

    grammatical, truthful, exact: bools, as at the top of this file. false: the untrue claims in
    words. tallies: {claim: [right, total]} for verb, colour, shape, size, fill, stop, order.
    recall: [events told truly, events]. hallucinated: [deeds that no event is, deeds].
    """
    try:
        told = parse(caption)
    except Ungrammatical as error:
        return refused(str(error), program)
    if len(told.deeds) > MOST_DEEDS:
        return refused(f"{len(told.deeds)} events", program)
    events = align(told, program)
    tallies: dict[str, list[int]] = {}
    for name, is_true in claims_of(told, events, program):
        entry = tallies.setdefault(name, [0, 0])
        entry[0] += is_true
        entry[1] += 1
    false = []
    right = 0
    for deed, event in zip(told.deeds, events, strict=True):
        if all(is_true for _, is_true in deed_claims(deed, event, program)):
            right += 1
        else:
            false.append(explain(deed, event, program))
    for order in told.orders:
        if not order_claim(order, events):
            verbs = [told.deeds[number].verb for number in (order.first, order.second)]
            false.append(f"{verbs[0]} {order.word} {verbs[1]}")
    return {
        "grammatical": True,
        "truthful": not false,
        "exact": not false and right == len(program.events),
        "false": false,
        "tallies": tallies,
        "recall": [right, len(program.events)],
        "hallucinated": [len(told.deeds) - right, len(told.deeds)],
    }
