"""Checksums of a checkpoint: of its archive before it is interpreted, of its content after.

A checkpoint is a zip of raw records: a pickle of tensors and plain values, and one record per
tensor. torch does not check the zip's checksums when it reads. So two checks are made here. Every
record but the tensors' is compared with its CRC-32 before it is interpreted. Every tensor and plain
value is compared with its SHA-256 afterwards. A checkpoint without SHA-256 sums has its tensors'
records compared with their CRC-32.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from base.files import UserError

OWN = ("format", "checksums")  # keys of a checkpoint that the checksums do not cover
PIECE = 1 << 20  # bytes that are read at one time


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(name, leaf) of everything in nested dicts, lists and tuples; (name, length) of these."""
    if not isinstance(value, (dict, list, tuple)):
        yield name, value
        return
    yield name, len(value)
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(inner, f"{name}/{key}")


def digest(tensor: torch.Tensor) -> str:
    """The first 16 hex digits of the SHA-256 of a tensor's type, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    # With type and shape, because the same bytes may be other numbers.
    hashed = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    hashed.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()[:16]


def digests(content: Mapping[str, Any]) -> dict[str, str]:
    """{name: digest}: each tensor by its path, and the plain values of each key of `content`."""
    result = {}
    for key, value in content.items():
        if key in OWN:
            continue
        plain = hashlib.sha256()
        for name, leaf in leaves(value, key):
            if isinstance(leaf, torch.Tensor):
                result[name] = digest(leaf)
            else:
                plain.update(f"{name}={leaf!r}\n".encode("utf-8", "backslashreplace"))
        result[f"{key} (plain values)"] = plain.hexdigest()[:16]
    return result


def check(content: Mapping[str, Any], path: Path | str, do: str) -> None:
    """Compare a checkpoint's content with its `checksums`.

    do: what the user should do next. Raises UserError that names the first part which differs.
    """
    expected = content["checksums"] if isinstance(content["checksums"], dict) else {}
    try:
        actual = digests(content)
    except RecursionError:  # a list that holds itself
        actual = {}
    names = {**actual, **expected}
    wrong = [name for name in names if actual.get(name) != expected.get(name)]
    if wrong:
        raise UserError(
            f"{path}, in which {len(wrong)} of {len(expected)} parts were changed ({wrong[0]})",
            "a checkpoint as it was saved",
            do,
        )


def check_archive(path: Path, do: str, tensors: bool = False) -> None:
    """Compare a checkpoint's records with their CRC-32: the tensors' records, or all others.

    Raises UserError if a record differs, or if the file is no zip of uncompressed records. A
    compressed record might unpack to more bytes than there is memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            refuse_compressed(path, records, do)
            for record in records:
                if ("/data/" in record.filename) == tensors:
                    read_through(archive, record)
    except (PermissionError, UserError):
        raise
    # zipfile raises whatever its parser meets: BadZipFile, NotImplementedError, struct.error,
    # EOFError, …
    except Exception as error:
        raise UserError(
            f"{path}, which is damaged or truncated", "a whole checkpoint", do
        ) from error


def refuse_compressed(path: Path, records: list[zipfile.ZipInfo], do: str) -> None:
    """Raise UserError unless every record is stored as it is."""
    compressed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    unpacked = sum(record.file_size for record in records)
    if compressed or unpacked > path.stat().st_size:
        raise UserError(
            f"{path} with compressed records",
            "a checkpoint of this project, whose records are raw",
            do,
        )


def read_through(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    """Read a record to its end, where zipfile compares its CRC-32."""
    with archive.open(record) as file:
        while file.read(PIECE):
            pass
