"""What a captioner learns beyond people's captions: another captioner's captions, and the score itself.

**A teacher.** Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947) made translators that write all
words at once as good as those that write one word at a time (Gu et al. 2018, arXiv 1711.02281). People describe
an image in five ways; a teacher describes it in one, so words that are drawn in one call agree. The captions are
kept in the run folder (taught.json): people can look at them, and a resumed run finds them again.

**A reward.** Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563, eq. 8) weighs the
log-probability of a drawn caption with how much better it scores than the greedy caption. A masked denoiser gives
both in one call: the drawn tokens and the likeliest tokens of the same logits, put into the same masked caption.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import diffusion
from base import config, files, folders
from base.config import SampleConfig, TrainConfig
from base.files import UserError
from caption import coco, features, writer
from caption.data import CaptionData
from loop import checkpoint, distributed, hardware

FILE = "taught.json"
ROWS = {
    "cpu": 128,
    "cuda": 1024,
    "mps": 128,
}  # pictures at once; larger batches on a GPU are a choice, not measured


@torch.no_grad()
def write_captions(
    model, tokenizer, saved: dict, split: CaptionData, settings: SampleConfig, seed: int = 0
) -> list[str]:
    """What a captioner writes for each picture, from its features; under torchrun each process writes a share."""
    seen = lambda part: writer.standardise(
        split.features_of(part), saved["statistics"], model.device
    )  # noqa: E731
    numbers = np.arange(len(split))
    if saved["objective"] == "diffusion":  # those of a length together: hardly any padding
        sizes = [
            model.length_logits(seen(part)).argmax(-1).cpu().numpy()
            for part in np.array_split(numbers, -(-len(numbers) // 512))
        ]
        numbers = np.argsort(np.concatenate(sizes), kind="stable")
    some = lambda part: [
        one.text
        for one in writer.write(
            model,
            tokenizer,
            saved["objective"],
            seen(part),
            settings,
            seed=seed,  # noqa: E731
            first=int(part[0]),
        )
    ]
    bar = lambda parts: tqdm(
        parts,
        desc=f"teacher, {split.split}",
        unit="batch",
        file=sys.stderr,
        disable=not distributed.leads(),
    )  # noqa: E731
    rows = min(ROWS[model.device.type], -(-len(split) // distributed.world()))
    told = distributed.shared(
        [numbers[first : first + rows] for first in range(0, len(numbers), rows)], some, bar
    )
    texts = dict(zip(numbers.tolist(), (text for part in told for text in part), strict=True))
    return [texts[number] for number in range(len(split))]


def use_teacher(
    splits: list[CaptionData],
    path,
    out: Path,
    max_length: int,
    device,
    cfg: TrainConfig,
    resumed: bool,
) -> None:
    """Give the pictures of these splits the captions of the captioner or twin at `path`, or, resumed, those in the run folder `out`.

    Raises UserError if it reads other tokens or features, or the folder's captions are not those of these pictures.
    """
    if resumed:
        told = files.read_json(
            out / FILE, "what the teacher wrote when the run began", "begin again without --resume"
        )
    else:
        model, tokenizer, saved = checkpoint.open_model(path, device, kinds=("caption",))
        folders.check_tokenizer(tokenizer.fingerprint, splits[0].tokenizer.fingerprint, path)
        mine = splits[0].encoder
        features.check_encoder(mine["encoder"], mine["key"], saved, path)
        settings = SampleConfig(
            **config.CAPTIONS | ({"revise": 1} if saved["objective"] == "diffusion" else {})
        )
        precision, _ = hardware.choose_precision(cfg.precision, device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            told = {
                one.split: write_captions(model, tokenizer, saved, one, settings, cfg.seed)
                for one in splits
            }
        if distributed.leads():
            files.write_json(out / FILE, told)
    for one in splits:
        texts = told.get(one.split)
        if (
            not isinstance(texts, list)
            or len(texts) != len(one)
            or not all(isinstance(text, str) for text in texts)
        ):
            raise UserError(
                f"other captions for {one.split} in {out / FILE}",
                f"one for each of its {len(one)}",
                "begin again without --resume",
            )
        one.retell(texts, max_length)


class Reward:
    """CIDEr-D against an image's training captions, document frequencies those of the training set."""

    def __init__(self, captions: list[list[str]]):
        words = [[coco.tokenize(text) for text in texts] for texts in captions]
        self.cider = coco.CiderD(words)
        self.vectors = [[self.cider.vectors(one) for one in texts] for texts in words]

    def __call__(self, text: str, image: int, without: int) -> float:
        """0 to 10. Caption number `without` is no reference, for it is what the text was made from; unless it is the only one."""
        others = [one for number, one in enumerate(self.vectors[image]) if number != without]
        return self.cider.score(coco.tokenize(text), others or self.vectors[image])


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
    """`diffusion.loss`, plus `share` times the self-critical loss, of one corruption and one call.

    tokens (B, L), free (B, L) bool; sources: image and caption number of each row. uniform: (B,) noise levels. estimator, weight: as in
    `diffusion.loss`. Returns the mean loss and floats: the bound (`nats_per_token`), `masked_cross_entropy`, `reward` of what was drawn
    and `greedy_reward`, CIDEr-D from 0 to 10.
    """
    drawn = diffusion.corrupt(free, uniform, rng, estimator)
    log_p = denoise(
        tokens.masked_fill(drawn.masked, tokenizer.mask), drawn.share, drawn.masked
    ).log_softmax(-1)  # (M, V')
    row = drawn.masked.nonzero()[:, 0]
    nats = F.nll_loss(log_p, tokens[drawn.masked], reduction="none")
    value, stats = diffusion.weigh(nats, drawn.weight[row].float(), free.sum(), weight)
    with torch.no_grad():
        # Gumbel's argmax in float64 with the step's own generator: a resumed run draws the same.
        noise = (
            -torch.empty(log_p.shape, dtype=torch.float64)
            .exponential_(generator=rng)
            .log()
            .to(log_p.device)
        )
        guesses = (log_p.double() + noise).argmax(-1), log_p.argmax(-1)
        scores = []
        for guess in guesses:
            filled = tokens.clone()
            filled[drawn.masked] = guess
            scores.append(
                [
                    reward(tokenizer.decode(ids), *source)
                    for ids, source in zip(filled.tolist(), sources, strict=True)
                ]
            )
        gain = torch.tensor(np.subtract(*scores), dtype=torch.float32, device=tokens.device)  # (B,)
    critical = -(gain[row] * log_p.gather(1, guesses[0][:, None])[:, 0]).sum() / free.sum()
    means = {
        name: float(np.mean(values))
        for name, values in zip(("reward", "greedy_reward"), scores, strict=True)
    }
    return value + share * critical, {**stats, **means}
