"""Captions as other programs and people read them: JSON lines, COCO results, a gallery."""

import json
import os
import re
import sys
from pathlib import Path

from base import files, images
from caption import truth
from caption.writer import Caption
from show import pages


def row(path: str, record: dict, caption: Caption, tokenizer) -> dict:
    """A line of --json: the image, its caption, the bound in nats per token, and the calls.

    unmasking: the pieces of the caption, the call that wrote each piece (0: given), and its
    probability, which a gallery plays.
    """
    # These three are layout, not text.
    hidden = (tokenizer.bos, tokenizer.eos, tokenizer.pad)
    shown = [i for i, id in enumerate(caption.ids) if id not in hidden]
    return {
        "image": path,
        "caption": caption.text,
        "bound": round(caption.bound, 4),
        "calls": caption.calls,
        "references": record.get("captions", []),
        "unmasking": {
            "pieces": [tokenizer.piece(caption.ids[i]) for i in shown],
            "step": [caption.step[i] for i in shown],
            "probability": [round(caption.probability[i], 4) for i in shown],
        },
    }


def write_rows(path: str, rows: list[dict]) -> None:
    """Write one JSON object per line, whole or not at all."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    files.write_text(path, "".join(lines))


def write_coco(path: str, rows: list[dict]) -> None:
    """COCO's results file, a list of image_id and caption; stderr says what the ids are."""
    ids, kind = coco_ids([row["image"] for row in rows])
    results = [{"image_id": ids[row["image"]], "caption": row["caption"]} for row in rows]
    with files.replacing(path, "w") as file:
        json.dump(results, file)
    print(f"wrote {path}: image_id is {kind}", file=sys.stderr)


def coco_ids(paths: list[str]) -> tuple[dict[str, int | str], str]:
    """({path: id}, what the ids are): different images have different ids.

    COCO's tools match captions by id, and an image's id is the number at the end of its name:
    COCO_val2014_000000000042.jpg is 42. If an image has no such number, or two images have the
    same, all ids are names: the file's name, or its path if two files have the same name.
    """
    different = list(dict.fromkeys(paths))
    numbers = {path: last_number(Path(path).stem) for path in different}
    owners: dict[int | None, str] = {}
    for path, number in numbers.items():
        if number is None:
            return names_as_ids(different, f"{path} has no number at the end of its name")
        if owners.setdefault(number, path) != path:
            return names_as_ids(different, f"{owners[number]} and {path} share the number {number}")
    return dict(numbers), "the number at the end of the file's name"


def last_number(stem: str) -> int | None:
    """The number at the end of a file's name, 42 in COCO_val2014_000000000042 and in p42.

    693b08cb05 ends in no number: its last part has other letters before the 05.
    """
    last = re.split(r"[^A-Za-z0-9]+", stem)[-1]
    number = re.fullmatch(r"[A-Za-z]*([0-9]{1,18})", last)
    return int(number[1]) if number else None


def names_as_ids(paths: list[str], reason: str) -> tuple[dict[str, int | str], str]:
    """`coco_ids` of names."""
    names = {path: Path(path).name for path in paths}
    if len(set(names.values())) == len(names):
        return dict(names), f"the file's name, because {reason}"
    # From absolute paths: a relative path may begin with "..".
    root = os.path.commonpath([os.path.abspath(Path(path).parent) for path in paths])
    inside = {path: Path(os.path.relpath(path, root)).as_posix() for path in paths}
    return dict(inside), f"the file's path inside {root}, because {reason}"


def gallery_item(line: dict, record: dict, image) -> dict:
    """What the gallery page shows of an image. line: of --json, as `row` makes it."""
    verdict = None
    if truth.is_drawn(record):
        judged = truth.verdict(line["caption"], record)
        notes = [f"not so: {words}" for words in judged["false"]]
        verdict = {"truthful": judged["truthful"], "exact": judged["exact"], "notes": notes}
    is_clip = isinstance(image, list)
    return {
        "image": images.data_uri(images.side_by_side(image) if is_clip else image),
        "name": f"{record.get('split', '')} {Path(line['image']).name}".strip(),
        "caption": line["caption"],
        **line["unmasking"],
        "score": -line["bound"],
        "references": line["references"],
        "verdict": verdict,
    }


def write_gallery(path: str, items: list[dict], captioner, settings, guidance) -> None:
    """The page that plays the unmasking, with the facts that the captions depend on.

    items: from `gallery_item`. captioner: has path, saved and encoder.
    """
    facts = {
        "checkpoint": captioner.path.name,
        "trained for": f"{captioner.saved['step']} steps",
        "encoder": captioner.encoder.name,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "temperature": settings.temperature,
        "guidance": guidance,
    }
    files.write_text(path, pages.gallery(items, facts))
    print(f"wrote {path}", file=sys.stderr)
