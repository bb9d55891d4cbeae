"""Rows of words and a picture: one vocabulary for both, what is free in a row, the batches.

What is masked and learnt in a row, its way:

    picture        the picture, given the words
    words          the words, given the picture
    both           words and picture together
    picture_alone  the picture; the words are absent, for guidance
    words_alone    the words; the picture is absent, for guidance
    plan           the plan, given the caption; the picture is absent

In a folder with plans, the words are a caption and, behind its [EOS], a plan (worlds/plans.py). All
plans have as many words, and a word is a token.

The layout of a row stands in net/painter.py. [BOS] is always given, [EOS] belongs to the words.
The denoiser is told how many words there are, so it pays for this number where words are free:
`length_nats`.

Shapes: B rows, L positions, P picture tokens of a picture, n words of a row with [BOS] and [EOS].
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from base.errors import UserError
from base.tokenizer import Tokenizer
from image import hidden_words
from loop import distributed
from worlds import drawing, plans
from worlds.scenes import Scene, scene_from_dict

WAYS = ("picture", "words", "both", "picture_alone", "words_alone", "plan")


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a network of words and pictures: codes of pictures first, words behind them.

    plan: tokens of the plan at the end of a row's words; 0: there is none.
    """

    tokenizer: Tokenizer
    codes: int
    plan: int = 0

    @property
    def size(self) -> int:
        return self.codes + self.tokenizer.vocab_size

    @property
    def output_size(self) -> int:
        return self.codes + self.tokenizer.output_size

    @property
    def bos(self) -> int:
        return self.codes + self.tokenizer.bos

    @property
    def eos(self) -> int:
        return self.codes + self.tokenizer.eos

    @property
    def pad(self) -> int:
        return self.codes + self.tokenizer.pad

    @property
    def mask(self) -> int:
        return self.codes + self.tokenizer.mask

    def words(self, text: str) -> list[int]:
        """The ids of a text, with [BOS] and [EOS]."""
        ids = self.tokenizer.encode(text).tolist()
        return [self.bos, *(self.codes + int(id) for id in ids), self.eos]

    def plan_words(self, text: str) -> list[int]:
        """The ids of a plan. Raises ValueError if it has another number of tokens than `plan`."""
        ids = self.tokenizer.encode(text).tolist()
        if len(ids) != self.plan:
            raise ValueError(f"a plan of {self.plan} tokens")
        return [self.codes + int(id) for id in ids]

    def plan_lines(self) -> str:
        """ModelConfig.plan_lines: the ids of columns and rows; empty without plans."""
        if not self.plan:
            return ""
        return ",".join(map(str, self.ids_in_plan(plans.COLUMNS + plans.ROWS)))

    @property
    def nothing(self) -> int:
        """The id of the word of an object that is not in the plan."""
        return self.ids_in_plan([plans.NOTHING])[0]

    def ids_in_plan(self, words: Sequence[str]) -> list[int]:
        """The ids of words of plans, each a token; not of a plan's first word."""
        # Behind another word: a word's token holds the space before it.
        ids = self.tokenizer.encode(" ".join([plans.NOTHING, *words])).tolist()
        return [self.codes + int(id) for id in ids[-len(words) :]]

    def ids_of_grounds(self) -> list[int]:
        """The ids of the words that a plan begins with."""
        return [self.codes + int(self.tokenizer.encode(word)[0]) for word in drawing.GROUNDS]

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids of words; special tokens are left out."""
        return self.tokenizer.decode([id - self.codes for id in ids]).strip()


def rows_of(
    vocabulary: Vocabulary, captions: list[list[int]], pictures: Tensor, ways: Sequence[str]
) -> dict:
    """Rows of captions and pictures (B, P) int64, each of the way that `ways` says.

    captions: B lists of ids, as `Vocabulary.words` gives them, each with its plan, if rows have
    plans. Returns tokens (B, L) int64, lengths (B,), words (B,) int64, and free (B, L) bool: what
    is masked and counted.
    """
    rows, free = [], []
    for caption, picture, way in zip(captions, pictures.tolist(), ways, strict=True):
        words = caption[:1] if way == "picture_alone" else caption
        seen = [] if way in ("words_alone", "plan") else picture
        rows.append(words + seen)
        # Without words there is no plan; a caption is what stands before the plan.
        plan = 0 if way == "picture_alone" else vocabulary.plan
        writes_words = way in ("words", "both", "words_alone")
        writes_picture = way in ("picture", "both", "picture_alone")
        free.append(
            [False]
            + [writes_words] * (len(words) - 1 - plan)
            + [writes_words or way == "plan"] * plan
            + [writes_picture] * len(seen)
        )
    lengths = torch.tensor([len(row) for row in rows])
    kept = [1 if way == "picture_alone" else len(c) for c, way in zip(captions, ways, strict=True)]
    width = int(lengths.max())
    tokens = torch.full((len(rows), width), vocabulary.pad)
    is_free = torch.zeros(tokens.shape, dtype=torch.bool)
    for number, (row, flags) in enumerate(zip(rows, free, strict=True)):
        tokens[number, : len(row)] = torch.tensor(row)
        is_free[number, : len(row)] = torch.tensor(flags)
    return {"tokens": tokens, "lengths": lengths, "words": torch.tensor(kept), "free": is_free}


def to_device(rows: dict, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Rows on their device: tokens (B, L), lengths (B,) or None without padding, words, free."""
    has_padding = int(rows["lengths"].min()) < rows["tokens"].shape[1]
    lengths = rows["lengths"].to(device) if has_padding else None
    return rows["tokens"].to(device), lengths, rows["words"].to(device), rows["free"].to(device)


def length_nats(histogram: Sequence[int], words: Tensor) -> Tensor:
    """-log p(number of words) under the training captions', add-one smoothed: (B,) float64.

    histogram: how many training captions have 0, 1, 2, … words. Longer captions count as none.
    """
    total = sum(histogram) + len(histogram)
    counts = [histogram[n] if n < len(histogram) else 0 for n in words.tolist()]
    nats = [math.log(total) - math.log(count + 1) for count in counts]
    return torch.tensor(nats, dtype=torch.float64)


class Pairs:
    """The captions and pictures of a split, as ids.

    captions: for each picture, its captions, each with the plan if rows have plans. longest: words
    of the longest row. pictures: (N, P) int64. scenes: the true scene of each picture.
    """

    def __init__(self, data, split: str):
        plan = plans.length(data.plans) if data.plans else 0
        self.vocabulary = Vocabulary(data.tokenizer, data.codes, plan)
        records = data.records(split)
        self.captions = []
        for record in records:
            captions = [self.vocabulary.words(text) for text in record["captions"]]
            if plan:
                scene = scene_from_dict(record["scene"])
                for words, text in zip(captions, record["captions"], strict=True):
                    words += self.plan_of(scene, text, data)
            self.captions.append(captions)
        self.scenes = [record["scene"] for record in records]
        self.texts = [record["captions"] for record in records]
        self.pictures = torch.from_numpy(np.asarray(data.tokens(split)).astype(np.int64))
        self.longest = max(len(words) for captions in self.captions for words in captions)

    def plan_of(self, scene: Scene, caption: str, data) -> list[int]:
        """The ids of a scene's plan, for a caption of it.

        Raises UserError for a scene that the folder's plans lack.
        """
        try:
            text = plans.write(plans.in_order(scene, caption), data.plans)
            return self.vocabulary.plan_words(text)
        except ValueError as error:
            found = f"a scene in {data.folder} that has no plan there"
            raise UserError(found, str(error), "run prep_image_tokens.py again") from error

    def __len__(self) -> int:
        return len(self.captions)

    def with_more(self, more: "Pairs") -> "Pairs":
        """These pictures, and behind them more pictures of the same vocabulary."""
        result = copy.copy(self)
        result.captions = self.captions + more.captions
        result.scenes, result.texts = self.scenes + more.scenes, self.texts + more.texts
        result.pictures = torch.cat([self.pictures, more.pictures])
        result.longest = max(self.longest, more.longest)
        return result

    def histogram(self) -> list[int]:
        """How many captions have 0, 1, 2, … words, without plans."""
        plan = self.vocabulary.plan
        sizes = [len(words) - plan for captions in self.captions for words in captions]
        return np.bincount(sizes).tolist()

    def rows(self, numbers: Sequence[int], which: Sequence[int], ways: Sequence[str]) -> dict:
        """Rows of pictures `numbers` with their captions `which`, as `rows_of` makes them."""
        pairs = zip(numbers, which, strict=True)
        captions = [self.captions[number][index] for number, index in pairs]
        pictures = self.pictures[torch.as_tensor(list(numbers), dtype=torch.long)]
        return rows_of(self.vocabulary, captions, pictures, ways)


class PairBatches:
    """batches(step): the micro-batches of a step for this process, a pure function of (seed, step).

    Each epoch shows every picture once, with one of its captions, drawn at random. shares: {way:
    share of the rows}. batch_size: rows per step, over all `accumulate` micro-batches. Rows that
    learn plans stand together, because they are short (`parts`). share_hidden: of the rows that
    learn pictures, given their plans, the share that hides words (image/hidden_words.py).
    practice: pictures that the painter painted itself (image/practice.py), and share_practice: of
    the rows that learn pictures or plans, given their words, the share that is drawn from them.
    """

    def __init__(
        self,
        pairs: Pairs,
        shares: dict[str, float],
        batch_size: int,
        accumulate: int,
        seed: int,
        share_hidden: float = 0.0,
        practice: Pairs | None = None,
        share_practice: float = 0.0,
    ):
        self.pairs, self.shares, self.seed = pairs, shares, seed
        self.share_hidden, self.share_practice = share_hidden, share_practice
        self.all = pairs.with_more(practice) if practice else pairs
        self.accumulate = accumulate
        self.rows_per_step = min(batch_size, len(pairs))
        self.epoch_steps = max(1, len(pairs) // self.rows_per_step)
        self.epoch = -1
        self.order = np.empty(0, dtype=np.int64)

    def __call__(self, step: int) -> list[dict]:
        numbers = self.numbers_of(step)
        # The order of an epoch is drawn from (seed, epoch); the 1 keeps these draws apart.
        rng = np.random.default_rng([self.seed, 1, step])
        which = np.array([rng.integers(len(self.pairs.captions[number])) for number in numbers])
        ways = self.draw_ways(len(numbers), rng)
        hidden = hidden_words.draw(len(numbers), self.share_hidden, rng)
        if len(self.all) > len(self.pairs):
            numbers, which = self.with_practice(numbers, which, ways, rng)
        result = []
        for part, share_of_step in distributed.deal(self.parts(ways)):
            rows = self.all.rows(numbers[part], which[part], [ways[index] for index in part])
            self.hide(rows, [hidden[index] if ways[index] == "picture" else [] for index in part])
            rows["weight"] = float(rows["free"].sum())
            # Rows that a step in blocks reads twice (net/picture_blocks.py).
            alone = [ways[index] in ("picture", "picture_alone") for index in part]
            rows["copied_rows"] = sum(alone)
            result.append(rows | share_of_step)
        return result

    def with_practice(
        self, numbers: np.ndarray, which: np.ndarray, ways: list[str], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pictures and captions of a step, some of them from practice."""
        chosen = rng.random(len(numbers)) < self.share_practice
        # Plans too: after a round of pictures alone, fewer plans of new pairs were true (84%).
        chosen &= np.array([way in ("picture", "plan") for way in ways])
        own = rng.integers(len(self.pairs), len(self.all), len(numbers))
        return np.where(chosen, own, numbers), np.where(chosen, 0, which)

    def hide(self, rows: dict, hidden: list[list[str]]) -> None:
        """Hide the attributes that each row names."""
        vocabulary = self.pairs.vocabulary
        rows["tokens"] = hidden_words.hide(
            rows["tokens"], rows["words"], vocabulary.plan, vocabulary.mask, hidden
        )

    def parts(self, ways: list[str]) -> list[np.ndarray]:
        """The rows of each micro-batch of a step whose rows have these ways.

        Plans get micro-batches of their own only where no other becomes larger by it.
        """
        learns_plan = np.array([way == "plan" for way in ways])
        order = np.argsort(~learns_plan, kind="stable")  # whatever --accumulate is
        parts, plans_of_step = min(self.accumulate, len(ways)), int(learns_plan.sum())
        own = parts * plans_of_step // len(ways)
        if own in (0, parts):
            return np.array_split(order, parts)
        short, rest = order[:plans_of_step], order[plans_of_step:]
        return [*np.array_split(short, own), *np.array_split(rest, parts - own)]

    def draw_ways(self, count: int, rng: np.random.Generator) -> list[str]:
        """The way of each of `count` rows, in proportion to the shares as nearly as it can be."""
        names = list(self.shares)
        upper = np.cumsum([self.shares[name] for name in names])
        level = (rng.permutation(count) + rng.random()) / count * upper[-1]
        index = np.searchsorted(upper, level, side="right").clip(max=len(names) - 1)
        return [names[i] for i in index]

    def numbers_of(self, step: int) -> np.ndarray:
        """The numbers of the pictures of a step: (rows per step,) int64."""
        epoch, index = divmod(step, self.epoch_steps)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, rng.permutation(len(self.pairs))
        first = index * self.rows_per_step
        return self.order[first : first + self.rows_per_step]
