"""What a policy says about itself before it acts: a server sends these facts first.

A client needs no checkpoint: it learns here how long a chunk is, which units an action has, and
which images and numbers the policy wants to see.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from base.errors import UserError
from base.scaling import Scaling

PROTOCOL = "diffusion-llm-policy-1"
SEES = ("pixels", "state", "nothing")
LONGEST = 1000  # actions of a chunk, and numbers of an action or a state
LARGEST = 4096  # pixels of an image's side


@dataclass
class Facts:
    """length: actions per chunk, T. frames: observations that a chunk is made from.

    absolute: whether an action says where to be. sees: pixels, state (a list of things) or nothing.
    cameras: names, the first gives "image". image_side: pixels, 0 if any will do. kinds: attributes
    of a thing in a list. world: the simulator, or "" for a recorded robot. tasks: of Meta-World.
    head: how chunks are made, for people. keeps_prefix: whether a chunk can begin with actions
    that are given.
    """

    length: int
    frames: int
    scaling: Scaling
    absolute: bool
    sees: str
    cameras: list[str]
    image_side: int
    kinds: int
    world: str
    tasks: str
    head: str
    keeps_prefix: bool = True

    def reads(self) -> list[str]:
        """The names in `seen` that the policy reads."""
        if self.sees == "nothing":
            return ["state"]
        if self.sees == "state":
            return ["state", "things", "kinds"]
        return ["state", *image_keys(self.cameras)]

    def to_dict(self) -> dict:
        """Plain values, as a server sends them."""
        values = dataclasses.asdict(self) | {"scaling": self.scaling.to_dict()}
        return {"protocol": PROTOCOL} | values

    @classmethod
    def from_dict(cls, values: dict) -> "Facts":
        """The facts that `to_dict` wrote, checked. Raises UserError."""
        known = {field.name: field.type for field in dataclasses.fields(cls)}
        if set(values) != {"protocol", *known}:
            odd = sorted(map(str, set(values) ^ {"protocol", *known}))
            raise strange(f"facts with other names ({', '.join(odd)[:80]})")
        own = {name: values[name] for name in known}
        own["scaling"] = scaling_of(values["scaling"])
        for name, kind in known.items():
            if kind in (int, bool, str) and type(own[name]) is not kind:
                raise strange(f"{name} = {str(own[name])[:40]!r}")
        facts = cls(**own)
        named = isinstance(facts.cameras, list) and all(isinstance(n, str) for n in facts.cameras)
        if facts.sees not in SEES or not named:
            raise strange(f"a policy that sees {facts.sees[:40]!r} by {str(facts.cameras)[:40]}")
        counts = (facts.length, facts.frames, facts.kinds)
        if not all(0 < count <= LONGEST for count in counts):
            raise strange(f"length, frames and kinds of {counts}")
        if not 0 <= facts.image_side <= LARGEST:
            raise strange(f"images of {facts.image_side} pixels")
        return facts


def image_keys(cameras: list[str]) -> list[str]:
    """The names in `seen` of the images of these cameras."""
    names = [name.split(".")[-1] for name in cameras]
    return ["image" if number == 0 else f"image_{name}" for number, name in enumerate(names)]


def scaling_of(values) -> Scaling:
    """A scaling that came from elsewhere. Raises UserError unless it is whole."""
    try:
        scaling = Scaling.from_dict(values)
    except (TypeError, ValueError, AttributeError) as error:
        raise strange("a scaling that is none") from error
    widths = [row.shape for row in (scaling.low, scaling.high, scaling.mean, scaling.deviation)]
    flat = all(len(shape) == 1 and shape[0] <= LONGEST for shape in widths)
    if not flat or widths[0] != widths[1] or widths[2] != widths[3] or not widths[0][0]:
        raise strange(f"a scaling of the shapes {widths}")
    finite = all(np.isfinite(row).all() for row in vars(scaling).values())
    if not finite or not (scaling.high > scaling.low).all() or not (scaling.deviation > 0).all():
        raise strange("a scaling with an empty range, or a number that is not finite")
    return scaling


def strange(found: str) -> UserError:
    return UserError(
        f"a server with {found}", f"the facts of {PROTOCOL}", "use the same version at both ends"
    )


def of_maker(maker, kinds: int) -> Facts:
    """The facts of a maker that says `about` itself what base/policy_runner.py lists.

    kinds: attributes of a thing in a list.
    """
    about = maker.about
    return Facts(
        length=int(maker.length),
        frames=int(maker.frames),
        scaling=maker.scaling,
        absolute=bool(maker.absolute),
        sees=about["sees"],
        cameras=list(about["cameras"]),
        image_side=int(about["image_side"] or 0),
        kinds=kinds,
        world=about["world"] or "",
        tasks=about["tasks"] or "",
        head=about["head"],
    )
