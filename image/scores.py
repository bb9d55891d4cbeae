"""What a reader saw in pictures, judged against the scenes that the pictures should show.

A reader is not perfect, so its figures on true pictures stand beside all its other figures.

    recall       share of the true objects that were seen near their place
    size, …      share of the true objects that were seen, with this attribute right
    attributes   the mean of the four
    set_exact    share of the pictures whose colours and shapes are right, with no object too many
    all_exact    the same with sizes and fills
"""

import math

import numpy as np

from base import metrics
from worlds import judge
from worlds.scenes import ATTRIBUTES, Object, Scene

WRONG = 0.05  # of the side: how far an attribute that is wrong moves an object away, in `paired`
OF_OBJECTS = ("recall", *ATTRIBUTES)
OF_PICTURES = ("set_exact", "all_exact")
FEWEST = 10  # pictures with a right answer, below which a ratio means nothing
CLAIMS = ("grammatical", "truthful", "exact")  # what judge.judge says of a caption


def wrong_names(seen: Object, true: Object) -> int:
    """How many attributes of `seen` are not those of `true`."""
    return sum(getattr(seen, name) != getattr(true, name) for name in ATTRIBUTES)


def paired(seen: Scene, true: Scene) -> list[tuple[Object, Object]]:
    """Each true object with the object that was seen in its place; left out if there was none.

    The nearest pair comes first, and no object is in two pairs. An object counts as seen in its
    place if its centre is inside the true object's circle.
    """
    near = []
    for i, thing in enumerate(true.objects):
        for j, other in enumerate(seen.objects):
            distance = math.hypot(thing.x - other.x, thing.y - other.y)
            if distance <= thing.radius:
                near.append((distance + WRONG * wrong_names(other, thing), i, j))
    pairs: list[tuple[Object, Object]] = []
    used: tuple[set[int], set[int]] = (set(), set())
    for _, i, j in sorted(near):
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            pairs.append((seen.objects[j], true.objects[i]))
    return pairs


def kinds(scene: Scene, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """These attributes of all objects, sorted: equal for equal sets."""
    return sorted(tuple(getattr(thing, name) for name in names) for thing in scene.objects)


def counts(seen: list[Scene], true: list[Scene]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """For each picture, what was right, by name (N,); and the number of its true objects (N,).

    The names are OF_OBJECTS, which count objects, and OF_PICTURES, which are 0 or 1.
    """
    right = {name: np.zeros(len(true)) for name in (*OF_OBJECTS, *OF_PICTURES)}
    for number, (found, scene) in enumerate(zip(seen, true, strict=True)):
        pairs = paired(found, scene)
        right["recall"][number] = len(pairs)
        for name in ATTRIBUTES:
            for other, thing in pairs:
                right[name][number] += getattr(other, name) == getattr(thing, name)
        for name, of in (("set_exact", ("colour", "shape")), ("all_exact", ATTRIBUTES)):
            right[name][number] = kinds(found, of) == kinds(scene, of)
    return right, np.array([len(scene.objects) for scene in true], float)


def seen_figures(seen: list[Scene], true: list[Scene]) -> dict[str, float | list[float]]:
    """The shares at the head of this file, each with its 95% interval, {name}_ci95."""
    right, objects = counts(seen, true)
    result: dict[str, float | list[float]] = {"pictures": len(true)}
    for name, values in right.items():
        total = int(objects.sum()) if name in OF_OBJECTS else len(true)
        result[name] = values.sum() / max(1, total)
        result[f"{name}_ci95"] = metrics.share_interval(int(values.sum()), total)
    attributes = np.stack([right[name] for name in ATTRIBUTES]).sum(0)  # (N,)
    result["attributes"] = attributes.sum() / max(1, len(ATTRIBUTES) * objects.sum())
    low, high = metrics.ratio_interval(attributes, len(ATTRIBUTES) * objects)
    result["attributes_ci95"] = [low, high]
    return result


def ratios(
    remade: list[Scene], originals: list[Scene], true: list[Scene]
) -> dict[str, tuple[float, float, float]]:
    """{name: (ratio, low, high)}: right answers on remade pictures over those on the originals.

    The interval is a 95% bootstrap over pictures, both sides of a picture together.
    """
    first, _ = counts(remade, true)
    second, _ = counts(originals, true)
    for side in (first, second):
        side["attributes"] = np.stack([side[name] for name in ATTRIBUTES]).sum(0)
    result = {}
    for name in second:
        # A bootstrap may draw one picture alone: a few right answers give no interval.
        if (second[name] > 0).sum() >= FEWEST:
            low, high = metrics.ratio_interval(first[name], second[name])
            result[name] = (first[name].sum() / second[name].sum(), low, high)
    return result


def claim_figures(captions: list[str], seen: list[Scene]) -> dict[str, float | list[float]]:
    """How true captions are of the scenes that a reader saw: shares with 95% intervals.

    grammatical, truthful, exact: as in worlds/judge.py, over captions. claims: the share of claims
    that hold, of those kinds that judge.tally counts.
    """
    verdicts = [judge.judge(text, scene) for text, scene in zip(captions, seen, strict=True)]
    result: dict[str, float | list[float]] = {"captions": len(verdicts)}
    for name in CLAIMS:
        count = sum(verdict[name] for verdict in verdicts)
        result[name] = count / max(1, len(verdicts))
        result[f"{name}_ci95"] = metrics.share_interval(count, len(verdicts))
    right = total = 0
    for verdict in verdicts:
        for one, all_of_it in verdict["tallies"].values():
            right, total = right + one, total + all_of_it
    result["claims"] = right / max(1, total)
    result["claims_ci95"] = metrics.share_interval(right, total)
    return result


def verdict(words: str, seen: Scene) -> dict:
    """Whether words are true of the scene that was seen: true (None: not judged), and notes."""
    judged = judge.judge(words, seen)
    if not judged["grammatical"]:
        return {"true": None, "notes": ["not judged: the words are outside of the grammar"]}
    notes = [f"not so: {claim}" for claim in judged["false"]]
    return {"true": judged["truthful"], "notes": notes}
