"""Progress bars: count, rate and time left on stderr, from one process, and none for quick work."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

from loop import distributed

QUICK = 2.0  # seconds; work that is done by then shows no bar
# Seconds between two drawings of a bar: a log file needs few.
PAUSE_ON_TERMINAL, PAUSE_IN_FILE = 0.1, 30.0


def pause() -> float:
    """Seconds between two drawings: few on a terminal, many in a file, where each one stays."""
    return PAUSE_ON_TERMINAL if sys.stderr.isatty() else PAUSE_IN_FILE


def bar(
    items: Iterable | None = None, title: str | None = None, unit: str = "it", **more: Any
) -> tqdm:
    """A bar over `items`, or a bar to `update`. more: for tqdm, such as `total`."""
    return tqdm(
        items,
        desc=title,
        unit=unit,
        file=sys.stderr,
        delay=QUICK,
        mininterval=pause(),
        maxinterval=pause(),
        dynamic_ncols=True,
        disable=not distributed.leads(),
        **more,
    )


class Tokens:
    """A bar over the tokens that are written into the masks of rows, batch by batch.

    rows: the ids of all rows. mask_id: the id that stands in a blank.
    """

    def __init__(self, rows: list[list[int]], mask_id: int):
        self.mask_id = mask_id
        self.begun = 0  # masks of all batches up to the present batch
        self.bar = bar(total=self.masks(rows), unit="token")

    def masks(self, rows: list[list[int]]) -> int:
        return sum(row.count(self.mask_id) for row in rows)

    def batch(self, rows: list[list[int]]) -> Callable[[int], None]:
        """Begin the next batch; call the result with the number of masks that are left in it."""
        self.show(self.begun)  # the batch before is finished
        self.begun += self.masks(rows)
        end = self.begun

        def note(left: int) -> None:
            self.show(end - left)

        return note

    def show(self, count: int) -> None:
        """Move the bar on to `count` tokens; a mask that comes back does not move it back."""
        self.bar.update(max(0, count - self.bar.n))

    def __enter__(self) -> "Tokens":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self.show(self.begun)
        self.bar.close()
