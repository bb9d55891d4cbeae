"""Folders of data: what their meta.json says, and the checks that every reader makes (no torch)."""

from pathlib import Path

import numpy as np

from base import files
from base.files import UserError
from base.tokenizer import Tokenizer

FORMAT = 1


def check_tokenizer(fingerprint: str, expected: str, where) -> None:
    """Raise UserError unless two tokenizer fingerprints are the same.

    Equal vocabulary sizes are not enough: the same ids would mean other tokens.
    """
    if fingerprint != expected:
        raise UserError(
            f"{where} made with tokenizer {fingerprint}",
            f"tokenizer {expected}",
            "run data_prep.py --tokenizer CHECKPOINT",
        )


def read_meta(folder, kind: str, what: str, do: str, remake: str) -> dict:
    """meta.json of a folder of this kind. Raises UserError if it is missing, changed, or another's.

    what, do: for the errors about the file. remake: what to do about a folder of another kind.
    """
    meta = files.read_sealed(Path(folder) / "meta.json", what, do)
    # The kind comes before the shape: another kind has another shape too.
    if meta.get("format") != FORMAT or meta.get("kind") != kind:
        raise UserError(
            f"{folder}/meta.json with format {meta.get('format')!r} and kind {meta.get('kind')!r}",
            f"format {FORMAT} and kind {kind!r}",
            remake,
        )
    wrong = wrong_entries(meta)
    if wrong:
        raise UserError(
            f"{folder}/meta.json of another shape ({wrong[0]})",
            "what the script that made it wrote",
            remake,
        )
    return meta


def wrong_entries(meta: dict) -> list[str]:
    """The entries of meta.json that are missing or not of the shape that readers need."""
    shapes = {"fingerprint": str, "tokenizer": str, "splits": dict, "files": dict}
    # Only these must be there. Folders of early versions list no files.
    wrong = [name for name in ("fingerprint", "splits") if name not in meta]
    for name, shape in shapes.items():
        if not isinstance(meta.get(name, shape()), shape):
            wrong.append(name)
    if wrong:
        return wrong
    return files.unlisted(meta.get("files", {}))


def check_files(folder, meta: dict, names: tuple[str, ...], do: str) -> None:
    """Compare the files of a split with the checksums in meta.json.

    Folders of early versions have no checksums and are taken as they are.
    """
    if "files" in meta:
        table = {
            # A file that is there and not listed is refused: no file has -1 bytes.
            name: meta["files"].get(name, {"bytes": -1, "sha256": ""})
            for name in names
            if (Path(folder) / name).exists()
        }
        files.check_files(folder, table, do)


def open_array(path: Path, do: str) -> np.ndarray:
    """A .npy file of numbers, memory-mapped; an array of Python objects is never unpickled.

    Raises UserError if the file is damaged.
    """
    try:
        # np.load would also open a zip of arrays under this name.
        return np.lib.format.open_memmap(path, mode="r")
    except PermissionError:  # not damage: `files.run` names what is not allowed
        raise
    except Exception as error:  # the header is a Python literal: many kinds of errors
        raise UserError(
            f"{path}, which is damaged or truncated", "a whole .npy file", do
        ) from error


def seal(folder, kind: str, tokenizer: Tokenizer, names: list[str], facts: dict) -> dict:
    """Finish a folder: write tokenizer.json, then meta.json with facts and the arrays'
    checksums.
    """
    files.write_text(Path(folder) / "tokenizer.json", tokenizer.to_json())
    table = files.listed(folder, [*names, "tokenizer.json"])
    # Of the arrays alone: the command in meta.json must not change the fingerprint.
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
    # The last file: a folder without meta.json is not valid.
    files.write_sealed(Path(folder) / "meta.json", meta)
    return meta
