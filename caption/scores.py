"""How good a captioner is, by split, against steps, beside a blind run and the twin (floor 2).

Captions of drawn scenes are judged by truth; captions of photographs by BLEU, ROUGE-L and CIDEr-D
against their references.
"""

import itertools
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from base import metrics
from base.config import SampleConfig
from base.files import UserError
from caption import clip as caption_clip
from caption import coco, probe, truth, writer
from caption.data import CaptionData, Texts, image_path
from loop import distributed
from net import twin as net_twin
from net.samplers import row_generators, sample

SCENE_COLUMNS = (
    "truthful",
    "set_exact",
    "grammatical",
    "colour_accuracy",
    "shape_accuracy",
    "size_accuracy",
    "fill_accuracy",
    "place_accuracy",
    "relation_accuracy",
    "count_accuracy",
    "object_recall",
    "hallucination",
)
PHOTO_COLUMNS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "distinct_captions")


def judge(texts: list[str], records: list[dict], on: str) -> dict:
    """Figures of captions: their truth where the scenes are known, else their likeness to the
    references.

    on: whose they are, for the signature.
    """
    if records[0].get("scene"):
        return truth.truth(texts, records)
    found = coco.scores(texts, [record["captions"] for record in records], on)
    return {
        **{key: value for key, value in found.items() if key != "cider_each"},
        "distinct_captions": len(set(texts)) / len(texts),
    }


def more_figures(clip_name: str | None, meteor_spice: bool, device, encoder: str | None = None):
    """The scores that are asked for by flag: a function of captions, their references and their
    pictures to figures by name.

    encoder: what the captioner reads its features with, which should be no judge of it.
    """
    if clip_name and clip_name == encoder:
        distributed.say(
            f"note: the captioner reads features of {clip_name}: another CLIP is a fairer judge"
        )
    clip = caption_clip.ClipScore(clip_name, device) if clip_name else None

    def more(texts: list[str], references: list[list[str]], pictures: list) -> dict:
        result = coco.meteor_spice(texts, references) if meteor_spice else {}
        for name, each in (clip.each(pictures, texts, references) if clip else {}).items():
            result |= {
                name: float(each.mean()),
                f"{name}_ci95": metrics.ratio_interval(each, np.ones(len(each))),
                "clip": clip.name,
            }
        return result

    return more


def by_objects(texts: list[str], records: list[dict]) -> dict[str, dict]:
    """Truth by the number of objects in the scene."""
    sizes = [len(record["scene"]["objects"]) for record in records]
    pick = lambda values, size: [value for value, n in zip(values, sizes, strict=True) if n == size]
    return {
        str(size): truth.truth(pick(texts, size), pick(records, size))
        for size in sorted(set(sizes))
    }


def caption_all(
    model,
    tokenizer,
    saved: dict,
    data: CaptionData,
    settings: SampleConfig,
    *,
    blind: bool = False,
    guidance: float = 1.0,
    rerank: int = 1,
    seed: int = 0,
    batch_size: int = 0,
    name: str = "",
    **reranking,
) -> tuple[list[str], float]:
    """A caption for every image of a split, and the mean number of denoiser calls. Under torchrun
    each process writes its share.

    blind: the model sees no image. batch_size: 0 is as many as suit the device. name: what the
    bar says is being captioned. reranking: `choose` and `penalty` of `captioning.best_of`.
    """
    if not batch_size:  # larger on a GPU, a choice that was not measured; never so large that a process of torchrun's has nothing
        most = 64 if model.device.type == "cpu" else 512 // rerank
        batch_size = max(1, min(most, -(-len(data) // distributed.world())))

    def batch(first: int) -> list[tuple[str, int]]:
        numbers = np.arange(first, min(first + batch_size, len(data)))
        seen = writer.standardise(data.features_of(numbers), saved["statistics"], model.device) * (
            0.0 if blind else 1.0
        )
        if rerank > 1 and saved["objective"] == "diffusion":
            written = writer.best_of(
                model,
                tokenizer,
                seen,
                settings,
                rerank,
                guidance=guidance,
                seed=seed,
                first=first,
                **reranking,
            )
        else:
            written = writer.write(
                model,
                tokenizer,
                saved["objective"],
                seen,
                settings,
                guidance=guidance,
                seed=seed,
                first=first,
            )
        return [(one.text, one.calls) for one in written]

    bar = lambda some: tqdm(some, name, unit="batch", leave=False, disable=not distributed.leads())
    texts, calls = zip(
        *sum(distributed.shared(range(0, len(data), batch_size), batch, bar), []), strict=True
    )
    return list(texts), float(np.mean(calls))


def swap_scores(
    model, tokenizer, saved: dict, data: CaptionData, *, draws: int = 16, batch_size: int = 100
) -> dict:
    """Winoground's three scores (arXiv 2204.03162) by the bound, on pairs of pictures whose
    captions have the same words.

    text: each picture prefers its own caption. image: each caption prefers its own picture.
    group: both.
    """

    def bounds(one: tuple[int, int, np.ndarray]) -> np.ndarray:
        picture, caption, part = one
        seen = writer.standardise(
            data.features_of(2 * part + picture), saved["statistics"], model.device
        )
        words = [
            tokenizer.encode(data.records[2 * n + caption]["captions"][0]).tolist() for n in part
        ]  # whatever the data's tokenizer
        texts = [
            [tokenizer.bos, *one[: model.config.max_length - 2], tokenizer.eos] for one in words
        ]
        return writer.bounds(
            model, tokenizer, saved["objective"], seen, texts, draws=draws, seed=int(part[0])
        )

    rows = np.arange(len(data) // 2)
    cells = list(
        itertools.product(range(2), range(2), np.array_split(rows, -(-len(rows) // batch_size)))
    )
    nats = np.zeros((2, 2, len(rows)))  # [picture, caption, pair]
    for (picture, caption, part), values in zip(
        cells, distributed.shared(cells, bounds), strict=True
    ):
        nats[picture, caption, part] = values
    text = (nats[0, 0] < nats[0, 1]) & (nats[1, 1] < nats[1, 0])
    image = (nats[0, 0] < nats[1, 0]) & (nats[1, 1] < nats[0, 1])
    group, n = text & image, len(data) // 2
    return {
        "pairs": n,
        **{
            name: float(value.mean())
            for name, value in (("text", text), ("image", image), ("group", group))
        },
        "group_ci95": metrics.share_interval(int(group.sum()), n),
    }


@torch.no_grad()
def infilling(
    model, tokenizer, saved: dict, data: CaptionData, *, seed: int = 0, batch_size: int = 64
) -> dict:
    """Of a human caption a span of 1, 2 or 4 tokens is hidden, and filled with the likeliest
    tokens, surest first.

    {span: exact matches and token F1, with 95% intervals over images}. The diffusion model sees
    the words on both sides; the twin only those to the left. Both are told how many tokens are
    missing.
    """

    def batch(item: tuple[int, int]) -> list[tuple[list[int], list[int]]]:
        length, first = item
        numbers = [
            n
            for n in range(first, min(first + batch_size, len(data)))
            if len(data.tokens[n][0]) >= length + 2
        ]
        whole = [data.tokens[n][0].tolist() for n in numbers]
        starts = [
            int(np.random.default_rng((seed, n, length)).integers(1, len(ids) - length))
            for n, ids in zip(numbers, whole, strict=True)
        ]
        seen = writer.standardise(data.features_of(numbers), saved["statistics"], model.device)
        filled = (left_to_right if saved["objective"] == "ar" else both_sides)(
            seen, whole, starts, length, first
        )
        return [
            (one, ids[start : start + length])
            for one, ids, start in zip(filled, whole, starts, strict=True)
        ]

    def both_sides(
        seen, whole: list[list[int]], starts: list[int], length: int, first: int
    ) -> list[list[int]]:
        rows = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(ids) for ids in whole], batch_first=True, padding_value=tokenizer.pad
        )
        for row, start in zip(rows, starts, strict=True):
            row[start : start + length] = tokenizer.mask
        sizes = torch.tensor([len(ids) for ids in whole], device=model.device)
        drawn = sample(
            model.bind(sizes, model.keys_values(seen)),
            rows.to(model.device),
            SampleConfig(sampler="confidence", steps=length, temperature=0.0),
            mask_id=tokenizer.mask,
            rngs=row_generators(seed, len(rows), first),
        )
        return [
            row[start : start + length].tolist()
            for row, start in zip(drawn.tokens, starts, strict=True)
        ]

    def left_to_right(
        seen, whole: list[list[int]], starts: list[int], length: int, first: int
    ) -> list[list[int]]:
        filled: list = [None] * len(whole)
        for start in set(starts):
            rows = [row for row, at in enumerate(starts) if at == start]
            prompt = torch.tensor([whole[row][:start] for row in rows], device=model.device)
            drawn = net_twin.sample(
                model,
                prompt,
                start + length,
                eos=tokenizer.eos,
                pad=tokenizer.pad,
                temperature=0.0,
                rngs=row_generators(seed, len(rows)),
                condition=model.keys_values(seen[rows]),
            )
            for row, ids in zip(rows, drawn.tokens[:, start:].tolist(), strict=True):
                filled[row] = ids
        return filled

    result = {}
    for length in (1, 2, 4):
        pairs = sum(
            distributed.shared(
                [(length, first) for first in range(0, len(data), batch_size)], batch
            ),
            [],
        )
        exact, scores = (
            [mine == his for mine, his in pairs],
            np.array([metrics.overlap(mine, his) for mine, his in pairs]),
        )
        result[length] = {
            "blanks": len(pairs),
            "exact": float(np.mean(exact)),
            "exact_ci95": metrics.share_interval(sum(exact), len(exact)),
            "token_f1": float(scores.mean()),
            "token_f1_ci95": metrics.ratio_interval(scores, np.ones(len(scores))),
        }
    return result


def check_features(data: CaptionData, saved: dict) -> None:
    """Refuse a folder whose features are not those that the model was trained on."""
    if data.encoder["key"] != saved["encoder"]["key"]:
        raise UserError(
            f"features of {data.encoder['encoder']} ({data.encoder['key']}) in {data.folder}",
            f"those that the model was trained on ({saved['encoder']['key']})",
            "name another --data_dir",
        )


@torch.no_grad()
def to_rate(
    model,
    tokenizer,
    saved: dict,
    folder,
    split: str,
    settings: SampleConfig,
    number: int,
    *,
    twin: tuple | None = None,
    seed: int = 0,
    **options,
) -> list[dict]:
    """`number` images of a split, drawn by the seed, with what `ratings.compose` needs: name,
    picture, references, captions of model and twin."""
    data = CaptionData(folder, split)
    check_features(data, saved)
    some = sorted(np.random.default_rng(seed).permutation(len(data))[:number])
    data.rows, data.records = data.rows[some], [data.records[i] for i in some]
    data.texts = Texts([data.tokens[i] for i in some], tokenizer.pad)
    captions = {
        "model": caption_all(
            model, tokenizer, saved, data, settings, seed=seed, name=split, **options
        )[0]
    }
    if twin:
        captions["twin"] = caption_all(*twin, data, settings, seed=seed, name=f"twin, {split}")[0]
    return [
        {
            "name": f"{split} {Path(record['image']).name}",
            "picture": image_path(folder, record),
            "references": record["captions"],
            "captions": {source: texts[i] for source, texts in captions.items()},
        }
        for i, record in enumerate(data.records)
    ]


@torch.no_grad()
def report(
    model,
    tokenizer,
    saved: dict,
    folder,
    splits: list[str],
    settings: SampleConfig,
    step_counts: list[int],
    *,
    twin: tuple | None = None,
    guidance: float = 1.0,
    probe_steps: int = 0,
    infill: bool = False,
    seed: int = 0,
    more=None,
    **reranking,
) -> dict:
    """All figures: {"splits": {split: figures}, "steps": [figures on val], "blind": …, "twin":
    {split: …}, "objects": {split: {number: figures}}, "swap": …, "twin_swap": …, "probe": {split:
    …}, "infilling": {span: …}, "twin_infilling": …}.

    reranking: `rerank`, `choose` and `penalty`, as `caption_all` takes them; the curve against
    steps goes without. more: a function of captions, references and pictures, whose figures stand
    beside those of the splits. Under torchrun these and the probe are rank 0's alone."""
    result: dict = {
        "splits": {},
        "steps": [],
        "objective": saved["objective"],
        "settings": {
            "sampler": settings.sampler,
            "steps": settings.steps,
            "temperature": settings.temperature,
            "guidance": guidance,
            **reranking,
        },
    }
    loaded = {split: CaptionData(folder, split) for split in dict.fromkeys([*splits, "val"])}
    val, options = loaded["val"], {"guidance": guidance, "seed": seed}
    check_features(val, saved)
    drawn = bool(val.records[0].get("scene"))

    def judged(texts, split, figures=None):
        records, on = loaded[split].records, f"{Path(folder).name}/{split}"
        pictures = [image_path(folder, record) for record in records]
        return judge(texts, records, on) | (
            figures(texts, [record["captions"] for record in records], pictures)
            if figures and distributed.leads()
            else {}
        )

    if probe_steps and not drawn:
        raise UserError(
            f"--probe_steps {probe_steps} on photographs",
            "drawn scenes, whose objects are known",
            "drop --probe_steps",
        )
    for split in splits:
        clock = time.perf_counter()
        texts, calls = caption_all(
            model, tokenizer, saved, loaded[split], settings, name=split, **reranking, **options
        )
        seconds = time.perf_counter() - clock
        result["splits"][split] = judged(texts, split, more) | {"calls": calls, "seconds": seconds}
        if drawn and split in ("val", "long"):
            result.setdefault("objects", {})[split] = by_objects(texts, loaded[split].records)
        if twin:
            result.setdefault("twin", {})[split] = judged(
                caption_all(*twin, loaded[split], settings, seed=seed, name=f"twin, {split}")[0],
                split,
                more,
            )
        if split == "swap":
            result["swap"] = swap_scores(model, tokenizer, saved, loaded[split])
            if twin:
                result["twin_swap"] = swap_scores(*twin, loaded[split])
    blind, _ = caption_all(
        model, tokenizer, saved, val, settings, blind=True, seed=seed, name="blind, val"
    )
    result["blind"] = judged(blind, "val")
    if saved["objective"] == "diffusion":
        for steps in step_counts:
            few = SampleConfig(**{**vars(settings), "steps": steps})
            texts, calls = caption_all(
                model, tokenizer, saved, val, few, name=f"val, {steps} steps", **options
            )
            result["steps"].append({"steps": steps, "calls": calls} | judged(texts, "val"))
    if infill:
        result["infilling"] = infilling(model, tokenizer, saved, val, seed=seed)
        result |= {"twin_infilling": infilling(*twin, val, seed=seed)} if twin else {}
    if probe_steps and distributed.leads():
        with torch.enable_grad():
            result["probe"] = probe.ceiling(folder, splits, probe_steps, seed=seed)
    return result


def table(result: dict) -> list[list[str]]:
    """The figures as rows of text, percent, the first row the header."""
    columns = SCENE_COLUMNS if "truthful" in result["blind"] else PHOTO_COLUMNS
    columns += tuple(
        name
        for name in ("meteor", "spice", "clip_score", "ref_clip_score")
        if any(name in one for one in result["splits"].values())
    )
    header = ["", "images", *(name.replace("_accuracy", "").replace("_", " ") for name in columns)]
    row = lambda name, one: [
        name,
        str(one.get("images", "")),
        *(f"{100 * one[key]:.1f}" if key in one else "" for key in columns),
    ]
    rows = [row(split, one) for split, one in result["splits"].items()]
    rows += [
        row(f"{split}, {size} object{'s' * (size != '1')}", one)
        for split, sizes in result.get("objects", {}).items()
        for size, one in sizes.items()
        if len(sizes) > 1
    ]
    rows += [row(f"twin, {split}", one) for split, one in result.get("twin", {}).items()]
    rows += [row(f"probe, {split}", one) for split, one in result.get("probe", {}).items()]
    rows.append(row("blind, val", result["blind"]))
    rows += [
        row(f"val, {one['steps']} step{'s' * (one['steps'] > 1)}, {one['calls']:.1f} calls", one)
        for one in result["steps"]
    ]
    return [header, *rows]


def lines(result: dict) -> list[str]:
    """The table, what the figures of photographs rest on, and the scores of swapped pairs, to
    print."""
    return [
        metrics.markdown(table(result)),
        *signatures(result),
        *(
            f"{key}: "
            + "  ".join(
                f"{name} {100 * result[key][name]:.1f}" for name in ("text", "image", "group")
            )
            for key in ("swap", "twin_swap")
            if key in result
        ),
        *(
            f"{key} of {span} tokens: exact {100 * one['exact']:.1f}  token F1 {100 * one['token_f1']:.1f}"
            for key in ("infilling", "twin_infilling")
            for span, one in result.get(key, {}).items()
        ),
    ]


def signatures(result: dict) -> list[str]:
    """What the figures of photographs rest on, each said once."""
    every = [
        *result["splits"].values(),
        *result.get("twin", {}).values(),
        result["blind"],
        *result["steps"],
    ]
    return list(dict.fromkeys(one["signature"] for one in every if "signature" in one))
