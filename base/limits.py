"""The limits of a robot: a JSON file in base/limits/, checked whole before anything moves.

    robot         its name, which is the file's name
    about         a sentence: where the numbers come from
    kind          hand: an action says how the hand moves; joints: an action says where each joint
                  shall be
    hz            control steps per second that the numbers were chosen for
    names         of each number of an action; a hand's first three are x, y and z
    units         of each number of an action, for people
    metres        hand: metres that an action of 1 moves; joints: null
    low, high     of each number of an action
    workspace     {"low": [x, y, z], "high": [x, y, z]} in metres, or null for joints without
                  forward kinematics
    velocity      of each place, per second: metres of a hand, units of a joint
    acceleration  of each place, per second, per second
    leash         of each place: how far the commands may be ahead of the arm
    watchdog      seconds: `chunk_s` without an action, or a frame older than `frame_s`, and the arm
                  holds; a chunk from a frame older than `stale_s` is not followed; after `hold_s`
                  of holding, the force goes down to the share `ramp_to` within `ramp_s`. An arm
                  that can fall needs a `ramp_to` of 1
    home          {"pose": [..], "tolerance": [..]} of each place: where a run may begin

A place is what an action changes: x, y and z of a hand, or each joint. The first numbers of a
robot's state are its places, in the same units and order.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from base import files, flags
from base.errors import UserError

FORMAT = 1
FOLDER = Path(__file__).with_name("limits")
KINDS = ("hand", "joints")
HAND = 3  # places of a hand: x, y, z
SECONDS = ("chunk_s", "frame_s", "stale_s", "hold_s", "ramp_s")
# For each key of a file: how many numbers it has.
ACTIONS, PLACES = "actions", "places"
WIDTHS = {"low": ACTIONS, "high": ACTIONS}
WIDTHS |= {"velocity": PLACES, "acceleration": PLACES, "leash": PLACES}
TEXTS = ("robot", "about", "kind")
KEYS = {"format", *TEXTS, "hz", "names", "units", "metres", *WIDTHS}
KEYS |= {"workspace", "watchdog", "home"}
FASTEST = 1000  # control steps per second
DO = "correct it, or take the file of the project again"


@dataclass(frozen=True)
class Watchdog:
    """Seconds, and the share of its force that an arm keeps: see this module's docstring."""

    chunk_s: float
    frame_s: float
    stale_s: float
    hold_s: float
    ramp_s: float
    ramp_to: float


@dataclass(frozen=True)
class Limits:
    """The limits of a robot; A numbers per action, P places: see this module's docstring.

    low, high: (A,). workspace: (2, 3) metres, or None. velocity, acceleration, leash, pose,
    tolerance: (P,). float64.
    """

    robot: str
    about: str
    kind: str
    hz: float
    names: list[str]
    units: list[str]
    metres: float | None
    low: np.ndarray
    high: np.ndarray
    workspace: np.ndarray | None
    velocity: np.ndarray
    acceleration: np.ndarray
    leash: np.ndarray
    watchdog: Watchdog
    pose: np.ndarray
    tolerance: np.ndarray

    @property
    def width(self) -> int:
        """Numbers of an action."""
        return len(self.names)

    @property
    def places(self) -> int:
        """Numbers of an action that are places."""
        return HAND if self.kind == "hand" else self.width

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest place: (P,) each."""
        if self.kind == "hand":
            assert self.workspace is not None  # the check asks a hand for it
            return self.workspace[0], self.workspace[1]
        return self.low, self.high


def known() -> list[str]:
    """The robots that have a file."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(robot: str, path: Path | str | None = None) -> Limits:
    """The limits of a robot, from its own file or from `path`.

    Raises UserError for a robot without a file, a file that is missing or of another robot, and
    for the first number that is wrong.
    """
    if path is None and robot not in known():
        raise flags.unknown(f"no limits for the robot {robot!r}", robot, known())
    path = FOLDER / f"{robot}.json" if path is None else Path(path)
    values = files.read_json(path, "the limits of a robot, as JSON", DO)
    limits = from_dict(values, str(path))
    if limits.robot != robot:
        raise UserError(
            f"{path} with the limits of {limits.robot!r}", f"the limits of {robot!r}", DO
        )
    return limits


def from_dict(values: dict, where: str) -> Limits:
    """Limits from plain values. Raises UserError for the first value that is wrong."""
    check_keys(values, KEYS, where)
    if values["format"] != FORMAT:
        raise wrong(where, "format", values["format"], f"the format {FORMAT}")
    for key in TEXTS:
        if not isinstance(values[key], str) or not values[key]:
            raise wrong(where, key, values[key], "a text")
    if values["kind"] not in KINDS:
        raise wrong(where, "kind", values["kind"], " or ".join(KINDS))
    names, units = values["names"], values["units"]
    check_names(names, units, values["kind"], where)
    places = HAND if values["kind"] == "hand" else len(names)
    counts = {ACTIONS: len(names), PLACES: places}
    rows = {key: numbers(values[key], counts[width], where, key) for key, width in WIDTHS.items()}
    home = values["home"]
    check_keys(home, {"pose", "tolerance"}, f"{where}: home")
    limits = Limits(
        robot=values["robot"],
        about=values["about"],
        kind=values["kind"],
        hz=number(values["hz"], where, "hz"),
        names=names,
        units=units,
        metres=None if values["metres"] is None else number(values["metres"], where, "metres"),
        workspace=workspace_of(values["workspace"], where),
        watchdog=watchdog_of(values["watchdog"], where),
        pose=numbers(home["pose"], places, where, "home.pose"),
        tolerance=numbers(home["tolerance"], places, where, "home.tolerance"),
        low=rows["low"],
        high=rows["high"],
        velocity=rows["velocity"],
        acceleration=rows["acceleration"],
        leash=rows["leash"],
    )
    check(limits, where)
    return limits


def check(limits: Limits, where: str) -> None:
    """Hold the numbers to each other. Raises UserError for the first that cannot be."""
    if not 0 < limits.hz <= FASTEST:
        raise wrong(where, "hz", limits.hz, f"a number above 0, at most {FASTEST}")
    if limits.kind == "hand" and (limits.workspace is None or not limits.metres):
        raise wrong(where, "workspace and metres", "null", "both, for a hand")
    check_positive(limits, where)
    pairs = {"low and high": (limits.low, limits.high)}
    if limits.workspace is not None:
        pairs["workspace"] = (limits.workspace[0], limits.workspace[1])
    for name, (low, high) in pairs.items():
        if not (low < high).all():
            raise wrong(where, name, [low.tolist(), high.tolist()], "each low below its high")
    low, high = limits.bounds()
    if not ((limits.pose >= low) & (limits.pose <= high)).all():
        raise wrong(where, "home.pose", limits.pose.tolist(), "a place within the limits")


def check_positive(limits: Limits, where: str) -> None:
    """Raise UserError for a number that must be above 0 and is not, or a share that is none."""
    if limits.metres is not None and limits.metres <= 0:
        raise wrong(where, "metres", limits.metres, "a number above 0")
    for key in ("velocity", "acceleration", "leash", "tolerance"):
        if not (getattr(limits, key) > 0).all():
            raise wrong(where, key, getattr(limits, key).tolist(), "numbers above 0")
    for name in SECONDS:
        if not getattr(limits.watchdog, name) > 0:
            raise wrong(where, f"watchdog.{name}", getattr(limits.watchdog, name), "above 0")
    if not 0 <= limits.watchdog.ramp_to <= 1:
        raise wrong(where, "watchdog.ramp_to", limits.watchdog.ramp_to, "a share of 0 to 1")


# --- the parts of a file ----------------------------------------------------------------------


def wrong(where: str, key: str, found, expected: str) -> UserError:
    return UserError(f"{where}: {key} is {found!r}", expected, DO)


def check_keys(values, keys: set[str], where: str) -> None:
    """Raise UserError unless `values` is a dict with these keys."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: {values!r}", "an object with keys", DO)
    for key in sorted(set(values) - keys):
        raise flags.unknown(f"the key {key!r} in {where}", key, sorted(keys))
    for key in sorted(keys - set(values)):
        raise UserError(f"{where} without the key {key!r}", f"the key {key!r}", DO)


def check_names(names, units, kind: str, where: str) -> None:
    """Raise UserError unless names and units are lists of texts, as long as each other."""
    for key, value in (("names", names), ("units", units)):
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not texts or not value:
            raise wrong(where, key, value, "a list of texts")
    if len(names) != len(units):
        raise wrong(where, "units", units, f"{len(names)} of them, as there are names")
    if kind == "hand" and names[:HAND] != ["x", "y", "z"]:
        raise wrong(where, "names", names, "x, y and z first, for a hand")


def number(value, where: str, key: str) -> float:
    """A finite number. Raises UserError."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not math.isfinite(value):
        raise wrong(where, key, value, "a finite number")
    return float(value)


def numbers(values, count: int, where: str, key: str) -> np.ndarray:
    """So many finite numbers: (count,) float64. Raises UserError."""
    if not isinstance(values, list) or len(values) != count:
        raise wrong(where, key, values, f"a list of {count} numbers")
    return np.array([number(value, where, key) for value in values])


def workspace_of(values, where: str) -> np.ndarray | None:
    if values is None:
        return None
    check_keys(values, {"low", "high"}, f"{where}: workspace")
    rows = [numbers(values[key], HAND, where, f"workspace.{key}") for key in ("low", "high")]
    return np.stack(rows)


def watchdog_of(values, where: str) -> Watchdog:
    keys = {*SECONDS, "ramp_to"}
    check_keys(values, keys, f"{where}: watchdog")
    return Watchdog(**{key: number(values[key], where, f"watchdog.{key}") for key in keys})
