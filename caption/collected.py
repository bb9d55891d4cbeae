"""Captions gathered by image: nothing is joined wrongly, and nothing is lost without a count.

Every reader of captioned photographs adds to a `Collected`. Records of the same file are joined,
whatever the spelling of its name. A file with two splits is refused. What gave no caption is
counted, and the first such record is shown.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from base import files, images
from base.files import UserError

Photos = dict[str, tuple[str | None, list[str]]]  # {name: (split or None, captions)}

# Other names of the splits. restval counts as train in all papers.
SPLITS = {
    "restval": "train",
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}
KNOWN_SPLITS = {"train", "val", "test", *SPLITS}
SHOWN = 80  # characters of a record that a message shows


def split_named(text: str | None) -> str | None:
    """The usual name of a split, as in "Validation" for val; None for an empty name."""
    text = (text or "").strip()
    lower = text.lower()
    if lower in KNOWN_SPLITS:
        return SPLITS.get(lower, lower)
    return text or None


def shown(text: str) -> str:
    """A text for a message: quoted, on one line, and not too long."""
    text = repr(text[: SHOWN + 1])
    return text if len(text) <= SHOWN + 2 else text[:SHOWN] + "…"


@dataclass
class Collected:
    """The images and captions of one source, and the count of the records that gave none.

    source: what is read, for messages. folder: where the images are. unit: what the source calls
    its records. absolute: names may be absolute paths. lines_inside: lines of a table that stand
    inside quotation marks.
    """

    source: str
    folder: Path
    unit: str = "rows"
    absolute: bool = False
    photos: Photos = field(default_factory=dict)
    records: int = 0
    left_out: int = 0
    lines_inside: int = 0
    first: str = ""  # the first record that was left out, and why
    names: dict[str, str] = field(default_factory=dict)  # absolute path: the name of the image
    spellings: dict[str, str] = field(default_factory=dict)  # name in a record: name of the image

    def image(self, name: str) -> str:
        """The name under which an image is kept; every spelling of its path has the same name.

        Raises UserError if the name leads out of the folder of images.
        """
        if name not in self.spellings:
            spelled = spelling(self.folder, name, absolute=self.absolute)
            place = os.path.abspath(self.folder / spelled)
            self.spellings[name] = self.names.setdefault(place, spelled)
        return self.spellings[name]

    def add(self, name: str, split: str | None, captions: list[str], place: str) -> int:
        """Add the captions of a record to its image. Returns how many of them hold words.

        place: where the record stands, for messages. Raises UserError if the image is of another
        split already, or if its name leads out of the folder.
        """
        image = self.image(name)
        split = split_named(split)
        before, kept = self.photos.get(image, (None, []))
        if before and split and before != split:
            raise UserError(
                f"{image} of the split {before} and, at {place}, of the split {split} "
                f"in {self.source}",
                "one split for each image",
                "remove the image from one of them",
            )
        texts = [" ".join(caption.split()) for caption in captions]
        texts = [text for text in texts if text]
        self.photos[image] = before or split, kept + texts
        return len(texts)

    def leave_out(self, place: str, why: str) -> None:
        """Count a record that gave no caption."""
        if not self.left_out:
            self.first = f"{place}: {why}"
        self.left_out += 1

    def report(self) -> None:
        """Say on stderr how many records gave no caption, and show the first."""
        if self.left_out:
            print(
                f"{self.source}: {self.left_out:,} of {self.records:,} {self.unit} gave no image "
                f"with a caption and are left out; the first: {self.first}",
                file=sys.stderr,
            )


def spelling(folder: Path, name: str, *, absolute: bool = False) -> str:
    """The name of an image relative to `folder`, as its file is really called.

    A name is taken as it is if there is such a file. Otherwise three other readings are tried: with
    Windows' backslashes as slashes; without the name of the folder itself in front; and with the
    suffix of an image at the end. If no reading names a file, the name stays.
    Raises UserError if the name leads out of the folder.
    """
    readings = [name]
    slashes = name.replace("\\", "/")
    if slashes != name:
        readings.append(slashes)
    parts = Path(slashes).parts
    if len(parts) > 1 and parts[0] == folder.resolve().name:
        readings.append(str(Path(*parts[1:])))
    for reading in readings:
        if os.path.exists(files.inside(folder, reading, absolute=absolute)):
            return str(Path(reading))
    if Path(name).suffix.lower() not in images.SUFFIXES:  # most missing images have a suffix
        for reading in readings:
            endings = [end for end in images.SUFFIXES if os.path.exists(folder / (reading + end))]
            if len(endings) == 1:
                return str(Path(reading + endings[0]))
    return str(Path(name))
