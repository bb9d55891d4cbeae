"""Demonstrations and stills of the SO-101, in the form of the table's: the same scripts train on
them. Actions are absolute joints, in the units of LeRobot's driver.
"""

from pathlib import Path

from base.tokenizer import Tokenizer
from robot import table_demos
from robot.demos import Demos
from robot.table_demos import World
from worlds import so101, so101_expert, so101_model

# Degrees, and 0 to 100: wider than every joint's limits.
SO101 = World(
    "so101",
    so101.SO101Env,
    so101_expert.ArmExpert,
    so101.STATE_NAMES,
    so101.JOINT_NAMES,
    action_range=(-180.0, 180.0),
    scale=so101_model.SCALE,
)

all_words = table_demos.all_words


def record_demos(demos: Demos, folder: Path) -> int:
    """Record the demonstrations. Returns how often the expert failed."""
    return table_demos.record_demos(demos, folder, SO101)


def draw_stills(demos: Demos, folder: Path, tokenizer: Tokenizer) -> None:
    """Draw the stills, and write their arrays. Places are real metres."""
    table_demos.draw_stills(demos, folder, tokenizer, SO101)
