"""A network of words and pictures at work: it paints words, repaints places, and writes captions.

A picture without words is a row of [BOS] and the picture; guidance steers away from it. The length
of a caption comes from the training captions: the network writes captions of several lengths, and
the likeliest is kept.

Shapes: B rows, L positions, P picture tokens, S side of the grid, n words with [BOS] and [EOS].
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

import diffusion
from base.config import CAPTIONS, SampleConfig
from base.files import UserError
from image import guides, hidden_words
from image.guides import Part
from image.rows import Vocabulary, length_nats, rows_of, to_device
from model import Cache
from net import picture_blocks, twin
from net.painter import Painter, spread_order
from net.picture_blocks import calls_of_blocks
from net.plan_places import Objects
from net.samplers import row_generators, sample

# How pictures are drawn unless a flag says otherwise: nothing here was tuned.
PICTURES = {"sampler": "left_to_right", "steps": 16, "schedule": "cosine"}
SHORTEST = 3  # words: [BOS], a word, [EOS]


@dataclass
class Painting:
    """Painted pictures. tokens: (B, P) int64. step: (B, P), the call that wrote each token, 0 if it
    was given. probability: (B, P), of the token when it was drawn. calls: (B,) calls of the
    network for tokens of pictures. plans: the plan of each picture, if the rows have plans.
    """

    tokens: Tensor
    step: Tensor
    probability: Tensor
    calls: Tensor
    plans: list[str] = field(default_factory=list)


@dataclass
class Said:
    """A caption of a picture. nats: its bound given the picture, and the cost of its length. plan:
    what was read in the picture, if the rows have plans.
    """

    text: str
    nats: float
    words: int
    plan: str = ""


def check_prompt(model, vocabulary: Vocabulary, text: str) -> list[int]:
    """The ids of a prompt. Raises UserError if it is empty or too long for the network."""
    words = vocabulary.words(text)
    room = model.config.max_length - model.side**2 - vocabulary.plan
    if not SHORTEST <= len(words) <= room:
        raise UserError(
            f"a prompt of {len(words) - 2} tokens ({text[:40]!r})",
            f"1 to {room - 2} tokens",
            "write a shorter sentence",
        )
    return words


# ---- Painting


def picture_part(words: Tensor, count: int, rows: int) -> Tensor:
    """The positions of the picture in each of `rows` rows: (rows, P) int64."""
    words = words.repeat_interleave(rows // len(words), 0)
    return words[:, None] + torch.arange(count, device=words.device)


def without_words(
    model: Painter, words: Tensor, bos: int, count: int, size: int
) -> diffusion.Denoise:
    """A denoiser of the same rows that sees [BOS] and the picture, and no words.

    count: of the picture's first tokens, which stand in the rows. size: of blocks; 0: no blocks.
    """

    def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        where = picture_part(words, count, len(tokens))
        first = torch.full((len(tokens), 1), bos, device=tokens.device)
        alone = torch.cat([first, tokens.gather(1, where)], 1)  # (B, 1 + count)
        chosen = torch.cat([torch.zeros_like(first, dtype=torch.bool), select.gather(1, where)], 1)
        one = torch.ones(len(tokens), dtype=torch.long, device=tokens.device)
        return reader_of(model, one, None, size)(alone, share, chosen)

    return denoise


def reader_of(
    model: Painter, words: Tensor, lengths: Tensor | None, size: int
) -> diffusion.Denoise:
    """A denoiser of rows with these numbers of words and tokens, (B,) each.

    size: of blocks, of which the rows' last block is drawn; 0: the picture as a whole.
    """
    if size:
        return picture_blocks.bind_last(model, words, lengths, size)
    return model.bind_rows(lengths, words)


def without_picture(model: Painter, words: Tensor) -> diffusion.Denoise:
    """A denoiser of the same rows that sees the words alone."""
    width = int(words.max())

    def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        left = words.repeat_interleave(len(tokens) // len(words), 0)
        chosen = select[:, :width]
        return model(tokens[:, :width], select=chosen, lengths=left, words=left)

    return denoise


@torch.no_grad()
def paint(
    model: Painter,
    vocabulary: Vocabulary,
    objective: str,
    prompts: list[list[int]],
    settings: SampleConfig,
    *,
    start: Tensor | None = None,
    guidance: float = 1.0,
    mixture: list[Part] | None = None,
    spread: bool = True,
    seed: int = 0,
    first: int = 0,
) -> Painting:
    """A picture for each prompt, or the missing tokens of `start`.

    prompts: ids with [BOS] and [EOS]. start: (B, P) int64 with [MASK] where the network paints;
    None: everywhere. mixture: guidance by hidden words (image/guides.py). spread: reveal places
    that are far apart first, in place of the sampler's order. first: the number of the first row,
    so that a row draws the same in any batch. settings.steps: calls of the whole picture; each of
    the blocks of settings.block_size has its part, at least one. A picture that is drawn again in
    part is drawn in the largest blocks that the network learnt. Raises UserError for what the twin
    cannot do, or too few calls.
    """
    count = model.side**2
    rngs = row_generators(seed, len(prompts), first)
    repaints = start is not None and bool((start != vocabulary.mask).any())
    if start is None:
        start = torch.full((len(prompts), count), vocabulary.mask)
    size = picture_blocks.widest(model.config) if repaints else None
    if size is None:
        size = picture_blocks.choose(model.config, settings.block_size, settings.steps)
    if objective == "ar":
        if repaints:
            found = "a twin that is to repaint a part of a picture"
            raise UserError(found, "the diffusion network", "name another --checkpoint")
        return paint_twin(model, vocabulary, prompts, settings, guidance, rngs)
    canvas = Canvas(model, vocabulary, prompts, start, guidance, spread, rngs, mixture)
    ends = range(size, count + size, size) if size else [count]
    for end, calls in zip(ends, calls_of_blocks(settings.steps, len(ends)), strict=True):
        canvas.fill(min(end, count), replace(settings, steps=calls, block_size=0), size)
    return canvas.painting


class Canvas:
    """Pictures while they are painted. `painting` holds what is there so far."""

    def __init__(
        self,
        model: Painter,
        vocabulary: Vocabulary,
        prompts: list[list[int]],
        start: Tensor,
        guidance: float,
        spread: bool,
        rngs: list[torch.Generator],
        mixture: list[Part] | None = None,
    ):
        self.model, self.vocabulary, self.prompts = model, vocabulary, prompts
        self.mixture = mixture or []
        self.guidance, self.rngs = guidance, rngs
        self.order = spread_order(model.side).to(model.device) if spread else None
        step = torch.zeros(start.shape, dtype=torch.long)
        probability = torch.ones(start.shape)
        calls = torch.zeros(len(start), dtype=torch.long)
        self.painting = Painting(start.clone(), step, probability, calls)

    def fill(self, end: int, settings: SampleConfig, size: int) -> None:
        """Draw the [MASK]s before place `end`, which may see no place from `end` on.

        size: of the blocks that the network counts; 0: it sees the picture as a whole.
        """
        done = self.painting
        masked = done.tokens[:, :end] == self.vocabulary.mask
        if not masked.any():
            return
        ways = ["picture"] * len(self.prompts)
        rows = rows_of(self.vocabulary, self.prompts, done.tokens[:, :end], ways)
        tokens, lengths, words, _ = to_device(rows, self.model.device)
        denoise = reader_of(self.model, words, lengths, size)
        if self.mixture:
            width, plan = tokens.shape[1], self.vocabulary.plan
            hidden = [
                (count, hidden_words.places(width, words, plan, looks))
                for count, looks in self.mixture
            ]
            denoise = guides.mixed(denoise, hidden, self.vocabulary.mask)
        if self.guidance != 1.0:
            other = without_words(self.model, words, self.vocabulary.bos, end, size)
            denoise = diffusion.guide(denoise, other, self.guidance)
        where = picture_part(words, end, len(tokens))
        turn = None
        if self.order is not None:
            order = self.order[:end].expand(len(tokens), -1)
            turn = torch.zeros_like(tokens).scatter_(1, where, order)
        mask_id = self.vocabulary.mask
        drawn = sample(denoise, tokens, settings, mask_id=mask_id, rngs=self.rngs, turn=turn)
        where = where.cpu()
        step = drawn.step.gather(1, where) + done.calls[:, None]
        done.tokens[:, :end] = drawn.tokens.cpu().gather(1, where)
        done.step[:, :end] = torch.where(masked, step, done.step[:, :end])
        sure = drawn.log_prob.gather(1, where).exp()
        done.probability[:, :end] = torch.where(masked, sure, done.probability[:, :end])
        done.calls += drawn.used


class GuidedTwin:
    """The twin with guidance: each step reads the row with its words and the row without."""

    def __init__(self, model: Painter, bos: int, words: int, guidance: float):
        self.model, self.bos, self.guidance = model, bos, guidance
        self.words = words
        self.alone = Cache()
        # Of the plan in the words, and of no words: later calls read neither.
        self.objects: list[Objects | None] = [None, None]

    def __call__(self, unread: Tensor, *, select: Tensor, cache: Cache, condition: None) -> Tensor:
        rows = torch.full((len(unread),), self.words, device=unread.device)
        begins = not cache.length
        own, none = self.objects
        logits = self.model(unread, select=select, cache=cache, words=rows, objects=own)
        nothing = torch.full_like(unread[:, :1], self.bos)
        if begins:
            self.objects = [self.model.objects_of(words) for words in (unread, nothing)]
        if self.guidance == 1.0:
            return logits
        if begins:  # the words were read; the other row has [BOS] in their place
            unread = nothing
        last = torch.ones_like(unread, dtype=torch.bool)
        one = torch.ones_like(rows)
        other = self.model(unread, select=last, cache=self.alone, words=one, objects=none)
        guided = diffusion.guide(lambda *_: logits, lambda *_: other, self.guidance)
        return guided(unread, rows, last)


def paint_twin(
    model: Painter,
    vocabulary: Vocabulary,
    prompts: list[list[int]],
    settings: SampleConfig,
    guidance: float,
    rngs: list[torch.Generator],
) -> Painting:
    """Pictures of the twin, token by token. Prompts of one length are drawn together."""
    count = model.side**2
    tokens = torch.zeros(len(prompts), count, dtype=torch.long)
    log_prob = torch.zeros(len(prompts), count)
    for length in sorted({len(prompt) for prompt in prompts}):
        same = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        drawn = twin.sample(
            GuidedTwin(model, vocabulary.bos, length, guidance),  # type: ignore[arg-type]
            torch.tensor([prompts[row] for row in same], device=model.device),
            length + count,
            eos=vocabulary.eos,
            pad=vocabulary.pad,
            rngs=[rngs[row] for row in same],
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        tokens[same] = drawn.tokens[:, length:].cpu()
        log_prob[same] = drawn.log_prob[:, length:]
    step = torch.arange(1, count + 1).expand(len(prompts), -1)
    return Painting(tokens, step, log_prob.exp(), torch.full((len(prompts),), count))


# ---- Captions


def likely_lengths(histogram: list[int], count: int) -> list[int]:
    """`count` numbers of words, at equal quantiles of the training captions', ascending."""
    sizes = [n for n, times in enumerate(histogram) for _ in range(times) if n >= SHORTEST]
    picks = {sizes[int((index + 0.5) / count * len(sizes))] for index in range(count)}
    return sorted(picks)


@torch.no_grad()
def describe(
    model: Painter,
    vocabulary: Vocabulary,
    pictures: Tensor,
    histogram: list[int],
    *,
    settings: SampleConfig | None = None,
    lengths: int = 8,
    draws: int = 8,
    guidance: float = 1.0,
    seed: int = 0,
    first: int = 0,
) -> list[Said]:
    """A caption for each picture (B, P) int64: the likeliest of several lengths.

    histogram: of the training captions' numbers of words. lengths: how many of them are tried.
    """
    settings = settings or SampleConfig(**CAPTIONS)
    chosen: list[Said | None] = [None] * len(pictures)
    for number, size in enumerate(likely_lengths(histogram, lengths)):
        blank = [vocabulary.bos, *[vocabulary.mask] * (size - 2), vocabulary.eos]
        blank += [vocabulary.mask] * vocabulary.plan
        rows = rows_of(vocabulary, [blank] * len(pictures), pictures, ["words"] * len(pictures))
        tokens, _, words, free = to_device(rows, model.device)
        denoise: diffusion.Denoise = model.bind_rows(None, words)
        guided = denoise
        if guidance != 1.0:
            guided = diffusion.guide(denoise, without_picture(model, words), guidance)
        rngs = row_generators(seed + number, len(pictures), first)
        drawn = sample(guided, tokens, settings, mask_id=vocabulary.mask, rngs=rngs)
        nats = diffusion.bounds_of_one_length(
            denoise, drawn.tokens, free[:1], vocabulary.mask, draws, seed
        )
        nats = nats + length_nats(histogram, words - vocabulary.plan)
        for row, value in enumerate(nats.tolist()):
            best = chosen[row]
            if best is None or value < best.nats:
                said = drawn.tokens[row].tolist()
                plan = vocabulary.text(said[size : size + vocabulary.plan])
                chosen[row] = Said(vocabulary.text(said[:size]), value, size, plan)
    return [said for said in chosen if said is not None]
