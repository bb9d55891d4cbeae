"""--tensorboard: the figures of log.jsonl, shown by TensorBoard too. It is installed apart.

A run writes into the folder tensorboard/ of its run folder. A resumed run writes there again.
TensorBoard then leaves out what a killed run wrote after its last saved state, as log.jsonl does.
"""

import importlib
from pathlib import Path
from typing import Any

from base.files import UserError

FOLDER = "tensorboard"
EVENTS = "events.out.tfevents.*"  # the names that TensorBoard looks for


def require() -> None:
    """Raise UserError unless TensorBoard is installed. It is asked before any data are read."""
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise UserError(
            "--tensorboard without TensorBoard",
            "the package tensorboard",
            "run pip install -r requirements-extra.txt, or add --no-tensorboard",
        ) from error


class Board:
    """The event files of a run.

    step: the step that the run continues from; later events of earlier processes are not shown.
    before: the lines of log.jsonl up to this step, for a run that had no --tensorboard until now.
    """

    def __init__(self, run_dir: Path, step: int, before: list[dict[str, Any]]):
        # TensorBoard takes seconds to import, and only this class needs it.
        from torch.utils.tensorboard import SummaryWriter

        folder = run_dir / FOLDER
        is_new = not any(folder.glob(EVENTS))
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)
        for values in before if is_new else []:
            self.write(values)

    def write(self, values: dict[str, Any]) -> None:
        """Add the figures of one line of log.jsonl, each under its own name."""
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, values["step"])
        self.writer.flush()  # a reader sees it now
