"""Three bounds of one network: p(picture | words), p(words | picture) and p(words, picture).

All are in nats per free token. Where words are free, the denoiser pays for their number too: it is
told this number, and the twin is not. The twin's figures are exact likelihoods. It reads words
before pictures, so it has no p(words | picture); it has p(words) in its place.

In a folder with plans, the words of a row are its caption and its plan. There is a fourth bound,
p(plan | caption). It and p(picture | words) add up to a bound of p(picture | caption), because a
picture is at least as likely as this picture together with a plan.

The bounds of two conditionals and of the joint distribution are bounds of the same network. Their
differences bound nothing.
"""

import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import diffusion
from base import metrics
from base.files import UserError
from base.flags import check, setting
from image.data import PictureData
from image.rows import Pairs, length_nats, to_device
from loop import distributed
from net import picture_blocks, turns, twin
from worlds import plans

EVAL_BATCH = 25  # rows scored at one time
NAMES = {
    "picture": "p(picture given words)",
    "words": "p(words given picture)",
    "both": "p(words, picture)",
    "picture_alone": "p(picture)",
    "words_alone": "p(words)",
    "plan": "p(plan given caption)",
}


@torch.no_grad()
def split_bounds(
    model,
    objective: str,
    pairs: Pairs,
    way: str,
    statistics: dict,
    *,
    images: int = 0,
    draws: int = 8,
    seed: int = 0,
    size: int = 0,
) -> dict[str, np.ndarray]:
    """The bound of each picture's first caption, or the twin's likelihood.

    way: of `image.rows.WAYS`. images: score only the first; 0 means all. size: of the blocks of a
    picture; 0: the picture as a whole. Returns nats, tokens: (N,) float64; tokens is the number of
    free tokens.
    """
    count = min(images or len(pairs), len(pairs))
    nats, tokens = [], []
    for first in range(0, count, EVAL_BATCH):
        numbers = list(range(first, min(first + EVAL_BATCH, count)))
        rows = pairs.rows(numbers, [0] * len(numbers), [way] * len(numbers))
        # The same noise at every call: two networks then differ by their weights alone.
        rng = torch.Generator().manual_seed(seed + first)
        nats.append(row_bounds(model, objective, rows, pairs.vocabulary.mask, draws, rng, size))
        if objective == "diffusion" and way in ("words", "both", "words_alone"):
            captions = rows["words"] - pairs.vocabulary.plan  # plans are all equally long
            nats[-1] = nats[-1] + length_nats(statistics["row_lengths"], captions)
        tokens.append(rows["free"].sum(1).double())
    return {"nats": torch.cat(nats).numpy(), "tokens": torch.cat(tokens).numpy()}


def row_bounds(
    model,
    objective: str,
    rows: dict,
    mask_id: int,
    draws: int,
    rng: torch.Generator,
    size: int = 0,
) -> torch.Tensor:
    """The bound of each row of `rows_of`, or the twin's exact -log p: (B,) float64 nats.

    size: of blocks, for rows in which the picture alone is free; 0: the row as a whole.
    """
    tokens, lengths, words, free = to_device(rows, model.device)
    if objective == "ar":
        return twin.likelihoods(partial(model, words=words), tokens, free)
    if size:
        number = picture_blocks.numbers(words, lengths, tokens.shape[1], size)
        both = picture_blocks.bind(model, words, lengths, size)
        draws = 1 if size == 1 else draws  # a block of one token has nothing to draw
        estimates = turns.bound_estimates(
            both, tokens, free, number, mask_id=mask_id, rng=rng, draws=draws
        )
    else:
        denoise = model.bind_rows(lengths, words)
        estimates = diffusion.bound_estimates(
            denoise, tokens, free, mask_id=mask_id, rng=rng, draws=draws
        )
    return sum(estimate["nats"] for estimate in estimates) / draws


@dataclass
class ImageScoring:
    """How a network of words and pictures is scored."""

    data_dir: str = setting("data_image_tokens", "folder of picture tokens", metavar="FOLDER")
    splits: str = setting("val", "splits with commas between them")
    images: int = setting(0, "score only the first pictures of a split; 0 means all", at_least=0)
    draws: int = setting(
        8, "noise levels per row; more narrows the noise, not the interval", at_least=1
    )

    def __post_init__(self):
        check(self)


def open_data(folder: str, saved) -> PictureData:
    """The folder of picture tokens that a checkpoint was trained on.

    Raises UserError if it is another folder: the same codes would be other pictures.
    """
    data = PictureData(folder)
    if data.fingerprint != saved["data"]["fingerprint"]:
        raise UserError(
            f"{folder} with pictures {data.fingerprint}",
            f"the pictures of the checkpoint, {saved['data']['fingerprint']}",
            "name the folder that it was trained on with --data_dir",
        )
    plan = saved["statistics"].get("plan", 0)
    if plan != (plans.length(data.plans) if data.plans else 0):
        found = f"{folder} with plans of {data.plans} objects"
        expected = f"plans of {plan} words, as the checkpoint learnt them"
        raise UserError(found, expected, "run prep_image_tokens.py again")
    check_plan_order(saved, folder)
    return data


def check_plan_order(saved, folder: str) -> None:
    """Raise UserError for a checkpoint that learnt plans in another order than the folder's."""
    statistics = saved["statistics"]
    if statistics.get("plan") and statistics.get("plan_order") != plans.ORDER:
        raise UserError(
            f"{folder}, whose plans list objects in the order of the caption",
            "plans from the top, as the checkpoint learnt them",
            "train again",
        )


def score(opened: tuple, options: ImageScoring, seed: int) -> dict:
    """{split: {way: figures}}, which are printed as a table too.

    opened: (model, tokenizer, rest) of `checkpoint.open_model`.
    """
    model, _, saved = opened
    data = open_data(options.data_dir, saved)
    result: dict = {"objective": saved["objective"], "splits": {}}
    table = [["split", "distribution", "pictures", "nats per token", "nats per row"]]
    for split in options.splits.split(","):
        pairs = Pairs(data, split)
        result["splits"][split] = figures = {}
        for way, size in ways_and_sizes(saved, model.config):
            found = split_bounds(
                model,
                saved["objective"],
                pairs,
                way,
                saved["statistics"],
                images=options.images,
                draws=options.draws,
                seed=seed,
                size=size,
            )
            name = f"{way}, blocks of {size}" if size else way
            figures[name] = row = summary(found)
            cells = [metrics.interval(row, "nats_per_token"), metrics.interval(row, "nats_per_row")]
            title = NAMES[way] + (f", blocks of {size}" if size else "")
            table.append([split, title, str(len(found["nats"])), *cells])
    distributed.say(metrics.markdown(table), file=sys.stdout)
    return result


def ways_of(saved) -> list[str]:
    """What a network has bounds of, by its objective and its directions."""
    directions = saved.get("flags", {}).get("directions", "both")
    plan = ["plan"] if saved["statistics"].get("plan") else []
    if directions == "to_picture":
        return ["picture", "picture_alone", *plan]
    if directions == "to_words":
        return ["words", "words_alone"]
    # The twin's words come before the picture.
    second = "words_alone" if saved["objective"] == "ar" else "words"
    return ["picture", second, "both", *plan]


def ways_and_sizes(saved, config) -> list[tuple[str, int]]:
    """The ways of `ways_of`, and the size of the blocks of each; 0: the picture as a whole.

    A picture alone is scored at each size that the network learnt.
    """
    result = []
    for way in ways_of(saved):
        in_blocks = way in ("picture", "picture_alone")
        result += [(way, size) for size in picture_sizes(config)] if in_blocks else [(way, 0)]
    return result


def picture_sizes(config) -> list[int]:
    """The sizes at which pictures are scored: 0 for the whole, and for a plain network."""
    places = config.picture_side**2
    return [size if size < places else 0 for size in config.trained_sizes] or [0]


def summary(found: dict[str, np.ndarray]) -> dict:
    """Nats per token and per row, with 95% intervals over pictures."""
    nats, tokens = found["nats"], found["tokens"]
    low, high = metrics.ratio_interval(nats, tokens)
    rows = np.ones_like(nats)
    return {
        "nats_per_token": float(nats.sum() / tokens.sum()),
        "nats_per_token_ci95": [low, high],
        "nats_per_row": float(nats.mean()),
        "nats_per_row_ci95": list(metrics.ratio_interval(nats, rows)),
    }
