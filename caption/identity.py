"""What tells a collection of captions from others: its content, not its dates.

A data folder keeps these digests in its meta.json. A second run into the folder compares them, so
that features never stand next to captions that were changed since.
"""

import os
from pathlib import Path

from base import files, images
from base.listing import files_below
from caption import photos, splits

# Folders of version 0.1.0 lack these digests, or hold None for .txt files: they stay valid.
DIGESTS = ("captions_sha256", "lists_sha256")


def of_captions(path: Path, folder: Path) -> str | None:
    """The digest of the captions at `path`, whose images are in `folder`; None for a hub data set.

    A copied file is still the same collection.
    """
    if path.is_file():
        return files.file_digest(path).hex()[:16]
    if not path.is_dir():
        return None
    metadata = photos.metadata_below(path)
    if metadata:
        return files.sha256(b"".join(files.file_digest(file) for file in metadata))
    # Other texts may lie there, such as skipped.txt of an --out below the folder.
    stems = set()
    for image in files_below(folder, images.SUFFIXES).paths:
        stems.add(image.relative_to(folder).with_suffix(""))
    parts = []
    for text in files_below(path, photos.TEXTS).paths:
        name = text.relative_to(path)
        if name.with_suffix("") in stems:
            # A name may hold bytes that are no UTF-8.
            parts += [os.fsencode(name.as_posix()), files.file_digest(text)]
    return files.sha256(b"\0".join(parts))


def of_lists(given: dict[str, str | None], path: Path) -> str | None:
    """The digest of the lists of splits, given or next to the captions; None if there are none."""
    parts = []
    for split, name in given.items():
        for file in splits.list_files(split, name, path, has_splits=False):
            parts += [split.encode(), files.file_digest(file)]
    return files.sha256(b"\0".join(parts)) if parts else None


def agree(before: dict, facts: dict) -> bool:
    """Whether a meta.json is of the collection with these facts.

    Only the keys of `facts` count: meta.json also holds what the folder adds, such as its splits.
    """
    for key, value in facts.items():
        unknown = key not in before or (key == DIGESTS[0] and before[key] is None)
        if before.get(key) != value and not (key in DIGESTS and unknown):
            return False
    return True
