"""The files of a folder and of the folders below it, by suffix. Standard library only.

Links are followed. A folder that is reached twice, as through a link to its own parent, is listed
once, under its own name if it lies in the folder itself. A suffix counts in capital and in small
letters. A name that begins with a dot is skipped: macOS and editors leave such files. Everything
that is left out is counted.
"""

import fnmatch
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

HIDDEN, BROKEN, CLOSED = "hidden", "broken links", "folders that cannot be read"


class Listing:
    """The files that were wanted, sorted, and a count of the others by suffix.

    left_out: the count of each suffix, and of what has none. first: the first file that is left
    out.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths: list[Path] = []
        self.left_out: Counter[str] = Counter()
        self.first: Path | None = None

    def leave_out(self, path: Path, kind: str) -> None:
        """Count a file that is left out."""
        self.left_out[kind] += 1
        if self.first is None:
            self.first = path

    def words(self) -> str:
        """What was left out, as words; empty if nothing was."""
        if self.first is None:
            return ""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.left_out.most_common())
        return f"{self.left_out.total():,} left out: {kinds} (the first: {self.first})"

    def report(self) -> None:
        """Print what was left out, if anything was."""
        if self.first is not None:
            print(
                f"{self.folder}: {len(self.paths):,} files taken, {self.words()}", file=sys.stderr
            )


def files_below(folder, suffixes: Iterable[str], used: Iterable[str] = ()) -> Listing:
    """The files in a folder and below it whose suffix is one of `suffixes`, such as ".txt".

    used: suffixes of files that the caller reads in another way; they do not count as left out.
    """
    listing = Listing(Path(folder))
    wanted, elsewhere = set(suffixes), set(used)
    for place, names in walk(listing):
        for name in names:
            path = place / name
            suffix = path.suffix.lower()
            if name.startswith("."):
                listing.leave_out(path, HIDDEN)
            elif suffix in wanted and path.is_file():
                listing.paths.append(path)
            elif not path.exists():
                listing.leave_out(path, BROKEN)
            elif suffix not in elsewhere:
                listing.leave_out(path, suffix or "without a suffix")
    listing.paths.sort()
    return listing


def walk(listing: Listing) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files) of each folder once; folders behind links come last."""

    def closed(error: OSError) -> None:
        listing.leave_out(Path(error.filename), CLOSED)

    waiting, seen = [str(listing.folder)], set()
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0), onerror=closed):
            key = identity(place)
            inside, folders[:] = sorted(folders), []
            if key in seen:
                continue
            seen.add(key)
            for name in inside:
                path = os.path.join(place, name)
                if name.startswith("."):
                    listing.leave_out(Path(path), HIDDEN)
                elif os.path.islink(path):
                    waiting.append(path)  # after the folder's own, so that their names win
                else:
                    folders.append(name)
            yield Path(place), sorted(names)


def matching(folder: Path, *patterns: str) -> list[Path]:
    """The files of a folder, not below it, whose names fit a pattern such as "*.csv", sorted.

    Capital and small letters are the same. Names that begin with a dot fit nothing.
    """
    found = []
    for path in sorted(Path(folder).iterdir()):
        name = path.name.lower()
        fits = any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in patterns)
        if fits and not name.startswith(".") and path.is_file():
            found.append(path)
    return found


def identity(path) -> tuple[int, int]:
    """What tells a folder from all others, under whatever name it is reached."""
    about = os.stat(path)
    return about.st_dev, about.st_ino


def once(paths: Iterable[Path]) -> list[Path]:
    """The paths, sorted, without those that reach a listed file through a link to its folder."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        found.setdefault((os.path.realpath(path.parent), path.name), path)
    return sorted(found.values())
