"""Captions as other programs and people read them: JSON lines, COCO results, a gallery."""

import json
import re
from pathlib import Path

from base import files, images
from caption.writer import Caption
from worlds import judge
from worlds.scenes import scene_from_dict


def row(path: str, record: dict, caption: Caption) -> dict:
    """A line of --json: the image, its caption, the bound in nats per token, and the calls."""
    return {
        "image": path,
        "caption": caption.text,
        "bound": round(caption.bound, 4),
        "calls": caption.calls,
        "references": record.get("captions", []),
    }


def write_rows(path: str, rows: list[dict]) -> None:
    """Write one JSON object per line, whole or not at all."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    files.write_text(path, "".join(lines))


def read_rows(path: str | None) -> list[dict]:
    """The lines of an earlier, stopped run with the same --json."""
    if not path or not Path(path).exists():
        return []
    rows = []
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:  # the line that a kill cut short, or the end
            break
    return rows


def write_coco(path: str, rows: list[dict]) -> None:
    """COCO's results file: a list of image_id and caption."""
    results = []
    for row in rows:
        # COCO's tools match captions by id. An image's id is the last number in its name:
        # COCO_val2014_000000000042.jpg is 42.
        numbers = re.findall(r"\d+", Path(row["image"]).stem)
        results.append({"image_id": int(numbers[-1]) if numbers else 0, "caption": row["caption"]})
    with files.replacing(path, "w") as file:
        json.dump(results, file)


def gallery_item(path: str, record: dict, image, caption: Caption, tokenizer) -> dict:
    """What the gallery page shows of an image."""
    # These three are layout, not text.
    hidden = (tokenizer.bos, tokenizer.eos, tokenizer.pad)
    shown = [i for i, id in enumerate(caption.ids) if id not in hidden]
    verdict = None
    if record.get("scene"):
        judged = judge.judge(caption.text, scene_from_dict(record["scene"]))
        notes = [f"not so: {words}" for words in judged["false"]]
        verdict = {"truthful": judged["truthful"], "exact": judged["exact"], "notes": notes}
    return {
        "image": images.data_uri(image),
        "name": f"{record.get('split', '')} {Path(path).name}".strip(),
        "caption": caption.text,
        "pieces": [tokenizer.piece(caption.ids[i]) for i in shown],
        "step": [caption.step[i] for i in shown],
        "probability": [caption.probability[i] for i in shown],
        "score": -caption.bound,
        "references": record.get("captions", []),
        "verdict": verdict,
    }
