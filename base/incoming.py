"""What a client sends becomes what a policy sees, checked and under its own names.

An observation is a flat dict, or has its images in a dict of their own. The names of openpi and
of LeRobot are known; `--names THEIRS=OURS` adds others. Ours are:

    state        (S,) numbers, in the robot's units
    image        (height, width, 3) of the first camera, image_NAME of the others: bytes, or
                 floats from 0 to 1; (3, height, width) will do
    things       (N, 3) metres, and kinds (8, C): a simulator's list, for policies of lists
    prompt       the order, a text
    prefix       (n, A) in the robot's units: the first n actions, which stay as they are
    frozen       the same in [-1, 1], exact to the bit
    earlier      a list of earlier observations, the newest first, for policies of several frames
    seed         of the episode, for drawn chunks
    begin        true: an episode begins; without a state nothing is made yet
    more         true: the answer also has the chunk in [-1, 1], places, calls and doubt
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from base.errors import UserError
from base.facts import LARGEST, Facts

MOST = 8  # things and zones of a list
LONGEST = 1000  # characters of an order
OURS = ("prompt", "prefix", "frozen", "earlier", "seed", "begin", "more")
ALIASES = {
    "task": "prompt",
    "instruction": "prompt",
    "observation/state": "state",
    "observation.state": "state",
    "observation/image": "image",
    "observation.image": "image",
    "observation.environment_state": "things",
    "observation.kinds": "kinds",
}
IMAGES = ("observation/images", "observation.images", "images", "observation")


@dataclass
class Asked:
    """A request. text: None if it said none. prefix: (n, A) in [-1, 1]. unread: other names."""

    seen: dict[str, np.ndarray] = field(default_factory=dict)
    earlier: list[dict] = field(default_factory=list)
    text: str | None = None
    prefix: np.ndarray | None = None
    seed: int = 0
    begin: bool = False
    more: bool = False
    unread: list[str] = field(default_factory=list)


def parse_names(text: str) -> dict[str, str]:
    """ "cam/main=image,q=state" as a dict. Raises UserError."""
    names = {}
    for pair in filter(None, text.split(",")):
        theirs, sign, ours = pair.partition("=")
        if not sign or not theirs.strip() or not ours.strip():
            raise UserError(
                f"--names {text!r}", "THEIRS=OURS, with commas between them", "correct it"
            )
        names[theirs.strip()] = ours.strip()
    return names


class Reader:
    """Reads requests for one policy. names: of a client, and ours."""

    def __init__(self, facts: Facts, names: dict[str, str]):
        self.facts, self.keys = facts, facts.reads()
        self.names = ALIASES | self.camera_names() | names
        unknown = sorted(set(names.values()) - {*self.keys, *OURS})
        if unknown:
            raise UserError(
                f"--names with {unknown[0]!r}",
                "one of " + ", ".join([*self.keys, *OURS]),
                "correct --names",
            )

    def camera_names(self) -> dict[str, str]:
        """openpi's and LeRobot's names of the policy's cameras."""
        names = {}
        images = [key for key in self.keys if key.startswith("image")]
        cameras = [name.split(".")[-1] for name in self.facts.cameras]
        for key, camera in zip(images, cameras, strict=False):
            for prefix in IMAGES:
                for sign in "/.":
                    names[f"{prefix}{sign}{camera}"] = key
            names[f"observation/{camera}_image"] = key
        return names

    def read(self, message) -> Asked:
        """A request from what was unpacked. Raises UserError."""
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            raise fault("a message that is no dict of names", "an observation")
        named, unread = self.renamed(message)
        asked = Asked(unread=unread)
        asked.begin, asked.more = flag(named, "begin"), flag(named, "more")
        asked.text, asked.seed = text_of(named), seed_of(named)
        asked.earlier = self.earlier(named.get("earlier", []))
        asked.prefix = self.prefix(named)
        if "state" in named or not asked.begin:
            asked.seen = self.seen(named)
        return asked

    def renamed(self, message: dict) -> tuple[dict, list[str]]:
        """The values under our names, and the names that nobody reads."""
        flat: dict = {}
        for name, value in message.items():
            if isinstance(value, dict) and name in IMAGES:
                flat |= {f"{name}/{inner}": each for inner, each in value.items()}
            else:
                flat[name] = value
        named, unread = {}, []
        for theirs, value in flat.items():
            ours = self.names.get(theirs, theirs)
            if ours not in self.keys and ours not in OURS:
                unread.append(theirs)
            elif ours in named:
                raise fault(f"{ours} twice, once as {theirs[:40]!r}", "each value once")
            else:
                named[ours] = value
        return named, unread

    def seen(self, named: dict) -> dict[str, np.ndarray]:
        """What the policy sees, checked."""
        for key in self.keys:
            if key not in named:
                given = ", ".join(sorted(named))[:80] or "nothing"
                raise fault(f"an observation without {key} (it has {given})", "all of " + self.all)
        seen = {}
        for key in self.keys:
            value = named[key]
            seen[key] = image_of(key, value) if key.startswith("image") else self.rows(key, value)
        return seen

    @property
    def all(self) -> str:
        return ", ".join(self.keys)

    def rows(self, key: str, value) -> np.ndarray:
        """state (S,), things (N, 3) or kinds (MOST, C): finite numbers."""
        value = numbers(key, value)
        if key == "state":
            width = len(self.facts.scaling.mean)
            if value.shape != (width,):
                raise fault(f"a state of the shape {value.shape}", f"{width} numbers")
        if key == "things" and (value.shape[1:] != (3,) or not len(value) <= MOST):
            raise fault(f"things of the shape {value.shape}", f"at most {MOST} rows of 3 metres")
        if key == "kinds" and value.shape != (MOST, self.facts.kinds):
            raise fault(f"kinds of the shape {value.shape}", f"({MOST}, {self.facts.kinds})")
        return value

    def earlier(self, value) -> list[dict]:
        """Earlier observations, the newest first: one fewer than the policy's frames."""
        wanted = self.facts.frames - 1
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise fault("earlier observations that are no list of dicts", f"{wanted} of them")
        if len(value) > wanted:
            raise fault(f"{len(value)} earlier observations", f"{wanted}, as the policy reads")
        return [self.seen(self.renamed(each)[0]) for each in value]

    def prefix(self, named: dict) -> np.ndarray | None:
        """The actions that stay: (n, A) in [-1, 1]."""
        given = [name for name in ("prefix", "frozen") if named.get(name) is not None]
        if not given:
            return None
        if len(given) == 2 or not self.facts.keeps_prefix:
            room = "prefix or frozen" if len(given) == 2 else "none: this policy keeps no prefix"
            raise fault("actions that shall stay, as " + " and ".join(given), room)
        value = numbers(given[0], named[given[0]])
        width, most = len(self.facts.scaling.low), self.facts.length - 1
        if value.ndim != 2 or value.shape[1] != width or not 0 < len(value) <= most:
            raise fault(
                f"a {given[0]} of the shape {value.shape}", f"1 to {most} rows of {width} numbers"
            )
        if given[0] == "prefix":
            return self.facts.scaling.shrink(value).astype(np.float32)
        if np.abs(value).max() > 1:
            raise fault("frozen actions beyond 1", "numbers in [-1, 1]")
        return value


def check_earlier(asked: Asked, facts: Facts) -> None:
    """Raise UserError unless the request has as many earlier observations as the policy reads."""
    missing = facts.frames - 1 - len(asked.earlier)
    if missing:
        raise fault(
            f"{len(asked.earlier)} earlier observations",
            f"{facts.frames - 1} in 'earlier', the newest first: at a start the first, repeated",
        )


def fault(found: str, expected: str) -> UserError:
    return UserError(found, expected, "correct the observation")


def flag(named: dict, name: str) -> bool:
    value = named.get(name, False)
    if not isinstance(value, bool | np.bool_):
        raise fault(f"{name} of the type {type(value).__name__}", "true or false")
    return bool(value)


def text_of(named: dict) -> str | None:
    """The order. A list of one text will do, as LeRobot's batches have it."""
    text = named.get("prompt")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > LONGEST or not text.strip():
        raise fault("an order that is no text", f"1 to {LONGEST} characters")
    return text


def seed_of(named: dict) -> int:
    seed = named.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise fault(f"the seed {str(seed)[:40]}", "a count")
    return int(seed)


def numbers(name: str, value) -> np.ndarray:
    """An array of finite float32 numbers, from an array or lists."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" or array.ndim > 2:
            raise ValueError
        with np.errstate(over="ignore"):  # what is too large is not finite, and refused below
            array = array.astype(np.float32)
    except ValueError as error:
        raise fault(f"{name} that is no array of numbers", "numbers") from error
    if not np.isfinite(array).all():
        raise fault(f"{name} with a number that is not finite", "finite numbers")
    return array


def image_of(name: str, value) -> np.ndarray:
    """An image as (height, width, 3) uint8."""
    if not isinstance(value, np.ndarray) or value.ndim not in (3, 4):
        raise fault(f"{name} that is no image", "(height, width, 3)")
    if value.ndim == 4 and len(value) == 1:  # a batch of one
        value = value[0]
    if value.ndim == 3 and value.shape[2] != 3 and value.shape[0] == 3:
        value = value.transpose(1, 2, 0)
    if (
        value.ndim != 3
        or value.shape[2] != 3
        or not all(0 < side <= LARGEST for side in value.shape)
    ):
        raise fault(f"{name} of the shape {value.shape}", f"(height, width, 3), up to {LARGEST}")
    if value.dtype.kind == "f":
        # NaN fails the comparison too.
        if not (value.min() >= 0 and value.max() <= 1):
            raise fault(f"{name} with floats beyond 0 to 1", "floats from 0 to 1, or bytes")
        value = (value * 255).round().astype(np.uint8)
    if value.dtype != np.uint8:
        raise fault(f"{name} of the type {value.dtype}", "uint8, or floats from 0 to 1")
    return np.ascontiguousarray(value)


def not_read(names: Sequence[str]) -> str:
    """A line on names that nobody reads."""
    return "not read: " + ", ".join(sorted(name[:40] for name in names)[:8])
