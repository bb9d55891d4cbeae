"""Moving scenes: what a clip is, its frames, its reversal, and what is true of it.

A program is one to three objects and one to three events over eight frames. An event changes one
part of one object between two frames: its x, its y, its radius, or whether it is there. A caption
about a clip is true or false of its program (motion_judge.py). motion_language.py writes captions.
motion_sampling.py draws programs.

    verb                         part     what changes
    left, right                  x        the object moves
    up, down                     y        the object moves
    grows, shrinks               radius   from a size to another size
    appears, disappears          there    between two neighbouring frames
    passes                       x or y   the object moves across another object, in front of it

A move `stops` if the object stands still before the clip ends, and `starts` if it stands still
when the clip begins. Reversal turns each verb into its opposite, and a stop into a start.
Frames are numbered from 0. An event is over at frame `end`, and has not begun at frame `start`.
"""

import dataclasses
from dataclasses import dataclass

from worlds.scenes import RADIUS, SIZES, Object, Scene

FRAMES = 8
LAST = FRAMES - 1
VERBS = ("left", "right", "up", "down", "appears", "disappears", "grows", "shrinks", "passes")
MOVES = ("left", "right", "up", "down")
OPPOSITE = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "appears": "disappears",
    "disappears": "appears",
    "grows": "shrinks",
    "shrinks": "grows",
    "passes": "passes",
}
# The part of an object that each verb changes, and the verbs of a rising and a falling value.
PARTS = {
    "x": ("right", "left"),
    "y": ("down", "up"),
    "radius": ("grows", "shrinks"),
    "there": ("appears", "disappears"),
}
AWAY = 3.0  # the x of an object that is not there: outside the picture, where nothing is drawn
ORDERED = 2.0  # frames between the midpoints of two events that a caption may put in an order
TOGETHER = 0.5  # frames between the midpoints of two events that a caption may call simultaneous
STILL = 2  # frames that an object stands still at least, before a start or after a stop


@dataclass(frozen=True)
class Event:
    """A change of one part of object `thing`: from `first` at frame `start` to `last` at `end`.

    other: the object that is passed over, or -1.
    """

    part: str
    thing: int
    start: int
    end: int
    first: float
    last: float
    other: int = -1

    @property
    def direction(self) -> str:
        """The verb of the change alone: a pass from left to right is also a move to the right."""
        return PARTS[self.part][0 if self.last > self.first else 1]

    @property
    def verb(self) -> str:
        """The verb that a caption says."""
        return "passes" if self.other >= 0 else self.direction

    @property
    def middle(self) -> float:
        """The frame in the middle of the event."""
        return (self.start + self.end) / 2

    def value(self, frame: int) -> float:
        """The part's value at a frame: on the straight line from `first` to `last`."""
        if frame <= self.start:
            return self.first
        if frame >= self.end:
            return self.last
        # Symmetric in time: the reversed event has the same value to the bit.
        before, after = self.end - frame, frame - self.start
        return (self.first * before + self.last * after) / (self.end - self.start)


@dataclass(frozen=True)
class Program:
    """Objects in drawing order as frame 0 has them, events, noise level, and the clip's seed.

    An object that appears stands at the place where it will appear.
    """

    objects: tuple[Object, ...]
    events: tuple[Event, ...]
    noise: int = 0
    seed: int = 0

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def of(self, thing: int) -> list[Event]:
        """The events of an object."""
        return [event for event in self.events if event.thing == thing]

    def is_there(self, thing: int, frame: int) -> bool:
        """Whether an object is in the picture at a frame."""
        values = [event.value(frame) for event in self.of(thing) if event.part == "there"]
        return all(values)


def program_from_dict(values: dict) -> Program:
    """The program that `Program.to_dict` wrote."""
    objects = tuple(Object(**item) for item in values["objects"])
    events = tuple(Event(**item) for item in values["events"])
    return Program(objects, events, values["noise"], values["seed"])


# --- frames ------------------------------------------------------------------------------------


def object_at(program: Program, thing: int, frame: int) -> Object:
    """An object as it is at a frame, whether or not it is in the picture."""
    changed: dict = {}
    for event in program.of(thing):
        if event.part != "there":
            changed[event.part] = event.value(frame)
    if "radius" in changed:
        changed["size"] = size_of(changed["radius"])
    return dataclasses.replace(program.objects[thing], **changed)


def frames(program: Program) -> list[Scene]:
    """The eight scenes of a clip. All share the program's seed, so all noise stands still.

    An object that is not there stands outside the picture. Every scene has all objects, because
    the drawing draws a shade per object.
    """
    scenes_of = []
    for frame in range(FRAMES):
        objects = []
        for thing in range(len(program.objects)):
            seen = object_at(program, thing, frame)
            if not program.is_there(thing, frame):
                seen = dataclasses.replace(seen, x=AWAY)
            objects.append(seen)
        scenes_of.append(Scene(objects, program.noise, program.seed))
    return scenes_of


# --- other programs of the same objects --------------------------------------------------------


def reverse(program: Program) -> Program:
    """The clip that runs backwards: its frames are the frames of `program` from the last to the
    first.
    """
    objects = list(program.objects)
    events = []
    for event in program.events:
        start, end = LAST - event.end, LAST - event.start
        turned = dataclasses.replace(
            event, start=start, end=end, first=event.last, last=event.first
        )
        events.append(turned)
        if event.part != "there":
            changed: dict = {event.part: event.last}
            if event.part == "radius":
                changed["size"] = size_of(event.last)
            objects[event.thing] = dataclasses.replace(objects[event.thing], **changed)
    return dataclasses.replace(program, objects=tuple(objects), events=tuple(events))


def swap_order(program: Program) -> Program:
    """The same events in the opposite order, each as long as before.

    Each interval is mirrored between the first start and the last end. The verbs stay.
    """
    low = min(event.start for event in program.events)
    high = max(event.end for event in program.events)
    events = []
    for event in program.events:
        start, end = low + high - event.end, low + high - event.start
        events.append(dataclasses.replace(event, start=start, end=end))
    return dataclasses.replace(program, events=tuple(events))


# --- what is true ------------------------------------------------------------------------------


def size_of(radius: float) -> str:
    """The word for a radius. Radii of one word lie far from those of another."""
    return min(SIZES, key=lambda size: abs(radius - sum(RADIUS[size]) / 2))


def sizes(program: Program, thing: int) -> set[str]:
    """The sizes that an object has in a clip: two if it grows or shrinks."""
    changes = [event for event in program.of(thing) if event.part == "radius"]
    radii = [program.objects[thing].radius]
    for event in changes:
        radii += [event.first, event.last]
    return {size_of(radius) for radius in radii}


def order(first: Event, second: Event) -> str | None:
    """How a caption may join two events: "before", "after", "while", or None for no such word."""
    gap = second.middle - first.middle
    if abs(gap) >= ORDERED:
        return "before" if gap > 0 else "after"
    overlap = min(first.end, second.end) - max(first.start, second.start)
    return "while" if abs(gap) <= TOGETHER and overlap >= 1 else None


def stops(program: Program, event: Event) -> bool:
    """Whether an event is a move after which the object stands still until the clip ends."""
    return event.part in "xy" and event.end <= LAST - STILL and rests(program, event, LAST)


def starts(program: Program, event: Event) -> bool:
    """Whether an event is a move before which the object stands still from the clip's beginning."""
    return event.part in "xy" and event.start >= STILL and rests(program, event, 0)


def rests(program: Program, event: Event, frame: int) -> bool:
    """Whether an event's object is there at a frame, and has no other event."""
    return program.of(event.thing) == [event] and program.is_there(event.thing, frame)
