"""A network of words and pictures while it trains: its loss, its score on val, rows to read."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

import diffusion
from base import config, flags
from base.config import SampleConfig
from base.files import UserError
from base.flags import setting
from diffusion import weigh
from image import bounds, writer
from image.rows import Pairs, to_device
from loop import distributed
from net import blocks, picture_blocks, turns, twin

DIRECTIONS = ("both", "to_picture", "to_words")
DRAWS = 4  # noise levels per row at an evaluation
PREVIEWS = 4  # rows in a file of samples/


@dataclass
class ImageRun:
    """The loss and its evaluation. A resumed run keeps these."""

    objective: str = setting(
        "diffusion",
        "what to train; ar is the autoregressive twin: words, then the picture row by row",
        choices=config.OBJECTIVES,
    )
    directions: str = setting(
        "both",
        "to_picture or to_words: a control network for one direction only",
        choices=DIRECTIONS,
    )
    weight: str = setting(
        "flat", "weights of the loss; bound is the likelihood's own", choices=config.WEIGHTS
    )
    share_words: float = setting(
        0.25, "share of rows that learn words, given the picture", at_least=0, at_most=1
    )
    share_both: float = setting(
        0.15, "share of rows that learn words and picture together", at_least=0, at_most=1
    )
    share_absent: float = setting(
        0.1, "share of rows without the other segment, for guidance", at_least=0, below=1
    )
    share_plan: float = setting(
        0.3,
        "of the rows for pictures, the share that learns to plan, given the caption; in a folder "
        "with plans, and not for the twin, which learns all words",
        at_least=0,
        below=1,
    )
    share_hidden: float = setting(
        0.0,
        "of the rows for pictures, the share whose words hide fills, colours or shapes, and the "
        "caption: for --sharpen; needs a folder with plans",
        at_least=0,
        below=1,
    )
    share_practice: float = setting(
        0.3,
        "with --practice: of the rows for pictures or plans, given their words, the share from it",
        above=0,
        at_most=1,
    )
    word_weight: float = setting(
        4.0, "what a word counts in the loss, where a picture token counts 1", above=0
    )
    eval_images: int = setting(100, "val images at each evaluation", at_least=1)

    def __post_init__(self):
        flags.check(self)
        if self.share_words + self.share_both + self.share_absent > 1:
            raise UserError(
                f"shares of {self.share_words:g}, {self.share_both:g} and {self.share_absent:g}",
                "at most 1 together: the rest learns pictures, given the words",
                "lower one of them",
            )

    def shares(self, plan: int = 0) -> dict[str, float]:
        """{way: share of the rows}, of `image.rows.WAYS`. plan: tokens of a plan; 0: no plans."""
        absent = self.share_absent
        if self.directions == "to_words":
            return {"words": 1 - absent, "words_alone": absent}
        if self.directions == "to_picture":
            shares = {"picture": 1 - absent, "picture_alone": absent}
        elif self.objective == "ar":  # a causal row learns both segments in any case
            return {"both": 1 - absent, "picture_alone": absent}
        else:
            shares = {
                "picture": 1 - self.share_words - self.share_both - absent,
                "words": self.share_words,
                "both": self.share_both,
                "picture_alone": absent / 2,
                "words_alone": absent / 2,
            }
        if plan:
            shares["plan"] = shares["picture"] * self.share_plan
            shares["picture"] -= shares["plan"]
        return shares

    def ways(self, plan: int = 0) -> list[str]:
        """What the network is scored on. The mean over all tokens decides which step is best."""
        ways = {"to_picture": ["picture"], "to_words": ["words"], "both": ["picture", "words"]}
        # The twin reads words before it sees the picture.
        found = ["picture"] if self.objective == "ar" else ways[self.directions]
        return [*found, "plan"] if plan and "picture" in found else found

    def check_blocks(self, block_sizes: str, parallel: str) -> None:
        """Raise UserError for blocks that no row would have, or that processes cannot share."""
        flag = f"--block_sizes {block_sizes}"
        if block_sizes and self.directions == "to_words":
            raise UserError(
                f"{flag} with --directions to_words",
                "a network that paints: words are not drawn in blocks",
                "leave out --block_sizes",
            )
        # Rows decide how many passes a process makes, and shards are gathered in each pass.
        if block_sizes and distributed.world() > 1 and parallel != "ddp":
            raise UserError(
                f"{flag} with --parallel {parallel}", "--parallel ddp", "add --parallel ddp"
            )

    def check_plans(self, practice: str | None, plan: int) -> None:
        """Raise UserError for hidden words or practice that no row would have.

        practice: its folder, if any. plan: tokens of a plan.
        """
        has_rows = self.objective == "diffusion" and self.shares(plan).get("picture", 0.0) > 0
        asked = {f"--share_hidden {self.share_hidden:g}": self.share_hidden > 0}
        asked[f"--practice {practice}"] = practice is not None
        for flag, is_asked in asked.items():
            if is_asked and not (plan and has_rows):
                raise UserError(
                    f"{flag} where no row learns a picture of a plan",
                    "a diffusion network that learns pictures, in a folder with plans",
                    f"leave out {flag.split()[0]}, or draw the folder with --plans",
                )

    def check_twin(self) -> None:
        """Raise UserError for a twin that would write the words of a picture."""
        if self.objective == "ar" and self.directions == "to_words":
            raise UserError(
                "--objective ar with --directions to_words",
                "both or to_picture: the twin reads the words first",
                "change one of them",
            )


def make_loss(own: ImageRun, mask_id: int, codes: int):
    """loss_fn for `fit`: nats per free token, words weighted by --word_weight."""

    def loss_fn(model, batch, rng):
        tokens, _, words, free = to_device(batch, model.device)
        if own.objective == "ar":
            nats, hits = twin.token_losses(partial(model, words=words), tokens, free)
            token_weight = torch.ones_like(nats)
            is_word = tokens[free] >= codes
        else:
            parts = masked_parts(model, batch, mask_id, codes, rng)
            both = zip(*parts, strict=True)
            nats, hits, token_weight, is_word = (torch.cat(part) for part in both)
        factor = torch.where(is_word, own.word_weight, 1.0)
        weight = "bound" if own.objective == "ar" else own.weight
        value, _ = weigh(nats * factor, token_weight, free.sum(), weight)
        _, report = weigh(nats.detach(), token_weight, free.sum(), "bound")
        if "block_size" in batch:
            report["block_size"] = float(batch["block_size"])
        return value, report | by_segment(nats.detach(), hits, is_word)

    return loss_fn


def masked_parts(model, batch: dict, mask_id: int, codes: int, rng) -> list[tuple[Tensor, ...]]:
    """-log p of the masked tokens of a batch, in one or two parts of its rows.

    A step in blocks draws pictures in blocks; rows that learn words are plain. Each part: nats,
    hits, the tokens' weights in the bound, and which are words, (M,) each.
    """
    tokens, lengths, words, free = to_device(batch, model.device)
    size = batch.get("block_size", 0)
    is_word = tokens >= codes
    blocked = free.any(1) & ~(free & is_word).any(1)
    if not size or size >= model.side**2:
        blocked = torch.zeros_like(blocked)
    parts = []
    for chosen in (blocked, ~blocked):
        if not chosen.any():
            continue
        own, is_free = tokens[chosen], free[chosen]
        long = None if lengths is None else lengths[chosen]
        if chosen is blocked:
            number = picture_blocks.numbers(words[chosen], long, own.shape[1], size)
            noise = turns.corrupt(is_free, number, turns.noise_levels(is_free, number, rng), rng)
            denoise = picture_blocks.bind(model, words[chosen], long, size)
            nats, hits = blocks.masked_losses(denoise, own, noise.masked, mask_id)
            weight = turns.token_weights(noise.masked, number, noise.weight)
        else:
            noise = diffusion.corrupt(is_free, batch["uniform"][chosen.cpu()], rng)
            plain = model.bind_rows(long, words[chosen])
            nats, hits = diffusion.masked_losses(plain, own, noise.masked, noise.share, mask_id)
            weight = noise.token_weight()
        parts.append((nats, hits, weight.float(), is_word[chosen][noise.masked]))
    return parts


def by_segment(nats: Tensor, hits: Tensor, is_word: Tensor) -> dict[str, float]:
    """Cross-entropy and accuracy of the masked tokens of each segment; 0 where there are none."""
    figures = {}
    for name, where in (("word", is_word), ("picture", ~is_word)):
        count = max(1, int(where.sum()))
        figures[f"{name}_cross_entropy"] = float(nats[where].sum()) / count
        figures[f"{name}_accuracy"] = float(hits[where].sum()) / count
    return figures


def make_eval(own: ImageRun, held_out: Pairs, statistics: dict):
    """eval_fn for `fit`: nats per token of val's pictures given words, and words given pictures.

    With plans, also of plans given captions.
    """

    def eval_fn(model):
        result, nats, tokens = {}, 0.0, 0.0
        for way, size in eval_ways(own, model.config, held_out.vocabulary.plan):
            figures = bounds.split_bounds(
                model,
                own.objective,
                held_out,
                way,
                statistics,
                images=own.eval_images,
                draws=DRAWS,
                size=size,
            )
            nats += figures["nats"].sum()
            tokens += figures["tokens"].sum()
            name = f"{way}_in_{size}" if size else way
            result[f"{name}_nats_per_token"] = figures["nats"].sum() / figures["tokens"].sum()
        return {"nats_per_token": nats / tokens, **result}

    return eval_fn


def eval_ways(own: ImageRun, config, plan: int) -> list[tuple[str, int]]:
    """What is scored on val: ways, and sizes of blocks; 0: as a whole. Pictures have all sizes."""
    result = []
    for way in own.ways(plan):
        sizes = bounds.picture_sizes(config) if way == "picture" else [0]
        result += [(way, size) for size in sizes]
    return result


def make_preview(own: ImageRun, seed: int, held_out: Pairs, statistics: dict):
    """preview_fn for `fit`: what the network says of val's first pictures, and their captions.

    The twin and a network to pictures write no captions. Their preview is the share of tokens that
    a painted picture has in common with the true picture. It grows with the plain background. With
    plans, the picture is painted from the true plan.
    """

    def preview_fn(model):
        count = min(PREVIEWS, len(held_out))
        pictures, vocabulary = held_out.pictures[:count], held_out.vocabulary
        if own.objective == "diffusion" and own.directions != "to_picture":
            said = writer.describe(
                model, vocabulary, pictures, statistics["row_lengths"], lengths=4, seed=seed
            )
            pairs = zip(said, held_out.texts, strict=False)
            return "\n".join(f"{caption.text}   | {texts[0]}" for caption, texts in pairs)
        prompts = [captions[0] for captions in held_out.captions[:count]]
        settings = SampleConfig(**writer.PICTURES)
        largest = picture_blocks.widest(model.config)
        if largest:  # a call for each block at least
            blocks_needed = picture_blocks.blocks_of(pictures.shape[1], largest)
            settings = replace(settings, steps=max(settings.steps, blocks_needed))
        drawn = writer.paint(model, vocabulary, own.objective, prompts, settings, seed=seed)
        same = (drawn.tokens == pictures).double().mean(1)
        pairs = zip(same.tolist(), held_out.texts, strict=False)
        return "\n".join(f"{share:.2f}   | {texts[0]}" for share, texts in pairs)

    return preview_fn
