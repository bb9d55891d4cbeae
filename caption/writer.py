"""A captioner: image features in, captions and their confidence out.

The captioner reads standardised features (B, P, width), and with retrieval given captions too: then
`features` is a `net.retrieval.Seen`. All-zero features mean "no image": without
biases their keys and values are zero, so cross-attention adds nothing. That is the blind model, and
guidance steers away from it. The length of a caption is no flood of [EOS]: a small head says
p(length | image), and the likeliest length is taken.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import diffusion
from base.config import SampleConfig
from base.files import UserError
from base.templates import blank_rows
from caption.data import SHORTEST
from caption.words import ngrams
from diffusion import guide
from loop.batches import to_device
from net import twin
from net.image_encoders import POSITION_WAVES, patch_positions, waves
from net.retrieval import Seen
from net.samplers import row_generators, sample
from net.soft_masks import check, writer_of

# The size of the place code next to features of unit deviation. The larger it is, the sooner
# relations are learnt (docs/log/captions.md). Checkpoints from before it had a size have it at 1.
PLACE_SCALE = 4.0
TIME_SCALE = 4.0  # the same for the code of a frame's time
# How much the difference to the frame before counts. It is nearly 0 where nothing changes.
CHANGE_SCALE = 4.0
STATISTICS_IMAGES = 1000  # training images from which mean and deviation are computed


@dataclass
class Caption:
    """A written caption.

    ids: tokens with [BOS] and [EOS]. step, probability: for each token, the call that revealed it
    (0: given) and its probability then. calls: calls of the denoiser. bound: nats per token, or
    None. rows: the denoiser's rows in these calls.
    """

    ids: list[int]
    step: list[int]
    probability: list[float]
    calls: int
    text: str
    bound: float | None = None
    rows: int = 0


# ---- features as the captioner reads them -----------------------------------------------------


def feature_statistics(
    features: np.ndarray, rows: np.ndarray, frames: int = 1, changes: bool = False
) -> dict:
    """Mean and deviation of each channel, and the sizes of the codes: plain values.

    features (N, P, width); rows: the training images' rows, of which at most 1,000 are read. They
    are spread evenly. frames: of a clip; 1 for images, which have no time code. changes: whether
    the differences between the frames of clips are read too.
    """
    count = min(len(rows), STATISTICS_IMAGES)
    spread = np.linspace(0, len(rows) - 1, count).astype(int)
    chosen = features[rows[spread]].astype(np.float32)  # (n, P, width)
    time: dict = {"frames": frames, "time_scale": TIME_SCALE} if frames > 1 else {}
    if changes:
        time["change_scale"] = CHANGE_SCALE
    return {
        "feature_mean": chosen.mean((0, 1)).tolist(),
        "feature_std": (chosen.std((0, 1)) + 1e-4).tolist(),  # a channel may be constant
        "place_scale": PLACE_SCALE,
        **time,
    }


def frames_of(saved: dict) -> int:
    """The frames of what a captioner's checkpoint reads: 1 for images."""
    return saved.get("statistics", {}).get("frames", 1)


def place_code(patches: int, width: int) -> Tensor:
    """Where each patch is: sines and cosines of its row and column, (P, width) in -1..1.

    The 16 channels repeat over the width. A number of patches that is no square has a [CLS] token
    first, whose code is 0.
    """
    side = math.isqrt(patches)
    code = patch_positions(side).repeat(1, -(-width // POSITION_WAVES))[:, :width]
    return torch.cat([torch.zeros(patches - side * side, width), code])


def time_code(frames: int, width: int) -> Tensor:
    """When each frame is shown: sines and cosines of its number, (frames, width) in -1..1.

    The channels repeat over the width as those of `place_code`, but every second repetition has
    the opposite sign. So the two codes are at right angles where the width is a multiple of 32.
    """
    wave = waves(frames).repeat(1, POSITION_WAVES // waves(1).shape[1])  # (frames, 16)
    return torch.cat([wave, -wave], 1).repeat(1, -(-width // (2 * POSITION_WAVES)))[:, :width]


def codes(patches: int, width: int, statistics: dict) -> Tensor:
    """What is added to standardised features: the codes of place and time, (P, width)."""
    frames = statistics.get("frames", 1)
    place = statistics.get("place_scale", 1.0) * place_code(patches // frames, width)
    if frames == 1:
        return place
    time = statistics["time_scale"] * time_code(frames, width)
    return (place + time[:, None]).flatten(0, 1)  # (frames, P / frames, width) -> (P, width)


def changes_of(features: Tensor, frames: int) -> Tensor:
    """What each frame has that the frame before has not, (B, P, width); zeros for the first."""
    by_frame = features.unflatten(1, (frames, -1))  # (B, T, P / T, width)
    later = by_frame[:, 1:] - by_frame[:, :-1]
    return torch.cat([torch.zeros_like(by_frame[:, :1]), later], 1).flatten(1, 2)


def standardise(features: Tensor, statistics: dict, device) -> Tensor:
    """Features (B, P, width) with zero mean and unit deviation per channel, plus the codes.

    With changes, (B, P, 2 width): the features of clips, and behind them how they differ from the
    frame before. With them, captions of clips are learnt sooner (docs/log/pictures.md).

    Frozen features say clearly what is in a patch, and only faintly where the patch is. Without the
    place code no relation was learnt in 57,600 captions (docs/log/captions.md). statistics: from
    `feature_statistics`, or an old checkpoint's without place_scale. Clips get a time code too.
    """
    mean = torch.tensor(statistics["feature_mean"], device=device)
    deviation = torch.tensor(statistics["feature_std"], device=device)
    code = codes(*features.shape[1:], statistics).to(device)
    standard = (features.to(device).float() - mean) / deviation
    if "change_scale" not in statistics:
        return standard + code
    changes = changes_of(standard, statistics["frames"])
    return torch.cat([standard + code, statistics["change_scale"] * changes], 2)


def hide(features: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Features (B, P, width) with a share of the patches zeroed, each by its own draw.

    A share of 0 draws nothing, so runs with and without the flag stay comparable.
    """
    if not share:
        return features
    kept = torch.rand(features.shape[:2], generator=rng) >= share  # (B, P)
    return features * kept.to(features.device)[..., None]


def likeliest_lengths(model, features: Tensor | Seen) -> Tensor:
    """The likeliest caption length of each image, in tokens with [BOS] and [EOS]: (B,) int64."""
    return model.length_logits(features).argmax(-1).clamp(min=SHORTEST)


# ---- writing ----------------------------------------------------------------------------------


@torch.no_grad()
def write(
    model,
    tokenizer,
    objective: str,
    features: Tensor | Seen,
    settings: SampleConfig,
    *,
    guidance: float = 1.0,
    lengths: Tensor | None = None,
    template: list[int] | None = None,
    seed: int = 0,
    first: int = 0,
) -> list[Caption]:
    """A caption for each image, or for each of `lengths`.

    features: (B, P, width), standardised, or a `Seen`. lengths: (n·B,) tokens with [BOS] and
    [EOS], the n captions of an image one after another; None asks the length head. template: ids
    with [MASK] where the model writes, the same for all images; it fixes the length. guidance: 1
    means none. first: the number of the first row, so that a row draws the same in any batch.
    Raises UserError for settings that the network cannot obey.
    """
    check(model, settings)
    rows = len(features if lengths is None else lengths)
    rngs = row_generators(seed, rows, first)
    # Keys and values are computed once per image, not once per call of the denoiser.
    condition = model.keys_values(features)
    if objective == "ar":
        drawn = write_twin(model, tokenizer, condition, rows, settings, rngs)
        lengths = (drawn.tokens != tokenizer.pad).sum(1)
        return [caption_of(drawn, row, n, tokenizer) for row, n in enumerate(lengths.tolist())]
    if template is not None:
        tokens = torch.tensor(template, device=features.device).repeat(rows, 1)  # (B, L)
        lengths = torch.full((rows,), len(template), device=features.device)
    else:
        if lengths is None:
            lengths = likeliest_lengths(model, features)
        lengths = lengths.to(features.device)
        blank = blank_rows(lengths.tolist(), tokenizer)  # (B, L)
        tokens = torch.from_numpy(blank).to(features.device)
    denoise = writer_of(model, settings, lengths, condition)
    if guidance != 1.0 and settings.recheck:
        raise UserError(
            f"--recheck {settings.recheck} with --guidance {guidance:g}",
            "one of the two: the quality head judges what its own network draws",
            "leave out one of the two",
        )
    if guidance != 1.0:
        denoise = guide(denoise, writer_of(model, settings, lengths), guidance)
    drawn = sample(denoise, tokens, settings, mask_id=tokenizer.mask, rngs=rngs)
    return [caption_of(drawn, row, n, tokenizer) for row, n in enumerate(lengths.tolist())]


def write_twin(model, tokenizer, condition: list, rows: int, settings: SampleConfig, rngs: list):
    """Captions of the autoregressive twin: what `net.twin.sample` gives, for `rows` rows."""
    return twin.sample(
        model,
        torch.full((rows, 1), tokenizer.bos, device=model.device),
        model.config.max_length,
        eos=tokenizer.eos,
        pad=tokenizer.pad,
        rngs=rngs,
        temperature=settings.temperature,
        top_p=settings.top_p,
        condition=condition,
    )


def caption_of(drawn, row: int, length: int, tokenizer) -> Caption:
    """The first `length` tokens of a sampled row as a Caption."""
    ids = drawn.tokens[row, :length].tolist()
    step = drawn.step[row, :length].tolist()
    drawn_probability = drawn.log_prob[row, :length].exp()
    probability = []
    for value, call in zip(drawn_probability, step, strict=True):
        probability.append(float(value) if call else 1.0)  # a given token is certain
    text = tokenizer.decode(ids).strip()
    calls, taken = int(drawn.used[row]), int(drawn.rows[row])
    return Caption(ids, step, probability, calls, text, rows=taken)


# ---- likelihood -------------------------------------------------------------------------------


@torch.no_grad()
def bounds(
    model,
    tokenizer,
    objective: str,
    features: Tensor | Seen | None,
    texts: list[list[int]],
    *,
    draws: int = 8,
    seed: int = 0,
) -> np.ndarray:
    """Nats of each caption given its image: the bound, or the twin's exact figure, (n·B,) float64.

    features: (B, P, width), or None for no image (the blind model). texts: n·B lists of ids, the n
    captions of an image one after another. draws: noise levels per caption. Every row of one length
    meets the same noise levels and masks, so that captions can be compared.
    """
    rows = [torch.tensor(ids) for ids in texts]
    padded = torch.nn.utils.rnn.pad_sequence(
        rows, batch_first=True, padding_value=tokenizer.pad
    )  # (n·B, L)
    lengths = torch.tensor([len(ids) for ids in texts])
    tokens, _, free = to_device({"tokens": padded, "lengths": lengths}, model.device)
    lengths = lengths.to(tokens.device)
    condition = None if features is None else model.keys_values(features)
    if objective == "ar":
        return twin.likelihoods(model, tokens, free, condition).numpy()
    captions_per_image = 1 if features is None else len(texts) // len(features)
    result = torch.zeros(len(texts), dtype=torch.float64)
    # The rows of one length go together: their masks do not depend on the rest of the batch.
    for length in lengths.unique().tolist():
        same = (lengths == length).nonzero()[:, 0]  # (m,) rows
        image = same // captions_per_image
        theirs = condition and [tuple(part[image] for part in parts) for parts in condition]
        denoise = model.bind(None, theirs)
        nats = diffusion.bounds_of_one_length(
            denoise, tokens[same, :length], free[same[:1], :length], tokenizer.mask, draws, seed
        )
        result[same.cpu()] = nats.cpu()
    return result.numpy()


# ---- the best of several captions -------------------------------------------------------------


def consensus(texts: list[str]) -> list[float]:
    """How similar each text is to the others, 0 to 1: the mean share of common 1- to 4-grams.

    The caption that most of the others agree with has the least expected loss (minimum Bayes risk,
    Kumar & Byrne 2004).
    """
    grams = [[ngrams(text.split(), n) for n in range(1, 5)] for text in texts]
    result = []
    for number, mine in enumerate(grams):
        others = [other for index, other in enumerate(grams) if index != number]
        total = sum(similarity(mine, other) for other in others)
        result.append(total / max(1, len(texts) - 1))
    return result


def similarity(mine: list, other: list) -> float:
    """The share of common n-grams of two texts (Dice), averaged over n = 1 to 4."""
    shares = []
    for a, b in zip(mine, other, strict=True):
        shares.append(2 * (a & b).total() / max(1, a.total() + b.total()))
    return sum(shares) / 4


@torch.no_grad()
def best_of(
    model,
    tokenizer,
    features: Tensor | Seen,
    settings: SampleConfig,
    candidates: int,
    *,
    choose: str = "bound",
    guidance: float = 1.0,
    penalty: float = 0.5,
    draws: int = 4,
    seed: int = 0,
    first: int = 0,
) -> list[Caption]:
    """The best of several captions per image, written at the image's likeliest lengths.

    features: (B, P, width), standardised. choose: "bound" keeps the caption with the largest
    log p(length) - bound; "consensus" keeps the caption that is most like the others. penalty: α of
    bound(caption | image) - α·bound(caption | no image), against captions that fit any image. On
    drawn scenes, 0.5 said more at no loss of truth: 85% of captions named every object, compared
    with 74% at 0 (docs/log/captions.md).
    """
    candidates = min(candidates, model.config.max_length + 1)  # the head knows no other lengths
    log_p, length = model.length_logits(features).log_softmax(-1).topk(candidates, -1)
    written = write(
        model,
        tokenizer,
        "diffusion",
        features,
        settings,
        guidance=guidance,
        lengths=length.flatten().clamp(min=SHORTEST),
        seed=seed,
        first=first * candidates,
    )
    ids = [caption.ids for caption in written]
    nats = bounds(model, tokenizer, "diffusion", features, ids, draws=draws, seed=seed)
    set_bounds(written, nats)
    if choose == "consensus":
        costs = []
        for start in range(0, len(written), candidates):
            texts = [caption.text for caption in written[start : start + candidates]]
            costs.append([-value for value in consensus(texts)])
    else:
        blind = 0.0
        if penalty:
            blind = bounds(model, tokenizer, "diffusion", None, ids, draws=draws, seed=seed)
        costs = nats - log_p.flatten().double().cpu().numpy() - penalty * blind
    best = np.reshape(costs, (-1, candidates)).argmin(1)  # (B,)
    return [written[row * candidates + index] for row, index in enumerate(best)]


def set_bounds(written: list[Caption], nats: np.ndarray) -> None:
    """Give each caption its bound in nats per token; [BOS] is given and does not count."""
    for caption, value in zip(written, nats, strict=True):
        caption.bound = float(value) / (len(caption.ids) - 1)
