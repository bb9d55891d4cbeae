"""Plans of pictures that are not yet painted, or that are there: a painter writes and reads them.

A plan (worlds/plans.py) stands behind the caption of a row. Before a painter paints, it writes the
plan, a word per call. These rows have no picture: with plans of two objects, such a call has about
a sixth of the work of a call for a picture.

Shapes: B rows, L positions, P picture tokens of a picture.
"""

import torch
from torch import Tensor

from base.config import SampleConfig
from image import hidden_words
from image.rows import Vocabulary, rows_of, to_device
from net import twin
from net.painter import Painter
from net.samplers import sample
from worlds import changes, plans
from worlds.changes import Change
from worlds.scenes import Scene


def settings_for(vocabulary: Vocabulary, settings: SampleConfig) -> SampleConfig:
    """How a plan is drawn where a picture is drawn with `settings`: a word per call, in order."""
    return SampleConfig(
        sampler="left_to_right",
        steps=vocabulary.plan,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


@torch.no_grad()
def fill(
    model: Painter,
    vocabulary: Vocabulary,
    captions: list[list[int]],
    pictures: Tensor | None,
    settings: SampleConfig,
    rngs: list[torch.Generator],
) -> list[list[int]]:
    """The captions, each with a plan behind it.

    captions: ids with [BOS] and [EOS]. pictures: (B, P) int64, read for the plan; None: there are
    none yet.
    """
    blank = [caption + [vocabulary.mask] * vocabulary.plan for caption in captions]
    return complete(model, vocabulary, blank, pictures, settings, rngs)


@torch.no_grad()
def complete(
    model: Painter,
    vocabulary: Vocabulary,
    blank: list[list[int]],
    pictures: Tensor | None,
    settings: SampleConfig,
    rngs: list[torch.Generator],
) -> list[list[int]]:
    """The words of rows, with a word at each [MASK] of their plans.

    blank: ids of captions, each with its plan. pictures: as in `fill`.
    """
    way = "plan" if pictures is None else "words"
    if pictures is None:
        pictures = torch.zeros(len(blank), 0, dtype=torch.long)
    rows = rows_of(vocabulary, blank, pictures, [way] * len(blank))
    tokens, lengths, words, _ = to_device(rows, model.device)
    denoise = model.bind_rows(lengths, words)
    own = settings_for(vocabulary, settings)
    drawn = sample(denoise, tokens, own, mask_id=vocabulary.mask, rngs=rngs)
    result = []
    for row, ids in enumerate(blank):
        result.append(drawn.tokens[row, : len(ids)].tolist())
    return result


def vary(
    model: Painter,
    vocabulary: Vocabulary,
    words: list[list[int]],
    settings: SampleConfig,
    rngs: list[torch.Generator],
) -> list[list[int]]:
    """The same objects at places that are drawn again, with the background and the sizes.

    words: ids of captions, each with its plan. Fills, colours and shapes stay.
    """
    blank = []
    for row in words:
        start = len(row) - vocabulary.plan
        whole = torch.tensor([len(row)])
        stays = hidden_words.places(len(row), whole, vocabulary.plan, hidden_words.ATTRIBUTES)[0]
        ids = list(row)
        for place in range(start, len(row)):
            # An object that is not there stays away.
            if not stays[place] and row[place] != vocabulary.nothing:
                ids[place] = vocabulary.mask
        blank.append(ids)
    return complete(model, vocabulary, blank, None, settings, rngs)


class WordsOfTwin:
    """The twin on rows whose picture has not begun, as `net.twin.sample` calls it.

    It reads all words again in each call: a word of a plan stands at a place that two words name.
    """

    def __init__(self, model: Painter, words: int):
        self.model, self.words = model, words
        self.read: Tensor | None = None

    def __call__(self, unread: Tensor, *, select: Tensor, cache, condition: None) -> Tensor:
        self.read = unread if self.read is None else torch.cat([self.read, unread], 1)
        rows = torch.full((len(unread),), self.words, device=unread.device)
        last = torch.zeros_like(self.read, dtype=torch.bool)
        last[:, -1] = True
        return self.model(self.read, select=last, words=rows)


def continue_twin(
    model: Painter,
    vocabulary: Vocabulary,
    captions: list[list[int]],
    settings: SampleConfig,
    rngs: list[torch.Generator],
) -> list[list[int]]:
    """The captions, each with a plan that the twin writes. Captions of one length go together."""
    result = [list(caption) for caption in captions]
    for length in sorted({len(caption) for caption in captions}):
        same = [row for row, caption in enumerate(captions) if len(caption) == length]
        whole = length + vocabulary.plan
        drawn = twin.sample(
            WordsOfTwin(model, whole),  # type: ignore[arg-type]
            torch.tensor([captions[row] for row in same], device=model.device),
            whole,
            eos=-1,  # a plan is as long as it is: an [EOS] in it is a wrong word
            pad=vocabulary.pad,
            rngs=[rngs[row] for row in same],
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        for row, ids in zip(same, drawn.tokens.tolist(), strict=True):
            result[row] = ids
    return result


def write(
    model: Painter,
    vocabulary: Vocabulary,
    objective: str,
    captions: list[list[int]],
    settings: SampleConfig,
    rngs: list[torch.Generator],
) -> list[list[int]]:
    """The captions, each with a plan of a picture that is not there yet.

    rngs: a generator per caption, so that a plan does not depend on its neighbours.
    """
    if objective == "ar":
        return continue_twin(model, vocabulary, captions, settings, rngs)
    return fill(model, vocabulary, captions, None, settings, rngs)


def text_of(vocabulary: Vocabulary, words: list[int]) -> str:
    """The plan at the end of a row's words."""
    return vocabulary.text(words[len(words) - vocabulary.plan :])


def scene_of(vocabulary: Vocabulary, words: list[int]) -> Scene | None:
    """The scene of the plan at the end of a row's words; None if it is no plan."""
    return plans.read(text_of(vocabulary, words))


def changed_plan(vocabulary: Vocabulary, words: list[int], change: Change) -> list[int] | None:
    """The plan of a row's words after a change: its ids; None if the change does not fit it."""
    scene = scene_of(vocabulary, words)
    if scene is None:
        return None
    try:
        after = changes.change_scene(scene, change)
    except changes.Impossible:
        return None
    return vocabulary.plan_words(plans.write(after, plans.objects_of(vocabulary.plan)))


def places_of_change(before: Scene, after: Scene, side: int) -> Tensor:
    """The places that an object touches which only one of the scenes has: (P,) bool.

    A place more on each side, because the tokens around an object see its edge.
    """
    only = [thing for thing in before.objects if thing not in after.objects]
    only += [thing for thing in after.objects if thing not in before.objects]
    middle = (torch.arange(side) + 0.5) / side
    touched = torch.zeros(side, side, dtype=torch.bool)
    for thing in only:
        reach = thing.radius + 1 / side
        down, across = (middle - thing.y).abs() < reach, (middle - thing.x).abs() < reach
        touched |= down[:, None] & across[None, :]
    return touched.flatten()
