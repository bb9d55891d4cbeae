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
from image.guides import Guidance
from image.rows import Vocabulary, length_nats, rows_of, to_device
from model import Cache
from net import picture_blocks, picture_readers, twin
from net.block_writing import Reader
from net.painter import Painter, spread_order
from net.picture_blocks import calls_of_blocks
from net.plan_places import Objects
from net.samplers import row_generators, sample

# How pictures are drawn unless a flag says otherwise: nothing here was tuned.
PICTURES = {"sampler": "left_to_right", "steps": 16, "schedule": "cosine"}
UNGUIDED = Guidance(1.0)
SHORTEST = 3  # words: [BOS], a word, [EOS]


@dataclass
class Painting:
    """Painted pictures. tokens: (B, P) int64. step: (B, P), the call that wrote each token, 0 if it
    was given. probability: (B, P), of the token when it was drawn. calls: (B,) calls of the
    network for tokens of pictures, and the call that reads candidates. plans: the plan of each
    picture, if the rows have plans.
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


def reader_of(
    model: Painter,
    vocabulary: Vocabulary,
    prompts: list[list[int]],
    guidance: Guidance,
    size: int,
) -> Reader:
    """What the network says of pictures with these words, guided.

    size: of the blocks in which the pictures are drawn; 0: as a whole.
    """
    full, hidden, none = guidance.counts()
    wanted = [(full, prompts)]
    if hidden:
        plan, mask_id = vocabulary.plan, vocabulary.mask
        wanted.append((hidden, [hidden_words.of_row(row, plan, mask_id) for row in prompts]))
    if none:
        wanted.append((none, [[vocabulary.bos]] * len(prompts)))
    parts = [
        (count, picture_readers.reader_of(model, words, vocabulary.pad, size))
        for count, words in wanted
        if count
    ]
    return parts[0][1] if len(parts) == 1 else guides.Mixture(parts)


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
    guidance: Guidance = UNGUIDED,
    spread: bool = True,
    seed: int = 0,
    first: int = 0,
) -> Painting:
    """A picture for each prompt, or the missing tokens of `start`.

    prompts: ids with [BOS] and [EOS]. start: (B, P) int64 with [MASK] where the network paints;
    None: everywhere. spread: reveal places that are far apart first, in place of the sampler's
    order. first: the number of the first row, so that a row draws the same in any batch.
    settings.steps: calls of the whole picture; each of the blocks of settings.block_size has its
    part, at least one. A picture that is drawn again in part is drawn in the largest blocks that
    the network learnt. Raises UserError for what the twin cannot do, or too few calls.
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
        return paint_twin(model, vocabulary, prompts, settings, guidance.guidance, rngs)
    reader = reader_of(model, vocabulary, prompts, guidance, size)
    order = spread_order(model.side).to(model.device) if spread else None
    canvas = Canvas(reader, start.to(model.device), vocabulary.mask, order, rngs)
    ends = range(size, count + size, size) if size else [count]
    for end, calls in zip(ends, calls_of_blocks(settings.steps, len(ends)), strict=True):
        own = replace(settings, steps=calls, block_size=0)
        canvas.fill(end - size if size else 0, min(end, count), own)
    return canvas.painting


class Canvas:
    """Pictures (B, P) while they are painted. `painting` holds what is there so far.

    order: (P,) the turn of each place; None: the sampler's own order.
    """

    def __init__(
        self,
        reader: Reader,
        start: Tensor,
        mask_id: int,
        order: Tensor | None,
        rngs: list[torch.Generator],
    ):
        self.reader, self.mask_id, self.order, self.rngs = reader, mask_id, order, rngs
        self.tokens = start.clone()
        step = torch.zeros(start.shape, dtype=torch.long)
        probability = torch.ones(start.shape)
        calls = torch.zeros(len(start), dtype=torch.long)
        self.painting = Painting(start.cpu().clone(), step, probability, calls)

    def fill(self, left: int, end: int, settings: SampleConfig) -> None:
        """Draw the [MASK]s of the places left .. end - 1, a block."""
        block = self.tokens[:, left:end]
        masked = block == self.mask_id
        if not masked.any():
            return
        self.reader.begin(self.tokens, left)
        order = self.order
        turn = None if order is None else order[left:end].expand(len(block), -1)
        mask_id = self.mask_id
        drawn = sample(self.reader, block, settings, mask_id=mask_id, rngs=self.rngs, turn=turn)
        self.tokens[:, left:end] = drawn.tokens
        done, part, masked = self.painting, slice(left, end), masked.cpu()
        step = drawn.step + done.calls[:, None]
        done.tokens[:, part] = drawn.tokens.cpu()
        done.step[:, part] = torch.where(masked, step, done.step[:, part])
        sure = drawn.log_prob.exp()
        done.probability[:, part] = torch.where(masked, sure, done.probability[:, part])
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
