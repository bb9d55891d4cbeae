"""What a trained captioner teaches another: its own captions of the training pictures, in place of people's (floor 2).

Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947), which made translators that write all words at once as good as those that write
one by one (Gu et al. 2018, arXiv 1711.02281): a picture that people describe in five ways has one caption, so words drawn in one call agree.
The captions are kept in the run folder (taught.json), where people can look at them and a resumed run finds them again.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from base import config, files, folders
from base.config import SampleConfig, TrainConfig
from base.files import UserError
from caption import writer
from caption.data import CaptionData
from loop import checkpoint, distributed, hardware

FILE = "taught.json"
ROWS = {
    "cpu": 128,
    "cuda": 1024,
    "mps": 128,
}  # pictures at once; larger batches on a GPU are a choice, not measured


@torch.no_grad()
def tell(
    model, tokenizer, saved: dict, split: CaptionData, settings: SampleConfig, seed: int = 0
) -> list[str]:
    """What a captioner writes for each picture, from its features; under torchrun each process writes a share."""
    seen = lambda part: writer.standardise(split.images(part), saved["statistics"], model.device)  # noqa: E731
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


def teach(
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
        theirs, mine = saved["encoder"], splits[0].encoder
        if theirs["key"] != mine["key"]:
            raise UserError(
                f"{path}, which reads features of {theirs['encoder']} with key {theirs['key']}",
                f"{mine['encoder']}, {mine['key']}",
                "name a teacher that was trained on features of this encoder",
            )
        settings = SampleConfig(
            **config.CAPTIONS | ({"revise": 1} if saved["objective"] == "diffusion" else {})
        )
        precision, _ = hardware.choose_precision(cfg.precision, device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            told = {
                one.split: tell(model, tokenizer, saved, one, settings, cfg.seed) for one in splits
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
