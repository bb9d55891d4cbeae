"""The stages of the demo of all models: real commands that read what others write."""

import importlib
from pathlib import Path

import pytest

from base import flags
from base.errors import UserError
from image import stages
from loop import commands
from loop.commands import Command


def parsed(command: Command):
    """What the command's own parser makes of it: a wrong flag is an error."""
    start = 2 if command[0] == "-m" else 1
    module = importlib.import_module(commands.script_of(command))
    arguments = module.parse_args(command[start:])
    # Each group of flags, with its limits.
    for name in arguments.parser.groups:
        kind = getattr(module, name, None)
        if kind:
            flags.resolve(kind, arguments)
    return arguments


def every(world: stages.World) -> list[Command]:
    """All commands of a demo, in the order in which they may run."""
    queues = stages.trainings(world, 5.0)
    return [*stages.drawings(world), *sum(queues.values(), []), stages.page(world)]


@pytest.mark.parametrize("quick", [True, False])
def test_every_stage_is_a_command_with_its_flags(tmp_path, quick):
    made = every(stages.World(tmp_path, seed=3, quick=quick))
    assert all(parsed(command).seed == 3 for command in made)
    # What a stage reads, an earlier stage wrote.
    written = [Path(commands.value_of(command, "--out")) for command in made[:-1]]
    assert len(set(written)) == len(written)
    trained = [command for command in made if commands.script_of(command).startswith("train")]
    for command in trained:
        assert Path(commands.value_of(command, "--data_dir")) in written
        assert ("--minutes" in command) != quick
    page = parsed(made[-1])
    for path in (page.captioner, page.painter, page.clip_captioner, page.dialogue):
        assert Path(path).parent in written and Path(path).name == "best.pt"
    for name in ("captions_data", "pictures_data", "clips_data", "dialogues_data"):
        assert Path(getattr(page, name)) in written


def test_the_shares_are_of_the_whole_time(tmp_path):
    queues = stages.trainings(stages.World(tmp_path), 4.0)
    for queue in queues.values():
        total = sum(float(commands.value_of(command, "--minutes")) for command in queue)
        assert total == pytest.approx(4.0)
    assert stages.minutes_left(10.0, 2.0) == pytest.approx(10 * (1 - stages.RESERVED) - 2)
    with pytest.raises(UserError, match="--minutes 1, of which drawing took 2.0"):
        stages.minutes_left(1.0, 2.0)


def test_the_full_trainings_are_commands():
    """The checkpoint and the data of each are the page's own defaults, or named."""
    for section in stages.SECTIONS:
        *_, train = stages.full(section)
        assert commands.script_of(train).startswith("train")
        for command in stages.full(section):
            parsed(command)
    codes = parsed(stages.full("drawings")[0]).codes
    assert codes == "assets/picture_codes.safetensors"


def test_codes_that_are_not_there_cost_no_time(tmp_path, painted):
    sizes = {"minutes": 1.0, "seed": 0, "quick": True}
    with pytest.raises(UserError, match="no such file|not there|picture codes"):
        stages.make(tmp_path, tmp_path / "no.safetensors", painted.reader, **sizes)
    with pytest.raises(UserError, match="picture reader"):
        codes = painted.data / "codes.safetensors"
        stages.make(tmp_path, codes, codes, **sizes)
    assert not list(tmp_path.iterdir())
