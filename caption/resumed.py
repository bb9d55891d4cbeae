"""The lines of an earlier run with the same --json, which a later run continues.

Each line says which checkpoint wrote it, and with which settings. So a later run with another
checkpoint is refused, and does not take the old captions for its own.
"""

import json
from pathlib import Path
from typing import Any

from base import files, flags
from base.files import UserError
from caption import outputs, sources
from loop import checksums

DO = "remove it, or name another --json"
LINES = "lines that this command wrote"
# What a line must hold to be continued and shown again.
SHAPE = {"image": str, "caption": str, "bound": float, "unmasking": dict}


def made_by(model, saved: dict, settings, more: dict) -> dict[str, Any]:
    """What a line says of its origin: the checkpoint's fingerprint, and all settings.

    model, saved: from `loop.checkpoint.open_model`. settings: a SampleConfig. more: other settings.
    The fingerprint is of the weights and of what is read with them, not of the file.
    """
    content = {"weights": model.state_dict()}
    for key in ("objective", "model", "tokenizer", "statistics", "encoder"):
        content[key] = saved.get(key)
    summary = json.dumps(checksums.digests(content), sort_keys=True)
    return {
        "checkpoint": files.sha256(summary.encode()),
        "settings": flags.to_dict(settings) | more,
    }


def read_rows(path: str | None, made: dict) -> list[dict]:
    """The lines of an earlier run; none if there is no such file. A cut last line is left out.

    made: from `made_by`, for this run. Raises UserError if a line is of another checkpoint, of
    other settings, or was not written by this command.
    """
    if not path or not Path(path).exists():
        return []
    lines = files.read_text(path, LINES, DO).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and rows:  # a kill or a full disk cut it short
                return rows
            raise UserError(f"line {number} of {path}, which is not JSON", LINES, DO) from error
        check(row, number, path, made)
        rows.append(row)
    return rows


def check(row, number: int, path: str, made: dict) -> None:
    """Raise UserError unless this run may continue after a line."""
    row = row if isinstance(row, dict) else {}
    where = f"line {number} of {path}"
    if not all(isinstance(row.get(key), kind) for key, kind in SHAPE.items()):
        raise UserError(f"{where} without {', '.join(SHAPE)}", LINES, DO)
    if row.get("checkpoint") != made["checkpoint"]:
        found = f"{where} by the checkpoint {row.get('checkpoint')}"
        raise UserError(found, f"captions of {made['checkpoint']}, which is named now", DO)
    if row.get("settings") != made["settings"]:
        before = row.get("settings") if isinstance(row.get("settings"), dict) else {}
        other = [key for key in made["settings"] if before.get(key) != made["settings"][key]]
        key = other[0] if other else "settings"
        found = f"{where} with --{key} {before.get(key)}"
        raise UserError(found, f"captions with --{key} {made['settings'].get(key)}", DO)


def shown_again(rows: list[dict]) -> list[dict]:
    """The gallery's items of the rows of an earlier run; images that are gone are named."""
    items = []
    gone: list[str] = []
    for row in rows:
        for _, record, image in sources.open_images([(row["image"], {})], gone):
            items.append(outputs.gallery_item(row, record, image))
    return items
