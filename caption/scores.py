"""How good a captioner is: by split, against denoiser calls, compared with its twin and blind.

Captions of drawn scenes are judged by truth. Captions of photographs are judged by BLEU, ROUGE-L
and CIDEr-D against their references. A blind run sees features that are all zero.
"""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from base import flags
from base.config import CAPTIONS, CHOOSE, SampleConfig
from base.files import UserError
from base.flags import check, numbers, setting, unknown
from caption import coco, moving, probe, score_table, store, store_scores, writer
from caption.data import CaptionData, Texts, image_path, read_meta
from caption.infilling import infilling
from caption.judging import Judge, by_objects, more_figures
from caption.swaps import swap_scores
from loop import checkpoint, distributed, progress
from net import retrieval
from show import plots, ratings


@dataclass
class Choosing:
    """How the caption of an image is chosen."""

    guidance: float = setting(1.0, "away from the blind model; 1 is none")
    rerank: int = setting(1, "write captions of this many lengths and keep the best", at_least=1)
    choose: str = setting(
        "bound", "keep the likeliest caption, or the one most like the others", choices=CHOOSE
    )
    penalty: float = setting(0.5, "weight of the blind model's bound in reranking")


@dataclass
class CaptionScoring(Choosing, store.StoreChoice):
    """How a captioner is scored."""

    data_dir: str = setting("data_captions_synthetic", "folder of a prep script", metavar="FOLDER")
    splits: str | None = setting(
        None, "splits with commas between them; none: all but train (of --references: test)"
    )
    samplers: str = setting(CAPTIONS["sampler"], "how to draw: one sampler")
    step_counts: str = setting("16,64", "denoiser calls: numbers with commas between them")
    twin: str | None = setting(
        None, "the twin's checkpoint, which is scored too", metavar="CHECKPOINT"
    )
    probe_steps: int = setting(
        0, "train a probe of the features for this many steps, a ceiling; 0: none", at_least=0
    )
    infill: bool = setting(False, "hide spans of human captions, and compare what fills them")
    clip_score: str | None = setting(
        None, "CLIPScore and RefCLIPScore by this CLIP: a hub name or a folder", metavar="CLIP"
    )
    meteor_spice: bool = setting(False, "METEOR and SPICE too; needs pycocoevalcap and Java")
    rate: str | None = setting(
        None, "write a page on which people rate the captions, blind", metavar="PAGE"
    )
    num_samples: int = setting(32, "samples per cell of the grid, prompts or images", at_least=1)
    picture: str | None = setting(None, "draw the figures into this PNG", metavar="FILE")

    def __post_init__(self):
        check(self)
        numbers("step_counts", self.step_counts)


def score(opened: tuple, options: CaptionScoring, settings: SampleConfig, seed: int) -> dict:
    """The figures of a captioner, which are printed too; or with --rate a page to rate them on.

    opened: (model, tokenizer, rest) of `checkpoint.open_model`. settings: how captions are written.
    """
    model, _, saved = opened
    if options.meteor_spice:
        coco.need_java()
    splits = splits_of(options)
    if saved["objective"] == "ar" and (options.guidance != 1 or options.rerank > 1):
        raise UserError(
            f"--guidance {options.guidance} --rerank {options.rerank} for a twin",
            "neither",
            "drop them: they are the diffusion model's",
        )
    twin = open_twin(options.twin, saved, model.device) if options.twin else None
    settings = replace(settings, sampler=options.samplers)
    if options.rate:
        shown = to_rate(opened, options, splits[0], settings, twin, seed)
        return ratings.write(options.rate, shown, seed) if distributed.leads() else {}
    result = report(opened, options, splits, settings, twin, seed)
    for line in score_table.lines(result):
        distributed.say(line, file=sys.stdout)
    if options.picture and distributed.leads():
        plots.caption_steps(options.picture, result)
    return result


def splits_of(options) -> list[str]:
    """The splits to score, by options.data_dir and options.splits.

    Raises UserError on an unknown split, and on train.
    """
    # A score on the training images would say nothing about new images.
    known = [name for name in read_meta(options.data_dir)["splits"] if name != "train"]
    splits = options.splits.split(",") if options.splits else known
    for name in splits:
        if name not in known:
            raise unknown(f"--splits {name}", name, known)
    return splits


def open_twin(path: str, saved: dict, device, kinds: tuple[str, ...] = ("caption",)) -> tuple:
    """The twin as `checkpoint.open_model` gives it. Raises UserError if it reads other features."""
    twin = checkpoint.open_model(path, device, kinds=kinds)
    # A twin with other features would compare encoders, not objectives.
    if twin[2]["encoder"] != saved["encoder"]:
        raise UserError(
            f"{path} on other features",
            "the features of the checkpoint",
            "train both on one folder",
        )
    return twin


def check_features(data: CaptionData, saved: dict) -> None:
    """Refuse a folder whose features are not those that the model was trained on."""
    if data.encoder["key"] != saved["encoder"]["key"]:
        raise UserError(
            f"features of {data.encoder['encoder']} ({data.encoder['key']}) in {data.folder}",
            f"those that the model was trained on ({saved['encoder']['key']})",
            "name another --data_dir",
        )


def caption_all(
    opened: tuple,
    data: CaptionData,
    settings: SampleConfig,
    choosing: Choosing | None = None,
    *,
    blind: bool = False,
    orders: moving.Orders | None = None,
    seed: int = 0,
    batch_size: int = 0,
    name: str = "",
) -> tuple[list[str], float]:
    """A caption for every image of a split, and the mean number of denoiser calls per caption.

    choosing: None is plain. blind: the model sees no image. orders: of the frames of clips; None
    keeps them. batch_size: 0 suits the device.
    name: of the progress bar. Under torchrun each process writes its share.
    """
    model, tokenizer, saved = opened
    choosing = choosing or Choosing()
    if not batch_size:
        # 512 on a GPU was not measured. Every process of torchrun gets at least one batch.
        most = 64 if model.device.type == "cpu" else 512 // choosing.rerank
        batch_size = max(1, min(most, -(-len(data) // distributed.world())))

    def batch(first: int) -> list[tuple[str, int]]:
        numbers = np.arange(first, min(first + batch_size, len(data)))
        raw = moving.in_order(data, numbers, orders)
        features = store.look(model, tokenizer, saved["statistics"], data, numbers, raw)
        if blind:
            features = retrieval.blind(features)
        how = {"guidance": choosing.guidance, "seed": seed, "first": first}
        if choosing.rerank > 1 and saved["objective"] == "diffusion":
            how |= {"choose": choosing.choose, "penalty": choosing.penalty}
            written = writer.best_of(model, tokenizer, features, settings, choosing.rerank, **how)
        else:
            written = writer.write(model, tokenizer, saved["objective"], features, settings, **how)
        return [(caption.text, caption.calls) for caption in written]

    def bar(items):
        return progress.bar(items, name, unit="batch", leave=False)

    captions = sum(distributed.shared(range(0, len(data), batch_size), batch, bar), [])
    texts, calls = zip(*captions, strict=True)
    return list(texts), float(np.mean(calls))


@torch.no_grad()
def to_rate(
    opened: tuple,
    options: CaptionScoring,
    split: str,
    settings: SampleConfig,
    twin: tuple | None,
    seed: int,
) -> list[dict]:
    """Images of a split, drawn by the seed, as `ratings.write` takes them.

    Each has its name, the path of its picture, its references, and the captions of model and twin.
    """
    data = store.open_splits(options, [split], seed, *filter(None, (opened, twin)))[split]
    check_features(data, opened[2])
    # Drawn, not the first: neighbours in a folder of photographs may be alike.
    order = np.random.default_rng(seed).permutation(len(data))
    chosen = sorted(order[: options.num_samples])
    data.rows, data.records = data.rows[chosen], [data.records[i] for i in chosen]
    data.texts = Texts([data.tokens[i] for i in chosen], data.tokenizer.pad)
    captions = {"model": caption_all(opened, data, settings, options, seed=seed, name=split)[0]}
    if twin:
        name = f"twin, {split}"
        captions["twin"] = caption_all(twin, data, settings, seed=seed, name=name)[0]
    shown = []
    for number, record in enumerate(data.records):
        shown.append(
            {
                "name": f"{split} {Path(record['image']).name}",
                "picture": image_path(options.data_dir, record),
                "references": record["captions"],
                "captions": {source: texts[number] for source, texts in captions.items()},
            }
        )
    return shown


@torch.no_grad()
def report(
    opened: tuple,
    options: CaptionScoring,
    splits: list[str],
    settings: SampleConfig,
    twin: tuple | None,
    seed: int,
) -> dict:
    """All figures by name, in this order and only where they apply:

    splits {split: figures}; steps, figures on val against calls; objective; settings; objects
    {split: {number: figures}}; twin {split: figures}; swap… of each such split, of clips with one
    frame too; twin_swap…; blind; controls {name: figures} of clips; stores {name: figures} with
    retrieval; infilling {span: figures}; twin_infilling; probe {split: figures}.
    """
    model, _, saved = opened
    result: dict = {"splits": {}, "steps": [], "objective": saved["objective"]}
    chosen = {name: getattr(options, name) for name in ("guidance", "rerank", "choose", "penalty")}
    result["settings"] = flags.to_dict(settings) | chosen
    loaded = store.open_splits(options, [*splits, "val"], seed, *filter(None, (opened, twin)))
    val = loaded["val"]
    check_features(val, saved)
    if options.probe_steps and not val.records[0].get("scene"):
        found = f"--probe_steps {options.probe_steps} on photographs or clips"
        raise UserError(found, "drawn scenes, whose objects are known", "drop --probe_steps")
    encoder = saved["encoder"]["encoder"]
    more = more_figures(options.clip_score, options.meteor_spice, model.device, encoder)
    judged = Judge(options.data_dir, loaded, more)
    for split in splits:
        add_split(result, opened, twin, judged, split, settings, options, seed)
    # What a captioner knows without an image is the floor of every figure.
    texts, _ = caption_all(opened, val, settings, blind=True, seed=seed, name="blind, val")
    result["blind"] = judged(texts, "val")
    if writer.frames_of(saved) > 1:
        result["controls"] = without_time(opened, val, settings, seed)
    if model.config.retrieve and options.store_kind == "nearest":
        result["stores"] = with_stores(opened, val, settings, twin, seed)
    if saved["objective"] == "diffusion":
        result["steps"] = against_steps(opened, val, judged, settings, options, seed)
    if options.infill:
        result["infilling"] = infilling(*opened, val, seed=seed)
        if twin:
            result["twin_infilling"] = infilling(*twin, val, seed=seed)
    if options.probe_steps and distributed.leads():
        with torch.enable_grad():  # the probe is trained; the figures around it are not
            result["probe"] = probe.ceiling(
                options.data_dir, splits, options.probe_steps, seed=seed
            )
    return result


def add_split(
    result: dict,
    opened: tuple,
    twin: tuple | None,
    judged: Judge,
    split: str,
    settings: SampleConfig,
    options: CaptionScoring,
    seed: int,
) -> None:
    """Add one split to the report: the model, the twin, counts of objects, swapped pairs."""
    data = judged.splits[split]
    clock = time.perf_counter()
    texts, calls = caption_all(opened, data, settings, options, seed=seed, name=split)
    seconds = time.perf_counter() - clock
    figures = judged(texts, split, more=True)
    result["splits"][split] = figures | {"calls": calls, "seconds": seconds}
    # Only these two splits hold scenes of several sizes, with nothing held out of them.
    if split in ("val", "long") and data.records[0].get("scene"):
        result.setdefault("objects", {})[split] = by_objects(texts, data.records)
    if twin:
        texts, _ = caption_all(twin, data, settings, seed=seed, name=f"twin, {split}")
        result.setdefault("twin", {})[split] = judged(texts, split, more=True)
    if split.startswith("swap"):
        result[split] = swap_scores(*opened, data)
        frames = writer.frames_of(opened[2])
        if frames > 1:  # what the words and a still frame tell of time
            result[f"{split}, one frame"] = swap_scores(
                *opened, data, orders=moving.one_frame(frames)
            )
        if twin:
            result[f"twin_{split}"] = swap_scores(*twin, data)


def without_time(opened: tuple, val: CaptionData, settings: SampleConfig, seed: int) -> dict:
    """Figures on val with the frames of each clip in other orders, from `moving.controls`."""

    def write(orders: moving.Orders, name: str) -> list[str]:
        return caption_all(opened, val, settings, orders=orders, seed=seed, name=name)[0]

    return moving.controls(write, val.records, writer.frames_of(opened[2]), seed)


def with_stores(
    opened: tuple, val: CaptionData, settings: SampleConfig, twin: tuple | None, seed: int
) -> dict:
    """Figures on val with each kind of store, from `store_scores.controls`."""
    others = None
    if twin:
        others, _ = caption_all(twin, val, settings, seed=seed, name="twin, val")

    def write(name: str) -> list[str]:
        return caption_all(opened, val, settings, seed=seed, name=name)[0]

    return store_scores.controls(opened, val, write, others)


def against_steps(
    opened: tuple,
    val: CaptionData,
    judged: Judge,
    settings: SampleConfig,
    options: CaptionScoring,
    seed: int,
) -> list[dict]:
    """Figures on val for each number of steps, without reranking: it would multiply the calls."""
    rows = []
    for steps in numbers("step_counts", options.step_counts):
        texts, calls = caption_all(
            opened,
            val,
            replace(settings, steps=steps),
            Choosing(guidance=options.guidance),
            seed=seed,
            name=f"val, {steps} steps",
        )
        rows.append({"steps": steps, "calls": calls, **judged(texts, "val")})
    return rows
