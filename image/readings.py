"""Plans of pictures that are there: the network reads them, and corrects them as a painter.

A plan that is read word by word may be wrong: an object at another place, or with another fill. A
painter of blocks of one token also says exactly how likely a picture is, given a plan. So the plan
is changed as long as this helps:

    plan <- the likeliest of plan and its neighbours, by log p(picture | caption, plan)

This is Bayes' rule, p(plan | picture, caption) ~ p(plan | caption) p(picture | caption, plan). All
plans whose objects have room in the picture count as equally likely. Each plan names its objects in
the order of the caption (worlds/plans.py). The neighbours of a plan:

- each word in place of each other word
- two objects that exchange a part, their places, or their looks
- each object at the likeliest places, which the network reads with the place hidden

Shapes: B rows, L positions, P picture tokens of a picture, V' ids that can be written.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from image import bounds, planner
from image.rows import Vocabulary, rows_of, to_device
from net.painter import Painter
from worlds import plans, scenes

ROUNDS = 8  # changes of a plan at most
LIKELIEST = 4  # columns and rows that are tried together
AT_ONCE = 64  # plans in a call, to bound the memory
PLACE, LOOKS = (0, 1), (3, 4, 5)  # parts of an object: column and row; fill, colour and shape


def can_check(model: Painter) -> bool:
    """Whether a painter knows exactly how likely a picture is: it learnt blocks of one token."""
    return 1 in model.config.trained_sizes


@torch.no_grad()
def check(model: Painter, vocabulary: Vocabulary, words: list[int], picture: Tensor) -> list[int]:
    """The ids of a caption with its plan, corrected while a neighbour fits the picture better.

    words: the ids of the caption, with the plan that was read. picture: (P,) int64.
    """
    best = -float("inf")
    if planner.scene_of(vocabulary, words) is not None:  # the words are a plan
        words = ordered(vocabulary, words) or words
        best = float(likelihoods(model, vocabulary, [words], picture))
    for _ in range(ROUNDS):
        found = neighbours(model, vocabulary, words, picture)
        if not found:
            break
        nats = likelihoods(model, vocabulary, found, picture)
        if float(nats.max()) <= best:
            break
        best, words = float(nats.max()), found[int(nats.argmax())]
    return words


def likelihoods(
    model: Painter, vocabulary: Vocabulary, words: list[list[int]], picture: Tensor
) -> Tensor:
    """log p(picture | words), exact, for each row's words: (B,) float64 nats."""
    nats = []
    for first in range(0, len(words), AT_ONCE):
        part = words[first : first + AT_ONCE]
        rows = rows_of(vocabulary, part, picture.expand(len(part), -1), ["picture"] * len(part))
        rng = torch.Generator()  # blocks of one token have nothing to draw
        nats.append(bounds.row_bounds(model, "diffusion", rows, vocabulary.mask, 1, rng, size=1))
    return -torch.cat(nats).cpu()


def ordered(vocabulary: Vocabulary, words: list[int]) -> list[int] | None:
    """The words with their plan's objects in the order of the caption.

    None if they end with no plan, or with the plan of a scene that nobody draws: objects that are
    not all in sight, a pattern on a small object, or no object.
    """
    scene = planner.scene_of(vocabulary, words)
    if scene is None or not scene.objects or not scenes.are_clear(scene.objects):
        return None
    if any(thing.size == "small" and thing.fill in scenes.PATTERNS for thing in scene.objects):
        return None
    caption = words[: len(words) - vocabulary.plan]
    scene = plans.in_order(scene, vocabulary.text(caption))
    return caption + vocabulary.plan_words(plans.write(scene, plans.objects_of(vocabulary.plan)))


def neighbours(
    model: Painter, vocabulary: Vocabulary, words: list[int], picture: Tensor
) -> list[list[int]]:
    """The plans next to a plan that can be drawn: ids with the caption, each once."""
    found = {tuple(words)}
    for other in (
        *with_other_words(vocabulary, words),
        *with_exchanges(vocabulary, words),
        *with_other_places(model, vocabulary, words, picture),
    ):
        plan = ordered(vocabulary, other)
        if plan:
            found.add(tuple(plan))
    return [list(plan) for plan in sorted(found - {tuple(words)})]


def objects_from(vocabulary: Vocabulary, words: list[int]) -> list[int]:
    """Where the words of each object begin, also of an object that is not there."""
    start = len(words) - vocabulary.plan
    return list(range(start + 1, len(words), len(plans.PARTS)))


def with_other_words(vocabulary: Vocabulary, words: list[int]) -> Iterator[list[int]]:
    """Plans with a single other word."""
    choices = {len(words) - vocabulary.plan: vocabulary.ids_of_grounds()}
    for first in objects_from(vocabulary, words):
        for number, part in enumerate(plans.PARTS):
            choices[first + number] = vocabulary.ids_in_plan(part)
    for position, ids in choices.items():
        for id in ids:
            yield [*words[:position], id, *words[position + 1 :]]


def with_exchanges(vocabulary: Vocabulary, words: list[int]) -> Iterator[list[int]]:
    """Plans in which two objects exchange a part, their places, or their looks."""
    exchanges = [(number,) for number in range(len(plans.PARTS))]
    starts = objects_from(vocabulary, words)
    for number, first in enumerate(starts):
        for second in starts[:number]:
            for parts in [*exchanges, PLACE, LOOKS]:
                other = list(words)
                for part in parts:
                    other[first + part] = words[second + part]
                    other[second + part] = words[first + part]
                yield other


def with_other_places(
    model: Painter, vocabulary: Vocabulary, words: list[int], picture: Tensor
) -> Iterator[list[int]]:
    """Plans with an object at another place: of the likeliest columns, each with each row."""
    there = [
        first for first in objects_from(vocabulary, words) if words[first] != vocabulary.nothing
    ]
    if not there:
        return
    blank = []
    for first in there:
        blank.append(
            [*words[:first], *[vocabulary.mask] * len(PLACE), *words[first + len(PLACE) :]]
        )
    logits = read_hidden(model, vocabulary, blank, picture).view(len(there), len(PLACE), -1)
    for first, (of_column, of_row) in zip(there, logits, strict=True):
        for column in likeliest(of_column, vocabulary.ids_in_plan(plans.COLUMNS)):
            for row in likeliest(of_row, vocabulary.ids_in_plan(plans.ROWS)):
                yield [*words[:first], column, row, *words[first + len(PLACE) :]]


def read_hidden(
    model: Painter, vocabulary: Vocabulary, blank: list[list[int]], picture: Tensor
) -> Tensor:
    """The logits of the words' [MASK]s, row by row, given the picture: (M, V')."""
    rows = rows_of(vocabulary, blank, picture.expand(len(blank), -1), ["words"] * len(blank))
    tokens, lengths, words, free = to_device(rows, model.device)
    hidden = tokens == vocabulary.mask
    share = hidden.sum(1) / free.sum(1)
    return model.bind_rows(lengths, words)(tokens, share, hidden)


def likeliest(logits: Tensor, ids: list[int]) -> list[int]:
    """The likeliest of some ids, by the logits (V',) of all."""
    order = logits[ids].argsort(descending=True)[:LIKELIEST]
    return [ids[number] for number in order.tolist()]
