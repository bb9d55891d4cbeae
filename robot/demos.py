"""Settings of a folder of demonstrations and stills."""

from dataclasses import dataclass

from base import flags
from base.errors import UserError
from base.flags import setting
from worlds import metaworld
from worlds.camera import CAMERAS, LARGEST, SMALLEST

WORLDS = ("table", "so101", "metaworld")
TABLES = ("table", "so101")  # worlds with the things, orders and cameras of our table
FREE_TASKS = ("next_to", "around")
ACTION_NAMES = ["x", "y", "z", "gripper"]


@dataclass
class Demos:
    """The demonstrations and the stills."""

    out: str = setting("data_robot", "folder to write", metavar="FOLDER")
    world: str = setting(
        "table",
        "our table, the arm SO-101 at a table of half the size, or the tasks of Meta-World",
        choices=WORLDS,
    )
    tasks: str | None = setting(
        None, "of Meta-World: tasks, groups, ten, or all, with commas between them; none: ten"
    )
    num_demos: int = setting(800, "demonstrations, an order each", at_least=1)
    num_stills: int = setting(20_000, "still moments, for the words", at_least=10)
    orders: int = setting(8, "orders per still of a table", at_least=1)
    image_side: int = setting(96, "pixels of an image's side; 0: no images", at_least=0)
    cameras: str | None = setting(
        None, "of a table: front, top, wrist, with commas between them; none: front"
    )
    mishaps: float | None = setting(
        None,
        "of a table: share of the demonstrations that begin after something went wrong, such as a "
        "missed grip; none: 0.4",
        at_least=0.0,
        at_most=1.0,
    )
    free_choices: float = setting(
        0.0,
        "share of the tasks that leave a choice free",
        at_least=0.0,
        at_most=1.0,
    )
    free_tasks: str = setting(
        "next_to", "these tasks: next_to, around, or both with a comma between them"
    )
    seed: int = setting(0, "decides every layout, order and disturbance")

    def __post_init__(self):
        flags.check(self)

        if self.world in TABLES:
            self.refuse("tasks")
            self.cameras = self.cameras or "front"
            self.mishaps = 0.4 if self.mishaps is None else self.mishaps
        else:
            self.refuse("cameras")
            self.refuse("mishaps")
            self.tasks, self.cameras = self.tasks or "ten", metaworld.CAMERA
            metaworld.tasks_of(self.tasks)
        for name in self.cameras.split(",") if self.world in TABLES else ():
            if name not in CAMERAS:
                raise flags.unknown(f"--cameras {self.cameras}", name, list(CAMERAS))
        for name in self.free_tasks.split(","):
            if name not in FREE_TASKS:
                raise flags.unknown(f"--free_tasks {self.free_tasks}", name, list(FREE_TASKS))
            if name == "around" and self.world == "so101":
                raise UserError(
                    "--free_tasks around with --world so101", "next_to: it has no wall", "leave it"
                )
        if self.image_side and not SMALLEST <= self.image_side <= LARGEST:
            raise UserError(
                f"--image_side {self.image_side}", f"0, or {SMALLEST} to {LARGEST}", "choose 96"
            )

    def refuse(self, name: str) -> None:
        """Raise UserError if a flag is given that the world has no use for."""
        value = getattr(self, name)
        # A dataclass that is copied has the camera of Meta-World already.
        if value is not None and value != metaworld.CAMERA:
            raise UserError(
                f"--{name} {value} with --world {self.world}", f"no --{name}", "leave it out"
            )

    def camera_names(self) -> list[str]:
        """The cameras that draw: none without images."""
        return str(self.cameras).split(",") if self.image_side else []

    def task_names(self) -> list[str]:
        """The tasks of Meta-World."""
        return metaworld.tasks_of(str(self.tasks))
