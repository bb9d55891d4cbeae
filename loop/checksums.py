"""Checksums of a checkpoint's content, and a look at its archive before anything in it is interpreted (floor 1).

A checkpoint is a zip of raw records: a pickle of tensors and plain values, and one record a tensor. torch does not look at
the zip's checksums when it reads. So every record but the tensors' is held to its CRC-32 before it is interpreted, and every
tensor and plain value to its SHA-256 afterwards; where there are none of those, the tensors' records to the CRC-32 too.
"""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from base.files import UserError

OWN = ("format", "checksums")  # keys of a checkpoint that the checksums are not about
PIECE = 1 << 20


def leaves(value, name: str) -> Iterator[tuple[str, object]]:
    """(name, leaf) of all that is in nested dicts, lists and tuples; of a container its length."""
    if isinstance(value, (dict, list, tuple)):
        yield name, len(value)
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{name}/{key}")
    else:
        yield name, value


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes: its first 16 digits, as everywhere here."""
    plain = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}".encode())
    found.update(plain.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def digests(content: dict) -> dict[str, str]:
    """{name: digest} of every tensor by its path, and for each key of `content` of the plain values below it."""
    found = {}
    for key, value in content.items():
        if key in OWN:
            continue
        plain = hashlib.sha256()
        for name, leaf in leaves(value, key):
            if isinstance(leaf, torch.Tensor):
                found[name] = digest(leaf)
            else:
                plain.update(f"{name}={leaf!r}\n".encode("utf-8", "backslashreplace"))
        found[f"{key} (plain values)"] = plain.hexdigest()[:16]
    return found


def check(content: dict, path, do: str) -> None:
    """Hold a checkpoint's content to its `checksums`. Raises UserError that names the first part which differs."""
    expected = content["checksums"]
    try:
        found = digests(content)
    except RecursionError:  # a list that holds itself
        found = {}
    expected = expected if isinstance(expected, dict) else {}
    wrong = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if wrong:
        raise UserError(
            f"{path}, in which {len(wrong)} of {len(expected)} parts were changed ({wrong[0]})",
            "a checkpoint as it was saved",
            do,
        )


def check_archive(path: Path, do: str, tensors: bool = False) -> None:
    """Hold a checkpoint's records to their CRC-32: those of tensors, or all others. Raises UserError if one differs, or the
    file is no zip of uncompressed records (a compressed one might unpack to more than there is memory)."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if (
                any(one.compress_type != zipfile.ZIP_STORED for one in records)
                or sum(one.file_size for one in records) > path.stat().st_size
            ):
                raise UserError(
                    f"{path} with compressed records",
                    "a checkpoint of this project, whose records are raw",
                    do,
                )
            for one in records:
                if ("/data/" in one.filename) == tensors:
                    with archive.open(one) as record:
                        while record.read(PIECE):
                            pass
    except PermissionError:
        raise
    except UserError:
        raise
    except Exception as error:  # zipfile raises what its parser meets: BadZipFile, NotImplementedError, struct.error, EOFError, …
        raise UserError(
            f"{path}, which is damaged or truncated", "a whole checkpoint", do
        ) from error
