"""Folders of data: what their meta.json says, and the checks that every reader makes (no torch)."""

from pathlib import Path

import numpy as np

from base import files
from base.files import UserError
from base.tokenizer import Tokenizer

FORMAT = 1


def check_tokenizer(found: str, expected: str, where) -> None:
    """Raise UserError unless two tokenizer fingerprints are the same. Equal vocabulary sizes are not enough."""
    if found != expected:
        raise UserError(
            f"{where} made with tokenizer {found}",
            f"tokenizer {expected}",
            "run data_prep.py --tokenizer CHECKPOINT",
        )


def read_meta(folder, kind: str, what: str, do: str, remake: str) -> dict:
    """meta.json of a folder of this kind. Raises UserError if it is missing, changed, or another's."""
    meta = files.read_sealed(Path(folder) / "meta.json", what, do)
    if meta.get("format") != FORMAT or meta.get("kind") != kind:
        raise UserError(
            f"{folder}/meta.json with format {meta.get('format')!r} and kind {meta.get('kind')!r}",
            f"format {FORMAT} and kind {kind!r}",
            remake,
        )
    shapes = {"fingerprint": str, "tokenizer": str, "splits": dict, "files": dict}
    wrong = [
        name for name, shape in shapes.items() if not isinstance(meta.get(name, shape()), shape)
    ]
    wrong += [name for name in ("fingerprint", "splits") if name not in meta]
    wrong += (
        [
            name
            for name, about in meta.get("files", {}).items()
            if not isinstance(about, dict) or not {"bytes", "sha256"} <= about.keys()
        ]
        if not wrong
        else []
    )
    if wrong:
        raise UserError(
            f"{folder}/meta.json of another shape ({wrong[0]})",
            "what the script that made it wrote",
            remake,
        )
    return meta


def check_files(folder, meta: dict, names: tuple[str, ...], do: str) -> None:
    """Hold the files of a split to meta.json's checksums. A folder from before there were any is taken as it is."""
    if "files" in meta:
        table = {
            name: meta["files"].get(name, {"bytes": -1, "sha256": ""})
            for name in names
            if (Path(folder) / name).exists()
        }
        files.check_files(folder, table, do)


def open_array(path: Path, do: str) -> np.ndarray:
    """Any .npy of numbers, memory-mapped. Raises UserError if it is damaged; one of Python objects is never unpickled."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except PermissionError:
        raise
    except Exception as error:  # its header is a Python literal: ValueError, SyntaxError, TypeError, EOFError, OverflowError, …
        raise UserError(
            f"{path}, which is damaged or truncated", "a whole .npy file", do
        ) from error


def seal(folder, kind: str, tokenizer: Tokenizer, names: list[str], facts: dict) -> dict:
    """The end of making a folder: tokenizer.json, then meta.json with these facts and the checksums of the arrays `names`."""
    files.write_text(Path(folder) / "tokenizer.json", tokenizer.to_json())
    table = files.listed(folder, [*names, "tokenizer.json"])
    digest = files.sha256(b"".join(bytes.fromhex(table[name]["sha256"]) for name in names))
    meta = {
        "format": FORMAT,
        "kind": kind,
        "fingerprint": digest,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        **facts,
        "files": table,
    }
    files.write_sealed(Path(folder) / "meta.json", meta)
    return meta
