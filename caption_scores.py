"""How good a captioner is, by split, against steps, beside a blind run and the twin (floor 2).

Captions of drawn scenes are judged by truth; captions of photographs by BLEU, ROUGE-L and CIDEr-D against their references.
"""

import time

import numpy as np
import torch
from tqdm import tqdm

import captioning
import coco_scores
import metrics
import probe
from caption_data import CaptionData
from config import SampleConfig
from files import UserError

SCENE_COLUMNS = ("truthful", "set_exact", "grammatical", "colour_accuracy", "shape_accuracy", "size_accuracy", "fill_accuracy", "place_accuracy",
                 "relation_accuracy", "count_accuracy", "object_recall", "hallucination")
PHOTO_COLUMNS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "distinct_captions")


def judge(texts: list[str], records: list[dict]) -> dict:
    """Figures of captions: their truth where the scenes are known, else their likeness to the references."""
    if records[0].get("scene"):
        return captioning.truth(texts, records)
    found = coco_scores.scores(texts, [record["captions"] for record in records])
    each = found.pop("cider_each")
    return {"images": len(texts), **found, "cider_ci95": metrics.ratio_interval(each, np.ones(len(each))),
            "distinct_captions": len(set(texts)) / len(texts)}


def by_objects(texts: list[str], records: list[dict]) -> dict[str, dict]:
    """Truth by the number of objects in the scene."""
    sizes = [len(record["scene"]["objects"]) for record in records]
    pick = lambda values, size: [value for value, n in zip(values, sizes, strict=True) if n == size]
    return {str(size): captioning.truth(pick(texts, size), pick(records, size)) for size in sorted(set(sizes))}


def caption_all(model, tokenizer, saved: dict, data: CaptionData, settings: SampleConfig, *, blind: bool = False, guidance: float = 1.0,
                rerank: int = 1, seed: int = 0, batch_size: int = 64) -> tuple[list[str], float]:
    """A caption for every image of a split, and the mean number of denoiser calls. blind: the model sees no image."""
    texts, calls = [], []
    for first in range(0, len(data), batch_size):
        numbers = np.arange(first, min(first + batch_size, len(data)))
        seen = captioning.standardise(data.images(numbers), saved["statistics"], model.device) * (0.0 if blind else 1.0)
        if rerank > 1 and saved["objective"] == "diffusion":
            written = captioning.best_of(model, tokenizer, seen, settings, rerank, guidance=guidance, seed=seed, first=first)
        else:
            written = captioning.write(model, tokenizer, saved["objective"], seen, settings, guidance=guidance, seed=seed, first=first)
        texts += [one.text for one in written]
        calls += [one.calls for one in written]
    return texts, float(np.mean(calls))


def swap_scores(model, tokenizer, saved: dict, data: CaptionData, *, draws: int = 16, batch_size: int = 100) -> dict:
    """Winoground's three scores (arXiv 2204.03162) by the bound, on pairs of pictures whose captions have the same words.

    text: each picture prefers its own caption. image: each caption prefers its own picture. group: both.
    """
    nats = np.zeros((2, 2, len(data) // 2))  # [picture, caption, pair]
    for picture in range(2):
        for caption in range(2):
            rows = np.arange(len(data) // 2)
            for part in np.array_split(rows, -(-len(rows) // batch_size)):
                seen = captioning.standardise(data.images(2 * part + picture), saved["statistics"], model.device)
                words = [tokenizer.encode(data.records[2 * n + caption]["captions"][0]).tolist() for n in part]  # whatever the data's tokenizer
                texts = [[tokenizer.bos, *one[:model.config.max_length - 2], tokenizer.eos] for one in words]
                nats[picture, caption, part] = captioning.bounds(model, tokenizer, saved["objective"], seen, texts, draws=draws, seed=int(part[0]))
    text = (nats[0, 0] < nats[0, 1]) & (nats[1, 1] < nats[1, 0])
    image = (nats[0, 0] < nats[1, 0]) & (nats[1, 1] < nats[0, 1])
    group, n = text & image, len(data) // 2
    return {"pairs": n, **{name: float(value.mean()) for name, value in (("text", text), ("image", image), ("group", group))},
            "group_ci95": metrics.share_interval(int(group.sum()), n)}


@torch.no_grad()
def report(model, tokenizer, saved: dict, folder, splits: list[str], settings: SampleConfig, step_counts: list[int], *,
           twin: tuple | None = None, guidance: float = 1.0, rerank: int = 1, probe_steps: int = 0, seed: int = 0) -> dict:
    """All figures: {"splits": {split: figures}, "steps": [figures on val], "blind": …, "twin": {split: …},
    "objects": {split: {number: figures}}, "swap": …, "twin_swap": …, "probe": {split: …}}."""
    result: dict = {"splits": {}, "steps": [], "objective": saved["objective"], "settings": {"sampler": settings.sampler, "steps": settings.steps,
                    "temperature": settings.temperature, "guidance": guidance, "rerank": rerank}}
    loaded = {split: CaptionData(folder, split) for split in dict.fromkeys([*splits, "val"])}
    val, options = loaded["val"], {"guidance": guidance, "seed": seed}
    if val.encoder["key"] != saved["encoder"]["key"]:
        raise UserError(f"features of {val.encoder['encoder']} ({val.encoder['key']}) in {folder}",
                        f"those that the model was trained on ({saved['encoder']['key']})", "name another --data_dir")
    drawn = bool(val.records[0].get("scene"))
    if probe_steps and not drawn:
        raise UserError(f"--probe_steps {probe_steps} on photographs", "drawn scenes, whose objects are known", "drop --probe_steps")
    for split in tqdm(splits, unit="split"):
        clock = time.perf_counter()
        texts, calls = caption_all(model, tokenizer, saved, loaded[split], settings, rerank=rerank, **options)
        result["splits"][split] = judge(texts, loaded[split].records) | {"calls": calls, "seconds": time.perf_counter() - clock}
        if drawn and split in ("val", "long"):
            result.setdefault("objects", {})[split] = by_objects(texts, loaded[split].records)
        if twin:
            result.setdefault("twin", {})[split] = judge(caption_all(*twin, loaded[split], settings, seed=seed)[0], loaded[split].records)
        if split == "swap":
            result["swap"] = swap_scores(model, tokenizer, saved, loaded[split])
            if twin:
                result["twin_swap"] = swap_scores(*twin, loaded[split])
    blind, _ = caption_all(model, tokenizer, saved, val, settings, blind=True, seed=seed)
    result["blind"] = judge(blind, val.records)
    if saved["objective"] == "diffusion":
        for steps in step_counts:
            few = SampleConfig(**{**vars(settings), "steps": steps})
            texts, calls = caption_all(model, tokenizer, saved, val, few, **options)
            result["steps"].append({"steps": steps, "calls": calls} | judge(texts, val.records))
    if probe_steps:
        with torch.enable_grad():
            result["probe"] = probe.ceiling(folder, splits, probe_steps, seed=seed)
    return result


def table(result: dict) -> list[list[str]]:
    """The figures as rows of text, percent, the first row the header."""
    columns = SCENE_COLUMNS if "truthful" in result["blind"] else PHOTO_COLUMNS
    header = ["", "images", *(name.replace("_accuracy", "").replace("_", " ") for name in columns)]
    row = lambda name, one: [name, str(one.get("images", "")), *(f"{100 * one[key]:.1f}" if key in one else "" for key in columns)]
    rows = [row(split, one) for split, one in result["splits"].items()]
    rows += [row(f"{split}, {size} object{'s' * (size != '1')}", one) for split, sizes in result.get("objects", {}).items()
             for size, one in sizes.items() if len(sizes) > 1]
    rows += [row(f"twin, {split}", one) for split, one in result.get("twin", {}).items()]
    rows += [row(f"probe, {split}", one) for split, one in result.get("probe", {}).items()]
    rows.append(row("blind, val", result["blind"]))
    rows += [row(f"val, {one['steps']} step{'s' * (one['steps'] > 1)}", one) for one in result["steps"]]
    return [header, *rows]
