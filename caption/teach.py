"""What a captioner learns besides people's captions: a teacher's captions, and the score.

**A teacher.** Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947) made translators
that write all words at once as good as those that write one word at a time (Gu et al. 2018, arXiv
1711.02281). People describe an image in five ways, a teacher in a single way. So words that
are drawn in one call agree. The captions are kept in the run folder (taught.json): people can
look at them, and a resumed run finds them again.

**A reward.** Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563, eq. 8) weighs
the log-probability of a drawn caption with how much better it scores than the greedy caption. A
masked denoiser gives both in one call: the drawn tokens and the likeliest tokens of the same
logits, put into the same masked caption.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion
from base import config, files, folders
from base.config import SampleConfig, TrainConfig
from base.files import UserError
from caption import coco, features, store, writer
from caption.data import UNLIMITED, CaptionData
from caption.lengths import cut
from loop import checkpoint, distributed, hardware, progress

FILE = "taught.json"
# Images per batch. A larger batch on a GPU is a choice, not measured.
ROWS = {"cpu": 128, "cuda": 1024, "mps": 128}
LENGTH_ROWS = 512  # images per call of the length head, which is small


# ---- a teacher's captions ---------------------------------------------------------------------


@torch.no_grad()
def write_captions(
    model, tokenizer, saved: dict, split: CaptionData, settings: SampleConfig, seed: int = 0
) -> list[str]:
    """The captioner's caption of each image of a split.

    Under torchrun each process writes a share, and every process returns all captions. A caption
    does not depend on the batch that it is written in.
    """

    def seen(numbers: np.ndarray):
        return store.look(model, tokenizer, saved["statistics"], split, numbers)

    def captions(numbers: np.ndarray) -> list[str]:
        written = writer.write(
            model,
            tokenizer,
            saved["objective"],
            seen(numbers),
            settings,
            seed=seed,
            first=int(numbers[0]),
        )
        return [caption.text for caption in written]

    def shown(batches: list):
        return progress.bar(batches, f"teacher, {split.split}", unit="batch")

    numbers = np.arange(len(split))
    if saved["objective"] == "diffusion":
        # Images whose captions have one length go together: hardly any padding is computed.
        lengths = []
        for part in np.array_split(numbers, -(-len(numbers) // LENGTH_ROWS)):
            lengths.append(model.length_logits(seen(part)).argmax(-1).cpu().numpy())
        numbers = np.argsort(np.concatenate(lengths), kind="stable")
    rows = min(ROWS[model.device.type], -(-len(split) // distributed.world()))
    batches = [numbers[first : first + rows] for first in range(0, len(numbers), rows)]
    texts: list[str] = sum(distributed.shared(batches, captions, shown), [])
    by_number = dict(zip(numbers.tolist(), texts, strict=True))
    return [by_number[number] for number in range(len(split))]


def use_teacher(
    splits: list[CaptionData],
    path,
    out: Path,
    max_length: int,
    device,
    cfg: TrainConfig,
    resumed: bool,
) -> None:
    """Replace the captions of these splits by the captions of the captioner or twin at `path`.

    The captions are written to the run folder `out`; a resumed run reads them there again.
    Raises UserError if the teacher has another tokenizer or encoder, or if the folder's captions
    are not of these images.
    """
    if resumed:
        what = "the teacher's captions, written when the run began"
        # The teacher is not asked again: its file may be gone, and the run must continue to the
        # bit.
        taught = files.read_json(out / FILE, what, "begin again without --resume")
    else:
        taught = teacher_captions(splits, path, device, cfg)
        if distributed.leads():
            files.write_json(out / FILE, taught)
    for split in splits:
        texts = taught.get(split.split)
        if not is_list_of_texts(texts, len(split)):
            raise UserError(
                f"other captions for {split.split} in {out / FILE}",
                f"a caption for each of its {len(split)} images",
                "begin again without --resume",
            )
        split.retell(texts, UNLIMITED)
        cut(split, max_length)


def teacher_captions(
    splits: list[CaptionData], path, device, cfg: TrainConfig
) -> dict[str, list[str]]:
    """{split: its captions} by the captioner or twin at `path`.

    Raises UserError if it does not fit.
    """
    model, tokenizer, saved = checkpoint.open_model(path, device, kinds=("caption",))
    folders.check_tokenizer(tokenizer.fingerprint, splits[0].tokenizer.fingerprint, path)
    encoder = splits[0].encoder
    features.check_encoder(encoder["encoder"], encoder["key"], saved, path)
    settings = SampleConfig(**config.CAPTIONS)
    if saved["objective"] == "diffusion":
        settings.revise = 1  # a look back mends some captions; a twin has none
    precision, _ = hardware.choose_precision(cfg.precision, device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        taught = {}
        for split in splits:
            texts = write_captions(model, tokenizer, saved, split, settings, cfg.seed)
            taught[split.split] = texts
    return taught


def is_list_of_texts(value, count: int) -> bool:
    """Whether a value from a JSON file is a list of `count` strings."""
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(isinstance(text, str) for text in value)


# ---- the score as a reward --------------------------------------------------------------------


class Reward:
    """CIDEr-D of a caption against the image's training captions.

    captions: for each image, its captions. Document frequencies are those of the training set.
    """

    def __init__(self, captions: list[list[str]]):
        words = [[coco.tokenize(text) for text in texts] for texts in captions]
        self.cider = coco.CiderD(words)
        # Once, not at each step: the references never change.
        self.vectors = []
        for references in words:
            self.vectors.append([self.cider.vectors(reference) for reference in references])

    def __call__(self, text: str, image: int, without: int) -> float:
        """CIDEr-D of `text` for image number `image`, 0 to 10.

        Caption number `without` is left out: the text was made from it. It stays if the image has
        no other caption.
        """
        references = self.vectors[image]
        others = [vector for number, vector in enumerate(references) if number != without]
        return self.cider.score(coco.tokenize(text), others or references)


def self_critical_loss(
    denoise,
    tokens: Tensor,
    free: Tensor,
    sources: list[tuple[int, int]],
    reward: Reward,
    tokenizer,
    *,
    uniform: Tensor,
    rng: torch.Generator,
    share: float,
    estimator: str = "count",
    weight: str = "bound",
) -> tuple[Tensor, dict]:
    """`diffusion.loss` plus `share` times the self-critical loss, of one mask and one call.

    tokens (B, L) int64; free (B, L) bool; sources: (image number, caption number) of each row.
    uniform: (B,) noise levels. estimator, weight: as in `diffusion.loss`. Rennie et al. 2017, eq.
    8: the loss is -(reward of the drawn caption - reward of the greedy caption) · log p(drawn
    tokens). Returns the mean loss and floats: nats_per_token (the bound), masked_cross_entropy,
    reward (of the drawn captions) and greedy_reward, both CIDEr-D from 0 to 10.
    """
    corrupted = diffusion.corrupt(free, uniform, rng, estimator)
    masked = corrupted.masked
    logits = denoise(tokens.masked_fill(masked, tokenizer.mask), corrupted.share, masked)
    log_p = logits.log_softmax(-1)  # (M, V'), for the M masked tokens
    row = masked.nonzero()[:, 0]  # (M,)
    nats = F.nll_loss(log_p, tokens[masked], reduction="none")
    bound, stats = diffusion.weigh(nats, corrupted.weight[row].float(), free.sum(), weight)

    def rewards_of(guess: Tensor) -> list[float]:
        """The reward of each row, its masked tokens replaced by guess (M,)."""
        filled = tokens.clone()
        filled[masked] = guess
        rows = zip(filled.tolist(), sources, strict=True)
        return [reward(tokenizer.decode(ids), *source) for ids, source in rows]

    with torch.no_grad():
        drawn = draw(log_p, rng)  # (M,)
        reward_drawn = rewards_of(drawn)
        reward_greedy = rewards_of(log_p.argmax(-1))
        # The greedy caption is the baseline, so only better draws are rewarded.
        gain = torch.tensor(
            np.subtract(reward_drawn, reward_greedy), dtype=torch.float32, device=tokens.device
        )  # (B,)
    log_p_drawn = log_p.gather(1, drawn[:, None])[:, 0]  # (M,)
    critical = -(gain[row] * log_p_drawn).sum() / free.sum()
    stats["reward"] = float(np.mean(reward_drawn))
    stats["greedy_reward"] = float(np.mean(reward_greedy))
    return bound + share * critical, stats


def draw(log_p: Tensor, rng: torch.Generator) -> Tensor:
    """A token from each row of log_p (M, V'), by Gumbel's argmax: (M,) int64.

    In float64 and with the step's own generator, so that a resumed run draws the same tokens.
    """
    exponential = torch.empty(log_p.shape, dtype=torch.float64).exponential_(generator=rng)
    gumbel = -exponential.log().to(log_p.device)
    return (log_p.double() + gumbel).argmax(-1)
