"""What makes a caption true: each of its claims is checked against the scene.

A caption is

    grammatical   if reader.py can read it
    truthful      if all its claims are true (`holds` has the eight kinds of claims)
    exact         if it is truthful, and names all objects with colour and shape, and no other

The overlap of words is no judge here: a caption from templates whose relation is inverted still
has a BLEU-4 of 92.
"""

import itertools

from worlds.language import PLACES
from worlds.reader import Claim, Noun, Ungrammatical, parse
from worlds.scenes import Object, Scene, at_place, relation

LARGER = 1.2  # times the radius; sizes of the same name differ by less
MOST_MENTIONS = 6  # `align` tries all orders: 720 for 6 mentions. Scenes have at most 5 objects
TALLIED = {  # claims that are no mention of an object: the name under which they are counted
    "place": "place",
    "relation": "relation",
    "count": "count",
    "total": "count",
    "larger": "larger",
    "largest": "larger",
    "none": "none",
}


# --- claims ------------------------------------------------------------------------------------


def related(first: Object, word: str, second: Object) -> bool:
    """Whether `first` is `word` (left of, above, inside, …) of `second`.

    An object that is left and a little higher counts as left. `scenes.relation`, which writes the
    captions, names such a relation never.
    """
    if word == "inside":
        return relation(first, second) == "inside"
    if "inside" in (relation(first, second), relation(second, first)):
        return False
    ahead = {
        "left of": second.x - first.x,
        "right of": first.x - second.x,
        "above": second.y - first.y,
        "below": first.y - second.y,
    }
    return ahead[word] > 0.03  # of the image's side: 7 of 224 pixels


def holds(claim: Claim, scene: Scene) -> bool:
    """Whether a claim is true of a scene. "It" is an object that fits the claim's noun."""
    fitting = [thing for thing in scene.objects if claim.noun.fits(thing)]
    others = [thing for thing in scene.objects if claim.other.fits(thing)]
    pairs = [(it, other) for it in fitting for other in others if it is not other]
    match claim.kind:
        case "some":  # at least one object fits
            return bool(fitting)
        case "count":  # exactly `number` objects fit
            return len(fitting) == claim.number
        case "none":  # no object fits
            return not fitting
        case "total":  # the scene has `number` objects
            return len(scene.objects) == claim.number
        case "place":  # at least `number` of them are at the place
            return sum(at_place(it, claim.word) for it in fitting) >= claim.number
        case "relation":  # one of them is left of (above, …) an object that fits `other`
            return any(related(it, claim.word, other) for it, other in pairs)
        case "larger":  # one of them is larger than an object that fits `other`
            return any(it.radius > LARGER * other.radius for it, other in pairs)
        case "largest":  # the largest object is one of them
            largest = max(scene.objects, key=lambda thing: thing.radius, default=None)
            return largest is not None and claim.noun.fits(largest)
    raise ValueError(f"a claim of the kind {claim.kind!r}")


def explain(claim: Claim) -> str:
    """A claim in words, for people who want to see which claim was wrong."""
    it = " ".join(claim.noun.named().values())
    other = " ".join(claim.other.named().values())
    return {
        "some": it,
        "count": f"exactly {claim.number} {it}",
        "none": f"no {it}",
        "total": f"{claim.number} shapes in all",
        "place": f"{it} {PLACES.get(claim.word, '')}",
        "relation": f"{it} {claim.word} {other}",
        "larger": f"{it} larger than {other}",
        "largest": f"{it} is the largest",
    }[claim.kind]


# --- captions ----------------------------------------------------------------------------------


def align(nouns: list[Noun], objects: list[Object]) -> list[tuple[Noun, Object | None]]:
    """Each mention with the object that it most likely means, None for mentions too many.

    Of all one-to-one assignments, the first with most attributes right.
    """
    if not nouns:
        return []
    seats = list(objects) + [None] * max(0, len(nouns) - len(objects))

    def attributes_right(order: tuple[Object | None, ...]) -> int:
        right = 0
        for phrase, thing in zip(nouns, order, strict=True):
            if thing is not None:
                named = phrase.named().items()
                right += sum(getattr(thing, name) == value for name, value in named)
        return right

    best = max(itertools.permutations(seats, len(nouns)), key=attributes_right)
    return list(zip(nouns, best, strict=True))


def mentions_of(claims: list[Claim]) -> list[Noun]:
    """The nouns of a caption; "two red circles" are two mentions."""
    mentions: list[Noun] = []
    for claim in claims:
        if claim.kind in ("some", "count"):
            mentions += [claim.noun] * claim.number
    return mentions[:MOST_MENTIONS]


def tally(claims: list[Claim], mentions: list[Noun], scene: Scene) -> dict[str, list[int]]:
    """{attribute or kind of claim: [right, total]}."""
    tallies: dict[str, list[int]] = {}

    def note(name: str, right: bool) -> None:
        entry = tallies.setdefault(name, [0, 0])
        entry[0] += right
        entry[1] += 1

    for phrase, thing in align(mentions, scene.objects):
        for name, value in phrase.named().items():
            note(name, thing is not None and getattr(thing, name) == value)
    for claim in claims:
        if claim.kind in TALLIED:
            note(TALLIED[claim.kind], holds(claim, scene))
    return tallies


def marks(caption: str, scene: Scene) -> list[tuple[str, bool]]:
    """(what is claimed, whether it is true) for each claim of a caption.

    A caption that cannot be read has a single mark: the reason, and False.
    """
    try:
        claims = parse(caption)
    except Ungrammatical as error:
        return [(str(error), False)]
    return [(explain(claim), holds(claim, scene)) for claim in claims]


def judge(caption: str, scene: Scene) -> dict:
    """Judge a caption of a scene.

    grammatical, truthful, exact: bools, as at the top of this file. false: the untrue claims in
    words. tallies: {attribute or claim: [right, total]} for size, fill, colour, shape, place,
    relation, count, larger, none. recall: [objects named, objects]. hallucinated: [mentions of a
    colour and shape that no object has, mentions].
    """
    try:
        claims = parse(caption)
    except Ungrammatical as error:
        return {
            "grammatical": False,
            "truthful": False,
            "exact": False,
            "false": [str(error)],
            "tallies": {},
            "recall": [0, len(scene.objects)],
            "hallucinated": [0, 0],
        }
    untrue = [claim for claim in claims if not holds(claim, scene)]
    mentions = mentions_of(claims)
    named = [(phrase.colour, phrase.shape) for phrase in mentions]
    present = [(thing.colour, thing.shape) for thing in scene.objects]
    return {
        "grammatical": True,
        "truthful": not untrue,
        "exact": not untrue and sorted(named) == sorted(present),
        "false": [explain(claim) for claim in untrue],
        "tallies": tally(claims, mentions, scene),
        "recall": [sum(pair in named for pair in present), len(present)],
        "hallucinated": [sum(pair not in present for pair in named), len(named)],
    }
